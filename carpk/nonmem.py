"""A NONMEM-style CSV becomes a Cohort, or a DataError that holds everything wrong with it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from carpk.cohort import (
    EVENT_COLUMNS,
    EXCLUDED_COLUMNS,
    NOTHING_CHANGES,
    Cohort,
    design,
    unobserved,
)
from carpk.csvfile import TextTable, read_table, to_numbers
from carpk.dose_rows import doses_in
from carpk.problems import DataError, Problem, errors
from carpk.records import RESERVED, Records
from carpk.structure import StructuralModel

_BEFORE, _NO_DV, _OTHER = "before the infusion (TIME < 0)", "no DV", "another event (EVID=2)"


def read_csv(path: str | Path, *, columns: Mapping[str, str] | None = None,
             dvid: Sequence[int] | None = None,
             units: Mapping[int | str, str] | None = None,
             structure: StructuralModel | None = None) -> Cohort:
    """Read a NONMEM-style CSV file; TIME in days, time zero is the infusion.

    columns : our name -> the file's column, such as {"DV": "CONC"}; covariates too
    dvid : keep only observations with these DVIDs
    units : DVID -> unit of DV, above the table [units] of a card.toml beside the file; also the
        name of a column -> its unit, and AMT, or AMT:STATE -> that of doses. A model refuses
        what it does not take in that unit
    structure : check too that the cohort fits this model

    ID, TIME and DV are required; DVID MDV EVID AMT RATE CMT ADDL II SS CENS LLOQ LIMIT are read
    where present, in capitals or not. Missing: an empty field, `.`, NA or NaN. Every other
    column is a covariate: one value per patient, which some of the patient's rows may leave
    missing. Where it changes within a patient it is set aside in `varying`, and its values row by
    row in `changing`: a model reads them by a rule (`time_varying` of `carpk.population`). A row
    with EVID=2 may say no more than such a value.

    Doses and resets are NONMEM's. ADDL further doses follow every II. EVID=3 sets the states
    back to where the model starts (0 in NONMEM; here a baseline where the model has one) and
    ends all infusions and further doses; EVID=4 does so before its dose. SS=1 sets the states
    to the steady state of this dose every II, SS=2 adds that steady state to them; SS=1 with
    AMT=0 and a RATE is that of a constant infusion, which ends there. RATE=-1 and -2 take the
    model's own rate and duration. EVID=2 is no more than a row that is not used.

    CENS=1: the truth is below LLOQ, or below DV where no LLOQ is given, and above LIMIT if
    that is given. CENS=-1: it is above DV, and below LIMIT if given. A dose is EVID=1 or 4
    or, where EVID is not given, AMT above 0. Not used, with the reason in `excluded`: MDV=1,
    EVID=2, other DVIDs, TIME below 0, no DV. Anything doubtful is a warning of the cohort;
    anything wrong raises DataError with every Problem of the file.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "run.csv")
    >>> _ = path.write_text("ID,TIME,DV,CENS,SEX\\n1,7,420,0,F\\n1,90,50,1,F\\n")
    >>> cohort = read_csv(path, units={1: "copies/ug"})
    >>> cohort.observations[["line", "TIME", "LOWER", "UPPER"]].values.tolist()
    [[2.0, 7.0, 420.0, 420.0], [3.0, 90.0, -inf, 50.0]]
    >>> cohort.covariates.loc["1", "SEX"]
    'F'
    """
    return _cohort(read_table(path), Path(path), columns or {}, dvid, units or {}, structure)


def read_plan(path: str | Path, outputs: Sequence[int],
              units: Mapping[int | str, str] | None = None) -> Cohort:
    """Read a design: who is sampled when, given what, with which inputs; nothing is measured.

    outputs : the DVIDs that a row without DVID samples
    Only ID is required. DV, CENS, LLOQ and LIMIT are not read; with no column TIME, rows are
    patients without samples, as are rows with MDV=1. Problems as in `read_csv`.
    """
    table = read_table(path)
    held = dict(zip((n.upper() for n in table.names), table.columns, strict=True))
    rows = len(table.line)
    text = {"DV": np.array([str(k + 1) for k in range(rows)], dtype=object)}
    evid, amount = (to_numbers(held[n])[0] if n in held else np.full(rows, np.nan)
                    for n in ("EVID", "AMT"))
    text["DV"][(evid >= 1) | (amount > 0)] = "0"
    if "TIME" not in held:
        text |= {"TIME": np.full(rows, "0", dtype=object), "MDV": np.full(rows, "1", dtype=object)}
    keep = [k for k, n in enumerate(table.names)
            if n.upper() not in (*text, "CENS", "LLOQ", "LIMIT")]
    table = replace(table, names=(*(table.names[k] for k in keep), *text),
                    columns=(*(table.columns[k] for k in keep), *text.values()),
                    width=table.width)
    cohort = _cohort(table, Path(path), {}, None, units or {}, None, planned=True)
    if "DVID" in held or not len(cohort.observations):
        return cohort
    each = [cohort.observations.assign(DVID=d) for d in outputs]
    return replace(cohort, observations=pd.concat(each).sort_values("line", kind="stable")
                   .reset_index(drop=True))


def _cohort(table: TextTable, path: Path, columns: Mapping[str, str], dvid: Sequence[int] | None,
            units: Mapping[int | str, str], structure: StructuralModel | None,
            planned: bool = False) -> Cohort:
    """The cohort of a table of text; of a planned one, patients may have no observation."""
    rows = Records(table, columns)
    time = rows.numbers("TIME")
    if rows.has("TIME"):
        rows.refuse(rows.missing("TIME"), "TIME", "no time", "days after the infusion")
    doses, seen, other = doses_in(rows, time)
    seen, which, excluded = _exclusions(rows, time, seen, other, dvid)
    observations = _observations(rows, time, seen, which)
    _check_order(rows, time)
    covariates, varying = _covariates(rows)
    moving = [n for n in rows.texts if n in varying or (n in covariates and _partly(rows, n))]
    changing = pd.DataFrame({"line": rows.line, "ID": rows.ids, "TIME": time, **{
        n: _values(rows, n) for n in moving}})
    found = rows.problems
    cohort = Cohort(
        ids=tuple(covariates.index), observations=rows.sound(observations),
        doses=rows.sound(doses), covariates=covariates, excluded=rows.sound(excluded),
        source=table.file, sha256=table.sha256, varying=varying, changing=rows.sound(changing)
        if moving else NOTHING_CHANGES,
        units=_card_units(path, found) | dict(units))
    found += [Problem("error", "a unit is given for a column that is not there",
                      "give it by the column's name, by DVID for DV, as AMT:STATE for doses",
                      table.file, column=f"unit of {key}", found=unit)
              for key, unit in cohort.units.items()
              if isinstance(key, str) and not rows.has(key.partition(":")[0])]
    found += _repeats(cohort)
    # a patient who lost rows to errors is not told, in addition, that nothing is left
    broken = set(rows.ids[rows.bad])
    found += [p for p in ([] if planned else _unfit(cohort, structure))
              if p.column or p.line or p.patient not in broken]
    found.sort(key=lambda p: p.line or (0 if p.patient is None else 1 << 62))
    if errors(found):
        raise DataError(found)
    how = {"columns": dict(columns), "dvid": list(dvid or ())}
    return replace(cohort, warnings=tuple(found), read_as={k: v for k, v in how.items() if v})


def to_csv(cohort: Cohort, path: str | Path | TextIO) -> None:
    """Write a cohort as a file that `read_csv` reads back to the same tables.

    Lines are numbered anew; rows excluded for their DVID come back as MDV=1. A value of a column
    that changes in a patient, at a line where nothing else is, is a row of its own (EVID=2).
    """
    given = cohort.doses.reindex(columns=[*cohort.doses, *(
        n for n in EVENT_COLUMNS if n not in cohort.doses)]).fillna(EVENT_COLUMNS)
    bolus = given["DURATION"] == 0
    rate = (given["AMT"] / given["DURATION"].mask(bolus)).mask(bolus, given["RATE"])
    doses = given.assign(MDV=1, RATE=rate)
    seen = cohort.observations.assign(EVID=0, MDV=0)
    other = seen["UPPER"].where(seen["CENS"] < 0, seen["LOWER"])
    seen["LIMIT"] = other.where((seen["CENS"] != 0) & np.isfinite(other))
    again = cohort.excluded["reason"].isin([_BEFORE, _NO_DV])  # TIME or DV will say it again
    other = cohort.excluded["reason"] == _OTHER
    unused = cohort.excluded.assign(EVID=np.where(other, 2, 0), MDV=(~again).astype(int))
    key = ["line", "ID", "TIME"]
    moving = [c for c in cohort.changing if c not in key]
    said = cohort.changing.dropna(subset=moving, how="all")
    written = [t for t in (doses, seen, unused) if len(t)]
    if len(said):
        held = pd.MultiIndex.from_frame(pd.concat([t[key] for t in written] or [seen[key]]))
        alone = said[~pd.MultiIndex.from_frame(said[key]).isin(held)]
        written.append(alone[key].assign(DVID=1, EVID=2, MDV=1, CENS=0))
    rows = pd.concat(written or [seen], ignore_index=True)
    rows = rows.merge(said, "left", key) if len(said) else rows
    place = rows["ID"].map({patient: k for k, patient in enumerate(cohort.ids)})
    rows = rows.assign(place=place).sort_values(["place", "TIME", "line"])
    wanted = ["ID", "TIME", "DV", "DVID", "EVID", "MDV", "CENS", "LLOQ", "LIMIT", "AMT", "RATE",
              "CMT", "SS", "II"]
    empty = [c for c in ("LIMIT", "SS", "II") if c in rows and not rows[c].fillna(0).any()]
    rows = rows[[*(c for c in wanted if c in rows and c not in empty), *moving]]
    rows = rows.astype({c: "Int64" for c in ("DVID", "EVID", "CENS", "CMT", "SS") if c in rows})
    rows = rows.join(cohort.covariates.drop(columns=moving, errors="ignore"), on="ID")
    held = [*cohort.covariates, *(c for c in moving if c not in cohort.covariates)]
    rows[[*(c for c in rows if c not in held), *held]].to_csv(
        path, index=False, na_rep=".", lineterminator="\n")


def _exclusions(rows: Records, time: np.ndarray, seen: np.ndarray, other: np.ndarray,
                dvid: Sequence[int] | None) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Which observations are used, the DVID of every row, and the table of those not used."""
    reason = rows.blank.copy()
    reason[other] = _OTHER

    def leave_out(where: np.ndarray, why: str) -> np.ndarray:
        where = where & seen & (reason == "")
        reason[where] = why
        return where

    leave_out(rows.codes("MDV", seen, 0, allowed=(0, 1)) == 1, "MDV = 1")
    used = seen & (reason == "")
    which = rows.codes("DVID", used, 0 if rows.has("DVID") else 1)
    if rows.has("DVID"):
        rows.refuse(used & rows.missing("DVID"), "DVID", "which output was observed?",
                    "give the DVID, or set MDV=1")
    if dvid is not None:
        there = {int(d) for d in which[used & ~rows.bad]}
        rows.problems += [
            Problem("error", "asked for, but no observation has this DVID",
                    f"the file has {', '.join(map(str, sorted(there)))}", rows.file,
                    column="DVID", found=str(d)) for d in dvid if there and d not in there]
        leave_out(~np.isin(which, list(dvid)), "DVID not asked for")
    rows.warn_once(leave_out(time < 0, _BEFORE), "TIME", "before the infusion: not used")
    if rows.has("DV"):
        uncensored = rows.missing("CENS") | (rows.numbers("CENS", False) == 0)
        rows.warn_once(leave_out(rows.missing("DV") & uncensored, _NO_DV), "DV",
                       "no value: not used", "below the limit? set CENS=1, and LLOQ to the limit")
    table = pd.DataFrame({"line": rows.line, "ID": rows.ids, "TIME": time, "DVID": which,
                          "DV": rows.numbers("DV", False), "reason": reason})
    return used & (reason == ""), which, table.loc[reason != "", list(EXCLUDED_COLUMNS)]


