"""A quick Laplace fit: each patient's most likely parameters and information, a population start.

Used to start every estimator at values the data support and to shape the sampler's coordinates;
what it returns never enters a posterior as a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from carpk.correlated import correlations
from carpk.effects import coefficients
from carpk.likelihood import (
    from_theta,
    log_jacobian,
    log_prior,
    patient_log_density,
    patient_log_likelihood,
    population_location,
    predicted_rows,
    row_log_likelihood,
    to_theta,
)
from carpk.population_model import PopulationModel
from carpk.small_matrices import Rows, inverse_of
from carpk.solve import Arrays


class Start(NamedTuple):
    """Where a fit begins.

    u : (Q,), free population parameters on the real line
    phi : (P, K), conditional modes on the link scale
    information : (P, O, K, K), Gauss-Newton information of each output's rows at the mode
    linear : (P, O, K), information @ phi + gradient of the log-likelihood
    log_likelihood : (P,) at the mode; not finite where the solve failed
    sweeps : rounds of the search
    classes : (P, C), of a mixture how likely each patient is of each class
    """

    u: jax.Array
    phi: jax.Array
    information: jax.Array
    linear: jax.Array
    log_likelihood: jax.Array
    sweeps: int
    classes: jax.Array | None = None


def start_shape(model: PopulationModel, data: Arrays) -> Start:
    """The shapes of a model's start, for programs that are compiled before it is found."""
    p, k, o = data["time"].shape[0], len(model.sds), len(model.structure.outputs)
    shape: Start = jax.eval_shape(lambda: Start(
        jnp.zeros(len(model.free)), jnp.zeros((p, k)), jnp.zeros((p, o, k, k)),
        jnp.zeros((p, o, k)), jnp.zeros(p), 0,
        jnp.zeros((p, model.mixture.count)) if model.mixture else None))
    return shape


def moved_rows(model: PopulationModel, data: Arrays, theta: Any, predicted: jax.Array,
                shift: jax.Array) -> jax.Array:
    """Row log-likelihoods (P, N) with each prediction moved by `shift` on the scale its residual
    is added to."""
    moved = predicted
    for k, error in enumerate(model.error_models().values()):
        own = predicted * jnp.exp(shift) if error.log_scale else predicted + shift
        moved = jnp.where(data["output"] == k, own, moved)
    return row_log_likelihood(model, data, theta, moved)


