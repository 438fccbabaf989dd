"""One step of an ODE: explicit Tsit5, and RODAS4 where the equations are stiff.

`slopes(t, u)` takes and returns a tuple with one scalar per state, so that vmap over patients
lays every operation out state first, patients last, and fuses it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

State = tuple[Any, ...]
Slopes = Callable[[Any, State], State]

# Tsitouras 2011, Comput Math Appl 62:770, order 5: nodes, stage weights, solution weights
_C = (0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0)
_A = (
    (),
    (0.161,),
    (-0.008480655492356989, 0.335480655492357),
    (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
    (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
    (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401,
     -0.028269050394068383),
)
_B = (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081,
      2.324710524099774)

# RODAS, order 4, L-stable, stiffly accurate: Hairer & Wanner, Solving ODEs II, section IV.7
_GAMMA = 0.25
_RC = (0.0, 0.386, 0.21, 0.63, 1.0, 1.0)
_RD = (0.25, -0.1043, 0.1035, -0.03620000000000023, 0.0, 0.0)
_RA = (
    (),
    (1.544,),
    (0.9466785280815826, 0.2557011698983284),
    (3.314825187068521, 2.896124015972201, 0.9986419139977817),
    (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950),
    (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950, 1.0),
)
_RG = (
    (),
    (-5.6688,),
    (-2.430093356833875, -0.2063599157091915),
    (-0.1073529058151375, -9.594562251023355, -20.47028614809616),
    (7.496443313967647, -10.24680431464352, -33.99990352819905, 11.70890893206160),
    (8.083246795921522, -7.981132988064893, -31.52159432874371, 16.31930543123136,
     -6.058818238834054),
)

# a log state below it keeps its per-capita rates, which no longer change
LEAST = math.exp(-600.0)


@jax.custom_jvp
def level(x: Any) -> tuple[Any, Any]:
    """The level whose logarithm is x, any shape, and one over it.

    Without the maximum XLA makes of 1 / exp(x) a second exponential, the dearest of a step.

    >>> [float(v) for v in level(0.0)]
    [1.0, 1.0]
    """
    y = jnp.maximum(jnp.exp(x), LEAST)
    return y, 1.0 / y


@level.defjvp
def _level_along(at: tuple[Any], along: tuple[Any]) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    y, inverse = level(*at)
    change = jnp.where(y > LEAST, *along, 0.0)
    # not that of 1 / y, which holds y^-2: beyond all numbers from 1e-154 down
    return (y, inverse), (y * change, -inverse * change)


def tsit5(slopes: Slopes, t: Any, h: Any, u: State) -> State:
    """u at t + h, by an explicit method of order 5.

    >>> (y,) = tsit5(lambda t, u: (-u[0],), 0.0, 0.1, (1.0,))
    >>> abs(float(y) - 0.9048374180) < 1e-8
    True
    """
    k: list[State] = []
    for c, weights in zip(_C, _A, strict=True):
        stage = tuple(x + h * sum(w * s[j] for w, s in zip(weights, k, strict=True))
                      for j, x in enumerate(u)) if k else u
        k.append(slopes(t + c * h, stage))
    return tuple(x + h * sum(b * s[j] for b, s in zip(_B, k, strict=True))
                 for j, x in enumerate(u))


def rodas4(slopes: Slopes, t: Any, h: Any, u: State) -> State:
    """u at t + h, by a linearly implicit method of order 4: stable however fast a state relaxes.

    Its stages are a loop: unrolled, the program of 17 states took 12 times as long to compile.
    They are scalars too: with matrices of stages and states park_2025_sle took twice as long.

    >>> (y,) = rodas4(lambda t, u: (-1e6 * (u[0] - 2.0),), 0.0, 1.0, (1.0,))
    >>> abs(float(y) - 2.0) < 1e-5
    True
    """
    at = tuple(jnp.asarray(x, float) for x in u)
    now = jnp.asarray(t, float)

    def rates(t: Any, u: State) -> State:
        return tuple(jnp.asarray(x, float) for x in slopes(t, u))

    reads = _reads(rates, now, at)
    size, timed = len(u), any(-1 in row for row in reads)
    _, along = jax.linearize(rates, now, at)
    none, one = jnp.zeros(()), jnp.ones(())
    still = (none,) * size
    in_time = along(one, still) if timed else still
    rows: list[dict[int, Any]] = [{i: one} for i in range(size)]  # of I - h gamma J
    groups = _apart([row - {-1} for row in reads])
    basis = tuple(jnp.array([float(j in together) for together in groups]) for j in range(size))
    moved = jax.vmap(lambda x: along(none, x))(basis)
    for g, together in enumerate(groups):
        for i, row in enumerate(reads):
            for j in row & together:
                rows[i][j] = rows[i].get(j, 0.0) - h * _GAMMA * moved[i][g]
    solve = linear_solver(rows)

    def stage(carry: tuple[Any, State], weights: tuple[Any, ...]) -> tuple[Any, None]:
        k, _ = carry
        c, d, a, g = weights
        point = tuple(x + _weighed(a, k, i) for i, x in enumerate(at))
        f = rates(t + c * h, point)
        x = solve([_GAMMA * (h * f[i] + h * h * d * in_time[i] + _weighed(g, k, i))
                   for i in range(size)])
        return ((*k[1:], tuple(x)), point), None

    # zeros that vary as the states do: a loop is traced anew for each value that comes to vary
    nought = tuple(0.0 * x for x in at)
    (k, point), _ = jax.lax.scan(stage, ((nought,) * 5, at), (
        jnp.array(_RC), jnp.array(_RD), _filled(_RA), _filled(_RG)))
    return tuple(x + y for x, y in zip(point, k[-1], strict=True))


def _weighed(weights: jax.Array, k: tuple[State, ...], i: int) -> Any:
    return sum(w * s[i] for w, s in zip(weights, k, strict=True))


def _filled(rows: Any) -> jax.Array:
    """A triangle of weights of all earlier stages as one of the last five, the latest last."""
    return jnp.array([[*[0.0] * (5 - len(row)), *row] for row in rows])


def _reads(rates: Slopes, t: Any, u: State) -> list[set[int]]:
    """Of each rate, the states it depends on, and -1 for time: where the Jacobian is not zero."""
    program = jax.make_jaxpr(rates)(t, u).jaxpr
    reads: dict[Any, set[int]] = {v: {k - 1} for k, v in enumerate(program.invars)}

    def of(v: Any) -> set[int]:
        return set() if isinstance(v, Literal) else reads.get(v, set())

    for equation in program.eqns:
        every = set().union(*map(of, equation.invars))
        reads.update(dict.fromkeys(equation.outvars, every))
    return [of(v) for v in program.outvars]


def _apart(reads: list[set[int]]) -> list[set[int]]:
    """The states in groups of which no rate reads two: one directional derivative does each."""
    groups: list[set[int]] = []
    for state in range(len(reads)):
        near = set().union(*(row for row in reads if state in row))
        free = next((g for g in groups if not g & near), None)
        if free is None:
            groups.append({state})
        else:
            free.add(state)
    return groups


def linear_solver(rows: list[dict[int, Any]]) -> Callable[[list[Any]], list[Any]]:
    """b -> x of A x = b, A given by the entries of its rows that are not zero.

    Unrolled, because batched LAPACK calls stall chains that run side by side; the row and column
    with the least fill are eliminated first. No pivoting: I - h gamma J of a decaying system is
    dominated by its diagonal.
    """
    rows, left, order = [dict(row) for row in rows], set(range(len(rows))), list[int]()
    low: list[dict[int, Any]] = [{} for _ in rows]
    inverse: dict[int, Any] = {}
    while left:
        k = min(left, key=lambda k: (len(rows[k]) - 1) * (sum(k in rows[i] for i in left) - 1))
        left.remove(k)
        order.append(k)
        inverse[k] = 1.0 / rows[k].pop(k)
        for i in left:
            if k in rows[i]:
                low[i][k] = rows[i].pop(k) * inverse[k]
                for j, entry in rows[k].items():
                    rows[i][j] = rows[i].get(j, 0.0) - low[i][k] * entry

    def solve(b: list[Any]) -> list[Any]:
        x = list(b)
        for i in order:
            x[i] = x[i] - sum(entry * x[k] for k, entry in low[i].items())
        for i in reversed(order):
            x[i] = (x[i] - sum(entry * x[j] for j, entry in rows[i].items())) * inverse[i]
        return x

    return solve


STEP = {"tsit5": tsit5, "rodas4": rodas4}