def _observations(rows: Records, time: np.ndarray, used: np.ndarray, which: np.ndarray) \
        -> pd.DataFrame:
    """The table of observations, each with the interval that holds the truth."""
    cens = rows.codes("CENS", used, 0, allowed=(-1, 0, 1))
    below, above = used & (cens == 1), used & (cens == -1)
    lloq, limit = rows.numbers("LLOQ", used), rows.numbers("LIMIT", below | above)
    by_lloq = below & ~np.isnan(lloq)
    dv = rows.numbers("DV", used & ~by_lloq)
    bound = np.where(by_lloq, lloq, dv)
    if rows.has("DV"):
        rows.refuse(below & rows.missing("DV") & rows.missing("LLOQ"), "CENS",
                    "below a limit that neither LLOQ nor DV gives", "set LLOQ to the limit")
        rows.refuse(above & rows.missing("DV"), "CENS", "above a limit that DV does not give",
                    "set DV to the limit")
    rows.refuse(below & (dv > lloq), "DV", "CENS=1 means below LLOQ, but DV is above it",
                "measured? set CENS=0; another limit for this sample? set LLOQ to it")
    rows.warn_once(below & (dv < lloq), "DV", "not read: with CENS=1 the limit is LLOQ")
    rows.warn(used & (cens == 0) & (dv < lloq), "DV", "below LLOQ and not censored: used as it is",
              "censored? set CENS=1")
    rows.refuse(below & (limit >= bound), "LIMIT", "with CENS=1 this is the lower end of an "
                "interval: it must be below LLOQ or DV", "correct it, or leave it empty")
    rows.refuse(above & (limit <= bound), "LIMIT", "with CENS=-1 this is the upper end of an "
                "interval: it must be above DV", "correct it, or leave it empty")
    lower = np.where(below, np.where(np.isnan(limit), -np.inf, limit), bound)
    upper = np.where(above, np.where(np.isnan(limit), np.inf, limit), bound)
    table = pd.DataFrame({"line": rows.line, "ID": rows.ids, "TIME": time, "DVID": which,
                          "DV": bound, "LOWER": lower, "UPPER": upper, "CENS": cens})
    return (table.assign(LLOQ=lloq) if rows.has("LLOQ") else table)[used]


