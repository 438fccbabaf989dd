"""Regression of an outcome on exposure: three likelihoods, maximised for many draws at once.

x holds the exposure's column first and then those of covariates; q are the parameters, the slopes
last. Each log-likelihood is concave in q, so that Newton's method finds its one maximum; that of
all draws together is not, but its maximum lies beside theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, log_expit, logit, ndtr

KINDS = ("binary", "ordinal", "survival", "cox")
Data = Mapping[str, Any]
# log-likelihoods (D, rows) with their gradients (D, rows, m) and Hessians (D, rows, m, m)
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
Law = Callable[[np.ndarray, np.ndarray, Data], Rows]

_NEVER = 1e6  # a threshold that no patient passes; finite, so that its gradient is 0 and not NaN
_STEPS = 60  # Newton takes about eight; without a maximum each adds about 1 to a slope, for ever
_HALVINGS = 14
_ENDLESS = 20.0  # a slope per SD, or between groups: odds of 5e8
_NEAR = 1e-9  # of a standardised parameter: Newton's next step is of its square
_ROWS = 50_000


@dataclass(frozen=True)
class Regression:
    """Maximum likelihood of D draws of the columns.

    names : of the N parameters that are not slopes: `threshold_1` and so on of a graded outcome,
        where logit P(grade at least that of k) = x slopes - threshold_k; `intercept` and `shape`
        of a Weibull law, whose hazard is shape t^(shape - 1) exp(intercept + x slopes); none of
        Cox's
    estimate, covariance : (D, N + C) and (D, N + C, N + C), the slopes last
    log_likelihood : (D,), of Cox's the partial one
    found : (D,), false where the likelihood has no maximum: an outcome perfectly predicted
    standardised : (D, C), slopes per SD of their columns, which are large where not found
    """

    names: tuple[str, ...]
    estimate: np.ndarray
    covariance: np.ndarray
    log_likelihood: np.ndarray
    found: np.ndarray
    standardised: np.ndarray

    @property
    def slopes(self) -> np.ndarray:
        """(D, C)."""
        return self.estimate[:, len(self.names):]

    @property
    def errors(self) -> np.ndarray:
        """(D, C), standard errors of the slopes."""
        each = np.diagonal(self.covariance, axis1=1, axis2=2)
        return np.sqrt(each[:, len(self.names):])


def regress(kind: str, x: np.ndarray, outcome: np.ndarray, event: np.ndarray | None = None, *,
            prior: float | None = None, together: Regression | None = None) -> Regression:
    """Fits one of KINDS to each draw of the columns, or one to all of them.

    x : (D, n, C); of a 0/1 column the slope is between its groups, of others per unit
    outcome : (n,), 0/1 if binary, integer grades if ordinal (proportional odds between those
        that occur), else the time since the landmark, above 0
    event : (n,), 1 where that time is of an event and 0 where it is of censoring
    prior : SD of a normal prior around 0 of the slopes, per SD of a column or between groups;
        the estimate is then the mode, and its covariance that of the normal at the mode
    together : what the draws gave each, from which the maximum of the likelihood that averages
        each patient's over the draws is looked for, prod_i (1/D) sum_d p(outcome of i | x of i
        in draw d); the result has one D. Not for cox, whose patients are not independent
    Covariances are by the observed information. Ties of Cox's are Efron's (1977, JASA 72:557).

    >>> x = np.array([0.0, 1, 2, 3, 4, 5])[None, :, None]
    >>> fit = regress("binary", x, np.array([0, 0, 1, 0, 1, 1]))
    >>> fit.slopes.round(3).tolist(), bool(fit.found[0])
    ([[1.214]], True)
    >>> bool(regress("binary", x, np.array([0, 0, 0, 1, 1, 1])).found[0])
    False
    """
    columns = x.shape[2]
    centre = x.mean(axis=(0, 1))
    groups = np.array([np.isin(x[..., c], (0, 1)).all() for c in range(columns)])
    scale = np.where(groups, 1.0, x.std(axis=(0, 1)))
    law, names, start, data, constant, back = _LAWS[kind](outcome, event)
    hold = np.full(columns, 1.0 / prior if prior else 0.0)
    # from standardised columns and unit of time back: linear in the parameters
    own = len(names)
    inner = np.eye(own + columns)
    inner[own:, own:] /= scale
    outer = np.eye(own + columns)
    for k, name in enumerate(names):
        outer[k, own:] = centre if name.startswith("threshold") else \
            -centre if name == "intercept" else 0.0
    outer[:own, :own] = back
    matrix = outer @ inner
    begin = np.append(start, np.zeros(columns)) if together is None else \
        np.linalg.solve(matrix, together.estimate.mean(axis=0))
    # a few draws at a time: each row of each draw has a Hessian
    chunks = [x] if together else np.array_split(x, -(-x[..., 0].size // _ROWS))
    q, value, hessian, found = (np.concatenate(v) for v in zip(*(_maximum(
        law, begin, (c - centre) / scale, data, np.append(np.zeros(own), hold), bool(together))
        for c in chunks), strict=True))
    found = found & np.isfinite(value)
    with np.errstate(all="ignore"):
        covariance = np.array([np.linalg.inv(-h) if f else np.full_like(h, np.nan)
                               for h, f in zip(hessian, found, strict=True)])
    return Regression(names, q @ matrix.T, matrix @ covariance @ matrix.T, value + constant, found,
                      q[:, own:])


def _maximum(law: Law, start: np.ndarray, x: np.ndarray, data: Data, ridge: np.ndarray,
             together: bool) -> tuple[np.ndarray, ...]:
    """Newton's method with halved steps: q, log-likelihood, Hessian, found, of each draw."""
    def at(q: np.ndarray, which: np.ndarray) -> Rows:
        with np.errstate(all="ignore"):  # beyond the edge of what is allowed: NaN, and halved
            if together:
                return _averaged(law(np.broadcast_to(q, (len(x), q.shape[1])), x, data))
            value, slope, curvature = law(q, x[which], data)
            return value.sum(axis=1), slope.sum(axis=1), curvature.sum(axis=1)

    def penalty(q: np.ndarray) -> np.ndarray:
        return 0.5 * ((q * ridge) ** 2).sum(axis=1)

    draws = 1 if together else len(x)
    q, hold = np.tile(start, (draws, 1)), np.diag(ridge**2)
    found, left = np.zeros(draws, bool), np.arange(draws)
    value, slope, curvature = at(q, left)
    for _ in range(_STEPS):
        here, before = q[left], value[left] - penalty(q[left])
        way = np.array([_step(h - hold, g) for h, g in zip(
            curvature[left], slope[left] - here * ridge**2, strict=True)])
        for _ in range(_HALVINGS):
            new = at(here + way, left)
            worse = ~(new[0] - penalty(here + way) >= before - 1e-11 * (1.0 + np.abs(before)))
            if not worse.any():
                break
            way[worse] /= 2
        way[worse] = np.nan
        q[left] = here + way
        value[left], slope[left], curvature[left] = new
        moved = np.abs(way).max(axis=1)
        found[left[moved <= _NEAR]] = True
        left = left[moved > _NEAR]  # NaN ends it as well
        if not len(left):
            break
    # beyond this the rest of the likelihood's rise is lost to rounding
    found &= np.abs(q[:, len(start) - x.shape[2]:]).max(axis=1) < _ENDLESS
    return q, value, curvature - hold, found


