"""Gibbs sampling of the full posterior: every patient by itself, then the population."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.infer.hmc_util import IntegratorState, warmup_adapter

from carpk.chains import Kernel, MarkovChains
from carpk.checkpoints import Checkpoints, Progress
from carpk.estimators import Estimate, Estimator, of_chains
from carpk.geometry import patient_terms, population_terms
from carpk.likelihood import to_theta
from carpk.population_model import PopulationModel
from carpk.problems import RequestError
from carpk.solve import Arrays

_STEP, _PATIENTS_STEP = 0.3, 0.8  # sizes of the first steps, in posterior SDs
_PATIENTS_ACCEPT = 0.8  # share of the patients' moves that their step sizes aim at
_OTHERWISE = "nuts moves patients and population together: slower, but surer where the data say " \
             "little of a spread"
_DIVERGING = 1000.0  # error in energy of a move that went astray, as NumPyro has it


@dataclass(frozen=True)
class Gibbs(MarkovChains, Estimator):
    """Gibbs sampling; coordinates, start and most settings are those of
    `carpk.chains.MarkovChains`.

    An iteration moves every patient's z given the population, and the population given all z, by
    Hamiltonian trajectories of a few steps. Given the population patients are independent: each
    has its own step size, and its move is accepted or refused by itself, so that steps need not
    become shorter with the number of patients. Given z the population hardly depends on the data
    (see `carpk.geometry.informed`), which is why taking turns costs little.

    steps, patient_steps : of a trajectory of the population, and of the patients
    """

    # of 0.1, 0.2, 0.3, 0.4, 0.6 and 1 fewest gradients: see benchmarks/README.md
    trusted: ClassVar[float] = 0.4
    target_accept: float = 0.8
    steps: int = 4
    patient_steps: int = 2

    def __post_init__(self) -> None:
        if found := self.refused("steps", "patient_steps"):
            raise RequestError(found)

    def fit(self, model: PopulationModel, data: Arrays, ids: tuple[str, ...], seed: int,
            progress: Progress, kept: Checkpoints | None = None) -> Estimate:
        """See Estimator."""
        drawn = self.drawn(model, data, ids, seed, progress, kept)
        if drawn.reasons:
            drawn = drawn._replace(remarks=(*drawn.remarks, _OTHERWISE))
        return of_chains(drawn)

    def kernel(self, model: PopulationModel) -> Kernel:
        """Patients, then the population; the metric of its trajectories is its covariance."""
        adapt, adapted = warmup_adapter(self.warmup, adapt_step_size=False, dense_mass=True)

        def density(data: Arrays, frame: Arrays, u: jax.Array, z: jax.Array) \
                -> tuple[jax.Array, jax.Array]:
            theta = to_theta(model, u)
            return patient_terms(model, data, frame, theta, z, self.parametrisation), \
                population_terms(model, data, theta, u)

        def begin(u: jax.Array, z: jax.Array, spread: jax.Array, key: jax.Array, data: Arrays,
                  frame: Arrays) -> State:
            each, rest = density(data, frame, u, z)
            own, key = jax.random.split(key)
            return State(
                jnp.asarray(0), u, z, -(each.sum() + rest), jnp.zeros(()), jnp.asarray(False),
                adapt(IntegratorState(u), own, jnp.ones(()), jnp.diag(spread**2)),
                jnp.log(jnp.full(1 + z.shape[0], _PATIENTS_STEP).at[0].set(_STEP)), key)

        def move(state: State, data: Arrays, frame: Arrays) -> State:
            key, *keys = jax.random.split(state.key, 7)
            warming = state.i < self.warmup
            step = jnp.exp(state.steps)
            z, accepted = patients(state, step[1:], keys[:3], data, frame)
            u, energy, accept, diverging = population(state, z, step[0], keys[3:], data, frame)
            away = jnp.concatenate([accept[None] - self.target_accept,
                                    accepted - _PATIENTS_ACCEPT])
            gain = 0.5 / (1.0 + state.i / 50) ** 0.7
            adapt_state, steps = jax.lax.cond(
                warming, lambda: (adapted(state.i, accept, IntegratorState(u), state.adapt_state),
                                  state.steps + gain * away),
                lambda: (state.adapt_state, state.steps))
            return State(state.i + 1, u, z, energy, accept, diverging, adapt_state, steps, key)

        def patients(state: State, step: jax.Array, keys: Any, data: Arrays, frame: Arrays) \
                -> tuple[jax.Array, jax.Array]:
            """Each patient's z, and how likely its move was accepted (P,)."""
            def value(z: jax.Array) -> tuple[jax.Array, jax.Array]:
                def whole(z: jax.Array) -> tuple[jax.Array, jax.Array]:
                    each, _ = density(data, frame, state.u, z)
                    return each.sum(), each

                (_, each), slope = jax.value_and_grad(whole, has_aux=True)(z)
                return each, slope

            step = step * _jitter(keys[0], step.shape)
            r = jax.random.normal(keys[1], state.z.shape)
            z, p, before, after = _trajectory(value, state.z, r, step[:, None],
                                              self.patient_steps, lambda r: r)
            accept, _ = _accepted(after - before + 0.5 * (r**2 - p**2).sum(axis=1))
            return jnp.where((jax.random.uniform(keys[2], accept.shape) < accept)[:, None], z,
                             state.z), accept

        def population(state: State, z: jax.Array, step: jax.Array, keys: Any, data: Arrays,
                       frame: Arrays) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
            """u, its potential energy, how likely the move was accepted, whether it diverged."""
            def value(u: jax.Array) -> tuple[jax.Array, jax.Array]:
                def whole(u: jax.Array) -> jax.Array:
                    each, rest = density(data, frame, u, z)
                    return each.sum() + rest

                return jax.value_and_grad(whole)(u)

            covariance = state.adapt_state.inverse_mass_matrix
            r = state.adapt_state.mass_matrix_sqrt @ jax.random.normal(keys[1], state.u.shape)
            u, p, before, after = _trajectory(
                value, state.u, r, step * _jitter(keys[0], ()), self.steps,
                lambda r: covariance @ r)
            accept, diverging = _accepted(
                after - before + 0.5 * (r @ covariance @ r - p @ covariance @ p))
            taken = jax.random.uniform(keys[2]) < accept
            return jnp.where(taken, u, state.u), -jnp.where(taken, after, before), accept, \
                diverging

        def record(state: State) -> Arrays:
            return {"u": state.u, "z": state.z, "diverging": state.diverging,
                    "n_steps": jnp.asarray(self.steps + self.patient_steps + 2),
                    "acceptance_rate": state.accept, "lp": -state.potential_energy,
                    "step_size": jnp.exp(state.steps[0])}

        return Kernel(begin, move, record)


