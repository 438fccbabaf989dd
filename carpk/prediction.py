"""What a fit predicts: at every fitted observation, and as curves between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from carpk.cohort import Design
from carpk.error_models import ErrorModel
from carpk.fitting import Fit
from carpk.likelihood import data_of, population_location, predicted_rows
from carpk.posterior import fixed, phi_of
from carpk.separate_errors import units_of
from carpk.solve import Arrays
from carpk.tails import TAILS

_CURVE_DRAWS = 200  # twice as many move the edge of a 90 % band by less than its line's width


def predictions(fit: Fit) -> pd.DataFrame:
    """One row per fitted observation, in file order within each patient.

    line (of the file), ID, TIME, DVID, output; DV: the value, or the limit of a censored row;
    censored: 1 below DV (or between lower and DV), -1 above it, 0 measured;
    lower, upper: where the truth lies, NaN at an open end;
    PRED: the typical patient with this patient's inputs, at the posterior medians; of a mixture
        one of the patient's likeliest class;
    IPRED, ipred_lower95, ipred_upper95: median and 95 % interval of the patient's own curve;
    y_lower95, y_upper95: 95 % interval of a new measurement;
    IWRES: (DV - IPRED) / SD on the error model's scale, NaN on censored rows;
    loglik: posterior mean of the row's log-likelihood.
    Levels are in the unit of the row's output.
    """
    return _predictions(fit).copy()


@lru_cache(maxsize=2)  # a report asks for the same table six times
def _predictions(fit: Fit) -> pd.DataFrame:
    constant = fit.posterior["constant_data"].dataset
    observed = fit.posterior["observed_data"].dataset
    lower, upper = observed["lower"].values, observed["upper"].values
    hidden, output = observed["censored"].values, constant["output"].values
    above = hidden & np.isinf(upper)
    outputs = fit.model.structure.outputs
    simulated = fit.posterior["posterior_predictive"].dataset
    ipred = quantiles(_flat(simulated["ipred"].values), (0.5, 0.025, 0.975))
    new = quantiles(_flat(simulated["y"].values), (0.025, 0.975))
    table = pd.DataFrame({
        "line": constant["line"].values,
        "ID": np.array(fit.design.ids, dtype=object)[constant["patient_index"].values],
        "TIME": constant["time"].values,
        "DVID": np.array([o.dvid for o in outputs])[output],
        "output": np.array([o.name for o in outputs], dtype=object)[output],
        "DV": np.where(above, lower, upper),
        "censored": np.where(above, -1, hidden.astype(int)),
        "lower": lower, "upper": upper, "PRED": _typical(fit),
        "IPRED": ipred[0], "ipred_lower95": ipred[1], "ipred_upper95": ipred[2],
        "y_lower95": new[0], "y_upper95": new[1]})
    table["IWRES"] = _weighted_residuals(fit, table)
    table["loglik"] = _flat(fit.posterior["log_likelihood"].dataset["y"].values).mean(axis=0)
    table[["lower", "upper"]] = table[["lower", "upper"]].replace([-np.inf, np.inf], np.nan)
    return table


def curves(fit: Fit, points: int = 100) -> pd.DataFrame:
    """Every patient's curve of every output, from time 0 to the patient's last observation.

    points : per patient and output, dense after every dose; the doses are added
    returns : ID, output, TIME, typical (the typical patient with this patient's inputs),
        median, lower50, upper50, lower90, upper90 (of the patient's own curve), in the unit of
        the output
    """
    return _curves(fit, points).copy()


@lru_cache(maxsize=2)  # two figures of a report read them
def _curves(fit: Fit, points: int) -> pd.DataFrame:
    seen, outputs = fit.design, fit.model.structure.outputs
    grid = _grid(seen, points)
    each = grid.shape[1]
    shape = (len(seen.ids), len(outputs) * each)
    asked = dataclasses.replace(
        seen, time=np.tile(grid, (1, len(outputs))), lower=np.ones(shape), upper=np.ones(shape),
        output=np.broadcast_to(np.repeat(np.arange(len(outputs)), each), shape),
        observed=np.ones(shape, dtype=bool), lloq=None,
        line=np.full(shape, np.iinfo(np.int64).max))  # read after a dose at the same time
    theta, phi = _draws(fit, _CURVE_DRAWS)
    centre, middle = _centre(fit)
    paths = _solve(fit, asked, {n: np.append(v, centre[n]) for n, v in theta.items()},
                   np.concatenate([phi, middle[None]]))
    at = {"median": 0.5, "lower50": 0.25, "upper50": 0.75, "lower90": 0.05, "upper90": 0.95}
    bands = quantiles(paths[:-1], tuple(at.values()))
    return pd.DataFrame({
        "ID": np.repeat(np.array(seen.ids, dtype=object), shape[1]),
        "output": np.tile(np.repeat(np.array([o.name for o in outputs], dtype=object), each),
                          len(seen.ids)),
        "TIME": asked.time.ravel(), "typical": paths[-1].ravel(),
        **{n: band.ravel() for n, band in zip(at, bands, strict=True)}})


def medians(fit: Fit) -> dict[str, float]:
    """Every population value at its posterior median, fixed ones at their value."""
    draws = fit.posterior["posterior"].dataset
    free = {n: float(np.median(draws[n].values)) for n in fit.model.free}
    return {n: free[n] if n in free else float(fit.model.fixed[n]) for n in fit.model.names}


def quantiles(draws: np.ndarray, at: tuple[float, ...]) -> np.ndarray:
    """Quantiles over the first axis, (len(at), ...), of the draws that solved; NaN if none did.

    >>> quantiles(np.array([[1.0, 2.0], [3.0, np.nan], [2.0, np.nan]]), (0.5,)).tolist()
    [[2.0, 2.0]]
    """
    if np.isfinite(draws).all():
        return np.quantile(draws, at, axis=0)
    finite = np.where(np.isfinite(draws), draws, np.nan)
    empty = np.isnan(finite).all(axis=0)
    return np.where(empty, np.nan, np.nanquantile(np.where(empty, 0.0, finite), at, axis=0))


def some_draws(fit: Fit, most: int) -> np.ndarray:
    """At most that many draws, evenly spread over the chains, as places in (chain, draw)."""
    sizes = fit.posterior["posterior"].dataset.sizes
    total = sizes["chain"] * sizes["draw"]
    return np.unique(np.linspace(0, total - 1, min(most, total)).astype(int))


def _grid(seen: Design, points: int) -> np.ndarray:
    """(P, points + D): times from 0 to each patient's last, and the patient's doses.

    Steps grow in proportion to the time since the last dose beyond the cohort's early samples:
    a peak and the phases of decline get about as many points each, on any time unit, and those
    of a second course as many as the first's.
    """
    times = seen.time[seen.observed & (seen.time > 0)]
    early = float(np.quantile(times, 0.1)) if times.size else 1.0
    last = seen.time.max(axis=1)[:, None]
    doses = np.minimum(seen.dose_time, last)
    graded = []
    for end, own in zip(last, doses, strict=True):
        begins = np.unique(np.append(own, 0.0))
        passed = np.append(0.0, np.cumsum(np.log1p(np.diff(begins, append=end) / early)))
        at = np.linspace(0.0, passed[-1], points)
        since = np.clip(np.searchsorted(passed, at, side="right") - 1, 0, len(begins) - 1)
        graded.append(np.minimum(begins[since] + early * np.expm1(at - passed[since]), end))
    return np.sort(np.concatenate([graded, doses], axis=1), axis=1)


def _flat(draws: np.ndarray) -> np.ndarray:
    """(chain * draw, ...) of (chain, draw, ...), of which the last may be none."""
    return draws.reshape(draws.shape[0] * draws.shape[1], *draws.shape[2:])


def _draws(fit: Fit, most: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Free population values (S,) by name and phi (S, P, K) of some draws."""
    draws, some = fit.posterior["posterior"].dataset, some_draws(fit, most)
    theta = {n: _flat(draws[n].values)[some] for n in fit.model.free}
    return theta, _flat(phi_of(fit.model, draws))[some]


def own_classes(fit: Fit) -> Arrays:
    """Of a mixture `classes` (P, C), each patient's likeliest class, for `carpk.likelihood`."""
    if fit.model.mixture is None:
        return {}
    return {"classes": jax.nn.one_hot(class_probabilities(fit).argmax(axis=1),
                                      fit.model.mixture.count, dtype=float)}


def largest_class(fit: Fit, patients: int) -> Arrays:
    """Of a mixture `classes` (patients, C), the class that most of the patients are of: whom a
    typical patient is one of."""
    if fit.model.mixture is None:
        return {}
    shares = [float(s) for s in fit.model.mixture.shares(medians(fit))]
    return {"classes": jax.nn.one_hot(np.full(patients, np.argmax(shares)), len(shares),
                                      dtype=float)}


def class_probabilities(fit: Fit) -> np.ndarray:
    """(P, C): how likely each patient is of each class of a mixture, posterior mean."""
    assert fit.model.mixture is not None
    draws = fit.posterior["posterior"].dataset
    return np.stack([draws[f"class_{k + 1}_probability"].values.mean(axis=(0, 1))
                     for k in range(fit.model.mixture.count)], axis=1)


def _centre(fit: Fit) -> tuple[dict[str, float], np.ndarray]:
    """The posterior medians, and the phi (P, K) of patients who are typical in everything, of a
    mixture as patients of their class are."""
    values = medians(fit)
    data = {**data_of(fit.model, fit.design), **own_classes(fit)}
    mu, _ = population_location(fit.model, data, values)
    return values, np.asarray(mu)


def _solve(fit: Fit, seen: Design, theta: Mapping[str, np.ndarray], phi: np.ndarray) \
        -> np.ndarray:
    """Predictions (S, P, N) of each draw at the times of a design."""
    model = fit.model
    data = data_of(model, seen)

    @jax.jit
    def evaluate(theta: Arrays, phi: jax.Array, data: Arrays) -> jax.Array:
        def one(draw: tuple[Arrays, jax.Array]) -> jax.Array:
            values = {**fixed(model), **draw[0]}
            return predicted_rows(model, data, values, draw[1])
        return jax.lax.map(one, (theta, phi))

    return np.asarray(evaluate({n: jnp.asarray(v) for n, v in theta.items()},
                               jnp.asarray(phi), data))


def _typical(fit: Fit) -> np.ndarray:
    """PRED of every fitted observation."""
    values, middle = _centre(fit)
    seen = fit.design
    free = {n: np.array([values[n]]) for n in fit.model.free}
    return _solve(fit, seen, free, middle[None])[0][seen.observed]


def _weighted_residuals(fit: Fit, table: pd.DataFrame) -> np.ndarray:
    values, out = medians(fit), np.full(len(table), np.nan)
    units = {o: v[fit.design.observed]
             for o, v in units_of(fit.model.separate, fit.design).items()}
    for output, error in fit.model.error_models().items():
        rows = ((table["output"] == output) & (table["censored"] == 0)).to_numpy()
        sigma = fit.model.sigma(values, output, {o: v[rows] for o, v in units.items()})
        out[rows] = residuals(error, table["DV"][rows].to_numpy(),
                              table["IPRED"][rows].to_numpy(), sigma)
    return out


def residual_shrinkage(fit: Fit) -> dict[str, float]:
    """Of every residual parameter 1 - SD(IWRES) over the measured levels that it is of; NaN where
    these are fewer than two, or not normal around the curve."""
    model, table, found = fit.model, _predictions(fit), {}
    units = {o: v[fit.design.observed] for o, v in units_of(model.separate, fit.design).items()}
    for name, (output, _, unit) in model.residuals.items():
        own = table["output"] == output
        if unit:
            own &= units[output] == model.separate[output].units.index(unit)
        normal = model.error_models()[output].tails is TAILS["normal"]
        found[name] = 1 - float(table.loc[own, "IWRES"].std()) if normal else float("nan")
    return found


def residuals(error: ErrorModel, dv: np.ndarray, predicted: np.ndarray, sigma: object) \
        -> np.ndarray:
    """(DV - prediction) / SD, on the scale the error model adds its residual to.

    >>> from types import SimpleNamespace
    >>> from carpk import registry
    >>> error = registry.load("error_models", "proportional")
    >>> residuals(error, np.array([12.0]), np.array([10.0]), SimpleNamespace(prop=0.2)).tolist()
    [1.0]
    """
    away = error.working(jnp.asarray(dv)) - error.working(jnp.asarray(predicted))
    return np.asarray(away / error.sd(jnp.asarray(predicted), sigma))
