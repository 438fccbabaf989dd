"""Who was observed: Cohort, the tables of one data set, and Design, its arrays for one model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from carpk.problems import DataError, Problem, errors
from carpk.structure import Input, StructuralModel
from carpk.units import unit_problems

OBSERVATION_COLUMNS = ("line", "ID", "TIME", "DVID", "DV", "LOWER", "UPPER", "CENS")
DOSE_COLUMNS = ("line", "ID", "TIME", "AMT", "DURATION", "CMT")
# of a table of doses that are not all plain ones, and what a plain one has there
EVENT_COLUMNS: Mapping[str, float] = {"EVID": 1, "SS": 0, "II": 0.0, "RATE": 0.0}
NOTHING_CHANGES = pd.DataFrame({"line": [], "ID": [], "TIME": []})
EXCLUDED_COLUMNS = ("line", "ID", "TIME", "DVID", "DV", "reason")


@dataclass(frozen=True, eq=False)
class Cohort:
    """The tables of one data set, for any model.

    observations : one row per usable observation, in file order
        line (of the file), ID (str), TIME, DVID (int), DV, CENS (-1 above, 0 measured,
        1 below or within). The truth lies in [LOWER, UPPER]: both equal DV on a measured row,
        LOWER is -inf on a row below its limit, UPPER is +inf on a row above it. A file with a
        column LLOQ adds LLOQ, NaN where a row has none; see `quantification_limits`.
    doses : one row per dose, and per reset
        AMT in the unit of the state it enters, DURATION of the infusion (0 for a bolus),
        CMT counts the model's states from 1. Where some are more than that, all rows have EVID
        (3 a reset, 4 a reset and a dose, else 1), SS (1 or 2: in steady state, with II between
        doses; else 0), and RATE: -1 or -2 where the model knows the rate or duration, or the
        rate of an infusion in steady state that ends there (AMT 0); else 0.
    covariates : index ID, a column for each column of the file that is constant in a patient
        float or str, NaN where the patient has none.
    changing : line, ID, TIME of every row of the file, and the columns that differ between rows
        of a patient, or are missing on some; the first change in each patient is in `varying`
    excluded : rows of the file that are not observations or doses, each with its reason.
    units : of DV by DVID (int); of columns by their name, of doses as AMT or AMT:STATE.
    read_as : what was asked for in reading it: columns, dvid, and the patients of `select`.
    """

    ids: tuple[str, ...]
    observations: pd.DataFrame
    doses: pd.DataFrame
    covariates: pd.DataFrame
    excluded: pd.DataFrame
    source: str
    sha256: str
    units: Mapping[int | str, str] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()
    varying: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    changing: pd.DataFrame = field(default_factory=lambda: NOTHING_CHANGES)
    read_as: Mapping[str, Any] = field(default_factory=dict)

    def select(self, ids: Iterable[str]) -> Cohort:
        """The same cohort with these patients only, in this order; an unknown ID is a KeyError."""
        chosen = tuple(ids)
        known = set(self.ids)
        missing = [i for i in chosen if i not in known]
        if missing:
            raise KeyError(f"no patient {', '.join(missing)} in {self.source}")

        def rows(table: pd.DataFrame) -> pd.DataFrame:
            place = _patient(table, chosen)  # -1 for those not chosen
            order = np.argsort(place, kind="stable")
            return table.iloc[order[place[order] >= 0]].reset_index(drop=True)

        return replace(self, ids=chosen, observations=rows(self.observations),
                       doses=rows(self.doses), covariates=self.covariates.loc[list(chosen)],
                       excluded=rows(self.excluded), changing=rows(self.changing),
                       read_as={**self.read_as, "patients": list(chosen)})


@dataclass(frozen=True, eq=False)
class Design:
    """A cohort as one structural model sees it, padded to the longest patient.

    P patients, N observations, D doses. Observation arrays are (P, N), dose arrays (P, D),
    each input is (P,). Padding repeats the patient's last time and is not `observed`.
    `line` points back to the line of the CSV, `excluded` and `warnings` extend the cohort's;
    `covariates`, `varying` and `changing` are the cohort's. `lloq` (P, N) is the file's, NaN
    where it says none, and None where it has no such column. `dose_events` holds a cohort's EVID,
    SS, II and RATE of doses, each (P, D); it is empty where all doses are plain.
    """

    ids: tuple[str, ...]
    time: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    output: np.ndarray
    observed: np.ndarray
    line: np.ndarray
    inputs: dict[str, np.ndarray]
    dose_time: np.ndarray
    dose_amount: np.ndarray
    dose_duration: np.ndarray
    dose_state: np.ndarray
    dose_line: np.ndarray
    excluded: pd.DataFrame
    warnings: tuple[Problem, ...]
    covariates: pd.DataFrame = field(default_factory=pd.DataFrame)
    varying: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    lloq: np.ndarray | None = None
    dose_events: Mapping[str, np.ndarray] = field(default_factory=dict)
    changing: pd.DataFrame = field(default_factory=lambda: NOTHING_CHANGES)

    @property
    def censored(self) -> np.ndarray:
        """(P, N), true where the truth is only known to lie in [lower, upper]."""
        return self.observed & (self.lower < self.upper)

    def padded(self, observations: int = 0, doses: int = 0) -> Design:
        """The same design with that much more padding."""
        def wider(values: np.ndarray, by: int, fill: Any = None) -> np.ndarray:
            if by == 0:
                return values
            edge = values[:, -1:] if fill is None and values.size else fill or 0
            more = np.broadcast_to(edge, (len(values), by)).astype(values.dtype)
            return np.concatenate([values, more], axis=1)

        n, d = observations, doses
        return replace(
            self, time=wider(self.time, n), lower=wider(self.lower, n, 1.0),
            upper=wider(self.upper, n, 1.0), output=wider(self.output, n, 0),
            observed=wider(self.observed, n, False), line=wider(self.line, n, 0),
            lloq=None if self.lloq is None else wider(self.lloq, n, math.nan),
            dose_time=wider(self.dose_time, d, 0.0), dose_amount=wider(self.dose_amount, d, 0.0),
            dose_duration=wider(self.dose_duration, d, 0.0),
            dose_state=wider(self.dose_state, d, 0), dose_line=wider(self.dose_line, d, 0),
            dose_events={n: wider(v, d, 0.0) for n, v in self.dose_events.items()})


def design(cohort: Cohort, structure: StructuralModel) -> Design:
    """The arrays of `cohort` for `structure`; DataError with every reason it does not fit.

    >>> from carpk import examples, registry
    >>> seen = design(examples.example("tisacel_like"), registry.find_model("stein_2019"))
    >>> seen.time.shape == seen.observed.shape and len(seen.ids) == 90
    True
    """
    found = unit_problems(cohort.units, cohort.doses, structure, cohort.source)
    inputs, input_problems = _inputs(cohort, structure)
    rows, excluded, row_problems = _rows(cohort, structure)
    found += input_problems + row_problems
    doses, dose_problems = _doses(cohort, structure)
    found += dose_problems
    excluded = pd.concat([t for t in (cohort.excluded, excluded) if len(t)] or [excluded],
                         ignore_index=True)
    found += unobserved(cohort, rows, excluded)
    if errors(found):
        raise DataError(found)
    names = [o.dvid for o in structure.outputs]
    n = _padded(rows, cohort.ids, {
        "TIME": None, "LOWER": 1.0, "UPPER": 1.0, "DVID": names[0], "line": 0,
        **({"LLOQ": math.nan} if "LLOQ" in rows else {})})
    counts = np.bincount(_patient(rows, cohort.ids), minlength=len(cohort.ids))
    observed = np.arange(n["TIME"].shape[1])[None, :] < counts[:, None]
    output = np.select([n["DVID"] == dvid for dvid in names], [*range(len(names))])
    events = dict.fromkeys((n for n in EVENT_COLUMNS if n in doses), 0.0)
    d = _padded(doses, cohort.ids, {"TIME": 0.0, "AMT": 0.0, "DURATION": 0.0, "CMT": 1, "line": 0,
                                    **events})
    return Design(
        ids=cohort.ids, time=n["TIME"], lower=n["LOWER"], upper=n["UPPER"],
        output=output.astype(np.int64), observed=observed, line=n["line"].astype(np.int64),
        inputs=inputs, dose_time=d["TIME"], dose_amount=d["AMT"], dose_duration=d["DURATION"],
        dose_state=d["CMT"].astype(np.int64) - 1, dose_line=d["line"].astype(np.int64),
        excluded=excluded, warnings=(*cohort.warnings, *found), covariates=cohort.covariates,
        varying=cohort.varying, changing=cohort.changing, lloq=n.get("LLOQ"),
        dose_events={n: d[n] for n in events})


def quantification_limits(patient: np.ndarray, kind: np.ndarray, time: np.ndarray,
                          lower: np.ndarray, upper: np.ndarray, given: np.ndarray | None) \
        -> np.ndarray:
    """The limit below which each row would have been censored, as far as the file tells.

    patient, kind (the DVID or output), time, lower, upper, given (LLOQ, or None) : (rows,)
    returns : the row's own LLOQ, or the limit it is censored at; for a row with neither that of
        the patient's censored row nearest in time, else the most frequent of all patients; -inf
        where nobody was censored

    >>> quantification_limits(np.array([1, 1, 2]), np.ones(3), np.array([7.0, 90.0, 7.0]),
    ...                       np.array([400.0, -np.inf, 90.0]), np.array([400.0, 50.0, 90.0]),
    ...                       None).tolist()
    [50.0, 50.0, 50.0]
    """
    limit = np.full(len(time), np.nan) if given is None else np.array(given, float)
    below = (lower < upper) & np.isfinite(upper)
    limit = np.where(np.isnan(limit) & below, upper, limit)
    table = pd.DataFrame({"kind": kind, "patient": patient, "time": time, "limit": limit})
    known = table[table["limit"].notna()]
    common = known.groupby("kind")["limit"].agg(lambda v: v.mode().iloc[0]).to_dict()
    own = {k: (g["time"].to_numpy(), g["limit"].to_numpy())
           for k, g in known.groupby(["patient", "kind"])}
    for k in np.flatnonzero(np.isnan(limit)):
        times, limits = own.get((patient[k], kind[k]), (None, None))
        limit[k] = common.get(kind[k], -np.inf) if times is None else \
            limits[np.argmin(np.abs(times - time[k]))]
    return limit


def ignored_columns(cohort: Cohort, structure: StructuralModel, read: Iterable[str] = ()) \
        -> list[str]:
    """The columns of the file that neither the reader nor the model reads, as an input or, those
    in `read`, as a covariate."""
    used = {i.name for i in structure.inputs} | set(read)
    return [str(c) for c in (*cohort.covariates.columns, *cohort.varying) if c not in used]


def contents(cohort: Cohort, structure: StructuralModel | None = None,
             read: Iterable[str] = ()) -> str:
    """What is in a cohort, or what of it a model uses, as a sentence.

    >>> from carpk import examples
    >>> print(contents(examples.example("tisacel_like")).partition(" (")[0])
    example:tisacel_like: 90 patients, 1036 observations
    """
    seen = design(cohort, structure) if structure else None
    table = cohort.observations
    rows, censored = (int(seen.observed.sum()), int(seen.censored.sum())) if seen else \
        (len(table), int((table["CENS"] != 0).sum()))
    given = cohort.doses
    doses = int((given.get("EVID", pd.Series(1, given.index)) != 3).sum()) \
        if structure is None or structure.states else 0
    excluded = seen.excluded if seen else cohort.excluded
    reasons = "; ".join(f"{n}: {why}" for why, n in excluded["reason"].value_counts().items())
    columns = ignored_columns(cohort, structure, read) if structure else \
        [str(c) for c in (*cohort.covariates.columns, *cohort.varying)]
    return (f"{cohort.source}: {len(cohort.ids)} patients, {rows} observations ({censored} "
            f"censored), {doses} doses, {len(excluded)} rows excluded"
            + (f" ({reasons})" if reasons else "")
            + (f"\n{'columns not used' if structure else 'covariates'}: {', '.join(columns)}"
               if columns else ""))


def unobserved(cohort: Cohort, rows: pd.DataFrame, excluded: pd.DataFrame) -> list[Problem]:
    """An error for each patient with none of these rows, with why the others were left out."""
    seen = set(rows["ID"])
    why: dict[str, list[str]] = {i: [] for i in cohort.ids if i not in seen}
    lost = excluded[excluded["ID"].isin(list(why))]
    counts = lost.groupby(["ID", "reason"], sort=False, as_index=False).size()
    for patient, reason, count in zip(counts["ID"], counts["reason"], counts["size"], strict=True):
        why[patient].append(f"{count} rows: {reason}")
    return [Problem("error", "no usable observation" + (f" ({'; '.join(w)})" if w else ""),
                    "take the patient out of the file, or correct the rows", cohort.source,
                    patient=i) for i, w in why.items()]


def _patient(table: pd.DataFrame, ids: tuple[str, ...]) -> np.ndarray:
    """The place in `ids` of each row's patient."""
    return pd.Index(ids, dtype=object).get_indexer(pd.Index(table["ID"].to_numpy(object)))