def _patients(rows: Records) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows that name a patient, the number of the patient on each, and all IDs in order."""
    at = np.flatnonzero((rows.ids != "") & ~rows.unread)
    return at, *pd.factorize(rows.ids[at])


def _check_order(rows: Records, time: np.ndarray) -> None:
    """A patient's rows stand together and in the order of time."""
    at, patient, _ = _patients(rows)
    before = np.concatenate([[-1], patient[:-1]])[:len(at)]
    begins = np.flatnonzero(patient != before)
    _, first = np.unique(patient[begins], return_index=True)
    returns = np.delete(begins, first)
    _, once = np.unique(patient[returns], return_index=True)
    index = np.arange(len(rows.line))
    rows.refuse(np.isin(index, at[returns[once]]), "ID", "the patient was met before, with other "
                "patients between", "sort the file by ID and TIME; two patients need two IDs")
    earlier = np.concatenate([[False], time[at][1:] < time[at][:-1]])[:len(at)]
    rows.refuse(np.isin(index, at[(patient == before) & earlier]), "TIME",
                "earlier than the patient's row before", "sort the file by ID and TIME")


def _covariates(rows: Records) -> tuple[pd.DataFrame, dict[str, tuple[Problem, ...]]]:
    """One value per patient of every other column, and what varies within a patient."""
    at, patient, ids = _patients(rows)
    constant: dict[str, np.ndarray] = {}
    varying: dict[str, tuple[Problem, ...]] = {}
    for name in (n for n in rows.texts if n not in RESERVED):
        texts = rows.texts[name][at]
        numbers, words = to_numbers(texts)
        codes, distinct = pd.factorize(texts if words.any() else numbers)
        codes[rows.missing(name)[at]] = -1
        present = np.flatnonzero(codes >= 0)
        who, first = np.unique(patient[present], return_index=True)
        held = np.full(len(ids), -1)
        held[who] = codes[present[first]]
        changed = present[codes[present] != held[patient[present]]]
        _, once = np.unique(patient[changed], return_index=True)
        if len(once):
            varying[name] = tuple(
                Problem("error", f"not one value per patient: it was {distinct[held[patient[k]]]}",
                        "a model needs one; correct it, or take another column", rows.file,
                        int(rows.line[at[k]]), rows.ids[at[k]], name, texts[k][:40])
                for k in changed[once])
        else:
            constant[name] = np.append(distinct, [np.nan])[held]  # the last for those without
    return pd.DataFrame(constant, index=pd.Index(ids, dtype=object, name="ID")), varying


