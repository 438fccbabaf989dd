"""From the options of `carpk simulate` to a cohort's file and picture; the picture of a model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from carpk.accuracy import TOLERANCE
from carpk.changes import changing_parameters
from carpk.cohort import Cohort, contents, design
from carpk.drawings import simulated_cohort, typical_trajectories
from carpk.effects import covariate_model, resolved_effects, with_form
from carpk.nonmem import read_plan, to_csv
from carpk.plots import png, svg
from carpk.population_model import PopulationModel, population
from carpk.preparation import with_effects
from carpk.problems import DataError, Problem, RequestError
from carpk.program_cache import keep_programs
from carpk.requests import DataRequest, cohort_of
from carpk.simulation import Simulated, simulate
from carpk.simulation_request import (
    Asked,
    by_output,
    noted,
    sampling_times,
    wrong_numbers,
)
from carpk.structure import StructuralModel
from carpk.trajectories import curves, grid, typical
from carpk.virtual_cohort import (
    doses_said,
    doses_written,
    enrolled,
    measured,
    resampled,
    sets_named,
    standing_in,
    usual_doses,
)

SIGMA = 0.3  # nothing is published for most models; an assay of transgene copies has 20 to 40 %


def plotted(structure: StructuralModel, file: str | None, until: float | None,
            overwrite: bool, doses: Sequence[str] = ()) -> tuple[Path, str]:
    """Draws a model's typical trajectories; the file, and what was assumed."""
    keep_programs()
    found = [] if until is None or (until > 0 and math.isfinite(until)) else [
        Problem("error", "must be above 0", column="--until", found=f"{until:g}")]
    given = noted(found, lambda: doses_written(structure, doses)) if doses else None
    target = _picture(file or f"{structure.name}.svg", overwrite, found)
    if found:
        raise RequestError(found)
    paths = typical(structure, until, given)
    target.write_bytes((png if target.suffix == ".png" else svg)(
        typical_trajectories(structure, paths)))
    return target, paths.note


def run(asked: Asked) -> tuple[Path, Path, str, tuple[Problem, ...]]:
    """Simulates, writes the cohort and its picture: both files, what is in them, warnings."""
    keep_programs()
    found: list[Problem] = []
    model, donors = _stated(asked, found)
    structure = model.structure
    file = asked.like
    like = noted(found, lambda: read_plan(
        file, [o.dvid for o in structure.outputs], asked.units)) if file else None
    sets = noted(found, lambda: sets_named(structure, asked.sets)) or []
    more = noted(found, lambda: doses_written(structure, asked.doses)) if asked.doses else None
    times = sampling_times(asked, structure, more, found)
    sigma = by_output("sigma", asked.sigma, structure, found)
    limits = by_output("lloq", asked.lloq, structure, found)
    if asked.units and like is None:
        found.append(Problem("error", "says what unit a --design is in", "give one, or write the "
                             "unit into the dose: --dose '50 UNIT:STATE@0'", column="--unit"))
    found += wrong_numbers(asked)
    dvids = [o.dvid for o in structure.outputs]
    found += [Problem("error", f"{structure.name} has no output with this DVID",
                      f"it has {', '.join(f'{o.dvid} = {o.name}' for o in structure.outputs)}",
                      column="--dvid", found=str(d)) for d in asked.dvid if d not in dvids]
    target = Path(asked.out or f"{structure.name}_simulated.csv")
    if target.suffix.lower() != ".csv":
        found.append(Problem("error", "the cohort is written as a CSV file",
                             "give it a name that ends in .csv", str(target)))
    _free(target, asked.overwrite, found)
    picture = _picture(str(target.with_suffix(".svg")), asked.overwrite, found)
    if found:
        raise RequestError(found)
    cohort, own = enrolled(structure, asked.patients, times, sets, like, asked.dvid, asked.seed,
                           more)
    if donors is not None:
        cohort = resampled(cohort, donors, asked.seed)
    cohort = dataclasses.replace(cohort, source=asked.like or "simulated",
                                 units=like.units if like else {})
    seen = design(cohort, structure)  # refuses patients without samples, wrong inputs and doses
    drawn = _draw(model, cohort, own, sigma, asked.seed)
    if structure.states and not drawn.predicted[seen.observed].any():
        raise RequestError(Problem(
            "error", f"{structure.name} stays at rest: without a dose every level is 0",
            "give one, --dose AMT:STATE@TIME, or rows with AMT in a --design"))
    result, warnings = measured(cohort, structure, seen, drawn, limits)
    table = result.covariates if drawn.classes is None else \
        result.covariates.assign(CLASS=drawn.classes)
    result = dataclasses.replace(result, source=str(target), covariates=table)
    if drawn.moved > 10 * TOLERANCE:
        warnings = (*warnings, Problem(
            "warning", "the equations of the most extreme patients are solved coarsely: "
            + (f"another mesh moves ln of a level by {drawn.moved:.2g}"
               if math.isfinite(drawn.moved) else "some failed")))
    if not len(result.observations):
        raise RequestError([Problem("error", "nothing can be measured in any patient"),
                            *warnings])
    last = float(seen.time[seen.observed].max())
    paths, _ = curves(structure, seen, drawn.over, time := grid(last), drawn.mesh, drawn.epochs,
                      changing_parameters(model))
    said = f"Seed {asked.seed}; {_errors_said(model, sigma)}" \
        + (f"; sets {', '.join(sets)}" if sets and len(sets) <= 4 else "") + _stood_in(
            structure, like, sets)
    said += "".join(f"; {e.key}: {e.written}" for e in with_effects(model, seen, True)[0].effects)
    if drawn.classes is not None:
        said += f"; {_classes_said(structure, drawn.classes)}"
    if structure.doses and like is None and more is None:
        said += f"; usual doses: {doses_said(structure, usual_doses(structure))}"
    to_csv(result, target)
    picture.write_bytes(svg(simulated_cohort(structure, result, seen, time, paths, limits, said)))
    return target, picture, f"{contents(result, structure, model.columns)}\n{said}", warnings


