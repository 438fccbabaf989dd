"""The posterior of an earlier fit as a prior: against closed forms, and what is refused."""

import dataclasses
import json
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from models_for_tests import COVARIATES, DECAY, cohort, decaying
from scipy import stats

from carpk import fitting
from carpk.cohort import design
from carpk.earlier import Earlier, posterior_of
from carpk.estimators import Convergence, Estimate, Estimator
from carpk.likelihood import (
    data_of,
    from_theta,
    log_jacobian,
    log_joint,
    log_prior,
    to_theta,
)
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.priors import Prior
from carpk.problems import DataError, RequestError
from carpk.simulation import drawn_from_prior
from carpk.structure import Output, Parameter, Source, StructuralModel

LINE = StructuralModel(
    title="a line", source=Source("textbook"), time_unit="day",
    parameters=(Parameter("a", 1.0, "mg/L", "level at 0", link="identity"),
                Parameter("b", 1.0, "mg/L/day", "slope", link="identity")),
    outputs=(Output("C", "mg/L", "level", error="additive"),),
    solution=lambda t, p: {"C": p.a + p.b * t}, file=__file__)
WIDE = {"a": "normal(0, 10)", "b": "normal(0, 5)"}
TIMES, SIGMA = np.array([0.0, 1.0, 2.0, 4.0, 5.0, 9.0]), 0.7


def rows(seed):
    random = np.random.default_rng(seed)
    return [(str(i), t, 3.0 + 0.4 * t + SIGMA * random.normal()) for i in (1, 2) for t in TIMES]


def closed_form(*sets):
    """Mean and covariance of a and b after the rows of all sets."""
    every = [r for s in sets for r in s]
    x = np.array([(1.0, t) for _, t, _ in every])
    precision = np.diag([1 / 100, 1 / 25]) + x.T @ x / SIGMA**2
    covariance = np.linalg.inv(precision)
    return covariance @ x.T @ np.array([y for *_, y in every]) / SIGMA**2, covariance


def kept(name, structure, folder):
    """A model of this file with a file of its own, which its fits are read back by."""
    file = folder / f"{name}.py"
    file.write_text(f"from test_earlier import {name} as MODEL\n")
    return dataclasses.replace(structure, file=str(file))


@dataclass(frozen=True)
class Exact(Estimator):
    """Draws whose mean and covariance on the real line are exactly these."""

    mean: object = None
    covariance: object = None
    ok: bool = True

    def fit(self, model, data, ids, seed, progress):
        size = len(model.free)
        z = np.random.default_rng(0).normal(size=(400, size))
        z = (z - z.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T)).T)
        centre = from_theta(model, {**model.fixed, **{n: 0.0 if "corr" in n else
                                                      model.priors[n].median for n in model.free}})
        u = np.asarray(centre if self.mean is None else self.mean) + z @ np.linalg.cholesky(
            0.01 * np.eye(size) if self.covariance is None else self.covariance).T
        theta = jax.vmap(lambda u: to_theta(model, u))(jnp.asarray(u))
        return Estimate(
            {n: np.asarray(theta[n]).reshape(2, 200) for n in model.free},
            np.zeros((2, 200, len(ids), len(model.spread))), {}, "posterior",
            Convergence(self.ok, () if self.ok else ("too short",), (), {}), {})


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """saved(model, cohort, ...): a fit with the draws of `Exact`, and its folder."""
    def save(model, who, mean=None, covariance=None, ok=True):
        name = "DECAY" if model.structure.title == DECAY.title else "LINE"
        model = dataclasses.replace(model, structure=kept(name, model.structure, tmp_path))
        monkeypatch.setattr(fitting, "with_settings", lambda *_: Exact(mean, covariance, ok))
        monkeypatch.setattr(Exact, "__dataclass_fields__", {})  # no settings in the manifest
        result = fitting.fit(model, who, seed=1)
        return result, str(result.save(tmp_path))
    return save


