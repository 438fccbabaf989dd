"""Epochs: the stretches of a patient's time between the changes of what changes in it.

A rule says what a column is between the rows that give it a value:

    locf    a row's value holds from the row until the next row with one
    nocb    a row's value holds since the row before with one (as NONMEM reads its $INPUT)
    linear  the value goes straight from row to row
    window  on and off: a row's value holds from the row until the next with another one, and what
            no row says is off: before the first row with a value, and after the patient's last row

Before the first row with a value the first three take that one, after the last they keep the last.
A row's own observation and dose always have the row's own value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd

from carpk.cohort import Design

Arrays = dict[str, Any]

RULES = ("locf", "nocb", "linear", "window")
OCCASION = "OCC"  # the column that numbers a patient's occasions
OFF = "off"  # a window of words where no row says it is on; one of numbers is 0 there
# of a linear stretch, in each of which a parameter goes straight: where the covariate's effect
# doubles it between two rows it is off by 9e-4 at most, and exact at the rows
_PIECES = 8
_BEGINNING = (-math.inf, -math.inf)

Key = tuple[float, float]  # time, and the line of the file that counts from there on


@dataclass(frozen=True, eq=False)
class Epochs:
    """Of P patients E epochs each, padded with ones that never begin.

    start, line : (P, E), the time each begins at, and the line of the row that begins it
    first, last : a row for each patient and epoch in turn, (P E) rows: each column as the epoch
        begins and ends; NaN or None for a patient whom no row gives a value
    sloping : whether a column changes within epochs
    """

    start: np.ndarray
    line: np.ndarray
    first: pd.DataFrame
    last: pd.DataFrame
    sloping: bool

    def at(self, time: np.ndarray, line: np.ndarray) -> np.ndarray:
        """(P, N): the epoch that each row lies in; time, line : (P, N)."""
        begun = (self.start[:, None, :] < time[:, :, None]) | (
            (self.start[:, None, :] == time[:, :, None])
            & (self.line[:, None, :] <= line[:, :, None]))
        return np.asarray(begun.sum(axis=2) - 1)

    def lasting(self) -> np.ndarray:
        """(P, E): those that do begin."""
        return self.start < np.inf


class Held(NamedTuple):
    """What an epoch makes of the parameters that change: values, or both ends of a slope."""

    values: Arrays
    begin: Any
    length: Any


def held(p: Arrays, epochs: Arrays, k: Any) -> Held:
    """One patient's changing parameters in epoch k; p : scalars, (E,) or, sloping, (E, 2)."""
    return Held({n: x[k] for n, x in p.items() if jnp.ndim(x)}, epochs["begin"][k],
                epochs["length"][k])


def at_time(p: Arrays, own: Held | None, t: Any) -> Arrays:
    """One patient's parameters at a time of an epoch."""
    if own is None:
        return p
    share = jnp.clip((t - own.begin) / own.length, 0.0, 1.0)
    return {**p, **{n: x[0] + (x[1] - x[0]) * share if jnp.ndim(x) else x
                    for n, x in own.values.items()}}


def begun(epochs: Arrays, t: Any) -> Any:
    """One patient's epoch at a time, all rows of that time read."""
    return jnp.searchsorted(epochs["start"], t, side="right") - 1


def timeline(epochs: Epochs, design: Design, closed_form: bool) -> Arrays:
    """What a compiled program reads of epochs, each (P, ...).

    start, begin, length (P, E); seen (P, N), each observation's epoch; since (P, N), of a closed
    form: when an observation's course began, from which its time is counted
    """
    start = epochs.start
    end = np.concatenate([start[:, 1:], np.full((len(start), 1), np.inf)], axis=1)
    sound = np.isfinite(start) & np.isfinite(end) & (end > start)
    data: Arrays = {
        "start": start, "begin": np.where(np.isfinite(start), start, 0.0),
        "length": np.where(sound, np.where(sound, end, 1.0) - np.where(sound, start, 0.0), 1.0),
        "seen": epochs.at(design.time, design.line)}
    if closed_form:
        data["since"], data["seen"] = courses(design, epochs)
    return data


def courses(design: Design, epochs: Epochs) -> tuple[np.ndarray, np.ndarray]:
    """(P, N): when the course of each observation began, and the epoch that was then.

    A course begins at time 0, all rows of which are read, and at each reset.
    """
    none = np.full((len(design.ids), 1), math.inf)
    resets = design.dose_events["EVID"] > 2 if design.dose_events \
        else np.zeros(design.dose_time.shape, dtype=bool)
    time = np.concatenate([np.zeros_like(none), design.dose_time], axis=1)
    line = np.concatenate([none, design.dose_line], axis=1)
    before = np.concatenate([none > 0, resets], axis=1)[:, None, :] & (
        (time[:, None, :] < design.time[:, :, None]) | (
            (time[:, None, :] == design.time[:, :, None])
            & (line[:, None, :] < design.line[:, :, None])))
    before[:, :, 0] = True
    last = np.where(before, np.arange(time.shape[1]), 0).max(axis=2)
    return (np.take_along_axis(time, last, axis=1),
            np.take_along_axis(epochs.at(time, line), last, axis=1))


