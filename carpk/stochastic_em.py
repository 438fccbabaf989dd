"""SAEM: every patient's phi by Markov chains, the population by stochastic approximation, in one
compiled loop."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve

from carpk.conditional import differences
from carpk.correlated import correlations
from carpk.empirical_bayes import Start, mean_variance
from carpk.likelihood import (
    from_theta,
    patient_log_density,
    population_location,
    predicted_rows,
    row_log_likelihood,
    to_theta,
)
from carpk.population_model import PopulationModel
from carpk.sensitivities import (
    dense,
    information_of,
    located_places,
    omegas,
    residual_places,
    row_terms,
    shared_places,
)
from carpk.small_matrices import inverse_of, multiplied
from carpk.solve import Arrays

BLOCK = 50  # iterations of one call, and between two looks at where the estimates stand
_LEAST = 300, 500  # iterations of both phases: where spreads are weakly informed EM creeps
_WALKS = 3  # random-walk proposals an iteration, beside one from the population
_ACCEPTED = 0.3  # share of them that the step size aims at
_MEMORY = 0.3  # gain once the annealing is over
_COOLING = 0.95  # an annealed SD falls no faster an iteration


class State(NamedTuple):
    """u (Q,); phi (C, P, K), C chains; predicted (C, P, N); size (P,), log of the walks' step;
    first (P, K), second (P, K, K), approximated moments of phi."""

    u: jax.Array
    phi: jax.Array
    predicted: jax.Array
    size: jax.Array
    first: jax.Array
    second: jax.Array


class Walked(NamedTuple):
    """What SAEM found: u (Q,), each patient's conditional mean (P, K) and covariance (P, K, K),
    whether the estimates had come to rest, and iterations of both phases."""

    u: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    rested: bool
    burn_in: int
    smoothing: int


class Programs:
    """The compiled programs of a model, for all data of one shape."""

    def __init__(self, model: PopulationModel) -> None:
        self.block = jax.jit(lambda data, *args: _block(model, data, *args))
        self.located = jax.jit(lambda data, u: population_location(
            model, data, to_theta(model, u))[0])
        self.predicted = jax.jit(lambda data, u, phi: predicted_rows(
            model, data, to_theta(model, u), phi))


def moved_start(model: PopulationModel, data: Arrays, start: Start, u: np.ndarray) -> Start:
    """The start at another population, to which the patients' phi are carried along."""
    before, after = (population_location(model, data, to_theta(model, jnp.asarray(v)))[0]
                     for v in (start.u, u))
    return start._replace(u=jnp.asarray(u), phi=start.phi + after - before)


def walked(model: PopulationModel, data: Arrays, start: Start, chains: int, burn_in: int,
           smoothing: int, seed: int, told: Any, programs: Programs | None = None) -> Walked:
    """SAEM from a start; `programs` are those of an earlier one.

    At first the gain is 1 and spreads are annealed, so that none shuts down early; then a constant
    gain lets the estimates wander to the maximum and around it, less so that a weakly informed
    spread does not walk to 0 by chance; then gains 1 / k average the wandering out. Where a number
    of iterations is 0, the wandering ends once blocks show no trend, and the averaging once a
    block moves nothing.
    """
    programs = programs or Programs(model)
    run, located = functools.partial(programs.block, data), located_places(model)
    state = _first(programs, data, start, chains)
    axes = _axes(model, data, start)
    chance = np.random.default_rng(seed)
    count, stationary = 0, bool(burn_in)
    centres: list[np.ndarray] = []
    most = burn_in or 1000
    while count < most:
        hot = count < 3 * BLOCK
        slopes = differences(lambda u: np.asarray(programs.located(data, u)), state.u, located)
        state, passed = run(state, axes, slopes, _chances(chance, state),
                            np.full(BLOCK, 1.0 if hot else _MEMORY),
                            np.full(BLOCK, _COOLING if hot else 0.0), np.ones(BLOCK))
        count += BLOCK
        us = np.asarray(passed)
        told(count)
        sd = us.std(axis=0) + 1e-9
        centres.append(us.mean(axis=0))
        if not burn_in and count >= _LEAST[0] and _stationary(np.stack(centres[-6:])):
            stationary = True
            break
    began, smoothed = count, 0
    most, wandering, last = smoothing or 1000, sd, np.asarray(state.u)
    while smoothed < most:
        gains = 1.0 / (1.0 + smoothed + np.arange(BLOCK))
        slopes = differences(lambda u: np.asarray(programs.located(data, u)), state.u, located)
        state, _ = run(state, axes, slopes, _chances(chance, state), gains, np.zeros(BLOCK),
                       np.zeros(BLOCK))
        count, smoothed = count + BLOCK, smoothed + BLOCK
        told(count)
        now = np.asarray(state.u)
        still = bool(np.all(np.abs(now - last) < 0.1 * wandering))
        last = now
        if not smoothing and smoothed >= _LEAST[1] and still:
            break
    rested = stationary and (bool(smoothing) or still)
    mean = np.asarray(state.first)
    covariance = np.asarray(state.second) - mean[:, :, None] * mean[:, None, :]
    return Walked(np.asarray(state.u), mean, covariance, rested, began, smoothed)


