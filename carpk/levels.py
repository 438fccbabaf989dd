"""Levels of the hierarchy above the patients: studies, products, sites.

On its link scale a parameter's typical value in unit s of a level (study s) is that of all plus
tau b_s, b_s ~ N(0, 1): tau is the SD between units. The b are population parameters like others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from carpk.covariate_models import CovariateEffect
from carpk.priors import Prior
from carpk.problems import Problem
from carpk.structure import StructuralModel

_FEW = 5  # units, below which their spread is mostly the prior's
_TAU = 0.5  # of the half-normal prior: 95 % of it is below a factor of e between units


@dataclass(frozen=True, slots=True)
class Level:
    """A column whose units (studies) differ in parameters; `units` are the cohort's.

    >>> Level("STUDY", ("Cmax",), ("A", "B")).names
    ('tau_STUDY_Cmax', 'b_STUDY_Cmax_A', 'b_STUDY_Cmax_B')
    """

    column: str
    parameters: tuple[str, ...]
    units: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What its columns are called among those of the covariates."""
        return f"level {self.column}"

    @property
    def names(self) -> tuple[str, ...]:
        """Its population parameters: of each parameter the SD between units, and their b."""
        return tuple(n for p in self.parameters for n in (self.tau(p), *self.deviations(p)))

    def tau(self, parameter: str) -> str:
        """The name of the SD between units."""
        return f"tau_{self.column}_{parameter}"

    def stem(self, parameter: str) -> str:
        """What the names of the units' b begin with."""
        return f"b_{self.column}_{parameter}_"

    def deviations(self, parameter: str) -> tuple[str, ...]:
        """The names of the units' b."""
        return tuple(f"{self.stem(parameter)}{u}" for u in self.units)

    def of(self, name: str) -> str:
        """The parameter that one of its population parameters moves; "" for others."""
        return next((p for p in self.parameters
                     if name == self.tau(p) or name in self.deviations(p)), "")

    def columns(self, covariates: pd.DataFrame) -> np.ndarray:
        """(P, units), 1 where the patient is of the unit."""
        written = np.array([unit(v) for v in covariates[self.column]], dtype=object)
        return np.stack([(written == u).astype(float) for u in self.units], axis=1)

    def shift(self, columns: Any, theta: Mapping[str, Any], parameter: str) -> Any:
        """(P,), tau b of each patient's unit; 0 where the parameter is none of the level's."""
        if parameter not in self.parameters:
            return 0.0
        return theta[self.tau(parameter)] * sum(
            columns[:, k] * theta[n] for k, n in enumerate(self.deviations(parameter)))


def unit(value: object) -> str:
    """A unit as it is written.

    >>> unit(7.0), unit("ELIANA")
    ('7', 'ELIANA')
    """
    return f"{value:g}" if isinstance(value, float) else str(value)


def asked_levels(structure: StructuralModel, asked: Mapping[str, str | Iterable[str]],
                 effects: Iterable[CovariateEffect]) -> tuple[tuple[Level, ...], list[Problem]]:
    """Levels from {"STUDY": ["Cmax", "alpha"]} or {"STUDY": "Cmax, alpha"}, and what of it is not
    understood."""
    known = {p.name for p in structure.parameters}
    levels, found = [], []
    for column, given in asked.items():
        listed = given.split(",") if isinstance(given, str) else given
        names = tuple(n.strip() for n in listed if n.strip())
        levels.append(Level(column, names))
        found += [Problem("error", "no such parameter", f"known: {', '.join(sorted(known))}",
                          column=f"levels.{column}", found=n) for n in names if n not in known]
        found += [Problem("error", "named twice", column=f"levels.{column}", found=n)
                  for n in dict.fromkeys(names) if names.count(n) > 1]
        if not names:
            found.append(Problem("error", "which parameters differ between its units?",
                                 'for instance "STUDY: Cmax"', column=f"levels.{column}"))
        found += [Problem("error", "stands among the covariates as well", "drop one of them",
                          column=e.key) for e in effects
                  if e.column == column and e.parameter in names]
    return tuple(levels), found


def resolved_levels(levels: Sequence[Level], table: pd.DataFrame,
                    varying: Mapping[str, tuple[Problem, ...]], source: str) \
        -> tuple[tuple[Level, ...], list[Problem]]:
    """The levels with their units, those of a fit and then those of these patients, and what is
    wrong with the columns or to be known of them.

    table : index ID, the columns of the file; varying : columns that change within a patient
    """
    made, found = [], []
    for level in levels:
        if level.column in varying:
            found += list(varying[level.column])
            continue
        if level.column not in table:
            found.append(Problem("error", "the level needs this column, and the file has none",
                                 f"it has {', '.join(map(str, table.columns)) or 'no covariate'}",
                                 source, column=level.column))
            continue
        column = table[level.column]
        missing = column.index[column.isna()]
        found += [Problem("error", "missing: whose patient is this?", "fill it in, or take the "
                          "patient out of the file", source, patient=i, column=level.column)
                  for i in missing]
        here = sorted({unit(v) for v in column.dropna()})
        if not level.units and not len(missing):
            found += _too_few_or_many(level.column, here, len(column), source)
        made.append(dataclasses.replace(level, units=(
            *level.units, *(u for u in here if u not in level.units))))
    return tuple(made), found


def _too_few_or_many(column: str, units: list[str], patients: int, source: str) -> list[Problem]:
    if len(units) == 1:
        return [Problem("error", "all patients are of one unit", "leave the level out", source,
                        column=column, found=units[0])]
    if len(units) == patients:
        return [Problem("error", "every patient is a unit of its own: that is the spread between "
                        "patients", "leave the level out", source, column=column)]
    if len(units) < _FEW:
        return [Problem("warning", f"a spread between {len(units)} units is mostly its prior's",
                        "take it as a covariate (category), or state what you know of tau as its "
                        "prior", source, column=column, found=", ".join(units))]
    return []


def level_priors(structure: StructuralModel, level: Level, reasons: dict[str, str]) \
        -> dict[str, Prior]:
    """Default priors: a half-normal of tau, the standard normal that defines the b."""
    priors: dict[str, Prior] = {}
    for name in level.parameters:
        p = structure.parameter(name)
        priors[level.tau(name)] = Prior("halfnormal", (_TAU * p.size,))
        reasons.setdefault(level.tau(name), "default: units within a factor of e of each other")
        for b in level.deviations(name):
            priors[b] = Prior("normal", (0.0, 1.0))
            reasons.setdefault(b, "default: in SDs between units")
    return priors
