"""Prior prediction: virtual cohorts, each of a population drawn from the priors of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from carpk.accuracy import Mesh, meshes_of, solved
from carpk.classes import drawn_classes
from carpk.cohort import Cohort, Design, design
from carpk.geometry import noncentred
from carpk.likelihood import drawn_rows, population_location, read_by_errors
from carpk.population_model import PopulationModel
from carpk.preparation import choose_steps, resolve
from carpk.priors import Prior
from carpk.problems import Problem, RequestError
from carpk.simulation import Simulated, drawn_from_prior
from carpk.structure import StructuralModel
from carpk.tails import TAILS
from carpk.trajectories import curves, grid
from carpk.virtual_cohort import enrolled

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MOST = 20  # patients of one virtual cohort: cohorts say more than patients


@dataclass(frozen=True, eq=False)
class PriorPrediction:
    """What a model expects to see before it has seen anything.

    model : with the priors that were drawn from; populations : a row per virtual cohort
    cohort, seen, drawn : all patients of all cohorts in turn, their column COHORT says which
    observed : the cohort that was followed, where it holds measurements
    time : (T,); levels : {output: (patients, T)} with residual error, unit of the output
    """

    model: PopulationModel
    populations: pd.DataFrame
    cohort: Cohort
    observed: Cohort | None
    seen: Design
    drawn: Simulated
    time: np.ndarray
    levels: dict[str, np.ndarray]

    def bands(self, output: str) -> np.ndarray:
        """(5, T): the quantiles 5, 25, 50, 75 and 95 % of an output's levels over time."""
        levels = self.levels[output]
        return np.quantile(levels[np.isfinite(levels).all(axis=1)], QUANTILES, axis=0)


def prior_predictive(model: PopulationModel, cohort: Cohort, *, cohorts: int = 100,
                     patients: int | None = None, seed: int = 1, times: Sequence[float] = (),
                     dvid: Sequence[int] = (), planned: bool = False) -> PriorPrediction:
    """Virtual cohorts whose populations are drawn from the priors that a fit would have.

    cohort : whose patients, samples, doses and covariates are followed in turn
    planned : it holds no measurements: defaults that go by data (the size of an additive error)
        go by the typical patient instead
    patients : of each virtual cohort; as many as in `cohort`, at most 20, where None
    times : when each is sampled, every output (of `dvid`); with none, as in `cohort`
    Raises DataError and RequestError as `carpk.fit`.

    >>> from carpk import example, population
    >>> expected = prior_predictive(population("stein_2019"), example("tisacel_like"), cohorts=5)
    >>> len(expected.populations), len(expected.cohort.ids), expected.bands("C").shape
    (5, 100, (5, 301))
    """
    structure = model.structure
    wrong = "prior prediction follows parameters that stand still"
    remedy = "drop it here; `carpk simulate` without --prior follows it, at stated values"
    found = [Problem("error", f"{wrong}, and this covariate changes by {rule}", remedy,
                     column=f"time_varying.{name}") for name, rule in model.time_varying.items()]
    if model.occasions:
        found.append(Problem("error", f"{wrong}, and these differ between occasions", remedy,
                             column="occasions", found=", ".join(model.occasions)))
    found += [Problem("error", "prior prediction follows patients who lack no covariate, and "
                      "missing values are to be modelled", "fill them in",
                      column=f"missing.{gap.column}") for gap in model.missing]
    if found:
        raise RequestError(found)
    before = design(cohort, structure)
    moving = [s.column for s in model.separate.values() if s.column in before.varying]
    if moving:
        raise RequestError(Problem("error", "changes within a patient, and no planned sample says "
                                   "whose error it has", "let the assays share one error here",
                                   column=moving[0]))
    resolved, _ = resolve(model, before, cohort.units)
    resolved = choose_steps(resolved, before)
    if planned:
        resolved = _by_typical_levels(resolved, before)
    each = patients or min(len(cohort.ids), _MOST)
    followed, _ = enrolled(structure, cohorts * each, times, (), cohort, dvid, seed)
    place = np.repeat(np.arange(cohorts), each)
    followed = dataclasses.replace(
        followed, covariates=followed.covariates.assign(COHORT=place + 1.0), units=cohort.units)
    seen = design(followed, structure)
    populations = pd.DataFrame([drawn_from_prior(resolved, int(s)) for s in np.random.default_rng(
        seed).integers(2**31, size=cohorts)], columns=list(resolved.names))
    theta = {n: jnp.asarray(populations[n].to_numpy()) for n in resolved.names}
    between, within, noise = jax.random.split(jax.random.key(seed), 3)
    values = _patients(resolved, seen, theta, between, each)
    mesh: Mesh = (resolved.structure.solver, resolved.steps)
    predicted = _wherever_solved(structure, mesh, lambda m: solved(
        structure, seen, values, m).predicted)
    own = {n: jnp.repeat(v, each)[:, None] for n, v in theta.items()}
    read = read_by_errors(resolved, seen)
    dv = drawn_rows(resolved, {"output": seen.output, **read}, own, jnp.asarray(predicted), within)
    time = grid(float(seen.time[seen.observed].max()))
    outputs = list(resolved.errors)
    paths = _wherever_solved(structure, mesh, lambda m: np.concatenate(list(curves(
        structure, seen, values, time, m)[0].values()), axis=1))
    still = {o: v[:, :1] for o, v in read.get("separate", {}).items()}  # of a patient
    errors = resolved.error_models()
    levels = {o: np.asarray(errors[o].draw(jax.random.fold_in(noise, k), jnp.asarray(path),
                                           resolved.sigma(own, o, still),
                                           resolved.censoring == "M4"))
              for k, (o, path) in enumerate(zip(outputs, np.split(paths, len(outputs), axis=1),
                                                strict=True))}
    drawn = Simulated(pd.DataFrame(values, index=pd.Index(seen.ids, name="ID", dtype=object)),
                      predicted, np.where(seen.observed, np.asarray(dv), np.nan),
                      meshes_of(mesh, len(seen.ids)), 0.0)
    return PriorPrediction(resolved, populations, followed, None if planned else cohort, seen,
                           drawn, time, levels)


