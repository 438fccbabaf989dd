"""-2 log-likelihood of each patient by importance sampling: exact but for Monte Carlo noise."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, logsumexp

from carpk.conditional import by_entries
from carpk.likelihood import patient_log_density, patient_log_likelihood, to_theta
from carpk.population_model import PopulationModel
from carpk.small_matrices import cholesky
from carpk.solve import Arrays

_FREEDOM = 5.0  # of the proposal's Student t: heavier tails than any posterior met here
_PILOT = 500  # draws that only shape the proposal
_LOG_2PI = 1.8378770664093453


class Sampled(NamedTuple):
    """patients : (P,), -2 log-likelihoods with the constant; se : (P,), Monte Carlo SEs;
    log_weights : (M, P), of the draws."""

    patients: jax.Array
    se: jax.Array
    log_weights: jax.Array


def importance_sampled(model: PopulationModel, data: Arrays, u: jax.Array, centre: jax.Array,
                       axes: jax.Array, draws: int, seed: int) -> Sampled:
    """log p(y_i) as the mean of p(y_i, phi) / q_i(phi) over draws from q_i.

    q_i is a multivariate t around the mode with the curvature's inverse as its scale, moved once
    to the mean and covariance that a pilot of draws gives.
    centre : (P, K), modes; axes : (P, K, K), W with W W' the first scale
    """
    run = jax.jit(lambda data, *args: _draw(model, data, *args), static_argnames=())
    first, second = jax.random.split(jax.random.key(seed))
    pilot, phi = run(data, u, centre, axes, jax.random.split(first, _PILOT))
    centre, axes = jax.jit(_reshaped)(pilot, phi, centre, axes)
    weights, _ = run(data, u, centre, axes, jax.random.split(second, draws))
    highest = jnp.max(weights, axis=0)
    share = jnp.exp(weights - highest)
    relative = jnp.std(share, axis=0) / jnp.mean(share, axis=0) / draws**0.5
    return Sampled(-2.0 * (logsumexp(weights, axis=0) - jnp.log(draws)), 2.0 * relative, weights)


def _draw(model: PopulationModel, data: Arrays, u: jax.Array, centre: jax.Array,
          axes: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log weights (M, P) and draws (M, P, K); a draw whose solve failed weighs nothing."""
    theta, (patients, k) = to_theta(model, u), centre.shape
    low = cholesky(by_entries(jnp.einsum("pkm,plm->pkl", axes, axes)))
    volume = sum((jnp.log(row[i]) for i, row in enumerate(low)), jnp.zeros(patients))
    constant = gammaln((_FREEDOM + k) / 2) - gammaln(_FREEDOM / 2) \
        - 0.5 * k * jnp.log(_FREEDOM * jnp.pi)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        normal, scale = jax.random.split(key)
        z = jax.random.normal(normal, (patients, k))
        z = z / jnp.sqrt(2.0 * jax.random.gamma(scale, _FREEDOM / 2, (patients, 1)) / _FREEDOM)
        phi = centre + jnp.stack([sum(row[j] * z[:, j] for j in range(i + 1))
                                  for i, row in enumerate(low)], axis=1) if k else centre
        proposed = constant - volume - 0.5 * (_FREEDOM + k) * jnp.log1p(
            jnp.sum(z**2, axis=1) / _FREEDOM)
        target = patient_log_likelihood(model, data, theta, phi) \
            + patient_log_density(model, data, theta, phi)
        return jnp.where(jnp.isfinite(target), target - proposed, -jnp.inf), phi

    return jax.lax.map(one, keys)


def _reshaped(log_weights: jax.Array, phi: jax.Array, centre: jax.Array, axes: jax.Array) \
        -> tuple[jax.Array, jax.Array]:
    """Centre and axes of the draws' own mean and covariance; where few of them carry the weight,
    mostly the ones there were."""
    weight = jax.nn.softmax(log_weights, axis=0)
    effective = 1.0 / jnp.sum(weight**2, axis=0)
    trust = effective / (effective + 20.0)
    mean = jnp.einsum("mp,mpk->pk", weight, phi)
    away = phi - mean[None]
    covariance = jnp.einsum("mp,mpk,mpl->pkl", weight, away, away)
    before = jnp.einsum("pkm,plm->pkl", axes, axes)
    blend = trust[:, None, None] * covariance + (1 - trust)[:, None, None] * before
    low = cholesky(by_entries(blend))
    size = centre.shape[1]
    lower = jnp.stack([jnp.stack([low[i].get(j, jnp.zeros(centre.shape[0]))
                                  for j in range(size)], axis=1) for i in range(size)], axis=1) \
        if size else axes
    return centre + trust[:, None] * (mean - centre), lower
