"""Coordinates a sampler walks in: patients' phi from z, given the population."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from carpk.empirical_bayes import Start
from carpk.likelihood import (
    log_jacobian,
    log_prior,
    patient_log_density,
    patient_log_likelihood,
    population_location,
    to_theta,
)
from carpk.population_model import PopulationModel
from carpk.solve import Arrays

Parametrisation = Literal["informed", "noncentred"]

# The information at a mode overstates what is known away from it. Of 1, 0.4, 0.2, 0.1 and 0.03,
# a fifth measured best: 2200 gradients per effective sample against 5200 with all of it on 21
# real patients (stein_2019), 210 against 250 on 90 simulated ones.
_TRUSTED = 0.2


def _cholesky(a: list[list[Any]]) -> list[list[Any]]:
    """Lower factor of a small matrix held as (P,) entries: unrolled, so that it fuses over the
    patients and calls no LAPACK, whose batched calls stall chains that run side by side."""
    size = len(a)
    low: list[list[Any]] = [[None] * size for _ in range(size)]
    for j in range(size):
        low[j][j] = jnp.sqrt(a[j][j] - sum(low[j][k] ** 2 for k in range(j)))
        for i in range(j + 1, size):
            low[i][j] = (a[i][j] - sum(low[i][k] * low[j][k] for k in range(j))) / low[j][j]
    return low


def _solve_lower(low: list[list[Any]], b: list[Any]) -> list[Any]:
    x: list[Any] = []
    for i, row in enumerate(b):
        x.append((row - sum(low[i][k] * x[k] for k in range(i))) / low[i][i])
    return x


def _solve_upper(low: list[list[Any]], b: list[Any]) -> list[Any]:
    """Solves with the transpose of `low`."""
    size = len(b)
    x: list[Any] = [None] * size
    for i in reversed(range(size)):
        x[i] = (b[i] - sum(low[k][i] * x[k] for k in range(i + 1, size))) / low[i][i]
    return x


def informed(z: jax.Array, mu: jax.Array, omega: jax.Array, information: jax.Array,
             linear: jax.Array) -> tuple[jax.Array, jax.Array]:
    """phi (P, K) from z (P, K), and ln |d phi / d z| (P,).

    With A = information + diag(omega^-2), phi = A^-1 (linear + mu / omega^2) + chol(A)^-T z: were
    the likelihood normal in phi, z would be standard normal whatever the population. It is a
    change of variables only, so the posterior is exact for any information.

    information : (P, K, K), linear : (P, K), at the patient's mode, frozen
    """
    size = z.shape[1]
    a = [[information[:, i, j] + (omega[i] ** -2 if i == j else 0.0) for j in range(size)]
         for i in range(size)]
    low = _cholesky(a)
    half = _solve_lower(low, [linear[:, i] + mu[i] / omega[i] ** 2 for i in range(size)])
    phi = _solve_upper(low, [h + z[:, i] for i, h in enumerate(half)])
    volume = jnp.stack([jnp.log(low[i][i]) for i in range(size)])
    return jnp.stack(phi, axis=1), -volume.sum(axis=0)


def noncentred(z: jax.Array, mu: jax.Array, omega: jax.Array) -> tuple[jax.Array, jax.Array]:
    """phi = mu + omega z, and ln |d phi / d z| (P,)."""
    return mu[None, :] + omega[None, :] * z, jnp.broadcast_to(jnp.log(omega).sum(), z.shape[:1])


def to_phi(model: PopulationModel, theta: Mapping[str, Any], z: jax.Array, start: Arrays,
           parametrisation: Parametrisation) -> tuple[jax.Array, jax.Array]:
    """phi (P, K) and ln |d phi / d z| (P,) from z (P, K).

    start : what `frozen` keeps of a Start
    """
    if z.shape[1] == 0:
        return z, jnp.zeros(z.shape[0])
    mu, omega = population_location(model, theta)
    if parametrisation == "noncentred":
        return noncentred(z, mu, omega)
    # the information of an output's rows scales with its residual variance while that moves
    information, linear = jnp.zeros(()), jnp.zeros(())
    for k, (output, error) in enumerate(model.error_models().items()):
        names = [f"sigma_{output}_{s}" for s in error.sigmas]
        weight = (start["theta"][names[0]] / theta[names[0]]) ** 2 if len(names) == 1 else 1.0
        information = information + weight * start["information"][:, k]
        linear = linear + weight * start["linear"][:, k]
    return informed(z, mu, omega, information, linear)


def frozen(model: PopulationModel, start: Start) -> Arrays:
    """The part of a start the coordinates are built on, as arrays a compiled program reads."""
    return {"information": _TRUSTED * start.information, "linear": _TRUSTED * start.linear,
            "theta": {k: jnp.asarray(v) for k, v in to_theta(model, start.u).items()}}


def log_density(model: PopulationModel, data: Arrays, start: Arrays, u: jax.Array, z: jax.Array,
                parametrisation: Parametrisation) -> jax.Array:
    """log_joint in the sampler's coordinates, Jacobians included.

    u : (Q,), free population parameters on the real line; z : (P, K)
    """
    theta = to_theta(model, u)
    phi, volume = to_phi(model, theta, z, start, parametrisation)
    return (patient_log_likelihood(model, data, theta, phi).sum()
            + patient_log_density(model, theta, phi).sum() + volume.sum()
            + log_prior(model, theta) + log_jacobian(model, u))


