"""Blocks of parameters whose etas are correlated: as they are asked for, and their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from carpk.problems import Problem, unknown


def correlations(block: tuple[str, ...]) -> list[str]:
    """The names of a block's correlations, row by row of the lower triangle.

    >>> correlations(("CL", "V", "Q"))
    ['corr_CL_V', 'corr_CL_Q', 'corr_V_Q']
    """
    return [f"corr_{a}_{b}" for k, b in enumerate(block) for a in block[:k]]


def asked_blocks(vary: tuple[str, ...], correlated: str | Iterable[Iterable[str]]) \
        -> tuple[tuple[tuple[str, ...], ...], list[Problem]]:
    """The blocks of a request in the order of the spread, and what is wrong with them."""
    if isinstance(correlated, str):
        if correlated == "full":
            return ((vary,) if len(vary) > 1 else ()), []
        return (), [Problem("error", "not understood", 'write "full", or lists of parameters',
                            column="correlated", found=correlated)]
    blocks, found = [tuple(block) for block in correlated], []
    listed = [n for block in blocks for n in block]
    found += [unknown("varying parameter", n, vary) for n in listed if n not in vary]
    found += [Problem("error", "stands in two blocks, or twice in one", "name it once",
                      column="correlated", found=n)
              for n in dict.fromkeys(listed) if listed.count(n) > 1]
    found += [Problem("error", "a correlation needs two parameters", column="correlated",
                      found=", ".join(block)) for block in blocks if len(block) < 2]
    return tuple(tuple(n for n in vary if n in block) for block in blocks), found


def half_fixed(blocks: Iterable[tuple[str, ...]], fixed: Mapping[str, float]) -> list[Problem]:
    """A block is estimated whole or held whole: half of one need not be a correlation matrix."""
    found = []
    for block in blocks:
        names = correlations(block)
        held = [n for n in names if n in fixed]
        if held and len(held) < len(names):
            found.append(Problem("error", "only some of a block's correlations are fixed",
                                 f"fix all: {', '.join(names)}", column=", ".join(held)))
        elif held:
            matrix = np.eye(len(block))
            matrix[np.tril_indices(len(block), -1)] = [fixed[n] for n in names]
            if np.linalg.eigvalsh(matrix).min() <= 0:  # reads the lower triangle
                found.append(Problem("error", "these correlations cannot hold together",
                                     "no such matrix is positive definite",
                                     column=", ".join(names)))
    return found
