"""`carpk simulate NAME --prior`: virtual cohorts drawn from the priors, their file and picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from carpk.cohort import Cohort, contents
from carpk.csvfile import read_table
from carpk.drawings import prior_bands
from carpk.nonmem import read_csv, read_plan, to_csv
from carpk.outfiles import not_free
from carpk.plots import svg
from carpk.population_model import PopulationModel, population
from carpk.prior_cohorts import in_words, prior_predictive
from carpk.problems import Problem, RequestError
from carpk.program_cache import keep_programs
from carpk.requests import Request
from carpk.simulation_request import (
    Asked,
    by_output,
    noted,
    sampling_times,
    wrong_numbers,
)
from carpk.virtual_cohort import doses_written, enrolled, measured

PATIENTS = 20  # of a virtual cohort, where no design says how many


def run(asked: Asked, cohorts: int) -> tuple[Path, Path, str, tuple[Problem, ...]]:
    """Draws, writes the virtual cohorts and their picture: both files, what they show, warnings.

    The model of a run.toml, or of a fit's manifest.json, comes with its data and its priors.
    """
    keep_programs()
    found: list[Problem] = []
    if cohorts < 1:
        found.append(Problem("error", "must be 1 or more", column="--cohorts", found=str(cohorts)))
    found += wrong_numbers(asked)
    found += [Problem("error", "with --prior, values are drawn from the priors", "drop it",
                      column=option)
              for option, given in (("--set", asked.sets), ("--sigma", asked.sigma),
                                    ("--value", asked.values)) if given]
    found += [Problem("error", "with --prior, a run.toml states the model", "state it there",
                      column=option)
              for option, given in (
                  ("--covariate", asked.effects), ("--occasions", asked.occasions),
                  ("--time-varying", asked.rules), ("--covariates-from", asked.donors)) if given]
    if found:
        raise RequestError(found)
    model, like, planned = _stated(asked) if Path(asked.model).suffix in (".toml", ".json") \
        else _designed(asked)
    structure = model.structure
    limits = by_output("lloq", asked.lloq, structure, found)
    times = sampling_times(asked, structure, None, found) if asked.times else []
    target = Path(asked.out or f"{structure.name}_prior.csv")
    if target.suffix.lower() != ".csv":
        found.append(Problem("error", "the cohorts are written as a CSV file",
                             "give it a name that ends in .csv", str(target)))
    picture = target.with_suffix(".svg")
    found += not_free([target, picture], asked.overwrite)
    if found:
        raise RequestError(found)
    expected = prior_predictive(model, like, cohorts=cohorts, patients=asked.patients,
                                seed=asked.seed, times=times, dvid=asked.dvid, planned=planned)
    result, warnings = measured(expected.cohort, structure, expected.seen, expected.drawn, limits)
    kept = set(result.observations["ID"])
    if not kept:
        raise RequestError([Problem("error", "nothing can be measured in any patient"), *warnings])
    result = dataclasses.replace(result.select([i for i in result.ids if i in kept]),
                                 source=str(target))
    said = in_words(expected)
    to_csv(result, target)
    picture.write_bytes(svg(prior_bands(expected, limits, f"Seed {asked.seed}. {'. '.join(said)}")))
    return target, picture, "\n".join([contents(result, structure, model.columns), *said]), warnings


def _stated(asked: Asked) -> tuple[PopulationModel, Cohort, bool]:
    """The model and the data of a request."""
    given = {"--design": asked.like, "--dose": asked.doses, "--unit": asked.units,
             "--solver": asked.solver}
    found = [Problem("error", "a request states its data itself, and its solver", "drop it",
                     column=option) for option, value in given.items() if value]
    if found:
        raise RequestError(found)
    request = Request.read(asked.model)
    model = request.population()
    return model, request.cohort(model.structure), False


def _designed(asked: Asked) -> tuple[PopulationModel, Cohort, bool]:
    """A model as its file has it, and the plan or the data that its patients follow; a design
    with a column DV is data."""
    model = population(asked.model, solver=asked.solver)  # type: ignore[arg-type]
    structure = model.structure
    found: list[Problem] = []
    more = noted(found, lambda: doses_written(structure, asked.doses)) if asked.doses else None
    if asked.like is not None and more is None and "DV" in [
            n.upper() for n in read_table(Path(asked.like)).names]:
        return model, read_csv(asked.like, dvid=asked.dvid or None, units=asked.units or None,
                               structure=structure), False
    file = asked.like
    like = noted(found, lambda: read_plan(file, [o.dvid for o in structure.outputs], asked.units)) \
        if file else None
    times = sampling_times(asked, structure, more, found)
    if found:
        raise RequestError(found)
    plan, _ = enrolled(structure, None if like else asked.patients or PATIENTS, times, (), like,
                       asked.dvid, asked.seed, more)
    return model, dataclasses.replace(plan, units=like.units if like else {}), True
