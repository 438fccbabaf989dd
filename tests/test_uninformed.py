"""What the data hardly inform is named from a start: closed forms of a linear normal model, and
patients who were not seen for long."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from models_for_tests import LEVEL, cohort

from carpk.cohort import design
from carpk.empirical_bayes import Start, laplace_start
from carpk.examples import example
from carpk.likelihood import data_of, from_theta, to_theta
from carpk.population_model import population
from carpk.preparation import resolve
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
    return hardly_informed(model, laplace_start(model, data, seed=1))


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
    model, _ = prepared(cohort([(str(i), 0, 1.0) for i in range(6)]), LEVEL)
    sigma, n, omega, mu = 0.3, 3, 0.5, 1.2
    y = np.random.default_rng(2).normal(size=6)
    y = 1.0 + (y - y.mean()) / y.std() * np.sqrt((1 + above) * sigma**2 / n)
    known = np.full((6, 1, 1, 1), n / sigma**2)
    phi = (known[:, 0, 0, 0] * y + mu / omega**2) / (known[:, 0, 0, 0] + omega**-2)
    u = from_theta(model, {"m_pop": mu, "omega_m": omega, "sigma_y_add": sigma})
    start = Start(jnp.asarray(u), jnp.asarray(phi[:, None]), jnp.asarray(known),
                  jnp.asarray(known[..., 0] * y[:, None, None]), jnp.zeros(6), 1)
    said = hardly_informed(model, start)
    assert [s.startswith("the likeliest value of omega_m is 0") for s in said] == \
        ([True] if above < 0 else [])
