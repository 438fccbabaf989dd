"""A quick Laplace fit: each patient's most likely parameters and information, a population start.

Used to start every estimator at values the data support and to shape the sampler's coordinates;
what it returns never enters a posterior as a result.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from carpk.likelihood import (
    from_theta,
    log_jacobian,
    log_prior,
    patient_log_density,
    patient_log_likelihood,
    population_location,
    row_log_likelihood,
    to_theta,
)
from carpk.population_model import PopulationModel
from carpk.solve import Arrays, predict


class Start(NamedTuple):
    """Where a fit begins.

    u : (Q,), free population parameters on the real line
    phi : (P, K), conditional modes on the link scale
    information : (P, O, K, K), Gauss-Newton information of each output's rows at the mode
    linear : (P, O, K), information @ phi + gradient of the log-likelihood
    log_likelihood : (P,) at the mode; NaN where the solve failed
    sweeps : rounds of the search
    """

    u: jax.Array
    phi: jax.Array
    information: jax.Array
    linear: jax.Array
    log_likelihood: jax.Array
    sweeps: int


def _row_derivatives(model: PopulationModel, data: Arrays, theta: Any, predicted: jax.Array) \
        -> tuple[jax.Array, jax.Array, jax.Array]:
    """Each row's log-likelihood, its slope and its bend (at most 0) in the prediction, taken on
    the scale the row's residual is added to; (P, N) each, 0 on padding."""
    def rows(shift: jax.Array) -> jax.Array:
        moved = predicted
        for k, error in enumerate(model.error_models().values()):
            own = predicted * jnp.exp(shift) if error.log_scale else predicted + shift
            moved = jnp.where(data["output"] == k, own, moved)
        return row_log_likelihood(model, data, theta, moved)

    zero, one = jnp.zeros_like(predicted), jnp.ones_like(predicted)
    value = rows(zero)
    slope, bend = jax.jvp(lambda s: jax.jvp(rows, (s,), (one,))[1], (zero,), (one,))
    seen = data["observed"]
    return value, jnp.where(seen, slope, 0.0), jnp.where(seen, jnp.minimum(bend, 0.0), 0.0)


