"""Simulated measurements: patients drawn from a population model, seen at a design's times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from carpk.accuracy import Mesh, Meshes, solved
from carpk.changes import changing_parameters, effects_over_time, epochs_of, moves, over_time
from carpk.classes import drawn_classes, published_classes, shares_drawn
from carpk.cohort import Design
from carpk.correlated import correlations
from carpk.epochs import Epochs
from carpk.geometry import noncentred
from carpk.likelihood import class_shift, drawn_rows, population_location, read_by_errors
from carpk.missing import with_levels
from carpk.population_model import PopulationModel
from carpk.preparation import with_effects
from carpk.priors import of_partial
from carpk.problems import Problem, RequestError
from carpk.sensitivities import dense
from carpk.small_matrices import Rows, correlation_factor
from carpk.tails import TAILS


@dataclass(frozen=True, eq=False)
class Simulated:
    """What was drawn for the patients of a design.

    parameters : index ID, each structural parameter on its natural scale; of one that changes in
        a patient, its value at the reference of what changes it
    predicted : (P, N), the model at the design's times, unit of each row's output
    dv : (P, N), the same with residual error; NaN where the design observes nothing
    mesh : method and steps each was solved with; moved : how far another mesh moves them, on
        the log scale
    classes : (P,), of a mixture the class of each patient, from 1; not where `own` stands for it
    over, epochs : what was solved with where parameters change in a patient
    """

    parameters: pd.DataFrame
    predicted: np.ndarray
    dv: np.ndarray
    mesh: Meshes
    moved: float
    classes: np.ndarray | None = None
    over: Mapping[str, np.ndarray] = field(default_factory=dict)
    epochs: Epochs | None = None


def published(model: PopulationModel) -> dict[str, float]:
    """The model file's typical values and spreads, and what `model` fixes, by population name.

    Residual errors are not in a model file, nor spreads that only the request added.
    """
    structure = model.structure
    values = {f"{p.name}_pop": p.typical for p in structure.parameters}
    values |= {f"omega_{p.name}": p.omega.omega for p in model.varying if p.omega}
    values |= published_classes(structure, model.mixture)
    return values | {n: float(v) for n, v in model.fixed.items()}


def drawn_from_prior(model: PopulationModel, seed: int) -> dict[str, float]:
    """Every population value of a resolved model, the free ones drawn from their priors.

    >>> from carpk import examples
    >>> from carpk.cohort import design
    >>> from carpk.population_model import population
    >>> from carpk.preparation import resolve
    >>> asked = population("stein_2019", correlated="full")
    >>> model, _ = resolve(asked, design(examples.example("tisacel_like"), asked.structure), {})
    >>> drawn_from_prior(model, seed=1).keys() == set(model.names)
    True
    """
    random = np.random.default_rng(seed)
    values = {n: float(v) for n, v in model.fixed.items()}
    values |= {n: model.priors[n].draw(random) for n in model.free}
    if model.earlier is not None:
        values |= {n: v for n, v in model.earlier.draw(random).items() if n in model.free}
    if model.horseshoe is not None:  # coefficients over their scales were drawn
        values |= {n: values[n] * float(scale) for n, scale in
                   model.horseshoe.scales(values).items() if n in model.free}
    for block in model.blocks:
        names = correlations(block)
        if names[0] in model.free:
            low = np.asarray(dense(correlation_factor(_partials(model, block, values, random))))
            matrix = low @ low.T
            values |= dict(zip(names, matrix[np.tril_indices(len(block), -1)].tolist(),
                               strict=True))
    if model.mixture and model.mixture.count > 2 and model.mixture.share_names[0] in model.free:
        values |= shares_drawn(model.mixture, model.priors, random)
    return values


def _partials(model: PopulationModel, block: tuple[str, ...], drawn: Mapping[str, float],
              random: np.random.Generator) -> Rows:
    """The partial correlations of a block: as they were drawn, but those under an LKJ, which goes
    by their place."""
    names, size = iter(correlations(block)), len(block)
    return [{j: drawn[n] if (prior := model.priors[n := next(names)]).family != "lkj"
             else of_partial(prior, size, j).draw(random) for j in range(i)} for i in range(size)]


def _new_units(model: PopulationModel, seed: int) -> dict[str, float]:
    """A b for every unit of the levels above the patients, and a z for every missing number:
    `theta` knows those of a fit."""
    random = np.random.default_rng((seed, 1))
    return {n: random.normal() for n in (
        *(b for level in model.levels for p in level.parameters for b in level.deviations(p)),
        *(z for gap in model.missing for z in gap.deviations))}


def simulate(model: PopulationModel, design: Design, theta: Mapping[str, float] | None = None, *,
             seed: int, own: Mapping[str, np.ndarray] | None = None,
             mesh: Mesh | Meshes | None = None) -> Simulated:
    """Draws patients' parameters and measurements for a design, solved well enough for all.

    theta : population values by name, natural scale, over the published ones
    own : {parameter: (P,)}, natural scale, each patient's typical value in place of theta's
    mesh : the method and steps to solve with instead of looking for good ones
    Covariates are read from the design; of the units of a level (studies) that theta says nothing
    of, b is drawn. Raises RequestError for a name that is not understood or
    a value that nobody gives, DataError for a covariate that is missing or wrong.

    >>> from carpk import examples, registry
    >>> from carpk.cohort import design
    >>> from carpk.population_model import population
    >>> model = population("stein_2019")
    >>> seen = design(examples.example("tisacel_like"), model.structure)
    >>> drawn = simulate(model, seen, {"sigma_C_log": 0.56}, seed=1)
    >>> drawn.dv.shape == seen.time.shape and drawn.parameters.index[0] == seen.ids[0]
    True
    """
    model, _ = with_effects(model, design, planned=True)
    values = {**_new_units(model, seed), **published(model), **(theta or {})}
    found = [Problem("error", "no such population parameter", f"known: {', '.join(model.names)}",
                     found=n) for n in values if n not in model.names]
    found += [Problem("error", "the model file gives no value",
                      f"give one in theta (--value {n}=...)", column=n)
              for n in model.names if n not in values]
    known = {p.name for p in model.structure.parameters}
    found += [Problem("error", "no such parameter", f"known: {', '.join(sorted(known))}", found=n)
              for n in own or {} if n not in known]
    if found:
        raise RequestError(found)
    population: dict[str, Any] = {n: jnp.asarray(float(v)) for n, v in values.items()}
    columns = model.effect_columns(design.covariates)
    between, within = jax.random.split(jax.random.key(seed))
    here = drawn_classes(model.mixture, {"time": design.time, "effects": columns}, population,
                         jax.random.fold_in(between, 1))
    here = with_levels(model.missing, model.effects, here, population,
                       jax.random.fold_in(between, 2))
    mu, low = population_location(model, here, population)
    z = TAILS[model.etas].draw(between, mu.shape)
    held = {n: jnp.asarray(v, dtype=float) for n, v in (own or {}).items()}
    for k, name in enumerate(model.spread):
        if name in held:  # the covariates move it from there, the class does not
            to_real = model.scale(name).to_real
            mu = mu.at[:, k].add(to_real(held[name]) - to_real(population[f"{name}_pop"])
                                 - class_shift(model, here, population, name))
    phi, _ = noncentred(z, mu, low) if model.sds else (z, None)
    patient = model.patient_values(population, columns, phi)
    patient |= {n: v for n, v in held.items() if n not in model.spread}
    if model.steps and mesh is None:
        mesh = tuple((model.structure.solver, model.finer[0] if i in model.finer[1]
                      else model.steps) for i in design.ids)
    epochs, over = epochs_of(model, design), patient
    if epochs is not None:
        over = over_time(model, effects_over_time(model, design, epochs), {
            **patient, **moves(model, population, phi)})
    solved_with = {n: np.asarray(v) for n, v in over.items()}
    predicted, mesh, moved_by_mesh = solved(model.structure, design, solved_with, mesh, epochs,
                                            changing_parameters(model))
    dv = drawn_rows(model, {"output": design.output, **read_by_errors(model, design)}, population,
                    jnp.asarray(predicted), within)
    return Simulated(
        pd.DataFrame({n: np.asarray(v) for n, v in patient.items()},
                     index=pd.Index(design.ids, name="ID", dtype=object)),
        predicted, np.where(design.observed, np.asarray(dv), np.nan), mesh, moved_by_mesh,
        np.asarray(here["classes"]).argmax(axis=1) + 1
        if model.mixture and not held.keys() >= set(model.mixture.parameters) else None,
        solved_with, epochs)
