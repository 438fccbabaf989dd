"""Parameters that change in a patient: which effects change, when, and what a solve reads of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from carpk.cohort import Design
from carpk.covariate_models import CovariateEffect
from carpk.effects import (
    coefficients,
    column_problems,
    covariate_model,
    value_problems,
    with_form,
)
from carpk.epochs import OCCASION, OFF, Epochs, courses, epochs_between
from carpk.occasions import occasion_columns
from carpk.population_model import PopulationModel
from carpk.problems import Problem, errors

Arrays = dict[str, Any]


def changing_effects(model: PopulationModel) -> tuple[CovariateEffect, ...]:
    """The effects that change in a patient."""
    return tuple(e for e in model.effects if model.changes(e))


def changing_parameters(model: PopulationModel) -> tuple[str, ...]:
    """The structural parameters that change in a patient."""
    moved = {*(e.parameter for e in changing_effects(model)), *model.occasions}
    return tuple(p.name for p in model.structure.parameters if p.name in moved)


def epochs_of(model: PopulationModel, design: Design) -> Epochs | None:
    """The epochs of a design's patients; None where no parameter changes."""
    return epochs_between(design.changing, design.ids, model.rules) if model.rules else None


def effects_over_time(model: PopulationModel, design: Design, epochs: Epochs) \
        -> dict[str, np.ndarray]:
    """What the coefficients of each changing effect multiply, (P, E, C) by the effect's key, or
    (P, E, 2, C) at both ends of an epoch that slopes; 0 for a patient whom no row gives a value.
    And of occasions by `OCCASION` which of them it is."""
    columns = {}
    for e in changing_effects(model):
        ends = [_columns(e, by_epoch(design, epochs, end)) for end in
                ((epochs.first, epochs.last) if epochs.sloping else (epochs.first,))]
        shaped = [np.nan_to_num(c).reshape(*epochs.start.shape, -1) for c in ends]
        columns[e.key] = np.stack(shaped, axis=2) if epochs.sloping else shaped[0]
    return {**columns, OCCASION: occasion_columns(model, epochs)} if model.occasions else columns


def _columns(effect: CovariateEffect, table: pd.DataFrame) -> np.ndarray:
    form = covariate_model(effect)
    return form.columns(form.read(table, effect), effect)


def by_epoch(design: Design, epochs: Epochs, end: pd.DataFrame) -> pd.DataFrame:
    """The columns of the file, a row for each patient and epoch in turn."""
    patient = np.repeat(np.arange(len(design.ids)), epochs.start.shape[1])
    still = design.covariates[[c for c in design.covariates if c not in end]]
    return pd.concat([still.iloc[patient].reset_index(drop=True), end], axis=1)


def moves(model: PopulationModel, theta: Mapping[str, Any], phi: jax.Array) -> Arrays:
    """{name: (P,)}: what changes a patient's parameters from epoch to epoch, beside the data."""
    return {**{n: jnp.broadcast_to(theta[n], phi.shape[:1])
               for e in changing_effects(model) for n in coefficients(e)},
            **{n: phi[:, len(model.spread) + k] for k, n in enumerate(model.kappas)}}


def over_time(model: PopulationModel, columns: Mapping[str, Any], values: Arrays) -> Arrays:
    """Each structural parameter, (P,) or, where it changes, (P, E) or (P, E, 2), natural scale.

    columns : of `effects_over_time`; values : each parameter (P,) at the references of what
        changes, and `moves`
    """
    out = {p.name: values[p.name] for p in model.structure.parameters}
    for name in changing_parameters(model):
        scale = model.scale(name)
        wide = (-1, *[1] * (next(iter(columns.values())).ndim - 2))
        at = scale.to_real(values[name]).reshape(wide)
        for e in changing_effects(model):
            if e.parameter == name:
                form = covariate_model(e)
                at = at + form.shift(columns[e.key], [values[n].reshape(wide)
                                                      for n in form.names(e)])
        if name in model.occasions:
            at = at + sum(columns[OCCASION][..., j] * values[f"kappa_{name}_{j + 1}"].reshape(wide)
                          for j in range(model.courses))
        out[name] = scale.from_real(at)
    return out


def resolved_over_time(model: PopulationModel, design: Design, source: str,
                       planned: bool = False) \
        -> tuple[tuple[CovariateEffect, ...], list[Problem]]:
    """The changing effects with form, reference and points, and all that is wrong with the rules
    and the columns they read. planned : nothing is estimated, so patients may be alike."""
    found = [_no_change(design, n, source) for n in model.time_varying
             if n not in design.varying and not (
                 model.time_varying[n] == "window" and n in design.changing)]
    found += [p for n, rule in model.time_varying.items() if rule == "linear"
              for p in _no_numbers(design, n, source)]
    if found or not model.rules:
        return (), found
    epochs = epochs_of(model, design)
    assert epochs is not None
    first = epochs.at(np.zeros((len(design.ids), 1)), np.full((len(design.ids), 1), np.inf))
    starts = np.arange(len(design.ids)) * epochs.start.shape[1] + first[:, 0]
    every = by_epoch(design, epochs, epochs.first)
    begin = every.iloc[starts].set_axis(design.covariates.index)
    whole = every.set_axis(np.repeat(design.covariates.index, epochs.start.shape[1]))
    own = np.where(design.observed, epochs.at(design.time, design.line), first)
    each = np.arange(epochs.start.shape[1])
    seen = (each >= own.min(axis=1, keepdims=True)) & (each <= own.max(axis=1, keepdims=True))
    met, whole = whole[(epochs.lasting() & seen).ravel()], whole[epochs.lasting().ravel()]
    still = {n: p for n, p in design.varying.items() if n not in model.time_varying}
    made: list[CovariateEffect] = []
    for asked in changing_effects(model):
        effect = with_form(asked, whole)
        problems = column_problems(effect, begin, still, source)
        problems += _row_problems(model, effect, design, source)
        new = [p for p in problems if p not in found]
        found += new
        if not problems:
            made.append(whole_effect := _referenced(model, effect, begin, whole))
            x = covariate_model(effect).read(met, effect)
            found += dict.fromkeys(value_problems(whole_effect, met, x, source, planned))
    if not errors(found) and model.structure.solution:
        found += _within_courses(model, design, epochs, source)
    return tuple(made), found


