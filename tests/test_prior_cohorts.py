"""Virtual cohorts from priors: against the closed form of what they must follow."""

from dataclasses import replace

import numpy as np
import pytest
from models_for_tests import DECAY, cohort, decaying
from scipy import stats

from carpk.population_model import population
from carpk.prior_cohorts import in_words, prior_predictive
from carpk.problems import DataError, RequestError

HELD = {"omega_C0": 0.5, "omega_k": 0.3, "sigma_C_log": 0.2}
PRIORS = {"C0": "lognormal(50, 0.8)", "k": "lognormal(0.1, 0.4)"}


@pytest.fixture(scope="module")
def expected():
    model = population(DECAY, fixed=HELD, priors=PRIORS,
                       covariates={"C0 ~ SEX": "category(F)", "k ~ WT": "power(70)"})
    return prior_predictive(model, decaying(), cohorts=400, patients=6, seed=2)


def test_log_levels_are_spread_as_priors_spread_and_error_add_up(expected):
    """At time 0 ln C of a woman is normal, of variance prior + omega^2 + sigma^2."""
    levels = expected.levels["C"][:, 0].reshape(400, 6)
    women = (expected.cohort.covariates["SEX"] == "F").to_numpy().reshape(400, 6)
    first = levels[np.arange(400), women.argmax(axis=1)]  # one of each cohort: independent
    law = stats.norm(np.log(50), (0.8**2 + 0.5**2 + 0.2**2) ** 0.5)
    assert stats.kstest(np.log(first), law.cdf).pvalue > 1e-3


def test_patients_of_one_cohort_share_their_population(expected):
    """Two women of a cohort correlate as the prior's share of the variance."""
    logs = np.log(expected.levels["C"][:, 0]).reshape(400, 6)
    women = (expected.cohort.covariates["SEX"] == "F").to_numpy().reshape(400, 6)
    pairs = np.array([row[w][:2] for row, w in zip(logs, women, strict=True)])
    share = 0.8**2 / (0.8**2 + 0.5**2 + 0.2**2)
    assert np.arctanh(np.corrcoef(pairs.T)[0, 1]) == pytest.approx(
        np.arctanh(share), abs=4 / 397**0.5)


def test_levels_at_the_samples_follow_each_patients_own_curve(expected):
    own, seen = expected.drawn, expected.seen
    curve = own.parameters["C0"].to_numpy()[:, None] * np.exp(
        -own.parameters["k"].to_numpy()[:, None] * seen.time)
    assert np.allclose(own.predicted[seen.observed], curve[seen.observed], rtol=1e-9)
    assert np.log(own.dv / own.predicted)[seen.observed].std() == pytest.approx(0.2, rel=0.03)
    weight = expected.cohort.covariates["WT"].to_numpy() / 70.0
    population_k = np.repeat(expected.populations["k_pop"].to_numpy(), 6)
    slope = np.repeat(expected.populations["beta_k_WT"].to_numpy(), 6)
    eta = np.log(own.parameters["k"].to_numpy() / population_k) - slope * np.log(weight)
    assert eta.std() == pytest.approx(0.3, rel=0.06)
    assert abs(eta.mean()) < 4 * 0.3 / 2400**0.5


def test_it_is_said_how_much_of_the_data_the_priors_expect(expected):
    [said] = in_words(expected)
    rows = decaying().observations
    band = expected.bands("C")
    seen = rows[rows["CENS"] == 0]
    within = sum(np.interp(t, expected.time, band[0]) <= y
                 <= np.interp(t, expected.time, band[4])
                 for t, y in zip(seen["TIME"], seen["DV"], strict=True))
    assert f"{within} of {len(seen)} measured levels within the 90 % band" in said
    assert said.startswith("C: half of the patients peak between ")
    assert "mg/L, 90 % between" in said


def test_without_data_an_additive_error_goes_by_the_typical_patient():
    model = population(DECAY, errors={"C": "additive"})
    plan = cohort([("1", t, 1.0) for t in (0.0, 5.0, 10.0)])
    made = prior_predictive(model, plan, cohorts=3, planned=True)
    typical = 100 * np.exp(-0.2 * np.array([0.0, 5.0, 10.0]))
    assert made.model.priors["sigma_C_add"].numbers[0] == pytest.approx(typical.std())
    assert "typical patient" in made.model.reasons["sigma_C_add"]
    assert made.observed is None


def test_what_changes_in_a_patient_or_is_missing_is_refused_at_once_with_a_sentence_each():
    model = population(DECAY, covariates={"C0 ~ WT": "power(70)", "k ~ DRUG": "exponential(0)"},
                       time_varying={"DRUG": "locf"}, occasions=["k"], missing={"WT": "model"})
    with pytest.raises(RequestError) as refused:
        prior_predictive(model, decaying(), cohorts=2)
    assert [(p.column, p.found) for p in refused.value.problems] == [
        ("time_varying.DRUG", None), ("occasions", "k"), ("missing.WT", None)]
    said = [p.wrong for p in refused.value.problems]
    assert "changes by locf" in said[0]
    assert "between occasions" in said[1]
    assert "lack no covariate" in said[2]


def test_a_covariate_that_a_patient_lacks_is_refused_with_the_patient():
    who = decaying()
    lacking = replace(who, covariates=who.covariates.assign(
        WT=[np.nan, *who.covariates["WT"].iloc[1:]]))
    with pytest.raises(DataError, match="missing, and C0 ~ WT needs it") as refused:
        prior_predictive(population(DECAY, covariates={"C0 ~ WT": "power(70)"}), lacking,
                         cohorts=2)
    assert [p.patient for p in refused.value.problems] == [who.ids[0]]