def _padded(table: pd.DataFrame, ids: tuple[str, ...],
            columns: Mapping[str, float | None]) -> dict[str, np.ndarray]:
    """Each column as (P, widest patient); None pads with the patient's last value."""
    patient = _patient(table, ids)
    place = table.groupby("ID", sort=False).cumcount().to_numpy()
    shape = (len(ids), int(place.max()) + 1 if len(place) else 0)
    arrays = {}
    for column, fill in columns.items():
        values, block = table[column].to_numpy(float), np.full(shape, fill or 0.0)
        if fill is None:
            last = np.zeros(len(ids))
            last[patient] = values  # rows are in order, so the last one stays
            block += last[:, None]
        block[patient, place] = values
        arrays[column] = block
    return arrays


def _inputs(cohort: Cohort, structure: StructuralModel) \
        -> tuple[dict[str, np.ndarray], list[Problem]]:
    values: dict[str, np.ndarray] = {}
    found: list[Problem] = []
    for needed in structure.inputs:
        column, problems = _input(cohort, structure, needed)
        values[needed.name] = column
        found += problems
    return values, found


def _input(cohort: Cohort, structure: StructuralModel, needed: Input) \
        -> tuple[np.ndarray, list[Problem]]:
    name, blank = needed.name, np.full(len(cohort.ids), math.nan)
    if name in cohort.varying:
        return blank, list(cohort.varying[name])
    if name not in cohort.covariates:
        if needed.default is not None:
            return np.full(len(cohort.ids), needed.default), []
        return blank, [Problem(
            "error", f"{structure.name} needs a column {name} ({needed.meaning}, {needed.unit})",
            "add it, or name the file's column for it: --column "
            f"{name}=YOURS", cohort.source, column=name)]
    values = pd.to_numeric(cohort.covariates[name], errors="coerce").to_numpy(float)
    written = cohort.covariates[name]
    wrong = [(i, w) for i, w, v in zip(cohort.ids, written, values, strict=True)
             if math.isnan(v) and not pd.isna(w)]
    found = [Problem("error", "not a number", "correct the value", cohort.source, patient=i,
                     column=name, found=str(w)) for i, w in wrong]
    if needed.default is not None:
        return np.where(np.isnan(values), needed.default, values), found
    found += [Problem("error", f"missing, and {structure.name} needs it ({needed.meaning})",
                      "fill it in, or take the patient out of the file", cohort.source,
                      patient=i, column=name)
              for i, w in zip(cohort.ids, written, strict=True) if pd.isna(w)]
    return values, found