def _curvature(model: PopulationModel, data: Arrays, theta: Any, phi: jax.Array) \
        -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradient (P, O, K) and Gauss-Newton information (P, O, K, K) of each output's
    log-likelihood in phi, and the Jacobian (P, N, K) of the predictions on their own scale."""
    def predicted(phi: jax.Array) -> jax.Array:
        return predict(model.structure, data, model.patient_values(theta, phi))

    columns = [jax.jvp(predicted, (phi,), (jnp.zeros_like(phi).at[:, k].set(1.0),))
               for k in range(phi.shape[1])]
    f, jacobian = columns[0][0], jnp.stack([c[1] for c in columns], axis=-1)
    for k, error in enumerate(model.error_models().values()):
        if error.log_scale:
            here = (data["output"] == k)[..., None]
            jacobian = jnp.where(here, jacobian / jnp.maximum(f, 1e-290)[..., None], jacobian)
    jacobian = jnp.where(data["observed"][..., None], jacobian, 0.0)
    _, slope, bend = _row_derivatives(model, data, theta, f)
    masks = [data["output"] == k for k in range(len(model.structure.outputs))]
    gradient = jnp.stack([jnp.einsum("pn,pnk->pk", slope * m, jacobian) for m in masks], axis=1)
    information = jnp.stack([jnp.einsum("pn,pnk,pnl->pkl", -bend * m, jacobian, jacobian)
                             for m in masks], axis=1)
    return gradient, information, jacobian


def _inner(model: PopulationModel, data: Arrays, theta: Any, phi: jax.Array,
           sweeps: int) -> tuple[jax.Array, jax.Array]:
    """Damped Gauss-Newton on every patient at once; each accepts or refuses its own step."""
    mu, omega = population_location(model, theta)
    precision = jnp.diag(omega**-2)

    def objective(phi: jax.Array) -> jax.Array:
        value = patient_log_likelihood(model, data, theta, phi) \
            + patient_log_density(model, theta, phi)
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    def sweep(_: Any, state: Any) -> Any:
        phi, value, damping = state
        gradient, information, _ = _curvature(model, data, theta, phi)
        total = information.sum(axis=1) + precision[None]
        slope = gradient.sum(axis=1) - (phi - mu[None, :]) / omega[None, :] ** 2
        diagonal = jnp.einsum("pkk->pk", total)
        damped = total + jnp.eye(phi.shape[1])[None] * (damping[:, None] * diagonal)[:, None, :]
        move = jnp.linalg.solve(damped, slope[..., None])[..., 0]
        move = jnp.where(jnp.isfinite(move), jnp.clip(move, -3.0, 3.0), 0.0)
        trial = objective(phi + move)
        better = trial > value
        return (jnp.where(better[:, None], phi + move, phi), jnp.where(better, trial, value),
                jnp.clip(jnp.where(better, damping * 0.2, damping * 8.0), 1e-9, 1e6))

    first = (phi, objective(phi), jnp.full(phi.shape[0], 0.1))
    phi, value, _ = jax.lax.fori_loop(0, sweeps, sweep, first)
    return phi, value


def _shared_step(model: PopulationModel, data: Arrays, u: jax.Array, phi: jax.Array,
                 covariance: jax.Array, jacobian: jax.Array) -> jax.Array:
    """One Newton step on the population parameters the patients' phi do not carry (residual
    errors, typical values without spread), the uncertainty of phi included to second order."""
    own = np.array([n.startswith("sigma_") or (
        n.endswith("_pop") and n.removesuffix("_pop") not in model.spread) for n in model.free])
    if not own.any():
        return u
    places = np.flatnonzero(own)
    row_variance = jnp.einsum("pnk,pkl,pnl->pn", jacobian, covariance, jacobian)

    def objective(v: jax.Array) -> jax.Array:
        full = u.at[places].set(v)
        theta = to_theta(model, full)
        f = predict(model.structure, data, model.patient_values(theta, phi))
        value, _, bend = _row_derivatives(model, data, theta, f)
        return (value + 0.5 * bend * row_variance).sum() + log_prior(model, theta) \
            + log_jacobian(model, full)

    v = u[places]
    gradient = jax.grad(objective)(v)
    step = 1e-3  # curvature by differences: second derivatives through a solver are dear
    bend = jnp.stack([(jax.grad(objective)(v.at[k].add(step))[k] - gradient[k]) / step
                      for k in range(len(places))])
    move = jnp.clip(gradient / jnp.maximum(jnp.abs(bend), 1e-6), -0.5, 0.5)
    return u.at[places].add(jnp.where(jnp.isfinite(move), move, 0.0))


def _population_step(model: PopulationModel, theta: Any, phi: jax.Array,
                     covariance: jax.Array) -> dict[str, Any]:
    """Typical values and spreads from the conditional modes and their covariances."""
    updated = dict(theta)
    for k, p in enumerate(model.varying):
        name, spread = f"{p.name}_pop", f"omega_{p.name}"
        scale = model.scale(p.name)
        mu = scale.to_real(theta[name])
        if name not in model.fixed:
            prior = model.priors[name]
            centre = scale.to_real(jnp.asarray(prior.median))
            width = prior.numbers[-1]
            weight = phi.shape[0] / theta[spread] ** 2
            mu = (weight * phi[:, k].mean() + centre / width**2) / (weight + width**-2)
            updated[name] = scale.from_real(mu)
        if spread not in model.fixed:
            # as if two more patients had a spread of a third: it keeps omega off zero
            squares = ((phi[:, k] - mu) ** 2 + covariance[:, k, k]).sum() + 2 * 0.1
            updated[spread] = jnp.sqrt(squares / (phi.shape[0] + 2))
    return updated


def laplace_start(model: PopulationModel, data: Arrays, seed: int, rounds: int = 25) -> Start:
    """Modes, information and a population start by Laplace-EM from the best of many guesses.

    Every patient first takes the best of 200 draws around the priors' medians (peaks and slopes
    of its own data decide which is best), then Gauss-Newton and closed-form population updates
    alternate. A patient whose solve fails everywhere keeps the typical values and says so by a
    NaN in `log_likelihood`.
    """
    theta = {n: (model.priors[n].median if n in model.priors else model.fixed[n])
             for n in model.names}
    for n in model.spread:  # an omega's prior median is small where patients differ much
        theta[f"omega_{n}"] = model.fixed.get(f"omega_{n}", max(theta[f"omega_{n}"], 0.7))
    patients, k = data["time"].shape[0], len(model.spread)

    @jax.jit
    def guess(data: Arrays, key: jax.Array) -> jax.Array:
        mu, omega = population_location(model, theta)

        def one(best: Any, key: jax.Array) -> Any:
            phi = mu[None, :] + 1.5 * omega[None, :] * jax.random.normal(
                key, (patients, k))
            value = patient_log_likelihood(model, data, theta, phi) \
                + patient_log_density(model, theta, phi)
            better = value > best[1]
            return (jnp.where(better[:, None], phi, best[0]),
                    jnp.where(better, value, best[1])), None

        typical = jnp.broadcast_to(mu, (patients, k))
        first = (typical, patient_log_likelihood(model, data, theta, typical)
                 + patient_log_density(model, theta, typical))
        first = (first[0], jnp.where(jnp.isfinite(first[1]), first[1], -jnp.inf))
        return jax.lax.scan(one, first, jax.random.split(key, 200))[0][0]

    @jax.jit
    def sweep(data: Arrays, u: jax.Array, phi: jax.Array) -> Any:
        theta = to_theta(model, u)
        phi, _ = _inner(model, data, theta, phi, 6)
        _, information, jacobian = _curvature(model, data, theta, phi)
        _, omega = population_location(model, theta)
        covariance = jnp.linalg.inv(information.sum(axis=1) + jnp.diag(omega**-2)[None])
        covariance = jnp.where(jnp.isfinite(covariance), covariance, jnp.diag(omega**2)[None])
        new = from_theta(model, _population_step(model, theta, phi, covariance))
        return _shared_step(model, data, new, phi, covariance, jacobian), phi

    @jax.jit
    def finish(data: Arrays, u: jax.Array, phi: jax.Array) -> Any:
        theta = to_theta(model, u)
        phi, _ = _inner(model, data, theta, phi, 15)
        gradient, information, _ = _curvature(model, data, theta, phi)
        value = patient_log_likelihood(model, data, theta, phi)
        return phi, gradient, information, value

    @jax.jit
    def alone(data: Arrays, u: jax.Array, phi: jax.Array) -> Any:
        """A sweep where no parameter varies between patients."""
        none = jnp.zeros((*data["time"].shape, 0))
        return _shared_step(model, data, u, phi, jnp.zeros((patients, 0, 0)), none), phi

    u = from_theta(model, theta)
    if k == 0:
        phi = jnp.zeros((patients, 0))
        for _ in range(rounds):
            u, _ = alone(data, u, phi)
        empty = jnp.zeros((patients, len(model.structure.outputs), 0))
        return Start(u, phi, jnp.zeros((*empty.shape, 0)), empty,
                     patient_log_likelihood(model, data, to_theta(model, u), phi), rounds)
    phi = guess(data, jax.random.key(seed))
    moved, count = 1.0, 0
    while moved > 0.01 and count < rounds:
        before, count = u, count + 1
        u, phi = sweep(data, u, phi)
        moved = float(jnp.max(jnp.abs(u - before)))
    phi, gradient, information, value = finish(data, u, phi)
    usable = jnp.isfinite(information).all(axis=(1, 2, 3)) & jnp.isfinite(gradient).all(
        axis=(1, 2))
    information = jnp.where(usable[:, None, None, None], information, 0.0)
    linear = jnp.einsum("pokl,pl->pok", information, phi) + jnp.where(
        usable[:, None, None], gradient, 0.0)
    return Start(u, phi, information, linear, value, count)
