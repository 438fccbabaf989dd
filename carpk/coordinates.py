"""What an ODE's states are integrated as: levels, their logarithms, or ratios to another's level.

What moves states in time works on these coordinates, one scalar for each state; what a model file
says of states (starts, rates, doses, thresholds, outputs) is of levels, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from carpk.integrators import LEAST, level
from carpk.words import State

Arrays = dict[str, Any]
Coordinates = tuple[Any, ...]


def from_levels(states: Sequence[State], y: Mapping[str, Any]) -> Coordinates:
    """The coordinates of levels.

    >>> states = (State("E", "cells", "effector"), State("M", "cells", "memory", ratio_to="E"))
    >>> [float(x) for x in from_levels(states, {"E": 8.0, "M": 2.0})]
    [8.0, 0.25]
    """
    own = {s.name: jnp.log(y[s.name]) if s.scale == "log" else y[s.name] * jnp.ones(())
           for s in states}
    others = _others(states, own)
    return tuple(own[s.name] * others[s.ratio_to][1] if s.ratio_to else own[s.name]
                 for s in states)


def to_levels(states: Sequence[State], u: Coordinates) -> Arrays:
    """The levels of coordinates.

    >>> states = (State("E", "cells", "effector"), State("M", "cells", "memory", ratio_to="E"))
    >>> to_levels(states, (8.0, 0.25))
    {'E': 8.0, 'M': 2.0}
    """
    others = _others(states, _by_name(states, u))
    return {s.name: x * others[s.ratio_to][0] if s.ratio_to else
            level(x)[0] if s.scale == "log" else x for s, x in zip(states, u, strict=True)}


def slopes(states: Sequence[State], u: Coordinates, rates: Callable[[Arrays], Arrays]) \
        -> Coordinates:
    """How fast coordinates change where levels y change by rates(y).

    >>> states = (State("E", "cells", "effector"), State("M", "cells", "memory", ratio_to="E"))
    >>> slopes(states, (8.0, 0.25), lambda y: {"E": 4.0, "M": 0.125 * y["E"] - 0.5 * y["M"]})
    (4.0, -0.125)
    """
    others = _others(states, _by_name(states, u))
    read = {s.name: (x * others[s.ratio_to][0], others[s.ratio_to][1]) if s.ratio_to else
            level(x) if s.scale == "log" else (x, 1.0) for s, x in zip(states, u, strict=True)}
    dy = rates({n: y for n, (y, _) in read.items()})
    own = {n: dy[n] * inverse for n, (_, inverse) in read.items()}
    growth = {n: own[n] * follows for n, (*_, follows) in others.items()}  # per level
    return tuple(own[s.name] - x * growth[s.ratio_to] if s.ratio_to else own[s.name]
                 for s, x in zip(states, u, strict=True))


def added(states: Sequence[State], u: Coordinates, amounts: Arrays) -> Coordinates:
    """The coordinates once amounts are added to the levels of some states; the others' levels stay.

    >>> states = (State("E", "cells", "effector"), State("M", "cells", "memory", ratio_to="E"))
    >>> added(states, (8.0, 0.25), {"E": 8.0})
    (16.0, 0.125)
    """
    before = _by_name(states, u)
    after = {**before, **{
        s.name: jnp.log(jnp.exp(x) + amounts[s.name]) if s.scale == "log" else x + amounts[s.name]
        for s, x in zip(states, u, strict=True) if s.name in amounts and not s.ratio_to}}
    was, now = _others(states, before), _others(states, after)
    return tuple((x * was[s.ratio_to][0] + amounts.get(s.name, 0.0)) * now[s.ratio_to][1]
                 if s.ratio_to and not amounts.keys().isdisjoint({s.name, s.ratio_to})
                 else after[s.name] for s, x in zip(states, u, strict=True))


def _by_name(states: Sequence[State], u: Coordinates) -> Arrays:
    return {s.name: x for s, x in zip(states, u, strict=True)}


def _others(states: Sequence[State], u: Arrays) -> dict[str, tuple[Any, Any, Any]]:
    """Of each state that ratios are to: what they divide by, one over it, and how fast its
    logarithm follows the state's coordinate."""
    wanted = {s.ratio_to for s in states}
    return {s.name: _divisor(u[s.name]) if s.scale == "log" else
            (u[s.name], 1.0 / u[s.name], 1.0 / u[s.name]) for s in states if s.name in wanted}


@jax.custom_jvp
def _divisor(x: Any) -> tuple[Any, Any, Any]:
    """exp(x) with a floor that is smooth: a ratio to what vanishes comes to rest, and what it is a
    ratio of goes on."""
    y = jnp.exp(x)
    inverse = 1.0 / (y + LEAST)
    return y + LEAST, inverse, y * inverse


@_divisor.defjvp
def _divisor_along(at: tuple[Any], along: tuple[Any]) -> tuple[Any, Any]:
    y, inverse, follows = _divisor(*at)
    change = follows * along[0]
    return (y, inverse, follows), (y * change, -inverse * change, LEAST * inverse * change)
