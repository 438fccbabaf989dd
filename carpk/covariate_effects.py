"""What covariates do: to the parameters, to what derives from them, and to the exposure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from carpk.changes import by_epoch, epochs_of
from carpk.cohort import Design
from carpk.covariate_models import CovariateEffect, category
from carpk.effects import RELEVANT, band_of, coefficients, covariate_model
from carpk.fitting import Fit
from carpk.likelihood import population_location, predicted_rows
from carpk.population_model import PopulationModel
from carpk.posterior import fixed
from carpk.prediction import largest_class, some_draws
from carpk.solve import Arrays, arrays
from carpk.structure import named

COLUMNS = ("covariate", "value", "reference", "quantity", "kind", "scale", "median", "lower95",
           "upper95", "direction", "within", "band", "coefficient", "explained",
           "explained_lower95", "explained_upper95", "kappa", "missing")
_DRAWS = 1000
_POINTS = 561  # 20 a day over 28 days
_NOTHING = 0.01  # of a ratio: a peak is read off the grid, so less is not told from nothing


def with_band(fit: Fit, stated: str | Sequence[Any] | None) -> Fit:
    """The fit, its effects judged by another band of ratios that are no relevant change."""
    if stated is None:
        return fit
    asked = {**fit.manifest["request"], "band": list(band_of(stated))}
    return dataclasses.replace(fit, manifest={**fit.manifest, "request": asked})


def relevant(fit: Fit) -> tuple[float, float]:
    """The ratios that count as no relevant change: those asked for, or RELEVANT."""
    return band_of(fit.manifest["request"].get("band", RELEVANT))


def covariates(fit: Fit) -> pd.DataFrame:
    """What each covariate does at its 5th and 95th percentile, or at each level, against a
    reference; the other covariates at theirs. Of a parameter the reference is that of its own
    effect, of a derived quantity or an exposure that of the column's first.

    covariate, value, reference; quantity: a parameter, a derived one, Cmax or AUC0_28 of an
    output (until day 28, or half the last sample's time in other units) in the typical patient;
    what a covariate does not move has no row; a term of a formula is moved by itself;
    kind: parameter, derived or exposure; scale: ratio, or difference on an identity link;
    median, lower95, upper95; direction: posterior probability that it goes the way of its median;
    within: that the ratio lies within `relevant`; band: whether its whole interval lies within or
    outside of that, or across an end; coefficient: those that make it up;
    explained: of a parameter, the share of the between-patient variance (link scale) that the
    column explains in these patients, mean and interval: the covariance of what it does with what
    all the parameter's covariates do, over the whole variance. Those of a parameter's covariates
    add up to what they explain together, and that of one that only undoes another is below 0; NaN
    of one that changes in a patient, whose row is for a patient who has that value all along;
    kappa: under a horseshoe, the mean shrinkage factor of the coefficient (of several, the least
    shrunk): near 1 it is held at 0, near 0 the data decide; NaN without, and of one that changes;
    missing: how many patients lack the covariate, whose values were modelled.
    """
    effects = fit.model.effects
    if not effects:
        return pd.DataFrame(columns=list(COLUMNS))
    by_column = {c: [e for e in effects if e.column == c] for c in
                 dict.fromkeys(e.column for e in effects)}
    scenes = [(c, v) for c, mine in by_column.items() for v in _values(fit, mine)]
    # after them, of every column, all its effects at the reference of the first
    bases = {c: len(scenes) + k + 1 for k, c in enumerate(by_column)}
    theta, (low, high) = _population(fit), relevant(fit)
    found = _quantities(fit, theta, [*scenes, *(
        (c, mine[0].reference) for c, mine in by_column.items())])
    kappas, explained = _kappas(fit, theta), _explained(fit, theta)
    rows = []
    for k, (column, value) in enumerate(scenes):
        for (quantity, kind), values in found.items():
            mine = [e for e in by_column[column] if kind != "parameter" or e.parameter == quantity]
            if not mine or value in (mine[0].reference, category.level(mine[0].reference)):
                continue  # nothing to see, or against itself
            ratio = kind != "parameter" or \
                fit.model.structure.parameter(quantity).link != "identity"
            base = values[:, 0 if kind == "parameter" else bases[column]]
            change = values[:, k + 1] / base if ratio else values[:, k + 1] - base
            lower, median, upper = np.quantile(change, [0.025, 0.5, 0.975])
            if kind != "parameter" and max(abs(lower - 1.0), abs(upper - 1.0)) < _NOTHING:
                continue  # nothing that this covariate moves enters it
            up = float((change > (1.0 if ratio else 0.0)).mean())
            rows.append({
                "covariate": column, "value": value, "reference": mine[0].reference,
                "quantity": quantity, "kind": kind, "scale": "ratio" if ratio else "difference",
                "median": median, "lower95": lower, "upper95": upper,
                "direction": max(up, 1.0 - up),
                "within": float(((change > low) & (change < high)).mean()) if ratio else np.nan,
                "band": "" if not ratio else "within" if low < lower and upper < high else
                "outside" if upper < low or lower > high else "across",
                "coefficient": " ".join(n for e in mine if e.parameter == quantity
                                        for n in coefficients(e)),
                **dict(zip(("explained", "explained_lower95", "explained_upper95"), explained.get(
                    (quantity, column) if kind == "parameter" else ("", ""), [np.nan] * 3),
                    strict=True)),
                "kappa": min((kappas[n] for e in mine if e.parameter == quantity
                              for n in coefficients(e) if e.form != "category" or
                              n == f"{e.stem}_{value}"), default=np.nan),
                "missing": len(gap.patients) if (gap := fit.model.gap(mine[0])) else 0})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _values(fit: Fit, effects: Sequence[CovariateEffect]) -> list[float | str]:
    """The values at which a covariate is looked at: the levels, where an effect takes it as a
    category, else its 5th and 95th percentile, or the ends where these are one."""
    levels = [v for e in effects if e.form == "category" for v in (*e.points, e.reference)]
    if levels:
        return list(dict.fromkeys(map(category.level, levels)))
    table = fit.design.covariates
    if fit.model.changes(effects[0]):  # over the patients' epochs
        epochs = epochs_of(fit.model, fit.design)
        assert epochs is not None
        table = by_epoch(fit.design, epochs, epochs.first)[epochs.lasting().ravel()]
    x = covariate_model(effects[0]).read(table, effects[0])
    found = np.nanquantile(x, [0.05, 0.95])
    if np.ptp(found) == 0:
        found = np.array([np.nanmin(x), np.nanmax(x)])
    return [float(f"{q:.4g}") for q in found]


def _population(fit: Fit) -> dict[str, np.ndarray]:
    """(S,) of each free population value, some draws."""
    draws = fit.posterior["posterior"].dataset
    some = some_draws(fit, _DRAWS)
    return {n: draws[n].values.reshape(-1)[some] for n in fit.model.free}


def _scene_columns(fit: Fit, scenes: Sequence[tuple[str, Any]]) -> Arrays:
    """What the coefficients multiply, a row per scene; the first is the reference."""
    columns = {}
    for e in fit.model.effects:
        x = [e.reference, *(v if c == e.column else e.reference for c, v in scenes)]
        kind = object if e.form == "category" else float
        columns[e.key] = jnp.asarray(covariate_model(e).columns(np.array(x, dtype=kind), e))
    for level in fit.model.levels:  # of no unit
        columns[level.key] = jnp.zeros((len(scenes) + 1, len(level.units)))
    for gap in fit.model.missing:
        columns[gap.key] = jnp.asarray(gap.nobody(len(scenes) + 1))
    return columns


def _quantities(fit: Fit, theta: dict[str, np.ndarray], scenes: Sequence[tuple[str, Any]]) \
        -> dict[tuple[str, str], np.ndarray]:
    """(S, scenes + 1) of each parameter, derived quantity and exposure of the typical patient."""
    model, structure = fit.model, fit.model.structure
    derive = structure.derive
    seen = _scene_design(fit, len(scenes) + 1)
    data = {**arrays(seen, structure, model.steps), "effects": _scene_columns(fit, scenes),
            **largest_class(fit, len(scenes) + 1)}
    moved = [p.name for p in structure.parameters
             if p.name in {e.parameter for e in model.effects}]

    @jax.jit
    def evaluate(theta: Arrays, data: Arrays) -> Arrays:
        def one(draw: Arrays) -> Arrays:
            values = {**fixed(model), **draw}
            phi = population_location(model, data, values)[0]
            patients = model.patient_values(values, data["effects"], phi)
            derived = jax.vmap(lambda p: dict(derive(named(p))))(
                {**patients, **data["inputs"]}) if derive else {}
            return {"parameter": {n: patients[n] for n in moved}, "derived": derived,
                    "levels": predicted_rows(model, data, values, phi)}
        return jax.lax.map(one, theta)

    out = jax.tree.map(np.asarray, evaluate({n: jnp.asarray(v) for n, v in theta.items()}, data))
    found = {(n, kind): v for kind in ("parameter", "derived") for n, v in out[kind].items()}
    times, end = seen.time[0, :_POINTS], seen.time[0, _POINTS - 1]
    for k, output in enumerate(structure.outputs):
        path = out["levels"][..., k * _POINTS:(k + 1) * _POINTS]
        found[f"Cmax of {output.name}", "exposure"] = path.max(axis=-1)
        found[f"AUC0_{end:g} of {output.name}", "exposure"] = np.trapezoid(path, times, axis=-1)
    return found


def _scene_design(fit: Fit, scenes: int) -> Design:
    """As many copies of the first patient's doses, inputs at their medians, seen on a fine grid."""
    seen, outputs = fit.design, fit.model.structure.outputs
    last = float(seen.time[seen.observed].max())
    end = 28.0 if fit.model.structure.time_unit == "day" else last / 2
    n = _POINTS * len(outputs)
    shape = (scenes, n)

    def copies(values: np.ndarray) -> np.ndarray:
        return np.repeat(values[:1], scenes, axis=0)

    return dataclasses.replace(
        seen, ids=tuple(map(str, range(scenes))),
        time=np.tile(np.tile(np.linspace(0.0, end, _POINTS), len(outputs)), (scenes, 1)),
        lower=np.ones(shape), upper=np.ones(shape), observed=np.ones(shape, dtype=bool),
        output=np.tile(np.repeat(np.arange(len(outputs)), _POINTS), (scenes, 1)),
        line=np.full(shape, np.iinfo(np.int64).max),
        inputs={k: np.full(scenes, np.median(v)) for k, v in seen.inputs.items()},
        dose_time=copies(seen.dose_time), dose_amount=copies(seen.dose_amount),
        dose_duration=copies(seen.dose_duration), dose_state=copies(seen.dose_state),
        dose_line=copies(seen.dose_line),
        dose_events={n: copies(v) for n, v in seen.dose_events.items()})


def unexplained(model: PopulationModel, theta: Any, parameter: str) -> Any:
    """The variance between patients, link scale, that covariates leave to a varying parameter:
    omega squared, that between the classes and that between the units of levels."""
    total = theta[f"omega_{parameter}"] ** 2
    for level in model.levels:
        total = total + (theta[level.tau(parameter)] ** 2 if parameter in level.parameters else 0.0)
    if model.mixture:
        shares, shifts = model.mixture.shares(theta), model.mixture.shifts(theta, parameter)
        mean = sum(w * s for w, s in zip(shares, shifts, strict=True))
        total = total + sum(w * (s - mean) ** 2 for w, s in zip(shares, shifts, strict=True))
    return total


def _kappas(fit: Fit, theta: dict[str, np.ndarray]) -> dict[str, float]:
    """The mean shrinkage factor of every coefficient, NaN without a horseshoe.

    1 / (1 + P (s scale / omega)^2) with the SD s of what it multiplies in these P patients:
    Piironen & Vehtari 2017, the slab included, as if each patient's parameter were known.
    """
    model, sparse = fit.model, fit.model.horseshoe
    factors = {n: np.nan for e in model.effects for n in coefficients(e)}
    if sparse is None:
        return factors
    values: dict[str, Any] = {**fixed(model), **theta}
    scales = sparse.scales(values)
    columns = model.effect_columns(fit.design.covariates)

    def there(effect: CovariateEffect) -> Any:
        gap = model.gap(effect)
        return slice(None) if gap is None else ~gap.lacking(fit.design.covariates)

    for e in model.effects:
        omega = unexplained(model, values, e.parameter) ** 0.5 if e.parameter in model.spread \
            else 0.5  # as where the prior's scale was chosen
        for k, name in enumerate(coefficients(e)):
            if name in scales and e.key in columns:
                spread = np.std(columns[e.key][there(e), k]) / np.asarray(omega)
                size = spread * np.asarray(scales[name])
                factors[name] = float(np.mean(1.0 / (1.0 + len(fit.design.ids) * size**2)))
    return factors


def _explained(fit: Fit, theta: dict[str, np.ndarray]) -> dict[tuple[str, str], list[float]]:
    """By parameter and column, the share of the variance between these patients that the column
    explains, its mean and 95 % interval; of what does not vary otherwise, the share of what
    covariates do."""
    model = fit.model
    columns = model.effect_columns(fit.design.covariates)
    still = [e for e in model.effects if not model.changes(e)]

    @jax.jit
    @jax.vmap
    def shares(draw: Arrays) -> dict[tuple[str, str], jax.Array]:
        values: dict[str, Any] = {**fixed(model), **draw}
        found: dict[tuple[str, str], jax.Array] = {}
        for parameter in {e.parameter for e in still}:
            moved: dict[str, Any] = {}
            for e in (e for e in still if e.parameter == parameter):
                moved[e.column] = moved.get(e.column, 0.0) + model.shift(e, values, columns)
            together: Any = sum(moved.values())
            left = unexplained(model, values, parameter) if parameter in model.spread else 0.0
            away = (together - together.mean()) / (together.var() + left)
            found |= {(parameter, c): (v * away).mean() for c, v in moved.items()}
        return found

    return {k: [float(np.mean(v)), *map(float, np.quantile(v, [0.025, 0.975]))] for k, v in
            shares({n: jnp.asarray(v) for n, v in theta.items()}).items()}
