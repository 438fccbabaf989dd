"""Coordinates a sampler walks in: patients' phi from z, given the population."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from carpk.correlated import correlations
from carpk.empirical_bayes import Start, location_scores
from carpk.likelihood import (
    log_covariates,
    log_jacobian,
    log_prior,
    patient_log_density,
    patient_log_likelihood,
    population_location,
    to_theta,
)
from carpk.population_model import PopulationModel
from carpk.sensitivities import located_places, omegas, residual_rows
from carpk.small_matrices import (
    Rows,
    cholesky,
    inverse_of,
    multiplied,
    solve_lower,
    solve_upper,
)
from carpk.solve import Arrays

Parametrisation = Literal["informed", "noncentred", "centred"]

# The information at a mode overstates what is known away from it. Of 1, 0.4, 0.2, 0.1 and 0.03,
# a fifth measured best: 2200 gradients per effective sample against 5200 with all of it on 21
# real patients (stein_2019), 210 against 250 on 90 simulated ones.
_TRUSTED = 0.2


def informed(z: jax.Array, mu: jax.Array, low: Rows, information: jax.Array,
             linear: jax.Array) -> tuple[jax.Array, jax.Array]:
    """phi (P, K) from z (P, K), and ln |d phi / d z| (P,).

    With A = information + Omega^-1, phi = A^-1 (linear + Omega^-1 mu) + chol(A)^-T z: were the
    likelihood normal in phi, z would be standard normal whatever the population. It is a change
    of variables only, so the posterior is exact for any information.

    mu : (P, K), low : lower factor of Omega
    information : (P, K, K), linear : (P, K), at the patient's mode, frozen
    """
    size, precision = z.shape[1], inverse_of(low)
    factor = cholesky([{j: information[:, i, j] + precision[i].get(j, 0.0) for j in range(size)}
                       for i in range(size)])
    half = solve_lower(factor, [
        linear[:, i] + sum(w * mu[:, j] for j, w in precision[i].items()) for i in range(size)])
    phi = solve_upper(factor, [h + z[:, i] for i, h in enumerate(half)])
    return jnp.stack(phi, axis=1), -sum((jnp.log(factor[i][i]) for i in range(size)),
                                        jnp.zeros(z.shape[0]))


def noncentred(z: jax.Array, mu: jax.Array, low: Rows) -> tuple[jax.Array, jax.Array]:
    """phi = mu + low z, and ln |d phi / d z| (P,)."""
    away = multiplied(low, [z[:, k] for k in range(len(low))])
    return mu + jnp.stack(away, axis=1), jnp.broadcast_to(
        sum((jnp.log(row[k]) for k, row in enumerate(low)), jnp.zeros(())), z.shape[:1])


def to_phi(model: PopulationModel, data: Arrays, theta: Mapping[str, Any], z: jax.Array,
           start: Arrays, parametrisation: Parametrisation) -> tuple[jax.Array, jax.Array]:
    """phi (P, K) and ln |d phi / d z| (P,) from z (P, K).

    start : what `frozen` keeps of a Start
    Centred ones are phi themselves, but for a place and a scale that nothing moves: those of the
    informed ones at the start.
    """
    if z.shape[1] == 0:
        return z, jnp.zeros(z.shape[0])
    if parametrisation == "centred":
        theta = start["theta"]
    mu, low = population_location(model, data, theta) if model.mixture is None else \
        class_location(model, data, theta, start["classes"])
    if parametrisation == "noncentred":
        return noncentred(z, mu, low)
    # the information of an output's rows scales with its residual variance while that moves
    information, linear = jnp.zeros(()), jnp.zeros(())
    for k, output in enumerate(model.error_models()):
        names = [n for n, r in model.residuals.items() if r.output == output]
        weight = (start["theta"][names[0]] / theta[names[0]]) ** 2 if len(names) == 1 else 1.0
        information = information + weight * start["information"][:, k]
        linear = linear + weight * start["linear"][:, k]
    return informed(z, mu, low, information, linear)


def class_location(model: PopulationModel, data: Arrays, theta: Mapping[str, Any],
                   classes: jax.Array) -> tuple[jax.Array, Rows]:
    """Mean and lower factor of the covariance of each patient's phi in a mixture.

    classes : (P, C), how likely the patient is of each class
    """
    assert model.mixture is not None
    mu, low = population_location(model, {**data, "classes": classes}, theta)
    covariance = [{j: sum(row[m] * low[j][m] for m in row if m in low[j])
                   + jnp.zeros(mu.shape[0]) for j in range(i + 1)} for i, row in enumerate(low)]
    places = [model.spread.index(n) for n in model.mixture.parameters]
    shifts = [model.mixture.shifts(theta, n) for n in model.mixture.parameters]
    for c in range(model.mixture.count):
        away = [s[c] - sum(classes[:, k] * s[k] for k in range(len(s))) for s in shifts]
        for a, i in enumerate(places):
            for b, j in enumerate(places):
                if j <= i:
                    covariance[i][j] = covariance[i][j] + classes[:, c] * away[a] * away[b]
    return mu, cholesky(covariance)


def to_z(model: PopulationModel, data: Arrays, theta: Mapping[str, Any], phi: jax.Array,
         start: Arrays, parametrisation: Parametrisation) -> jax.Array:
    """z (P, K) of a phi (P, K): the inverse of `to_phi`, which is linear in z."""
    def away(z: jax.Array) -> jax.Array:
        return to_phi(model, data, theta, z, start, parametrisation)[0]

    none = jnp.zeros_like(phi)
    if phi.shape[1] == 0:
        return none
    middle = away(none)
    slope = jnp.stack([away(none.at[:, k].set(1.0)) - middle for k in range(phi.shape[1])], axis=2)
    return jnp.linalg.solve(slope, (phi - middle)[:, :, None])[:, :, 0]


def frozen(model: PopulationModel, start: Start, trusted: float = _TRUSTED) -> Arrays:
    """The part of a start the coordinates are built on, as arrays a compiled program reads.

    trusted : share of the information at the modes that is taken
    """
    return {"information": trusted * start.information, "linear": trusted * start.linear,
            "theta": {k: jnp.asarray(v) for k, v in to_theta(model, start.u).items()},
            **({} if start.classes is None else {"classes": start.classes})}


def log_density(model: PopulationModel, data: Arrays, start: Arrays, u: jax.Array, z: jax.Array,
                parametrisation: Parametrisation) -> jax.Array:
    """log_joint in the sampler's coordinates, Jacobians included.

    u : (Q,), free population parameters on the real line; z : (P, K)
    """
    theta = to_theta(model, u)
    return patient_terms(model, data, start, theta, z, parametrisation).sum() \
        + population_terms(model, data, theta, u)


def patient_terms(model: PopulationModel, data: Arrays, start: Arrays, theta: Mapping[str, Any],
                  z: jax.Array, parametrisation: Parametrisation) -> jax.Array:
    """(P,): what each patient adds to `log_density`; of those who only fill up the arrays
    (`carpk.padding`) that z is standard normal, up to its constant."""
    phi, volume = to_phi(model, data, theta, z, start, parametrisation)
    each = (patient_log_likelihood(model, data, theta, phi)
            + patient_log_density(model, data, theta, phi) + volume)
    if "stands_for" in data:
        each = jnp.where(data["observed"].any(axis=1), each, -0.5 * (z**2).sum(axis=1))
    return each


def population_terms(model: PopulationModel, data: Arrays, theta: Mapping[str, Any],
                     u: jax.Array) -> jax.Array:
    """What the population alone adds to `log_density`."""
    return (log_covariates(model, data, theta) + log_prior(model, theta, data)
            + log_jacobian(model, u))


def population_spread(model: PopulationModel, start: Start, data: Arrays) -> jax.Array:
    """(Q,): a rough posterior SD of each free population parameter on the real line, for the
    first metric and the dispersion of the chains' starts."""
    theta = to_theta(model, start.u)
    omega = omegas(model, theta)
    seen = data["observed"].any(axis=1)  # others fill up the arrays
    patients = seen.sum()
    known = start.information.sum(axis=1) + jnp.diag(omega**-2)[None]
    left = jnp.einsum("p,pkk->k", 1.0 * seen, jnp.linalg.inv(known)) / patients if model.sds \
        else omega
    located = dict(zip(located_places(model), _located_sds(model, start, data, omega, left),
                       strict=True))
    correlated = {n for block in model.blocks for n in correlations(block)}
    sds = []
    for k, name in enumerate(model.free):
        _, slope = jax.jvp(model.priors[name].scale.from_real, (start.u[k],), (jnp.ones(()),))
        if k in located:
            sd = located[k]
        elif name in model.sds:
            i, each = model.sds.index(name), model.sds.count(name)
            sd = (omega[i] + left[i] / omega[i]) / (2 * patients * each) ** 0.5 / slope
        elif name in model.residuals:
            rows = residual_rows(model, data, name).sum()
            sd = theta[name] / jnp.sqrt(jnp.maximum(2 * rows, 2)) / slope
        else:
            sd = jnp.asarray(patients**-0.5 if name in correlated else 0.3)
        sds.append(jnp.clip(sd, 0.01, 2.0))
    return jnp.stack(sds)


def _located_sds(model: PopulationModel, start: Start, data: Arrays, omega: jax.Array,
                 left: jax.Array) -> list[jax.Array]:
    """Of typical values and coefficients: as if each patient's phi were known, but for the
    share of its variance that the data leave open."""
    _, information = location_scores(model, data, start.u, start.phi)
    places = located_places(model)
    if not len(places):
        return []
    wider = 1.0 + (left / omega**2).max()
    # the b of a level's units and the typical value of all add up: it takes the prior of the b
    known = [1.0 if any(level.of(model.free[k]) for level in model.levels) else 1e-6
             for k in places]
    sds = jnp.sqrt(wider * jnp.diagonal(jnp.linalg.inv(information + jnp.diag(
        jnp.asarray(known)))))
    return [sds[i] for i in range(len(places))]
