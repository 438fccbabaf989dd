"""An outcome and its covariates from the columns of a fit: who counts, who does not and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from carpk.covariate_models.category import level
from carpk.fitting import Fit
from carpk.problems import Problem

SURVIVAL = ("survival", "cox")
_CONDITION = re.compile(r"(.+?)\s*(>=|=)\s*(.+)")


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Each patient who counts, in the order of the fit.

    place : (n,), of the patient in the fit
    outcome : (n,), 0/1, a grade, or the time since the landmark; event (n,) of a time
    covariates : (n, C); terms : what each column is, (covariate, "per 1" or "F against M")
    left_out : ID and reason of everyone else
    """

    place: np.ndarray
    outcome: np.ndarray
    event: np.ndarray | None
    covariates: np.ndarray
    terms: tuple[tuple[str, str], ...]
    left_out: pd.DataFrame


def read_outcomes(fit: Fit, kind: str, outcome: str, event: str | None, landmark: float | None,
                  adjust: Sequence[str], unknown: pd.Series, found: list[Problem]) \
        -> Outcomes | None:
    """Those who count; None with everything that is wrong added to `found`.

    unknown : index ID, why a patient's exposure is not known, "" where it is
    """
    before = len(found)
    name, values = _values(fit, kind, outcome, found)
    happened = _numbers(fit, event, found) if event else None
    if values is not None:
        _check(fit, kind, name, values, found)
    if happened is not None and event:
        _check(fit, "binary", event, happened, found)
    told = [c for c in (_column(fit, a, "--adjust", found) for a in adjust) if c is not None]
    for a in {a for k, a in enumerate(adjust) if a in adjust[:k] or a in (name, event)}:
        found.append(Problem("error", "named twice, or the outcome itself",
                             "name each column once", column="--adjust", found=a))
    if len(found) > before or values is None:
        return None
    reason = unknown.copy()

    def leave(where: pd.Series, why: str | pd.Series) -> None:
        nonlocal reason
        reason = reason.mask(where & (reason == ""), why)

    leave(values.isna(), f"{name} is missing")
    for column in told:
        leave(_missing(column), f"{column.name} is missing")
    if kind in SURVIVAL and happened is not None and landmark is not None:
        leave(happened.isna(), f"{event} is missing")
        gone = values <= landmark
        what = happened.map({1.0: "event", 0.0: "censored"})
        leave(gone, what + values.map(lambda v: f" at {v:g}, not after the landmark"))
        values = values - landmark
    counts = (reason == "").to_numpy()
    columns, terms = [], []
    for column in told:
        part, named = _coded(column[counts])
        columns += part
        terms += named
    n = int(counts.sum())
    table = np.stack(columns, axis=1) if columns else np.zeros((n, 0))
    result = Outcomes(
        np.flatnonzero(counts), values.to_numpy(float)[counts],
        happened.to_numpy(float)[counts] if happened is not None else None, table, tuple(terms),
        pd.DataFrame({"ID": reason.index[~counts], "reason": reason[~counts].to_numpy()}))
    _suffices(fit, kind, name, result, found)
    return None if len(found) > before else result


def information(kind: str, outcome: np.ndarray, event: np.ndarray | None) -> float:
    """How many events an outcome amounts to (Harrell 2015, Regression Modeling Strategies, 4.4).

    >>> information("binary", np.array([0, 0, 0, 1]), None)
    1.0
    >>> round(information("ordinal", np.array([0, 1, 2, 3]), None), 2)  # as good as 3.75
    3.75
    """
    if kind in SURVIVAL:
        assert event is not None
        return float(event.sum())
    counts = np.unique(outcome, return_counts=True)[1].astype(float)
    n = counts.sum()
    return float(n - counts.max()) if len(counts) < 3 else float(n - (counts**3).sum() / n**2)


def _values(fit: Fit, kind: str, outcome: str, found: list[Problem]) \
        -> tuple[str, pd.Series | None]:
    """An outcome's column and its values, NaN where missing; of a condition 1 where it holds."""
    condition = _CONDITION.fullmatch(outcome)
    if not condition or outcome in fit.design.covariates:
        return outcome, _numbers(fit, outcome, found)
    name, sign, against = condition.groups()
    if kind != "binary":
        found.append(Problem("error", "a condition makes an outcome binary",
                             "give --type binary, or the column alone", column="--outcome",
                             found=outcome))
        return name, None
    if sign == ">=":
        values = _numbers(fit, name, found)
        try:
            return name, None if values is None else \
                (values >= float(against)).astype(float).mask(values.isna())
        except ValueError:
            found.append(Problem("error", "not a number after >=", "for instance CRS_GRADE>=3",
                                 column="--outcome", found=outcome))
            return name, None
    column = _column(fit, name, "--outcome", found)
    if column is None:
        return name, None
    written = column.map(level)
    known = sorted(set(written[~_missing(column)]))
    if against not in known:
        found.append(Problem("error", f"no patient has this value of {name}",
                             f"there are {', '.join(known[:12])}", fit.manifest["data"]["file"],
                             column="--outcome", found=outcome))
        return name, None
    return name, (written == against).astype(float).mask(_missing(column))