def _step(hessian: np.ndarray, slope: np.ndarray) -> np.ndarray:
    try:
        return -np.linalg.solve(hessian, slope)
    except np.linalg.LinAlgError:  # columns that say the same
        return np.full(len(slope), np.nan)


def _averaged(rows: Rows) -> Rows:
    """Of the draws' (D, n) likelihoods those of their mean over D, summed over n: (1,)."""
    value, slope, curvature = rows
    top = value.max(axis=0)
    weight = np.exp(value - top)
    total = top + np.log(weight.mean(axis=0))
    weight /= weight.sum(axis=0)
    mean = np.einsum("dn,dnj->nj", weight, slope)
    size, each = slope.shape[2], (slope * np.sqrt(weight)[..., None]).reshape(-1, slope.shape[2])
    inner = (weight.ravel() @ curvature.reshape(-1, size * size)).reshape(size, size) \
        + each.T @ each - mean.T @ mean
    return total.sum()[None], mean.sum(axis=0)[None], inner[None]


def _ordered(q: np.ndarray, x: np.ndarray, data: Data) -> Rows:
    """Of each patient. Proportional odds: McCullagh 1980, J R Stat Soc B 42:109; with one
    threshold logistic."""
    cuts, grade = q.shape[1] - x.shape[2], data["grade"]
    never = np.full((len(q), 1), _NEVER)
    ends = np.concatenate([-never, q[:, :cuts], never], axis=1)
    eta = np.einsum("dnc,dc->dn", x, q[:, cuts:])
    high, low = ends[:, grade + 1] - eta, ends[:, grade] - eta
    # P = expit(high) - expit(low) without cancellation; NaN where thresholds are crossed
    value = log_expit(high) + log_expit(-low) + np.log1p(-np.exp(low - high))
    up = np.exp(log_expit(high) + log_expit(-high) - value)  # d ln P / d high
    down = np.exp(log_expit(low) + log_expit(-low) - value)  # -d ln P / d low
    one = np.eye(cuts + 2)[:, 1:-1]
    by_high, by_low = (np.concatenate([np.broadcast_to(one[g], (len(q), len(g), cuts)), -x],
                                      axis=2) for g in (grade + 1, grade))
    slope = up[..., None] * by_high - down[..., None] * by_low
    curvature = (up * (1 - 2 * expit(high)))[..., None, None] * _outer(by_high) \
        - (down * (1 - 2 * expit(low)))[..., None, None] * _outer(by_low) - _outer(slope)
    return value, slope, curvature


