"""Simulation-based calibration: the committed ranks are uniform, and the script still runs."""

import calibration
import numpy as np
import pandas as pd
import pytest

TABLE = pd.read_csv(calibration.RANKS)
RANKS = calibration.parameters(TABLE)


def test_true_values_stand_at_every_place_among_the_draws_equally_often():
    """One in twenty tables of uniform ranks would fail, as each of its 2 x 12 tests does in 480."""
    assert len(RANKS.columns) >= 10
    assert len(RANKS) >= 200
    assert TABLE["seed"].is_unique
    assert calibration.uniformity(RANKS).to_numpy().min() > 0.05 / (2 * len(RANKS.columns))


def test_ranks_that_lean_or_crowd_are_found():
    rng = np.random.default_rng(3)
    even = pd.DataFrame({"even": rng.integers(0, 100, 200)})
    assert calibration.uniformity(even).to_numpy().min() > 0.01
    for name, ranks in (("low", 100 * rng.beta(1, 2, 200)),
                        ("narrow", 100 * rng.beta(2.5, 2.5, 200))):
        wrong = calibration.uniformity(pd.DataFrame({name: np.floor(ranks)}))
        assert wrong.to_numpy().min() < 0.05 / 24, name


def test_the_band_holds_nineteen_in_twenty_curves():
    allowed, x = calibration.band(100), np.arange(1, 101) / 100
    ranks = np.random.default_rng(9).integers(0, 100, (2000, 100))
    curves = np.stack([(ranks <= k).mean(axis=1) for k in range(100)], axis=1)
    inside = (np.abs(curves - x) <= allowed + 1e-12).all(axis=1).mean()
    assert abs(inside - 0.95) < 0.02


@pytest.mark.slow
def test_the_script_still_makes_such_a_row():
    row = calibration.replicate(9001)
    assert list(row) == list(TABLE.columns)
    assert all(0 <= row[n] <= calibration.KEPT for n in RANKS)
