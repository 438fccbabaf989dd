"""Draws as an xarray DataTree with fixed groups and names, and their summaries."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import logsumexp

from carpk.cohort import NOTHING_CHANGES, Design
from carpk.conditional import at_once
from carpk.likelihood import (
    class_log_densities,
    drawn_rows,
    population_location,
    predicted_rows,
    row_log_likelihood,
    with_own_levels,
)
from carpk.padding import filled_on_devices, filled_to
from carpk.population_model import PopulationModel
from carpk.solve import Arrays

# draws kept for predictive bands: more would not move a 95 % band a reader could see
_PREDICTIVE_DRAWS = 400
_TOGETHER = 200  # draws of one call
_DOSES = ("dose_time", "dose_amount", "dose_duration", "dose_state", "dose_line")


def summary(values: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row per quantity: mean, median, sd, lower95, upper95, rhat, ess_bulk, ess_tail.

    values : (chain, draw) by name; intervals are equal-tailed, R-hat and ESS are rank-based.

    >>> import numpy as np
    >>> draws = np.random.default_rng(1).normal(size=(4, 500))
    >>> bool(summary({"x": draws}).loc["x", "rhat"] < 1.02)
    True
    """
    from arviz_stats.base import array_stats

    rows = {}
    for name, draws in values.items():
        lower, median, upper = np.quantile(draws, [0.025, 0.5, 0.975])
        moving = np.ptp(draws) > 0 and np.isfinite(draws).all()
        rows[name] = {
            "mean": draws.mean(), "median": median, "sd": draws.std(ddof=1),
            "lower95": lower, "upper95": upper,
            "rhat": float(array_stats.rhat(draws)) if moving else np.nan,
            "ess_bulk": float(array_stats.ess(draws, method="bulk")) if moving else np.nan,
            "ess_tail": float(array_stats.ess(draws, method="tail", prob=(0.05, 0.95)))
            if moving else np.nan}
    columns = ["mean", "median", "sd", "lower95", "upper95", "rhat", "ess_bulk", "ess_tail"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def sensitivity(draws: Mapping[str, np.ndarray], log_prior: Mapping[str, np.ndarray],
                log_likelihood: np.ndarray) -> pd.DataFrame:
    """How much each quantity moves when the prior, or the likelihood, is given a little more
    weight: power-scaling, Kallioinen et al. 2024, Stat Comput 34:57.

    draws, log_prior : (chain, draw) by name; log_likelihood : (chain, draw, observation)
    returns : index the quantity; prior, likelihood: distances, of which 0.05 is noticeable
    """
    from arviz_stats import psense_summary

    dims = ("chain", "draw")
    data = xr.DataTree.from_dict({
        "posterior": xr.Dataset({n: (dims, v) for n, v in draws.items()}),
        "log_prior": xr.Dataset({n: (dims, v) for n, v in log_prior.items()}),
        "log_likelihood": xr.Dataset({"y": ((*dims, "observation"), log_likelihood)})})
    with _quietly():
        table = psense_summary(data, round_to=6)
    return table[["prior", "likelihood"]].astype(float)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """What ArviZ would warn of is in the numbers that are returned, and told from there."""
    logger = logging.getLogger("arviz_stats")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)


@dataclass(frozen=True)
class Left:
    """Leave-one-out of one model: elpd with its SE, effective parameters, the difference to the
    best model with its SE, the stacking weight, and the Pareto k of each unit."""

    elpd: float
    se: float
    p: float
    difference: float
    difference_se: float
    weight: float
    pareto_k: np.ndarray