def _rows(cohort: Cohort, structure: StructuralModel) \
        -> tuple[pd.DataFrame, pd.DataFrame, list[Problem]]:
    """The observations the model fits, those it leaves out, and what is wrong with either."""
    rows = cohort.observations
    known = {o.dvid: o for o in structure.outputs}
    found: list[Problem] = []
    for dvid, group in rows[~rows["DVID"].isin(known)].groupby("DVID"):
        found.append(Problem(
            "error", f"{structure.name} has no output with this DVID "
            f"(it has {', '.join(f'{d} = {o.name}' for d, o in known.items())}); "
            f"{len(group)} rows",
            f"fit only the others: {' '.join(f'--dvid {d}' for d in known)}", cohort.source,
            int(group['line'].iloc[0]), column="DVID", found=str(dvid)))
    reason = pd.Series("", index=rows.index, dtype=object)
    for needed in structure.inputs:
        if needed.equals:
            output = structure.output(needed.equals)
            reason[(rows["DVID"] == output.dvid) & (rows["TIME"] == 0)] = \
                f"{output.name} at time 0 is the model's input {needed.name}"
    left_out = rows.assign(reason=reason)[reason != ""]
    if len(left_out):
        found.append(Problem(
            "warning", f"{len(left_out)} rows at time 0 are the model's input, not fitted",
            "", cohort.source, int(left_out["line"].iloc[0])))
    rows = rows.drop(index=left_out.index)
    for output in structure.outputs:
        if output.binary:
            bad = rows[(rows["DVID"] == output.dvid) & (
                ~rows["DV"].isin((0, 1)) | (rows["CENS"] != 0))]
            found += [Problem(
                "error", f"{output.name} is binary: 0 or 1, and not censored",
                "not an answer? set MDV=1", cohort.source, line, patient, "DV", f"{dv:g}")
                for line, patient, dv in zip(bad["line"], bad["ID"], bad["DV"], strict=True)]
        if not output.positive:
            continue
        # UPPER is DV, or the limit that a censored row is below
        bad = rows[(rows["DVID"] == output.dvid) & (rows["UPPER"] <= 0)]
        found += [Problem(
            "error", f"{output.name} is fitted on the log scale and must be above 0",
            "below the limit? set CENS=1 and DV to the limit; not a measurement? set MDV=1",
            cohort.source, line, patient, "DV", f"{dv:g}")
            for line, patient, dv in zip(bad["line"], bad["ID"], bad["DV"], strict=True)]
    return rows, left_out[list(EXCLUDED_COLUMNS)], found


