"""What the data hardly inform is named from a start: closed forms of a linear normal model, and
patients who were not seen for long."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest
from models_for_tests import LEVEL, cohort
from scipy.special import expit

from carpk.cohort import design
from carpk.conditional import Patients
from carpk.empirical_bayes import Start, laplace_start
from carpk.examples import example
from carpk.fitting import fit
from carpk.likelihood import data_of, from_theta, to_theta
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.structure import Output, Parameter, Source, StructuralModel, sd
from carpk.uninformed import hardly_informed


def prepared(who, model, **options):
    asked = population(model, **options)
    seen = design(who, asked.structure)
    model, _ = resolve(asked, seen, {})
    return model, data_of(model, seen)


@pytest.fixture(scope="module")
def early():
    """Ten patients who were seen for two weeks: nothing of the slow decline."""
    who = example("tisacel_like").select([str(i) for i in range(1, 11)])
    return dataclasses.replace(who, observations=who.observations[who.observations["TIME"] <= 14])


def said_of(who, **options):
    model, data = prepared(who, "stein_2019", **options)
    return hardly_informed(model, laplace_start(model, data, seed=1), Patients(model, data))


def test_spreads_and_typical_values_that_the_data_do_not_hold_are_named(early):
    spreads, typical, *_ = said_of(early)
    assert all(n in spreads for n in ("omega_foldx", "omega_FB", "omega_beta"))
    assert "omega_Tmax" not in spreads
    assert typical.startswith("the data hardly inform beta_pop (100%), in brackets")


def test_a_typical_value_in_which_no_patient_varies_is_named(early):
    typical = [s for s in said_of(early, spread=["Tmax", "Cmax"]) if "the prior's variance" in s]
    assert "beta_pop (100%)" in typical[0]


def test_nothing_is_said_of_patients_who_were_seen_for_a_year():
    assert said_of(example("tisacel_like").select([str(i) for i in range(1, 11)])) == []


@pytest.mark.parametrize("spread", [["m"], []])
def test_what_is_left_open_of_a_level_is_its_closed_form(spread):
    """m_pop of patients with n = 3 samples each: 1 / (1 + s^2 P / (omega^2 + sigma^2 / n))."""
    rng = np.random.default_rng(1)
    who = cohort([(str(i), t, 4.0 + m + 0.3 * rng.normal())
                  for i, m in enumerate(rng.normal(size=5)) for t in (0, 1, 2)])
    model, data = prepared(who, LEVEL, spread=spread, priors={"m_pop": "normal(3, 0.4)"})
    start = laplace_start(model, data, seed=1)
    theta = {n: float(v) for n, v in to_theta(model, start.u).items()}
    each = theta.get("omega_m", 0.0) ** 2 + theta["sigma_y_add"] ** 2 / 3
    assert start.left_open[model.free.index("m_pop")] == pytest.approx(
        1.0 / (1.0 + 0.4**2 * 5 / each), rel=1e-5)


@pytest.mark.parametrize("above", [-0.02, 0.02])
def test_a_spread_is_likeliest_at_0_where_means_vary_no_more_than_the_error_makes_them(above):
    """The likelihood of means y_i of n samples falls from omega = 0 on where the mean of
    (y_i - y)^2 is below sigma^2 / n."""
    model, data = prepared(cohort([(str(i), 0, 1.0) for i in range(6)]), LEVEL)
    sigma, n, omega, mu = 0.3, 3, 0.5, 1.2
    y = np.random.default_rng(2).normal(size=6)
    y = 1.0 + (y - y.mean()) / y.std() * np.sqrt((1 + above) * sigma**2 / n)
    known = np.full((6, 1, 1, 1), n / sigma**2)
    phi = (known[:, 0, 0, 0] * y + mu / omega**2) / (known[:, 0, 0, 0] + omega**-2)
    u = from_theta(model, {"m_pop": mu, "omega_m": omega, "sigma_y_add": sigma})
    start = Start(jnp.asarray(u), jnp.asarray(phi[:, None]), jnp.asarray(known),
                  jnp.asarray(known[..., 0] * y[:, None, None]), jnp.zeros(6), 1)
    said = hardly_informed(model, start, Patients(model, data))
    assert [s.startswith("the likeliest value of omega_m is 0") for s in said] == \
        ([True] if above < 0 else [])


ANSWERS = StructuralModel(
    title="a tendency", source=Source("textbook"), time_unit="day",
    parameters=(Parameter("b", 0.3, "1", "log odds", omega=sd(2.0), link="identity"),),
    outputs=(Output("R", "1", "answer", error="bernoulli"),),
    solution=lambda t, p: {"R": 1.0 / (1.0 + 2.718281828459045 ** (-p.b)) + 0.0 * t},
    file=__file__)


def answering(patients, answers):
    rng = np.random.default_rng(5)
    return cohort([(str(i), t, float(rng.uniform() < expit(b)))
                   for i, b in enumerate(0.5 + 3.0 * rng.normal(size=patients))
                   for t in range(answers)])


def disagreement(said):
    found = [s for s in said if s.startswith("the exact likelihood puts")]
    return {n: float(by) for s in found
            for n, by in re.findall(r"(\w+) \(by (\S+) standard errors\)", s)}


def test_laplace_of_few_answers_is_apart_from_the_exact_likelihood_by_what_quadrature_finds():
    """Of three answers a patient, on a grid over b: the exact step of omega by sums, Laplace's by
    the mode and the curvature there."""
    who = answering(400, 3)
    model, data = prepared(who, ANSWERS)
    start = laplace_start(model, data, seed=1)
    theta = {n: float(v) for n, v in to_theta(model, start.u).items()}
    mu, omega = theta["b_pop"], theta["omega_b"]
    answers = who.observations.groupby("ID", sort=False)["DV"].sum().to_numpy()[:, None]
    b = mu + omega * np.linspace(-9, 9, 4001)
    height = answers * b - 3 * np.log1p(np.exp(b)) - 0.5 * ((b - mu) / omega) ** 2
    weight = np.exp(height - height.max(axis=1, keepdims=True))
    exact = ((b - mu) ** 2 * weight).sum(axis=1) / weight.sum(axis=1)
    mode = b[height.argmax(axis=1)]
    variance = 1.0 / (3 * expit(mode) * expit(-mode) + omega**-2)
    left = 1.0 - variance.mean() / omega**2
    by = abs(np.log(exact.mean() / ((mode - mu) ** 2 + variance).mean())) * 200**0.5 / left
    said = disagreement(hardly_informed(model, start, Patients(model, data)))
    assert by > 3.0
    assert said["omega_b"] == pytest.approx(by, abs=0.35)  # of which 0.1 is that of its digits


def test_where_laplace_is_exact_or_nearly_so_nothing_is_said_of_it():
    rng = np.random.default_rng(1)
    who = cohort([(str(i), t, 4.0 + m + 0.5 * rng.normal())
                  for i, m in enumerate(rng.normal(size=60)) for t in (0, 1)])
    for cohort_, structure in ((who, LEVEL), (answering(60, 120), ANSWERS)):
        model, data = prepared(cohort_, structure)
        said = hardly_informed(model, laplace_start(model, data, seed=1), Patients(model, data))
        assert disagreement(said) == {}


# last run: omega_b 1.45 at the start, 2.39 (SE 0.21) by laplace, 2.70 (0.25) by saem; said: 3.8
# standard errors. With two answers 1.19, 2.15, 2.72 (0.34): 3.0; with eight of 200 patients 1.99,
# 2.69, 2.82 (0.24): 2.9
@pytest.mark.slow
def test_the_maximum_of_saem_lies_at_least_as_far_from_the_start_as_is_said():
    who = answering(400, 3)
    model, data = prepared(who, ANSWERS)
    start = laplace_start(model, data, seed=1)
    said = disagreement(hardly_informed(model, start, Patients(model, data)))
    first = float(to_theta(model, start.u)["omega_b"])
    laplace, saem = (fit(population(ANSWERS), who, e, seed=1, draws=101)
                     .manifest["estimates"]["omega_b"] for e in ("laplace", "saem"))
    print(first, laplace, saem)
    assert (saem["estimate"] - first) / saem["se"] > said["omega_b"] > 2.0
    assert first < laplace["estimate"] < saem["estimate"]
