"""Hardiansyah 2019: exposure, the slow decline of memory, and how burden outweighs dose."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from test_dose_schedules import dosed, last
from test_models import GOLDEN, assert_printed, values_of

from carpk import registry
from carpk.structure import named

MODEL = registry.load("models", "hardiansyah_2019")
GOLD = GOLDEN["hardiansyah_2019"]
ENTRIES = {e["set"]: e for e in GOLD["schedule"]}
DAYS = np.linspace(0.0, 60.0, 6001)


def peaks(entry, dose=1.0, burden=1.0):
    """Of every output on a grid of 0.01 day: CAR T cells of a small burden just after a dose."""
    scaled = {**entry, "method": "LSODA",
              "doses": [[t, state, dose * amount] for t, state, amount in entry["doses"]],
              "values": {"B0": burden * values_of(MODEL, entry)["B0"]}}
    seen = dosed(MODEL, scaled, DAYS[-1])(DAYS)
    return {o: seen[o].max() for o in ("CART", "IL6", "IL10", "IFNg")}


@pytest.mark.parametrize("exposure", GOLD["exposure"], ids=lambda e: e["set"])
def test_the_printed_exposure_decline_and_effect_of_the_burden_are_reproduced(exposure):
    entry, printed = ENTRIES[exposure["set"]], exposure["printed"]
    at = dosed(MODEL, entry, last(entry))
    first, late = DAYS[DAYS <= 28], np.linspace(250.0, 350.0, 101)
    slope = -np.polyfit(late, np.log(at(late)["CART"]), 1)[0]
    seen = {"area_28": np.trapezoid(at(first)["CART"], first), "late_loss": slope,
            "late_half_life": np.log(2.0) / slope,
            "fold_burden": peaks(entry, burden=2.0)["CART"] / peaks(entry, burden=0.5)["CART"]}
    for what, text in printed.items():
        assert_printed(float(seen[what]), text)


@pytest.mark.parametrize("title", list(ENTRIES))
def test_four_times_the_dose_changes_every_peak_by_less_than_4_percent(title):
    high, low = (peaks(ENTRIES[title], dose=dose) for dose in (2.0, 0.5))
    for output in high:
        assert abs(high[output] / low[output] - 1) < 0.04, output


def test_the_leukaemia_of_upn1_is_where_the_figure_has_it():
    at = dosed(MODEL, ENTRIES["UPN1"], last(ENTRIES["UPN1"]))([50.0, 350.0])["B"]
    assert_printed(at[0], "0.2907")
    assert_printed(at[1], "0.4840")


def test_without_car_t_cells_cytokines_rest_and_the_leukaemia_grows():
    p = named(MODEL.parameter_sets["UPN1"])
    dy = MODEL.rates(0.0, named(MODEL.initial(p)), p)
    assert all(dy[n] == 0 for n in dy if n != "B")
    np.testing.assert_allclose(dy["B"] / p.B0, 1.7e-3, rtol=1e-12)


def test_cells_that_neither_divide_nor_die_are_kept():
    p = named({**MODEL.parameter_sets["UPN3"], "rE": 0.0, "dE": 0.0, "rM": 0.0, "dM": 0.0,
               "h": 0.5})
    cells = ("E", "Et", "M", "Mt")

    def slopes(t, x):
        dy = MODEL.rates(t, named({**start, **dict(zip(cells, x, strict=True))}), p)
        return [dy[n] for n in cells]

    start = MODEL.initial(p)
    path = solve_ivp(slopes, (0.0, 30.0), [1.0, 0.0, 0.0, 0.0], method="LSODA", rtol=1e-10)
    np.testing.assert_allclose(path.y.sum(axis=0), 1.0, rtol=1e-9)
    assert path.y[2, -1] > 1e-4
