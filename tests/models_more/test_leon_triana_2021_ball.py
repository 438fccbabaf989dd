"""León-Triana 2021, B-ALL: stability of coexistence, the end of leukaemia, expansion in folds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from test_models import assert_printed, solved

from carpk import registry
from carpk.structure import named

MODEL = registry.load("models", "leon_triana_2021_ball")


def eigenvalues(title):
    """Of the Jacobian where the three populations coexist."""
    p = named(MODEL.parameter_sets[title])
    rest = MODEL.derive(p)

    def slopes(x):
        dy = MODEL.rates(0.0, named(dict(zip("CLB", x, strict=True))), p)
        return jnp.stack([jnp.asarray(dy[s]) for s in "CLB"])

    at = jnp.array([rest["C_rest"], rest["L_rest"], rest["B_rest"]])
    np.testing.assert_allclose(slopes(at), 0.0, atol=1e-5)
    return np.linalg.eigvals(np.asarray(jax.jacfwd(slopes)(at)))


@pytest.mark.parametrize(("title", "real", "imaginary", "fast"), [
    ("I0 1e7", "-6.1728e-5", "4.8778e-2", "-4.98793e-2"),
    ("I0 3e8", "-1.94179e-3", "4.830045e-2", "-4.61989e-2"),
    ("I0 5e8", "-3.35123e-3", "4.799875e-2", "-4.34350e-2")])
def test_new_b_cells_damp_the_oscillation(title, real, imaginary, fast):
    values = sorted(eigenvalues(title), key=lambda z: z.imag)
    assert_printed(values[1].real, fast)
    assert_printed(values[2].real, real)
    assert_printed(values[2].imag, imaginary)


def test_without_new_b_cells_the_oscillation_is_not_damped():
    values = sorted(eigenvalues("no new B cells"), key=lambda z: z.imag)
    assert abs(values[2].real) < 1e-12
    assert_printed(2 * np.pi / values[2].imag, "128.77")


def test_from_some_influx_of_b_cells_on_no_leukaemia_coexists():
    def left(i0):
        return float(MODEL.derive(named({**MODEL.parameter_sets["I0 5e8"], "I0": i0}))["L_rest"])

    assert_printed(brentq(left, 1e9, 1e10), "3.2191e9")


def test_the_expansion_is_the_printed_multiple_of_the_cells_infused():
    at = solved(MODEL, {"set": "no new B cells"}, 20.0)
    most = at(np.linspace(12.0, 12.4, 4001))["C"].max()
    assert_printed(most / 1e7, "1640.10")
    assert most < MODEL.derive(named(MODEL.parameter_sets["no new B cells"]))["C_bound"]


def test_nine_times_the_cells_move_the_peak_little():
    def peak(c0):
        times = np.linspace(8.0, 16.0, 80001)
        seen = solved(MODEL, {"set": "no new B cells", "values": {"C0": c0}}, 16.0)(times)["C"]
        return seen.max(), times[seen.argmax()]

    (low, late), (high, early) = peak(4.5e7), peak(5e6)
    assert_printed(100 * (low / high - 1), "-6.03")
    assert_printed(late - early, "-2.35")


def test_a_later_infusion_is_a_dose_into_the_car_t_cells():
    at = solved(MODEL, {"set": "no new B cells", "values": {"C0": 4e6}, "dose": {"C": 6e6}}, 20.0)
    whole = solved(MODEL, {"set": "no new B cells"}, 20.0)
    np.testing.assert_allclose(at([10.0])["C"], whole([10.0])["C"], rtol=1e-9)
