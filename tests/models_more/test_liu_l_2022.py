"""Liu 2022: leukaemic burden; what either population does where the other is missing."""

import numpy as np
import pytest
from scipy.optimize import brentq
from test_models import GOLDEN, assert_printed, integrated, solved, table, values_of

from carpk import registry

NAMES = ("liu_l_2022", "liu_l_2022_negative_relapse")


def burden(cells):
    """Leukaemia in marrow, %, of CD19+ and CD19- cells per uL: the authors' script."""
    return 97.19 * cells / (cells + 1909.0)


@pytest.mark.parametrize(("name", "entry"), [
    pytest.param(name, entry, id=entry["set"]) for name in NAMES
    for entry in GOLDEN[name]["burden"]])
def test_the_leukaemic_burden_falls_and_returns_as_printed(name, entry):
    rows = table(entry["printed"])
    days = [float(t) for t in rows["t"]]
    at = solved(registry.load("models", name), entry, days[-1])

    def seen(times):
        states = at(times)
        return burden(states["B"] + states.get("M", 0.0))

    for value, text in zip(seen(days), rows["LB"], strict=True):
        assert_printed(value, text)
    grid = np.arange(0.0, days[-1] + 0.5)
    passed = np.flatnonzero(np.diff(seen(grid) > 5.0))
    for k, text in zip(passed, entry["through_5"], strict=True):
        assert_printed(brentq(lambda t: seen([t])[0] - 5.0, grid[k], grid[k + 1]), text)
    assert_printed(np.trapezoid(at(grid[:29])["T"], grid[:29]), entry["area_28"])


def test_residual_disease_and_the_clone_at_the_infusion_are_the_printed_burdens():
    rest = next(e for e in GOLDEN["liu_l_2022"]["equilibrium"] if e["set"] == "set 1")["state"]
    for cells, text in ((float(rest["B"]), "2.5295"), (19.88984724, "1.002"), (103.54, "5.000")):
        assert_printed(burden(cells), text)


@pytest.mark.parametrize(("name", "title"), [("liu_l_2022", "set 1"), ("liu_l_2022", "set 3"),
                                             ("liu_l_2022_negative_relapse", "set 2")])
def test_without_car_t_cells_the_leukaemia_grows_logistically(name, title):
    model = registry.load("models", name)
    p = values_of(model, {"set": title, "values": {"nTN0": 1e-250, "NB0": 10.0}})
    times = np.array([1.0, 10.0, 50.0, 100.0])
    seen = integrated(model, p, {}, 100.0)(times)
    grown = 10.0 * np.exp(p["rBp"] * times)
    np.testing.assert_allclose(seen["B"], grown / (1 + (grown - 10.0) / p["nMB"]), rtol=1e-8)


def test_without_leukaemia_car_t_cells_decline_exponentially():
    model = registry.load("models", "liu_l_2022")
    p = values_of(model, {"set": "set 1", "values": {"NB0": 1e-200, "rBp": 1e-9}})
    times = np.array([1.0, 10.0, 100.0])
    seen = integrated(model, p, {"T": 50.0}, 100.0)(times)
    np.testing.assert_allclose(seen["T"], 50.0 * np.exp(-p["lTA0"] * times), rtol=1e-9)
    np.testing.assert_allclose(seen["N"], p["nTN0"] * np.exp(-p["lTN"] * times), rtol=1e-9)
