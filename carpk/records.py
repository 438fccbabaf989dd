"""The rows of a CSV under our column names, and what is wrong with them so far."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from carpk.csvfile import MISSING, TextTable, matching, to_numbers
from carpk.problems import Problem

REQUIRED = {"ID": ("SUBJECT", "SUBJ", "SUBJID", "PATIENT", "USUBJID"),  # and what it may be called
            "TIME": ("DAY", "DAYS", "T", "TAD"), "DV": ("Y", "CONC", "OBS", "VALUE", "LEVEL")}
RESERVED = (*REQUIRED, "DVID", "MDV", "EVID", "AMT", "RATE", "CMT", "CENS", "LLOQ", "LIMIT",
            "ADDL", "II", "SS")

Severity = Literal["error", "warning"]

_BEYOND = re.compile(r"[<>].*|b\.?l\.?q\.?l?|b\.?q\.?l|b?ll?o[qd]|below.*|nd|undetect.*",
                     re.IGNORECASE | re.DOTALL)
_LARGEST_CODE = 1e9  # larger whole numbers are mistakes, and the largest are no int64


class Records:
    """The rows of a file under our column names, and what is wrong with them so far.

    line, ids : (row,) the line of the file and the patient, "" where no patient is named
    bad : (row,) rows with an error; they take no part in comparisons between rows
    unread : (row,) lines that are no data at all; nothing more is said about their cells
    """

    def __init__(self, table: TextTable, columns: Mapping[str, str]) -> None:
        self.file, self.line, self.problems = table.file, table.line, list(table.warnings)
        self.texts = _named(table, columns, self.problems)
        self.blank = np.full(len(self.line), "", dtype=object)
        self._numbers: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.unread = np.zeros(len(self.line), dtype=bool)
        self.bad = np.full(len(self.line), not set(REQUIRED) <= set(self.texts))
        codes, distinct = pd.factorize(self.texts.get("ID", self.blank))
        # R and spreadsheets write patient 7 as 7.0 once the column was a number
        short = ["" if t in MISSING else re.sub(r"^(\d+)\.0+$", r"\1", t) for t in distinct]
        self.ids = np.array(short, dtype=object)[codes]
        self._check_lines(table)

    def has(self, name: str) -> bool:
        """Whether the file has this column."""
        return name in self.texts

    def missing(self, name: str) -> np.ndarray:
        """Where the file gives no value; everywhere if it has no such column."""
        return matching(self.texts.get(name, self.blank), MISSING.__contains__)

    def numbers(self, name: str, where: np.ndarray | bool = True) -> np.ndarray:
        """The column as finite numbers, else NaN; what is no number `where` it counts is refused.
        """
        values, wrong = self._parsed(name)
        words = np.zeros_like(wrong)
        if name == "DV" and (where & wrong).any():
            words = wrong & matching(self.texts[name], _BEYOND.fullmatch)
        self.refuse(where & words, name, "a level beyond the limit is written as a number",
                    "below: set CENS=1, and LLOQ to the limit; above: CENS=-1, DV the limit")
        self.refuse(where & wrong & ~words, name, "not a number",
                    "days after the infusion, such as 14.5" if name == "TIME" else
                    "write it with a decimal point; if missing, leave it empty")
        self.refuse(where & np.isinf(values), name, "infinite", "correct the value")
        return np.where(np.isinf(values), np.nan, values)

    def codes(self, name: str, where: np.ndarray, default: int,
              allowed: Sequence[int] = ()) -> np.ndarray:
        """The column as whole numbers, of `allowed` if given; the default where it is missing
        and where it is refused."""
        values = self.numbers(name, where)
        fine = np.isin(values, allowed) if allowed else (
            (values == np.round(values)) & (np.abs(values) < _LARGEST_CODE))
        self.refuse(where & ~fine & ~np.isnan(values), name,
                    f"must be {', '.join(map(str, allowed[:-1]))} or {allowed[-1]}" if allowed
                    else "must be a whole number", "correct the value")
        return np.where(fine, values, default).astype(np.int64)

    def refuse(self, where: np.ndarray, column: str | None, wrong: str, remedy: str = "") -> None:
        """An error for each of these rows."""
        self._note("error", where, column, wrong, remedy)
        self.bad |= where

    def warn(self, where: np.ndarray, column: str, wrong: str, remedy: str = "") -> None:
        """A warning for each of these rows."""
        self._note("warning", where, column, wrong, remedy)

    def warn_once(self, where: np.ndarray, column: str, wrong: str, remedy: str = "") -> None:
        """One warning for all of these rows, placed at the first."""
        where = where & ~self.unread
        count = f" ({where.sum()} such rows)" if where.sum() > 1 else ""
        self._note("warning", where & (np.cumsum(where) == 1), column, wrong + count, remedy)

    def sound(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table whose index counts our rows, without the bad ones, numbered anew."""
        return table[~self.bad[table.index]].reset_index(drop=True)

    def _parsed(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        if name not in self._numbers:
            self._numbers[name] = to_numbers(self.texts.get(name, self.blank))
        return self._numbers[name]

    def _note(self, severity: Severity, where: np.ndarray, column: str | None, wrong: str,
              remedy: str) -> None:
        texts = self.texts.get(column or "", self.blank)
        self.problems += [
            Problem(severity, wrong, remedy, self.file, int(self.line[k]), self.ids[k] or None,
                    column, texts[k][:40] or None)
            for k in np.flatnonzero(where & ~self.unread)]

    def _check_lines(self, table: TextTable) -> None:
        """Comments, units, a second header, rows of another length, rows without a patient."""
        first = table.columns[0]
        commented = matching(first, re.compile("#").match)
        by_letter = matching(first, re.compile(r"[Cc]\s*\d*").fullmatch)
        # patients may be called C1, C2, C3: a comment only if all others are numbers
        if not by_letter.all() and not to_numbers(first[~by_letter])[1].any():
            commented |= by_letter
        again = np.logical_and.reduce([column == name for name, column in
                                       zip(table.names, table.columns, strict=True)])
        words = (np.arange(len(first)) == 0) & ~commented
        for name in ("TIME", "DV"):
            words &= self._parsed(name)[1]
        for where, wrong, remedy in (
                (commented, "a comment line is not data", "delete it"),
                (again, "the header again", "delete the line"),
                (words, "this looks like a line of units, not of data", "delete the line"),
                *((table.fields == n, f"{n} fields, but the header has {table.width}",
                   "a value left out, or a decimal comma between commas?")
                  for n in np.unique(table.fields[table.fields != table.width]))):
            self.refuse(where, None, wrong, remedy)
            self.unread |= where
        if self.has("ID"):
            self.refuse(self.ids == "", "ID", "no patient is named", "write the patient's number")
        if not len(first):
            self.problems.append(Problem("error", "the file has a header and no rows",
                                         file=self.file))


def _named(table: TextTable, columns: Mapping[str, str], problems: list[Problem]) \
        -> dict[str, np.ndarray]:
    """The columns under our names: as mapped, else under their own, reserved ones in capitals."""
    asked = {k.upper() if k.upper() in RESERVED else k: v for k, v in columns.items()}
    held = dict(zip(table.names, table.columns, strict=True))
    listed = ", ".join([*held][:12]) + (", ..." if len(held) > 12 else "")

    def note(severity: Severity, column: str, wrong: str, remedy: str) -> None:
        problems.append(Problem(severity, wrong, remedy, table.file, 1, column=column))

    for name in sorted({n for n in held if table.names.count(n) > 1}):
        note("error", name, "two columns have this name", "rename or delete one of them")
    if not to_numbers(np.array(table.names, dtype=object))[1].any():
        note("error", "header", "the first line holds numbers, not the names of columns",
             "write the names above them")
    for ours, theirs in asked.items():
        if theirs not in held:
            near = difflib.get_close_matches(theirs, held, n=2)
            note("error", theirs, f"to be read as {ours}, but the file has no such column",
                 f"did you mean {' or '.join(near)}?" if near else f"it has {listed}")
    texts = {ours: held[theirs] for ours, theirs in asked.items() if theirs in held}
    taken = set(asked.values())
    for ours in (name for name in RESERVED if name not in asked):
        same = [n for n in held if n.upper() == ours and n not in taken]
        same = [ours] if ours in same else same
        taken.update(same)
        if len(same) == 1:
            texts[ours] = held[same[0]]
        elif same:
            note("error", ours, f"{' and '.join(same)} may both be meant",
                 f"say which: --column {ours}={same[0]}")
        elif ours in REQUIRED:
            near = [n for n in held if n.upper() in REQUIRED[ours]]
            near = near or difflib.get_close_matches(ours, held, n=1, cutoff=0.7)
            note("error", ours, "there is no such column",
                 f"is it {near[0]}? then say --column {ours}={near[0]}" if near else
                 f"name the one that holds it, --column {ours}=YOURS; the file has {listed}")
    for name in (n for n in held if n not in taken):
        ours = name.upper() if name.upper() in RESERVED else name
        if ours in asked:
            note("warning", name, f"not read, since {asked[ours]} is read as {ours}", "")
        else:
            texts[name] = held[name]
    return texts
