"""SAEM: every patient's phi by Markov chains, the population by stochastic approximation, in one
compiled loop.

Chains move by independent proposals from what each patient's phi is thought to be by now, as in
Karimi, Lavielle and Moulines 2020, Comput Stat Data Anal 141:123, by walks and by proposals from
the population. The estimates are an average of those that the population wandered through, Polyak
and Juditsky 1992, SIAM J Control Optim 30:838: of gains that fall as 1 / k, what EM creeps along
would stay where the last large gain left it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve

from carpk.conditional import Patients, differences
from carpk.correlated import correlations
from carpk.empirical_bayes import Start, mean_variance, start_shape
from carpk.importance import FREEDOM, spread_t
from carpk.likelihood import (
    from_theta,
    patient_log_density,
    population_location,
    predicted_rows,
    row_log_likelihood,
    to_theta,
)
from carpk.padding import filled_to, own_patients
from carpk.population_model import PopulationModel
from carpk.round_sizes import rounded
from carpk.sensitivities import (
    dense,
    information_of,
    located_places,
    omegas,
    only_sd,
    residual_places,
    residual_rows,
    row_terms,
    shared_places,
)
from carpk.small_matrices import inverse_of, multiplied, solve_lower
from carpk.solve import Arrays

BLOCK = 25  # iterations of one call, and between two looks at where the estimates stand
_HOT = 100  # iterations with a gain of 1 and annealed spreads
_MEMORY = 0.15  # gain after those
_LEAST = 250, 400  # iterations of both phases: where spreads are weakly informed EM creeps
_STAY, _POPULATION, _SHAPE, _WALK = range(4)  # kinds of proposals
_ROUND = ((_SHAPE, _POPULATION), (_SHAPE, _SHAPE), (_SHAPE, _WALK), (_SHAPE, _SHAPE))
_ACCEPTED = 0.3  # share of the walks that the step size aims at
_COOLING = 0.95  # an annealed SD falls no faster an iteration
_STEP = 1e-5  # on the real line, in slopes of the shared places


def chains_for(patients: int) -> int:
    """Chains per patient: a hundred in all of the fewest who are filled up to as many. The noise of
    an estimate, in standard errors, depends on iterations times these, however many patients there
    are; what wandering adds to it on all there are."""
    fewest = min(n for n in range(1, patients + 1) if rounded(n) == rounded(patients))
    return max(3, -(-100 // fewest))


class State(NamedTuple):
    """u (Q,); phi (C, P, K), C chains; predicted (C, P, N); size (P,), log of the walks' step;
    first (P, K), second (P, K, K), approximated moments of phi; known (S, S), information about
    the shared places; P with those who fill up."""

    u: Any
    phi: Any
    predicted: Any
    size: Any
    first: Any
    second: Any
    known: Any


class Shape(NamedTuple):
    """What the patients' phi are thought to be by now: mean (P, K), covariance (P, K, K)."""

    mean: np.ndarray
    covariance: np.ndarray


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
    """The compiled programs of a model, for all patients of one shape: filled up, but that random
    numbers are drawn for the patients themselves."""

    def __init__(self, model: PopulationModel) -> None:
        self.block = jax.jit(lambda data, *args: _block(model, data, *args))

    def compiled(self, patients: Patients, chains: int) -> Programs:
        """Themselves, after one block of nothing."""
        nothing = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype),
                               start_shape(patients.model, patients.data))
        self.run(patients, _first(patients, nothing, chains), _begun(patients.model, nothing),
                 np.random.default_rng(0), 1.0, 0, 0.0, 0.0)
        return self

    def run(self, patients: Patients, state: State, shape: Shape, chance: np.random.Generator,
            gain: float, count: int, floor: float, adapt: float) \
            -> tuple[State, np.ndarray, np.ndarray]:
        """The state after a block, and u (BLOCK, Q) and draws of phi (BLOCK * C, P, K) in it."""
        slopes = differences(patients.typical, state.u, located_places(patients.model))
        # to the host and back: spread over devices as it comes it would need another program
        state, (us, draws) = jax.tree.map(np.asarray, self.block(
            patients.full, state, filled_to(state.phi.shape[1], slopes), *_proposed(
                chance, state, shape, count), gain, np.arange(count, count + BLOCK), floor, adapt))
        return state, us, draws[:, :, :len(shape.mean)].reshape(-1, *shape.mean.shape)


