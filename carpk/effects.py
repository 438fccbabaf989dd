"""From covariates as they are asked for to effects that a cohort can be fitted with."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from carpk import registry
from carpk.covariate_models import CovariateEffect, CovariateModel
from carpk.problems import Problem, RequestError
from carpk.structure import StructuralModel

AUTO = "auto"  # a category where the column holds words, else exponential
Refused = Callable[[str, str], tuple[list[CovariateEffect], list[Problem]]]
RELEVANT = (0.8, 1.25)  # of a ratio: inside, exposures count as equivalent
_FUNCTIONS = ("I", "log", "log2", "log10", "exp", "exp2", "exp10", "abs")  # of one patient
_FEW = 5  # patients in a level, below which its coefficient is mostly the prior's


def covariate_model(effect: CovariateEffect) -> CovariateModel:
    """The form of an effect."""
    form: CovariateModel = registry.load("covariate_models", effect.form)
    return form


def coefficients(effect: CovariateEffect) -> tuple[str, ...]:
    """The names of an effect's coefficients; none before it has its form, levels or knots."""
    return covariate_model(effect).names(effect) if effect.form != AUTO else ()


def asked_effects(structure: StructuralModel, covariates: Mapping[str, str] | Iterable[str]) \
        -> tuple[tuple[CovariateEffect, ...], list[Problem]]:
    """Effects from {"Cmax ~ DOSE": "power"} or ["Cmax ~ log(DOSE) + RESPONSE"], and what of them
    is not understood.

    A form may give its reference, "power(3.1)" or "category(CR)", and after it knots or levels.

    >>> from carpk.registry import find_model
    >>> model = find_model("stein_2019")
    >>> [e.form for e in asked_effects(model, ["Cmax ~ log(DOSE) + RESPONSE"])[0]]
    ['power', 'auto']
    """
    if isinstance(covariates, Mapping):
        asked = dict(covariates)
    else:
        asked = dict.fromkeys([covariates] if isinstance(covariates, str) else covariates, "")
    effects: list[CovariateEffect] = []
    found: list[Problem] = []
    for text, form in asked.items():
        made, problems = _asked(structure, text, form)
        effects += made
        found += problems
    keys = [e.key for e in effects]
    found += [Problem("error", "stated twice", column="covariates", found=k)
              for k in dict.fromkeys(keys) if keys.count(k) > 1]
    return tuple(effects), found


def _asked(structure: StructuralModel, text: str, form: str) \
        -> tuple[list[CovariateEffect], list[Problem]]:
    """The effects of one statement."""
    def refused(wrong: str, remedy: str) -> tuple[list[CovariateEffect], list[Problem]]:
        return [], [Problem("error", wrong, remedy, column="covariates",
                            found=text + (f" = {form}" if form else ""))]

    parameter, tilde, right = (part.strip() for part in text.partition("~"))
    known = [p.name for p in structure.parameters]
    if not (parameter and tilde and right):
        return refused("not PARAMETER ~ COLUMN", 'for instance "Cmax ~ DOSE"')
    if parameter not in known:
        return refused(f"no such parameter: {parameter}", f"known: {', '.join(sorted(known))}")
    if not form or form == "formula":
        return _terms(parameter, right, refused)
    match = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", form)
    forms = [n for n in (*registry.names("covariate_models"), AUTO) if n != "formula"]
    if match is None or match[1] not in forms:
        return refused("no such covariate form", f"known: {', '.join(forms)}; a reference may "
                       "follow, as in power(70)")
    reference, *points = _values(match[2])
    effect = CovariateEffect(parameter, right, match[1], reference, tuple(
        p for p in points if p is not None))
    numeric = match[1] != AUTO and covariate_model(effect).numeric
    if numeric and any(isinstance(v, str) for v in (reference, *effect.points)):
        return refused(f"the reference of {match[1]} is a number", "for instance power(70)")
    if match[1] == "spline" and effect.points and (
            len(effect.points) < 3 or sorted(set(effect.points)) != list(effect.points)):
        return refused("a spline needs three knots or more, in rising order",
                       "for instance spline(40, 10, 40, 80), the reference first")
    if match[1] not in ("spline", "category") and effect.points:
        return refused(f"{match[1]} takes a reference and nothing else", "drop the rest")
    link = structure.parameter(parameter).link
    if match[1] == "linear" and link != "log":
        return refused(f"linear multiplies, but {parameter} is on the {link} scale",
                       "take exponential, which adds beta (x - reference) there")
    return [effect], []


