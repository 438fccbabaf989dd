"""The only density: log p(y | phi) with censoring, log p(phi | population), log prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from carpk.changes import changing_parameters, effects_over_time, epochs_of, moves, over_time
from carpk.classes import shares_log_density
from carpk.cohort import Design
from carpk.correlated import correlations
from carpk.population_model import PopulationModel
from carpk.priors import lkj_log_density, lkj_log_volume
from carpk.small_matrices import (
    Rows,
    cholesky,
    correlation_factor,
    partial_correlations,
    solve_lower,
)
from carpk.solve import Arrays, arrays, predict
from carpk.tails import TAILS


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
        sigma = model.sigma(theta, output)
        value = error.log_likelihood(lower, upper, safe, sigma)
        if model.censoring == "M4" and not (error.log_scale or error.binary):
            # given that every level is above 0
            none = jnp.zeros_like(safe)
            value = value - error.log_likelihood(none, none + jnp.inf, safe, sigma)
        rows = jnp.where(here, value, rows)
    return rows


def data_of(model: PopulationModel, design: Design) -> Arrays:
    """What a compiled program reads of a design: `arrays`, the columns of the effects and, where
    parameters change in a patient, its epochs."""
    epochs = epochs_of(model, design)
    data = {**arrays(design, model.structure, model.steps, epochs=epochs,
                     changing=changing_parameters(model)),
            "effects": {k: jnp.asarray(v) for k, v in
                        model.effect_columns(design.covariates).items()}}
    return data if epochs is None else {**data, "over_time": {
        k: jnp.asarray(v) for k, v in effects_over_time(model, design, epochs).items()}}


def patient_log_likelihood(model: PopulationModel, data: Arrays, theta: Mapping[str, Any],
                           phi: jax.Array) -> jax.Array:
    """(P,): log p(y_i | phi_i); NaN where the patient's solve failed.

    phi : (P, K), the varying parameters on their link scale, and the kappas of occasions
    """
    predicted = predicted_rows(model, data, theta, phi)
    return row_log_likelihood(model, data, theta, predicted).sum(axis=1)


def predicted_rows(model: PopulationModel, data: Arrays, theta: Mapping[str, Any],
                   phi: jax.Array) -> jax.Array:
    """(P, N): each patient's predictions, unit of each row's output; NaN where a solve failed.

    Where `data` was filled up (`carpk.padding`) it says whose parameters a patient is solved with.
    """
    if "stands_for" in data:
        phi = phi[data["stands_for"]]
    values = model.patient_values(theta, data["effects"], phi)
    if "epochs" not in data:
        return predict(model.structure, data, values)
    return predict(model.structure, data, {**values, **moves(model, theta, phi)},
                   lambda v: over_time(model, data["over_time"], v))


def population_location(model: PopulationModel, data: Mapping[str, Any], theta: Mapping[str, Any]) \
        -> tuple[jax.Array, Rows]:
    """Where the patients' phi lie and how they spread, link scale.

    returns : mu (P, K), and the lower factor of their covariance Omega (K, K), which holds the
        omegas and gammas alone where nothing is correlated
    Of a mixture mu is the mean over the classes, by `data["classes"]` (P, C) where that says
    which class a patient is of.
    """
    patients = data["time"].shape[0]
    mu = [jnp.broadcast_to(model.location(theta, data["effects"], n), (patients,))
          + class_shift(model, data, theta, n) for n in model.spread]
    mu += [jnp.zeros(patients)] * len(model.kappas)
    low: Rows = [{k: jnp.asarray(theta[n])} for k, n in enumerate(model.sds)]
    for block in model.blocks:
        places = [model.spread.index(n) for n in block]
        for i, row in zip(places, correlation_rows(model, theta, block), strict=True):
            low[i] = {places[j]: theta[f"omega_{model.spread[i]}"] * r for j, r in row.items()}
    return jnp.stack(mu, axis=1) if mu else jnp.zeros((patients, 0)), low


def class_shift(model: PopulationModel, data: Mapping[str, Any], theta: Mapping[str, Any],
                parameter: str) -> Any:
    """How far a parameter lies above its value in class 1: (P,) where `data["classes"]` says
    which class the patients are of, else the mean over the classes; link scale."""
    if model.mixture is None or parameter not in model.mixture.parameters:
        return 0.0
    shifts = model.mixture.shifts(theta, parameter)
    if "classes" in data:
        return sum(data["classes"][:, k] * s for k, s in enumerate(shifts))
    return sum(w * s for w, s in zip(model.mixture.shares(theta), shifts, strict=True))


def correlation_rows(model: PopulationModel, theta: Mapping[str, Any], block: tuple[str, ...]) \
        -> Rows:
    """The lower factor of a block's correlation matrix."""
    entries = iter(correlations(block))
    return cholesky([{**{j: theta[next(entries)] for j in range(i)}, i: 1.0}
                     for i in range(len(block))])