def moved_start(patients: Patients, start: Start, u: np.ndarray) -> Start:
    """The start at another population, to which the patients' phi are carried along."""
    return start._replace(u=jnp.asarray(u), phi=start.phi + patients.typical(u)
                          - patients.typical(start.u))


def walked(patients: Patients, start: Start, chains: int, burn_in: int, smoothing: int, seed: int,
           told: Any, programs: Programs) -> Walked:
    """SAEM from a start.

    At first the gain is 1 and spreads are annealed, so that none shuts down early; then a constant
    gain lets the estimates wander to the maximum and around it, less so that a weakly informed
    spread does not walk to 0 by chance; then they wander on and are averaged. Where a number of
    iterations is 0, either wandering ends once it shows no trend.
    """
    state, shape = _first(patients, start, chains), _begun(patients.model, start)
    chance, count, stationary = np.random.default_rng(seed), 0, bool(burn_in)
    centres: list[np.ndarray] = []
    while count < (burn_in or 1000):
        hot = count < _HOT
        state, us, draws = programs.run(patients, state, shape, chance, 1.0 if hot else _MEMORY,
                                        count, _COOLING if hot else 0.0, 1.0)
        count += BLOCK
        told(count)
        shape = _blended(shape, _of_draws(draws), 0.5)
        centres.append(us.mean(axis=0))
        if not burn_in and count >= _LEAST[0] and _stationary(np.stack(centres[-6:])):
            stationary = True
            break
    passed: list[np.ndarray] = []
    found, averaged, still = shape, 0, bool(smoothing)
    while averaged < (smoothing or 1000):
        state, us, draws = programs.run(patients, state, shape, chance, _MEMORY, count + averaged,
                                        0.0, 0.0)
        averaged += BLOCK
        told(count + averaged)
        passed.append(us)
        found = _blended(found, _of_draws(draws), BLOCK / averaged)
        shape = _blended(shape, found, 0.5)
        if not smoothing and averaged >= _LEAST[1] and _stationary(np.stack([
                part.mean(axis=0) for part in np.array_split(np.concatenate(passed), 6)])):
            still = True
            break
    return Walked(np.concatenate(passed).mean(axis=0), found.mean, found.covariance,
                  stationary and still, count, averaged)


def _stationary(centres: np.ndarray) -> bool:
    """Whether means (6, Q) wander and no longer go anywhere: the halves' difference, in SDs
    of the means, has a mean square of 2/3 where they are independent and of 2.6 on a line."""
    away = centres[3:].mean(axis=0) - centres[:3].mean(axis=0)
    return bool(np.mean((away / (centres.std(axis=0, ddof=1) + 1e-9))**2) < 1.3)


def _first(patients: Patients, start: Start, chains: int) -> State:
    count, rows = patients.full["time"].shape
    middle, shared = filled_to(count, start.phi), len(shared_places(patients.model))
    return State(
        np.asarray(start.u), np.tile(middle, (chains, 1, 1)), np.zeros((chains, count, rows)),
        np.full(count, np.log(2.4 / max(middle.shape[1], 1)**0.5)), middle,
        middle[:, :, None] * middle[:, None, :], np.zeros((shared, shared)))


def _begun(model: PopulationModel, start: Start) -> Shape:
    """The posterior's Gauss-Newton approximation."""
    omega = np.asarray(omegas(model, to_theta(model, start.u)))
    whole = np.asarray(start.information).sum(axis=1) + np.diag(omega**-2)[None]
    return Shape(np.asarray(start.phi), np.linalg.inv(whole))