def _stationary(centres: np.ndarray) -> bool:
    """Whether block means (6, Q) wander and no longer go anywhere: the halves' difference, in SDs
    of the means, has a mean square of 2/3 where they are independent and of 2.6 on a line."""
    away = centres[3:].mean(axis=0) - centres[:3].mean(axis=0)
    return bool(np.mean((away / (centres.std(axis=0, ddof=1) + 1e-9))**2) < 1.3)


def _first(programs: Programs, data: Arrays, start: Start, chains: int) -> State:
    phi = jnp.broadcast_to(start.phi, (chains, *start.phi.shape))
    predicted = programs.predicted(data, start.u, start.phi)
    middle = np.asarray(start.phi)
    return State(start.u, phi, jnp.broadcast_to(predicted, (chains, *predicted.shape)),
                 jnp.zeros(len(middle)), start.phi,
                 jnp.asarray(middle[:, :, None] * middle[:, None, :]))


def _axes(model: PopulationModel, data: Arrays, start: Start) -> np.ndarray:
    """(P, K, K), of the walks: those of the posterior's Gauss-Newton approximation."""
    k = start.phi.shape[1]
    omega = np.asarray(omegas(model, to_theta(model, start.u)))
    whole = np.asarray(start.information).sum(axis=1) + np.diag(omega**-2)[None]
    return np.linalg.cholesky(np.linalg.inv(whole)) * 2.4 / max(k, 1)**0.5


def _chances(chance: np.random.Generator, state: State) -> tuple[np.ndarray, np.ndarray]:
    """What a block draws: normals (BLOCK, proposals, C, P, K), and logs of uniforms without the
    last axis. A generator outside the program keeps that small."""
    shape = (BLOCK, 1 + _WALKS, *state.phi.shape)
    return chance.normal(size=shape), -chance.exponential(size=shape[:-1])


def _block(model: PopulationModel, data: Arrays, state: State, axes: jax.Array,
           slopes: jax.Array, chances: tuple[jax.Array, jax.Array], gains: jax.Array,
           floors: jax.Array, adapting: jax.Array) -> tuple[State, jax.Array]:
    """BLOCK iterations, and u after each.

    slopes : (P, K, G), of where phi lies in the located places: exact where these enter linearly
    """
    def one(state: State, given: Any) -> tuple[State, jax.Array]:
        chances, gain, floor, adapt = given
        state = _moved(model, data, state, axes, chances, adapt)
        state = _learnt(model, data, state, slopes, gain, floor)
        return state, state.u

    return jax.lax.scan(one, state, (chances, gains, floors, adapting))