def _values(text: str | None) -> Sequence[float | str | None]:
    """Numbers or words between the brackets of a form."""
    def value(part: str) -> float | str:
        try:
            return float(part)
        except ValueError:
            return part

    return [value(p.strip()) for p in text.split(",") if p.strip()] or [None] if text else [None]


def _terms(parameter: str, right: str, refused: Refused) \
        -> tuple[list[CovariateEffect], list[Problem]]:
    """The effects of a formula: a lone column, C(X) of a category, the log of a column, or what
    formulaic evaluates."""
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    outside, inner = right, ""
    while outside != inner:  # what stands in no brackets
        inner, outside = outside, re.sub(r"[\w.]*\([^()]*\)", "", outside)
    if "~" in right:
        return refused("a formula has one ~", "state each parameter by itself")
    if power := re.search(r"\w+\s*(?:\*\*|\^)\s*\w+", outside):
        return refused(f"in a formula {power[0]} is no power", f"write I({power[0]})")
    calls = dict.fromkeys(re.findall(r"[\w.]+(?=\()", right))
    strange = [c for c in calls if c not in ("C", *_FUNCTIONS)
               and not (c.startswith("np.") and hasattr(np, c.removeprefix("np.")))]
    if strange:  # what reads the whole cohort, as center(X), is of none of its patients
        return refused(f"a formula does not take {strange[0]}()",
                       f"it takes C of a category, {', '.join(_FUNCTIONS)} and NumPy's np.sqrt")
    try:
        terms = [t for t in map(str, Formula(right)) if t not in ("0", "1")]
    except (FormulaicError, SyntaxError, TypeError) as failure:
        what = re.sub(r"\x1b\[\d*m", "", str(failure)).partition("\n")[0]
        return refused(f"not a formula: {what.partition('. ')[0].rstrip('.')}",
                       "for instance log(DOSE) + RESPONSE")
    if not terms:
        return refused("no covariate on the right of the ~", "for instance log(DOSE) + RESPONSE")
    effects = []
    for term in terms:
        logged = re.fullmatch(r"(?:np\.)?log\((\w+)\)", term)
        category = re.fullmatch(r"C\((\w+)\)", term)
        if "C" in re.findall(r"[\w.]+(?=\()", term) and not category:
            return refused("C(X) stands alone: of one column, in no product, with no more in its "
                           "brackets", f'a reference is stated as "{parameter} ~ X=category(A)"; '
                           "a product takes numbers")
        effects.append(
            CovariateEffect(parameter, logged[1], "power") if logged else
            CovariateEffect(parameter, category[1], "category") if category else
            CovariateEffect(parameter, term, AUTO if term.isidentifier() else "formula"))
    return effects, []


def band_of(stated: str | Sequence[Any]) -> tuple[float, float]:
    """The ratios that count as no relevant change, from two numbers or their written form;
    RequestError where they are not two around 1.

    >>> band_of("0.7,1.43")
    (0.7, 1.43)
    """
    try:
        low, high = map(float, stated.split(",") if isinstance(stated, str) else stated)
    except (TypeError, ValueError):
        low = high = np.nan
    if not 0.0 < low < 1.0 < high < np.inf:
        raise RequestError(Problem(
            "error", "a band of ratios that are no relevant change is two numbers, "
            "0 < low < 1 < high", "for instance 0.8,1.25", column="band", found=str(stated)))
    return low, high


def resolved_effects(structure: StructuralModel, effects: Sequence[CovariateEffect],
                     table: pd.DataFrame, varying: Mapping[str, tuple[Problem, ...]],
                     source: str, modelled: Collection[str] = (), planned: bool = False) \
        -> tuple[tuple[CovariateEffect, ...], list[Problem]]:
    """The effects with form, reference and points, and everything that is wrong with the columns
    they read.

    table : index ID, one value per patient of the file's columns; varying : columns that change
        within a patient, and where; modelled : columns whose missing values are; planned : nothing
        is estimated, so patients may be alike
    """
    made, found, told = [], [], set[str]()
    for asked in effects:
        effect = with_form(asked, table)
        here = table[table[effect.column].notna()] \
            if effect.column in modelled and effect.column in table else table
        problems = column_problems(effect, here, varying, source)
        if not len(here):
            problems.append(Problem("error", "no patient has a value", "leave it out", source,
                                    column=effect.column))
        new = [p for p in problems if str(p) not in told]
        told |= {str(p) for p in new}
        found += new
        if problems:
            continue
        form = covariate_model(effect)
        try:
            x = form.read(here, effect)
        except Exception as failure:  # a formula may raise anything
            found.append(Problem("error", f"the term cannot be evaluated: {failure}",
                                 "np.sqrt(X), X:Y and I(X**2) are read; C(X) stands alone",
                                 source, column=effect.key))
            continue
        whole = form.found(x, effect)
        found += value_problems(whole, here, x, source, planned)
        made.append(whole)
    return tuple(made), found


