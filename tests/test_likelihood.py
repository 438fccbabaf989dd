"""The one density: against scipy written out by hand, invariances, gradients."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models_for_tests import COVARIATES, DECAY, decaying
from scipy import stats

from carpk.cohort import design
from carpk.likelihood import data_of, from_theta, log_jacobian, log_joint, log_prior, to_theta
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.structure import Parameter, sd

COHORT = decaying()
DESIGN = design(COHORT, DECAY)
MODEL, _ = resolve(population(DECAY), DESIGN, {})
DATA = data_of(MODEL, DESIGN)
THETA = {"C0_pop": 90.0, "k_pop": 0.25, "omega_C0": 0.4, "omega_k": 0.35, "sigma_C_log": 0.3}
RICH, _ = resolve(population(DECAY, covariates=COVARIATES, correlated="full"), DESIGN, {})
RICH_THETA = {**THETA, "beta_C0_WT": 0.8, "beta_k_SEX_M": -0.4, "beta_k_WT": 0.01,
              "corr_C0_k": -0.6}
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


def test_covariates_and_correlations_enter_the_density_as_written_out_by_hand():
    theta, rows, who = RICH_THETA, COHORT.observations, COHORT.covariates
    ln_c0 = np.log(90.0) + 0.8 * np.log(who["WT"] / 70.0)
    ln_k = np.log(0.25) - 0.4 * (who["SEX"] == "M") + np.log(1 + 0.01 * (who["WT"] - 70.0))
    cov = -0.6 * 0.4 * 0.35
    total = stats.multivariate_normal([0, 0], [[0.16, cov], [cov, 0.35**2]]).logpdf(ETA).sum()
    for row in rows.itertuples():
        i = COHORT.ids.index(row.ID)
        pred = np.exp(ln_c0[row.ID] + ETA[i, 0] - np.exp(ln_k[row.ID] + ETA[i, 1]) * row.TIME)
        dv = stats.lognorm(s=0.3, scale=pred)
        total += dv.logcdf(row.UPPER) if row.CENS else dv.logpdf(row.DV)
    total += by_hand(THETA, ETA[:0], rows[:0])  # the priors of what both models have
    sd = {n: RICH.priors[n].numbers[1] for n in RICH.free if n.startswith("beta_")}
    assert sd["beta_C0_WT"] == pytest.approx(1 / np.log(who["WT"]).std(ddof=0), rel=0.01)
    total += sum(stats.norm(0, sd[n]).logpdf(theta[n]) for n in sd)
    total += stats.beta(2, 2).logpdf((1 - 0.6) / 2) - np.log(2)  # LKJ(2) of a pair
    ours = float(log_joint(RICH, data_of(RICH, DESIGN), theta, jnp.asarray(ETA)))
    assert ours == pytest.approx(total, rel=1e-12)


def test_etas_may_have_the_tails_of_student():
    heavy = replace(MODEL, etas="student_t")
    difference = float(log_joint(heavy, DATA, THETA, jnp.asarray(ETA))
                       - log_joint(MODEL, DATA, THETA, jnp.asarray(ETA)))
    z = ETA / [0.4, 0.35]
    assert difference == pytest.approx((stats.t(4).logpdf(z) - stats.norm.logpdf(z)).sum(),
                                       rel=1e-9)


def test_the_lkj_prior_is_a_density_over_correlation_matrices():
    """Against det R ^ (eta - 1), normalised by summing over a grid of all 3 x 3 matrices."""
    structure = replace(DECAY, parameters=tuple(
        Parameter(n, 1.0, "-", n, omega=sd(0.5)) for n in ("C0", "k", "D")))
    model, _ = resolve(population(structure, correlated="full"), DESIGN, {})
    names = ["corr_C0_k", "corr_C0_D", "corr_k_D"]
    rest = {n: 1.0 for n in model.names if n not in names}
    grid = np.linspace(-0.995, 0.995, 61)
    points = np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), axis=-1).reshape(-1, 3)
    matrix = np.eye(3)[None].repeat(len(points), 0)
    for k, (i, j) in enumerate(((1, 0), (2, 0), (2, 1))):
        matrix[:, i, j] = matrix[:, j, i] = points[:, k]
    points = points[np.linalg.eigvalsh(matrix)[:, 0] > 1e-9]
    prior = jax.jit(jax.vmap(lambda r: log_prior(model, {**rest, **dict(zip(
        names, r, strict=True))})))
    flat = float(log_prior(replace(model, fixed=dict.fromkeys(names, 0.0)), rest))
    density = np.exp(np.asarray(prior(jnp.asarray(points))) - flat)
    assert density.sum() * (grid[1] - grid[0]) ** 3 == pytest.approx(1.0, rel=0.01)
    r = points[1234]
    det = 1 - (r**2).sum() + 2 * r.prod()
    assert density[1234] / float(np.exp(prior(jnp.zeros((1, 3)))[0] - flat)) == \
        pytest.approx(det, rel=1e-9)  # eta = 2


@settings(max_examples=4)
@given(st.integers(0, 9))
def test_padding_never_changes_the_likelihood(extra):
    plain = log_joint(MODEL, DATA, THETA, jnp.asarray(ETA))
    padded = log_joint(MODEL, data_of(MODEL, DESIGN.padded(extra)), THETA, jnp.asarray(ETA))
    assert float(padded) == pytest.approx(float(plain), rel=1e-13)


@jax.jit
def joint(data, eta):
    return log_joint(MODEL, data, THETA, eta)


@given(st.permutations(range(len(COHORT.ids))))
def test_the_order_of_the_patients_never_changes_the_likelihood(order):
    other = design(COHORT.select([COHORT.ids[i] for i in order]), DECAY)
    moved = joint(data_of(MODEL, other), jnp.asarray(ETA[list(order)]))
    assert float(moved) == pytest.approx(float(joint(DATA, jnp.asarray(ETA))), rel=1e-12)


def test_a_limit_that_goes_to_zero_removes_the_censored_rows_from_the_likelihood():
    """P(DV < limit) goes to the density times the limit: only its constant part remains."""
    rows = COHORT.observations.copy()
    rows.loc[rows["CENS"] == 1, ["DV", "UPPER"]] = 1e12  # nothing is above it: no information
    open_limit = design(replace(COHORT, observations=rows), DECAY)
    measured = replace(COHORT, observations=rows[rows["CENS"] == 0])
    left = design(measured, DECAY)
    assert float(log_joint(MODEL, data_of(MODEL, open_limit), THETA, jnp.asarray(ETA))) == \
        pytest.approx(float(log_joint(MODEL, data_of(MODEL, left), THETA, jnp.asarray(ETA))),
                      rel=1e-12)


@pytest.mark.parametrize(("model", "at"), [(MODEL, THETA), (RICH, RICH_THETA)],
                         ids=["plain", "covariates and correlation"])
def test_gradients_are_those_of_central_differences(model, at):
    names, data = list(at), data_of(model, DESIGN)

    @jax.jit
    def value(x):
        theta = {n: x[k] for k, n in enumerate(names)}
        return log_joint(model, data, theta, x[len(names):].reshape(ETA.shape))

    x = np.concatenate([[at[n] for n in names], ETA.ravel()])
    h = 1e-6
    central = np.array([(value(x + h * e) - value(x - h * e)) / (2 * h) for e in np.eye(len(x))])
    assert np.allclose(jax.grad(value)(x), central, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize(("model", "at"), [(MODEL, THETA), (RICH, RICH_THETA)],
                         ids=["plain", "covariates and correlation"])
def test_population_values_go_to_the_real_line_and_back(model, at):
    u = from_theta(model, at)
    assert {n: float(v) for n, v in to_theta(model, u).items()} == pytest.approx(at)
    jacobian = jax.jacfwd(lambda u: jnp.stack([to_theta(model, u)[n] for n in model.free]))(u)
    assert float(log_jacobian(model, u)) == pytest.approx(
        float(jnp.log(jnp.linalg.det(jacobian))), rel=1e-12)


def test_four_correlated_parameters_go_to_the_real_line_and_back():
    structure = replace(DECAY, parameters=tuple(
        Parameter(n, 1.0, "-", n, omega=sd(0.5)) for n in ("C0", "k", "D", "E")))
    model, _ = resolve(population(structure, correlated="full"), DESIGN, {})
    u = 0.4 * jnp.asarray(np.random.default_rng(5).normal(size=len(model.free)))
    theta = to_theta(model, u)
    assert np.allclose(from_theta(model, theta), u, rtol=1e-9)
    jacobian = jax.jacfwd(lambda u: jnp.stack([to_theta(model, u)[n] for n in model.free]))(u)
    assert float(log_jacobian(model, u)) == pytest.approx(
        float(jnp.log(jnp.abs(jnp.linalg.det(jacobian)))), rel=1e-10)
