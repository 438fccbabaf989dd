"""One step of an ODE: explicit Tsit5, and RODAS4 where the equations are stiff.

`slopes(t, u)` takes and returns a tuple with one scalar per state, so that vmap over patients
lays every operation out state first, patients last, and fuses it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

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

    >>> (y,) = rodas4(lambda t, u: (-1e6 * (u[0] - 2.0),), 0.0, 1.0, (1.0,))
    >>> abs(float(y) - 2.0) < 1e-5
    True
    """
    size = len(u)

    def rates(t: Any, u: jax.Array) -> jax.Array:
        return jnp.stack([jnp.asarray(x, float) for x in slopes(t, tuple(u))])

    at = jnp.stack([jnp.asarray(x, float) for x in u])
    in_time, jacobian = jax.jacfwd(rates, argnums=(0, 1))(jnp.asarray(t, float), at)
    low, up = _lu([[(i == j) * 1.0 - h * _GAMMA * jacobian[i, j] for j in range(size)]
                   for i in range(size)])
    k: list[list[Any]] = []
    stage: list[Any] = list(u)
    for s, (c, d, gammas) in enumerate(zip(_RC, _RD, _RG, strict=True)):
        if s == 5:
            stage = [x + y for x, y in zip(stage, k[4], strict=True)]
        elif s:
            stage = [x + sum(a * q[j] for a, q in zip(_RA[s], k, strict=True))
                     for j, x in enumerate(u)]
        f = slopes(t + c * h, tuple(stage))
        k.append(_substitute(low, up, [
            _GAMMA * (h * f[j] + h * h * d * in_time[j]
                      + sum(g * q[j] for g, q in zip(gammas, k, strict=True)))
            for j in range(size)]))
    return tuple(x + y for x, y in zip(stage, k[5], strict=True))


def _lu(a: list[list[Any]]) -> tuple[list[list[Any]], list[list[Any]]]:
    """Unrolled and without pivoting: I - h gamma J of a decaying system is dominated by its
    diagonal, and batched LAPACK calls stall chains that run side by side."""
    size = len(a)
    low: list[list[Any]] = [[0.0] * size for _ in range(size)]
    up = [list(row) for row in a]
    for k in range(size):
        for i in range(k + 1, size):
            low[i][k] = up[i][k] / up[k][k]
            up[i] = [up[i][j] - low[i][k] * up[k][j] if j > k else 0.0 for j in range(size)]
    return low, up


def _substitute(low: list[list[Any]], up: list[list[Any]], b: list[Any]) -> list[Any]:
    size = len(b)
    y: list[Any] = []
    for i in range(size):
        y.append(b[i] - sum(low[i][j] * y[j] for j in range(i)))
    x: list[Any] = [None] * size
    for i in reversed(range(size)):
        x[i] = (y[i] - sum(up[i][j] * x[j] for j in range(i + 1, size))) / up[i][i]
    return x


STEP = {"tsit5": tsit5, "rodas4": rodas4}
