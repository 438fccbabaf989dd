"""A fit from request to disk: fit(), Fit, and the primary files of a fit's folder."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from carpk import posterior, program_cache, registry
from carpk.censoring import censored_as
from carpk.checkpoints import SUFFIX, Checkpoints, Progress
from carpk.cohort import Cohort, Design, design, ignored_columns
from carpk.effects import band_of
from carpk.estimators import Convergence, Estimate, with_settings
from carpk.likelihood import data_of
from carpk.model_record import from_record, record
from carpk.population_model import PopulationModel
from carpk.preparation import SolveError, choose_steps, refined, resolve, solve_error
from carpk.problems import Problem, RequestError
from carpk.round_sizes import room_for
from carpk.structure import StructuralModel

_VERSIONS = ("carpk", "jax", "jaxlib", "numpyro", "numpy", "scipy", "pandas", "xarray",
             "arviz-stats")
_AGAIN = 2  # fits on finer meshes, where that of an estimate was wrong


@dataclass(frozen=True, eq=False)
class Fit:
    """A finished fit: the resolved model, its draws, whether they can be used, and its record.

    posterior : DataTree with the groups of `carpk.posterior.tree`
    manifest : request, settings, seed, versions, hashes, times, what was excluded and why
    """

    model: PopulationModel
    posterior: xr.DataTree
    convergence: Convergence
    manifest: Mapping[str, Any]

    @property
    def design(self) -> Design:
        """The observations, inputs and doses that were fitted."""
        return posterior.design_of(self.posterior)

    def save(self, folder: str | Path = "fits") -> Path:
        """Writes the primary files into a new folder below `folder` and returns it.

        They are written beside and renamed, so that a fit is whole or absent; an earlier fit is
        never overwritten (the same request on the same day gets the suffix -2, -3, ...).
        """
        parent = Path(folder)
        parent.mkdir(parents=True, exist_ok=True)
        side = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=parent))
        try:
            self.posterior.to_netcdf(side / "posterior.nc", engine="h5netcdf")
            (side / "model.py").write_text(self.manifest["model"]["text"], encoding="utf-8")
            (side / "manifest.json").write_text(
                json.dumps(self.manifest, indent=1, allow_nan=False), encoding="utf-8")
            side.chmod(0o755)
            for suffix in ("", *(f"-{k}" for k in range(2, 1000))):
                target = parent / (self.manifest["name"] + suffix)
                if not target.exists():
                    os.rename(side, target)
                    shutil.rmtree(parent / _unfinished(*self.manifest["name"].split("_", 1)[1:]),
                                  ignore_errors=True)
                    return target
            raise FileExistsError(f"{parent} already holds a thousand fits of this request")
        finally:
            shutil.rmtree(side, ignore_errors=True)


def fit(model: PopulationModel, cohort: Cohort, estimator: str = "nuts", *, seed: int,
        progress: Progress | None = None, unfinished: str | Path | None = None,
        workers: int = 1, scheduler: str | None = None, band: Sequence[float] | None = None,
        **settings: Any) -> Fit:
    """Fits a population model to a cohort.

    estimator : its name; `settings` are its fields (for nuts: chains, draws, warmup, ...)
    progress : called with (stage, done, total) as the fit goes on, see `carpk.checkpoints`
    unfinished : the folder in which the fit keeps where it stands, in one of its own, until it is
        saved; the same request goes on from there, with the draws of a fit that was never
        interrupted. Or that folder of its own, which is refused where it is of another fit.
    workers, scheduler : who makes several `starts`, see `carpk.many_fits.results`; the fit does
        not depend on it
    band : two numbers, the ratios between which covariates make no relevant change; kept for the
        report, of no influence on the fit
    Raises DataError when the cohort does not fit the model, RequestError for a setting that is
    not understood. A fit that did not converge is returned and says so in `convergence`.
    KeyboardInterrupt carries the folder that was kept, if one was.

    >>> from carpk import examples
    >>> from carpk.population_model import population
    >>> few = examples.example("tisacel_like").select(["1", "2", "3", "4", "5", "6"])
    >>> result = fit(population("stein_2019"), few, seed=1, chains=2, draws=20, warmup=20)
    >>> result.posterior["posterior"]["Cmax"].dims
    ('chain', 'draw', 'patient')
    """
    say = progress or (lambda stage, done, total: None)
    began = time.perf_counter()
    method = with_settings(registry.load("estimators", estimator), settings)
    several = getattr(method, "starts", 1) > 1
    if (workers, scheduler) != (1, None) and not several:
        raise RequestError(Problem("error", "workers make several starts, and this is one",
                                   "starts = 8, of focei, laplace or saem", column="workers",
                                   found=scheduler or str(workers)))
    seen = design(censored_as(cohort, model.censoring, model.structure), model.structure)
    rows, doses = seen.time.shape[1], seen.dose_time.shape[1]
    seen = seen.padded(room_for(rows) - rows, room_for(doses) - doses)
    seen = dataclasses.replace(seen, warnings=(*seen.warnings, *program_cache.keep_programs()))
    resolved, told = resolve(model, seen, cohort.units)
    if resolved.earlier is not None and resolved.earlier.sha256 == cohort.sha256 != "":
        told = (*told, Problem("warning", "these data are in the prior already: "
                               f"{resolved.earlier.written} was fitted to them",
                               "counted twice they make intervals too narrow", cohort.source))
    seen = dataclasses.replace(seen, warnings=(*seen.warnings, *told))
    chosen = choose_steps(resolved, seen)
    request, code, stamp = _asked(model, chosen.structure, cohort, estimator, method, seed)
    request |= {} if band is None else {"band": list(band_of(band))}
    prepared = time.perf_counter()
    kept = None
    if method.resumable and (unfinished is not None or several):
        own = _unfinished(chosen.structure.name, estimator, stamp)
        kept = Checkpoints(
            _kept_in(Path(unfinished), own) if unfinished is not None
            else Path(tempfile.mkdtemp(suffix=SUFFIX)),
            {"request": request, "versions": _versions(), "begun_in": os.getcwd()}, workers,
            scheduler)
        seen = dataclasses.replace(seen, warnings=(*seen.warnings, *_of_others(kept)))
    try:
        made = _on_a_mesh_that_suffices(chosen, seen, method, seed, say, kept,
                                        0 if model.steps else _AGAIN)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(*[str(kept.folder)] if kept and unfinished is not None
                                and kept.folder.exists() else []) from None
    finally:
        if kept and unfinished is None:
            shutil.rmtree(kept.folder, ignore_errors=True)
    manifest = _manifest(made.model, cohort, seen, request, code, stamp,
                         {"prepare": prepared - began, **made.seconds}, made.convergence) | (
        {"estimates": made.estimate.estimates} if made.estimate.estimates else {}) \
        | dict(made.estimate.record)
    # as it will be read from disk, where a tuple is a list
    return Fit(made.model, made.stored, made.convergence,
               json.loads(json.dumps(manifest, allow_nan=False)))


class _Made(NamedTuple):
    """A fit on one mesh, and what that leaves out at the estimate."""

    model: PopulationModel
    estimate: Estimate
    stored: xr.DataTree
    convergence: Convergence
    error: SolveError
    seconds: Mapping[str, float]


def _on_a_mesh_that_suffices(model: PopulationModel, seen: Design, method: Any, seed: int,
                             say: Progress, kept: Checkpoints | None, more: int) -> _Made:
    """A fit; where its mesh was wrong at its estimate, one on a mesh that suffices there, so many
    times at most."""
    began, said = time.perf_counter(), tuple[str, ...]()
    made = _made(model, seen, method, seed, say, kept)
    for _ in range(more):
        finer = refined(made.model, seen.ids, made.error)
        if finer is made.model:
            break
        wrong = [i for i, here in zip(seen.ids, made.error.wrong, strict=True) if here]
        said += (f"on {made.model.steps} mesh steps the solutions of patients {', '.join(wrong)} "
                 f"were wrong at the estimate: fitted again on {finer.finer[0] or finer.steps}",)
        say(f"again on {finer.finer[0] or finer.steps} mesh steps", 0, 1)
        coarse = time.perf_counter() - began
        made = _made(finer, seen, method, seed, say, kept and kept.below(
            f"on-{finer.steps}-and-{finer.finer[0]}"))
        made = made._replace(seconds={"on coarser meshes": coarse, **made.seconds})
    return made._replace(convergence=dataclasses.replace(
        made.convergence, remarks=(*made.convergence.remarks, *said)))


def _made(model: PopulationModel, seen: Design, method: Any, seed: int, say: Progress,
          kept: Checkpoints | None) -> _Made:
    """The estimate, all that is stored of it, and how good its mesh is."""
    data = data_of(model, seen)
    estimate = method.fit(model, data, seen.ids, seed, say, **({"kept": kept} if kept else {}))
    estimated = time.perf_counter()
    say("predict", 0, 1)
    with ThreadPoolExecutor(1) as pool:  # on another core meanwhile
        error = pool.submit(_solve_error, model, seen, estimate)
        stored = posterior.tree(model, seen, data, estimate.theta, estimate.phi,
                                estimate.sample_stats, estimate.draws_from, seed)
        convergence = _with_solves(estimate.convergence, model, seen, stored, error.result())
    say("predict", 1, 1)
    return _Made(model, estimate, stored, convergence, error.result(),
                 {**estimate.seconds, "predict": time.perf_counter() - estimated})


def _solve_error(model: PopulationModel, seen: Design, estimate: Estimate) -> SolveError:
    """See `solve_error`, at the medians."""
    theta = {n: float(np.median(estimate.theta[n])) if n in model.free else model.fixed[n]
             for n in model.names}
    phi = xr.DataArray(estimate.phi, dims=("chain", "draw", "patient", "parameter"))
    return solve_error(model, seen, theta, phi.median(("chain", "draw")).values)


def _with_solves(convergence: Convergence, model: PopulationModel, seen: Design,
                 stored: xr.DataTree, error: SolveError) -> Convergence:
    """Adds the draws whose solve failed, by patient, and how good the mesh is at the estimate: an
    error above a tenth of the residual SD, or above 0.1 of ln level, counts against the fit."""
    counts = stored["constant_data"].dataset["failed_solves"].values
    failed = [f"patient {i} {c} times" for i, c in zip(seen.ids, counts, strict=True) if c]

    def coarse(which: np.ndarray) -> Iterator[str]:
        said = {i: f"patient {i} by {log:.2g} ({sd:.2g} residual SDs)"
                for i, log, sd, here in zip(seen.ids, error.logs, error.sds, which, strict=True)
                if here}
        lost = [i for i, n in zip(seen.ids, error.enough, strict=True) if i in said and n == 0]
        found = [text for i, text in said.items() if i not in lost]
        if found:
            yield (f"a mesh twice as fine moves ln of a prediction of {', '.join(found)}: set "
                   f"`steps` to {error.enough[which].max()}")
        if lost:
            other = "tsit5" if model.structure.solver == "rodas4" else "rodas4"
            yield (f"no mesh solves patients {', '.join(lost)} at the estimate: look at their "
                   f"doses, times and units, take the solver {other}, or leave them out")

    reasons = (*convergence.reasons, *coarse(error.wrong))
    remarks = (*convergence.remarks,
               *[f"the solve failed in the draws of {', '.join(failed)}" for _ in failed[:1]],
               *coarse(error.noted & ~error.wrong))
    measures = {**convergence.measures, "failed_solves": float(counts.sum()),
                "solve_error": float(np.max(error.logs)),
                "solve_error_sds": float(np.max(error.sds))}
    return dataclasses.replace(
        convergence, ok=not reasons, reasons=reasons, remarks=remarks,
        # what could not be measured is left out: JSON has no NaN
        measures={n: v for n, v in measures.items() if np.isfinite(v)})


def _unfinished(*name: str) -> str:
    """The folder of a fit while it is made, which may take more than the day in its name."""
    return "_".join(name) + SUFFIX


def _kept_in(folder: Path, name: str) -> Path:
    """The folder of this name, in the one given or the one given itself."""
    if folder.suffix != SUFFIX:
        return folder / name
    if folder.name != name:
        raise RequestError(Problem("error", "the data or the model file have changed since this "
                                   "fit was begun", "put them back, or fit anew", str(folder)))
    return folder


def _of_others(kept: Checkpoints) -> list[Problem]:
    """A warning where other versions drew what is kept."""
    return [Problem("warning", "the unfinished fit was begun by other versions: its draws are not "
                    "those of one that was never interrupted", "delete the folder to begin anew",
                    str(kept.folder), found=", ".join(
                        f"{n} {v}" for n, v in kept.other_versions.items()))] \
        if kept.other_versions else []


def _asked(asked: PopulationModel, structure: StructuralModel, cohort: Cohort, estimator: str,
           method: Any, seed: int) -> tuple[dict[str, Any], str, str]:
    """The request of a fit, the hash of its model file, and of all that decides its result."""
    code = hashlib.sha256(Path(structure.file).read_bytes()).hexdigest()
    own = {n: v for n, (v, _) in structure.held.items() if n in asked.names}
    request: dict[str, Any] = {
        "model": structure.name if _bundled(structure) else structure.file,
        "estimator": estimator, "seed": seed, "spread": list(asked.spread),
        "covariates": {e.key: e.written for e in asked.effects},
        "correlated": [list(b) for b in asked.blocks], "censoring": asked.censoring,
        "etas": asked.etas, "time_varying": dict(asked.time_varying),
        "occasions": list(asked.occasions),
        "data": {"file": cohort.source, **cohort.read_as}, "errors": dict(asked.errors),
        "fixed": {n: v for n, v in asked.fixed.items() if own.get(n) != v},
        "free": [n for n in own if n not in asked.fixed],
        "priors": {n: str(p) for n, p in asked.priors.items()}
        | ({"from": asked.earlier.written} if asked.earlier else {})
        | ({"covariates": asked.horseshoe.written} if asked.horseshoe else {}),
        "steps": asked.steps, "solver": asked.structure.solver,
        "settings": dataclasses.asdict(method)}
    if asked.mixture or structure.classes:
        request["classes"] = asked.mixture.written if asked.mixture else "1"
    if asked.levels:
        request["levels"] = {level.column: list(level.parameters) for level in asked.levels}
    if asked.error_pairs:
        request["correlated_errors"] = [list(p) for p in asked.error_pairs]
    if asked.missing:
        request["missing"] = {gap.column: "model" for gap in asked.missing}
    if cohort.units:
        request["data"]["units"] = {str(k): v for k, v in cohort.units.items()}
    stamp = json.dumps([request, cohort.sha256, code], sort_keys=True).encode()
    return request, code, hashlib.sha256(stamp).hexdigest()[:8]


def _manifest(chosen: PopulationModel, cohort: Cohort, seen: Design, request: Mapping[str, Any],
              code: str, stamp: str, seconds: Mapping[str, float],
              convergence: Convergence) -> dict[str, Any]:
    structure = chosen.structure
    text = Path(structure.file).read_text(encoding="utf-8")
    now = datetime.now(UTC)
    return {
        "name": f"{now:%Y-%m-%d}_{structure.name}_{request['estimator']}_{stamp}",
        "time": now.isoformat(timespec="seconds"), "request": request,
        "data": {"file": cohort.source, "sha256": cohort.sha256, "patients": len(seen.ids),
                 "observations": int(seen.observed.sum()), "censored": int(seen.censored.sum()),
                 "units": {str(o.dvid): cohort.units.get(o.dvid, o.unit)
                           for o in structure.outputs}},
        "model": {"name": structure.name, "sha256": code, "text": text},
        "resolved": record(chosen),
        "seconds": {k: round(v, 3) for k, v in seconds.items()},
        "convergence": dataclasses.asdict(convergence),
        "warnings": [str(w) for w in seen.warnings],
        "ignored_columns": ignored_columns(cohort, structure, chosen.columns),
        "excluded": json.loads(seen.excluded.to_json(orient="records")),
        "versions": _versions(),
    }


def _bundled(structure: StructuralModel) -> bool:
    return structure.name in registry.names("models") and \
        registry.load("models", structure.name).file == structure.file


def _versions() -> dict[str, str]:
    return {n: _version(n) for n in _VERSIONS} | {"python": platform.python_version()}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def load_fit(folder: str | Path) -> Fit:
    """The fit in a folder; RequestError when it is not a whole one."""
    folder = Path(folder)
    missing = [n for n in ("manifest.json", "posterior.nc", "model.py")
               if not (folder / n).is_file()]
    if missing:
        raise RequestError(Problem("error", f"not a fit: {', '.join(missing)} missing",
                                   "name the folder that `carpk fit` printed", str(folder)))
    try:
        return _read(folder)
    except (OSError, ValueError, KeyError, TypeError) as failure:
        raise RequestError(Problem("error", f"not a fit: damaged ({failure})",
                                   "ask for it again", str(folder))) from failure


def _read(folder: Path) -> Fit:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    model = from_record(manifest["resolved"], folder / "model.py", manifest["model"]["name"])
    with xr.open_datatree(folder / "posterior.nc", engine="h5netcdf") as stored:
        draws = stored.load()
    judged = manifest["convergence"]
    return Fit(model, draws, Convergence(judged["ok"], tuple(judged["reasons"]),
                                         tuple(judged["remarks"]), judged["measures"]), manifest)


def excluded(fit: Fit) -> pd.DataFrame:
    """The rows of the file that were not fitted, each with its reason."""
    from carpk.cohort import EXCLUDED_COLUMNS
    return pd.DataFrame(fit.manifest["excluded"], columns=list(EXCLUDED_COLUMNS))