def _of_draws(draws: np.ndarray) -> Shape:
    mean = draws.mean(axis=0)
    away = np.moveaxis(draws - mean, 0, 2)
    return Shape(mean, away @ np.swapaxes(away, 1, 2) / len(draws))


def _blended(a: Shape, b: Shape, share: float) -> Shape:
    """The mixture of both, of b its share."""
    apart = b.mean - a.mean
    return Shape(a.mean + share * apart, a.covariance + share * (b.covariance - a.covariance)
                 + share * (1.0 - share) * apart[:, :, None] * apart[:, None, :])


def _proposed(chance: np.random.Generator, state: State, shape: Shape, count: int) \
        -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, np.ndarray]]:
    """What a block draws, outside the program, which that keeps small: of each proposal its kind,
    normals (of the shape t), what the shape makes of them, and the log of a uniform; and the
    shape as mean and inverse factor. Who fills up gets what the last patient gets."""
    kinds = np.array([_ROUND[i % len(_ROUND)] for i in range(count, count + BLOCK)])
    size, patients = (*kinds.shape, len(state.phi), *shape.mean.shape), state.phi.shape[1]
    low = np.linalg.cholesky(shape.covariance + 1e-12 * np.eye(size[-1]))
    z = np.where(kinds.reshape(*kinds.shape, 1, 1, 1) == _SHAPE, spread_t(chance, size),
                 chance.normal(size=size))
    drawn = z, np.einsum("pkl,bicpl->bicpk", low, z), -chance.exponential(size=size[:-1])
    return (kinds, *(filled_to(patients, x, 3) for x in drawn)), (
        filled_to(patients, shape.mean), filled_to(patients, np.linalg.inv(low)))


def _block(model: PopulationModel, data: Arrays, state: State, slopes: jax.Array,
           chances: tuple[jax.Array, ...], shape: tuple[jax.Array, jax.Array], gain: jax.Array,
           counts: jax.Array, floor: jax.Array, adapt: jax.Array) \
        -> tuple[State, tuple[jax.Array, jax.Array]]:
    """BLOCK iterations, and u and phi after each.

    slopes : (P, K, G), of where phi lies in the located places: exact where these enter linearly
    """
    def one(state: State, given: Any) -> tuple[State, tuple[jax.Array, jax.Array]]:
        chances, count = given
        state = _moved(model, data, state, chances, shape, adapt, count)
        state = _learnt(model, data, state, slopes, gain, floor, count)
        return state, (state.u, state.phi)

    return jax.lax.scan(one, state, (chances, counts))


