"""Curves of a regression against its formula, and what is observed beside them."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from carpk.outcome_curves import binned, kaplan_meier, probability, survival
from carpk.outcome_regression import regress

RNG = np.random.default_rng(5)
CMAX = np.exp2(14 + RNG.normal(size=60))
AGE = RNG.uniform(5, 25, 60)
TIME, EVENT = RNG.exponential(300, 60).round() + 1, (RNG.random(60) < 0.7).astype(float)


def analysed(kind, outcome, event=None, known=True):
    """What an analysis holds of a regression; `known`, without uncertainty of coefficients."""
    x = np.stack([np.log2(CMAX), AGE], axis=1)[None]
    fit = regress(kind, x, outcome, event)
    if known:
        fit = dataclasses.replace(fit, covariance=np.zeros_like(fit.covariance))
    return SimpleNamespace(kind=kind, exposure=CMAX[None], regression=fit, read=SimpleNamespace(
        outcome=outcome, event=event, covariates=AGE[:, None]))


def test_a_probability_is_the_models_averaged_over_covariates():
    grade = np.digitize(np.log2(CMAX) + RNG.logistic(size=60), [13.5, 14.5])
    found = analysed("ordinal", grade)
    q = found.regression.estimate[0]
    for k in (1, 2):
        wanted = (1 / (1 + np.exp(q[k - 1] - 13 * q[2] - AGE * q[3]))).mean()
        assert probability(found, np.array([2.0**13, 2.0**15]), k)[:, 0].tolist() == \
            pytest.approx([wanted] * 3)


def test_a_band_is_the_coefficients_95_percent():
    y = (np.log2(CMAX) + RNG.logistic(size=60) > 14).astype(int)
    found = analysed("binary", y, known=False)
    fit = found.regression
    # with covariates at hand for one patient only, the linear predictor is normal
    found.read.covariates = np.array([[14.0]])
    _, low, high = probability(found, np.array([2.0**14.5]))[:, 0]
    at = np.array([-1.0, 14.5, 14.0])
    centre, sd = at @ fit.estimate[0], np.sqrt(at @ fit.covariance[0] @ at)
    assert np.log([low / (1 - low), high / (1 - high)]) == pytest.approx(
        [centre - 1.96 * sd, centre + 1.96 * sd], abs=0.25 * sd)


def wanted_error(end):
    """Greenwood's variance of Kaplan and Meier's estimate of all at this time."""
    at = [t for t in np.unique(TIME[EVENT == 1]) if t <= end]
    counts = [(((t == TIME) & (EVENT == 1)).sum(), (t <= TIME).sum()) for t in at]
    share = np.prod([1 - d / n for d, n in counts])
    return share**2 * sum(d / (n * (n - d)) for d, n in counts)


def test_survival_is_weibulls_and_breslows():
    group, time = np.arange(20), np.array([30.0, 200.0])
    found = analysed("survival", TIME, EVENT)
    intercept, shape, by_cmax, by_age = found.regression.estimate[0]
    rate = np.exp(intercept + by_cmax * np.log2(CMAX) + by_age * AGE)[group]
    wanted = [np.exp(-rate * t**shape).mean() for t in time]
    assert survival(found, group, time)[0].tolist() == pytest.approx(wanted)
    found = analysed("cox", TIME, EVENT)
    rate = np.exp(np.stack([np.log2(CMAX), AGE], axis=1) @ found.regression.estimate[0])
    cumulated = [sum(1 / rate[t <= TIME].sum() for t in TIME[EVENT == 1] if t <= end)
                 for end in time]
    assert survival(found, group, time)[0].tolist() == pytest.approx(
        [np.exp(-rate[group] * h).mean() for h in cumulated])
    # the baseline is uncertain though the coefficients are known: about as Kaplan and Meier's
    _, low, high = survival(found, np.arange(60), time)
    assert 0.6 < (high - low)[1] / (2 * 1.96 * np.sqrt(wanted_error(time[1]))) < 1.4
    # Breslow's and Kaplan and Meier's curve of all agree where there is no effect
    none = dataclasses.replace(found.regression, estimate=np.zeros((1, 2)))
    found.regression = none
    at, share = kaplan_meier(TIME, EVENT)
    assert survival(found, np.arange(60), at[1:20])[0] == pytest.approx(share[1:20], abs=0.01)


def test_bins_hold_all_patients_and_wilsons_interval():
    happened = np.log2(CMAX) > 14
    table = binned(SimpleNamespace(exposure=CMAX[None]), happened)
    assert table["n"].tolist() == [15] * 4
    assert (table["share"] * table["n"]).sum() == happened.sum()
    assert (table["high"][:-1].to_numpy() <= table["low"][1:].to_numpy()).all()
    # none of 15: Wilson's upper end is z^2 / (n + z^2)
    assert table.loc[0, ["share", "lower95", "upper95"]].tolist() == pytest.approx(
        [0, 0, 1.959964**2 / (15 + 1.959964**2)], abs=1e-12)