def patient_log_density(model: PopulationModel, data: Arrays, theta: Mapping[str, Any],
                        phi: jax.Array) -> jax.Array:
    """(P,): log p(phi_i | population), on the link scale; of a mixture summed over the classes,
    but for patients whose class `data["classes"]` knows."""
    if model.mixture is not None and "classes" not in data:
        return jax.scipy.special.logsumexp(class_log_densities(model, data, theta, phi), axis=1)
    mu, low = population_location(model, data, theta)
    z = solve_lower(low, [phi[:, k] - mu[:, k] for k in range(len(low))])
    shape = TAILS[model.etas].log_density
    return sum((shape(x) - jnp.log(row[k]) for k, (x, row) in enumerate(zip(z, low, strict=True))),
               jnp.zeros(phi.shape[0]))


def class_log_densities(model: PopulationModel, data: Mapping[str, Any],
                        theta: Mapping[str, Any], phi: jax.Array) -> jax.Array:
    """(P, C): ln of each class's share times p(phi_i | class), link scale."""
    assert model.mixture is not None
    each = []
    for k, share in enumerate(model.mixture.shares(theta)):
        known = jnp.zeros((phi.shape[0], model.mixture.count)).at[:, k].set(1.0)
        each.append(jnp.log(share) + patient_log_density(
            model, {**data, "classes": known}, theta, phi))
    return jnp.stack(each, axis=1)


def log_prior(model: PopulationModel, theta: Mapping[str, Any]) -> jax.Array:
    """Log prior density of the free population parameters, natural scale."""
    scales = _scales(model, theta)
    joint = {*(n for block in _free_blocks(model) for n in correlations(block)),
             *_free_shares(model), *scales}
    total = sum((model.priors[n].log_density(theta[n]) for n in model.free if n not in joint),
                jnp.zeros(()))
    for block in _free_blocks(model):
        first, partial = model.priors[correlations(block)[0]], _partial_of(model, theta, block)
        if first.family == "lkj":
            total = total + lkj_log_density(first.numbers[0], partial)
        else:  # of an earlier posterior: a prior of each partial correlation
            total = total - lkj_log_volume(partial) + sum(
                model.priors[n].log_density(z) for n, z in _by_name(block, partial).items())
    if model.mixture and _free_shares(model):
        total = total + shares_log_density(model.mixture, model.priors, theta)
    for n, scale in scales.items():
        total = total + model.priors[n].log_density(theta[n] / scale) - jnp.log(scale)
    if model.earlier is not None:
        values = dict(theta)
        for block in model.blocks:
            values |= _by_name(block, _partial_of(model, theta, block))
        total = total + model.earlier.log_dependence(
            {n: p.scale.to_real(values[n]) for n, p in model.earlier.priors.items()})
    return total


def _scales(model: PopulationModel, theta: Mapping[str, Any]) -> dict[str, Any]:
    """The scale of each free coefficient under a horseshoe."""
    found = model.horseshoe.scales({**model.fixed, **theta}) if model.horseshoe else {}
    return {n: scale for n, scale in found.items() if n not in model.fixed}


