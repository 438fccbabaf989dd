"""Small matrices held as entries: unrolled, so that they fuse over patients and call no LAPACK,
whose batched calls stall chains that run side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

Rows = list[dict[int, Any]]
"""A matrix by its rows, each with the entries that are not zero by construction: scalars, or
arrays over the patients."""


def cholesky(a: Rows) -> Rows:
    """Lower factor of a symmetric matrix of which at least the lower triangle is given.

    >>> cholesky([{0: 4.0}, {0: 2.0, 1: 5.0}])[1][0].item()
    1.0
    """
    low: Rows = []
    for i, row in enumerate(a):
        mine: dict[int, Any] = {}
        for j in sorted(k for k in row if k < i):
            mine[j] = (row[j] - _product(mine, low[j])) / low[j][j]
        mine[i] = _root(row[i] - _product(mine, mine))
        low.append(mine)
    return low


def solve_lower(low: Rows, b: Sequence[Any]) -> list[Any]:
    """x of low x = b."""
    x: list[Any] = []
    for i, row in enumerate(low):
        x.append((b[i] - sum(entry * x[k] for k, entry in row.items() if k < i)) / row[i])
    return x


def solve_upper(low: Rows, b: Sequence[Any]) -> list[Any]:
    """x of low' x = b."""
    x: list[Any] = list(b)
    for i in reversed(range(len(low))):
        below = [(low[k][i], x[k]) for k in range(i + 1, len(low)) if i in low[k]]
        x[i] = (b[i] - sum(entry * known for entry, known in below)) / low[i][i]
    return x


def multiplied(low: Rows, x: Sequence[Any]) -> list[Any]:
    """low x."""
    return [sum(entry * x[k] for k, entry in row.items()) for row in low]


def inverse_of(low: Rows) -> Rows:
    """(low low')^-1, from the lower factor.

    >>> float(inverse_of([{0: 2.0}, {1: 4.0}])[1][1])
    0.0625
    """
    size = len(low)
    inverse: Rows = [{} for _ in range(size)]  # of low itself
    for j in range(size):
        inverse[j][j] = 1.0 / low[j][j]
        for i in range(j + 1, size):
            terms = [entry * inverse[k][j] for k, entry in low[i].items()
                     if k < i and j in inverse[k]]
            if terms:
                inverse[i][j] = -sum(terms) / low[i][i]
    return [{j: sum(row[i] * row[j] for row in inverse if i in row and j in row)
             for j in range(size) if any(i in row and j in row for row in inverse)}
            for i in range(size)]


def correlation_factor(partial: Rows) -> Rows:
    """Lower factor of the correlation matrix with these partial correlations.

    partial : row i holds, for each j < i, the correlation of i and j given all before j
    """
    low: Rows = []
    for i in range(len(partial)):
        mine: dict[int, Any] = {}
        left: Any = 1.0
        for j in range(i):
            mine[j] = partial[i][j] * jnp.sqrt(left)
            left = left * (1.0 - partial[i][j] ** 2)
        mine[i] = jnp.sqrt(left)
        low.append(mine)
    return low


def partial_correlations(low: Rows) -> Rows:
    """The partial correlations behind the lower factor of a correlation matrix."""
    partial: Rows = []
    for i, row in enumerate(low):
        left: Any = 1.0
        mine: dict[int, Any] = {}
        for j in range(i):
            mine[j] = row[j] / jnp.sqrt(left)
            left = left - row[j] ** 2
        partial.append(mine)
    return partial


def _root(x: Any) -> Any:
    """Of numpy by numpy, so that arithmetic outside a program does not compile one."""
    return np.sqrt(x) if isinstance(x, np.ndarray | np.generic) else jnp.sqrt(x)


def _product(a: dict[int, Any], b: dict[int, Any]) -> Any:
    """Sum of products of two rows, over the columns both have below the diagonal."""
    return sum(entry * b[k] for k, entry in a.items() if k in b)
