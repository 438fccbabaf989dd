"""The start: modes and information against scipy's optimum and finite differences."""

import jax.numpy as jnp
import numpy as np
from models_for_tests import DECAY, decaying
from scipy import optimize

from carpk.cohort import design
from carpk.empirical_bayes import laplace_start
from carpk.likelihood import patient_log_density, patient_log_likelihood, to_theta
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.solve import arrays


def test_every_patient_stands_at_the_mode_scipy_finds():
    seen = design(decaying(12), DECAY)
    model = resolve(population(DECAY), seen, {})
    data = arrays(seen, DECAY, 1)
    start = laplace_start(model, data, seed=1)
    theta = to_theta(model, start.u)

    def minus(phi, i):
        everyone = jnp.asarray(np.tile(phi, (12, 1)))
        return -float((patient_log_likelihood(model, data, theta, everyone)
                       + patient_log_density(model, theta, everyone))[i])

    for i in (0, 5, 11):
        best = optimize.minimize(minus, np.array([4.0, -1.5]), (i,), method="Nelder-Mead",
                                 options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 2000})
        assert np.allclose(start.phi[i], best.x, atol=1e-4)


def test_information_is_the_curvature_where_the_gauss_newton_form_is_exact():
    """ln C is linear in ln C0: its information is the number of measured rows over sigma^2."""
    seen = design(decaying(6, limit=0.0), DECAY)
    model = resolve(population(DECAY), seen, {})
    data = arrays(seen, DECAY, 1)
    start = laplace_start(model, data, seed=1)
    sigma = float(to_theta(model, start.u)["sigma_C_log"])
    assert np.allclose(start.information[:, 0, 0, 0], 5 / sigma**2, rtol=1e-9)


def test_the_population_start_is_near_the_truth():
    seen = design(decaying(100), DECAY)
    model = resolve(population(DECAY), seen, {})
    theta = to_theta(model, laplace_start(model, arrays(seen, DECAY, 1), seed=1).u)
    truth = {"C0_pop": 100, "k_pop": 0.2, "omega_C0": 0.5, "omega_k": 0.3, "sigma_C_log": 0.2}
    for name, value in truth.items():
        assert abs(np.log(float(theta[name]) / value)) < 0.25, name