def _column(fit: Fit, name: str, option: str, found: list[Problem]) -> pd.Series | None:
    held, file = fit.design.covariates, fit.manifest["data"]["file"]
    if name in held:
        return held[name]
    if name in fit.manifest.get("ignored_columns", ()):
        found.append(Problem("error", f"{name} changes within a patient: it is not one value of "
                             "each", "give one value per patient (the worst grade, say), and fit "
                             "again", file, column=option, found=name))
    else:
        found.append(Problem("error", "the fit's data have no such column", "there are "
                             + (", ".join(map(str, held.columns)) or "none but those of the levels")
                             + "; only columns of the file that was fitted are known", file,
                             column=option, found=name))
    return None


def _missing(column: pd.Series) -> pd.Series:
    return column.isna() | (column == "")


def _numbers(fit: Fit, name: str, found: list[Problem]) -> pd.Series | None:
    """A column's numbers, NaN where missing; words are refused."""
    column = _column(fit, name, "outcome", found)
    if column is None:
        return None
    values = pd.to_numeric(column.mask(_missing(column)), errors="coerce")
    words = values.isna() & ~_missing(column)
    if not words.any():
        return values.astype(float)
    kinds = sorted(set(column[words]))
    found.append(Problem("error", f"{name} holds words: {', '.join(map(str, kinds[:6]))}",
                         f"say which of them counts: --type binary --outcome {name}={kinds[0]}",
                         fit.manifest["data"]["file"], column=name, found=str(kinds[0])))
    return None


def _check(fit: Fit, kind: str, name: str, values: pd.Series, found: list[Problem]) -> None:
    """A problem for each patient whose value is none of this kind."""
    known = values.dropna()
    wrong, remedy = {
        "binary": ("neither 0 nor 1", f"say which values count: {name}>=3, or {name}=2"),
        "ordinal": ("no grade: grades are whole numbers from 0 on", "correct the value"),
    }.get(kind, ("a time must be a number of at least 0", "correct the value"))
    good = known.isin((0, 1)) if kind == "binary" else known >= 0
    if kind == "ordinal":
        good &= known == known.round()
    found += [Problem("error", wrong, remedy, fit.manifest["data"]["file"], patient=str(i),
                      column=name, found=f"{v:g}") for i, v in known[~good].items()]


def _coded(column: pd.Series) -> tuple[list[np.ndarray], list[tuple[str, str]]]:
    """The columns of a covariate, and what each is: a number's own value, and of words 1 where the
    patient is of a level, the most frequent level being the reference."""
    name = str(column.name)
    if pd.api.types.is_numeric_dtype(column):
        return [column.to_numpy(float)], [(name, "per 1")]
    counts = column.value_counts()
    most = sorted(n for n in counts.index if counts[n] == counts.max())[0] if len(counts) else ""
    others = sorted(n for n in counts.index if n != most)
    return [(column == o).to_numpy(float) for o in others], \
        [(name, f"{o} against {most}") for o in others]


def _suffices(fit: Fit, kind: str, name: str, read: Outcomes, found: list[Problem]) -> None:
    """What keeps those who count from telling anything."""
    file = fit.manifest["data"]["file"]
    if len(np.unique(read.outcome)) < 2 and kind not in SURVIVAL:
        found.append(Problem(
            "error", f"{len(read.place)} patients count, and all have the same outcome",
            "without variation nothing can be told", file, column=name,
            found=f"{read.outcome[0]:g}" if len(read.outcome) else None))
        return
    if kind in SURVIVAL and read.event is None:
        return  # which is told already
    events = information(kind, read.outcome, read.event)
    slopes = 1 + len(read.terms)
    if events < slopes:
        found.append(Problem(
            "error", f"{events:.0f} events among {len(read.place)} patients who count cannot tell "
            f"{slopes} coefficients", "adjust for less" if slopes > 1 else
            "there is nothing to estimate from", file, column=name))
        return
    for k, (column, _) in enumerate(read.terms):
        if np.ptp(read.covariates[:, k]) == 0:
            found.append(Problem("error", "all who count have the same value",
                                 "leave it out", file, column="--adjust", found=column))