def left_out(log_likelihoods: Mapping[str, np.ndarray]) -> dict[str, Left]:
    """Models by their leave-one-out predictions, best first: PSIS, Vehtari et al. 2017, Stat
    Comput 27:1413; stacking, Yao et al. 2018, Bayesian Anal 13:917.

    log_likelihoods : (chain, draw, unit) of each model, over the same units
    """
    from arviz_stats import compare, loo

    dims = ("chain", "draw")
    with _quietly():
        each = {}
        for n, v in log_likelihoods.items():
            flat = _flat(-v.reshape(-1, v.shape[-1]))
            ramp = np.linspace(0.0, 1.0, v.shape[0] * v.shape[1]).reshape(*v.shape[:2], 1)
            each[n] = loo(xr.DataTree.from_dict({
                "posterior": xr.Dataset({"none": (dims, np.zeros(v.shape[:2]))}),
                "log_likelihood": xr.Dataset({"y": ((*dims, "unit"), np.where(flat, ramp, v))})}),
                pointwise=True, reff=1.0)
            _without_tail(each[n], v.reshape(-1, v.shape[-1]), flat)
        table = compare(each, method="stacking")
    return {str(n): Left(
        float(row["elpd"]), float(row["se"]), float(row["p"]), float(
            row["elpd"] - table["elpd"].iloc[0]), float(row["dse"]), float(row["weight"]),
        np.asarray(each[str(n)].pareto_k)) for n, row in table.iterrows()}


def _flat(log_weights: np.ndarray) -> np.ndarray:
    """(unit,): whether the largest log weights (draw, unit) are all the same: there is no tail."""
    draws = len(log_weights)
    tail = int(3 * draws**0.5 if draws > 225 else draws / 5)
    largest = np.partition(log_weights, draws - tail, axis=0)[draws - tail:]
    return (largest.max(axis=0) - largest.min(axis=0) == 0.0) & (tail >= 5)


def _without_tail(found: Any, log_likelihood: np.ndarray, flat: np.ndarray) -> None:
    """Importance sampling as it stands for units whose weights have no tail to be smoothed, with a
    k of 0, and for those whose weights lie so far apart that smoothing gives no number: k infinite.

    found : what arviz says of a model; log_likelihood : (draws, unit); flat : see `_flat`
    """
    each = found.elpd_i.values
    lost = ~np.isfinite(each) & ~flat
    some = lost | flat
    if not some.any():
        return
    draws = len(log_likelihood)
    each[some] = np.log(draws) - logsumexp(-log_likelihood[:, some], axis=0)
    found.pareto_k.values[lost], found.pareto_k.values[flat] = np.inf, 0.0
    found.elpd, found.se = float(each.sum()), float(np.sqrt(len(each) * np.var(each)))
    found.p = float((logsumexp(log_likelihood, axis=0) - np.log(draws)).sum()) - found.elpd


def pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """(P,): Pareto k of each column of log importance weights (draw, P): how heavy their tail is.
    """
    from arviz_stats.base import array_stats

    return np.array([0.0 if flat else float(array_stats.psislw(-column)[1])
                     for column, flat in zip(log_weights.T, _flat(log_weights), strict=True)])