def _moved(model: PopulationModel, data: Arrays, state: State, axes: jax.Array,
           chances: tuple[jax.Array, jax.Array], adapt: jax.Array) -> State:
    """Every chain of every patient by one proposal from the population and some walks."""
    theta = to_theta(model, state.u)
    mu, low = population_location(model, data, theta)
    k = state.phi.shape[2]

    def seen(phi: jax.Array, predicted: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows = row_log_likelihood(model, data, theta, predicted).sum(axis=1)
        return rows, patient_log_density(model, data, theta, phi)

    def proposal(carry: Any, given: Any) -> Any:
        """The first stays where it is, to see how likely that is by now, the second is from the
        population."""
        phi, predicted, likelihood, density, size = carry
        i, z, luck = given
        fresh = mu[None] + jnp.stack(multiplied(low, [z[..., j] for j in range(k)]), axis=-1)
        near = phi + jnp.exp(size)[None, :, None] * jnp.einsum("pkl,cpl->cpk", axes, z)
        trial = jnp.where(i == 0, phi, jnp.where(i == 1, fresh, near))
        f = jax.lax.cond(i == 0, lambda: predicted, lambda: jax.vmap(
            lambda phi: predicted_rows(model, data, theta, phi))(trial))
        rows, prior = jax.vmap(seen)(trial, f)
        gained = rows - likelihood + jnp.where(i == 1, 0.0, prior - density)
        taken = (luck < gained) | (i == 0)  # NaN: refused
        size = size + jnp.where(i < 2, 0.0, adapt * 0.3 * (taken.mean(axis=0) - _ACCEPTED))
        return (jnp.where(taken[..., None], trial, phi), jnp.where(taken[..., None], f, predicted),
                jnp.where(taken, rows, likelihood), jnp.where(taken, prior, density), size), None

    z, luck = (jnp.concatenate([x[:1], x]) for x in chances)
    none = jnp.zeros(state.phi.shape[:2])
    (phi, predicted, _, _, size), _ = jax.lax.scan(
        proposal, (state.phi, state.predicted, none, none, state.size),
        (jnp.arange(2 + _WALKS), z, luck))
    return state._replace(phi=phi, predicted=predicted, size=size)


def _learnt(model: PopulationModel, data: Arrays, state: State, slopes: jax.Array,
            gain: jax.Array, floor: jax.Array) -> State:
    """The population by the chains: locations and spreads in closed form from the moments of
    phi, what the predictions and residuals depend on directly by a scoring step."""
    first = state.first + gain * (state.phi.mean(axis=0) - state.first)
    outer = jnp.einsum("cpk,cpl->pkl", state.phi, state.phi) / state.phi.shape[0]
    second = state.second + gain * (outer - state.second)
    u = _located(model, data, state.u, first, slopes)
    u = _spread(model, data, u, first, second, floor)
    u = _scored(model, data, u, state, gain)
    return state._replace(u=u, first=first, second=second)


def _located(model: PopulationModel, data: Arrays, u: jax.Array, first: jax.Array,
             slopes: jax.Array) -> jax.Array:
    """Typical values and coefficients: generalised least squares of the mean phi, exact where
    they enter linearly."""
    places = located_places(model)
    if not len(places):
        return u
    mu, low = population_location(model, data, to_theta(model, u))
    weighed = jnp.einsum("pkg,kl->plg", slopes, dense(inverse_of(low)))
    move = solve(jnp.einsum("plg,plh->gh", weighed, slopes) + 1e-12 * jnp.eye(len(places)),
                 jnp.einsum("plg,pl->g", weighed, first - mu), assume_a="pos")
    return u.at[places].add(jnp.where(jnp.isfinite(move), move, 0.0))


def _spread(model: PopulationModel, data: Arrays, u: jax.Array, first: jax.Array,
            second: jax.Array, floor: jax.Array) -> jax.Array:
    """Omega, and gammas, from the moments of phi around where the population now lies."""
    theta = to_theta(model, u)
    mu, _ = population_location(model, data, theta)
    cross = jnp.einsum("pk,pl->kl", first, mu)
    whole = (second.sum(axis=0) - cross - cross.T + jnp.einsum("pk,pl->kl", mu, mu)) \
        / mu.shape[0]
    new = dict(theta)
    for name in dict.fromkeys(model.sds):
        if name not in model.fixed:
            new[name] = jnp.maximum(jnp.sqrt(jnp.maximum(
                mean_variance(model, name, whole), 1e-12)), floor * theta[name])
    for block in model.blocks:
        places = [model.spread.index(n) for n in block]
        pairs = [(i, j) for k, i in enumerate(places) for j in places[:k]]
        for name, (i, j) in zip(correlations(block), pairs, strict=True):
            if name not in model.fixed:
                # an annealed SD is larger than its moment: the covariance keeps its size
                sds = new[f"omega_{model.spread[i]}"] * new[f"omega_{model.spread[j]}"]
                new[name] = jnp.clip(whole[i, j] / sds, -0.999, 0.999)
    return from_theta(model, new)


def _scored(model: PopulationModel, data: Arrays, u: jax.Array, state: State, gain: jax.Array) \
        -> jax.Array:
    """A scoring step for residual errors, and one for the shared places, on the chains."""
    residual = residual_places(model)
    if len(residual):
        def rows(v: jax.Array) -> jax.Array:
            theta = to_theta(model, u.at[residual].set(v))
            return jax.vmap(lambda f: row_log_likelihood(model, data, theta, f))(state.predicted)

        scores = jax.jacfwd(rows)(u[residual]).reshape(-1, len(residual))
        u = u.at[residual].add(gain * _step(scores.sum(axis=0), scores.T @ scores))
    shared = shared_places(model)
    if len(shared):
        def terms(phi: jax.Array) -> tuple[jax.Array, jax.Array]:
            def predicted(v: jax.Array) -> jax.Array:
                return predicted_rows(model, data, to_theta(model, u.at[shared].set(v)), phi)

            f, jacobian = predicted(u[shared]), jax.jacfwd(predicted)(u[shared])
            for o, error in enumerate(model.error_models().values()):
                if error.log_scale:
                    here = (data["output"] == o)[..., None]
                    jacobian = jnp.where(here, jacobian / jnp.maximum(f, 1e-290)[..., None],
                                         jacobian)
            _, slope, weight = row_terms(model, data, to_theta(model, u), f)
            jacobian = jnp.where(data["observed"][..., None], jacobian, 0.0)
            return (jnp.einsum("pn,pns->s", slope, jacobian),
                    information_of(data, weight, jacobian).sum(axis=0))

        gradient, information = jax.vmap(terms)(state.phi)
        u = u.at[shared].add(gain * _step(gradient.sum(axis=0), information.sum(axis=0)))
    return u


def _step(gradient: jax.Array, information: jax.Array) -> jax.Array:
    """information^-1 gradient, no longer than half a unit in any place; 0 if it is no number."""
    scale = jnp.sqrt(jnp.maximum(jnp.diagonal(information), 1e-12))
    unit = information / (scale[:, None] * scale[None, :]) + 1e-6 * jnp.eye(len(scale))
    move = solve(unit, gradient / scale, assume_a="pos") / scale
    return jnp.where(jnp.isfinite(move), jnp.clip(move, -0.5, 0.5), 0.0)