def _moved(model: PopulationModel, data: Arrays, state: State, chances: tuple[jax.Array, ...],
           shape: tuple[jax.Array, jax.Array], adapt: jax.Array, count: jax.Array) -> State:
    """Every chain of every patient by some proposals."""
    theta, k = to_theta(model, state.u), state.phi.shape[2]
    mu, low = population_location(model, data, theta)
    centre, inverse = shape
    entries = [{j: inverse[:, i, j] for j in range(i + 1)} for i in range(k)]

    def seen(phi: jax.Array, predicted: jax.Array) -> tuple[jax.Array, ...]:
        """(P,) each: log p(y, phi), and log densities of proposals from population and shape."""
        near, far = (sum((x**2 for x in z), jnp.zeros(len(phi))) for z in (
            multiplied(entries, list((phi - centre).T)), solve_lower(low, list((phi - mu).T))))
        return (row_log_likelihood(model, data, theta, predicted).sum(axis=1)
                + patient_log_density(model, data, theta, phi),
                -0.5 * far, -0.5 * (FREEDOM + k) * jnp.log1p(near / FREEDOM))

    def proposal(carry: Any, given: Any) -> Any:
        """The first stays where it is, to see how likely that is by now."""
        phi, predicted, before, size = carry
        kind, z, step, luck = given
        fresh = mu[None] + jnp.stack(multiplied(low, [z[..., j] for j in range(k)]), axis=-1)
        trial = jnp.where(kind == _STAY, phi, jnp.where(kind == _POPULATION, fresh, jnp.where(
            kind == _SHAPE, centre[None] + step, phi + jnp.exp(size)[None, :, None] * step)))
        f = jax.lax.cond((kind == _STAY) & (count > 0), lambda: predicted, lambda: jax.vmap(
            lambda phi: predicted_rows(model, data, theta, phi))(trial))
        now = jax.vmap(seen)(trial, f)
        height, population, own = (a - b for a, b in zip(now, before, strict=True))
        gained = height - jnp.where(kind == _POPULATION, population, jnp.where(
            kind == _SHAPE, own, 0.0))
        # where the solve failed: refused, and left for whatever is solved
        taken = (luck < gained) | (kind == _STAY) | (
            jnp.isfinite(now[0]) & ~jnp.isfinite(before[0]))
        size = size + jnp.where(kind == _WALK, adapt * 0.3 * (taken.mean(axis=0) - _ACCEPTED), 0.0)
        return (jnp.where(taken[..., None], trial, phi), jnp.where(taken[..., None], f, predicted),
                tuple(jnp.where(taken, a, b) for a, b in zip(now, before, strict=True)), size), None

    kinds, *others = chances
    given = (jnp.concatenate([jnp.full(1, _STAY), kinds]),
             *(jnp.concatenate([x[:1], x]) for x in others))
    none = (jnp.zeros(state.phi.shape[:2]),) * 3
    (phi, predicted, _, size), _ = jax.lax.scan(
        proposal, (state.phi, state.predicted, none, state.size), given)
    return state._replace(phi=phi, predicted=predicted, size=size)


def _learnt(model: PopulationModel, data: Arrays, state: State, slopes: jax.Array,
            gain: jax.Array, floor: jax.Array, count: jax.Array) -> State:
    """The population by the chains: locations, spreads and residual SDs in closed form, what
    predictions depend on directly, and other residual errors, by a scoring step."""
    first = state.first + gain * (state.phi.mean(axis=0) - state.first)
    outer = jnp.einsum("cpk,cpl->pkl", state.phi, state.phi) / state.phi.shape[0]
    second = state.second + gain * (outer - state.second)
    u = _located(model, data, state.u, first, slopes)
    u = _spread(model, data, u, first, second, floor)
    u = _by_residuals(model, data, u, state, gain, floor)
    state = state._replace(u=u, first=first, second=second)
    return _by_shared(model, data, state, gain, count) if len(shared_places(model)) else state


def _located(model: PopulationModel, data: Arrays, u: jax.Array, first: jax.Array,
             slopes: jax.Array) -> jax.Array:
    """Typical values and coefficients: generalised least squares of the mean phi, exact where
    they enter linearly."""
    places = located_places(model)
    if not len(places):
        return u
    mu, low = population_location(model, data, to_theta(model, u))
    weighed = jnp.einsum("p,pkg,kl->plg", own_patients(data), slopes, dense(inverse_of(low)))
    move = solve(jnp.einsum("plg,plh->gh", weighed, slopes) + 1e-12 * jnp.eye(len(places)),
                 jnp.einsum("plg,pl->g", weighed, first - mu), assume_a="pos")
    return u.at[places].add(jnp.where(jnp.isfinite(move), move, 0.0))


def _spread(model: PopulationModel, data: Arrays, u: jax.Array, first: jax.Array,
            second: jax.Array, floor: jax.Array) -> jax.Array:
    """Omega, and gammas, from the moments of phi around where the population now lies."""
    theta = to_theta(model, u)
    mu, own = population_location(model, data, theta)[0], own_patients(data)
    cross = jnp.einsum("p,pk,pl->kl", own, first, mu)
    whole = (jnp.einsum("p,pkl->kl", own, second) - cross - cross.T
             + jnp.einsum("p,pk,pl->kl", own, mu, mu)) / own.sum()
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


