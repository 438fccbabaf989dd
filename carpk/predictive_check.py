"""Visual predictive checks: the fitted design measured again in new patients of every draw.

Replicates come from draws of the posterior, each with patients of its own, and are censored as
the rows of the design are. Percentiles and the share below the limit are then compared with those
observed (Bergstrand M et al. AAPS J 2011;13:143-151 for the prediction-corrected ones; Jamsen KM et
al. CPT Pharmacometrics Syst Pharmacol 2018;7:660-669 for those without bins).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from carpk.classes import drawn_classes
from carpk.cohort import quantification_limits
from carpk.fitting import Fit, excluded
from carpk.geometry import noncentred
from carpk.likelihood import data_of, drawn_rows, population_location, predicted_rows
from carpk.missing import with_levels
from carpk.posterior import fixed
from carpk.prediction import predictions, some_draws
from carpk.problems import Problem, RequestError
from carpk.regression_quantiles import regression_quantile, spline_basis
from carpk.solve import Arrays
from carpk.tails import TAILS

COUNT = 1000
PERCENTILES = (5, 50, 95)
_MOST_BINS, _LEAST = 14, 10  # bins, and observations in one: fewer hold no 5th percentile
_FEWEST_BINS, _APART = 8, 3.3  # bins nearer than so many of their SDs are one visit cut in two
_WINDOW = 14  # without bins, a window holds the nearest 1/14 of the rows, as a bin would
_DEPTH = 1e3  # on a log scale levels further below the least that was seen count as this low


class Replicates(NamedTuple):
    """Observations of new patients at the rows of `carpk.prediction.predictions`.

    y : (R, rows), not censored, unit of each row's output; NaN where a solve failed
    limit : (rows,), below which a row is censored, -inf where it never is
    """

    y: np.ndarray
    limit: np.ndarray


@lru_cache(maxsize=2)  # every figure of a report reads the same ones
def replicates(fit: Fit, count: int = COUNT) -> Replicates:
    """The fitted design measured in new patients: a draw of the posterior for each replicate.

    Where there are fewer draws than replicates they are used again, with other patients.
    """
    model, seen = fit.model, fit.design
    data, where = data_of(model, seen), np.nonzero(seen.observed)
    some = np.resize(some_draws(fit, count), count)
    draws = fit.posterior["posterior"].dataset
    theta = {n: jnp.asarray(draws[n].values.reshape(-1)[some]) for n in model.free}
    keys = jax.random.split(jax.random.fold_in(jax.random.key(_seed(fit)), 7), count)

    @jax.jit
    def evaluate(theta: Arrays, keys: jax.Array, data: Arrays) -> jax.Array:
        def one(draw: Any) -> jax.Array:
            values = {**fixed(model), **draw[0]}
            return new_measurements(model, data, values, draw[1])[where]
        return jax.lax.map(one, (theta, keys))

    y = np.asarray(evaluate(theta, keys, data))
    return Replicates(y, limits(fit))


def new_measurements(model: Any, data: Arrays, theta: Any, key: jax.Array) -> jax.Array:
    """(P, N): measurements of new patients, who have the inputs and covariates of the fitted."""
    between, within = jax.random.split(key)
    data = drawn_classes(model.mixture, data, theta, jax.random.fold_in(between, 1))
    data = with_levels(model.missing, model.effects, data, theta, jax.random.fold_in(between, 2))
    mu, low = population_location(model, data, theta)
    z = TAILS[model.etas].draw(between, mu.shape)
    phi = noncentred(z, mu, low)[0] if model.sds else z
    predicted = predicted_rows(model, data, theta, phi)
    return drawn_rows(model, data, theta, predicted, within)


def limits(fit: Fit) -> np.ndarray:
    """(rows,): below which each fitted row would have been censored."""
    seen = fit.design
    here = seen.observed
    patient = np.broadcast_to(np.arange(len(seen.ids))[:, None], here.shape)
    return quantification_limits(
        patient[here], seen.output[here], seen.time[here], seen.lower[here], seen.upper[here],
        None if seen.lloq is None else seen.lloq[here])


def left_out(fit: Fit) -> str:
    """A sentence where levels below the limit were left out of the fit, by M1, M6 or M7: the
    observed lack them and the replicates do not. Else ""."""
    reasons = excluded(fit)["reason"]
    number = int(reasons.str.startswith(f"{fit.model.censoring}: ").sum())
    return "" if not number else (
        f"{fit.model.censoring} left out levels below the limit ({number} in all), which "
        "the observed lack here and the replicates have: where they are many, observed percentiles "
        "lie too high and the share below the limit too low. A fit by M3 is checked fairly.")


def vpc(fit: Fit, output: str, *, corrected: bool = False, by: str | None = None,
        bins: str | Sequence[float] = "adaptive", count: int = COUNT) -> pd.DataFrame:
    """Observed percentiles and share below the limit, and what replicates make of them.

    corrected : levels are multiplied by the bin's median PRED over their own (where one of them
        is not above 0, shifted by the difference), so that what differs between the patients of a
        bin by dose, inputs and covariates is no spread
    by : a covariate whose values, or halves at its median, are checked apart; "RESPONSE,PRODUCT"
        crosses the groups of two
    bins : "adaptive" joins neighbouring times until at least ten observations lie in each bin
        and no more than 14 bins are left; "none" takes percentiles by quantile regression on
        splines of time, and shares in a moving window; days, such as (1, 7, 14), take each
        observation to the nearest

    returns : output, stratum ("" without `by`), statistic (p5, p50, p95 or below; of a binary
        output share, of those that are 1), time (median of the bin), first, last (times in it),
        n, observed; median, lower95, upper95 over replicates. Below is a share; a percentile
        among censored levels is -inf.

    A percentile is that of all levels, those below their limits counting as lowest, in the
    observed as in the replicates.
    """
    how = bins if isinstance(bins, str) else tuple(bins)
    return _vpc(fit, output, corrected, by, how, count).copy()


@lru_cache(maxsize=2)  # a figure and its numbers
def _vpc(fit: Fit, output: str, corrected: bool, by: str | None, bins: str | tuple[float, ...],
         count: int) -> pd.DataFrame:
    binary = fit.model.structure.output(output).binary
    if binary and corrected:
        raise RequestError(Problem("error", "a binary output has no level to correct", "drop it",
                                   column="corrected", found=output))
    rows = predictions(fit)
    simulated = replicates(fit, count)
    places = np.flatnonzero((rows["output"] == output).to_numpy())
    tables = []
    for name, inside in strata(fit, rows.iloc[places], by):
        mine = places[inside]
        tables.append((_answers(rows.iloc[mine], simulated.y[:, mine], bins) if binary else
                       _checked(rows.iloc[mine], simulated.y[:, mine], simulated.limit[mine],
                                corrected, bins)).assign(stratum=name))
    columns = ["output", "stratum", "statistic", "time", "first", "last", "n", "observed",
               "median", "lower95", "upper95"]
    return pd.concat(tables, ignore_index=True).assign(output=output)[columns]


def strata(fit: Fit, rows: pd.DataFrame, by: str | None) -> list[tuple[str, np.ndarray]]:
    """The groups of rows that are checked apart: their name, and which rows. `by` names one
    covariate, or several with commas between them, whose groups are crossed."""
    if by is None:
        return [("", np.ones(len(rows), bool))]
    unknown = no_such_covariate(fit, by)
    if unknown:
        raise RequestError(unknown)
    each = [_group(fit.design.covariates[n], rows["ID"]) for n in by.split(",")]
    group = each[0].str.cat(each[1:], sep=", ")
    return [(str(g), (group == g).to_numpy()) for g in sorted(group.unique())]


def _group(column: pd.Series, ids: pd.Series) -> pd.Series:
    """The name of the group that the patient of each row is in."""
    value, by = column.reindex(ids).reset_index(drop=True), column.name
    if pd.api.types.is_numeric_dtype(value) and value.nunique() > 4:
        middle = float(column.median())
        group = pd.Series(np.where(value <= middle, f"{by} up to {middle:.4g}",
                                   f"{by} above {middle:.4g}")).where(value.notna())
    else:
        group = value.map(lambda v: f"{by} {v:g}" if isinstance(v, float) else f"{by} {v}"
                          ).where(value.notna() & (value != ""))
    return group.astype(object).fillna(f"{by} missing").astype(str)


def no_such_covariate(fit: Fit, by: str) -> list[Problem]:
    """A problem for each name in `by` that is no covariate of the fit's cohort."""
    held = fit.design.covariates
    return [Problem("error", "no such covariate", "the fit has "
                    + (", ".join(map(str, held.columns)) or "none"), column="by", found=n)
            for n in by.split(",") if n not in held]


