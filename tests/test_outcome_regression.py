"""The likelihoods of outcomes against statsmodels and lifelines, and what has no maximum."""

import math

import numpy as np
import pytest

from carpk.outcome_regression import pooled, regress

# Thirty patients: log2 of an exposure, age, sex, grade, time and event, with tied times.
X = [14.03, 15.36, 15.22, 13.49, 13.7, 13.47, 14.57, 13.94, 14.75, 12.15, 15.57, 13.9, 14.68,
     13.86, 13.62, 14.46, 14.82, 13.8, 13.85, 14.69, 13.13, 12.49, 14.39, 13.33, 12.08, 13.19,
     13.53, 12.81, 12.51, 14.04]
AGE = [21, 14, 19, 10, 4, 5, 25, 23, 10, 13, 9, 7, 22, 18, 5, 8, 16, 23, 25, 8, 17, 4, 7, 8, 13,
       11, 19, 14, 11, 23]
SEX = [0, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1]
GRADE = np.array([1, 2, 1, 2, 2, 2, 0, 0, 2, 0, 3, 0, 3, 3, 1, 2, 1, 1, 2, 1, 0, 0, 0, 2, 0, 2, 2,
                  0, 0, 1])
TIME = np.array([380, 540, 380, 10, 460, 140, 390, 660, 80, 80, 440, 200, 630, 160, 360, 130, 340,
                 180, 150, 450, 110, 170, 640, 260, 130, 30, 150, 390, 110, 20], float)
EVENT = np.array([0, 1, 0, 1, 1, 0, 1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0,
                  1, 1, 1])
COLUMNS = np.stack([X, AGE, SEX], axis=1).astype(float)
OUTCOMES = {"binary": ((GRADE >= 2).astype(int), None), "ordinal": (GRADE, None),
            "survival": (TIME, EVENT), "cox": (TIME, EVENT)}

# Estimates, standard errors and log-likelihood of others, with how far they can be trusted.
# python -m venv v; v/bin/pip install statsmodels==0.15.0 lifelines==0.30.3; with a frame D of the
# columns x, age, sex:
# binary    Logit(GRADE >= 2, add_constant(D)).fit(tol=1e-14)
# ordinal   OrderedModel(Categorical(GRADE), D, distr="logit").fit(method="newton", tol=1e-14);
#           thresholds by transform_threshold_params; its Hessian is by finite differences
# survival  WeibullAFTFitter().fit(D with T and E), its _scipy_fit_options set to ftol 1e-16 (by
#           default it stops 1e-5 away); its ln of the scale is b'x, so that the log hazard ratio
#           is -rho b, with errors by the delta method from variance_matrix_
# cox       CoxPHFitter().fit(D with T and E, fit_options={"precision": 1e-14}), Efron's ties
OTHERS = {
    "binary": ([9.560159673375829, 0.722029422042755, -0.07290541028558083, 0.44399567343251684],
               [6.5690349519484075, 0.4757569901256873, 0.061005520784913995, 0.8278624963364675],
               -18.821083454264517, 1e-9, 1e-9),
    "ordinal": ([14.387482110157254, 15.530036935942057, 17.67429829737057, 1.1312419309662327,
                 -0.0363051655211953, -0.02238068449808701],
                [5.974774689094969, math.nan, math.nan, 0.4366029149203705, 0.05243113731578057,
                 0.7083905230019684], -35.31750552273164, 1e-8, 1e-5),
    "survival": ([4.850427183823114, 1.400145923649748, -0.9484903560344593,
                  0.0021469529198157584, -0.092944439237455],
                 [3.9302270208408383, 0.25771051253286353, 0.3144084464793059,
                  0.035489744548168396, 0.5126743190274667], -134.3974200063298, 1e-8, 1e-8),
    "cox": ([-0.9561707939883657, 0.005088688838422175, -0.0964858969268772],
            [0.3289814324150404, 0.03596196068430926, 0.5267090377700901],
            -47.31887912301697, 1e-9, 1e-9)}


@pytest.mark.parametrize("kind", OTHERS)
def test_estimates_errors_and_likelihood_are_those_of_statsmodels_and_lifelines(kind):
    estimate, error, likelihood, near, near_error = OTHERS[kind]
    fit = regress(kind, COLUMNS[None], *OUTCOMES[kind])
    assert fit.found.all()
    assert fit.estimate[0] == pytest.approx(estimate, rel=near, abs=near)
    known = ~np.isnan(error)
    own = np.sqrt(np.diag(fit.covariance[0]))
    assert own[known] == pytest.approx(np.array(error)[known], rel=near_error)
    assert fit.log_likelihood[0] == pytest.approx(likelihood, rel=1e-9)


def test_draws_are_fitted_each_as_if_alone():
    moved = COLUMNS + np.array([0.3, 0.0, 0.0]) * np.random.default_rng(1).normal(
        size=(3, len(X), 3))
    together = regress("ordinal", moved, GRADE)
    for k in range(3):
        alone = regress("ordinal", moved[[k]], GRADE)
        assert together.estimate[k] == pytest.approx(alone.estimate[0], rel=1e-9)
        assert together.covariance[k] == pytest.approx(alone.covariance[0], rel=1e-8)


