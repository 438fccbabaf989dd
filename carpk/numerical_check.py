"""Numerical predictive check: how many levels lie outside the intervals they were predicted in.

It needs no bins: each level is compared with the replicates of its own row (Wilkins JJ, Karlsson
MO, Jonsson EN. Patterns and power for the visual predictive check. PAGE 15, 2006, abstract 1029;
PsN's npc). Replicates are judged as the data are, which gives the band that chance allows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from carpk.fitting import Fit
from carpk.prediction import predictions
from carpk.predictive_check import COUNT, replicates
from carpk.problems import Problem, RequestError

INTERVALS = (20, 40, 60, 80, 90, 95)  # per cent


def npc(fit: Fit, count: int = COUNT) -> pd.DataFrame:
    """Of each output and each prediction interval, the share of levels below and above it.

    output; interval (%); side: below or above; n: levels that tell; observed, expected: shares of
    them; lower95, upper95: of that share in the replicates, those of the visual predictive check;
    outside: 1 where observed lies outside of these. Binary outputs have no intervals.
    """
    rows, simulated = predictions(fit), replicates(fit, count)
    y = simulated.y[np.isfinite(simulated.y).all(axis=1)]
    if not len(y):
        raise RequestError(Problem("error", "the solve fails in every replicate",
                                   "the fit has not converged, or needs more steps"))
    seen, sign = rows["DV"].to_numpy(float), rows["censored"].to_numpy()
    levels = np.concatenate([seen[None], y])
    below, above = levels < simulated.limit, levels >= np.where(sign == -1, seen, np.inf)
    below[0] |= sign == 1
    levels = np.where(below, -np.inf, np.where(above, np.inf, levels))
    tables = []
    binary = {o.name for o in fit.model.structure.outputs if o.binary}
    for output in rows["output"].unique():
        if output in binary:
            continue
        mine = (rows["output"] == output).to_numpy()
        tables.append(coverage(levels[:, mine]).assign(output=output))
    if not tables:
        return pd.DataFrame(columns=["output", *coverage(levels[:, :0]).columns])
    table = pd.concat(tables, ignore_index=True)
    return table[["output", *table.columns.drop("output")]]


def coverage(levels: np.ndarray, intervals: Sequence[float] = INTERVALS) -> pd.DataFrame:
    """The table of `npc` for one output.

    levels : (R + 1, n), the observed ones first, then the replicates'; -inf and inf are censored

    A row's limits are those of all its R + 1 levels, so that under the model data and replicates
    are exchangeable. Where more of a row's levels are censored than lie outside of a limit, the
    limit is a censored level, and the row does not tell of it; where fewer are, a censored level
    lies outside.

    >>> levels = np.array([[9.0], [1.0], [2.0], [3.0], [4.0]])
    >>> coverage(levels, [60])[["side", "observed"]].values.tolist()
    [['below', 0.0], ['above', 1.0]]
    """
    place = (rankdata(levels, axis=0) - 0.5) / len(levels)  # ties in the middle of their ranks
    hidden, beyond = np.isneginf(levels).mean(axis=0), np.isposinf(levels).mean(axis=0)
    found = []
    for interval in intervals:
        tail = 0.5 - interval / 200
        for side, out, same, other in (("below", place < tail, hidden, beyond),
                                       ("above", place > 1 - tail, beyond, hidden)):
            tells = (same <= tail) & (other <= 1 - tail)
            row = {"interval": interval, "side": side, "n": int(tells.sum()),
                   "observed": np.nan, "expected": tail, "lower95": np.nan, "upper95": np.nan,
                   "outside": 0}
            if tells.any():
                share = out[:, tells].mean(axis=1)
                low, high = np.quantile(share[1:], [0.025, 0.975], method="inverted_cdf")
                row |= {"observed": share[0], "lower95": low, "upper95": high,
                        "outside": int(not low <= share[0] <= high)}
            found.append(row)
    return pd.DataFrame(found)
