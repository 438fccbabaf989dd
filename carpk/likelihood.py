"""The only density: log p(y | phi) with censoring, log p(phi | population), log prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from carpk.population_model import PopulationModel
from carpk.solve import Arrays, predict


def row_log_likelihood(model: PopulationModel, data: Arrays, theta: Mapping[str, Any],
                       predicted: jax.Array) -> jax.Array:
    """(P, N): each observation's log density or, where censored, log probability; 0 on padding.

    predicted : (P, N), unit of each row's output
    """
    rows = jnp.zeros_like(predicted)
    for k, (output, error) in enumerate(model.error_models().items()):
        here = data["observed"] & (data["output"] == k)
        # rows of other outputs and padding get values that are finite under any error model
        safe = jnp.where(here, predicted, 1.0)
        lower, upper = (jnp.where(here, data[end], 1.0) for end in ("lower", "upper"))
        value = error.log_likelihood(lower, upper, safe, model.sigma(theta, output))
        rows = jnp.where(here, value, rows)
    return rows


def patient_log_likelihood(model: PopulationModel, data: Arrays, theta: Mapping[str, Any],
                           phi: jax.Array) -> jax.Array:
    """(P,): log p(y_i | phi_i); NaN where the patient's solve failed.

    phi : (P, K), the varying parameters on their link scale
    """
    predicted = predict(model.structure, data, model.patient_values(theta, phi))
    return row_log_likelihood(model, data, theta, predicted).sum(axis=1)


def population_location(model: PopulationModel, theta: Mapping[str, Any]) \
        -> tuple[jax.Array, jax.Array]:
    """mu (K,) and omega (K,): where the patients' phi lie and how they spread, link scale."""
    mu = [model.scale(n).to_real(theta[f"{n}_pop"]) for n in model.spread]
    omega = [theta[f"omega_{n}"] for n in model.spread]
    if not mu:
        return jnp.zeros(0), jnp.ones(0)
    return jnp.stack([jnp.asarray(m) for m in mu]), jnp.stack([jnp.asarray(o) for o in omega])


def patient_log_density(model: PopulationModel, theta: Mapping[str, Any],
                        phi: jax.Array) -> jax.Array:
    """(P,): log p(phi_i | population), on the link scale."""
    mu, omega = population_location(model, theta)
    z = (phi - mu[None, :]) / omega[None, :]
    return jnp.sum(-0.5 * z**2 - jnp.log(omega)[None, :] - 0.9189385332046727, axis=1)


def log_prior(model: PopulationModel, theta: Mapping[str, Any]) -> jax.Array:
    """Log prior density of the free population parameters, natural scale."""
    return sum((model.priors[n].log_density(theta[n]) for n in model.free), jnp.zeros(()))


def log_joint(model: PopulationModel, data: Arrays, theta: Mapping[str, Any],
              eta: jax.Array) -> jax.Array:
    """log p(y, eta, theta): the density every estimator uses.

    theta : every population parameter, natural scale, fixed ones included
    eta : (P, K), deviations from the typical values on the link scale
    """
    phi = eta + population_location(model, theta)[0][None, :]
    return (patient_log_likelihood(model, data, theta, phi).sum()
            + patient_log_density(model, theta, phi).sum() + log_prior(model, theta))


def to_theta(model: PopulationModel, u: jax.Array) -> dict[str, Any]:
    """Population values by name from the free ones on the real line (Q,), in model.free order."""
    free = {n: model.priors[n].scale.from_real(u[k]) for k, n in enumerate(model.free)}
    return {n: free[n] if n in free else jnp.asarray(float(model.fixed[n])) for n in model.names}


def from_theta(model: PopulationModel, theta: Mapping[str, Any]) -> jax.Array:
    """(Q,): the free population parameters on the real line."""
    return jnp.stack([jnp.asarray(model.priors[n].scale.to_real(jnp.asarray(theta[n], float)))
                      for n in model.free])


def log_jacobian(model: PopulationModel, u: jax.Array) -> jax.Array:
    """ln |d theta / d u| of `to_theta`."""
    total = jnp.zeros(())
    for k, n in enumerate(model.free):
        _, slope = jax.jvp(model.priors[n].scale.from_real, (u[k],), (jnp.ones(()),))
        total = total + jnp.log(slope)
    return total