def _checked(rows: pd.DataFrame, y: np.ndarray, limit: np.ndarray, corrected: bool,
             bins: str | Sequence[float]) -> pd.DataFrame:
    time, pred = rows["TIME"].to_numpy(float), rows["PRED"].to_numpy(float)
    seen = rows["DV"].to_numpy(float)
    hidden = (rows["censored"].to_numpy() == 1) | (seen < limit)
    above = rows["censored"].to_numpy() == -1
    over = np.where(above, seen, np.inf)
    y = _solved(y)
    below = y < limit
    levels = np.concatenate([seen[None], y])
    lost = np.concatenate([hidden[None], below])
    weights, at = _weights(time, bins)
    if corrected:
        typical = _typical(pred, weights, at, time)
        scaled = (pred > 0) & (typical > 0)  # a level predicted to be 0 cannot be
        times = np.where(scaled, typical / np.where(scaled, pred, 1.0), 1.0)
        plus = np.where(scaled, 0.0, typical - pred)
        levels, limit, over = (v * times + plus for v in (levels, limit, over))
    lost_above = np.concatenate([above[None], levels[1:] >= over])
    levels = np.where(lost, -np.inf, np.where(lost_above, np.inf, levels))
    if isinstance(bins, str) and bins == "none":
        percentiles = _regressed(time, levels, limit, over, weights, at)
    else:
        percentiles = np.stack([weighted_quantiles(
            levels[:, w > 0], w[w > 0], [p / 100 for p in PERCENTILES]) for w in weights], axis=2)
    return _bands(time, weights, at, {**{f"p{p}": q for p, q in zip(
        PERCENTILES, percentiles, strict=True)}, "below": _shares(lost, weights)})


