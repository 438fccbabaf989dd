"""diffrax's adaptive methods in the place of a step: a second opinion on the solver's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from carpk.problems import Problem, RequestError

State = tuple[Any, ...]

METHODS = {"diffrax_tsit5": "Tsit5", "diffrax_kvaerno5": "Kvaerno5"}
# of a state, or of its logarithm; a tenth of both moves no level by a millionth
_RTOL, _ATOL = 1e-8, 1e-10
_MOST = 1000  # steps from node to node, then the patient's solve has failed


def step_of(method: str) -> Callable[..., State]:
    """advance(slopes, t, h, u) -> u at t + h, as of `carpk.integrators`, in as many steps as
    diffrax takes; NaN where it gives up, and no step from there on.

    So nodes bound its solves: doses, resets, switches and thresholds are those of the mesh.
    Raises RequestError where diffrax is not installed.

    >>> advance = step_of("diffrax_tsit5")
    >>> (y,) = advance(lambda t, u: (-u[0],), 0.0, 2.0, (jnp.ones(()),))
    >>> abs(float(y) - 0.1353352832) < 1e-8
    True
    """
    try:
        import diffrax
    except ImportError as missing:
        raise RequestError(Problem("error", "this solver needs diffrax, which is not installed",
                                   'pip install "carpk[diffrax]", or leave the choice to carpk',
                                   column="solver", found=method)) from missing
    solver = getattr(diffrax, METHODS[method])()
    control = diffrax.PIDController(rtol=_RTOL, atol=_ATOL)

    def advance(slopes: Callable[[Any, State], State], t: Any, h: Any, u: State) -> State:
        def rates(t: Any, u: State) -> State:
            return tuple(jnp.asarray(x, float) for x in slopes(t, u))

        begin = tuple(jnp.asarray(x, float) for x in u)
        alive = jnp.stack([jnp.isfinite(x) for x in begin]).all()
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, u, _: rates(t, u)), solver, t,
            t + jnp.where(alive, h, 0.0), None, begin, stepsize_controller=control,
            max_steps=_MOST, adjoint=diffrax.ForwardMode(), throw=False)
        done = found.result == diffrax.RESULTS.successful
        # between nodes at one time it takes no step, but their distance has a derivative
        return tuple(jnp.where(done & alive, jnp.where(h == 0.0, x + h * dx, y[-1]), jnp.nan)
                     for x, dx, y in zip(begin, rates(t, begin), found.ys, strict=True))

    return advance