def test_updating_twice_is_fitting_all_data_at_once(saved):
    first, second = rows(1), rows(2)
    held = {"sigma_C_add": SIGMA}
    _, folder = saved(population(LINE, fixed=held, priors=WIDE), cohort(first),
                      *closed_form(first))
    asked = population(LINE, fixed=held, priors=folder)
    assert asked.priors == {}

    def density(model, who):
        seen = design(who, LINE)
        ready, _ = resolve(model, seen, {})
        data = data_of(ready, seen)
        return ready, jax.jit(lambda ab: log_joint(
            ready, data, {**ready.fixed, "a_pop": ab[0], "b_pop": ab[1]}, jnp.zeros((2, 0))))

    ready, then = density(asked, cohort(second))
    _, at_once = density(population(LINE, fixed=held, priors=WIDE), cohort(first + second))
    points = np.random.default_rng(3).normal([3.0, 0.4], [1.0, 0.3], size=(5, 2))
    apart = [float(then(ab) - at_once(ab)) for ab in points]
    assert np.ptp(apart) < 1e-6 * max(abs(float(at_once(ab))) for ab in points)
    mean, covariance = closed_form(first, second)
    u = jnp.asarray(mean)
    assert np.allclose(jax.grad(then)(u), 0.0, atol=1e-5)
    assert np.allclose(-jax.hessian(then)(u) @ covariance, np.eye(2), atol=1e-6)
    assert ready.reasons["a_pop"] == f"the posterior of {folder}, correlated as there"


@pytest.mark.slow  # passed, 48 s
def test_two_fits_by_nuts_in_turn_are_the_closed_form_of_all_data(tmp_path):
    first, second = rows(1), rows(2)
    held = {"sigma_C_add": SIGMA}
    line = kept("LINE", LINE, tmp_path)
    one = fitting.fit(population(line, fixed=held, priors=WIDE), cohort(first), seed=1, draws=1500)
    two = fitting.fit(population(line, fixed=held, priors=str(one.save(tmp_path))),
                      cohort(second), seed=2, draws=1500)
    mean, covariance = closed_form(first, second)
    draws = two.posterior["posterior"].dataset
    for k, name in enumerate(("a_pop", "b_pop")):
        sd = covariance[k, k] ** 0.5
        assert draws[name].values.mean() == pytest.approx(mean[k], abs=0.1 * sd)
        assert draws[name].values.std() == pytest.approx(sd, rel=0.1)


def test_a_prior_from_a_fit_is_a_normal_on_the_real_line_in_density_and_in_draws(saved, tmp_path):
    model = population(DECAY, correlated="full", covariates={"C0 ~ WT": "power(70)"})
    who = decaying()
    random = np.random.default_rng(5)
    ready, _ = resolve(model, design(who, DECAY), {})
    size = len(ready.free)
    mean = np.asarray(from_theta(ready, {n: ready.priors[n].median for n in ready.free})) \
        + 0.1 * random.normal(size=size)
    low = np.tril(0.1 * random.normal(size=(size, size)), -1) + np.diag(
        random.uniform(0.2, 0.4, size))
    _, folder = saved(model, who, mean, low @ low.T)
    asked = population(DECAY, correlated="full", priors=f"{folder}:0.25",
                       covariates={"C0 ~ WT": "power"})
    assert asked.effects[0].reference == 70.0
    then, _ = saved(asked, who)
    chosen = then.model
    assert chosen.free == ready.free
    law = stats.multivariate_normal(mean, 4.0 * low @ low.T)
    for u in law.rvs(3, random_state=random):
        found = log_prior(chosen, to_theta(chosen, jnp.asarray(u))) \
            + log_jacobian(chosen, jnp.asarray(u))
        assert float(found) == pytest.approx(law.logpdf(u), abs=1e-6)
    drawn = [drawn_from_prior(chosen, seed) for seed in range(400)]
    u = np.asarray(jax.vmap(lambda theta: from_theta(chosen, theta))(
        {n: jnp.asarray([d[n] for d in drawn]) for n in chosen.names}))
    z = np.linalg.solve(2.0 * low, (u - mean).T)
    assert min(stats.kstest(row, stats.norm.cdf).pvalue for row in z) > 1e-3
    assert np.abs(np.corrcoef(z) - np.eye(size)).max() < 4.5 / 400**0.5
    again = fitting.load_fit(then.save(tmp_path / "second")).model
    assert float(log_prior(again, drawn[0])) == pytest.approx(  # numbers are kept to 10 digits
        float(log_prior(chosen, drawn[0])), abs=1e-7)
    assert json.loads(json.dumps(then.manifest))["request"]["priors"] == {"from": f"{folder}:0.25"}


def test_only_what_both_estimate_is_taken_over_and_a_prior_that_is_stated_stands(saved):
    _, folder = saved(population(DECAY, correlated="full"), decaying())
    asked = population(DECAY, spread=["C0"], priors={"from": folder, "k": "lognormal(0.1, 2)"})
    ready, _ = resolve(asked, design(decaying(), DECAY), {})
    assert set(ready.earlier.priors) == {"C0_pop", "omega_C0", "sigma_C_log"}
    assert str(ready.priors["k_pop"]) == "lognormal(0.1, 2)"
    assert np.array(ready.earlier.correlation).shape == (3, 3)