def _answers(rows: pd.DataFrame, y: np.ndarray, bins: str | Sequence[float]) -> pd.DataFrame:
    """Of a binary output the share that is 1."""
    time = rows["TIME"].to_numpy(float)
    weights, at = _weights(time, bins)
    answers = np.concatenate([rows["DV"].to_numpy(float)[None], _solved(y)])
    return _bands(time, weights, at, {"share": _shares(answers, weights)})


def _solved(y: np.ndarray) -> np.ndarray:
    """The replicates that solved."""
    y = y[np.isfinite(y).all(axis=1)]
    if not len(y):
        raise RequestError(Problem("error", "the solve fails in every replicate",
                                   "the fit has not converged, or needs more steps"))
    return y


def _bands(time: np.ndarray, weights: np.ndarray, at: np.ndarray,
           statistics: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row for each bin and statistic, (1 + R, bins) each, the observed first."""
    found = []
    for k, centre in enumerate(at):
        inside = weights[k] > 0
        for statistic, v in ((s, values[:, k]) for s, values in statistics.items()):
            low, middle, high = np.quantile(v[1:], [0.025, 0.5, 0.975], method="inverted_cdf")
            found.append({
                "statistic": statistic, "time": centre, "first": time[inside].min(),
                "last": time[inside].max(), "n": int(inside.sum()), "observed": v[0],
                "median": middle, "lower95": low, "upper95": high})
    return pd.DataFrame(found)


def _shares(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R, bins): the share of each bin's weight that lies on the chosen rows (R, n)."""
    return np.asarray((rows @ weights.T) / weights.sum(axis=1))


def _regressed(time: np.ndarray, levels: np.ndarray, limit: np.ndarray, over: np.ndarray,
               weights: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(percentiles, R, len(at)): by quantile regression on splines of the square root of time.

    levels : (R, n), -inf below limit and inf above over, (n,); the first data set was observed

    Levels above 0 are regressed by their logarithms, and censored ones count as the lowest limit:
    a percentile of levels raised to a limit is the percentile of the levels, raised likewise
    (Powell JL. J Econom 1986;32:143-155). Where it does not lie above that limit, or the moving
    window finds more than that percentage of levels censored, it is one of them.
    """
    root, grid = np.sqrt(np.maximum(time, 0.0)), np.sqrt(at)
    seen = levels[0, np.isfinite(levels[0])]
    log = bool(seen.size) and bool((seen > 0).all())
    least = seen.min() / _DEPTH if log else -np.inf
    below, above = np.isneginf(levels) | (levels < least), np.isposinf(levels)
    finite = limit[np.isfinite(limit)]
    least = max(least, finite.min() if finite.size else least)
    z = np.where(below, least, np.where(above, over, levels))
    z = np.log(z) if log else z
    basis, curve = spline_basis(root, root), spline_basis(root, grid)
    low, high = _shares(below, weights), _shares(above, weights)
    found = []
    for tau in (p / 100 for p in PERCENTILES):
        value = regression_quantile(z, basis, tau) @ curve.T
        value = np.exp(value) if log else value
        found.append(np.where((low >= tau) | (value <= least), -np.inf,
                              np.where(high >= 1 - tau, np.inf, value)))
    return np.stack(found)


def _weights(time: np.ndarray, bins: str | Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """(bins, rows): how much each row counts in each bin, and the bins' times."""
    if isinstance(bins, str) and bins == "none":
        root = np.sqrt(np.maximum(time, 0.0))
        at = np.linspace(root.min(), root.max(), 60)
        away = np.abs(root[None] - at[:, None])
        held = min(max(len(time) // _WINDOW, 3 * _LEAST), len(time)) - 1
        width = np.maximum(1.01 * np.sort(away, axis=1)[:, held], 1e-9)
        weights = np.maximum(1 - (away / width[:, None]) ** 3, 0.0) ** 3
        return weights, at ** 2
    if isinstance(bins, str) and bins != "adaptive":
        raise RequestError(Problem("error", "not understood", "adaptive, none, or days",
                                   column="bins", found=bins))
    if isinstance(bins, str):
        place = adaptive_bins(time)
    else:
        days = np.sort(np.asarray(bins, float))
        place = np.abs(time[:, None] - days[None]).argmin(axis=1)
    members = [place == k for k in np.unique(place)]
    return np.array(members, float), np.array([np.median(time[m]) for m in members])


def adaptive_bins(time: np.ndarray) -> np.ndarray:
    """The bin of each time: the nearest neighbours are joined until each bin holds enough.

    Near is by Ward's criterion on square roots of time, so that visits of one nominal day come
    together, and late days may lie further apart than early ones.

    >>> adaptive_bins(np.repeat([1.0, 1.1, 7.0, 7.2, 28.0], 6)).tolist()[::6]
    [0, 0, 1, 1, 1]
    """
    each, place, counts = np.unique(time, return_inverse=True, return_counts=True)
    root, size = np.sqrt(np.maximum(each, 0.0)), counts.astype(float)
    within = np.zeros(len(each))  # sum of squares
    joined = np.arange(len(each))  # the cluster of each distinct time, in the order of time
    while len(size) > 1:
        weight = size[:-1] * size[1:] / (size[:-1] + size[1:])
        cost = weight * np.diff(root) ** 2
        if len(size) <= _MOST_BINS:  # only those that are too small are joined further
            small = (size[:-1] < _LEAST) | (size[1:] < _LEAST)
            cost = np.where(small, cost, np.inf)
        k = int(cost.argmin())
        if not np.isfinite(cost[k]):
            sd = np.sqrt((within[:-1] + within[1:]) / (size[:-1] + size[1:]))
            apart = np.diff(root) / np.maximum(sd, 1e-12)
            k = int(apart.argmin())
            if apart[k] > _APART or len(size) <= _FEWEST_BINS:
                break
        within[k] += within[k + 1] + weight[k] * (root[k + 1] - root[k]) ** 2
        root[k] = (size[k] * root[k] + size[k + 1] * root[k + 1]) / (size[k] + size[k + 1])
        size[k] += size[k + 1]
        root, size, within = (np.delete(v, k + 1) for v in (root, size, within))
        joined = np.where(joined > k, joined - 1, joined)
    return joined[place]


def _typical(pred: np.ndarray, weights: np.ndarray, at: np.ndarray, time: np.ndarray) \
        -> np.ndarray:
    """(rows,): the median PRED of each row's bin, or near its time."""
    medians = np.array([weighted_quantiles(pred[None, w > 0], w[w > 0], [0.5])[0][0]
                        for w in weights])
    if set(np.unique(weights)) <= {0.0, 1.0}:
        return medians[weights.argmax(axis=0)]
    return np.interp(np.sqrt(np.maximum(time, 0.0)), np.sqrt(at), medians)


def weighted_quantiles(values: np.ndarray, weights: np.ndarray, at: Sequence[float]) \
        -> list[np.ndarray]:
    """Of each row of (R, n) the smallest value with at least that share of the weights below or
    at it; -inf and inf are values like others.

    >>> [q.tolist() for q in weighted_quantiles(np.array([[3.0, 1.0, 2.0]]), np.ones(3), [0.5])]
    [[2.0]]
    """
    order = np.argsort(values, axis=1)
    ranked = np.take_along_axis(values, order, axis=1)
    share = np.cumsum(weights[order], axis=1)
    rows = np.arange(len(values))
    # a share that should be 0.05 may fall short by its rounding
    return [ranked[rows, (share < q * share[:, -1:] * (1 - 1e-12)).sum(axis=1)] for q in at]


def _seed(fit: Fit) -> int:
    return int(fit.manifest["request"]["seed"])
