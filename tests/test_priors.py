"""Priors: densities against scipy, the way to the real line and back, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from carpk.priors import Prior, lkj_draw
from carpk.problems import RequestError

PRIORS = {
    "normal(1.5, 2)": stats.norm(1.5, 2),
    "lognormal(24, 1.5)": stats.lognorm(s=1.5, scale=24),
    "halfnormal(0.8)": stats.halfnorm(scale=0.8),
    "halfcauchy(5)": stats.halfcauchy(scale=5),
    "exponential(3)": stats.expon(scale=3),
    "inversegamma(2, 3)": stats.invgamma(2, scale=3),
}


@pytest.mark.parametrize("text", PRIORS)
def test_a_log_density_is_scipys(text):
    points = PRIORS[text].ppf([0.01, 0.2, 0.5, 0.9, 0.999])
    assert np.allclose(Prior.parse(text).log_density(jnp.asarray(points)),
                       PRIORS[text].logpdf(points), rtol=1e-12)


@pytest.mark.parametrize("text", PRIORS)
def test_a_median_is_scipys(text):
    assert Prior.parse(text).median == pytest.approx(PRIORS[text].median(), rel=1e-12)


def test_a_logitnormal_density_integrates_to_one_around_its_median():
    prior = Prior.parse("logitnormal(0.3, 1.2)")
    below, _ = integrate.quad(lambda x: float(jnp.exp(prior.log_density(x))), 0, 0.3)
    above, _ = integrate.quad(lambda x: float(jnp.exp(prior.log_density(x))), 0.3, 1)
    assert (below, above) == pytest.approx((0.5, 0.5), abs=1e-8)


@pytest.mark.parametrize("text", [*PRIORS, "logitnormal(0.3, 1.2)",
                                  "softplusnormal(0.4, 0.6)"])
def test_a_density_on_the_real_line_integrates_to_one(text):
    prior = Prior.parse(text)
    u = jnp.linspace(-30.0, 30.0, 200_001)  # beyond 36 a sigmoid is 1 to the last bit
    density = jnp.exp(jax.vmap(prior.log_density_real)(u))
    assert np.trapezoid(density, u) == pytest.approx(1.0, abs=1e-4)


@given(st.floats(-30, 30))
def test_the_way_to_the_real_line_and_back_changes_nothing(u):
    for text in ("normal(0, 1)", "lognormal(1, 1)", "halfnormal(1)"):
        scale = Prior.parse(text).scale
        assert float(scale.to_real(scale.from_real(u))) == pytest.approx(u, abs=1e-6)


@given(st.sampled_from(["normal", "lognormal"]), st.floats(1e-6, 1e6), st.floats(1e-3, 1e3))
def test_a_prior_is_read_back_from_its_written_form(family, a, b):
    prior = Prior(family, (a, b))
    again = Prior.parse(str(prior))
    assert again.numbers == pytest.approx(prior.numbers, rel=1e-9)


@pytest.mark.parametrize("text", [
    "lognormal", "lognormal(1)", "lognormal(0, 1)", "lognormal(-3, 1)", "normal(0, 0)",
    "halfnormal(-1)", "halfnormal(1, 2)", "gauss(0, 1)", "normal(a, b)", "logitnormal(1, 1)",
    "normal(nan, 1)", "tanhnormal(-1, 1)", "softplusnormal(0, 1)",
    "normal(0, inf)", "", "normal(0 1)"])
def test_a_prior_that_is_not_one_is_refused_with_what_was_found(text):
    with pytest.raises(RequestError) as refused:
        Prior.parse(text)
    assert refused.value.problems[0].found is not None


@pytest.mark.parametrize("text", ["normal(1, 2)", "lognormal(5, 0.5)", "logitnormal(0.2, 1)",
                                  "halfnormal(0.7)", "halfcauchy(2)", "exponential(3)", "lkj(2)",
                                  "inversegamma(2, 3)", "softplusnormal(0.4, 0.6)",
                                  "tanhnormal(-0.3, 0.5)"])
def test_draws_follow_the_density(text):
    """Against the density summed over the real line it is sampled on."""
    prior, random = Prior.parse(text), np.random.default_rng(1)
    u = np.linspace(-30, 30, 200_001)
    density = np.exp(np.asarray(prior.log_density_real(jnp.asarray(u))))
    density = np.where(np.isfinite(density), density, 0.0)
    below = np.cumsum(density) * (u[1] - u[0])
    assert below[-1] == pytest.approx(1.0, abs=2e-3)
    draws = np.asarray(prior.scale.to_real(jnp.asarray([prior.draw(random) for _ in range(3000)])))
    assert stats.kstest(draws, lambda x: np.interp(x, u, below / below[-1])).pvalue > 0.001


def test_drawn_correlation_matrices_have_the_marginals_of_lkj():
    random = np.random.default_rng(2)
    drawn = np.stack([lkj_draw(random, 1.5, 4) for _ in range(2000)])
    assert (np.linalg.eigvalsh(drawn)[:, 0] > 0).all()
    for i, j in ((1, 0), (3, 0), (3, 2)):  # each Beta(eta + (size - 2) / 2)
        assert stats.kstest((1 + drawn[:, i, j]) / 2, stats.beta(2.5, 2.5).cdf).pvalue > 0.001
