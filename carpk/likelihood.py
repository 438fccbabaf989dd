"""The only density: log p(y | phi) with censoring, log p(phi | population), log prior."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from carpk.changes import changing_parameters, effects_over_time, epochs_of, moves, over_time
from carpk.classes import shares_log_density
from carpk.cohort import Design
from carpk.correlated import correlations
from carpk.effects import coefficients
from carpk.error_models import Ends
from carpk.paired_errors import (
    correlated_noise,
    may_both_hide,
    paired_rows,
    partners,
    rho_of,
)
from carpk.population_model import PopulationModel
from carpk.priors import lkj_log_volume, of_partial
from carpk.separate_errors import units_of
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
    Of a pair of correlated errors one of both rows is given the other; see `paired_rows`.

    predicted : (P, N), unit of each row's output
    """
    rows, paired = jnp.zeros_like(predicted), {n for pair in model.error_pairs for n in pair}
    ends: Ends = "none" if "all_measured" in data else "one" if "one_ended" in data else "both"
    for k, (output, error) in enumerate(model.error_models().items()):
        if output in paired:
            continue
        here = data["observed"] & (data["output"] == k)
        # rows of other outputs and padding get values that are finite under any error model
        safe = jnp.where(here, predicted, 1.0)
        lower, upper = (jnp.where(here, data[end], 1.0) for end in ("lower", "upper"))
        sigma = model.sigma(theta, output, data.get("separate"))
        value = error.log_likelihood(lower, upper, safe, sigma, ends)
        if model.censoring == "M4" and not (error.log_scale or error.binary):
            # given that every level is above 0
            none = jnp.zeros_like(safe)
            value = value - error.log_likelihood(none, none + jnp.inf, safe, sigma, "one")
        rows = jnp.where(here, value, rows)
    for pair in model.error_pairs:
        sigmas = {n: model.sigma(theta, n, data.get("separate")) for n in pair}
        value, here = paired_rows(pair, model.error_models(), data, theta[rho_of(pair)], predicted,
                                  sigmas)
        rows = jnp.where(here, value, rows)
    return rows


def drawn_rows(model: PopulationModel, data: Mapping[str, Any], theta: Mapping[str, Any],
               predicted: jax.Array, key: jax.Array) -> jax.Array:
    """(P, N): a simulated measurement of each row, of the distribution that the likelihood is of:
    under M4 above 0.

    data : output (P, N) and `read_by_errors`; predicted : (P, N)
    """
    y, errors, noise = predicted, model.error_models(), {}
    first_of = {b: (a, b) for a, b in model.error_pairs}
    for k, (output, error) in enumerate(errors.items()):
        sigma = model.sigma(theta, output, data.get("separate"))
        positive = model.censoring == "M4" and not error.log_scale  # and such are in no pair
        if error.binary or positive:
            noisy = error.draw(jax.random.fold_in(key, k), predicted, sigma, positive)
        else:
            noise[output] = error.tails.draw(jax.random.fold_in(key, k), predicted.shape)
            if output in first_of:
                pair = first_of[output]
                noise[output] = correlated_noise(noise[output], noise[pair[0]],
                                                 theta[rho_of(pair)], data)
            noisy = error.at_residual(noise[output], predicted, sigma)
        y = jnp.where(data["output"] == k, noisy, y)
    return y


def read_by_errors(model: PopulationModel, design: Design) -> Arrays:
    """What errors read of a design beside its rows: of separate ones the level of each row, of
    correlated ones the place of its partner."""
    found: Arrays = {}
    if model.separate:
        found["separate"] = {k: jnp.asarray(v) for k, v in units_of(model.separate, design).items()}
    if model.error_pairs:
        outputs = list(model.errors)
        found["partner"] = jnp.asarray(partners(model.error_pairs, outputs, design))
        if may_both_hide(model.error_pairs, outputs, design):  # else that program is not needed
            found["both_hidden"] = jnp.ones(len(design.ids))
    return found


