"""Time to loss: Kaplan-Meier where losses are known, the likeliest where they are bracketed."""

import numpy as np
import pytest
from scipy import optimize, stats

from carpk.persistence import brackets, still_above


def test_losses_that_are_known_give_kaplan_meier():
    rng = np.random.default_rng(2)
    loss, left = np.round(rng.exponential(60, 80), 1), np.round(rng.uniform(10, 200, 80), 1)
    seen = loss <= left
    day = np.where(seen, loss, left)
    theirs = stats.ecdf(stats.CensoredData(uncensored=day[seen], right=day[~seen])).sf
    ours = still_above(np.where(seen, day - 1e-9, day), np.where(seen, day, np.inf),
                       theirs.quantiles)
    np.testing.assert_allclose(ours, theirs.probabilities, atol=1e-3)


def test_bracketed_losses_have_the_shares_of_highest_likelihood():
    rng = np.random.default_rng(5)
    loss, days = rng.exponential(60, 40), np.array([0.0, 14, 28, 60, 90, 180, 360])
    at = np.sort(days + rng.uniform(0, 5, (40, 7)), axis=1)
    k = (at < loss[:, None]).sum(axis=1)
    after = np.array([at[i, j - 1] if j else 0.0 for i, j in enumerate(k)])
    by = np.array([at[i, j] if j < 7 else np.inf for i, j in enumerate(k)])
    left, right, share = brackets(after, by)
    within = (after[:, None] <= left) & (right <= by[:, None])

    def minus(v):
        p = np.exp(v) / np.exp(v).sum()
        return -np.log(within @ p).sum()

    best = optimize.minimize(minus, np.zeros(len(left)), method="BFGS", options={"gtol": 1e-8})
    assert -np.log(within @ share).sum() < best.fun + 1e-3
    assert share.sum() == pytest.approx(1.0)


def test_nobody_is_lost_and_everybody_at_once():
    day = np.array([10.0, 400.0])
    assert still_above(np.array([5.0, 20.0]), np.array([np.inf, np.inf]), day).tolist() == [1, 1]
    assert still_above(np.array([0.0, 0.0]), np.array([1.0, 1.0]), day).tolist() == [0, 0]
