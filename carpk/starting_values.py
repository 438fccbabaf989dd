"""Where a fit begins: from the patients' own summaries, the model file, or another fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from carpk.checkpoints import Checkpoints
from carpk.conditional import Patients, factor, log_determinant
from carpk.empirical_bayes import Start
from carpk.likelihood import to_theta
from carpk.mixture_start import start_of
from carpk.noncompartmental import area
from carpk.population_model import PopulationModel
from carpk.problems import Problem, RequestError
from carpk.sensitivities import residual_rows
from carpk.solve import Arrays, predict

WORDS = ("", "data", "typical")
_DRAWS, _ROUNDS = 400, 4  # parameter sets that are tried on every patient, and how often anew
_WIDE = 1.5  # SD of the first, on the link scale: values of the model file may be off 20-fold
_MAD = 1.4826  # times the median distance: the SD of a normal


def refused_inits(inits: object) -> list[Problem]:
    """What is wrong with where a fit is to begin."""
    if inits in WORDS or (isinstance(inits, str) and (Path(inits) / "manifest.json").is_file()):
        return []
    return [Problem("error", "neither data nor typical, nor the folder of a fit",
                    "leave it out for a quick Laplace fit around the model file's values",
                    column="inits", found=str(inits))]


def climbing_from(model: PopulationModel, data: Arrays, ids: tuple[str, ...], seed: int,
                  inits: str, patients: Patients | None, elsewhere: Start | None = None) -> Start:
    """The start of `start_from`, at which every patient has a solution: a search for a maximum has
    no other way to begin.

    elsewhere : a start that led nowhere: it begins at another, what the patients' summaries say
        or, where that was it, the centres of the priors
    Raises RequestError naming the patients for whom no draw around the start has one.
    """
    looked = patients or Patients(model, data)
    if elsewhere is None:
        start = start_from(model, data, seed, inits, looked)
    else:
        start = start_of(model, data, seed, begin=from_summaries(model, data, seed),
                         patients=looked)
        if np.array_equal(start.u, elsewhere.u):
            start = start_of(model, data, seed, patients=looked)
    if np.isfinite(start.log_likelihood).all():
        return start
    phi = np.where(np.isfinite(start.log_likelihood)[:, None], start.phi,
                   looked.best_of_draws(start.u, seed)[0])
    value = looked.look(start.u, phi).value
    lost = [i for i, v in zip(ids, value, strict=True) if not np.isfinite(v)]
    if lost:
        raise RequestError(Problem(
            "error", f"no solution for patients {', '.join(lost)}, at no parameters around the "
            "start", "check their rows, set `steps` or the solver, or begin elsewhere: inits "
            "typical or a fit", column="inits", found=inits))
    return start._replace(phi=jnp.asarray(phi), log_likelihood=jnp.asarray(value))


def start_from(model: PopulationModel, data: Arrays, seed: int, inits: str = "",
               patients: Patients | None = None) -> Start:
    """Where an estimator begins.

    inits : "" for a quick Laplace fit from the centres of the priors; "data" for one from what
        the patients' peaks, areas and slopes say or, where that leads to a likelier population,
        from those centres: few samples of a patient hardly tell the times of a turnover;
        "typical" for the model file's values, or the folder of a fit for its estimates, both as
        they stand but for spreads below 0.01 (what they lack is as in "")
    patients : the model's, if there are any already: they keep the programs

    Raises RequestError for a fit that shares no parameter with the model.
    """
    if inits == "":
        return start_of(model, data, seed, patients=patients)
    if inits == "data":
        patients = patients or Patients(model, data)
        return max((start_of(model, data, seed, begin=begin, patients=patients)
                    for begin in (from_summaries(model, data, seed), None)),
                   key=lambda start: _marginal(patients, start))
    values = typical_values(model) if inits == "typical" else values_of_fit(Path(inits))
    known = {n: max(v, 0.01) if n in model.sds else v
             for n, v in values.items() if n in model.free}
    if not known:
        raise RequestError(Problem("error", "it shares no parameter with the model",
                                   "name a fit of this model", inits, column="inits"))
    return start_of(model, data, seed, held=True, begin=known, patients=patients)


def _marginal(patients: Patients, start: Start) -> float:
    """ln p(y) at a start as Laplace has it from the information of the rows; -inf where a patient
    has no solution."""
    with np.errstate(all="ignore"):
        low = factor(patients.between(start.u).precision,
                     np.asarray(start.information).sum(axis=1))
        value = np.sum(np.asarray(start.log_likelihood) + patients.density(start.u, start.phi)
                       - 0.5 * log_determinant(low, np.asarray(start.log_likelihood)))
    return float(value) if np.isfinite(value) else -np.inf


def start_kept(kept: Checkpoints | None, find: Callable[[], Start]) -> Start:
    """The start of an unfinished fit as it was kept, else as it is found, and kept."""
    start = kept_start(kept) if kept else None
    if start is None:
        start = find()
        if kept:
            kept.save("start", {n: v for n, v in start._asdict().items() if v is not None})
    return start


def kept_start(kept: Checkpoints) -> Start | None:
    """The start that an unfinished fit keeps, or None."""
    known = kept.load("start")
    if known is None:
        return None
    sweeps = int(known.pop("sweeps"))
    return Start(**{n: jnp.asarray(v) for n, v in known.items()}, sweeps=sweeps)


def typical_values(model: PopulationModel) -> dict[str, float]:
    """What the model file says of typical values and spreads, by name.

    >>> from carpk import population
    >>> typical_values(population("stein_2019"))["Tmax_pop"]
    9.3
    """
    structure = model.structure
    return {f"{p.name}_pop": p.typical for p in structure.parameters} | {
        f"omega_{p.name}": p.omega.omega for p in structure.parameters if p.omega}


def values_of_fit(folder: Path) -> dict[str, float]:
    """The estimates of a fit by maximum likelihood, or the medians of a posterior, by name."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if "estimates" in manifest:
        return {n: float(v["estimate"]) for n, v in manifest["estimates"].items()}
    with xr.open_dataset(folder / "posterior.nc", group="posterior", engine="h5netcdf") as draws:
        return {str(n): float(np.median(v)) for n, v in draws.data_vars.items()
                if v.dims == ("chain", "draw")}


