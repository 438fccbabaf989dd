"""Priors: densities against scipy, the way to the real line and back, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from carpk.cohort import design
from carpk.examples import example
from carpk.likelihood import log_prior
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.priors import Prior
from carpk.problems import RequestError
from carpk.simulation import drawn_from_prior

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


def correlated(priors, *, who=("Cmax", "alpha", "FB", "beta")):
    """A resolved stein_2019 whose etas are correlated, with these priors."""
    asked = population("stein_2019", correlated=[who], priors=priors)
    return resolve(asked, design(example("tisacel_like"), asked.structure), {})[0]


def test_drawn_correlation_matrices_have_the_marginals_of_lkj():
    model = correlated({"correlated": "lkj(1.5)"})
    drawn = [drawn_from_prior(model, seed) for seed in range(2000)]
    for name in ("corr_Cmax_alpha", "corr_Cmax_beta", "corr_FB_beta"):  # Beta(eta + (size - 2) / 2)
        r = np.array([d[name] for d in drawn])
        assert stats.kstest((1 + r) / 2, stats.beta(2.5, 2.5).cdf).pvalue > 0.001


def change(model, *correlations):
    """How log_prior changes from no correlations to these."""
    names = [n for n in model.names if n.startswith("corr_")]
    base = {n: p.median for n, p in model.priors.items()} | dict(model.fixed)
    none, some = ({**base, **dict(zip(names, v, strict=True))}
                  for v in (np.zeros(len(names)), correlations))
    return float(log_prior(model, some) - log_prior(model, none))


def test_one_lkj_is_of_a_whole_block():
    """Its density is (eta - 1) ln det R."""
    matrix = np.array([[1, 0.5, -0.2], [0.5, 1, 0.3], [-0.2, 0.3, 1]])
    model = correlated({"correlated": "lkj(4)"}, who=("Cmax", "alpha", "FB"))
    assert change(model, 0.5, -0.2, 0.3) == pytest.approx(3 * np.log(np.linalg.det(matrix)), 1e-9)
    assert {str(model.priors[n]) for n in model.free if n.startswith("corr_")} == {"lkj(4)"}


def test_a_pair_may_have_a_prior_of_its_own():
    def own(r):
        return stats.norm(np.arctanh(0.5), 0.3).logpdf(np.arctanh(r)) - np.log1p(-r**2)

    pair = correlated({"corr_Cmax_alpha": "tanhnormal(0.5, 0.3)"}, who=("Cmax", "alpha"))
    assert change(pair, 0.4) == pytest.approx(own(0.4) - own(0.0), 1e-9)
    # of three: summed over the third correlation it is of the two with the first parameter
    model = correlated({"correlated": "lkj(3)", "corr_Cmax_alpha": "tanhnormal(0.5, 0.3)"},
                       who=("Cmax", "alpha", "FB"))
    partial = np.linspace(-1, 1, 4001)[1:-1]

    def summed(a, b):
        room = np.sqrt((1 - a**2) * (1 - b**2))
        thirds = a * b + partial * room
        values = np.exp([change(model, a, b, c) for c in thirds[::100]])
        return np.sum(values) * room

    def first_two(a, b):
        return np.exp(own(a) + stats.beta(3.5, 3.5).logpdf((1 + b) / 2))
    assert summed(0.4, -0.3) / summed(0.1, 0.2) == pytest.approx(
        first_two(0.4, -0.3) / first_two(0.1, 0.2), 1e-3)
    drawn = [drawn_from_prior(model, seed)["corr_Cmax_alpha"] for seed in range(800)]
    assert stats.kstest(np.arctanh(drawn), stats.norm(np.arctanh(0.5), 0.3).cdf).pvalue > 0.001


@pytest.mark.parametrize(("priors", "said"), [
    ({"correlated": "normal(0, 1)"}, "is an LKJ"),
    ({"corr_Cmax_alpha": "normal(0, 1)"}, "cannot have"),
    ({"corr_alpha_FB": "tanhnormal(0.5, 0.3)"}, "with its first parameter, Cmax"),
    ({"corr_Cmax_alpha": "lkj(4)"}, "has one LKJ"),
    ({"Cmax": "normal(1, 1)", "omega_FB": "logitnormal(0.1, 1)", "sigma_C_log": "lkj(1)"},
     "these fit: lognormal, logitnormal, half"),
])
def test_priors_beyond_what_a_parameter_can_be_are_refused_together(priors, said):
    with pytest.raises(RequestError, match=said) as refused:
        population("stein_2019", correlated=[("Cmax", "alpha", "FB")], priors=priors)
    wrong = {n for n in priors if n not in ("omega_FB",)}
    assert len(refused.value.problems) == len(wrong)


def test_a_prior_that_would_not_be_used_is_refused():
    pair = {"correlated": [("Cmax", "alpha")]}
    for asked, said in (
            ({"priors": {"Cmax": "lognormal(3, 1)", "Cmax_pop": "lognormal(4, 1)"}},
             "stated as Cmax and as Cmax_pop"),
            ({"fixed": {"Cmax": 3, "Cmax_pop": 4}}, "stated as Cmax and as Cmax_pop"),
            ({**pair, "priors": {"corr_Cmax_alpha": "lkj(3)"}, "fixed": {"omega_alpha": 0}},
             "correlation that is not estimated"),
            ({**pair, "priors": {"corr_Cmax_alpha": "lkj(3)", "correlated": "lkj(4)"}},
             "every correlation has a prior of its own")):
        with pytest.raises(RequestError, match=said) as refused:
            population("stein_2019", **asked)
        assert len(refused.value.problems) == 1


def test_a_prior_of_correlations_without_any_is_refused():
    with pytest.raises(RequestError, match="none are estimated"):
        population("stein_2019", priors={"correlated": "lkj(4)"})


def test_values_beyond_what_a_parameter_can_be_are_refused_together():
    with pytest.raises(RequestError) as refused:
        population("stein_2019", correlated=[("Cmax", "alpha")], fixed={
            "Cmax": -3, "omega_Cmax": -0.1, "sigma_C_log": 0, "corr_Cmax_alpha": 1.0})
    assert [p.column for p in refused.value.problems] == [
        "Cmax_pop", "omega_Cmax", "sigma_C_log", "corr_Cmax_alpha"]
    assert population("stein_2019", fixed={"omega_Cmax": 0}).spread == (
        "foldx", "Tmax", "alpha", "FB", "beta")
