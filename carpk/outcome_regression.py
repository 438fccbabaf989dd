"""Regression of an outcome on exposure: three likelihoods, maximised for many draws at once.

x holds the exposure's column first and then those of covariates; q are the parameters, the slopes
last. Each log-likelihood is concave in q, so that Newton's method finds its one maximum; that of
all draws together is not, but its maximum lies beside theirs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logit, ndtr

KINDS = ("binary", "ordinal", "survival", "cox")
Data = Mapping[str, Any]

_NEVER = 1e6  # a threshold that no patient passes; finite, so that its gradient is 0 and not NaN
_STEPS = 60  # Newton takes about eight; without a maximum each adds about 1 to a slope, for ever
_HALVINGS = 14


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
    ridge = np.append(np.zeros(len(names)), np.full(columns, 1.0 / prior if prior else 0.0))
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
    standard = (x - centre) / scale
    q, value, hessian, found = (np.asarray(v) for v in _maximum(
        law, jnp.asarray(begin), jnp.asarray(standard if together is None else standard[None]),
        {k: jnp.asarray(v) for k, v in data.items()}, jnp.asarray(ridge)))
    found = found & np.isfinite(value)
    with np.errstate(all="ignore"):
        covariance = np.array([np.linalg.inv(-h) if f else np.full_like(h, np.nan)
                               for h, f in zip(hessian, found, strict=True)])
    return Regression(names, q @ matrix.T, matrix @ covariance @ matrix.T, value + constant, found,
                      q[:, own:])


@functools.partial(jax.jit, static_argnames="law")
def _maximum(law: Callable[..., jax.Array], start: jax.Array, x: jax.Array, data: Data,
             ridge: jax.Array) -> tuple[jax.Array, ...]:
    """Newton's method with halved steps: q, log-likelihood, Hessian, found; of every draw (x of
    three axes), or of the average over draws (x of four, the first of length 1)."""
    halves = 0.5 ** jnp.arange(_HALVINGS)

    def one(columns: jax.Array) -> tuple[jax.Array, ...]:
        def likelihood(q: jax.Array) -> jax.Array:
            if columns.ndim == 2:
                return jnp.sum(law(q, columns, data))
            each = jax.vmap(lambda c: law(q, c, data))(columns)
            return jnp.sum(jax.nn.logsumexp(each, axis=0) - jnp.log(columns.shape[0]))

        def penalised(q: jax.Array) -> jax.Array:
            return likelihood(q) - 0.5 * jnp.sum((q * ridge) ** 2)

        slope, curvature = jax.grad(penalised), jax.hessian(penalised)

        def onwards(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            return (state[1] > 1e-9) & (state[2] < _STEPS)

        def step(state: tuple[jax.Array, jax.Array, jax.Array]) \
                -> tuple[jax.Array, jax.Array, jax.Array]:
            q, _, count = state
            before = penalised(q)
            way = -jnp.linalg.solve(curvature(q), slope(q))
            tried = q[None] + halves[:, None] * way[None]
            good = jax.vmap(penalised)(tried) >= before - 1e-11 * (1.0 + jnp.abs(before))
            new = jnp.where(good.any(), tried[jnp.argmax(good)], jnp.nan)
            return new, jnp.max(jnp.abs(new - q)), count + 1

        q, moved, _ = jax.lax.while_loop(onwards, step, (
            start, jnp.asarray(jnp.inf), jnp.asarray(0)))
        return q, likelihood(q), curvature(q), moved <= 1e-9

    return jax.vmap(one)(x)


def _ordered(q: jax.Array, x: jax.Array, data: Data) -> jax.Array:
    """(n,). Proportional odds: McCullagh 1980, J R Stat Soc B 42:109; with one threshold
    logistic."""
    cuts = q.shape[0] - x.shape[1]
    ends = jnp.concatenate([jnp.array([-_NEVER]), q[:cuts], jnp.array([_NEVER])])
    eta = x @ q[cuts:]
    low, high = ends[data["grade"]] - eta, ends[data["grade"] + 1] - eta
    # expit(high) - expit(low) without cancellation; NaN, and so refused, where ends are crossed
    return jax.nn.log_sigmoid(high) + jax.nn.log_sigmoid(-low) + jnp.log1p(-jnp.exp(low - high))


def _weibull(q: jax.Array, x: jax.Array, data: Data) -> jax.Array:
    """(n,)."""
    eta = q[0] + x @ q[2:]
    log_time = data["log_time"]
    log_hazard = jnp.log(q[1]) + (q[1] - 1.0) * log_time + eta
    return data["event"] * log_hazard - jnp.exp(q[1] * log_time + eta)


def _partial(q: jax.Array, x: jax.Array, data: Data) -> jax.Array:
    """(events,)."""
    eta = x @ q
    top = jnp.max(eta)
    weight = jnp.exp(eta - top)
    at_risk = data["risk"] @ weight - data["share"] * (data["tied"] @ weight)
    return eta[data["whose"]] - jnp.log(at_risk) - top


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
    """(events, n): who is at risk at each event and who has one at that time, and Efron's share."""
    assert event is not None
    whose = np.flatnonzero(event == 1)
    whose = whose[np.argsort(outcome[whose], kind="stable")]
    at = outcome[whose]
    first = np.searchsorted(at, at)
    share = (np.arange(len(at)) - first) / (np.searchsorted(at, at, side="right") - first)
    return (_partial, (), np.zeros(0), {
        "whose": whose, "share": share,
        "risk": (outcome[None] >= at[:, None]).astype(float),
        "tied": ((outcome[None] == at[:, None]) & (event[None] == 1)).astype(float)},
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
