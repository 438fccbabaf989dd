"""Beal's methods: which rows each keeps and as what, and the density of M4."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models_for_tests import DECAY, cohort
from scipy import stats

from carpk.censoring import METHODS, censored_as
from carpk.cohort import design
from carpk.error_models import error_model
from carpk.likelihood import data_of, drawn_rows, patient_log_likelihood
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.problems import RequestError

INF = np.inf
# two runs below 10: before the peak, and at the end
ROWS = [("1", 1.0, 10.0, -INF, 10.0), ("1", 2.0, 10.0, -INF, 10.0), ("1", 3.0, 40.0),
        ("1", 4.0, 30.0), ("1", 5.0, 10.0, -INF, 10.0), ("1", 6.0, 10.0, 2.0, 10.0),
        ("2", 1.0, 20.0), ("2", 5.0, 11.0)]
ADDITIVE = population(DECAY, errors={"C": "additive"}).structure


@pytest.mark.parametrize(("method", "times", "values"), [
    ("M1", [3, 4], [40, 30]), ("M6", [2, 3, 4, 5], [5, 40, 30, 5]),
    ("M7", [2, 3, 4, 5], [0, 40, 30, 0])])
def test_rows_are_kept_once_a_run_and_the_others_are_told(method, times, values):
    whole = cohort(ROWS)
    made = censored_as(whole, method, ADDITIVE)
    one = made.observations.query("ID == '1'")
    assert one["TIME"].tolist() == times
    assert one["DV"].tolist() == one["LOWER"].tolist() == one["UPPER"].tolist() == values
    assert (one["CENS"] == 0).all()
    assert len(made.excluded) == len(whole.observations) - len(made.observations)
    assert set(made.excluded["reason"]) == {f"{method}: below the limit"}
    assert made.observations.query("ID == '2'")["DV"].tolist() == [20, 11]


def test_m3_changes_nothing_and_m4_closes_the_interval_at_zero():
    whole = cohort(ROWS)
    assert censored_as(whole, "M3", ADDITIVE) is whole
    assert censored_as(whole, "M4", ADDITIVE).observations["LOWER"].tolist() == [
        0, 0, 40, 30, 0, 2, 20, 11]


def test_a_method_that_does_not_suit_or_is_not_known_is_refused():
    with pytest.raises(RequestError, match="logarithm"):
        censored_as(cohort(ROWS), "M7", DECAY)
    with pytest.raises(RequestError, match="M1, M3"):
        censored_as(cohort(ROWS), "M5", DECAY)
    with pytest.raises(RequestError, match="censoring method"):
        population(DECAY, censoring="M2")


@pytest.mark.parametrize("method", list(METHODS))
def test_the_density_is_that_of_the_rows_and_m4_is_given_levels_above_zero(method):
    asked = population(DECAY, errors={"C": "additive"}, censoring=method)
    seen = design(censored_as(cohort(ROWS), method, asked.structure), asked.structure)
    model, _ = resolve(asked, seen, {})
    theta = {"C0_pop": 30.0, "k_pop": 0.2, "omega_C0": 0.5, "omega_k": 0.5, "sigma_C_add": 8.0}
    ours = patient_log_likelihood(model, data_of(model, seen), theta,
                                  jnp.log(jnp.asarray([[30.0, 0.2], [30.0, 0.2]])))
    rows = {"M1": [], "M6": [(2, 5.0), (5, 5.0)], "M7": [(2, 0.0), (5, 0.0)]}.get(method)
    total = 0.0

    def at(t):
        return stats.norm(30 * np.exp(-0.2 * t), 8.0)

    for t, y in ((3, 40.0), (4, 30.0), *(rows or ())):
        total += at(t).logpdf(y) - (at(t).logsf(0.0) if method == "M4" else 0.0)
    if method == "M3":
        total += at(1).logcdf(10) + at(2).logcdf(10) + at(5).logcdf(10) \
            + np.log(at(6).cdf(10) - at(6).cdf(2))
    if method == "M4":
        total += sum(np.log((at(t).cdf(10) - at(t).cdf(low)) / at(t).sf(0))
                     for t, low in ((1, 0), (2, 0), (5, 0), (6, 2)))
    assert float(ours[0]) == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("level", [6.0, 2.0, -9.0])
def test_simulated_levels_are_those_of_the_likelihood_and_m4s_lie_above_zero(method, level):
    """Against scipy's normal of SD 3, truncated at 0 under M4 and as it is under the others."""
    model = population(DECAY, errors={"C": "additive"}, censoring=method)
    y = np.asarray(drawn_rows(model, {"output": np.zeros((40, 100), int)}, {"sigma_C_add": 3.0},
                              jnp.full((40, 100), level), jax.random.key(1))).ravel()
    expected = stats.truncnorm(-level / 3.0, np.inf, level, 3.0) if method == "M4" \
        else stats.norm(level, 3.0)
    assert (y > 0).all() == (method == "M4")
    assert stats.kstest(y, expected.cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["proportional student_t", "combined", "power cauchy"])
@pytest.mark.parametrize("level", [12.0, -4.0])
def test_levels_above_zero_have_their_share_of_the_whole_distribution(name, level):
    model = error_model(name)
    sigma = SimpleNamespace(add=3.0, prop=0.8, power=0.9)
    y = np.asarray(model.draw(jax.random.key(2), jnp.full(4000, level), sigma, True))
    shape = {"student_t": stats.t(4), "cauchy": stats.cauchy()}.get(name.split()[-1], stats.norm())
    sd = float(model.sd(jnp.asarray(level), sigma))
    assert (y > 0).all()
    assert stats.kstest(shape.sf((y - level) / sd) / shape.sf(-level / sd),
                        "uniform").pvalue > 1e-3


def test_a_level_without_a_solution_is_none_when_it_must_lie_above_zero():
    y = error_model("additive").draw(jax.random.key(1), jnp.asarray([np.nan, 1.0, -1e4]),
                                     SimpleNamespace(add=2.0), True)
    assert np.isnan(y[0])
    assert (np.asarray(y[1:]) > 0).all()
