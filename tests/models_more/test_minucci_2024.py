"""Minucci 2024: each patient's exposure, the bound on the tumour, and cells that are kept."""

import numpy as np
import pytest
from test_models import GOLDEN, assert_printed, solved

from carpk import registry
from carpk.structure import named

MODEL = registry.load("models", "minucci_2024")
GOLD = GOLDEN["minucci_2024"]
DAYS = np.arange(5601) * 0.005  # the grid on which the days of the peaks are given
N_MAX = 7e12  # carrying capacity of the unreduced model


@pytest.mark.parametrize("exposure", GOLD["exposure"], ids=lambda e: e["set"])
def test_the_printed_exposure_of_a_patient_is_reproduced(exposure):
    at = solved(MODEL, {"set": exposure["set"]}, 100.0)
    level = at(DAYS)["CAR"]
    seen = {"Cmax": level.max(), "Tmax": DAYS[level.argmax()],
            "area_28": np.trapezoid(level, DAYS), "day_100": at([100.0])["CAR"][0]}
    for what, text in exposure["printed"].items():
        assert_printed(float(seen[what]), text)


@pytest.mark.parametrize("patient", list(MODEL.parameter_sets))
def test_the_tumour_stays_below_its_carrying_capacity_for_100_days(patient):
    at = solved(MODEL, {"set": patient}, 100.0)
    assert at(np.linspace(0.0, 100.0, 501))["T"].max() < N_MAX


def test_without_cd19_infused_cells_only_die_and_the_lymphocytes_return():
    entry = {"set": "F0104", "values": {"N0": 1e-200}}
    p = {**MODEL.parameter_sets["F0104"], **entry["values"]}
    times = np.array([1.0, 10.0, 100.0])
    seen = solved(MODEL, entry, 100.0)(times)
    left = p["WT"] * p["dose"] * np.exp(-times / p["tau_i"]) / (p["V"] * 1e6)
    np.testing.assert_allclose(seen["CAR"], left, rtol=1e-9)
    full = p["Lss"] * p["V"]
    np.testing.assert_allclose(seen["L"], full * (1.0 - p["fdepl"] * np.exp(-times / p["tau_L"])),
                               rtol=1e-9)


def test_half_of_the_cars_are_bound_at_the_derived_burden():
    p = named({**MODEL.parameter_sets["F0104"], "tau_i": np.inf})
    burden = MODEL.derive(p)["T_half_bound"]
    y = {**MODEL.initial(p), "T": burden}
    np.testing.assert_allclose(MODEL.rates(0.0, named(y), p)["I8"] / y["I8"],
                               -0.5 * 24.0 / p.tact8, rtol=1e-12)
