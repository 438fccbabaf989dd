"""-2 log-likelihood of each patient by importance sampling: exact but for Monte Carlo noise."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from carpk.conditional import by_entries
from carpk.likelihood import patient_log_density, patient_log_likelihood, to_theta
from carpk.population_model import PopulationModel
from carpk.small_matrices import Rows, cholesky, multiplied
from carpk.solve import Arrays

FREEDOM = 5.0  # of the proposal's Student t: heavier tails than any posterior met here
_ROUND = 500  # draws of one call; the first only shape the proposal


class Sampled(NamedTuple):
    """patients : (P,), -2 log-likelihoods with the constant; se : (P,), Monte Carlo SEs;
    log_weights : (M, P), of the draws, M at least those asked for."""

    patients: np.ndarray
    se: np.ndarray
    log_weights: np.ndarray


def importance_sampled(model: PopulationModel, data: Arrays, u: Any, centre: Any,
                       axes: Any, draws: int, seed: int) -> Sampled:
    """log p(y_i) as the mean of p(y_i, phi) / q_i(phi) over draws from q_i.

    q_i is a multivariate t around the mode with the curvature's inverse as its scale, moved once
    to the mean and covariance that a pilot of draws gives.
    centre : (P, K), modes; axes : (P, K, K), W with W W' the first scale
    """
    random = np.random.default_rng(seed)
    run = jax.jit(lambda data, *args: weighed(model, data, *args))
    patients, k = centre.shape

    def draw() -> np.ndarray:
        """Draws (M, P, K) of an uncorrelated t."""
        scale = random.chisquare(FREEDOM, size=(_ROUND, patients, 1)) / FREEDOM
        return random.normal(size=(_ROUND, patients, k)) / np.sqrt(scale)

    low = jax.jit(_lower)(axes)
    pilot, phi = run(data, u, centre, low, draw())
    centre, low = jax.jit(_reshaped)(pilot, phi, centre, low)
    weights = np.concatenate([np.asarray(run(data, u, centre, low, draw())[0])
                              for _ in range(-(-draws // _ROUND))])
    highest = weights.max(axis=0)
    share = np.exp(weights - highest)
    mean = share.mean(axis=0)
    return Sampled(-2.0 * (highest + np.log(mean)),
                   2.0 * share.std(axis=0, ddof=1) / mean / len(share)**0.5, weights)


def weighed(model: PopulationModel, data: Arrays, u: jax.Array, centre: jax.Array, low: Any,
            z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log weights (M, P) and the draws (M, P, K); one whose solve failed weighs nothing."""
    theta, (patients, k) = to_theta(model, u), centre.shape
    volume = sum((jnp.log(row[i]) for i, row in enumerate(low)), jnp.zeros(patients))
    constant = gammaln((FREEDOM + k) / 2) - gammaln(FREEDOM / 2) \
        - 0.5 * k * jnp.log(FREEDOM * jnp.pi)

    def one(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        phi = centre + jnp.stack(multiplied(low, [z[:, i] for i in range(k)]), axis=1) \
            if k else centre
        proposed = constant - volume - 0.5 * (FREEDOM + k) * jnp.log1p(
            jnp.sum(z**2, axis=1) / FREEDOM)
        target = patient_log_likelihood(model, data, theta, phi) \
            + patient_log_density(model, data, theta, phi)
        return jnp.where(jnp.isfinite(target), target - proposed, -jnp.inf), phi

    return jax.lax.map(one, z)


def _lower(axes: jax.Array) -> Rows:
    """The lower factor of W W'."""
    return _factor(jnp.einsum("pkm,plm->pkl", axes, axes))


def _factor(matrices: jax.Array) -> Rows:
    return cholesky([{j: row[j] for j in range(i + 1)}
                     for i, row in enumerate(by_entries(matrices))])


def _reshaped(log_weights: jax.Array, phi: jax.Array, centre: jax.Array, low: Rows) \
        -> tuple[jax.Array, Rows]:
    """Centre and factor of the draws' own mean and covariance; where few of them carry the
    weight, mostly those there were."""
    weight = jax.nn.softmax(log_weights, axis=0)
    effective = 1.0 / jnp.sum(weight**2, axis=0)
    trust = effective / (effective + 20.0)
    mean = jnp.einsum("mp,mpk->pk", weight, phi)
    away = phi - mean[None]
    covariance = jnp.einsum("mp,mpk,mpl->pkl", weight, away, away)
    size = centre.shape[1]
    before = [[sum(low[i][m] * low[j][m] for m in range(min(i, j) + 1)) for j in range(size)]
              for i in range(size)]
    blended = [{j: trust * covariance[:, i, j] + (1.0 - trust) * before[i][j]
                for j in range(i + 1)} for i in range(size)]
    return centre + trust[:, None] * (mean - centre), cholesky(blended)