def from_summaries(model: PopulationModel, data: Arrays, seed: int) -> dict[str, float]:
    """Typical values, spreads and residual SDs by name, from a summary of every patient.

    Parameter sets are drawn around the model file's values and predicted on every patient's own
    schedule. What of each parameter a patient's peak, time of the peak, area, first and last
    level and slopes tell is read off a regression of the parameters on these summaries over the
    sets, those nearest to the patient's own counting most: the adjustment of Beaumont, Zhang and
    Balding 2002, Genetics 162:2025. The next sets are drawn around the patients' median. No
    gradient and no likelihood is needed, so it works where the model file's values are far off.

    Raises RequestError where something changes in a patient: no summary tells it.
    """
    if "epochs" in data:
        raise RequestError(Problem("error", "a summary says nothing of what changes in a patient",
                                   "leave it out, or begin at another fit", column="inits",
                                   found="data"))
    free = [p.name for p in model.structure.parameters
            if p.name in model.spread or f"{p.name}_pop" in model.free]
    scales = [model.scale(n) for n in free]
    held = {p.name: float(model.fixed[f"{p.name}_pop"]) for p in model.structure.parameters
            if p.name not in free}
    levels, floor = _levels(data), _floors(data)
    own = summaries(data, levels, floor)
    patients, random = len(levels), np.random.default_rng([seed, 7])

    @jax.jit
    def predicted(data: Arrays, phi: jax.Array) -> jax.Array:
        """(P, N) of parameters (P, K) on their link scale."""
        return predict(model.structure, data, {
            **{n: jnp.full(patients, v) for n, v in held.items()},
            **{n: s.from_real(phi[:, k]) for k, (n, s) in enumerate(
                zip(free, scales, strict=True))}})

    every = jax.jit(lambda data, phi: jax.lax.map(lambda one: predicted(
        data, jnp.broadcast_to(one, (patients, len(free)))), phi))
    first = np.array([float(s.to_real(jnp.asarray(_centre(model, n))))
                      for n, s in zip(free, scales, strict=True)])
    unit = np.array([model.structure.parameter(n).size for n in free])
    centre, width, phi = first, _WIDE * unit, np.tile(first, (patients, 1))
    for _ in range(_ROUNDS):
        drawn = centre + width * random.normal(size=(_DRAWS, len(free)))
        seen = summaries(data, np.asarray(every(data, drawn)), floor)
        phi = np.stack([_regressed(drawn, seen[:, i], own[i]) for i in range(patients)])
        phi = np.clip(phi, centre - 2.5 * width, centre + 2.5 * width)
        centre = np.median(phi, axis=0)
        away = _MAD * np.median(np.abs(phi - centre), axis=0)
        width = np.clip(1.5 * away, 0.3 * unit, _WIDE * unit)
    theta = {f"{n}_pop": float(s.from_real(jnp.asarray(c)))
             for n, s, c in zip(free, scales, centre, strict=True)}
    theta |= {f"omega_{n}": float(np.clip(a, 0.3 * w, _WIDE * w))
              for n, a, w in zip(free, away, unit, strict=True)}
    theta |= _residuals(model, data, np.asarray(predicted(data, phi)))
    return {n: v for n, v in theta.items() if n in model.free}


