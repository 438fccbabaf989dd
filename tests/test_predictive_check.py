"""Replicates of a fit against their formula, and the visual predictive check by hand."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models_for_tests import DECAY, cohort
from scipy.stats import kstest

from carpk import predictive_check
from carpk.examples import example
from carpk.fitting import load_fit
from carpk.nonmem import read_csv
from carpk.population_model import population
from carpk.prediction import predictions, some_draws
from carpk.predictive_check import adaptive_bins, limits, replicates, vpc, weighted_quantiles
from carpk.problems import RequestError


@pytest.fixture
def decay(near_typical):
    """Twelve patients seen at day 0, 2 and 10; day 10 is censored in half of them, below 15 in
    the first six and below 30 in the others."""
    rows = []
    for k in range(12):
        limit = 15.0 if k < 6 else 30.0
        late = (limit, -np.inf, limit) if k % 2 else (40.0,)
        rows += [(f"p{k}", 0, 90.0 + 5 * k), (f"p{k}", 2, 50.0 + 4 * k), (f"p{k}", 10, *late)]
    return near_typical(population(DECAY), cohort(rows, ARM=np.repeat([1.0, 2.0], 6)))


def test_replicates_are_new_patients_with_spread_and_residual_error_of_each_draw(decay):
    y = replicates(decay, 400).y
    assert y.shape == (400, 36)
    draws = decay.posterior["posterior"].dataset
    places = np.resize(some_draws(decay, 400), 400)
    c0, omega, sigma = (draws[n].values.ravel()[places, None]
                        for n in ("C0_pop", "omega_C0", "sigma_C_log"))
    first = (predictions(decay)["TIME"] == 0).to_numpy()
    # at day 0 the logarithm is normal around the draw's own typical value
    z = (np.log(y[:, first]) - np.log(c0)) / np.sqrt(omega**2 + sigma**2)
    assert kstest(z.ravel(), "norm").pvalue > 0.01
    # patients are independent of each other and of the draw's other patients
    assert abs(np.corrcoef(z[:, 0], z[:, 1])[0, 1]) < 0.15
    np.testing.assert_array_equal(y, replicates(dataclasses.replace(decay), 400).y)


def test_a_replicate_is_censored_as_its_row_would_be(decay):
    assert limits(decay).reshape(12, 3)[:, 2].tolist() == [15.0] * 7 + [30.0, 15.0] * 2 + [30.0]
    table = vpc(decay, "C", by="ARM", bins=(0, 2, 10), count=200)
    below = table[(table["statistic"] == "below") & (table["time"] == 10)].set_index("stratum")
    assert below["observed"].tolist() == [0.5, 0.5]
    y, last = replicates(decay, 200).y, (predictions(decay)["TIME"] == 10).to_numpy()
    for stratum, rows in (("ARM 1", slice(0, 6)), ("ARM 2", slice(6, 12))):
        share = (y[:, last] < limits(decay)[last])[:, rows].mean(axis=1)
        assert below.loc[stratum, "median"] == np.quantile(share, 0.5, method="inverted_cdf")


def test_observed_percentiles_are_those_of_all_levels_censored_ones_lowest(decay):
    table = vpc(decay, "C", bins=(0, 2, 10), count=50).set_index(["time", "statistic"])
    first = 90.0 + 5 * np.arange(12)
    for p in (5, 50, 95):
        assert table.loc[(0, f"p{p}"), "observed"] == \
            np.quantile(first, p / 100, method="inverted_cdf")
    assert table.loc[(10, "p5"), "observed"] == -np.inf
    assert table.loc[(10, "p95"), "observed"] == 40.0
    assert table["n"].unique().tolist() == [12]


def test_correction_scales_each_level_by_the_median_prediction_over_its_own(
        near_typical, shared_data):
    theophylline = read_csv(shared_data / "theophylline" / "theo_sd.csv")
    fit = near_typical(population("one_compartment_oral"), theophylline)
    rows = predictions(fit)
    days = np.sort(rows["TIME"].round(0).unique())
    table = vpc(fit, "Cc", corrected=True, bins=tuple(days), count=30)
    late = rows[np.abs(rows["TIME"].to_numpy()[:, None] - days).argmin(axis=1) == len(days) - 1]
    middle = np.quantile(late["PRED"], 0.5, method="inverted_cdf")
    by_hand = np.quantile(late["DV"] * middle / late["PRED"], 0.5, method="inverted_cdf")
    seen = table[(table["statistic"] == "p50")].iloc[-1]
    assert seen["observed"] == pytest.approx(by_hand)


def test_visits_of_one_nominal_day_fall_into_one_bin():
    time = example("tisacel_like").observations["TIME"].to_numpy()
    bins = adaptive_bins(time)
    nominal = np.array([1, 3, 7, 10, 14, 21, 28, 60, 90, 120, 180, 270, 360])
    day = nominal[np.abs(time[:, None] - nominal).argmin(axis=1)]
    assert bins.max() + 1 == len(nominal)
    assert pd.crosstab(bins, day).gt(0).sum().tolist() == [1] * len(nominal)


def test_bins_of_times_without_visits_hold_enough_and_are_in_order():
    time = np.random.default_rng(1).uniform(0, 300, 500)
    bins = adaptive_bins(time)
    assert 8 <= bins.max() + 1 <= 14
    assert np.bincount(bins).min() >= 10
    assert (np.diff(bins[np.argsort(time)]) >= 0).all()


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.floats(0.01, 1.0))
def test_with_even_weights_a_weighted_quantile_is_the_plain_one(values, q):
    found = weighted_quantiles(np.array([values]), np.full(len(values), 0.7), [q])[0]
    assert found[0] == np.quantile(values, q, method="inverted_cdf") or \
        abs(q * len(values) - round(q * len(values))) < 1e-9


def test_without_bins_percentiles_meet_those_of_the_visits_and_shares_their_window(decay):
    smooth = vpc(decay, "C", bins="none", count=30).set_index("statistic")
    visits = vpc(decay, "C", bins=(0, 2, 10), count=30).set_index("statistic")
    for place in (0, -1):
        ends, visit = smooth.loc["p95"].iloc[place], visits.loc["p95"].iloc[place]
        assert ends["time"] == pytest.approx(visit["time"])
        for column in ("observed", "median", "lower95", "upper95"):
            assert ends[column] == pytest.approx(visit[column], rel=1e-6)
    assert 115 <= smooth.loc["p50", "observed"].iloc[0] <= 120  # any median of twelve
    last = smooth.loc["p5"].iloc[-1]  # half of the last visit is censored
    assert last["observed"] == -np.inf
    assert 0.3 < smooth.loc["below", "observed"].iloc[-1] < 0.6


def test_what_is_not_understood_is_refused(decay):
    with pytest.raises(RequestError, match="the fit has ARM"):
        vpc(decay, "C", by="SEX", count=30)
    with pytest.raises(RequestError, match="adaptive, none, or days"):
        vpc(decay, "C", bins="many", count=30)


def test_the_limits_of_the_file_travel_with_a_saved_fit(near_typical, tmp_path):
    file = tmp_path / "c.csv"
    file.write_text("ID,TIME,DV,CENS,LLOQ\n1,7,900,0,50\n1,28,50,1,50\n2,7,800,0,20\n")
    fit = near_typical(population("stein_2019"), read_csv(file))
    again = load_fit(fit.save(tmp_path))
    assert limits(again).tolist() == limits(fit).tolist() == [50.0, 50.0, 20.0]


def test_a_number_is_split_at_its_median_and_few_values_are_groups(decay):
    rows = predictions(decay)
    names = [n for n, _ in predictive_check.strata(decay, rows, "ARM")]
    assert names == ["ARM 1", "ARM 2"]
    tree = decay.posterior.copy()
    constant = tree["constant_data"].dataset.copy()
    constant["covariate_AGE"] = (("patient",), np.arange(12.0))
    tree["constant_data"].dataset = constant
    aged = dataclasses.replace(decay, posterior=tree)
    halves = predictive_check.strata(aged, rows, "AGE")
    assert [n for n, _ in halves] == ["AGE above 5.5", "AGE up to 5.5"]
    assert [int(w.sum()) for _, w in halves] == [18, 18]
    crossed = predictive_check.strata(aged, rows, "ARM,AGE")
    assert [n for n, _ in crossed] == ["ARM 1, AGE up to 5.5", "ARM 2, AGE above 5.5"]
    assert sum(int(w.sum()) for _, w in crossed) == 36
