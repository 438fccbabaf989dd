"""Where the states pass a threshold at which the rates jump, a step ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from carpk.structure import Function, StructuralModel, named

Arrays = dict[str, Any]

_NEWTON = 3  # steps from where a parabola has a passing: each doubles its digits
_MOST = 8 * (_NEWTON + 2)  # eight passings in one step, then the solve has failed


def rates_of(structure: StructuralModel) -> Function:
    """rates(t, y, p) with every threshold on the side where it is at (t, y)."""
    assert structure.rates is not None
    rates, thresholds = structure.rates, structure.thresholds

    def now(t: Any, y: Any, p: Any) -> Mapping[str, Any]:
        above = _above({n: f(t, y, p) for n, f in thresholds.items()})
        return rates(t, y, named({**vars(p), **above}))

    return now if thresholds else rates


def _above(heights: Arrays) -> Arrays:
    return {n: jnp.where(v > 0.0, 1.0, 0.0) for n, v in heights.items()}


def past_thresholds(moved: Callable[..., Any], heights: Callable[..., Arrays],
                    rising: Callable[..., tuple[Arrays, Arrays]], u: Any, h: Any) -> Any:
    """u after h, by steps that end where a threshold is passed.

    moved(u, after, length, above) : u a step later; heights(u, after) : how far u is above each
    threshold; rising(u, after, above) : the same, and its derivative in time.
    Each side is held while a step lasts, so that no stage sees both. A leg is a trial of all that
    is left and, where that passes a threshold, Newton's steps to the passing and the step to it.
    One loop holds the step, so that it is compiled once; most steps are one trial.
    """
    def unfinished(carry: Any) -> Any:
        *_, k, count = carry
        return (k >= 0) & (count < _MOST)

    def again(carry: Any) -> Any:
        base, gone, length, above, first, k, count = carry
        there = moved(base, gone, length, above)
        height, slope = rising(there, gone + length, above)
        trial = k == 0
        met, when = _first_passed(rising(base, gone, above), (height, slope), length, above)
        first = {n: jnp.where(trial, met[n], f) for n, f in first.items()}
        passes = jnp.stack(list(first.values())).any()
        # the derivative of Newton's last step is that of the moment of the passing
        nearer = length - sum(jnp.where(f, height[n] / _nonzero(slope[n]), 0.0)
                              for n, f in first.items())
        arrived = ~passes | (k == _NEWTON + 1)
        seeking = jnp.where(trial, jnp.minimum(when, length), jnp.clip(nearer, 0.0, h - gone))
        return (tuple(jnp.where(arrived, b, a) for a, b in zip(base, there, strict=True)),
                jnp.where(arrived, gone + length, gone),
                jnp.where(arrived, h - gone - length, seeking),
                {n: jnp.where(arrived & first[n], 1.0 - v, v) for n, v in above.items()},
                first, jnp.where(passes, jnp.where(arrived, 0, k + 1), -1), count + 1)

    above = _above(heights(u, 0.0))
    none = {n: jnp.zeros((), bool) for n in above}
    begin = (u, jnp.zeros(()), h * jnp.ones(()), above, none, jnp.asarray(0), jnp.asarray(0))
    end, *_, k, _ = jax.lax.while_loop(unfinished, again, begin)
    return tuple(jnp.where(k < 0, x, jnp.nan) for x in end)


def _first_passed(start: tuple[Arrays, Arrays], end: tuple[Arrays, Arrays], length: Any,
                  above: Arrays) -> tuple[Arrays, Any]:
    """Which threshold is the first to be passed within a step, if any is, and when: inf if none.

    start, end : how far above each threshold the step begins and ends, and the derivatives
    """
    when = {}
    for n, side in above.items():
        sign = 2.0 * side - 1.0
        (g0, s0), (g1, s1) = ((sign * height[n], sign * slope[n]) for height, slope in (start, end))
        # the parabola from g0 with slopes s0 and s1: where it falls below 0
        bend, falls = (s1 - s0) / (2.0 * _nonzero(length)), s0 < 0.0
        square = s0**2 - 4.0 * bend * g0
        root = jnp.sqrt(jnp.where(square > 0.0, square, 1.0))
        at = jnp.where(falls, 2.0 * g0 / _nonzero(root - s0), -(s0 + root) / _nonzero(2.0 * bend))
        met = (square > 0.0) & (at > 0.0) & (at < length)
        straight = length * jnp.clip(g0 / _nonzero(g0 - g1), 0.0, 1.0)
        dips = falls & (s1 > 0.0) & met  # to the other side and back
        when[n] = jnp.where((g1 < 0.0) | dips, jnp.where(met, at, straight), jnp.inf)
    earliest = jnp.stack(list(when.values())).min()
    return {n: jnp.isfinite(v) & (v == earliest) for n, v in when.items()}, earliest


def _nonzero(x: Any) -> Any:
    return jnp.where(x == 0.0, 1.0, x)
