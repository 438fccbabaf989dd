"""Quantile regression against sample quantiles, a linear program, and a known quantile curve."""

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.stats import norm

from carpk.regression_quantiles import regression_quantile, spline_basis


def loss(residuals, tau):
    return (residuals * (tau - (residuals < 0))).sum(axis=-1)


@pytest.mark.parametrize("tau", [0.05, 0.5, 0.95])
def test_with_a_constant_alone_it_is_the_sample_quantile(tau):
    y = np.random.default_rng(2).normal(40.0, 3.0, size=(60, 33))
    found = regression_quantile(y, np.ones((33, 1)), tau)[:, 0]
    np.testing.assert_allclose(found, np.quantile(y, tau, axis=1, method="inverted_cdf"),
                               rtol=1e-8)


@pytest.mark.parametrize("tau", [0.05, 0.5, 0.95])
def test_it_solves_the_linear_program_also_where_levels_are_tied_at_a_limit(tau):
    rng = np.random.default_rng(3)
    x = np.sort(rng.uniform(0, 10, 150))
    y = np.maximum(4.0 - 0.5 * x + rng.normal(size=(3, 150)), 0.8)  # half are at the limit
    basis = spline_basis(x, x)
    size = basis.shape[1]
    found = regression_quantile(y, basis, tau)
    for values, b in zip(y, found, strict=True):
        cost = np.concatenate([np.zeros(size), np.full(150, tau), np.full(150, 1 - tau)])
        best = linprog(cost, A_eq=np.hstack([basis, np.eye(150), -np.eye(150)]), b_eq=values,
                       bounds=[(None, None)] * size + [(0, None)] * 300)
        assert loss(values - basis @ b, tau) == pytest.approx(best.fun, rel=1e-7)


def test_a_curve_of_quantiles_is_found_again():
    rng = np.random.default_rng(4)
    x = np.sort(rng.uniform(0, 10, 1000))
    centre, sd = np.exp(-(x - 3) ** 2 / 8), 0.2 + 0.03 * x
    y = centre + sd * rng.normal(size=(200, 1000))
    inside = (x > 0.5) & (x < 9.5)
    for tau in (0.05, 0.5, 0.95):
        curves = regression_quantile(y, spline_basis(x, x), tau) @ spline_basis(x, x).T
        away = curves.mean(axis=0) - centre - sd * norm.ppf(tau)
        assert np.abs(away / sd)[inside].max() < 0.15