def _partial_of(model: PopulationModel, theta: Mapping[str, Any], block: tuple[str, ...]) -> Rows:
    """The partial correlations of a block."""
    return partial_correlations(correlation_rows(model, theta, block))


def _by_name(block: tuple[str, ...], partial: Rows) -> dict[str, Any]:
    """A block's partial correlations by the names of its correlations."""
    return dict(zip(correlations(block), (z for row in partial for z in row.values()),
                    strict=True))


def log_joint(model: PopulationModel, data: Arrays, theta: Mapping[str, Any],
              eta: jax.Array) -> jax.Array:
    """log p(y, eta, theta): the density every estimator uses.

    theta : every population parameter, natural scale, fixed ones included
    eta : (P, K), deviations from the patients' typical values on the link scale
    """
    phi = eta + population_location(model, data, theta)[0]
    return (patient_log_likelihood(model, data, theta, phi).sum()
            + patient_log_density(model, data, theta, phi).sum() + log_prior(model, theta))


def to_theta(model: PopulationModel, u: jax.Array) -> dict[str, Any]:
    """Population values by name from the free ones on the real line (Q,), in model.free order.

    In the place of a correlation u holds the partial one, in that of a share its fraction, of a
    coefficient under a horseshoe the coefficient over its scale.
    """
    free = {n: model.priors[n].scale.from_real(u[k]) for k, n in enumerate(model.free)}
    free |= {n: free[n] * scale for n, scale in _scales(model, free).items()}
    if model.mixture and _free_shares(model):
        free |= model.mixture.of_fractions(free)[0]
    for block in _free_blocks(model):
        low = correlation_factor(_partial(block, free))
        entries = iter(correlations(block))
        for i, row in enumerate(low):
            for j in range(i):
                free[next(entries)] = sum(row[k] * low[j][k] for k in range(j + 1))
    return {n: free[n] if n in free else jnp.asarray(float(model.fixed[n])) for n in model.names}


def from_theta(model: PopulationModel, theta: Mapping[str, Any]) -> jax.Array:
    """(Q,): the free population parameters on the real line."""
    free = {n: jnp.asarray(theta[n], float) for n in model.free}
    for block in _free_blocks(model):
        free |= _by_name(block, _partial_of(model, free, block))
    if model.mixture and _free_shares(model):
        free |= model.mixture.fractions(free)
    free |= {n: free[n] / scale for n, scale in _scales(model, free).items()}
    return jnp.stack([jnp.asarray(model.priors[n].scale.to_real(v)) for n, v in free.items()])


def log_jacobian(model: PopulationModel, u: jax.Array) -> jax.Array:
    """ln |d theta / d u| of `to_theta`."""
    total = jnp.zeros(())
    for k, n in enumerate(model.free):
        _, slope = jax.jvp(model.priors[n].scale.from_real, (u[k],), (jnp.ones(()),))
        total = total + jnp.log(slope)
    if model.horseshoe:
        values = {n: model.priors[n].scale.from_real(u[k]) for k, n in enumerate(model.free)}
        total = total + sum(map(jnp.log, _scales(model, values).values()))
    for block in _free_blocks(model):
        partial = {n: jnp.tanh(u[model.free.index(n)]) for n in correlations(block)}
        total = total + lkj_log_volume(_partial(block, partial))
    if model.mixture and (shares := _free_shares(model)):
        total = total + model.mixture.of_fractions(
            {n: model.priors[n].scale.from_real(u[model.free.index(n)]) for n in shares})[1]
    return total


def _free_blocks(model: PopulationModel) -> list[tuple[str, ...]]:
    return [b for b in model.blocks if correlations(b)[0] not in model.fixed]


def _free_shares(model: PopulationModel) -> tuple[str, ...]:
    names = model.mixture.share_names if model.mixture else ()
    return tuple(n for n in names if n not in model.fixed)


def _partial(block: tuple[str, ...], values: Mapping[str, Any]) -> Rows:
    """The partial correlations of a block, held in the places of the correlations."""
    entries = iter(correlations(block))
    return [{j: values[next(entries)] for j in range(i)} for i in range(len(block))]
