"""The start: modes and information against scipy's optimum and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models_for_tests import COVARIATES, DECAY, decaying
from reference_models import MISNAMED
from scipy import optimize

from carpk.cohort import design
from carpk.conditional import Patients
from carpk.empirical_bayes import _begun, _Population, laplace_start
from carpk.likelihood import (
    data_of,
    patient_log_density,
    patient_log_likelihood,
    to_theta,
)
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.sensitivities import residual_places


def test_every_patient_stands_at_the_mode_scipy_finds():
    seen = design(decaying(12), DECAY)
    model, _ = resolve(population(DECAY, covariates=COVARIATES, correlated="full"), seen, {})
    data = data_of(model, seen)
    start = laplace_start(model, data, seed=1)
    theta = to_theta(model, start.u)

    @jax.jit
    def every(phi):
        everyone = jnp.tile(phi, (12, 1))
        return patient_log_likelihood(model, data, theta, everyone) \
            + patient_log_density(model, data, theta, everyone)

    def minus(phi, i):
        return -float(every(phi)[i])

    for i in (0, 5, 11):
        best = optimize.minimize(minus, np.array([4.0, -1.5]), (i,), method="Nelder-Mead",
                                 options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 2000})
        assert np.allclose(start.phi[i], best.x, atol=1e-4)


def test_information_is_the_curvature_where_the_gauss_newton_form_is_exact():
    """ln C is linear in ln C0: its information is the number of measured rows over sigma^2."""
    seen = design(decaying(6, limit=0.0), DECAY)
    model, _ = resolve(population(DECAY), seen, {})
    data = data_of(model, seen)
    start = laplace_start(model, data, seed=1)
    sigma = float(to_theta(model, start.u)["sigma_C_log"])
    assert np.allclose(start.information[:, 0, 0, 0], 5 / sigma**2, rtol=1e-9)


def test_the_population_start_is_near_the_truth():
    seen = design(decaying(100), DECAY)
    model, _ = resolve(population(DECAY), seen, {})
    theta = to_theta(model, laplace_start(model, data_of(model, seen), seed=1).u)
    truth = {"C0_pop": 100, "k_pop": 0.2, "omega_C0": 0.5, "omega_k": 0.3, "sigma_C_log": 0.2}
    for name, value in truth.items():
        assert abs(np.log(float(theta[name]) / value)) < 0.25, name


@pytest.mark.slow  # passed, 15 s
def test_the_population_start_finds_covariates_and_correlations():
    """On levels that follow WT and SEX, with correlated etas; k varies by its covariate alone in
    the second model, so that its coefficient is found by Newton's method on the predictions."""
    from models_for_tests import cohort
    rng = np.random.default_rng(4)
    weight, sex = rng.uniform(50, 90, 120).round(1), np.where(np.arange(120) % 2, "M", "F")
    eta = rng.multivariate_normal([0, 0], [[0.25, 0.12], [0.12, 0.09]], 120)
    for spread, eta_k in ((["C0", "k"], eta[:, 1]), (["C0"], np.zeros(120))):
        c0 = 100 * (weight / 70) ** 1.2 * np.exp(eta[:, 0])
        k = 0.2 * np.exp(0.5 * (sex == "M") + eta_k)
        rows = [(str(i), t, c0[i] * np.exp(-k[i] * t + 0.2 * rng.normal()))
                for i in range(120) for t in (0.5, 2, 5, 9, 14.0)]
        seen = design(cohort(rows, WT=weight, SEX=sex), DECAY)
        model, _ = resolve(population(
            DECAY, spread=spread, covariates={"C0 ~ WT": "power(70)", "k ~ SEX": "category"},
            correlated="full"), seen, {})
        theta = to_theta(model, laplace_start(model, data_of(model, seen), seed=1).u)
        assert abs(float(theta["beta_C0_WT"]) - 1.2) < 3 * 0.5 / (120**0.5 * 0.16)
        assert abs(float(theta["beta_k_SEX_M"]) - 0.5) < 0.17
        assert abs(np.log(float(theta["C0_pop"]) / 100)) < 0.2
        if len(spread) == 2:
            assert abs(float(theta["corr_C0_k"]) - np.corrcoef(eta.T)[0, 1]) < 0.15


def test_a_parameter_named_like_a_residual_error_is_none():
    """sigma_pop and rho_pop are typical values, whose step is that of others."""
    seen = design(decaying(6), MISNAMED)
    model, _ = resolve(population(MISNAMED, spread=["sigma"], fixed={"gamma": 0.0}), seen, {})
    assert [model.free[k] for k in residual_places(model)] == ["sigma_C_log"]
    theta = to_theta(model, laplace_start(model, data_of(model, seen), seed=1).u)
    assert abs(np.log(float(theta["rho_pop"]) / 0.2)) < 0.4


def test_a_patient_whose_jacobian_overflows_leaves_the_population_finite():
    seen = design(decaying(6), DECAY)
    model, _ = resolve(population(DECAY), seen, {})
    data = data_of(model, seen)
    patients = Patients(model, data)
    start = laplace_start(model, data, seed=1, patients=patients)
    u, phi = np.asarray(start.u), np.asarray(start.phi)
    look = patients.look(u, phi)
    jacobian = np.array(look.jacobian)
    jacobian[2], jacobian[4] = [np.inf, -np.inf], [1e200, -1e200]
    broken = look._replace(jacobian=jacobian)
    updated = _Population(patients).update(
        u, broken, phi, np.tile([[0.1, -0.02], [-0.02, 0.1]], (6, 1, 1)), phi)
    assert np.isfinite(updated).all()
    begun = _begun(model, data, u, phi, broken, 1)
    assert np.isfinite(begun.linear).all()
    known = np.asarray(begun.information).any(axis=(1, 2, 3))
    assert known.tolist() == [k not in (2, 4) for k in range(6)]
