"""Mueller 2018: its curve is an ODE's, and Stein's when nobody took another drug."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from test_models import closed_form, named, values_of

from carpk import registry

MODEL = registry.load("models", "mueller_2018")
DAYS = np.array([0.0, 1.0, 5.0, 9.3, 9.31, 14.0, 28.0, 90.0, 365.0])


def test_the_closed_form_is_that_of_growth_and_two_declining_populations():
    p = named(MODEL.derive(named(MODEL.typical)) | MODEL.typical)
    grown = p.R0 * np.exp(p.rho * DAYS[p.Tmax >= DAYS])
    late = DAYS[p.Tmax < DAYS]
    path = solve_ivp(lambda t, u: [-p.alpha * u[0], -p.beta * u[1]], (p.Tmax, late[-1]),
                     [float(p.A), float(p.B)], t_eval=late, method="DOP853", rtol=1e-12,
                     atol=1e-12)
    np.testing.assert_allclose(closed_form(MODEL, MODEL.typical)(DAYS)["C"],
                               np.concatenate([grown, path.y.sum(axis=0)]), rtol=1e-8)


def test_it_is_the_curve_of_stein_without_comedication():
    stein = registry.load("models", "stein_2019")
    assert {p.name: (p.typical, p.omega) for p in MODEL.parameters}.items() \
        <= {p.name: (p.typical, p.omega) for p in stein.parameters}.items()
    np.testing.assert_allclose(closed_form(MODEL, values_of(MODEL, {}))(DAYS)["C"],
                               closed_form(stein, values_of(stein, {}))(DAYS)["C"], rtol=1e-12)


@pytest.mark.parametrize("Tmax", [5.0, 27.0, 40.0])
def test_the_exposure_follows_wherever_the_peak_is(Tmax):
    p = {**MODEL.typical, "Tmax": Tmax}
    nodes, weights = np.polynomial.legendre.leggauss(8)
    edges = np.linspace(0.0, 28.0, 29)  # the peak is an edge
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    level = closed_form(MODEL, p)((middle + half * nodes).ravel())["C"]
    area = float((half * weights).ravel() @ level)
    assert jnp.isclose(MODEL.derive(named(p))["AUC_28"], area, rtol=1e-9)