def with_form(effect: CovariateEffect, table: pd.DataFrame) -> CovariateEffect:
    """The effect with a form where that was left to the column."""
    if effect.form != AUTO:
        return effect
    words = effect.column in table and not pd.api.types.is_numeric_dtype(table[effect.column])
    return dataclasses.replace(effect, form="category" if words else "exponential")


def column_problems(effect: CovariateEffect, table: pd.DataFrame,
                     varying: Mapping[str, tuple[Problem, ...]], source: str) -> list[Problem]:
    """What is wrong with the columns an effect reads."""
    form, found = covariate_model(effect), []
    for name in form.needs(effect):
        if name in varying:
            found += [dataclasses.replace(p, remedy="say how it changes, for instance "
                                          f"--time-varying {name}=locf (or nocb, linear, window); "
                                          "or correct it") for p in varying[name]]
            continue
        if name not in table:
            found.append(Problem("error", f"{effect.key} needs this column, and the file has none",
                                 f"it has {', '.join(map(str, table.columns)) or 'no covariate'}",
                                 source, column=name))
            continue
        column = table[name]
        found += [Problem("error", f"missing, and {effect.key} needs it",
                          f'fill it in, model it (missing = {{{name} = "model"}}), or take the '
                          "patient out of the file", source, patient=i, column=name)
                  for i in column.index[column.isna()]]
        if form.numeric and not pd.api.types.is_numeric_dtype(column):
            values = pd.to_numeric(column, errors="coerce")
            if values.isna().all():
                what = "a term of a formula" if effect.form == "formula" else effect.form
                found.append(Problem(
                    "error", f"holds words, and {what} takes numbers", "code it in numbers, or "
                    f'take it by itself as a category: "{effect.parameter} ~ {name}=category"',
                    source, column=name, found=str(column.iloc[0])))
                continue
            found += [Problem("error", f"not a number, and {effect.form} needs one",
                              "words? take category", source, patient=i, column=name,
                              found=str(column[i])) for i in column.index[
                                  values.isna() & column.notna()]]
        elif form.positive:
            found += [Problem("error", f"{effect.form} needs values above 0",
                              "take exponential, or correct the value", source, patient=i,
                              column=name, found=f"{column[i]:g}")
                      for i in column.index[column <= 0]]
    return found


def value_problems(effect: CovariateEffect, table: pd.DataFrame, x: np.ndarray, source: str,
                   planned: bool) -> list[Problem]:
    """What the patients' values say against an effect, or to know of it.

    table : index ID, a row for each of x, of what changes in a patient several
    """
    columns = np.asarray(covariate_model(effect).columns(x, effect))
    if effect.form == "category":
        if planned:
            return []
        counts = [table.index[c > 0].nunique() for c in columns.T]
        found = [Problem("warning", f"only {n} of {table.index.nunique()} patients are of this "
                         "level: its coefficient is mostly the prior's",
                         "join levels, or leave it out", source, column=effect.key,
                         found=str(level))
                 for level, n in zip(effect.points, counts, strict=True) if n < _FEW]
        others = columns.sum(axis=1) == 0
        if not others.any():
            found.append(Problem("error", "no patient has the reference level",
                                 "choose another", source, column=effect.key,
                                 found=str(effect.reference)))
        if not effect.points:
            found.append(Problem("error", "all patients are of one level", "leave it out", source,
                                 column=effect.key, found=str(effect.reference)))
        return found
    found = []
    if not np.isfinite(x).all():
        found += [Problem("error", f"the term is {v} for this patient", "correct the value",
                          source, patient=i, column=effect.key)
                  for i, v in zip(table.index, x, strict=True) if not np.isfinite(v)]
    elif np.ptp(x) == 0 and not planned:
        found.append(Problem("error", "all patients have the same value", "leave it out", source,
                             column=effect.key, found=f"{x[0]:g}"))
    elif not planned:
        found += [Problem("error", f"no patient lies where {name} acts: the data say nothing of "
                          f"it; the values are {x.min():g} to {x.max():g}",
                          "put the reference or the knots among them", source, column=effect.key,
                          found=effect.written)
                  for name, c in zip(coefficients(effect), columns.T, strict=True)
                  if np.ptp(c) == 0]
    if covariate_model(effect).positive and not float(effect.reference or 0) > 0:
        found.append(Problem("error", "the reference must be above 0", "for instance power(70)",
                             column=effect.key, found=str(effect.reference)))
    return found