def _wherever_solved(structure: StructuralModel, mesh: Mesh,
                     run: Callable[[Mesh], np.ndarray]) -> np.ndarray:
    """What the mesh of a fit gives. Priors reach where it is too coarse, or unstable: patients
    whom twice the steps move by more than 5 % are solved by the implicit method."""
    found = run(mesh)
    if not structure.states:
        return found
    fine = run((mesh[0], 2 * mesh[1]))
    floor = 1e-6 * np.median(np.nan_to_num(np.abs(fine)), axis=0)
    moved = ~(np.abs(fine - found) <= 0.05 * np.abs(fine) + floor).all(axis=1)
    return np.where(moved[:, None], run(("rodas4", max(1000, 2 * mesh[1]))), fine) \
        if moved.any() else fine


def _patients(model: PopulationModel, seen: Design, theta: dict[str, jax.Array], key: jax.Array,
              each: int) -> dict[str, np.ndarray]:
    """(cohorts x each,) of every structural parameter."""
    cohorts = len(seen.ids) // each
    columns = {k: jnp.asarray(v).reshape(cohorts, each, -1)
               for k, v in model.effect_columns(seen.covariates).items()}
    keys = jax.random.split(jax.random.fold_in(key, 1), cohorts)
    z = TAILS[model.etas].draw(key, (cohorts, each, len(model.spread)))

    @jax.jit
    @jax.vmap
    def one(theta: Any, columns: Any, z: jax.Array, key: jax.Array) -> Any:
        mu, low = population_location(model, drawn_classes(
            model.mixture, {"time": z, "effects": columns}, theta, key), theta)
        phi = noncentred(z, mu, low)[0] if model.spread else z
        return model.patient_values(theta, columns, phi)

    return {n: np.asarray(v).reshape(-1) for n, v in one(theta, columns, z, keys).items()}


def _by_typical_levels(model: PopulationModel, seen: Design) -> PopulationModel:
    """The model with the priors of residual errors in an output's unit scaled to the SD of what
    the typical patient would show, there being no data."""
    structure, priors, reasons = model.structure, dict(model.priors), dict(model.reasons)
    errors = model.error_models()
    units = [(list(errors).index(r.output), r.output, n) for n, r in model.residuals.items()
             if r.sigma in errors[r.output].in_units]
    scaled = [(k, o, n) for k, o, n in units if model.reasons.get(n, "").startswith("default")]
    if not scaled:
        return model
    typical = {n: np.full(len(seen.ids), v) for n, v in structure.typical.items()}
    levels = solved(structure, seen, typical, (structure.solver, model.steps)
                    if structure.states else None).predicted
    for k, _, name in scaled:
        spread = float(np.std(levels[seen.observed & (seen.output == k)]))
        priors[name] = Prior("halfnormal", (spread if spread > 0 else 1.0,))
        reasons[name] = "default: scaled to the SD of the typical patient's levels"
    return dataclasses.replace(model, priors=priors, reasons=reasons)


def in_words(expected: PriorPrediction) -> list[str]:
    """What the priors expect of each output, beside what was measured; a sentence each."""
    structure, said = expected.model.structure, []
    seen, dv = expected.seen, expected.drawn.dv
    for k, output in enumerate(structure.outputs):
        sampled = seen.observed & (seen.output == k)
        peaks = np.where(sampled, dv, -np.inf).max(axis=1)
        peaks = peaks[np.isfinite(peaks)]
        if not peaks.size:
            continue
        low, less, more, high = map(_short, np.quantile(peaks, (0.05, 0.25, 0.75, 0.95)))
        unit = expected.cohort.units.get(output.dvid, output.unit)
        text = (f"{output.name}: half of the patients peak between {less} and {more} {unit}, "
                f"90 % between {low} and {high}")
        rows = None if expected.observed is None else expected.observed.observations
        if rows is not None and len(mine := rows[(rows["DVID"] == output.dvid)
                                                 & (rows["CENS"] == 0)]):
            found = mine.groupby("ID")["DV"].max()
            ends = [np.interp(mine["TIME"], expected.time, b)
                    for b in expected.bands(output.name)[[0, 4]]]
            within = int(((mine["DV"] >= ends[0]) & (mine["DV"] <= ends[1])).sum())
            text += (f"; observed peaks {_short(found.min())} to {_short(found.max())}, "
                     f"{within} of {len(mine)} measured levels within the 90 % band")
        said.append(text)
    failed = int((~np.isfinite(expected.drawn.predicted)).any(axis=1).sum())
    if failed:
        said.append(f"{failed} of {len(seen.ids)} patients could not be solved: the priors reach "
                    "values at which the equations break down")
    return said


def _short(value: float) -> str:
    return f"{float(f'{value:.2g}'):.6g}"
