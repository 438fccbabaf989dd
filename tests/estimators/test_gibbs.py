"""Gibbs: what its moves leave as it is, reproducible draws, a chain that goes on, verdicts.

Reference posteriors by both samplers are in test_nuts and test_occasions.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models_for_tests import DECAY, decaying
from scipy import integrate, stats

from carpk import chains
from carpk.checkpoints import Checkpoints
from carpk.cohort import design
from carpk.empirical_bayes import laplace_start
from carpk.estimators.gibbs import Gibbs, _accepted, _trajectory
from carpk.fitting import fit
from carpk.geometry import frozen, log_density, patient_terms, to_z
from carpk.likelihood import data_of, to_theta
from carpk.padding import filled_start, filled_up
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.problems import RequestError


def test_leapfrog_steps_turn_back_to_where_they_came_from_and_keep_the_energy():
    def value(q):
        return -0.5 * (q**2).sum(axis=1), -q

    rng = np.random.default_rng(1)
    q, r = jnp.asarray(rng.normal(size=(5, 2))), jnp.asarray(rng.normal(size=(5, 2)))
    steps = jnp.asarray([0.01, 0.02, 0.05, 0.1, 0.2])
    there, p, before, after = _trajectory(value, q, r, steps[:, None], 7, lambda r: r)
    back, turned, _, _ = _trajectory(value, there, -p, steps[:, None], 7, lambda r: r)
    np.testing.assert_allclose(back, q, atol=1e-12)
    np.testing.assert_allclose(turned, -r, atol=1e-12)
    np.testing.assert_allclose(before, value(q)[0])
    np.testing.assert_allclose(after, value(there)[0])
    # the exact solution turns q and r by the time gone; leapfrog errs by step^2
    angle = 7 * steps[:, None]
    np.testing.assert_allclose(there, q * jnp.cos(angle) + r * jnp.sin(angle), atol=0.02)
    np.testing.assert_allclose(there[:2], (q * jnp.cos(angle) + r * jnp.sin(angle))[:2], atol=3e-4)


def test_a_density_that_is_no_number_is_refused_and_a_lost_energy_diverges():
    accept, diverging = _accepted(jnp.asarray([0.3, -0.5, jnp.nan, -1001.0]))
    np.testing.assert_allclose(accept, [1.0, np.exp(-0.5), 0.0, 0.0])
    assert diverging.tolist() == [False, False, True, True]


@pytest.fixture(scope="module")
def ready():
    seen = design(decaying(11), DECAY)
    model, _ = resolve(population(DECAY), seen, {})
    data = data_of(model, seen)
    return model, data, laplace_start(model, data, seed=1)


def test_patients_and_population_are_moved_to_the_density_they_share(ready):
    """Every draw is told with the density of where it stands, those who fill up apart."""
    model, data, start = ready
    drawn = Gibbs(chains=2, draws=10, warmup=10).drawn(
        model, data, tuple("abcdefghijk"), 1, lambda *said: None)
    full, frame = filled_up(data), frozen(model, filled_start(start), Gibbs.trusted)
    assert len(full["time"]) == 15
    free = jnp.asarray([drawn.theta[n][1, 7] for n in model.free])
    u = jnp.stack([model.priors[n].scale.to_real(v) for n, v in zip(model.free, free, strict=True)])
    phi = jnp.concatenate([jnp.asarray(drawn.phi[1, 7]), jnp.zeros((4, 2))])
    z = to_z(model, full, to_theta(model, u), phi, frame, "informed").at[11:].set(0.0)
    told = float(log_density(model, full, frame, u, z, "informed"))
    assert drawn.stats["lp"][1, 7] == pytest.approx(told, rel=1e-10)
    each = patient_terms(model, full, frame, to_theta(model, u), z, "informed")
    np.testing.assert_allclose(each[11:], 0.0)


def test_one_patients_z_are_drawn_from_their_density_given_the_population(ready):
    """With the population standing still (steps of no length) each z has its own density, here
    of one parameter, by quadrature."""
    seen = design(decaying(3), DECAY)
    model, _ = resolve(population(DECAY, spread=["C0"]), seen, {})
    data = data_of(model, seen)
    start = laplace_start(model, data, seed=1)
    frame = frozen(model, start, Gibbs.trusted)
    kernel = Gibbs(warmup=100).kernel(model)
    theta = to_theta(model, start.u)

    @jax.jit
    def run(state):
        def one(state, _):
            state = kernel.move(state._replace(u=start.u), data, frame)
            return state, state.z
        return jax.lax.scan(one, state, length=5000)

    state = kernel.begin(start.u, jnp.zeros((3, 1)), jnp.full(len(start.u), 0.1),
                         jax.random.key(1), data, frame)
    _, z = run(state)
    grid = np.linspace(-8, 8, 1601)
    heights = np.asarray(jax.lax.map(lambda v: patient_terms(
        model, data, frame, theta, jnp.full((3, 1), v), "informed"), jnp.asarray(grid)))
    for k in range(3):
        density = np.exp(heights[:, k] - heights[:, k].max())
        share = integrate.cumulative_simpson(density, x=grid, initial=0.0)
        ranks = np.interp(np.asarray(z[500:, k, 0])[::5], grid, share / share[-1])
        assert stats.kstest(ranks, "uniform").pvalue > 1e-3


@pytest.mark.slow  # passed, 13 s
def test_the_same_seed_gives_the_same_draws_and_another_seed_others():
    runs = [fit(population(DECAY), decaying(), "gibbs", seed=s, chains=2, draws=25, warmup=25)
            for s in (1, 1, 2)]
    draws = [r.posterior["posterior"]["C0_pop"].values for r in runs]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_a_chain_that_was_interrupted_goes_on_to_the_same_draws(ready, tmp_path, monkeypatch):
    monkeypatch.setattr(chains, "_SAVED", 0.0)
    model, data, _ = ready
    settings, ids = Gibbs(chains=2, draws=60, warmup=40), tuple("abcdefghijk")
    whole = settings.drawn(model, data, ids, 1, lambda *said: None)

    def dying(stage, done, total):
        if stage.startswith("sample") and done >= 120:
            raise KeyboardInterrupt

    kept = Checkpoints(tmp_path / "fit.unfinished", {"versions": {}})
    with pytest.raises(KeyboardInterrupt):
        settings.drawn(model, data, ids, 1, dying, kept)
    again = settings.drawn(model, data, ids, 1, lambda *said: None, kept)
    for name in model.free:
        assert np.array_equal(whole.theta[name], again.theta[name]), name


def test_a_verdict_against_it_names_the_other_sampler():
    result = fit(population(DECAY), decaying(), "gibbs", seed=1, chains=2, draws=25, warmup=25)
    assert not result.convergence.ok
    assert any("nuts" in said for said in result.convergence.remarks)
    assert "ebfmi_min" not in result.convergence.measures
    assert result.convergence.measures["gradients"] == 2 * 25 * (5 + 3)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"patient_steps": 1.5}, {"chains": 0}])
def test_a_setting_that_makes_no_sense_is_refused(settings):
    with pytest.raises(RequestError):
        Gibbs(**settings)