def summaries(data: Arrays, levels: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """(..., P, F): of every output a patient's peak, area, first and last level, all as logs, the
    times of peak and of last level above the limit, and the slopes up to the peak and from it.

    levels : (..., P, N); floor : (O,), of every output a level below which nothing is known; an
    output with levels of 0 or less has none (NaN) and is taken as it is
    """
    time, seen, output = (np.asarray(data[n]) for n in ("time", "observed", "output"))
    columns = []
    for o, low in enumerate(floor):
        rows = np.broadcast_to(seen & (output == o), levels.shape)
        some = rows.any(axis=-1)
        with np.errstate(invalid="ignore", over="ignore"):
            y = levels if np.isnan(low) else np.log(np.maximum(levels, low))
        bad = rows & ~np.isfinite(y)
        y = np.where(rows & ~bad, y, -np.inf)
        last = time.shape[-1] - 1 - np.argmax(rows[..., ::-1], axis=-1)
        at = {"peak": np.argmax(y, axis=-1), "first": np.argmax(rows, axis=-1), "last": last}
        value = {n: _taken(y, k) for n, k in at.items()}
        when = {n: _taken(np.broadcast_to(time, levels.shape), k) for n, k in at.items()}
        above = rows & (levels > (-np.inf if np.isnan(low) else 1.001 * low))
        until = np.where(above, time, 0.0).max(axis=-1)
        under = area(time, np.where(rows, levels, np.nan), -np.inf, np.inf, "linear")
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            rise = (value["peak"] - value["first"]) / (when["peak"] - when["first"])
            fall = (value["last"] - value["peak"]) / (when["last"] - when["peak"])
            size = under if np.isnan(low) else np.log(np.maximum(under, low * 1e-3))
        found = [value["peak"], value["first"], value["last"], size, np.log1p(when["peak"]),
                 np.log1p(until), rise, fall]
        columns += [np.where(some & ~bad.any(axis=-1), np.where(np.isfinite(c), c, 0.0), np.nan
                             if n == 0 else 0.0) for n, c in enumerate(found)]
    return np.stack(columns, axis=-1)


def _taken(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, place[..., None], axis=-1)[..., 0]


def _levels(data: Arrays) -> np.ndarray:
    """(P, N): what was measured; of a censored row the end of its interval that is known."""
    lower, upper = np.asarray(data["lower"]), np.asarray(data["upper"])
    return np.where(np.isfinite(upper), upper, lower)


def _floors(data: Arrays) -> np.ndarray:
    """(O,): of every output the lowest limit, or a tenth of the lowest level; NaN where a level
    is 0 or less."""
    output, seen, levels = np.asarray(data["output"]), np.asarray(data["observed"]), _levels(data)
    hidden = np.asarray(data["lower"]) < np.asarray(data["upper"])
    floors = []
    for o in range(int(output[seen].max(initial=0)) + 1):
        here = seen & (output == o)
        lowest = levels[here].min(initial=np.inf)
        limits = levels[here & hidden]
        floors.append(np.nan if not 0 < lowest < np.inf else float(np.min(limits))
                      if limits.size else 0.1 * float(lowest))
    return np.array(floors)


def _centre(model: PopulationModel, name: str) -> float:
    """The centre of a typical value's prior, which knows the cohort's unit; or what it is held at.
    """
    known = f"{name}_pop"
    return model.priors[known].median if known in model.priors else float(model.fixed[known])


def _regressed(drawn: np.ndarray, seen: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(K,): the parameters at a patient's own summaries, by a weighted ridge regression of the
    drawn (J, K) on their summaries (J, F)."""
    usable = (np.abs(seen) < 1e100).all(axis=1)  # whose squares are numbers
    told = np.isfinite(own)
    if usable.sum() < 30 or not told.any():
        return np.asarray(np.median(drawn, axis=0))
    x, phi, own = seen[usable][:, told], drawn[usable], own[told]
    size = x.std(axis=0)
    moving = size > 1e-9
    x, own = (x[:, moving] / size[moving]), own[moving] / size[moving]
    far = np.linalg.norm(x - own, axis=1)
    reach = np.quantile(far, 0.3)
    weight = np.exp(-0.5 * (far / max(reach, 1e-9)) ** 2)
    weight /= weight.sum()
    middle, mean = weight @ x, weight @ phi
    away = x - middle
    square = (away * weight[:, None]).T @ away + 1e-3 * np.eye(x.shape[1])
    slope = np.linalg.solve(square, (away * weight[:, None]).T @ (phi - mean))
    return np.asarray(mean + (own - middle) @ slope)


def _residuals(model: PopulationModel, data: Arrays, predicted: np.ndarray) -> dict[str, float]:
    """Residual SDs by the median distance of what was measured from predictions (P, N)."""
    measured = np.asarray(data["observed"] & (data["lower"] == data["upper"]))
    theta: dict[str, float] = {}
    for name, (output, of, _) in model.residuals.items():
        error = model.error_models()[output]
        rows = measured & np.asarray(residual_rows(model, data, name)) & np.isfinite(predicted)
        y, f = np.asarray(data["upper"])[rows], predicted[rows]
        if rows.sum() < 5:
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            relative = np.log(y / f) if error.log_scale else (y - f) / np.abs(f)
        relative = relative[np.isfinite(relative)]
        sizes = {"add": _MAD * float(np.median(np.abs(y - f)))}
        if relative.size:
            share = float(np.clip(_MAD * np.median(np.abs(relative)), 0.05, 1.0))
            sizes |= {"log": share, "prop": share}
        if sizes.get(of, 0.0) > 0 and "power" not in error.sigmas:
            theta[name] = sizes[of]
    return theta


def began(model: PopulationModel, start: Start) -> dict[str, float]:
    """The population values of a start by name, for the record."""
    theta = jax.jit(lambda u: to_theta(model, u))(start.u)
    return {n: float(theta[n]) for n in model.free}
