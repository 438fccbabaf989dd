"""Patients who fill up the arrays: the others' density is the same, and nobody sees them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from models_for_tests import DECAY, FOLLOWING, cohort, decaying

from carpk import padding, stochastic_em, tables
from carpk.cohort import design
from carpk.conditional import Patients
from carpk.empirical_bayes import laplace_start
from carpk.fitting import fit
from carpk.geometry import frozen, log_density, population_spread
from carpk.likelihood import data_of
from carpk.padding import filled_start, filled_to, filled_up
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.round_sizes import room_for
from carpk.solve import arrays
from carpk.stochastic_em import Programs, chains_for, walked


def problem(patients):
    """A model, the data and the start of so many patients."""
    seen = design(decaying(patients), DECAY)
    model, _ = resolve(population(DECAY, covariates={"C0 ~ WT": "power(70)"}), seen, {})
    data = data_of(model, seen)
    return model, data, laplace_start(model, data, seed=1)


@pytest.fixture(scope="module")
def eleven():
    return problem(11)


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


def by_saem(model, data, start, programs=None, chains=4):
    """What SAEM comes to, and whom its program knew of."""
    patients = Patients(model, data)
    return walked(patients, start, chains, 100, 100, 1, lambda done: None,
                  programs or Programs(model)), patients.full["time"].shape[0]


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


def test_saems_program_is_that_of_a_patient_more():
    programs = Programs(problem(12)[0])
    for patients in (12, 13):
        by_saem(*problem(patients), programs, chains_for(patients))
    assert programs.block._cache_size() == 1
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