def tree(model: PopulationModel, design: Design, data: Arrays, theta: Mapping[str, np.ndarray],
         phi: np.ndarray, sample_stats: Mapping[str, np.ndarray], draws_from: str,
         seed: int) -> xr.DataTree:
    """Everything a fit is read from.

    posterior : population values (chain, draw), `CL` and `eta_CL` (chain, draw, patient), at the
        reference of covariates that change in a patient; `kappa_CL` (..., patient, occasion); of
        a mixture `class_1_probability` and so on, eta being from a class drawn by them
    sample_stats : (chain, draw); log_likelihood : y (chain, draw, observation)
    posterior_predictive : y simulated and ipred, (chain, draw, observation), thinned
    observed_data : lower, upper, censored (observation)
    constant_data : time, output, line, lloq, patient_index (observation), inputs and covariates
        (patient), doses; change_X (change), the rows of columns that change in a patient
    """
    chains, draws = phi.shape[:2]
    rows = np.nonzero(design.observed)
    data = filled_on_devices(data)
    every, key = _evaluation(model, data, rows), jax.random.key(seed)
    log_likelihood, failed = every(theta, phi, jax.random.split(key, chains * draws),
                                   "log_likelihood", "failed")
    thin = max(1, -(-chains * draws // _PREDICTIVE_DRAWS))
    some = slice(None, None, thin)
    ipred, simulated = every(
        {n: v[:, some] for n, v in theta.items()}, phi[:, some],
        jax.random.split(key, chains * len(range(draws)[some])), "predicted", "simulated")
    patient = {"patient": list(design.ids)}
    index = {"chain": np.arange(chains), "draw": np.arange(draws)}
    thinned = {"chain": index["chain"], "draw": index["draw"][some]}
    by_patient: dict[str, Any] = {}
    mu, by_covariate = _locations(model, data, theta, phi, seed)
    for k, p in enumerate(model.varying):
        by_patient[p.name] = np.asarray(model.scale(p.name).from_real(jnp.asarray(phi[..., k])))
        by_patient[f"eta_{p.name}"] = phi[..., k] - mu[..., k]
    by_patient |= by_covariate
    kappas = {f"kappa_{n}": phi[..., len(model.spread) + k * model.courses:][..., :model.courses]
              for k, n in enumerate(model.occasions)}
    observation = ("observation",)
    draw = ("chain", "draw")
    constant = {
        "time": (observation, design.time[rows]), "output": (observation, design.output[rows]),
        "line": (observation, design.line[rows]), "patient_index": (observation, rows[0]),
        "failed_solves": (("patient",), failed.sum(axis=(0, 1))),
        **{f"input_{n}": (("patient",), v) for n, v in design.inputs.items()},
        **{f"covariate_{n}": (("patient",), _plain(design.covariates[n]))
           for n in design.covariates},
        **({} if design.lloq is None else {"lloq": (observation, design.lloq[rows])}),
        **{n: (("patient", "dose"), getattr(design, n)) for n in _DOSES},
        **{f"dose_event_{n}": (("patient", "dose"), v) for n, v in design.dose_events.items()},
        **_changes(model, design)}
    groups = {
        "posterior": xr.Dataset(
            {**{n: (draw, v) for n, v in theta.items()},
             **{n: ((*draw, "patient"), v) for n, v in by_patient.items()},
             **{n: ((*draw, "patient", "occasion"), v) for n, v in kappas.items()}},
            {**index, **patient}, {"draws_from": draws_from}),
        "sample_stats": xr.Dataset({n: (draw, v) for n, v in sample_stats.items()}, index),
        "log_likelihood": xr.Dataset({"y": ((*draw, "observation"), log_likelihood)}, index),
        "posterior_predictive": xr.Dataset(
            {"y": ((*draw, "observation"), simulated), "ipred": ((*draw, "observation"), ipred)},
            thinned),
        "observed_data": xr.Dataset({
            "lower": (observation, design.lower[rows]), "upper": (observation, design.upper[rows]),
            "censored": (observation, design.censored[rows])}),
        "constant_data": xr.Dataset(constant, patient),
    }
    return xr.DataTree.from_dict(groups)


def _changes(model: PopulationModel, design: Design) -> dict[str, Any]:
    """The rows of the columns that change in a patient."""
    rows = design.changing
    read = (*model.rules, *(s.column for s in model.separate.values()
                            if s.column in design.varying and s.column not in model.rules))
    return {f"change_{n}": (("change",), _plain(rows[n]) if v is None else v)
            for n, v in (("ID", rows["ID"].to_numpy(object)), ("line", rows["line"].to_numpy()),
                         ("TIME", rows["TIME"].to_numpy(float)),
                         *((n, None) for n in dict.fromkeys(read)))} if read else {}


def _changing(constant: xr.Dataset) -> pd.DataFrame:
    """The table of `_changes`."""
    held = {str(n).removeprefix("change_"): constant[n].to_series().reset_index(drop=True)
            for n in constant.data_vars if str(n).startswith("change_")}
    return pd.DataFrame({n: v.where(v != "") if v.dtype == object else v
                         for n, v in held.items()}) if held else NOTHING_CHANGES


def _plain(column: pd.Series) -> np.ndarray:
    """A covariate as netCDF holds it: numbers, or text with "" for what is missing."""
    return column.to_numpy(float) if pd.api.types.is_numeric_dtype(column) \
        else column.fillna("").astype(str).to_numpy(dtype=object)


def _written(column: np.ndarray) -> np.ndarray:
    """The inverse of `_plain`."""
    return column if column.dtype.kind == "f" else np.array(
        [v or None for v in column], dtype=object)


def _locations(model: PopulationModel, data: Arrays, theta: Mapping[str, np.ndarray],
               phi: np.ndarray, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(chain, draw, patient, parameter): where each draw's population puts each patient's phi;
    and (chain, draw, patient) of each parameter that differs by its covariates alone, and of how
    likely each class is, of which one is drawn to say where phi lies."""
    alone = sorted(model.moved - set(model.spread))

    @jax.jit
    def every(theta: Arrays, phi: jax.Array, keys: jax.Array, data: Arrays) -> Any:
        def one(draw: Any) -> Any:
            values, known, classes = {**fixed(model), **draw[0]}, data, {}
            if model.mixture:
                each = class_log_densities(model, data, values, draw[1])
                classes = {f"class_{k + 1}_probability": p for k, p in
                           enumerate(jax.nn.softmax(each, axis=1).T)}
                known = {**data, "classes": jax.nn.one_hot(
                    jax.random.categorical(draw[2], each), each.shape[1], dtype=float)}
            if model.hidden:
                known = with_own_levels(model, known, values, draw[1],
                                        jax.random.fold_in(draw[2], 1))
            mu, _ = population_location(model, known, values)
            patients = model.patient_values(values, data["effects"], mu)
            return mu, {**{n: patients[n] for n in alone}, **classes}
        return jax.lax.map(one, (theta, phi, keys), batch_size=at_once(phi))

    total = phi.shape[0] * phi.shape[1]
    mu, values = every({n: jnp.asarray(v.reshape(-1)) for n, v in theta.items()},
                       jnp.asarray(_filled(phi, data)),
                       jax.random.split(jax.random.fold_in(jax.random.key(seed), 11), total), data)
    patients = phi.shape[2]
    return (np.asarray(mu)[:, :patients].reshape(phi.shape),
            {n: np.asarray(v)[:, :patients].reshape(phi.shape[:3]) for n, v in values.items()})


def _filled(phi: np.ndarray, data: Arrays) -> np.ndarray:
    """Draws of phi (chain * draw, P, K), of as many patients as the data are of; see
    `carpk.padding`."""
    flat = phi.reshape(phi.shape[0] * phi.shape[1], *phi.shape[2:])
    return filled_to(data["time"].shape[0], flat, 1)


def _evaluation(model: PopulationModel, data: Arrays, rows: tuple[np.ndarray, ...]) \
        -> Callable[..., list[np.ndarray]]:
    """A function of population values (chain, draw), phi (chain, draw, P, K), keys (chain * draw,)
    and the names of what is wanted, each (chain, draw, ...): `log_likelihood`, `predicted` and a
    `simulated` measurement of each observation, and which patients' solve `failed`. Its one
    program takes some draws at a time."""
    @jax.jit
    def evaluate(theta: Arrays, phi: jax.Array, keys: jax.Array, data: Arrays) -> Any:
        def one(draw: Any) -> Any:
            values = {**fixed(model), **draw[0]}
            predicted = predicted_rows(model, data, values, draw[1])
            return {"log_likelihood": row_log_likelihood(model, data, values, predicted),
                    "failed": (~jnp.isfinite(predicted) & data["observed"]).any(axis=1),
                    "predicted": predicted,
                    "simulated": drawn_rows(model, data, values, predicted, draw[2])}
        return jax.lax.map(one, (theta, phi, keys), batch_size=at_once(phi))

    def every(theta: Mapping[str, np.ndarray], phi: np.ndarray, keys: jax.Array,
              *wanted: str) -> list[np.ndarray]:
        shape, patients = phi.shape[:2], phi.shape[2]
        total = shape[0] * shape[1]
        flat = ({n: v.reshape(-1) for n, v in theta.items()},
                _filled(phi, data), keys)
        found = []
        for first in range(0, total, _TOGETHER):
            # the last are filled up with the first, so that they need no program of their own
            some = np.arange(first, first + _TOGETHER) % total
            out = evaluate(*jax.tree.map(lambda x, some=some: x[some], flat), data)
            # in the order of what is read from disk, or sums would differ in the last digit
            found.append([np.ascontiguousarray(
                np.asarray(out[n])[:total - first, :patients] if n == "failed" else
                np.asarray(out[n])[:total - first, rows[0], rows[1]]) for n in wanted])
        return [np.concatenate(v).reshape(*shape, -1) for v in zip(*found, strict=True)]

    return every


def phi_of(model: PopulationModel, draws: xr.Dataset) -> np.ndarray:
    """(..., P, K): phi of the draws of a group posterior, or of what was made of them."""
    columns = [np.asarray(model.scale(n).to_real(jnp.asarray(draws[n].values)))
               for n in model.spread]
    columns += [draws[f"kappa_{n}"].values[..., j] for n in model.occasions
                for j in range(model.courses)]
    shape = tuple(draws.sizes[d] for d in ("chain", "draw", "patient") if d in draws.sizes)
    return np.stack(columns, axis=-1) if columns else np.zeros((*shape, 0))


def fixed(model: PopulationModel) -> dict[str, jax.Array]:
    """The fixed population values as scalars."""
    return {n: jnp.asarray(float(v)) for n, v in model.fixed.items()}


def design_of(stored: xr.DataTree) -> Design:
    """The design a tree was made on (what was excluded is in the manifest)."""
    constant, observed = stored["constant_data"].dataset, stored["observed_data"].dataset
    ids = tuple(str(i) for i in constant["patient"].values)
    patient = constant["patient_index"].values
    counts = np.bincount(patient, minlength=len(ids))
    column = np.concatenate([np.arange(c) for c in counts]).astype(int)
    shape = (len(ids), int(counts.max()))

    def block(values: np.ndarray, fill: Any) -> np.ndarray:
        out = np.full(shape, fill, dtype=values.dtype)
        out[patient, column] = values
        return out

    time = block(constant["time"].values, np.nan)
    time = pd.DataFrame(time).ffill(axis=1).to_numpy()
    return Design(
        ids=ids, time=time, lower=block(observed["lower"].values, 1.0),
        upper=block(observed["upper"].values, 1.0), output=block(constant["output"].values, 0),
        observed=block(np.ones(len(patient), bool), False), line=block(constant["line"].values, 0),
        inputs={str(n).removeprefix("input_"): constant[n].values for n in constant.data_vars
                if str(n).startswith("input_")},
        excluded=pd.DataFrame(), warnings=(), covariates=pd.DataFrame(
            {str(n).removeprefix("covariate_"): _written(constant[n].values)
             for n in constant.data_vars if str(n).startswith("covariate_")},
            index=pd.Index(ids, dtype=object, name="ID")),
        dose_time=constant["dose_time"].values, dose_amount=constant["dose_amount"].values,
        dose_duration=constant["dose_duration"].values, dose_state=constant["dose_state"].values,
        dose_line=constant["dose_line"].values,
        dose_events={str(n).removeprefix("dose_event_"): constant[n].values
                     for n in constant.data_vars if str(n).startswith("dose_event_")},
        changing=(rows := _changing(constant)), varying={c: () for c in rows.columns[3:]},
        lloq=block(constant["lloq"].values, np.nan) if "lloq" in constant else None)