def _stated(asked: Asked, found: list[Problem]) -> tuple[PopulationModel, Cohort | None]:
    """The model, and the patients whose covariates are drawn: of a bundled cohort, or of a file
    that need not hold more than IDs and covariates."""
    model = population(asked.model, covariates=asked.effects, time_varying=asked.rules,
                       occasions=asked.occasions, fixed=asked.values,
                       solver=asked.solver)  # type: ignore[arg-type]
    file = asked.donors
    if file is None:
        return model, None
    donors = noted(found, lambda: cohort_of(DataRequest(file=file))
                   if file.startswith("example:") else read_plan(file, [1]))
    if donors is None:
        return model, None
    return noted(found, lambda: _as_among(donors, model)) or model, donors


def _as_among(donors: Cohort, model: PopulationModel) -> PopulationModel:
    """The model with the references and levels of its covariates as they are among the donors."""
    mine = [e for e in model.effects
            if set(covariate_model(with_form(e, donors.covariates)).needs(e))
            <= set(donors.covariates)]
    made, found = resolved_effects(model.structure, mine, donors.covariates, donors.varying,
                                   donors.source, planned=True)
    if found:
        raise DataError(found)
    by_key = {e.key: e for e in (*model.effects, *made)}
    return dataclasses.replace(model, effects=tuple(by_key.values()))


def _draw(model: PopulationModel, cohort: Cohort, own: Mapping[str, np.ndarray],
          sigma: Mapping[str, float], seed: int) -> Simulated:
    """The patients; an additive error has its size relative to its output's mean level."""
    seen = design(cohort, model.structure)
    size = {o: sigma.get(o, sigma.get("", SIGMA)) for o in model.errors}
    errors = model.error_models()
    additive = [o for o, e in errors.items() if set(e.sigmas) == set(e.in_units)
                and not any(f"sigma_{o}_{s}" in model.fixed for s in e.sigmas)]
    theta = {f"sigma_{o}_{s}": 0.0 if s in e.in_units else size[o]
             for o, e in errors.items() for s in e.sigmas
             if f"sigma_{o}_{s}" not in model.fixed}
    drawn = simulate(model, seen, theta, seed=seed, own=own)
    names = [o.name for o in model.structure.outputs]
    for output in additive:
        level = np.abs(drawn.predicted[seen.observed & (seen.output == names.index(output))])
        theta |= {f"sigma_{output}_{s}": size[output] * float(level.mean()) if level.size else 0.0
                  for s in errors[output].sigmas}
    if not additive:
        return drawn
    again = simulate(model, seen, theta, seed=seed, own=own, mesh=drawn.mesh)
    return dataclasses.replace(again, moved=drawn.moved)


def _errors_said(model: PopulationModel, sigma: Mapping[str, float]) -> str:
    """The residual errors as they are drawn, in words."""
    stated = {o: ", ".join(f"{model.fixed[n]:g}" for s in e.sigmas
                           if (n := f"sigma_{o}_{s}") in model.fixed)
              for o, e in model.error_models().items()}
    return "residual error " + ", ".join(
        f"{stated[o] or format(sigma.get(o, sigma.get('', SIGMA)), 'g')} of {o} ({e})"
        for o, e in model.errors.items())


def _classes_said(structure: StructuralModel, classes: np.ndarray) -> str:
    """How many patients are of each class."""
    own = structure.classes
    names = own.names if own and own.names else ()
    return "patients of " + ", ".join(
        f"class {k}" + (f" ({names[k - 1]})" if names else "") + f": {int((classes == k).sum())}"
        for k in range(1, len(own.shares if own else ()) + 1))


def _stood_in(structure: StructuralModel, like: Cohort | None, sets: Sequence[str]) -> str:
    """Which inputs nobody gave."""
    if sets:
        return ""
    given = set() if like is None else set(like.covariates.columns)
    spare = {n: v for n, v in standing_in(structure).items() if n not in given}
    first = next(iter(structure.parameter_sets), "")
    return "".join(f"; {n} = {v:g} of '{first}'" for n, v in spare.items())


def _picture(file: str, overwrite: bool, found: list[Problem]) -> Path:
    target = Path(file)
    if target.suffix not in (".svg", ".png"):
        found.append(Problem("error", "a picture is an SVG or a PNG file",
                             "give it a name that ends in .svg or .png", file))
    _free(target, overwrite, found)
    return target


def _free(target: Path, overwrite: bool, found: list[Problem]) -> None:
    """Notes a file that would be lost, or a folder that is not there."""
    if target.exists() and not (overwrite and target.is_file()):
        found.append(Problem("error", "it is there already and is not overwritten",
                             "give another name, or --overwrite", str(target)))
    elif not target.parent.is_dir() and str(target.parent) not in [p.file for p in found]:
        found.append(Problem("error", "there is no such folder", "make it first",
                             str(target.parent)))