def _referenced(model: PopulationModel, effect: CovariateEffect, begin: pd.DataFrame,
                whole: pd.DataFrame) -> CovariateEffect:
    """The effect with its reference, of a window its level while off and else what the patients
    begin with, and its points from all that the patients come to."""
    form = covariate_model(effect)
    if effect.reference is None:
        windows = [model.time_varying.get(n) == "window" for n in form.needs(effect)]
        words = effect.form == "category" and OFF in set(whole[effect.column])
        reference = (OFF if words else 0.0) if all(windows) else \
            form.found(form.read(begin, effect), effect).reference
        effect = dataclasses.replace(effect, reference=reference)
    effect = form.found(form.read(whole, effect), effect)
    return dataclasses.replace(effect, points=tuple(p for p in effect.points if p != OFF))


def _no_change(design: Design, name: str, source: str) -> Problem:
    """What is wrong with a rule for a column that does not change."""
    if name in design.covariates:
        return Problem("error", "a rule for a column that is the same on all rows of every patient",
                       "drop the rule: it is a covariate like others", source, column=name)
    return Problem("error", "a rule for a column that the file does not have",
                   f"it has {', '.join(map(str, [*design.covariates, *design.varying]))}", source,
                   column=name)


def _row_problems(model: PopulationModel, effect: CovariateEffect, design: Design, source: str) \
        -> list[Problem]:
    """What is wrong with the rows of the changing columns that an effect reads."""
    form, found = covariate_model(effect), []
    for name in (n for n in form.needs(effect) if n in model.time_varying):
        rows, rule = design.changing, model.time_varying[name]
        values = pd.to_numeric(rows[name], errors="coerce")
        found += _no_numbers(design, name, source) if form.numeric and rule != "linear" else []
        found += _rows_where((values <= 0) & form.positive, design, name, source,
                             f"{effect.form} needs values above 0",
                             "take exponential, or correct the value")
        if rule == "window" and form.positive:
            found.append(Problem("error", f"a window is 0 while it is off, and {effect.form} needs "
                                 "values above 0", "take exponential, linear or category", source,
                                 column=name))
        if rule == "linear" and effect.parameter in model.structure.switches:
            found.append(Problem("error", f"{effect.parameter} is a time at which rates jump, and "
                                 "cannot move as it is met", "take locf or nocb", source,
                                 column=name))
    return found


def _no_numbers(design: Design, name: str, source: str) -> list[Problem]:
    """An error at each row of a changing column that holds no number."""
    rows = design.changing[name]
    return _rows_where(pd.to_numeric(rows, errors="coerce").isna(), design, name, source,
                       "not a number, and this needs one", "words? category, with another rule")


def _rows_where(wrong: pd.Series, design: Design, name: str, source: str, what: str,
                remedy: str) -> list[Problem]:
    """An error at each of the rows of a changing column that has a value."""
    rows = design.changing
    return [Problem("error", what, remedy, source, int(rows["line"][k]), rows["ID"][k], name,
                    str(rows[name][k])) for k in rows.index[wrong & rows[name].notna()]
            if rows["ID"][k] in design.ids]


def _within_courses(model: PopulationModel, design: Design, epochs: Epochs, source: str) \
        -> list[Problem]:
    """An error at the first observation of each patient at which a closed form would need another
    parameter than where its course began."""
    begin, course = courses(design, epochs)
    times = [i.name for i in model.structure.inputs if i.unit == model.structure.time_unit]
    again = (begin * design.observed).max(axis=1) > 0
    found = [Problem("error", "a time after the first infusion, and in a later course time is "
                     "counted anew", "leave it out, or fit the courses apart", source,
                     patient=design.ids[i], column=n, found=f"{design.inputs[n][i]:g}")
             for n in times for i in np.flatnonzero(again & np.isfinite(design.inputs[n]))]
    tables = [pd.DataFrame({c: pd.factorize(t[c])[0] for c in t}).to_numpy().reshape(
        *epochs.start.shape, -1) for t in (epochs.first, epochs.last)]
    own = epochs.at(design.time, design.line)
    patient = np.arange(len(design.ids))[:, None]
    other = design.observed & (tables[0][patient, own] != tables[0][patient, course]).any(axis=2)
    if epochs.sloping:
        other |= design.observed & (epochs.first.to_numpy() != epochs.last.to_numpy()).any(
            axis=1).reshape(epochs.start.shape)[patient, course]
    columns = ", ".join(model.rules)
    return found + [Problem(
        "error", f"{columns} changes here, and {model.structure.name or 'the model'} is a closed "
        "form: its curve holds for parameters that stay as they were since the infusion",
        "take a model with equations; a new course that begins with nothing left of the one "
        "before? write EVID=4 (or 3) at its start", source, int(design.line[i, k]), design.ids[i],
        columns) for i in range(len(design.ids)) for k in np.flatnonzero(other[i])[:1]]