def data_of(model: PopulationModel, design: Design, room: int = 0) -> Arrays:
    """What a compiled program reads of a design: `arrays`, which say what room is, the columns of
    the effects and, where parameters change in a patient, its epochs."""
    epochs = epochs_of(model, design)
    data: Arrays = {**arrays(design, model.structure, model.steps, room, epochs=epochs,
                             changing=changing_parameters(model), finer=model.finer),
                    "effects": {k: jnp.asarray(v) for k, v in
                                model.effect_columns(design.covariates).items()},
                    **read_by_errors(model, design)}
    if sds := _sds_of_slopes(model):  # for each patient, as all arrays are
        data["slope_sds"] = {n: jnp.asarray(np.full(len(design.ids), sd)) for n, sd in sds.items()}
    censored = design.observed & (design.lower != design.upper)
    # that there is nothing to be read is part of what a program is compiled for
    if not censored.any():
        data["all_measured"] = jnp.zeros(len(design.ids))
    elif not (censored & np.isfinite(design.lower) & np.isfinite(design.upper)).any():
        data["one_ended"] = jnp.zeros(len(design.ids))
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
    but for patients whose class `data["classes"]` knows, and over the missing levels of
    categories."""
    if model.mixture is not None and "classes" not in data:
        return jax.scipy.special.logsumexp(class_log_densities(model, data, theta, phi), axis=1)
    if model.hidden and "levels" not in data:
        return jax.scipy.special.logsumexp(level_log_densities(model, data, theta, phi), axis=1)
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


def level_log_densities(model: PopulationModel, data: Mapping[str, Any],
                        theta: Mapping[str, Any], phi: jax.Array) -> jax.Array:
    """(P, combinations): ln of the probability of each combination of missing levels times
    p(phi_i | it), link scale. Of what a patient has only the first level counts, with 1."""
    each = []
    for chosen in itertools.product(*(range(len(gap.levels)) for gap in model.hidden)):
        columns, weight = dict(data["effects"]), jnp.zeros(phi.shape[0])
        for gap, k in zip(model.hidden, chosen, strict=True):
            rows = data["effects"][gap.key]
            weight = weight + jnp.where(rows[:, 0] > 0, gap.log_shares(rows, theta)[:, k],
                                        0.0 if k == 0 else -jnp.inf)
            columns = gap.known(model.effects, columns, jnp.zeros(
                (phi.shape[0], len(gap.levels))).at[:, k].set(1.0))
        each.append(weight + patient_log_density(
            model, {**data, "effects": columns, "levels": chosen}, theta, phi))
    return jnp.stack(each, axis=1)


def with_own_levels(model: PopulationModel, data: Mapping[str, Any], theta: Mapping[str, Any],
                    phi: jax.Array, key: jax.Array) -> dict[str, Any]:
    """The data with each patient's missing levels drawn by how probable phi makes them."""
    each = list(itertools.product(*(range(len(gap.levels)) for gap in model.hidden)))
    drawn = jnp.asarray(each)[jax.random.categorical(
        key, level_log_densities(model, data, theta, phi))]
    columns = dict(data["effects"])
    for g, gap in enumerate(model.hidden):
        columns = gap.known(model.effects, columns, jax.nn.one_hot(
            drawn[:, g], len(gap.levels), dtype=float))
    return {**data, "effects": columns}


def log_covariates(model: PopulationModel, data: Mapping[str, Any], theta: Mapping[str, Any]) \
        -> jax.Array:
    """ln p(known values | population) of the covariates whose missing values are modelled."""
    each = sum((gap.log_density(data["effects"][gap.key], theta) for gap in model.missing),
               jnp.zeros(data["time"].shape[0]))
    if "stands_for" in data:  # who only fills up an array has no covariates
        each = jnp.where(data["stands_for"] == jnp.arange(len(each)), each, 0.0)
    return each.sum()


def _sds_of_slopes(model: PopulationModel) -> dict[str, float]:
    """Of the coefficients of numbers the SDs of their normal priors, which by default follow the
    spread of their columns: data of a program, so that it serves another cohort."""
    names = [n for e in model.effects if e.form != "category" for n in coefficients(e)]
    return {n: model.priors[n].numbers[1] for n in names
            if n in model.free and n in model.priors and model.priors[n].family == "normal"}


def log_prior(model: PopulationModel, theta: Mapping[str, Any],
              data: Mapping[str, Any] | None = None) -> jax.Array:
    """Log prior density of the free population parameters, natural scale; data : what a compiled
    program reads."""
    scales, sds = _scales(model, theta), (data or {}).get("slope_sds", {})
    joint = {*(n for block in _free_blocks(model) for n in correlations(block)),
             *_free_shares(model), *scales}
    total = sum((model.priors[n].log_density(theta[n], *([sds[n][0]] if n in sds else []))
                 for n in model.free if n not in joint), jnp.zeros(()))
    for block in _free_blocks(model):
        partial, names = _partial_of(model, theta, block), iter(correlations(block))
        total = total - lkj_log_volume(partial) + sum(
            of_partial(model.priors[next(names)], len(block), j).log_density(z)
            for row in partial for j, z in row.items())
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
    """log p(y, eta, theta): the density every estimator uses. Of modelled covariates, what is
    known of them counts among the y.

    theta : every population parameter, natural scale, fixed ones included
    eta : (P, K), deviations from the patients' typical values on the link scale
    """
    phi = eta + population_location(model, data, theta)[0]
    return (patient_log_likelihood(model, data, theta, phi).sum()
            + patient_log_density(model, data, theta, phi).sum()
            + log_covariates(model, data, theta) + log_prior(model, theta, data))


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
