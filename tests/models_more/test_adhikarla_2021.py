"""Adhikarla 2021: control and survival under each order of the therapies, and the best interval."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from test_dose_schedules import dosed
from test_models import GOLDEN, assert_printed

from carpk import registry
from carpk.structure import named

MODEL = registry.load("models", "adhikarla_2021")
GOLD = GOLDEN["adhikarla_2021"]
AMOUNT = {"NC": 1e6, "A": 0.1}


def measures(doses, N0, until):
    """Last day at or below the burden of day 7, day of 1e11 cells, day of the nadir."""
    at = dosed(MODEL, {"doses": doses, "values": {"N0": N0}}, until)

    def log_burden(t):
        return float(np.log(at([t])["tumour"][0]))

    days = np.arange(7.0, until, 0.25)
    burden = np.log(at(days)["tumour"])
    alive = np.logical_and.accumulate(burden < np.log(1e11))  # later CAR T cells multiply
    days, burden, first = days[alive], burden[alive], burden[0]
    below, low, death = days[burden <= first].max(), days[burden.argmin()], days.max()
    return {
        "pfs": below if below == 7.0 else
        brentq(lambda t: log_burden(t) - first, below, below + 0.25),
        "os": brentq(lambda t: log_burden(t) - np.log(1e11), death, death + 0.25),
        "nadir": minimize_scalar(log_burden, bounds=(low - 0.3, low + 0.3),
                                 method="bounded", options={"xatol": 1e-6}).x,
    }


@pytest.mark.parametrize("N0", [5e6, 1e6])
@pytest.mark.parametrize("scenario", GOLD["survival"], ids=lambda s: s["title"])
def test_control_and_survival_of_a_therapy_are_the_printed_days(scenario, N0):
    printed = scenario[f"from_{N0 / 1e6:.0f}e6"]
    seen = measures(scenario["doses"], N0, float(printed["os"]) + 1.0)
    for what, text in printed.items():
        assert_printed(seen[what], text)


@pytest.mark.parametrize("interval", GOLD["interval"], ids=lambda i: i["first"])
def test_the_best_interval_between_the_therapies_is_the_printed_one(interval):
    first, second = interval["first"], "A" if interval["first"] == "NC" else "NC"
    seen = {k: measures([[7, first, AMOUNT[first]], [7 + k, second, AMOUNT[second]]], 5e6, 105.0)
            for k in range(15, 60)}
    assert max(seen, key=lambda k: seen[k]["pfs"]) == interval["best_pfs"]
    assert_printed(max(m["os"] for m in seen.values()), interval["longest_os"])


def test_the_first_kill_by_radiation_and_by_car_t_cells():
    p = named(MODEL.typical)
    alone = MODEL.rates(7.0, named({"NT": 1.0, "NR": 0.0, "NC": 0.0, "A": 0.0}), p)["NT"]
    for state, kill in (("A", "0.522"), ("NC", "0.449")):
        y = named({"NT": 1.0, "NR": 0.0, "NC": 0.0, "A": 0.0, state: AMOUNT[state]})
        assert_printed(alone - MODEL.rates(7.0, y, p)["NT"], kill)


def test_irradiated_cells_leave_nothing_but_damaged_ones():
    p = named({**MODEL.typical, "rho": 0.0, "k_cl": 0.0})
    dy = MODEL.rates(7.0, named({"NT": 5.0, "NR": 2.0, "NC": 0.0, "A": 0.1}), p)
    np.testing.assert_allclose(dy["NT"] + dy["NR"], 0.0, atol=1e-15)
