"""Patients who fill up the arrays: the others' density is the same, and nobody sees them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from jax.experimental.compilation_cache import compilation_cache
from models_for_tests import DECAY, FOLLOWING, cohort, decaying

from carpk import padding, stochastic_em, tables
from carpk.cohort import design
from carpk.conditional import Patients
from carpk.empirical_bayes import laplace_start
from carpk.estimators.svi import Svi, _measured
from carpk.fitting import fit
from carpk.geometry import frozen, log_density, population_spread
from carpk.likelihood import data_of, log_prior, to_theta
from carpk.padding import filled_start, filled_to, filled_up
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.round_sizes import room_for
from carpk.solve import arrays
from carpk.stochastic_em import Programs, chains_for, walked


def prepared(patients, **asked):
    """A model and the data of so many patients."""
    seen = design(decaying(patients), DECAY)
    model, _ = resolve(population(DECAY, **asked), seen, {})
    return model, data_of(model, seen)


def problem(patients, **asked):
    """A model, the data and the start of so many patients."""
    model, data = prepared(patients, **asked)
    return model, data, laplace_start(model, data, seed=1)


@pytest.fixture(scope="module")
def eleven():
    return problem(11, covariates={"C0 ~ WT": "power(70)"})


@pytest.mark.parametrize("parametrisation", ["informed", "noncentred", "centred"])
def test_the_density_of_the_others_is_the_same_and_that_of_those_is_standard_normal(
        eleven, parametrisation):
    model, data, start = eleven
    both = jax.jit(jax.value_and_grad(lambda u, z, data, frame: log_density(
        model, data, frame, u, z, parametrisation), (0, 1)))
    z = np.random.default_rng(1).normal(size=(15, 2))
    z[11:13] *= 1e3  # where no solve would succeed
    one, (by_u, by_z) = both(start.u, jnp.asarray(z[:11]), data, frozen(model, start))
    all_, (by_u_of_all, by_z_of_all) = both(
        start.u, jnp.asarray(z), filled_up(data), frozen(model, filled_start(start)))
    assert float(all_) + 0.5 * (z[11:] ** 2).sum() == pytest.approx(float(one), rel=1e-9)
    np.testing.assert_allclose(by_u_of_all, by_u, rtol=1e-12)
    np.testing.assert_allclose(by_z_of_all[:11], by_z, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(by_z_of_all[11:], -z[11:], rtol=1e-12)
    calm, _ = both(start.u, jnp.asarray(np.where(np.arange(15)[:, None] < 11, z, 0.0)),
                   filled_up(data), frozen(model, filled_start(start)))
    assert float(calm) == pytest.approx(float(one), rel=1e-12)


def test_the_first_metric_does_not_see_them(eleven):
    model, data, start = eleven
    spread = jax.jit(lambda start, data: population_spread(model, start, data))
    np.testing.assert_allclose(spread(filled_start(start), filled_up(data)), spread(start, data),
                               rtol=1e-12)


def by_saem(model, data, start, chains=4):
    """What SAEM comes to, and of how many its program is."""
    patients = Patients(model, data)
    found = walked(patients, start, chains, 100, 100, 1, lambda done: None, Programs(model))
    return found, len(patients.full["time"])


def by_svi(model, data, start):
    """The guide, the bound of each step and Pareto k, by svi."""
    full, frame = filled_up(data), frozen(model, filled_start(start), 1.0)
    guide, elbo, lost = Svi(steps=500, particles=1)._climbed(
        model, full, frame, start, 1, lambda *said: None)
    assert lost == 0
    return guide, elbo, _measured(model, full, frame, guide, 1), frame


def test_saem_draws_for_the_others_alone_and_comes_to_the_same(eleven, monkeypatch):
    filled, all_ = by_saem(*eleven)
    with monkeypatch.context() as patched:  # all that those who fill up get is something else
        patched.setattr(stochastic_em, "filled_to", lambda count, values, axis=0: np.concatenate(
            [values, 3.0 + 7.0 * np.take(filled_to(count, values, axis), range(
                values.shape[axis], count), axis)], axis))
        other, _ = by_saem(*eleven)
    monkeypatch.setattr(padding, "rounded", lambda patients: patients)
    plain, alone = by_saem(*eleven)
    assert (all_, alone) == (15, 11)
    assert plain.mean.shape == (11, 2)
    for a, b, c in zip(plain, filled, other, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-8)
        np.testing.assert_allclose(c, a, rtol=1e-8)


@pytest.mark.slow  # passed, 9 s
def test_svi_draws_for_the_others_alone_and_comes_to_the_same(eleven, monkeypatch):
    guide, elbo, k, frame = by_svi(*eleven)
    monkeypatch.setattr(padding, "rounded", lambda patients: patients)
    plain, bound, of_plain, alone = by_svi(*eleven)
    assert (len(frame["linear"]), len(alone["linear"])) == (15, 11)
    assert {n: v.shape for n, v in guide.items()} == {n: v.shape for n, v in plain.items()}
    for name, value in plain.items():
        np.testing.assert_allclose(guide[name], value, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(elbo, bound, rtol=1e-8)
    np.testing.assert_allclose(k, of_plain, rtol=1e-6)


@pytest.fixture
def kept(tmp_path):
    """The names of the programs compiled since the test began, by a call."""
    options = {"jax_compilation_cache_dir": str(tmp_path),
               "jax_persistent_cache_min_compile_time_secs": 0,
               "jax_persistent_cache_min_entry_size_bytes": -1}
    before = {n: getattr(jax.config, n) for n in options}
    for values in (options, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is options:
            yield lambda: {f.name for f in tmp_path.glob("*-cache")}


@pytest.mark.parametrize("found", [
    lambda *problem: by_saem(*problem, chains_for(len(problem[1]["time"]))),
    pytest.param(by_svi, marks=pytest.mark.slow)])  # passed, 6 s
def test_a_patient_more_needs_no_program_that_is_not_there(found, kept):
    found(*problem(12))
    another = problem(13)
    there = kept()
    found(*another)
    assert there
    assert kept() == there


def test_the_density_of_a_patient_more_is_the_same_program_though_priors_follow_the_columns():
    """The default prior of a coefficient follows its column's spread, and its reference the
    middle: numbers that a program reads."""
    programs, priors, u = [], [], jnp.zeros(7)
    for patients in (12, 13):
        model, data = prepared(patients, covariates={"C0 ~ WT": "power", "k ~ WT": "linear"})
        theta = to_theta(model, u)
        full = {"information": jnp.ones((15, 1, 2, 2)), "linear": jnp.ones((15, 1, 2)),
                "theta": theta}
        programs.append(jax.jit(lambda data, u, z, frame, model=model: log_density(
            model, data, frame, u, z, "informed")).lower(
                filled_up(data), u, jnp.zeros((15, 2)), full).as_text())
        priors.append([model.priors[n].numbers for n in ("beta_C0_WT", "beta_k_WT")])
        assert float(log_prior(model, theta, data)) == pytest.approx(
            float(log_prior(model, theta)), rel=1e-14)
    assert all(a != b for a, b in zip(*priors, strict=True))
    assert programs[0] == programs[1]


def test_there_are_a_hundred_chains_or_more_and_as_many_for_all_of_a_program():
    assert [chains_for(n) for n in (1, 9, 10, 11, 15, 16, 34, 41, 2000)] == [
        100, 12, 10, 10, 10, 7, 4, 3, 3]


@pytest.mark.slow  # passed
def test_a_fit_has_the_patients_and_the_posterior_of_one_that_is_not_filled_up(monkeypatch):
    """Within four Monte Carlo errors of the difference."""
    settings = {"chains": 4, "warmup": 300, "draws": 1000}
    filled = fit(population(DECAY), decaying(11), seed=1, **settings).posterior
    monkeypatch.setattr(padding, "rounded", lambda patients: patients)
    plain = fit(population(DECAY), decaying(11), seed=1, **settings).posterior
    assert filled["posterior"].sizes == plain["posterior"].sizes
    for name in plain["posterior"].dataset.data_vars:
        a, b = (t["posterior"].dataset[name].values for t in (filled, plain))
        for k in np.ndindex(a.shape[2:]):
            x, y = a[(..., *k)], b[(..., *k)]
            error = np.hypot(*(array_stats.mcse(v, method="mean") for v in (x, y)))
            assert abs(x.mean() - y.mean()) < 4.5 * error, (name, k)
    lp = [t["sample_stats"]["lp"].values for t in (filled, plain)]
    error = np.hypot(*(array_stats.mcse(v, method="mean") for v in lp))
    assert abs(lp[0].mean() - lp[1].mean()) < 4.5 * error


def test_a_sample_more_needs_no_arrays_of_another_size(near_typical):
    """Of one patient, whom no one outdoes: what a compiled program reads keeps its shapes."""
    rows = [(str(i), float(t), 100.0 * np.exp(-0.1 * t)) for i in range(3) for t in range(1, 12)]
    more = sorted([*rows, ("1", 11.5, 30.0)])
    for model in (DECAY, FOLLOWING):
        shapes = []
        for own in (rows, more):
            seen = design(cohort(own), model)
            wide = seen.padded(room_for(seen.time.shape[1]) - seen.time.shape[1])
            shapes.append(jax.tree.map(np.shape, arrays(wide, model, 30)))
        assert shapes[0] == shapes[1]
    result = near_typical(population(DECAY), cohort(rows))  # 11 samples, with room for 12
    assert result.manifest["data"]["observations"] == len(rows) == len(tables.predictions(result))
