"""Missing covariates on request: a number has a distribution, a category is summed over.

Given the covariates of the model that no patient lacks, a number is normal, or its logarithm is
where a form needs values above 0; a category follows a multinomial logit of them. What patients do
have informs these distributions, and the response of a patient whose value is missing its value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from carpk.covariate_models import CovariateEffect
from carpk.covariate_models.category import level
from carpk.effects import covariate_model
from carpk.priors import Prior
from carpk.problems import Problem

_ODDS = 1.5  # SD of the prior of log odds, which makes a share of two levels nearly uniform
_MOST = 16  # combinations of levels: the density of phi is summed over them


@dataclass(frozen=True, slots=True)
class Given:
    """One complete covariate that a missing one is regressed on: (x - centre) / size, with the
    logarithm of x where it is `logged`, or 1 where x is the `level`."""

    name: str
    column: str
    logged: bool = False
    level: str = ""
    centre: float = 0.0
    size: float = 1.0

    def read(self, table: pd.DataFrame) -> np.ndarray:
        """(P,), standardised."""
        x = table[self.column]
        if self.level:
            read = np.array([float(level(v) == self.level) for v in x])
        else:
            read = np.log(x.to_numpy(float)) if self.logged else x.to_numpy(float)
        return (read - self.centre) / self.size


@dataclass(frozen=True, slots=True)
class Missing:
    """A column with missing values, and how they are distributed.

    kind : log or identity, the scale on which it is normal, or category
    levels : of a category; given : the covariates it is regressed on
    patients : who lack it; centre, size : mean and SD of the others, on its scale

    >>> Missing("WT", "log", patients=("17",)).names
    ('mean_WT', 'sd_WT', 'z_WT_17')
    >>> Missing("SEX", "category", ("F", "M"), (Given("AGE", "AGE"),)).names
    ('logit_SEX_M', 'slope_SEX_M_AGE')
    """

    column: str
    kind: str = ""
    levels: tuple[str, ...] = ()
    given: tuple[Given, ...] = ()
    patients: tuple[str, ...] = ()
    centre: float = 0.0
    size: float = 1.0

    @property
    def key(self) -> str:
        """What its rows are called among the columns of the effects."""
        return f"missing {self.column}"

    @property
    def names(self) -> tuple[str, ...]:
        """Its population parameters."""
        if self.kind == "category":
            return tuple(n for k in self.levels[1:] for n in (
                f"logit_{self.column}_{k}", *self._slopes(f"_{k}")))
        return (*self.own, *self.deviations) if self.kind else ()

    @property
    def own(self) -> tuple[str, ...]:
        """Of a number: of its distribution."""
        return f"mean_{self.column}", *self._slopes(), f"sd_{self.column}"

    @property
    def deviations(self) -> tuple[str, ...]:
        """The names of the missing numbers, in SDs from what is expected of the patient."""
        return () if self.kind == "category" else tuple(
            f"z_{self.column}_{i}" for i in self.patients)

    @property
    def stems(self) -> tuple[str, ...]:
        """What the names of its parameters begin with."""
        return tuple(f"{n}_{self.column}" for n in ("mean", "sd", "slope", "logit"))

    def _slopes(self, of: str = "") -> tuple[str, ...]:
        return tuple(f"slope_{self.column}{of}_{g.name}" for g in self.given)

    def lacking(self, table: pd.DataFrame) -> np.ndarray:
        """(P,), whose value is missing."""
        return table[self.column].isna().to_numpy()

    def rows(self, table: pd.DataFrame) -> np.ndarray:
        """(P, W): whether the value is missing; the value on its scale, or 1 in the place of its
        level; what it is regressed on; and of a number 1 in the place of the patient's z."""
        column, lacking = table[self.column], self.lacking(table)
        if self.kind == "category":
            x = np.array([[float(level(v) == k) for k in self.levels] for v in column]).reshape(
                -1, len(self.levels))
        else:
            known = column.to_numpy(float)
            known = np.where(lacking, self.centre, np.log(known) if self.kind == "log" else known)
            x = known[:, None]
        given = [g.read(table)[:, None] for g in self.given]
        whose = [(np.array(table.index, dtype=object) == i)[:, None].astype(float)
                 for i in (self.patients if self.kind != "category" else ())]
        return np.concatenate([lacking[:, None].astype(float), x, *given, *whose], axis=1)

    def nobody(self, patients: int) -> np.ndarray:
        """Such rows of patients who lack nothing."""
        width = 1 + (len(self.levels) or 1) + len(self.given) + len(self.deviations)
        return np.zeros((patients, width))

    def expected(self, rows: Any, theta: Mapping[str, Any]) -> Any:
        """(P,), where a number is expected on its scale."""
        mean = theta[f"mean_{self.column}"]
        return sum((theta[n] * rows[:, 2 + k] for k, n in enumerate(self._slopes())),
                   jnp.log(mean) if self.kind == "log" else mean)

    def values(self, rows: Any, theta: Mapping[str, Any]) -> Any:
        """(P,), the numbers as the file would hold them, known and missing."""
        z = sum((theta[n] * rows[:, 2 + len(self.given) + k]
                 for k, n in enumerate(self.deviations)), jnp.zeros(()))
        x = jnp.where(rows[:, 0] > 0, self.expected(rows, theta) + theta[f"sd_{self.column}"] * z,
                      rows[:, 1])
        return jnp.exp(x) if self.kind == "log" else x

    def log_shares(self, rows: Any, theta: Mapping[str, Any]) -> Any:
        """(P, L), ln of how probable each level of a category is."""
        first = 1 + len(self.levels)
        odds = [jnp.zeros(rows.shape[0])] + [sum(
            (theta[n] * rows[:, first + j] for j, n in enumerate(self._slopes(f"_{k}"))),
            theta[f"logit_{self.column}_{k}"] + jnp.zeros(rows.shape[0]))
            for k in self.levels[1:]]
        return jax.nn.log_softmax(jnp.stack(odds, axis=1), axis=1)

    def log_density(self, rows: Any, theta: Mapping[str, Any]) -> Any:
        """(P,): ln of the density, on its scale, or the probability of what is known; 0 of what is
        missing."""
        if self.kind == "category":
            return (rows[:, 1:1 + len(self.levels)] * self.log_shares(rows, theta)).sum(axis=1)
        density = jax.scipy.stats.norm.logpdf(
            rows[:, 1], self.expected(rows, theta), theta[f"sd_{self.column}"])
        return jnp.where(rows[:, 0] > 0, 0.0, density)

    def filled(self, effect: CovariateEffect, columns: Any, rows: Any,
               theta: Mapping[str, Any]) -> Any:
        """(P, C), what an effect's coefficients multiply: of a missing number by its value, of a
        missing level by how probable each is."""
        if self.kind == "category":
            shares = jnp.exp(self.log_shares(rows, theta))
            found = jnp.stack([shares[:, self.levels.index(str(p))] for p in effect.points], axis=1)
        else:
            found = covariate_model(effect).columns(self.values(rows, theta), effect)
        return jnp.where(rows[:, :1] > 0, found, columns)

    def known(self, effects: Iterable[CovariateEffect], columns: Mapping[str, Any], chosen: Any) \
            -> dict[str, Any]:
        """The columns of the effects with the levels of those who lack them; chosen : (P, L)."""
        rows, count = columns[self.key], len(self.levels)
        lacking = rows[:, :1]
        out = {self.key: jnp.concatenate([0.0 * lacking, rows[:, 1:1 + count] + lacking * chosen,
                                          rows[:, 1 + count:]], axis=1)}
        for e in (e for e in effects if e.column == self.column):
            own = jnp.stack([chosen[:, self.levels.index(str(p))] for p in e.points], axis=1)
            out[e.key] = jnp.where(lacking > 0, own, columns[e.key])
        return {**columns, **out}