def _weibull(q: np.ndarray, x: np.ndarray, data: Data) -> Rows:
    """Of each patient."""
    log_time, event = data["log_time"], data["event"]
    by = np.concatenate([np.ones((*x.shape[:2], 1)), np.broadcast_to(
        log_time[:, None], (*x.shape[:2], 1)), x], axis=2)
    log_cumulated = np.einsum("dnj,dj->dn", by, q)
    cumulated, shape = np.exp(log_cumulated), q[:, [1]]
    value = event * (np.log(shape) + log_cumulated - log_time) - cumulated
    slope = (event - cumulated)[..., None] * by
    slope[..., 1] += event / shape
    curvature = -cumulated[..., None, None] * _outer(by)
    curvature[..., 1, 1] -= event / shape**2
    return value, slope, curvature


def _partial(q: np.ndarray, x: np.ndarray, data: Data) -> Rows:
    """Of each event: its patient's hazard in proportion to that of all who are at risk."""
    eta = np.einsum("dnc,dc->dn", x, q)
    top = eta.max(axis=1, keepdims=True)
    weight = np.exp(eta - top)[..., None]
    risk, whose, (draws, n, c) = data["risk"], data["whose"], x.shape
    total = (risk @ weight)[..., 0]
    mean = risk @ (weight * x) / total[..., None]
    square = (risk @ (weight * _outer(x).reshape(draws, n, c * c))).reshape(draws, -1, c, c)
    return (eta[:, whose] - np.log(total) - top, x[:, whose] - mean,
            _outer(mean) - square / total[..., None, None])


def _outer(rows: np.ndarray) -> np.ndarray:
    """(..., m, m) of (..., m)."""
    return rows[..., :, None] * rows[..., None, :]


def _grades(outcome: np.ndarray, event: np.ndarray | None) -> Any:
    levels, grade = np.unique(outcome, return_inverse=True)
    at_least = (grade[None] >= np.arange(1, len(levels))[:, None]).mean(axis=1)
    names = tuple(f"threshold_{level:g}" for level in levels[1:])
    return _ordered, names, -logit(at_least), {"grade": grade}, 0.0, np.eye(len(names))


def _times(outcome: np.ndarray, event: np.ndarray | None) -> Any:
    assert event is not None
    unit = outcome.mean()  # times near 1: the Hessian is well scaled
    start = np.array([np.log(event.sum() / len(event)), 1.0])
    back = np.array([[1.0, -np.log(unit)], [0.0, 1.0]])
    return (_weibull, ("intercept", "shape"), start,
            {"log_time": np.log(outcome / unit), "event": event.astype(float)},
            -event.sum() * np.log(unit), back)


def _risks(outcome: np.ndarray, event: np.ndarray | None) -> Any:
    """Whose each event is, and (events, n) who is at risk at it, less Efron's share of the tied."""
    assert event is not None
    whose = np.flatnonzero(event == 1)
    whose = whose[np.argsort(outcome[whose], kind="stable")]
    at = outcome[whose]
    first = np.searchsorted(at, at)
    share = (np.arange(len(at)) - first) / (np.searchsorted(at, at, side="right") - first)
    tied = (outcome[None] == at[:, None]) & (event[None] == 1)
    return (_partial, (), np.zeros(0), {
        "whose": whose, "risk": (outcome[None] >= at[:, None]) - share[:, None] * tied},
        0.0, np.zeros((0, 0)))


_LAWS: dict[str, Callable[[np.ndarray, np.ndarray | None], Any]] = {
    "binary": _grades, "ordinal": _grades, "survival": _times, "cox": _risks}


def pooled(estimate: np.ndarray, error: np.ndarray, at: tuple[float, ...] = (0.5, 0.025, 0.975)) \
        -> tuple[np.ndarray, float]:
    """Quantiles of the mixture of the draws' normals, and the mixture's part above 0.

    estimate, error : (D,)
    Were a slope drawn from Normal(estimate, error) for each draw of the exposure, these would be
    the quantiles of infinitely many such slopes. One draw, or equal ones: estimate -+ 1.96 error.

    >>> quantiles, above = pooled(np.array([0.7, 0.7]), np.array([0.2, 0.2]))
    >>> quantiles.round(3).tolist(), round(above, 4)
    ([0.7, 0.308, 1.092], 0.9998)
    """
    wanted = np.array(at)
    low = np.full(len(wanted), (estimate - 9 * error).min())
    high = np.full(len(wanted), (estimate + 9 * error).max())
    for _ in range(80):  # halved to the last digit
        middle = 0.5 * (low + high)
        below = ndtr((middle[:, None] - estimate) / error).mean(axis=1) < wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return 0.5 * (low + high), float(ndtr(estimate / error).mean())
