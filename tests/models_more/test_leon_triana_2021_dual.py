"""León-Triana 2021, solid tumours: equilibria of one target, escape of two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from test_models import assert_printed, solved

from carpk import registry
from carpk.structure import named

SINGLE = registry.load("models", "leon_triana_2021_single")
DUAL = registry.load("models", "leon_triana_2021_dual")


def slopes(x, alpha_1):
    p = named({**SINGLE.typical, "alpha_1": alpha_1})
    dy = SINGLE.rates(0.0, named({"C": x[0], "T": x[1]}), p)
    return jnp.stack([jnp.asarray(dy["C"]), jnp.asarray(dy["T"])])


def coexisting(alpha_1):
    """Every T at which C_rest CAR T cells neither grow nor shrink."""
    def growth(ln_T):
        return float(slopes(jnp.array([8e7, np.exp(ln_T)]), alpha_1)[0]) / 8e7

    grid = np.log(np.geomspace(1e8, 1e12, 161))
    signs = np.sign([growth(x) for x in grid])
    return [float(np.exp(brentq(growth, grid[k], grid[k + 1], xtol=1e-12)))
            for k in np.flatnonzero(np.diff(signs))]


@pytest.mark.parametrize(("alpha_1", "printed"), [
    (0.0, ["1.88679e9"]), (0.02, ["2.23385e9", "6.65090e10"]),
    (0.04, ["2.79519e9", "2.65762e10"]), (0.065, ["4.90097e9", "9.32760e9"]), (0.068, [])])
def test_tumour_and_car_t_cells_coexist_at_the_printed_numbers(alpha_1, printed):
    found = coexisting(alpha_1)
    assert len(found) == len(printed)
    for value, text in zip(found, printed, strict=True):
        assert_printed(value, text)
        np.testing.assert_allclose(slopes(jnp.array([8e7, value]), alpha_1)[1], 0.0, atol=1e-5)


def test_coexistence_ends_at_the_critical_suppression():
    critical = float(SINGLE.derive(named({**SINGLE.typical, "C0": 8e7, "T0": 1e9}))["alpha_1_crit"])
    assert len(coexisting(0.999 * critical)) == 2
    assert not coexisting(1.001 * critical)


def test_without_any_cell_the_tumour_grows_and_car_t_cells_die():
    jacobian = np.asarray(jax.jacfwd(slopes)(jnp.array([0.0, 0.0]), 0.02))
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(jacobian)), [-1 / 7, 0.02], rtol=1e-12)


@pytest.mark.parametrize("alpha_1", [0.035, 0.04, 0.1])
def test_too_few_car_t_cells_decline_from_the_start(alpha_1):
    times = np.linspace(0.0, 60.0, 121)
    seen = solved(SINGLE, {"set": "strong suppression", "values": {"alpha_1": alpha_1}}, 60.0)
    assert np.all(np.diff(seen(times)["C"]) < 0)


def test_two_targets_fail_when_the_tumour_suppresses_too_much():
    T = solved(DUAL, {"set": "escape"}, 150.0)(np.linspace(0.0, 150.0, 601))["T"]
    assert 1e9 < T.min() < 1e10
    assert T[-1] > 5 * T.min()


def test_fewer_b_cells_than_needed_do_not_feed_the_car_t_cells():
    p = named(DUAL.parameter_sets["weak suppression"])
    needed = float(DUAL.derive(p)["B_needed"])
    for factor, sign in ((0.99, -1), (1.01, 1)):
        y = named({"C": 0.0, "T": 1e9, "D": 1e8, "B": factor * needed})
        assert np.sign(DUAL.rates(0.0, y, p)["D"]) == sign
