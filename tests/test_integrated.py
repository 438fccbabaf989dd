"""Patients' likelihoods at draws of the population, some with omegas near 0, against quadrature."""

import numpy as np
import pytest
from models_for_tests import DECAY, decaying
from scipy import stats
from scipy.special import logsumexp, softmax

from carpk.cohort import design
from carpk.conditional import Patients
from carpk.integrated import log_marginals
from carpk.likelihood import data_of, from_theta
from carpk.population_model import population
from carpk.preparation import choose_steps, resolve

Z = np.stack(np.meshgrid(*[np.linspace(-8.0, 8.0, 321)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
CELL = 0.05**2
AT = {"C0_pop": 90.0, "k_pop": 0.25, "omega_C0": 0.5, "omega_k": 0.4, "sigma_C_add": 8.0}
DRAWS = [{}, {"omega_k": 0.1}, {"omega_k": 1e-3, "k_pop": 0.2}, {"omega_k": 1e-6},
         {"omega_C0": 1e-6, "C0_pop": 110.0}, {"omega_C0": 1e-9, "omega_k": 1e-9},
         {"sigma_C_add": 3.0, "omega_C0": 0.8}]


@pytest.fixture(scope="module")
def patients():
    seen = design(decaying(), DECAY)
    model, _ = resolve(population(DECAY, errors={"C": "additive"}), seen, {})
    model = choose_steps(model, seen)
    return Patients(model, data_of(model, seen)), seen


def by_quadrature(seen, theta):
    """ln p(y_i) (P,), and each patient's mean (P, 2) and covariance of phi; a sum over a grid of
    standard normal effects, whose error for a smooth density falls faster than any power."""
    phi = np.log([theta["C0_pop"], theta["k_pop"]]) + Z * [theta["omega_C0"], theta["omega_k"]]
    level = np.exp(phi[:, :1])[..., None] * np.exp(-np.exp(phi[:, 1:])[..., None] * seen.time)
    noise = stats.norm(level, theta["sigma_C_add"])
    rows = np.where(seen.lower == seen.upper, noise.logpdf(seen.upper), noise.logcdf(seen.upper))
    joint = np.where(seen.observed, rows, 0.0).sum(axis=2) + stats.norm.logpdf(Z).sum(
        axis=1, keepdims=True) + np.log(CELL)
    weight = softmax(joint, axis=0)
    mean = np.einsum("zp,zk->pk", weight, phi)
    second = np.einsum("zp,zk,zl->pkl", weight, phi, phi)
    return logsumexp(joint, axis=0), mean, second - mean[:, :, None] * mean[:, None, :]


def test_the_likelihood_is_that_of_quadrature_wherever_the_omegas_lie(patients):
    known, seen = patients
    thetas = [{**AT, **draw} for draw in DRAWS]
    us = np.stack([np.asarray(from_theta(known.model, theta)) for theta in thetas])
    exact = np.stack([by_quadrature(seen, theta)[0] for theta in thetas])
    _, mean, covariance = by_quadrature(seen, AT)
    few = log_marginals(known, us, mean, covariance)
    assert np.abs(few - exact).max() < 0.5  # a hundred draws each
    assert np.sqrt(np.mean((few - exact) ** 2)) < 0.12
    many = log_marginals(known, us, mean, covariance, draws=10_000)
    assert many == pytest.approx(exact, abs=0.04)
