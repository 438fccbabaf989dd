"""The sampler's coordinates are a change of variables and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models_for_tests import COVARIATES, DECAY, decaying

from carpk.cohort import design
from carpk.empirical_bayes import laplace_start
from carpk.geometry import frozen, informed, log_density, noncentred, to_phi, to_z
from carpk.likelihood import data_of, log_jacobian, log_joint, population_location, to_theta
from carpk.population_model import population
from carpk.preparation import resolve

DESIGN = design(decaying(), DECAY)
MODEL, _ = resolve(population(DECAY, covariates=COVARIATES, correlated="full"), DESIGN, {})
DATA = data_of(MODEL, DESIGN)


@pytest.fixture(scope="module")
def start():
    return laplace_start(MODEL, DATA, seed=1)


@pytest.mark.parametrize("parametrisation", ["informed", "noncentred", "centred"])
def test_log_density_is_log_joint_plus_the_log_volume(start, parametrisation):
    rng = np.random.default_rng(1)
    frame = frozen(MODEL, start)
    for _ in range(3):
        u = start.u + 0.3 * rng.normal(size=start.u.shape)
        z = jnp.asarray(rng.normal(size=start.phi.shape))
        theta = to_theta(MODEL, u)
        phi, _ = to_phi(MODEL, DATA, theta, z, frame, parametrisation)
        # the volume from the Jacobian of each patient's own map, not from the code's formula
        jacobian = jax.jacfwd(
            lambda v, theta=theta: to_phi(MODEL, DATA, theta, v, frame, parametrisation)[0])(z)
        patients = jnp.arange(z.shape[0])
        blocks = jacobian[patients, :, patients, :]
        volume = jnp.log(jnp.abs(jnp.linalg.det(blocks))).sum()
        mu, _ = population_location(MODEL, DATA, theta)
        expected = log_joint(MODEL, DATA, theta, phi - mu) + volume \
            + log_jacobian(MODEL, u)
        got = log_density(MODEL, DATA, frame, u, z, parametrisation)
        assert float(got) == pytest.approx(float(expected), rel=1e-11)
        back = to_z(MODEL, DATA, theta, phi, frame, parametrisation)
        np.testing.assert_allclose(back, z, atol=1e-9)


def test_informed_coordinates_make_a_normal_likelihood_standard_normal():
    """With y = phi + e, e of precision H: phi given the population is exactly what z maps to."""
    rng = np.random.default_rng(2)
    root = rng.normal(size=(5, 3, 3))
    information = jnp.asarray(np.einsum("pij,pkj->pik", root, root) + 0.5 * np.eye(3))
    linear = jnp.asarray(rng.normal(size=(5, 3)))
    mu = jnp.asarray(rng.normal(size=(5, 3)))
    low = [{0: jnp.asarray(0.5)}, {0: jnp.asarray(0.9), 1: jnp.asarray(1.2)},
           {2: jnp.asarray(0.2)}]
    dense = np.array([[0.5, 0, 0], [0.9, 1.2, 0], [0, 0, 0.2]])
    precision = np.linalg.inv(dense @ dense.T)
    z = jnp.asarray(rng.normal(size=(5, 3)))

    def log_target(z):
        phi, volume = informed(z, mu, low, information, linear)
        return -0.5 * jnp.einsum("pi,pij,pj->p", phi, information, phi) \
            + jnp.einsum("pi,pi->p", linear, phi) \
            - 0.5 * jnp.einsum("pi,ij,pj->p", phi - mu, precision, phi - mu) + volume

    constant = np.asarray(log_target(z) + 0.5 * (z**2).sum(axis=1))
    assert np.allclose(constant, log_target(0.0 * z), rtol=1e-10)


def test_no_information_gives_coordinates_that_are_the_noncentred_ones_turned():
    z = jnp.asarray(np.random.default_rng(1).normal(size=(4, 2)))
    mu = jnp.broadcast_to(jnp.asarray([1.0, 2.0]), (4, 2))
    apart = [{0: jnp.asarray(0.5)}, {1: jnp.asarray(0.1)}]
    ours = informed(z, mu, apart, jnp.zeros((4, 2, 2)), jnp.zeros((4, 2)))
    plain = noncentred(z, mu, apart)
    assert np.allclose(ours[0], plain[0], rtol=1e-12)
    assert np.allclose(ours[1], plain[1], rtol=1e-12)
    low = [{0: jnp.asarray(0.5)}, {0: jnp.asarray(0.3), 1: jnp.asarray(0.1)}]
    ours = informed(z, mu, low, jnp.zeros((4, 2, 2)), jnp.zeros((4, 2)))
    assert np.allclose(ours[1], noncentred(z, mu, low)[1], rtol=1e-10)