def test_units_of_columns_and_of_time_only_change_units():
    scaled = regress("survival", COLUMNS[None] * [1, 12, 1] + [5, 0, 0], TIME / 30, EVENT)
    fit = regress("survival", COLUMNS[None], TIME, EVENT)
    assert scaled.slopes[0] == pytest.approx(fit.slopes[0] / [1, 12, 1], rel=1e-9)
    assert scaled.estimate[0, 1] == pytest.approx(fit.estimate[0, 1], rel=1e-10)
    assert scaled.log_likelihood[0] == pytest.approx(
        fit.log_likelihood[0] + EVENT.sum() * math.log(30), rel=1e-12)


@pytest.mark.parametrize("kind", OTHERS)
def test_perfect_prediction_has_no_maximum_and_a_prior_gives_it_one(kind):
    x = COLUMNS[None].copy()
    order = np.array(X)
    outcome, event = {
        "binary": ((order > 13.9).astype(int), None),
        "ordinal": (np.digitize(order, [13.3, 13.9, 14.5]), None),
        # events in one group only: the hazard of the other falls without end
        "survival": (TIME, (x[0, :, 2] == 1).astype(int)),
        "cox": (TIME, (x[0, :, 2] == 1).astype(int))}[kind]
    alone = regress(kind, x, outcome, event)
    assert not alone.found.any()
    assert np.abs(alone.standardised[0]).max() > 10 or np.isnan(alone.standardised[0]).any()
    held = regress(kind, x, outcome, event, prior=2.5)
    assert held.found.all()
    assert np.abs(held.standardised[0]).max() < 10


def test_a_prior_is_the_normal_density_it_says_and_a_wide_one_is_none():
    x = COLUMNS[None]
    outcome = OUTCOMES["binary"][0]
    held = regress("binary", x, outcome, prior=0.4)
    sd = np.append(x[0, :, :2].std(axis=0), 1.0)  # the last is of two groups

    def penalised(q):
        p = 1 / (1 + np.exp(q[0] - x[0] @ q[1:]))
        return np.log(np.where(outcome == 1, p, 1 - p)).sum() \
            - 0.5 * ((q[1:] * sd / 0.4) ** 2).sum()

    best = held.estimate[0]
    h = 1e-4 * np.sqrt(np.diag(held.covariance[0]))
    for k, step in enumerate(np.diag(h)):  # a maximum: level, and lower on both sides
        up, down = penalised(best + step), penalised(best - step)
        assert max(up, down) < penalised(best)
        assert (up - down) / (2 * h[k]) == pytest.approx(0, abs=1e-5)
    wide = regress("binary", x, outcome, prior=1e6)
    assert wide.slopes == pytest.approx(regress("binary", x, outcome).slopes, rel=1e-9)


def test_pooled_draws_are_the_mixture_of_their_normals():
    rng = np.random.default_rng(2)
    estimate, error = rng.normal(0.5, 0.3, 200), rng.uniform(0.1, 0.3, 200)
    sample = (estimate + error * rng.normal(size=(10000, 200))).ravel()
    found, above = pooled(estimate, error)
    assert found == pytest.approx(np.quantile(sample, [0.5, 0.025, 0.975]), abs=2e-3)
    assert above == pytest.approx((sample > 0).mean(), abs=1e-3)
    # Rubin's rules: variance within plus between draws
    wide = np.sqrt((error**2).mean() + estimate.var())
    assert (found[2] - found[1]) / (2 * 1.96 * wide) == pytest.approx(1, abs=0.03)


def test_averaged_over_equal_draws_the_likelihood_is_that_of_one():
    alone = regress("survival", COLUMNS[None], TIME, EVENT)
    same = regress("survival", np.repeat(COLUMNS[None], 3, axis=0), TIME, EVENT, together=alone)
    assert same.estimate == pytest.approx(alone.estimate, rel=1e-9)
    assert same.covariance == pytest.approx(alone.covariance, rel=1e-8)
    assert same.log_likelihood == pytest.approx(alone.log_likelihood)


def test_draws_made_without_the_outcome_attenuate_and_weighed_by_it_they_do_not():
    rng, n = np.random.default_rng(4), 1500
    # the truth is Normal(0, 1), the samples tell it with an SD of 0.8: the posterior of a patient
    share = 1 / (1 + 0.8**2)
    truth = rng.normal(size=n)
    seen = truth + 0.8 * rng.normal(size=n)
    draws = share * seen + np.sqrt(1 - share) * rng.normal(size=(50, n))
    at_least = 1 / (1 + np.exp(-(truth + np.array([1.0, -1.0])[:, None])))
    grade = (rng.random(n) < at_least).sum(axis=0)
    apart = regress("ordinal", draws[..., None], grade)
    assert apart.slopes.mean() < 0.75  # about the share of the variance that samples explain
    weighed = regress("ordinal", draws[..., None], grade, together=apart)
    assert weighed.found.all()
    assert abs(weighed.slopes[0, 0] - 1.0) < 2 * weighed.errors[0, 0]
    assert weighed.errors[0, 0] < 0.12
    true = regress("ordinal", truth[None, :, None], grade)
    assert weighed.errors[0, 0] > true.errors[0, 0]