def with_levels(missing: Iterable[Missing], effects: Iterable[CovariateEffect],
                data: Mapping[str, Any], theta: Mapping[str, Any], key: jax.Array) \
        -> dict[str, Any]:
    """The data with the missing levels drawn from their distribution, where there are any."""
    columns = data["effects"]
    for k, gap in enumerate(m for m in missing if m.kind == "category"):
        drawn = jax.random.categorical(jax.random.fold_in(key, k),
                                       gap.log_shares(columns[gap.key], theta))
        columns = gap.known(effects, columns, jax.nn.one_hot(drawn, len(gap.levels), dtype=float))
    return {**data, "effects": columns}


def asked_missing(asked: Mapping[str, str] | Iterable[str], effects: Sequence[CovariateEffect],
                  rules: Mapping[str, str]) -> tuple[tuple[Missing, ...], list[Problem]]:
    """Missing from {"WT": "model"} or ["WT"], and what of it is not understood."""
    asked = asked if isinstance(asked, Mapping) else dict.fromkeys(asked, "model")
    read = {e.column for e in effects if e.form != "formula"}
    found = []
    for column, how in asked.items():
        in_terms = [e.key for e in effects if e.form == "formula"
                    and column in covariate_model(e).needs(e)]
        if how != "model":
            found.append(Problem("error", "a missing covariate is modelled, or refused",
                                 f'missing = {{{column} = "model"}}, or leave it out',
                                 column=column, found=how))
        elif in_terms:
            found.append(Problem("error", "missing values are not modelled in a term of a formula",
                                 "state it as power, exponential, linear or category",
                                 column=column, found=in_terms[0]))
        elif column not in read:
            found.append(Problem("error", "no covariate effect reads the column whose missing "
                                 "values are to be modelled", f"they read {', '.join(read)}"
                                 if read else "state an effect of it", column="missing",
                                 found=column))
        elif column in rules:
            found.append(Problem("error", "of a covariate that changes in a patient an empty "
                                 "field says nothing, and its rule fills it", "drop one of them",
                                 column="missing", found=column))
    return tuple(map(Missing, asked)), found


