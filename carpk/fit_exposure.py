"""Exposure by the model: peak, area, half-life and persistence of every draw's curves."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from carpk.cohort import Design
from carpk.fitting import Fit
from carpk.likelihood import data_of, population_location, predicted_rows
from carpk.noncompartmental import area
from carpk.posterior import fixed, phi_of
from carpk.prediction import largest_class, quantiles, some_draws
from carpk.predictive_check import limits
from carpk.solve import Arrays

_DRAWS, _CHUNK = 200, 50  # draws: more move no edge of a 95 % interval a reader would quote
# on the time axis: a closed form may have a kink at its peak, which a point meets within 1 %
_POINTS = {True: 1000, False: 400}
_DAY = 28.0  # area from the infusion to here, for models in days
ENDPOINTS = ("Cmax", "Tmax", "AUC0_28", "half_life", "Tbelow")


def model_exposure(fit: Fit) -> pd.DataFrame:
    """Exposure of each patient's own curve, and of the typical patient's, per output.

    returns : kind ("patient" or "typical"), ID, output, unit (of levels; areas are unit*time);
        limit, the most frequent limit of quantification; for each X of Cmax, Tmax, AUC0_28,
        half_life and Tbelow X_median, X_lower95, X_upper95; below_share, the share of draws that
        fall below the limit before the horizon, which is the cohort's last observation (or day
        28). Without residual error: Cmax is the highest level of the curve, not the highest
        sample, and Tbelow the first time after the peak at which the curve lies below the limit.
        half_life is the curve's over the last tenth of the patient's observed time. AUC0_28 is
        NaN for a model whose time is not in days; Tbelow is NaN at what lies beyond the horizon,
        and without a limit. The typical patient has the median of each input, every covariate
        of the model at its reference, and the doses of the patient whose total is the median.
    Censored samples are in these draws by their likelihood (M3).
    """
    drawn, output_limits = exposure_draws(fit), _limits(fit)
    outputs, units = fit.model.structure.outputs, fit.manifest["data"]["units"]
    ids = [*fit.design.ids, ""]
    rows = []
    for k, output in enumerate(outputs):
        if output.binary:  # a probability is no exposure
            continue
        columns: dict[str, Any] = {
            "kind": ["patient"] * (len(ids) - 1) + ["typical"], "ID": ids, "output": output.name,
            "unit": units[str(output.dvid)], "limit": output_limits[k]}
        for name in ENDPOINTS:
            values = drawn[name][:, :, k]
            if name == "Tbelow":  # infinite beyond the horizon: only its place counts
                found = np.quantile(np.where(np.isnan(values), np.inf, values),
                                    (0.5, 0.025, 0.975), axis=0, method="inverted_cdf")
                found = np.where(np.isfinite(found), found, np.nan)
                columns["below_share"] = np.isfinite(values).mean(axis=0) \
                    if np.isfinite(output_limits[k]) else np.nan
            else:
                found = quantiles(values, (0.5, 0.025, 0.975))
            columns |= {f"{name}_median": found[0], f"{name}_lower95": found[1],
                        f"{name}_upper95": found[2]}
        rows.append(pd.DataFrame(columns))
    if not rows:
        return pd.DataFrame(columns=[
            "kind", "ID", "output", "unit", "limit",
            *(f"{n}_{k}" for n in ENDPOINTS for k in ("median", "lower95", "upper95"))])
    table = pd.concat(rows, ignore_index=True)
    table["limit"] = table["limit"].replace(-np.inf, np.nan)
    observed = {(i, k) for i, k in zip(*_observed(fit), strict=True)}
    kept = [t == "typical" or (i, o) in observed for t, i, o in
            zip(table["kind"], table["ID"], table["output"], strict=True)]
    return table[kept].reset_index(drop=True)


def exposure_draws(fit: Fit, end: float | None = None) -> dict[str, np.ndarray]:
    """Each endpoint by name, (S, P + 1, outputs): the patients, then the typical one.

    end : another area, from 0 to this time in the model's unit, as AUC0_14
    Tbelow is inf beyond the horizon and NaN where there is no limit.
    """
    model, seen, outputs = fit.model, fit.design, fit.model.structure.outputs
    own_last = np.where(seen.observed, seen.time, 0.0).max(axis=1)
    last = np.append(own_last, np.median(own_last))
    in_days = model.structure.time_unit == "day"
    ends = [end] if end is not None else [_DAY] if in_days else []
    asked, grid = _asked(fit, max(float(last.max()), *ends, 0.0), ends)
    some = some_draws(fit, _DRAWS)
    draws = fit.posterior["posterior"].dataset
    patients = len(seen.ids)
    theta = {n: draws[n].values.reshape(-1)[some] for n in model.free}
    phi = phi_of(model, draws)
    every = phi.reshape(phi.shape[0] * phi.shape[1], *phi.shape[2:])[some]
    data = {**data_of(model, asked), **largest_class(fit, patients + 1)}
    # the last patient is the typical one: no covariate moves it
    data["effects"] = {k: v.at[-1].set(0.0) for k, v in data["effects"].items()}

    @jax.jit
    def evaluate(theta: Arrays, phi: jax.Array, data: Arrays) -> jax.Array:
        def one(draw: Any) -> jax.Array:
            values = {**fixed(model), **draw[0]}
            mu, _ = population_location(model, data, values)
            return predicted_rows(model, data, values, jnp.concatenate([draw[1], mu[-1:]]))
        return jax.lax.map(one, (theta, phi))

    chunks = []
    size = min(_CHUNK, len(some))
    for first in range(0, len(some), size):
        at = np.minimum(np.arange(first, first + size), len(some) - 1)  # of one size: one program
        paths = np.asarray(evaluate({n: jnp.asarray(v[at]) for n, v in theta.items()},
                                    jnp.asarray(every[at]), data))
        paths = paths.reshape(size, patients + 1, len(outputs), -1)[:len(some) - first]
        chunks.append(_endpoints(grid, paths, last, _limits(fit), ends))
    return {n: np.concatenate([c[n] for c in chunks]) for n in chunks[0]}


def _observed(fit: Fit) -> tuple[list[str], list[str]]:
    """The patients and outputs that have observations."""
    seen, names = fit.design, [o.name for o in fit.model.structure.outputs]
    patient = np.nonzero(seen.observed)[0]
    pairs = np.unique(np.stack([patient, seen.output[seen.observed]]), axis=1)
    return [seen.ids[i] for i in pairs[0]], [names[k] for k in pairs[1]]


def _asked(fit: Fit, horizon: float, ends: list[float]) -> tuple[Design, np.ndarray]:
    """The fitted patients and a typical one, asked at the times of a grid (G,), per output."""
    seen, outputs = fit.design, len(fit.model.structure.outputs)
    times = seen.time[seen.observed & (seen.time > 0)]
    early = float(np.quantile(times, 0.1)) if times.size else 1.0
    points = _POINTS[fit.model.structure.solution is not None]
    grid = early * np.expm1(np.linspace(0.0, 1.0, points) * np.log1p(horizon / early))
    grid = np.unique(np.concatenate([grid, seen.dose_time[seen.dose_amount > 0].ravel(), ends]))
    grid = grid[grid <= horizon]
    patients = len(seen.ids) + 1
    total = seen.dose_amount.sum(axis=1)
    like = int(np.argsort(total, kind="stable")[len(total) // 2])
    shape = (patients, outputs * len(grid))

    def more(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, values[like:like + 1]])

    covariates = pd.concat([seen.covariates, seen.covariates.iloc[:1]]) \
        if len(seen.covariates.columns) else pd.DataFrame(index=range(patients))
    return dataclasses.replace(
        seen, ids=(*seen.ids, ""), time=np.broadcast_to(np.tile(grid, outputs), shape),
        lower=np.ones(shape), upper=np.ones(shape), observed=np.ones(shape, bool),
        output=np.broadcast_to(np.repeat(np.arange(outputs), len(grid)), shape),
        line=np.full(shape, np.iinfo(np.int64).max),  # read after a dose at the same time
        inputs={n: np.append(v, _median(v)) for n, v in seen.inputs.items()},
        dose_time=more(seen.dose_time), dose_amount=more(seen.dose_amount),
        dose_duration=more(seen.dose_duration), dose_state=more(seen.dose_state),
        dose_line=more(seen.dose_line),
        dose_events={n: more(v) for n, v in seen.dose_events.items()}, covariates=covariates,
        lloq=None), grid


def _median(values: np.ndarray) -> float:
    """Of inputs that may be infinite (never given): a value that stands in the middle."""
    return float(np.quantile(values, 0.5, method="inverted_cdf"))


def _limits(fit: Fit) -> np.ndarray:
    """The most frequent limit of each output, -inf where it has none."""
    output = fit.design.output[fit.design.observed]
    every = limits(fit)
    found = []
    for k in range(len(fit.model.structure.outputs)):
        values, counts = np.unique(every[output == k], return_counts=True)
        found.append(values[counts.argmax()] if len(values) else -np.inf)
    return np.array(found)


def _endpoints(time: np.ndarray, paths: np.ndarray, last: np.ndarray, limit: np.ndarray,
               ends: list[float]) -> dict[str, np.ndarray]:
    """Each endpoint (S, P, outputs) of curves (S, P, outputs, G); NaN where a solve failed."""
    solved = np.isfinite(paths).all(axis=-1)
    level = np.where(solved[..., None], paths, 1.0)
    peak = level.argmax(axis=-1)
    found = {"Cmax": level.max(axis=-1), "Tmax": time[peak]}
    found |= {f"AUC0_{end:g}": area(time, level, 0.0, end) for end in ends} or \
        {"AUC0_28": np.full(solved.shape, np.nan)}
    # the slope over the last tenth of what was observed of the patient
    to = np.searchsorted(time, last, side="right") - 1
    begins = np.minimum(np.searchsorted(time, 0.9 * last), np.maximum(to - 1, 0))
    pick = np.broadcast_to(np.arange(len(last))[None, :, None], solved.shape)
    pair = [np.take_along_axis(level, index[pick][..., None], axis=-1)[..., 0]
            for index in (begins, to)]
    with np.errstate(divide="ignore", invalid="ignore"):
        fall = np.log(pair[0]) - np.log(pair[1])
        span = (time[to] - time[begins])[None, :, None]
        found["half_life"] = np.where(fall > 0, np.log(2) * span / fall, np.nan)
    after = (np.arange(len(time)) > peak[..., None]) & (level < limit[:, None])
    first = after.argmax(axis=-1)
    at = np.maximum(first, 1)
    above, below = (np.take_along_axis(level, k[..., None], axis=-1)[..., 0] for k in (at - 1, at))
    limits_ = np.broadcast_to(limit, solved.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.log(above / limits_) / np.log(above / np.maximum(below, 1e-300))
        crossed = time[at - 1] + np.clip(np.nan_to_num(share), 0.0, 1.0) * (time[at]
                                                                            - time[at - 1])
    found["Tbelow"] = np.where(np.isneginf(limits_), np.nan,
                               np.where(after.any(axis=-1), crossed, np.inf))
    return {n: np.where(solved, v, np.nan) for n, v in found.items()}