def _partly(rows: Records, name: str) -> bool:
    """Whether a patient has the value of a column on some rows and not on others."""
    at, patient, ids = _patients(rows)
    missing = np.bincount(patient, rows.missing(name)[at], minlength=len(ids))
    return bool(((missing > 0) & (missing < np.bincount(patient, minlength=len(ids)))).any())


def _values(rows: Records, name: str) -> np.ndarray:
    """A column row by row: numbers, or words where one of them is none; NaN where missing."""
    numbers, words = to_numbers(rows.texts[name])
    return np.where(rows.missing(name), np.nan, rows.texts[name]) \
        if (words & ~rows.missing(name)).any() else numbers


def _repeats(cohort: Cohort) -> list[Problem]:
    """Rows that were entered twice, and replicates."""
    table, found = cohort.observations, []
    key = ["ID", "TIME", "DVID"]
    alike = table[table.duplicated([*key, "LOWER", "UPPER"], keep=False)]
    first = alike.groupby([*key, "LOWER", "UPPER"])["line"].transform("min")
    for line, patient, before, dv in zip(alike["line"], alike["ID"], first, alike["DV"],
                                         strict=True):
        if line != before:
            found.append(Problem(
                "error", f"the same patient, TIME, DVID and DV as on line {before}",
                "delete one; truly measured twice? move one by a minute (0.0007 days)",
                cohort.source, line, patient, "DV", f"{dv:g}"))
    others = table[table.duplicated(key) & ~table.index.isin(alike.index)]
    if len(others):
        found.append(Problem(
            "warning", "the same patient, TIME and DVID as on a row before, with another DV: read "
            f"as replicates ({len(others)} such rows)", "", cohort.source,
            int(others["line"].iloc[0]), others["ID"].iloc[0]))
    doses = cohort.doses[cohort.doses.duplicated([n for n in cohort.doses if n != "line"])]
    if len(doses):
        found.append(Problem(
            "warning", "the same dose as on a row before: both are given "
            f"({len(doses)} such rows)", "entered twice? delete one", cohort.source,
            int(doses["line"].iloc[0]), doses["ID"].iloc[0]))
    return found


def _unfit(cohort: Cohort, structure: StructuralModel | None) -> Sequence[Problem]:
    """Patients without an observation, or everything for which the model cannot be fitted."""
    if structure is None:
        return unobserved(cohort, cohort.observations, cohort.excluded)
    try:
        design(cohort, structure)
    except DataError as refused:
        return refused.problems
    return ()


def by_dvid(units: Mapping[str, str]) -> dict[int | str, str]:
    """Units as a file states them, with each DVID a number.

    >>> by_dvid({"1": "copies/ug", "AMT": "1e6 cells"})
    {1: 'copies/ug', 'AMT': '1e6 cells'}
    """
    return {int(key) if key.isdecimal() else key: unit for key, unit in units.items()}


def _card_units(path: Path, found: list[Problem]) -> dict[int | str, str]:
    """The units of a card.toml beside the file, by DVID or column."""
    card = path.parent / "card.toml"
    try:
        units = tomllib.loads(card.read_text("utf-8")).get("units", {})
        return by_dvid({key: str(unit) for key, unit in units.items()})
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as failure:  # not UTF-8, not TOML, not a table
        found.append(Problem("error", f"cannot be read: {failure}", "correct it, or move it away",
                             str(card)))
        return {}
