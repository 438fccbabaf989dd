"""Exposure of groups of patients, and how much of it the rules of the analysis decide."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from carpk.cohort import Cohort
from carpk.noncompartmental import BLQ, RULES, nca
from carpk.problems import Problem, RequestError

_TIMES = ("Tmax", "Tlast", "Tbelow", "Tbql", "Tend")  # median and range only


def endpoints(table: pd.DataFrame) -> list[str]:
    """The columns of an exposure table that are summarised, in the order they are told."""
    areas = [c for c in table if c.startswith("AUC") and c != "AUC_extrapolated"]
    months = [c for c in table if c.startswith("C_")]
    found = [c.removeprefix("C_") for c in months]
    shares = [f"detectable_{m}" for m in found]
    return [c for c in ("Cmax", "Tmax", *areas, "Clast", "Tlast", "Tbelow", "Tbql", "Tend",
                        "half_life", *months, *shares) if c in table]


def unit_of(endpoint: str, level: str) -> str:
    """The unit of an endpoint where levels have this one.

    >>> unit_of("AUC0_28", "copies/ug"), unit_of("Tmax", ""), unit_of("detectable_M3", "")
    ('copies/ug*day', 'day', '%')
    """
    if endpoint.startswith("detectable"):
        return "%"
    if endpoint in (*_TIMES, "half_life"):
        return "day"
    return f"{level}*day" if level and endpoint.startswith("AUC") else level


def by_group(table: pd.DataFrame, cohort: Cohort, by: str | None = None) -> pd.DataFrame:
    """Each endpoint of each group: n, geometric mean and CV %, median, range.

    table : of `carpk.nca`; by : a covariate of the cohort, without it all patients are one group
    returns : DVID, group, endpoint, unit, n (patients of whom it is known), geometric_mean,
        geometric_cv_percent (100 sqrt(exp(s^2) - 1), s the SD of logarithms), median, lowest,
        highest, zeros (left out of the geometric statistics). Times have no geometric mean;
        of detectable_M1 and the like there are n and share_percent.

    >>> from carpk import examples
    >>> cohort = examples.example("tisacel_like")
    >>> groups = by_group(nca(cohort), cohort, "RESPONSE")
    >>> groups[groups["endpoint"] == "Cmax"][["group", "n"]].values.tolist()
    [['CR', 70], ['NR', 20]]
    """
    if by is not None and by not in cohort.covariates:
        changing = by in cohort.varying
        raise RequestError(Problem(
            "error", "changes within a patient: patients cannot be told apart by it" if changing
            else "no such column", "the file has "
            + (", ".join(map(str, cohort.covariates.columns)) or "no covariates"),
            cohort.source, column="by", found=by))
    told = cohort.covariates[by].reindex(table["ID"]) if by else None
    group = pd.Series("all", index=table.index) if told is None else pd.Series(
        ["missing" if pd.isna(v) else v if isinstance(v, str) else f"{v:g}" for v in told],
        index=table.index)
    rows = []
    for (dvid, name), part in table.groupby(["DVID", group], sort=True):
        for endpoint in endpoints(table):
            rows.append({"DVID": dvid, "group": name, "endpoint": endpoint,
                         "unit": unit_of(endpoint, part["unit"].iloc[0]),
                         **_statistics(endpoint, part[endpoint])})
    columns = ["DVID", "group", "endpoint", "unit", "n", "geometric_mean",
               "geometric_cv_percent", "median", "lowest", "highest", "zeros", "share_percent"]
    return pd.DataFrame(rows, columns=columns)


def _statistics(endpoint: str, column: pd.Series) -> dict[str, Any]:
    values = column.dropna().to_numpy(float)
    if endpoint.startswith("detectable"):
        return {"n": len(values), "share_percent": 100 * values.mean() if len(values) else None}
    if not len(values):
        return {"n": 0}
    found = {"n": len(values), "median": np.median(values), "lowest": values.min(),
             "highest": values.max()}
    if endpoint in _TIMES:
        return found
    logs = np.log(values[values > 0])
    found["zeros"] = int((values <= 0).sum())
    if len(logs):
        found["geometric_mean"] = math.exp(logs.mean())
    if len(logs) > 1:
        found["geometric_cv_percent"] = 100 * math.sqrt(math.expm1(logs.var(ddof=1)))
    return found


def sensitivity(cohort: Cohort, **settings: Any) -> pd.DataFrame:
    """What the rules decide: each area under other rules, against the analysis asked for.

    Cmax, Clast, times and half-life read quantified levels only: no rule moves them.

    settings : those of `carpk.nca`, the analysis that others are compared with
    returns : DVID, endpoint, unit, blq, rule, n, geometric_mean, ratio (the geometric mean of the
        patients' own ratios to the analysis asked for) and lowest_ratio, highest_ratio. Rules
        for levels below the limit come with the trapezoids asked for, and the other trapezoids
        with the rule for levels below the limit asked for.
    """
    asked: dict[str, Any] = {"blq": BLQ[0], "rule": RULES[0], "to_zero": False} | settings
    varied = [asked]
    varied += [v for blq, to_zero in ((BLQ[0], False), (BLQ[0], True), ("half", False),
                                      ("missing", False))
               if (v := {**asked, "blq": blq, "to_zero": to_zero}) != asked]
    varied += [{**asked, "rule": r} for r in RULES if r != asked["rule"]]
    base, rows = nca(cohort, **asked), []
    chosen = [c for c in endpoints(base) if c.startswith("AUC")]
    tables = [base, *(nca(cohort, **v) for v in varied[1:])]
    for dvid in base["DVID"].unique():
        mine = base["DVID"] == dvid
        for endpoint in chosen:
            unit = unit_of(endpoint, base.loc[mine, "unit"].iloc[0])
            for how, table in zip(varied, tables, strict=True):
                blq = how["blq"] + (", then to zero" if how["to_zero"] else "")
                rows.append({"DVID": dvid, "endpoint": endpoint, "unit": unit, "blq": blq,
                             "rule": how["rule"],
                             **_compared(table.loc[mine, endpoint], base.loc[mine, endpoint])})
    return pd.DataFrame(rows)


def _compared(values: pd.Series, base: pd.Series) -> dict[str, float]:
    known = values[values > 0]
    ratio = (values / base)[(values > 0) & (base > 0)]
    return {"n": int(values.notna().sum()),
            "geometric_mean": math.exp(np.log(known).mean()) if len(known) else math.nan,
            "ratio": math.exp(np.log(ratio).mean()) if len(ratio) else math.nan,
            "lowest_ratio": ratio.min() if len(ratio) else math.nan,
            "highest_ratio": ratio.max() if len(ratio) else math.nan}
