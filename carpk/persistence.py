"""Time to loss of detection, known only to lie between two samples of a patient."""

from __future__ import annotations

import numpy as np

_TOLERANCE, _ROUNDS = 1e-5, 2000


def still_above(after: np.ndarray, by: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The share of patients not yet lost at each time: Kaplan and Meier's estimate, for losses
    that samples only bracket (Turnbull 1976).

    after, by : (n,), each patient's loss lies in (after, by]; by is inf while nothing is lost
    times : (T,)
    returns : (T,); within a bracket, where nothing is known, losses are spread evenly. As in
        Kaplan and Meier's, patients who are followed no longer are lost like those who are

    >>> still_above(np.array([7.0, 28.0, 28.0]), np.array([28.0, 90.0, np.inf]),
    ...             np.array([7.0, 28.0, 59.0, 90.0])).round(3).tolist()
    [1.0, 0.667, 0.333, 0.0]
    """
    left, right, share = brackets(after, by)
    with np.errstate(invalid="ignore"):
        passed = np.clip((times[:, None] - left) / (right - left), 0.0, 1.0)
    return 1.0 - np.where(np.isfinite(right), passed, 0.0) @ share


def brackets(after: np.ndarray, by: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The smallest brackets (left, right] that the losses share, and the likeliest share of all
    losses in each, (B,) each."""
    ends = np.concatenate([after, by])
    opens = np.arange(len(ends)) < len(after)
    order = np.lexsort((opens, ends))  # at one time a bracket closes before the next one opens
    first = np.nonzero(opens[order][:-1] & ~opens[order][1:])[0]
    left, right = ends[order][first], ends[order][first + 1]
    within = ((after[:, None] <= left) & (right <= by[:, None])).astype(float)
    share = np.full(len(left), 1.0 / len(left))
    for _ in range(_ROUNDS):
        new = share * ((1.0 / (within @ share)) @ within) / len(after)
        moved, share = np.abs(new - share).max(), new
        if moved < _TOLERANCE:
            break
    return left, right, share