def test_maximum_likelihood_refuses_it(saved):
    from carpk.maximum_likelihood import refuse_priors
    _, folder = saved(population(DECAY), decaying())
    ready, _ = resolve(population(DECAY, priors=folder), design(decaying(), DECAY), {})
    with pytest.raises(RequestError, match="no place for a prior"):
        refuse_priors(ready)


@pytest.mark.parametrize(("discount", "ok", "words"), [
    (":0", True, "a discount lies above 0"), (":1.5", True, "a discount lies above 0"),
    ("-gone", True, "not a fit to take priors from"), ("", False, "did not converge")])
def test_a_fit_that_is_no_prior_is_refused(saved, discount, ok, words):
    _, folder = saved(population(LINE), cohort(rows(1)), ok=ok)
    with pytest.raises(RequestError, match=words):
        population(LINE, priors=folder + discount)


def test_a_prior_of_another_meaning_is_refused(saved):
    _, folder = saved(population(DECAY, covariates=COVARIATES), decaying())
    with pytest.raises(RequestError, match=r"power\(70"):
        population(DECAY, covariates={"C0 ~ WT": "power(60)"}, priors=folder)
    linear = dataclasses.replace(DECAY, parameters=tuple(
        dataclasses.replace(p, link="identity") for p in DECAY.parameters))
    with pytest.raises(RequestError, match="another scale"):
        resolve(population(linear, priors=folder), design(decaying(), linear), {})
    with pytest.raises((RequestError, DataError), match="in mg/L in the prior"):
        resolve(population(DECAY, priors=folder), design(decaying(), DECAY), {1: "ng/mL"})
    other = dataclasses.replace(LINE, outputs=(dataclasses.replace(
        LINE.outputs[0], error="proportional"),))
    with pytest.raises(RequestError, match="no parameter of this fit"):
        resolve(population(other, priors=folder), design(cohort(rows(1)), other), {})


def test_an_effect_that_the_new_model_lacks_is_told_where_its_typical_value_is_taken_over(saved):
    _, folder = saved(population(DECAY, covariates=COVARIATES), decaying())
    kept = {n: f for n, f in COVARIATES.items() if not n.startswith("k")}
    for priors, told in ((folder, {"k ~ SEX", "k ~ WT"}),
                         ({"from": folder, "k": "lognormal(0.2, 1)"}, set())):
        _, said = resolve(population(DECAY, covariates=kept, priors=priors),
                          design(decaying(), DECAY), {})
        dropped = [p for p in said if "the prior's fit has" in p.wrong]
        assert {p.column for p in dropped} == told
        assert all("of patients at" in p.wrong for p in dropped)


def test_latent_classes_neither_give_nor_take_a_prior(saved):
    _, folder = saved(population(DECAY, classes="2: C0"), decaying())
    with pytest.raises(RequestError, match="this fit has latent classes"):
        population(DECAY, priors=folder)
    _, folder = saved(population(DECAY), decaying())
    with pytest.raises(RequestError, match="take no prior from a fit without"):
        resolve(population(DECAY, classes="2: C0", priors=folder), design(decaying(), DECAY), {})


def test_too_few_draws_make_no_prior(saved, tmp_path):
    result, _ = saved(population(LINE), cohort(rows(1)))
    few = xr.DataTree.from_dict({"posterior": result.posterior["posterior"].dataset.isel(
        draw=slice(10))})
    folder = dataclasses.replace(result, posterior=few).save(tmp_path)
    with pytest.raises(RequestError, match="20 draws do not make a covariance of 3"):
        posterior_of(str(folder))


def test_dependence_alone_is_what_the_correlation_adds():
    two = Earlier("", {"x": Prior.parse("normal(1, 2)"), "y": Prior.parse("lognormal(3, 0.5)")},
                  ((1.0, 0.6), (0.6, 1.0)))
    law = stats.multivariate_normal([1.0, np.log(3.0)], [[4.0, 0.6], [0.6, 0.25]])
    x, y = 2.3, 4.1
    alone = stats.norm(1, 2).logpdf(x) + stats.norm(np.log(3.0), 0.5).logpdf(np.log(y))
    assert float(two.log_dependence({"x": jnp.asarray(x), "y": jnp.log(y)})) == pytest.approx(
        law.logpdf([x, np.log(y)]) - alone, abs=1e-12)
