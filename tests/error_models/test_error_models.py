"""Every residual error model, by name: densities, censored probabilities, gradients, draws."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from carpk import registry
from carpk.error_models import error_model
from carpk.problems import RequestError

NAMES = [*(n for n in registry.names("error_models") if n != "bernoulli"),
         "lognormal student_t", "combined student_t",
         "lognormal cauchy", "additive cauchy"]
SIGMA = {"log": 0.6, "add": 3.0, "prop": 0.25, "power": 0.7}


def load(name):
    model = error_model(name)
    return model, SimpleNamespace(**{s: SIGMA[s] for s in model.sigmas})


def scipys(name, pred):
    """The distribution of DV, written independently."""
    name, _, tails = name.partition(" ")
    sd = {"additive": 3.0, "proportional": 0.25 * pred, "power": 0.25 * pred**0.7,
          "combined": np.hypot(3.0, 0.25 * pred), "combined_sum": 3.0 + 0.25 * pred}.get(name)
    shape = {"": stats.norm, "student_t": stats.t(4), "cauchy": stats.cauchy}[tails]
    if sd is not None:
        return Moved(shape, pred, sd) if tails else stats.norm(pred, sd)
    return Exponential(Moved(shape, np.log(pred), 0.6)) if tails else \
        stats.lognorm(s=0.6, scale=pred)


class Moved:
    """A standard distribution of scipy, moved and stretched."""

    def __init__(self, shape, at, by):
        self.shape, self.at, self.by = shape, at, by

    def __getattr__(self, name):
        less = np.log(self.by) if name == "logpdf" else 0.0
        return lambda x: getattr(self.shape, name)((x - self.at) / self.by) - less


class Exponential:
    """That of the exponential of what another distribution is of."""

    def __init__(self, of):
        self.of = of

    def __getattr__(self, name):
        def of(x):
            with np.errstate(divide="ignore"):
                u = np.log(x)
            return getattr(self.of, name)(u) - (u if name == "logpdf" else 0.0)
        return of


@functools.cache
def compiled(name):
    """ln of the likelihood of (lower, upper, prediction), and its slope in the prediction."""
    model, sigma = load(name)

    def row(lower, upper, pred):
        return model.log_likelihood(lower, upper, pred, sigma)

    return jax.jit(row), jax.jit(jax.grad(row, argnums=2))


def value(name, lower, upper, pred):
    return float(compiled(name)[0](float(lower), float(upper), float(pred)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dv", [0.5, 20.0, 31.0])
def test_a_measured_row_has_scipys_log_density(name, dv):
    assert value(name, dv, dv, 22.0) == pytest.approx(scipys(name, 22.0).logpdf(dv), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_censored_row_has_scipys_log_probability(name):
    true = scipys(name, 22.0)
    assert value(name, -np.inf, 15.0, 22.0) == pytest.approx(true.logcdf(15.0), rel=1e-10)
    assert value(name, 30.0, np.inf, 22.0) == pytest.approx(true.logsf(30.0), rel=1e-10)
    for low, high in ((10.0, 15.0), (15.0, 30.0), (40.0, 41.0)):
        inside = true.sf(low) - true.sf(high) if low > 22.0 else true.cdf(high) - true.cdf(low)
        assert value(name, low, high, 22.0) == pytest.approx(np.log(inside), rel=1e-8)


@pytest.mark.parametrize("name", NAMES)
@given(cut=st.floats(1.0, 60.0), pred=st.floats(1.0, 60.0))
def test_below_and_above_a_limit_make_one(name, cut, pred):
    below, above = value(name, -np.inf, cut, pred), value(name, cut, np.inf, pred)
    assert np.exp(below) + np.exp(above) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_measured_density_and_censored_probability_make_one(name):
    model, sigma = load(name)
    y = jnp.geomspace(10.0, 20_000.0, 200_001)
    density = jnp.exp(model.log_likelihood(y, y, jnp.full_like(y, 22.0), sigma))
    dense = np.trapezoid(density, y)
    outside = np.exp(value(name, -np.inf, 10.0, 22.0)) + np.exp(value(name, 2e4, np.inf, 22.0))
    assert dense + outside == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("away", [-40.0, -8.0, -1.0, 0.0, 1.0, 8.0, 40.0])
@pytest.mark.parametrize("kind", ["below", "above", "within", "measured"])
def test_gradients_are_finite_and_those_of_finite_differences_up_to_40_sd(name, away, kind):
    model, sigma = load(name)
    # the prediction lies `away` SDs from the limit, on the error model's own scale
    limit = 200.0
    sd = float(model.sd(jnp.asarray(limit), sigma))
    pred = limit * np.exp(away * sd) if model.log_scale else limit + away * sd
    ends = {"below": (-np.inf, limit), "above": (limit, np.inf), "measured": (limit, limit),
            "within": (limit, limit + 0.5 * sd if not model.log_scale else limit * 1.3)}[kind]

    def row(x):
        return value(name, *ends, x)

    slope = compiled(name)[1](*map(float, (*ends, pred)))
    assert np.isfinite(row(pred))
    assert np.isfinite(slope)
    h = 1e-5 * (pred if model.log_scale else max(abs(pred), sd))
    if name in ("proportional", "power") and abs(pred) < 3 * h:
        return  # the SD is floored at a prediction of zero: no derivative there
    difference = (row(pred + h) - row(pred - h)) / (2 * h)
    assert float(slope) == pytest.approx(difference, rel=2e-5, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_lower_limit_going_to_zero_is_no_censoring_of_a_positive_level(name):
    model, _ = load(name)
    if model.log_scale and model.tails.title == "normal":
        assert value(name, -np.inf, 1e-280, 1e-200) < np.log(1e-30)
        assert value(name, 0.0, 15.0, 22.0) == value(name, -np.inf, 15.0, 22.0)


@pytest.mark.parametrize("name", NAMES)
def test_draws_have_the_models_distribution(name):
    model, sigma = load(name)
    draws = model.draw(jax.random.key(1), jnp.full(4000, 22.0), sigma)
    assert stats.kstest(np.asarray(draws), scipys(name, 22.0).cdf).pvalue > 0.001


def test_a_prediction_of_zero_on_the_log_scale_keeps_value_and_gradient():
    model, sigma = load("lognormal")
    at, slope = jax.value_and_grad(lambda x: model.log_likelihood(
        jnp.asarray(-jnp.inf), jnp.asarray(50.0), x, sigma))(jnp.asarray(0.0))
    assert float(at) == pytest.approx(0.0, abs=1e-12)
    assert np.isfinite(slope)


def test_tails_nobody_knows_are_refused():
    with pytest.raises(RequestError, match="student_t"):
        error_model("lognormal heavy")
