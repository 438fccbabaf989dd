"""Numerical predictive check: by hand, under censoring, and as even as chance allows."""

import numpy as np
import pytest

from carpk.numerical_check import INTERVALS, coverage, npc


def table_of(levels, *intervals):
    return coverage(levels, intervals or INTERVALS).set_index(["interval", "side"])


def test_a_case_worked_by_hand():
    # of ten levels in each row 60 % leaves the two lowest and the two highest outside
    levels = np.tile(np.arange(10.0)[:, None], (1, 5))
    levels[[0, 9]] = levels[[9, 0]]  # the observed ones are the highest of four rows ...
    levels[[0, 4], 4] = levels[[4, 0], 4]  # ... and in the middle of the fifth
    found = table_of(levels, 60)
    assert found["observed"].tolist() == [0.0, 0.8]
    assert found["expected"].tolist() == pytest.approx([0.2, 0.2])
    assert found["n"].tolist() == [5, 5]


def test_censored_levels_lie_outside_where_that_is_known_and_rows_are_left_out_where_not():
    rng = np.random.default_rng(1)
    levels = rng.normal(size=(4001, 40))
    cut = np.where(np.arange(40) < 20, -1.45, -0.4)  # 7 % and 34 % are censored
    censored = np.where(levels < cut, -np.inf, levels)
    found, whole = table_of(censored), table_of(levels[:, :20])
    for interval in INTERVALS:
        below = found.loc[(interval, "below")]
        tail = 0.5 - interval / 200
        assert below["n"] == (40 if tail > 0.33 else 20 if tail > 0.08 else 0)
        assert np.isnan(below["observed"]) == (below["n"] == 0)
        assert found.loc[(interval, "above"), "n"] == 40
    # what is known of the rows that tell is as if nothing had been censored
    for interval in (60, 80):
        assert found.loc[(interval, "below"), "observed"] == \
            whole.loc[(interval, "below"), "observed"]
    mirrored = table_of(-censored)
    assert mirrored.loc[(80, "above"), "observed"] == found.loc[(80, "below"), "observed"]


def drawn(rng, count):
    """(count, 150): levels of thirty patients of five correlated rows each."""
    return (rng.normal(size=(count, 30, 1)) + rng.normal(size=(count, 30, 5))).reshape(count, 150)


def test_bands_hold_what_chance_gives_and_show_too_little_or_too_much_spread():
    rng = np.random.default_rng(2)
    outside = np.mean([coverage(drawn(rng, 301))["outside"].mean() for _ in range(100)])
    assert 0.015 < outside < 0.055  # shares of few levels are coarse, and the band holds its ends
    levels = drawn(rng, 301)
    for factor, sign, interval in ((2.5, 1, 90), (0.4, -1, 80)):
        found = table_of(np.concatenate([factor * levels[:1], levels[1:]])).loc[interval]
        assert found["outside"].tolist() == [1, 1]
        assert (np.sign(found["observed"] - found["expected"]) == sign).all()


def test_the_check_of_a_fit_tells_of_each_output_and_interval(small_fit):
    table = npc(small_fit)
    assert table["output"].unique().tolist() == ["C"]
    assert table["interval"].unique().tolist() == list(INTERVALS)
    tells = table["n"] > 0
    assert table.loc[tells, ["observed", "lower95", "upper95"]].notna().all(axis=None)
    below = table[table["side"] == "below"]
    assert (np.diff(below["n"]) <= 0).all()  # a wider interval reaches deeper below the limit