def _doses(cohort: Cohort, structure: StructuralModel) -> tuple[pd.DataFrame, list[Problem]]:
    doses = cohort.doses
    if len(doses) and not structure.states:
        resets = doses.get("EVID", pd.Series(1, doses.index)) > 2  # where a course begins anew
        return doses[resets], [Problem(
            "warning", f"{structure.name} takes no dose: {len(doses)} dose rows are not used",
            "", cohort.source, int(doses["line"].iloc[0]))]
    states = [s.name for s in structure.states]
    beyond = doses[(doses["CMT"] < 1) | (doses["CMT"] > len(states))]
    found = [Problem(
        "error", f"{structure.name} has {len(states)} states: "
        + ", ".join(f"{k} = {name}" for k, name in enumerate(states, 1)),
        "correct CMT", cohort.source, line, patient, "CMT", f"{cmt:g}")
        for line, patient, cmt in zip(beyond["line"], beyond["ID"], beyond["CMT"], strict=True)]
    known = structure.dosed
    for code, word in ((-1, "rate"), (-2, "duration")):
        asked = doses[doses["RATE"] == code] if "RATE" in doses else doses.iloc[:0]
        asked = asked[asked["CMT"].between(1, len(states))]
        found += [Problem(
            "error", f"{structure.name} does not say the {word} of infusions into "
            f"{states[cmt - 1]}", f"give the rate, or 0 for a bolus; a model file says it in "
            f"dosing(p): {{{states[cmt - 1]!r}: {{{word!r}: ...}}}}", cohort.source, line, patient,
            "RATE", f"{code}") for line, patient, cmt in
            zip(asked["line"], asked["ID"], asked["CMT"], strict=True)
            if word not in known.get(states[cmt - 1], ())]
    steady = doses[doses["SS"] > 0] if "SS" in doses else doses.iloc[:0]
    if len(steady) and structure.switches:
        found.append(Problem(
            "warning", f"rates of {structure.name} change at {', '.join(structure.switches)}: the "
            f"steady state is that of the rates at its dose ({len(steady)} such rows)",
            "give the doses before it too (ADDL) where that is not meant", cohort.source,
            int(steady["line"].iloc[0]), steady["ID"].iloc[0], "SS"))
    return doses, found
