"""The one density: against scipy written out by hand, invariances, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models_for_tests import DECAY, decaying
from scipy import stats

from carpk.cohort import design
from carpk.likelihood import from_theta, log_jacobian, log_joint, to_theta
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.solve import arrays

COHORT = decaying()
DESIGN = design(COHORT, DECAY)
MODEL = resolve(population(DECAY), DESIGN, {})
DATA = arrays(DESIGN, DECAY, 1)
THETA = {"C0_pop": 90.0, "k_pop": 0.25, "omega_C0": 0.4, "omega_k": 0.35, "sigma_C_log": 0.3}
ETA = np.random.default_rng(3).normal(size=(len(COHORT.ids), 2)) * [0.4, 0.35]


def by_hand(theta, eta, rows):
    """log p(y, eta, theta) in scipy, a row at a time."""
    total = sum(stats.norm(0, theta[f"omega_{n}"]).logpdf(eta[:, k]).sum()
                for k, n in enumerate(("C0", "k")))
    for row in rows.itertuples():
        i = COHORT.ids.index(row.ID)
        pred = theta["C0_pop"] * np.exp(eta[i, 0]) * np.exp(
            -theta["k_pop"] * np.exp(eta[i, 1]) * row.TIME)
        dv = stats.lognorm(s=theta["sigma_C_log"], scale=pred)
        total += dv.logcdf(row.UPPER) if row.CENS else dv.logpdf(row.DV)
    total += stats.lognorm(s=1.5, scale=100.0).logpdf(theta["C0_pop"])
    total += stats.lognorm(s=1.5, scale=0.2).logpdf(theta["k_pop"])
    return total + sum(stats.halfnorm(scale=1.0).logpdf(theta[n])
                       for n in ("omega_C0", "omega_k", "sigma_C_log"))


def test_log_joint_is_the_density_written_out_by_hand():
    assert int(COHORT.observations["CENS"].sum()) > 5
    ours = float(log_joint(MODEL, DATA, THETA, jnp.asarray(ETA)))
    assert ours == pytest.approx(by_hand(THETA, ETA, COHORT.observations), rel=1e-12)


@given(st.integers(0, 9))
def test_padding_never_changes_the_likelihood(extra):
    plain = log_joint(MODEL, DATA, THETA, jnp.asarray(ETA))
    padded = log_joint(MODEL, arrays(DESIGN.padded(extra), DECAY, 1), THETA, jnp.asarray(ETA))
    assert float(padded) == pytest.approx(float(plain), rel=1e-13)


@given(st.permutations(range(len(COHORT.ids))))
def test_the_order_of_the_patients_never_changes_the_likelihood(order):
    other = design(COHORT.select([COHORT.ids[i] for i in order]), DECAY)
    moved = log_joint(MODEL, arrays(other, DECAY, 1), THETA, jnp.asarray(ETA[list(order)]))
    plain = log_joint(MODEL, DATA, THETA, jnp.asarray(ETA))
    assert float(moved) == pytest.approx(float(plain), rel=1e-12)


def test_a_limit_that_goes_to_zero_removes_the_censored_rows_from_the_likelihood():
    """P(DV < limit) goes to the density times the limit: only its constant part remains."""
    from dataclasses import replace
    rows = COHORT.observations.copy()
    rows.loc[rows["CENS"] == 1, ["DV", "UPPER"]] = 1e12  # nothing is above it: no information
    open_limit = design(replace(COHORT, observations=rows), DECAY)
    measured = replace(COHORT, observations=rows[rows["CENS"] == 0])
    left = design(measured, DECAY)
    assert float(log_joint(MODEL, arrays(open_limit, DECAY, 1), THETA, jnp.asarray(ETA))) == \
        pytest.approx(float(log_joint(MODEL, arrays(left, DECAY, 1), THETA, jnp.asarray(ETA))),
                      rel=1e-12)


def test_gradients_are_those_of_central_differences():
    names = list(THETA)

    @jax.jit
    def value(x):
        theta = {n: x[k] for k, n in enumerate(names)}
        return log_joint(MODEL, DATA, theta, x[len(names):].reshape(ETA.shape))

    x = np.concatenate([[THETA[n] for n in names], ETA.ravel()])
    h = 1e-6
    central = np.array([(value(x + h * e) - value(x - h * e)) / (2 * h) for e in np.eye(len(x))])
    assert np.allclose(jax.grad(value)(x), central, rtol=2e-6, atol=1e-5)


def test_population_values_go_to_the_real_line_and_back():
    u = from_theta(MODEL, THETA)
    assert {n: float(v) for n, v in to_theta(MODEL, u).items()} == pytest.approx(THETA)
    jacobian = jax.jacfwd(lambda u: jnp.stack([to_theta(MODEL, u)[n] for n in MODEL.free]))(u)
    assert float(log_jacobian(MODEL, u)) == pytest.approx(
        float(jnp.log(jnp.linalg.det(jacobian))), rel=1e-12)