class State(NamedTuple):
    """Where a chain stands. `adapt_state` is NumPyro's, of the metric; `steps` (1 + P,) are logs
    of the step sizes, of the population first and then of each patient."""

    i: jax.Array
    u: jax.Array
    z: jax.Array
    potential_energy: jax.Array
    accept: jax.Array
    diverging: jax.Array
    adapt_state: Any
    steps: jax.Array
    key: jax.Array


def _jitter(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Factors of step sizes: trajectories of one length may resonate."""
    return jax.random.uniform(key, shape, minval=0.7, maxval=1.3)


def _trajectory(value: Callable[[jax.Array], tuple[jax.Array, jax.Array]], q: jax.Array,
                r: jax.Array, step: jax.Array, steps: int,
                drift: Callable[[jax.Array], jax.Array]) \
        -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Leapfrog steps of q with momentum r: where both end, and the log density before and after.

    `value` gives the log density and its slope; it stands in the program once.
    """
    def one(k: Any, carry: Any) -> Any:
        q, r, before, _ = carry
        q = q + jnp.where(k > 0, step, 0.0) * drift(r)
        density, slope = value(q)
        r = r + jnp.where((k == 0) | (k == steps), 0.5, 1.0) * step * slope
        return q, r, jnp.where(k == 0, density, before), density

    none = jnp.zeros(step.shape[:1])
    found: tuple[jax.Array, jax.Array, jax.Array, jax.Array] = jax.lax.fori_loop(
        0, steps + 1, one, (q, r, none, none))
    return found


def _accepted(gained: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Probability of acceptance by the log of a ratio, and whether it diverged; a density that is
    no number, of a failed solve, is refused."""
    gained = jnp.where(jnp.isnan(gained), -jnp.inf, gained)
    return jnp.minimum(1.0, jnp.exp(gained)), gained < -_DIVERGING


ESTIMATOR = Gibbs