def epochs_between(changing: pd.DataFrame, ids: Sequence[str], rules: Mapping[str, str]) -> Epochs:
    """The epochs of patients by the rules of columns.

    changing : line, ID, TIME and the columns, a row for each of the file's, in its order

    >>> rows = pd.DataFrame({"line": [2, 3, 4], "ID": "1", "TIME": [0.0, 7.0, 9.0],
    ...                      "WT": [70.0, 80.0, np.nan], "STEROID": [np.nan, 1.0, 1.0]})
    >>> found = epochs_between(rows, ["1"], {"WT": "locf", "STEROID": "window"})
    >>> found.start.tolist(), found.first["STEROID"].tolist(), found.first["WT"].tolist()
    ([[-inf, 7.0, 9.0]], [0.0, 1.0, 0.0], [70.0, 80.0, 80.0])
    """
    by_id = dict(list(changing.groupby("ID", sort=False)))
    each = [_of_patient(by_id.get(i, changing.iloc[:0]), rules) for i in ids]
    most = max((len(keys) for keys, _, _ in each), default=1)
    start, line = (np.full((len(ids), most), np.inf) for _ in range(2))
    tables: tuple[dict[str, list[Any]], ...] = tuple({c: [] for c in rules} for _ in range(2))
    for k, (keys, *ends) in enumerate(each):
        start[k, :len(keys)], line[k, :len(keys)] = zip(*keys, strict=True)
        for table, values in zip(tables, ends, strict=True):
            for c in rules:
                table[c] += [*values[c], *[values[c][-1]] * (most - len(keys))]
    first, last = (pd.DataFrame({c: pd.Series(v, dtype=changing[c].dtype)
                                 for c, v in t.items()}) for t in tables)
    return Epochs(start, line, first, last, "linear" in rules.values())


def _of_patient(rows: pd.DataFrame, rules: Mapping[str, str]) \
        -> tuple[list[Key], dict[str, list[Any]], dict[str, list[Any]]]:
    """Where a patient's epochs begin, and each column as they begin and as they end."""
    parts = {c: _parts(rows, c, rule) for c, rule in rules.items()}
    keys = sorted({k for part in parts.values() for k, _, _ in part})
    ends = [*(k[0] for k in keys[1:]), math.inf]
    first: dict[str, list[Any]] = {}
    last: dict[str, list[Any]] = {}
    for column, part in parts.items():
        begin = [k for k, _, _ in part]
        mine = [max(j for j, b in enumerate(begin) if b <= key) for key in keys]
        stop = [*(k[0] for k in begin[1:]), math.inf]
        first[column], last[column] = (
            [_between(part[j], stop[j], t) for j, t in zip(mine, times, strict=True)]
            for times in ([k[0] for k in keys], ends))
    kept = [k for k in range(len(keys)) if k == 0 or any(
        v[k] != v[k - 1] or v[k] != last[c][k - 1] or last[c][k] != v[k]
        for c, v in first.items())]
    return ([keys[k] for k in kept], {c: [v[k] for k in kept] for c, v in first.items()},
            {c: [v[k] for k in kept] for c, v in last.items()})


def _between(part: tuple[Key, Any, Any], stop: float, t: float) -> Any:
    """The value of a part at a time."""
    (begin, _), value, end = part
    if end is None or not math.isfinite(begin) or not stop > begin:
        return value
    return value + (end - value) * min(max((t - begin) / (stop - begin), 0.0), 1.0)


def _parts(rows: pd.DataFrame, column: str, rule: str) -> list[tuple[Key, Any, Any]]:
    """Where each value of a column begins, and where it goes to if it slopes."""
    keys: list[Key] = list(zip(rows["TIME"].astype(float), rows["line"].astype(float),
                               strict=True))
    words = not pd.api.types.is_numeric_dtype(rows[column])
    there = [(k, v) for k, v in enumerate(rows[column]) if not pd.isna(v)]
    off: Any = OFF if words else 0.0
    if rule == "window":
        return [(_BEGINNING, off, None), *((keys[k], v, None) for k, v in there),
                *([(_after(keys[-1]), off, None)] if there else [])]
    if not there:
        return [(_BEGINNING, None if words else math.nan, None)]
    if rule == "nocb":
        begins = [_BEGINNING, *(_after(keys[k]) for k, _ in there[:-1])]
        return [(b, v, None) for b, (_, v) in zip(begins, there, strict=True)]
    if rule == "locf":
        begins = [_BEGINNING, *(keys[k] for k, _ in there[1:])]
        return [(b, v, None) for b, (_, v) in zip(begins, there, strict=True)]
    parts: list[tuple[Key, Any, Any]] = [(_BEGINNING, there[0][1], None)]
    for (k, v), (j, w) in pairwise(there):
        pieces = _PIECES if v != w and keys[j][0] > keys[k][0] else 1
        for n in range(pieces):
            at = keys[k][0] + (keys[j][0] - keys[k][0]) * n / pieces
            parts.append(((at, keys[k][1] if n == 0 else -math.inf),
                          v + (w - v) * n / pieces, v + (w - v) * (n + 1) / pieces))
    return [*parts, (keys[there[-1][0]], there[-1][1], None)]


def _after(key: Key) -> Key:
    """Just after a row."""
    return key[0], key[1] + 0.5
