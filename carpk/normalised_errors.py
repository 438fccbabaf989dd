"""Normalised prediction distribution errors: where each observation falls in what was predicted.

Definition: Brendel K et al. Pharm Res 2006;23:2036-2049. Censored levels are replaced by draws
from their own predictive distribution, as in Nguyen THT et al. J Pharmacokinet Pharmacodyn
2012;39:499-518; here the replicates' censored levels too, so that data and replicates are treated
alike and ranks stay uniform under the model.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.special import ndtri
from scipy.stats import chi2, kstest, ttest_1samp

from carpk.fitting import Fit
from carpk.predictive_check import COUNT, replicates

_DEPTH = 1e3  # a level on a log scale that lies deeper below its limit counts as this deep


@lru_cache(maxsize=2)
def npde(fit: Fit, count: int = COUNT) -> np.ndarray:
    """(rows,): of every row of `carpk.prediction.predictions`; NaN where no replicate solves, and
    of binary rows, which have no place in an order.

    Each patient's rows, of all outputs together, are decorrelated in the order of time on the
    scale the residual error is added to (the logarithm of a log-normal one). Replicates come
    from draws of the posterior: what the data have taught the model is in them, so that a misfit
    must be larger to show than with a model from elsewhere.
    """
    seen, simulated = fit.design, replicates(fit, count)
    here = seen.observed
    lower, upper, output = seen.lower[here], seen.upper[here], seen.output[here]
    patient = np.nonzero(here)[0]
    binary = np.array([e.binary for e in fit.model.error_models().values()])[output]
    log = np.array([e.log_scale for e in fit.model.error_models().values()])[output]
    rng = np.random.default_rng(int(fit.manifest["request"]["seed"]))
    y = simulated.y[np.isfinite(simulated.y).all(axis=1)]
    out = np.full(len(output), np.nan)
    if len(y) < 2:
        return out
    least = np.where(np.isfinite(simulated.limit) & (simulated.limit > 0),
                     simulated.limit / _DEPTH, _smallest(y) / _DEPTH)

    def working(levels: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(log, np.log(np.maximum(levels, least)), levels)

    bounds = [working(b) for b in (np.where(log & (lower <= 0), -np.inf, lower), upper)]
    bounds[0] = np.where(np.isneginf(lower) | (log & (lower <= 0)), -np.inf, bounds[0])
    limit = np.where(np.isfinite(simulated.limit), working(simulated.limit), -np.inf)
    every = working(y)
    for k in range(len(seen.ids)):
        mine = (patient == k) & ~binary
        if not mine.any():
            continue
        levels = imputed(bounds[0][mine], bounds[1][mine], limit[mine], every[:, mine], rng)
        out[mine] = decorrelated_errors(levels[0], levels[1:])
    return out


def _smallest(y: np.ndarray) -> np.ndarray:
    """(rows,): the least level above 0 of each row's replicates, 1 where there is none."""
    least = np.where(y > 0, y, np.inf).min(axis=0)
    return np.where(np.isfinite(least), least, 1.0)


def imputed(lower: np.ndarray, upper: np.ndarray, limit: np.ndarray, simulated: np.ndarray,
            rng: np.random.Generator) -> np.ndarray:
    """(R + 1, n): a patient's levels and the replicates', censored ones drawn anew.

    lower, upper : (n,), where each level lies; limit : (n,); simulated : (R, n), not censored
    A censored level is drawn from the replicates' distribution of its row between its bounds, a
    replicate's level below the row's limit (or above the bound of a row censored above) from
    that side of the bound.
    """
    measured = lower == upper
    beyond = np.where(~measured & np.isposinf(upper), lower, np.inf)
    limit = np.where(~measured & np.isfinite(upper), upper, limit)
    levels = np.concatenate([np.where(measured, upper, np.nan)[None], simulated])
    with np.errstate(invalid="ignore"):
        below, above = levels < limit, levels > beyond
    below[0], above[0] = ~measured & np.isfinite(upper), np.isfinite(beyond)
    ranked = np.sort(simulated, axis=0)
    u = rng.uniform(size=levels.shape)
    for j in np.flatnonzero((below | above).any(axis=0)):
        column = ranked[:, j]
        up_to = np.full(len(levels), np.searchsorted(column, limit[j]) / len(column))
        start = np.where(above[:, j], np.searchsorted(column, beyond[j]) / len(column), 0.0)
        if below[0, j] and np.isfinite(lower[j]):
            start[0] = np.searchsorted(column, lower[j]) / len(column)
        up_to[above[:, j]] = 1.0
        share = start + u[:, j] * np.maximum(up_to - start, 0.0)
        drawn = np.interp(share * (len(column) - 1), np.arange(len(column)), column)
        # interpolation may step over the bound
        drawn = np.where(below[:, j], np.minimum(drawn, limit[j]), drawn)
        drawn = np.where(above[:, j], np.maximum(drawn, beyond[j]), drawn)
        drawn[0] = max(drawn[0], lower[j]) if below[0, j] else drawn[0]
        levels[:, j] = np.where(below[:, j] | above[:, j], drawn, levels[:, j])
    return levels


def decorrelated_errors(seen: np.ndarray, simulated: np.ndarray) -> np.ndarray:
    """(n,): a patient's npde.

    seen : (n,); simulated : (R, n), R > n, on one scale
    With mean and covariance of the replicates, both are decorrelated by the lower Cholesky
    factor, as Brendel et al. do (NONMEM takes the symmetric root, which gives other npde); of
    the rank r of a level among its R replicates, npde is the normal quantile of
    (r + 1/2) / (R + 1), ties counted half.

    >>> simulated = np.array([[1.0], [2.0], [3.0], [4.0]])
    >>> decorrelated_errors(np.array([2.5]), simulated).tolist()
    [0.0]
    """
    centre = simulated.mean(axis=0)
    covariance = np.atleast_2d(np.cov(simulated, rowvar=False))
    # rows that are the same in every replicate have no spread to be measured in
    tiny = 1e-12 * max(float(np.trace(covariance)), 1e-300) * np.eye(len(centre))
    factor = np.linalg.cholesky(covariance + tiny)
    z = np.linalg.solve(factor, (np.concatenate([seen[None], simulated]) - centre).T)
    rank = (z[:, 1:] < z[:, :1]).sum(axis=1) + 0.5 * (z[:, 1:] == z[:, :1]).sum(axis=1)
    return np.asarray(ndtri((rank + 0.5) / (len(simulated) + 1)))


def judged(values: np.ndarray) -> pd.Series:
    """How far npde are from standard normal: n, mean, variance, and the probabilities of being
    as far by chance: p_mean (t), p_variance (chi square), p_normal (Kolmogorov-Smirnov), and
    p_all, three times the least of them.

    >>> bool(judged(np.random.default_rng(2).normal(size=500))["p_all"] > 0.05)
    True
    """
    z = values[np.isfinite(values)]
    if len(z) < 2:
        return pd.Series({"n": len(z), **dict.fromkeys(
            ("mean", "variance", "p_mean", "p_variance", "p_normal", "p_all"), math.nan)})
    variance = float(z.var(ddof=1))
    one_side = float(chi2.cdf((len(z) - 1) * variance, len(z) - 1))
    p = (float(ttest_1samp(z, 0.0).pvalue), 2 * min(one_side, 1 - one_side),
         float(kstest(z, "norm").pvalue))
    return pd.Series({"n": len(z), "mean": float(z.mean()), "variance": variance, "p_mean": p[0],
                      "p_variance": p[1], "p_normal": p[2], "p_all": min(1.0, 3 * min(p))})