def _by_residuals(model: PopulationModel, data: Arrays, u: jax.Array, state: State,
                  gain: jax.Array, floor: jax.Array) -> jax.Array:
    """Residual errors: an SD that is all there is of a normal one in closed form, the root mean
    square of its residuals, of a censored row that of what may hide there (in SDs, 1 and the slope
    of its log likelihood in ln SD); others by a scoring step."""
    names = [model.free[k] for k in residual_places(model)]
    if not names:
        return u
    alone = [n for n in names if only_sd(model, n)]
    rest = np.array([model.free.index(n) for n in names if n not in alone], int)

    def rows(v: jax.Array) -> jax.Array:
        theta = to_theta(model, u.at[rest].add(v[len(alone):]))
        theta = {**theta, **{n: theta[n] * jnp.exp(x) for n, x in zip(alone, v, strict=False)}}
        return jax.vmap(lambda f: row_log_likelihood(model, data, theta, f))(state.predicted)

    scores = jax.jacfwd(rows)(jnp.zeros(len(names)))
    new = dict(to_theta(model, u))
    for k, name in enumerate(alone):
        known = residual_rows(model, data, name)[None] & jnp.isfinite(scores[..., k])
        above = jnp.where(known, scores[..., k], 0.0).sum() / jnp.maximum(known.sum(), 1)
        new[name] = new[name] * jnp.maximum(jnp.sqrt(jnp.maximum(1.0 + gain * above, 1e-12)), floor)
    u = from_theta(model, new) if alone else u
    if not len(rest):
        return u
    others = scores[..., len(alone):].reshape(-1, len(rest))
    return u.at[rest].add(gain * _step(others.sum(axis=0), others.T @ others))


def _by_shared(model: PopulationModel, data: Arrays, state: State, gain: jax.Array,
               count: jax.Array) -> State:
    """A scoring step for the shared places on one chain, another one in every iteration."""
    shared, turn = shared_places(model), count % state.phi.shape[0]
    u, phi = state.u, state.phi[turn]
    steps = jnp.concatenate([jnp.zeros((1, len(shared))), _STEP * jnp.eye(len(shared))])
    f, *moved = jax.vmap(lambda step: predicted_rows(
        model, data, to_theta(model, u.at[shared].add(step)), phi))(steps)
    jacobian = (jnp.stack(moved, axis=-1) - f[..., None]) / _STEP
    for o, error in enumerate(model.error_models().values()):
        if error.log_scale:
            here = (data["output"] == o)[..., None]
            jacobian = jnp.where(here, jacobian / jnp.maximum(f, 1e-290)[..., None], jacobian)
    _, slope, weight = row_terms(model, data, to_theta(model, u), f)
    jacobian = jnp.where(data["observed"][..., None], jacobian, 0.0)
    here = information_of(data, weight, jacobian).sum(axis=0)
    # mostly of earlier draws: it would else lean on the gradient's noise
    known = state.known + jnp.where(jnp.isfinite(here).all(), jnp.maximum(
        1.0 / (1.0 + count), 0.05), 0.0) * jnp.nan_to_num(here - state.known)
    move = _step(jnp.einsum("pn,pns->s", slope, jacobian), known)
    return state._replace(u=u.at[shared].add(gain * move), known=known,
                          predicted=state.predicted.at[turn].set(f))


def _step(gradient: jax.Array, information: jax.Array) -> jax.Array:
    """information^-1 gradient, no longer than half a unit in any place; 0 if it is no number."""
    scale = jnp.sqrt(jnp.maximum(jnp.diagonal(information), 1e-12))
    unit = information / (scale[:, None] * scale[None, :]) + 1e-6 * jnp.eye(len(scale))
    move = solve(unit, gradient / scale, assume_a="pos") / scale
    return jnp.where(jnp.isfinite(move), jnp.clip(move, -0.5, 0.5), 0.0)


