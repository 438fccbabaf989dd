"""Every patient's climb to its mode, each accepting or refusing its own steps.

A step goes to the top of a quadratic: the gradient, and the scoring information with the prior's,
corrected so that it tells the change of the gradient over the last step (one update of BFGS), for
where a model bends information alone creeps. A model whose peak falls on the time of a sample has
a kink there: the gradient jumps. Then there are two quadratics, one from the point that is best so
far and one from a point across the kink, and the step goes to the top of the lower of the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from carpk.sensitivities import Look
from carpk.small_matrices import Rows, cholesky, solve_lower, solve_upper

TOLERANCE = 1e-12  # Newton decrement: a mode within a millionth of its SD
_ON_KINK = 1e-9  # the same where it is linear in how far off the kink phi is
# of a posterior SD, off a kink: three times the step of first differences, which stay on one side
ASIDE = 3e-4
_MOST = 60  # rounds
_STUCK = 1e10  # damping at which a patient has stopped moving
_LEAP = 10.0  # spreads of the population that a step is at most long
# times the curvature of the information, that a step may tell of: the jump of a slope tells of more
_BENT = (0.1, 4.0)


class Between(NamedTuple):
    """Where a population puts its patients on the link scale: mu (P, K), the lower factor of
    Omega, and Omega^-1 (K, K)."""

    mu: Any
    low: Rows
    precision: Any


class Point(NamedTuple):
    """phi (P, K), log p(y, phi | population) there (P,), and its gradient (P, K)."""

    phi: np.ndarray
    height: np.ndarray
    slope: np.ndarray


class Top(NamedTuple):
    """phi (P, K), and the look there; of a kink that of the side that phi is on.

    decrement : (P,), twice what is expected to be left to gain, NaN where nothing is solved
    share : (P,), of the side of phi in a sum of both sides' gradients that is 0; 1 off a kink
    across : (P, K), from that side to the other, a posterior SD long; 0 off a kink
    differs : (P, N, K + S), slopes of the predictions on that side less those on the other, 0 off
        a kink; `carpk.conditional` looks at both
    """

    phi: np.ndarray
    look: Look
    decrement: np.ndarray
    share: np.ndarray
    across: np.ndarray
    differs: np.ndarray

    @property
    def creeping(self) -> np.ndarray:
        """(P,), who has not come to the top and is on no kink; not who has no solution."""
        return (self.share == 1.0) & (self.decrement > TOLERANCE)


def climbed(at: Between, seen_from: Callable[[np.ndarray], tuple[Point, Look]],
            phi: np.ndarray) -> Top:
    """The tops that a climb from phi (P, K) leads to."""
    with np.errstate(all="ignore"):  # where a solve failed, or Omega has no inverse
        here, look = seen_from(phi)
    across = here
    facing, damping = np.zeros(len(phi), bool), np.full(len(phi), 1e-3)
    last, bent, halving = np.zeros_like(phi), np.zeros_like(phi), np.zeros(len(phi), bool)
    with np.errstate(all="ignore"):
        for _ in range(_MOST):
            whole = _corrected(look.information + at.precision, last, bent, ~facing)
            diagonal = np.einsum("pkk->pk", whole)
            damped = whole + np.eye(phi.shape[1]) * (damping[:, None] * diagonal)[:, None, :]
            (step, share, *_), (_, free, left, way) = _tops(
                here, across, facing, (damped, whole))
            arrived = left < np.where(free < 1.0, _ON_KINK, TOLERANCE)
            # on a kink the slope just across it counts: where the far point is not that near, a
            # probe is, and where that rises there was no kink
            away = across.phi - here.phi
            apart = _dot(away, _by(whole, away))
            far = facing & (free < 1.0) & (apart > (10 * ASIDE) ** 2)
            halving = halving & far
            probing = arrived & far & ~halving
            going = (~arrived | probing | halving) & (damping < _STUCK)
            if not going.any():
                break
            step = np.where(probing[:, None], ASIDE * way, np.where(
                halving[:, None], 0.5 * (step + away), _no_leap(at, step)))
            trial, seen = seen_from(here.phi + np.where(going[:, None], step, 0.0))
            better = going & rises(trial.height, here.height)
            own, other = (trial.slope - x.slope + _by(whole, trial.phi - x.phi)
                          for x in (here, across))
            crossed = facing & (_dot(other, other / diagonal) < _dot(own, own / diagonal))
            met = going & ~better & np.isfinite(trial.height)
            nearer = _dot(step, _by(whole, step)) < 0.5 * apart
            told = met & ((crossed & nearer) | ~facing | probing | halving)
            same = better & ~crossed
            last, bent = patientwise(same, (step, here.slope - trial.slope), (last, bent))
            across = patientwise(met, trial, patientwise(better & crossed, here, across))
            # the far side lies too far away to tell where the kink is: come nearer from there
            halving = facing & same
            facing = (facing | met) & ~(same & (share == 1.0))
            here, look = patientwise(better, (trial, seen), (here, look))
            # a refusal that tells of the other side is no reason for shorter steps
            damping = np.clip(damping * np.where(better, 0.1, np.where(told, 1.0, 10.0)),
                              1e-12, 10 * _STUCK)
    return Top(here.phi, look, left, free, np.where((free < 1.0)[:, None], way, 0.0),
               np.zeros_like(look.jacobian))


def _tops(here: Point, across: Point, facing: np.ndarray, curvatures: tuple[np.ndarray, ...]) \
        -> zip[tuple[np.ndarray, ...]]:
    """By each of some curvatures (P, K, K) the step (P, K) to the top of the lower of the two
    quadratics, the share of the one around `here` in it, twice the gain there, and the way across
    the kink, one SD long."""
    # all at once: the arithmetic of one costs as much
    count = len(curvatures)
    whole = np.concatenate(curvatures)
    one, two, facing = jax.tree.map(lambda x: np.concatenate([x] * count), (here, across, facing))
    away = two.phi - one.phi
    a, b = _solved(whole, one.slope), away + _solved(whole, two.slope)
    # the other's height at `here`: less than what is there would deny what is known
    above = two.height - one.height - _dot(two.slope + 0.5 * _by(whole, away), away)
    above = np.maximum(above, 0.0)
    steep = _by(whole, a - b)
    share = np.clip((above - _dot(steep, b)) / _dot(steep, a - b), 0.0, 1.0)
    share = np.where(facing & np.isfinite(share), share, 1.0)
    step = np.where((share < 1.0)[:, None], b + share[:, None] * (a - b), a)
    own, other = (_dot(_by(whole, x - 0.5 * step), step) for x in (a, b))
    gain = np.where(share < 1.0, np.minimum(own, above + other), own)
    way = (a - b) / np.sqrt(_dot(a - b, steep))[:, None]
    return zip(*(np.split(x, count) for x in (step, share, 2.0 * gain, way)), strict=True)


def _corrected(whole: np.ndarray, step: np.ndarray, bent: np.ndarray, usable: np.ndarray) \
        -> np.ndarray:
    """The curvature (P, K, K) with the change of the gradient over a step, where that is
    credible."""
    along = _by(whole, step)
    expected, seen = _dot(step, along), _dot(step, bent)
    usable = usable & (seen > _BENT[0] * expected) & (seen < _BENT[1] * expected)
    told = whole - along[:, :, None] * (along / expected[:, None])[:, None, :] \
        + bent[:, :, None] * (bent / seen[:, None])[:, None, :]
    return np.where(usable[:, None, None], told, whole)


def scoring_step(at: Between, phi: np.ndarray, look: Look, damping: np.ndarray) -> np.ndarray:
    """The damped step (P, K) of every patient by the scoring information alone."""
    whole = look.information + at.precision
    diagonal = np.einsum("pkk->pk", whole)
    damped = whole + np.eye(phi.shape[1]) * (damping[:, None] * diagonal)[:, None, :]
    return _no_leap(at, _solved(damped, uphill(at, phi, look.gradient[:, :phi.shape[1]])))


def _no_leap(at: Between, step: np.ndarray) -> np.ndarray:
    """No longer than ten spreads, and 0 where there is none."""
    z = solve_lower(at.low, list(step.T))
    size = np.sqrt(sum((x**2 for x in z), np.full(len(step), 1e-300)))
    step = step * np.minimum(1.0, _LEAP / size)[:, None]
    return np.where(np.isfinite(step), step, 0.0)


def uphill(at: Between, phi: Any, gradient: Any) -> Any:
    """(P, K): gradient of log p(y, phi | population), from that of the log-likelihood."""
    return gradient - (phi - at.mu) @ at.precision


def rises(trial: np.ndarray, height: np.ndarray) -> np.ndarray:
    """(P,): whose trial is kept; an equal height is no refusal, for at a mode differences drown
    in rounding."""
    return np.isfinite(trial) & (
        (trial >= height - 1e-12 * (1.0 + np.abs(height))) | ~np.isfinite(height))


def patientwise(chosen: np.ndarray, a: Any, b: Any) -> Any:
    """Patient by patient, of trees of (P, ...) arrays."""
    return jax.tree.map(lambda x, y: np.where(
        chosen.reshape(-1, *[1] * (x.ndim - 1)), x, y), a, b)


def by_entries(matrices: Any) -> Rows:
    """Matrices (P, K, K) as unrolled entries (P,)."""
    size = matrices.shape[-1]
    return [{j: matrices[:, i, j] for j in range(size)} for i in range(size)]


def _solved(matrices: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x (P, K) of matrices x = b."""
    low = cholesky(by_entries(matrices))
    x = solve_upper(low, solve_lower(low, list(b.T)))
    return np.stack(x, axis=1) if x else b


def _by(matrices: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.einsum("pkl,pl->pk", matrices, x)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("pk,pk->p", a, b)