def row_derivatives(model: PopulationModel, data: Arrays, theta: Any, predicted: jax.Array) \
        -> tuple[jax.Array, jax.Array, jax.Array]:
    """Each row's log-likelihood, its slope and its bend (at most 0) in the prediction, taken on
    the scale the row's residual is added to; (P, N) each, 0 on padding."""
    def slopes(shift: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.jvp(lambda s: moved_rows(model, data, theta, predicted, s), (shift,), (one,))

    zero, one = jnp.zeros_like(predicted), jnp.ones_like(predicted)
    (value, slope), (_, bend) = jax.jvp(slopes, (zero,), (one,))
    seen = data["observed"]
    return value, jnp.where(seen, slope, 0.0), jnp.where(seen, jnp.minimum(bend, 0.0), 0.0)


def columns(model: PopulationModel, data: Arrays, u: jax.Array, phi: jax.Array) \
        -> tuple[jax.Array, jax.Array]:
    """Predictions (P, N) and their derivatives (P, N, K + S) on their error model's own scale:
    in phi, then in u of the S shared places. One forward sweep carries all directions, so that a
    solver is compiled once."""
    shared = shared_places(model)
    k = phi.shape[1]

    def predicted(phi: jax.Array, v: jax.Array) -> jax.Array:
        return predicted_rows(model, data, to_theta(model, u.at[shared].set(v)), phi)

    directions = jnp.eye(k + len(shared))
    f, push = jax.linearize(predicted, phi, u[shared])
    jacobian = jax.vmap(lambda d: push(jnp.broadcast_to(d[:k], phi.shape), d[k:]),
                        out_axes=-1)(directions)
    for o, error in enumerate(model.error_models().values()):
        if error.log_scale:
            here = (data["output"] == o)[..., None]
            jacobian = jnp.where(here, jacobian / jnp.maximum(f, 1e-290)[..., None], jacobian)
    return f, jnp.where(data["observed"][..., None], jacobian, 0.0)


def shared_places(model: PopulationModel) -> np.ndarray:
    """Places in model.free of the typical values that no patient varies in, of what covariates and
    levels add to them, and of covariates that change in a patient: the predictions depend on these
    directly."""
    return np.array([k for k, n in enumerate(model.free)
                     if (_moves(model, n) and _moves(model, n) not in model.spread)
                     or n in _over_time(model)], dtype=int)


def located_places(model: PopulationModel) -> np.ndarray:
    """Places in model.free of what moves the location of a varying parameter."""
    return np.array([k for k, n in enumerate(model.free) if _moves(model, n) in model.spread
                     and n not in _over_time(model)], dtype=int)


def _over_time(model: PopulationModel) -> set[str]:
    return {n for e in model.effects if model.changes(e) for n in coefficients(e)}


def _moves(model: PopulationModel, name: str) -> str:
    """The structural parameter that a typical value or a coefficient is of; "" for others."""
    if name.endswith("_pop"):
        return name.removesuffix("_pop")
    return next((e.parameter for e in model.effects if name in coefficients(e)),
                next((of for level in model.levels if (of := level.of(name))), ""))


def _residual_step(model: PopulationModel, data: Arrays, u: jax.Array, f: jax.Array,
                   row_variance: jax.Array) -> jax.Array:
    """One scoring step on the residual errors. The predictions' uncertainty `row_variance`
    (P, N) enters by taking each row a standard deviation above and below (else sigma would come
    out too small); the information about the log of a sigma is two per row."""
    places = [k for k, n in enumerate(model.free) if n.startswith("sigma_")]
    away = jnp.sqrt(jnp.where(data["observed"], row_variance, 0.0))

    def objective(u: jax.Array) -> jax.Array:
        theta = to_theta(model, u)
        value = sum((moved_rows(model, data, theta, f, side * away).sum() for side in (-1, 1)),
                    jnp.zeros(()))
        return 0.5 * value + log_prior(model, theta) + log_jacobian(model, u)

    gradient, theta = jax.grad(objective)(u), to_theta(model, u)
    for k in places:
        name = model.free[k]
        output = name.removeprefix("sigma_").rpartition("_")[0]
        index = [o.name for o in model.structure.outputs].index(output)
        rows = (data["observed"] & (data["output"] == index)).sum()
        _, slope = jax.jvp(model.priors[name].scale.from_real, (u[k],), (jnp.ones(()),))
        move = gradient[k] / (2.0 * jnp.maximum(rows, 1) * (slope / theta[name]) ** 2)
        u = u.at[k].add(jnp.where(jnp.isfinite(move), jnp.clip(move, -0.5, 0.5), 0.0))
    return u


def _newton(model: PopulationModel, u: jax.Array, places: np.ndarray, gradient: jax.Array,
            information: jax.Array) -> jax.Array:
    """One Newton step of some places of u, their priors included; gradient, information of the
    rest of the log density, (S,) and (S, S)."""
    slopes, bends = [], []
    for k in places:
        density = model.priors[model.free[k]].log_density_real
        slopes.append(jax.grad(density)(u[k]))
        bends.append(jax.grad(jax.grad(density))(u[k]))
    if not slopes:
        return u
    total = information - jnp.diag(jnp.minimum(jnp.stack(bends), 0.0)) + 1e-9 * jnp.eye(len(places))
    move = jnp.linalg.solve(total, gradient + jnp.stack(slopes))
    return u.at[places].add(jnp.where(jnp.isfinite(move), jnp.clip(move, -0.5, 0.5), 0.0))


def location_scores(model: PopulationModel, data: Arrays, u: jax.Array, phi: jax.Array) \
        -> tuple[jax.Array, jax.Array]:
    """Gradient (G,) and information (G, G) of log p(phi | population) in the G located places."""
    places = located_places(model)

    def location(v: jax.Array) -> jax.Array:
        return population_location(model, data, to_theta(model, u.at[places].set(v)))[0]

    mu, slopes = location(u[places]), jax.jacfwd(location)(u[places])
    slopes = slopes * data["observed"].any(axis=1)[:, None, None]  # others fill up the arrays
    precision = dense(inverse_of(population_location(model, data, to_theta(model, u))[1]))
    return (jnp.einsum("pkg,kl,pl->g", slopes, precision, phi - mu),
            jnp.einsum("pkg,kl,plh->gh", slopes, precision, slopes))


def dense(rows: Rows) -> jax.Array:
    """(K, K), a small matrix as an array."""
    size = len(rows)
    entries = [[jnp.asarray(row.get(j, 0.0), float) for j in range(size)] for row in rows]
    return jnp.stack([jnp.stack(row) for row in entries]) if size else jnp.zeros((0, 0))


def omegas(model: PopulationModel, theta: Any) -> jax.Array:
    """(K,): the spread of each varying parameter, and of the kappas."""
    return jnp.stack([jnp.asarray(theta[n], float) for n in model.sds]) \
        if model.sds else jnp.zeros(0)


def _spreads(model: PopulationModel, theta: Any, away: jax.Array, covariance: jax.Array) \
        -> dict[str, Any]:
    """Omegas and correlations from the conditional modes, `away` (P, K) from their location, and
    their covariances (P, K, K)."""
    updated, patients = dict(theta), away.shape[0]
    squares = jnp.einsum("pk,pl->kl", away, away) + covariance.sum(axis=0)
    # as if two more patients had a spread of a third: it keeps omega off zero
    whole = (squares + 2 * 0.1 * jnp.eye(len(model.sds))) / (patients + 2)
    for name in dict.fromkeys(model.sds):
        if name not in model.fixed:
            updated[name] = jnp.sqrt(mean_variance(model, name, whole))
    for block in model.blocks:
        places = [model.spread.index(n) for n in block]
        pairs = [(i, j) for k, i in enumerate(places) for j in places[:k]]
        for name, (i, j) in zip(correlations(block), pairs, strict=True):
            if name not in model.fixed:
                updated[name] = whole[i, j] / jnp.sqrt(whole[i, i] * whole[j, j])
    return updated


def mean_variance(model: PopulationModel, name: str, whole: jax.Array) -> jax.Array:
    """Of what has the SD `name`: a parameter's etas, or its kappas in all courses."""
    places = [k for k, n in enumerate(model.sds) if n == name]
    return sum((whole[k, k] for k in places), jnp.zeros(())) / len(places)


def _density(model: PopulationModel, data: Arrays, theta: Any, phi: jax.Array) -> jax.Array:
    """(P,): log p(y, phi | population); -inf where the solve failed."""
    value = patient_log_likelihood(model, data, theta, phi) \
        + patient_log_density(model, data, theta, phi)
    return jnp.where(jnp.isfinite(value), value, -jnp.inf)


def guess(model: PopulationModel, theta: Any, data: Arrays, key: jax.Array) -> jax.Array:
    """phi (P, K): for each patient the best of 200 draws around its location."""
    @jax.jit
    def best(data: Arrays, key: jax.Array) -> jax.Array:
        mu, omega = population_location(model, data, theta)[0], omegas(model, theta)

        def one(best: Any, draw: Any) -> Any:
            size, key = draw
            phi = mu + size * omega[None, :] * jax.random.normal(key, mu.shape)
            value = _density(model, data, theta, phi)
            better = value > best[1]
            return (jnp.where(better[:, None], phi, best[0]),
                    jnp.where(better, value, best[1])), None

        sizes = jnp.where(jnp.arange(200) == 0, 0.0, 1.5)  # the first guess is the typical patient
        return jax.lax.scan(one, (mu, jnp.full(mu.shape[0], -jnp.inf)),
                            (sizes, jax.random.split(key, 200)))[0][0]

    return best(data, key)


def _first(model: PopulationModel, name: str) -> float:
    """Where the search begins: the prior's median or, since a prior that was asked for may be
    flat and lie anywhere, the model file's value where that prior leaves it room."""
    if name not in model.priors:
        return float(model.fixed[name])
    prior = model.priors[name]
    if model.reasons.get(name) == "asked for" and name.endswith("_pop"):
        typical = model.structure.parameter(name.removesuffix("_pop")).typical
        away = float(prior.scale.to_real(jnp.asarray(typical))
                     - prior.scale.to_real(jnp.asarray(prior.median)))
        if abs(away) < 3.0 * prior.numbers[-1]:
            return typical
    # of a correlation the median is that of the partial one: in a block they need not hold together
    return 0.0 if prior.family == "tanhnormal" else prior.median


def laplace_start(model: PopulationModel, data: Arrays, seed: int, rounds: int = 120,
                  begin: Mapping[str, float] | None = None, held: bool = False) -> Start:
    """Modes, information and a population start by Laplace-EM from the best of many guesses.

    Every patient first takes the best of 200 draws around the priors' medians (peaks and slopes
    of its own data decide which is best). Then rounds of one damped Gauss-Newton step for every
    patient, each accepting or refusing its own, and one update of the population follow, until
    the population stands still. A patient whose solve fails everywhere keeps the typical values
    and has a `log_likelihood` that is not finite.

    begin : population values by name in place of those medians; held : they stay as they are
    """
    theta = {n: _first(model, n) for n in model.names}
    for n in model.spread:  # an omega's prior median is small where patients differ much
        theta[f"omega_{n}"] = model.fixed.get(f"omega_{n}", max(theta[f"omega_{n}"], 0.7))
    theta |= begin or {}
    patients, k = data["time"].shape[0], len(model.sds)

    @jax.jit
    def sweep(data: Arrays, u: jax.Array, phi: jax.Array, damping: jax.Array) -> Any:
        theta = to_theta(model, u)
        mu, low = population_location(model, data, theta)
        precision = dense(inverse_of(low))
        f, jacobian = columns(model, data, u, phi)
        rows, slope, bend = row_derivatives(model, data, theta, f)
        by_output = [jnp.where(data["output"] == o, 1.0, 0.0)
                     for o in range(len(model.structure.outputs))]
        own, shared = jacobian[..., :k], jacobian[..., k:]
        gradient = jnp.stack([jnp.einsum("pn,pnk->pk", slope * m, own) for m in by_output], 1)
        information = jnp.stack([jnp.einsum("pn,pnk,pnl->pkl", -bend * m, own, own)
                                 for m in by_output], 1)
        # each patient's own step, damped, kept only where it helps
        total = information.sum(axis=1) + precision[None]
        uphill = gradient.sum(axis=1) - jnp.einsum("kl,pl->pk", precision, phi - mu)
        diagonal = jnp.einsum("pkk->pk", total)
        damped = total + jnp.eye(k)[None] * (damping[:, None] * diagonal)[:, None, :]
        move = jnp.linalg.solve(damped, uphill[..., None])[..., 0]
        trial = phi + jnp.where(jnp.isfinite(move), jnp.clip(move, -3.0, 3.0), 0.0)
        value = rows.sum(axis=1) + patient_log_density(model, data, theta, phi)
        better = _density(model, data, theta, trial) \
            > jnp.where(jnp.isfinite(value), value, -jnp.inf)
        # the population, at the phi the derivatives belong to
        covariance = jnp.linalg.inv(total)
        covariance = jnp.where(jnp.isfinite(covariance), covariance,
                               jnp.diag(omegas(model, theta) ** 2)[None])
        new = _newton(model, u, located_places(model), *location_scores(model, data, u, phi))
        away = phi - population_location(model, data, to_theta(model, new))[0]
        new = from_theta(model, _spreads(model, to_theta(model, new), away, covariance))
        new = _residual_step(model, data, new, f,
                             jnp.einsum("pnk,pkl,pnl->pn", own, covariance, own))
        new = _newton(model, new, shared_places(model), jnp.einsum("pn,pns->s", slope, shared),
                      jnp.einsum("pn,pns,pnt->st", -bend, shared, shared))
        damping = jnp.clip(damping * jnp.where(better, 0.2, 8.0), 1e-9, 1e6)
        new = u if held else new
        return (new, jnp.where(better[:, None], trial, phi), damping), \
            (phi, gradient, information, rows.sum(axis=1))

    u, phi = from_theta(model, theta), guess(model, theta, data, jax.random.key(seed))
    damping = jnp.full(patients, 0.1)
    moved, count = 1.0, 0
    while count < (30 if held else 8) or (moved > 0.003 and count < rounds):
        before, count = u, count + 1
        (u, phi, damping), at = sweep(data, u, phi, damping)
        moved = float(jnp.max(jnp.abs(u - before)))
    for _ in range(10):  # the patients to their modes, the population at rest
        (_, phi, damping), at = sweep(data, u, phi, damping)
    phi, gradient, information, value = at
    usable = jnp.isfinite(information).all(axis=(1, 2, 3)) & jnp.isfinite(gradient).all(
        axis=(1, 2))
    information = jnp.where(usable[:, None, None, None], information, 0.0)
    linear = jnp.einsum("pokl,pl->pok", information, phi) + jnp.where(
        usable[:, None, None], gradient, 0.0)
    return Start(u, phi, information, linear, value, count)