def resolved_missing(missing: Iterable[Missing], effects: Sequence[CovariateEffect],
                     spread: Sequence[str], table: pd.DataFrame, source: str) \
        -> tuple[tuple[Missing, ...], list[Problem]]:
    """The missing covariates of these patients, what is wrong with them and what is to be known.

    effects : those that do not change in a patient, with their references and levels
    """
    missing = [m for m in missing if m.column in table]
    complete = _complete(effects, table)
    made, found = [], []
    for column in (m.column for m in missing):
        ids = table.index[table[column].isna()]
        if not len(ids):
            found.append(Problem("warning", "no patient lacks it: there is nothing to model",
                                 "drop it from missing", source, column=column))
            continue
        mine = [e for e in effects if e.column == column]
        forms = {e.form == "category" for e in mine}
        if len(forms) != 1:
            found += [Problem("error", "missing values of a column are those of a number or of a "
                              "category", "state its effects alike", source, column=column)] \
                if mine else []
            continue
        gap = _of_category(column, mine, table) if forms == {True} else \
            _of_number(column, mine, table)
        gap = Missing(column, gap.kind, gap.levels, complete, tuple(ids), gap.centre, gap.size)
        found += [Problem("error", "its missing levels are summed over, which takes a parameter "
                          "that varies between patients, and this one has no spread",
                          "give it a spread, or take the patients out", source, column=column,
                          found=e.key) for e in mine if gap.levels and e.parameter not in spread]
        made.append(gap)
        which = f"a category of {len(gap.levels)} levels" if gap.levels else \
            "normal" if gap.kind == "identity" else "log-normal"
        on = f" given {', '.join(g.name for g in complete)}" if complete else ""
        found.append(Problem("warning", f"missing in {len(ids)} of {len(table)} patients: "
                             f"modelled as {which}{on}", "", source, column=column))
    total = int(np.prod([len(m.levels) for m in made if m.levels] or [1]))
    if total > _MOST:
        found.append(Problem("error", f"{total} combinations of missing levels: too many to sum "
                             "over", f"join levels: at most {_MOST}", source, column=", ".join(
                                 m.column for m in made if m.levels)))
    return tuple(made), found


def _of_number(column: str, effects: Sequence[CovariateEffect], table: pd.DataFrame) -> Missing:
    x = table[column].dropna().to_numpy(float)
    logged = any(covariate_model(e).positive for e in effects)
    x = np.log(x) if logged else x
    return Missing(column, "log" if logged else "identity", centre=float(x.mean()),
                   size=float(x.std()))


def _of_category(column: str, effects: Sequence[CovariateEffect], table: pd.DataFrame) -> Missing:
    first = str(effects[0].reference)
    return Missing(column, "category", (first, *sorted(
        {level(v) for v in table[column].dropna()} - {first})))


def _complete(effects: Sequence[CovariateEffect], table: pd.DataFrame) -> tuple[Given, ...]:
    """The covariates of the model that no patient lacks, standardised."""
    found: dict[str, Given] = {}
    for e in effects:
        for column in covariate_model(e).needs(e):
            x = table.get(column)
            if x is None or x.isna().any():
                continue
            if e.form == "category" or not pd.api.types.is_numeric_dtype(x):
                for k in sorted({level(v) for v in x})[1:]:
                    found[f"{column}_{k}"] = Given(f"{column}_{k}", column, level=k, centre=float(
                        np.mean([level(v) == k for v in x])))
                continue
            if column in found and not covariate_model(e).positive:
                continue
            logged = covariate_model(e).positive
            values = np.log(x.to_numpy(float)) if logged else x.to_numpy(float)
            if values.std() > 0:
                found[column] = Given(column, column, logged, "", float(values.mean()),
                                      float(values.std()))
    return tuple(found.values())


def missing_priors(gap: Missing, reasons: dict[str, str]) -> dict[str, Prior]:
    """Default priors: wide ones around the known values, the standard normal that defines z."""
    if gap.kind == "category":
        reasons.update({n: reasons.get(n, "default: log odds; slopes per SD") for n in gap.names})
        return {n: Prior("normal", (0.0, 1.0 if n.startswith("slope_") else _ODDS))
                for n in gap.names}
    size = float(f"{gap.size:.2g}")
    mean = Prior("lognormal", (float(f"{np.exp(gap.centre):.3g}"), 2 * size)) \
        if gap.kind == "log" else Prior("normal", (float(f"{gap.centre:.3g}"), 2 * size))
    priors = {n: Prior("normal", (0.0, size)) for n in gap.own[1:-1]}
    priors |= {gap.own[0]: mean, gap.own[-1]: Prior("halfnormal", (2 * size,))}
    for n in gap.own:
        reasons.setdefault(n, "default: scaled to the SD of the known values")
    for n in gap.deviations:
        reasons.setdefault(n, "default: in SDs from what is expected of the patient")
    return {**priors, **dict.fromkeys(gap.deviations, Prior("normal", (0.0, 1.0)))}
