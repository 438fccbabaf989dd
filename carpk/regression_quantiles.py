"""Quantiles as smooth functions of time: quantile regression on splines, many data sets at once.

A quantile regression minimises the sum of u (tau - [u < 0]) over its residuals u, a linear
program; a primal-dual interior point method solves it (Portnoy S, Koenker R. Stat Sci
1997;12:279-300). It was proposed for visual predictive checks without bins by Jamsen KM et al.
CPT Pharmacometrics Syst Pharmacol 2018;7:660-669.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import BSpline

_CHUNK = 25  # data sets solved together: what they hold fits into a processor's cache
_MOST = 60
_GAP = 1e-7  # of a row's mean absolute deviation, between the program and its dual
_SHORT = 0.9995  # of the way to the nearest bound
_KNOTS, _ROWS = 6, 20  # the most inner knots, and rows for each


def spline_basis(x: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(len(at), q): quadratic B-splines with inner knots at quantiles of x, within its ends.

    x : (n,), where the data lie. A knot wants twenty of them, and there are no more splines than
    distinct values: of three visits they are one parabola, which meets any three quantiles.

    >>> spline_basis(np.repeat([0.0, 1.0, 2.0], 4), np.array([0.0, 1.0])).tolist()
    [[1.0, 0.0, 0.0], [0.25, 0.5, 0.25]]
    """
    distinct = np.unique(x)
    if len(distinct) == 1:
        return np.ones((len(at), 1))
    degree = min(2, len(distinct) - 1)
    count = max(0, min(_KNOTS, len(distinct) - degree - 1, len(x) // _ROWS))
    inner = np.unique(np.quantile(x, np.arange(1, count + 1) / (count + 1)))
    inner = inner[(inner > distinct[0]) & (inner < distinct[-1])]
    knots = np.concatenate([np.repeat(distinct[0], degree + 1), inner,
                            np.repeat(distinct[-1], degree + 1)])
    inside = np.clip(at, distinct[0], distinct[-1])
    return np.asarray(BSpline.design_matrix(inside, knots, degree).toarray())


def regression_quantile(y: np.ndarray, basis: np.ndarray, tau: float) -> np.ndarray:
    """(R, q): coefficients of the tau quantile of each data set.

    y : (R, n), finite; basis : (n, q), whose columns add up to 1

    >>> y = np.array([[4.0, 1.0, 3.0, 2.0, 9.0]])
    >>> regression_quantile(y, np.ones((5, 1)), 0.5).round(6).tolist()
    [[3.0]]
    """
    middle = float(np.median(y))
    scale = float(np.abs(y - middle).mean()) or 1.0
    z = (y - middle) / scale
    return middle + scale * np.concatenate([
        _solved(z[k:k + _CHUNK], basis, tau) for k in range(0, len(y), _CHUNK)])


def _solved(y: np.ndarray, basis: np.ndarray, tau: float) -> np.ndarray:
    """The dual variables a lie between 0 and 1, s = 1 - a; the residuals are w - z, and in the
    end a z = s w = 0. Each step is Mehrotra's: a predictor, then a corrector. Sums are einsum's:
    the threads of a matrix product wait for each other on a busy machine, thirty times as long.
    """
    size = basis.shape[1]
    i, j = np.triu_indices(size)
    turned = np.ascontiguousarray(basis.T)
    products = turned[i] * turned[j]

    def factored(weights: np.ndarray) -> np.ndarray:
        normal = np.empty((len(y), size, size))
        normal[:, i, j] = normal[:, j, i] = np.einsum("rn,kn->rk", weights, products)
        # a spline that no row lies under stays where it is
        tiny = 1e-11 * np.trace(normal, axis1=1, axis2=2)[:, None, None] + 1e-300
        return np.asarray(np.linalg.inv(normal + tiny * np.eye(size)))

    def along(inverse: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.asarray(np.einsum("rij,rj->ri", inverse,
                                    np.einsum("rn,kn->rk", right, turned)))

    def fitted(b: np.ndarray) -> np.ndarray:
        return np.asarray(np.einsum("rk,kn->rn", b, turned))

    b = along(factored(np.ones_like(y)), y)
    r = y - fitted(b)
    a, s = np.full_like(y, 1.0 - tau), np.full_like(y, tau)
    edge = 0.1 * np.abs(r).mean(axis=1, keepdims=True) + 1e-8
    w, z = np.maximum(r, 0.0) + edge, np.maximum(-r, 0.0) + edge
    for _ in range(_MOST):
        az, sw = a * z, s * w
        gap = (az + sw).mean(axis=1, keepdims=True)
        if gap.max() < _GAP:
            break
        q = 1.0 / (z / a + w / s)
        inverse = factored(q)

        def step(g: np.ndarray, q: np.ndarray = q, inverse: np.ndarray = inverse) \
                -> tuple[np.ndarray, np.ndarray]:
            db = -along(inverse, q * g)
            return db, -q * (fitted(db) + g)

        _, da = step(z - w)
        dz, dw = -z - z / a * da, -w + w / s * da
        p, d = _length(a, s, da), _length(z, w, dz, dw)
        ahead = ((a + p * da) * (z + d * dz) + (s - p * da) * (w + d * dw)).mean(
            axis=1, keepdims=True)
        mu = 0.5 * gap * (ahead / gap) ** 3
        one, two = (mu - da * dz) / a, (mu + da * dw) / s
        db, da = step((two - w) - (one - z))
        dz, dw = one - z - z / a * da, two - w + w / s * da
        p, d = _length(a, s, da), _length(z, w, dz, dw)
        a, s, b = a + p * da, s - p * da, b + d * db
        z, w = z + d * dz, w + d * dw
    return b


def _length(first: np.ndarray, second: np.ndarray, step: np.ndarray,
            other: np.ndarray | None = None) -> np.ndarray:
    """(R, 1): how far both may go before one is 0; the second goes back unless told its step."""
    fastest = np.maximum(-step / first, (step if other is None else -other) / second)
    return np.minimum(1.0, _SHORT / np.maximum(fastest.max(axis=1, keepdims=True), 1e-300))
