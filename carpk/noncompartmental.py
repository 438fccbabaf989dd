"""Non-compartmental analysis: peak, areas, half-life and persistence of each patient, as observed.

Definitions follow Mueller KT et al. Blood 2017;130:2317-2325 (CAR T cells in blood); that paper
prints no rule for the trapezoids nor for levels below the limit, so both are options here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from carpk.cohort import Cohort, quantification_limits
from carpk.problems import Problem, RequestError

RULES = ("linear-up-log-down", "linear", "log")
BLQ = ("zero-then-missing", "half", "missing")
DAYS = (7.0, 14.0, 28.0, 84.0, 90.0)
# the visits' days and how far from them a sample may lie: ours, such that a sample of a weekly
# schedule, and of the visits at months 2, 4 and 9, belongs to no other visit
MONTHS = {"M1": (28.0, 5.0), "M3": (90.0, 21.0), "M6": (182.0, 30.0), "M12": (365.0, 60.0)}
_AS_GOOD = 1e-4  # of adjusted R2: with as good a fit, more points are taken


class Profiles(NamedTuple):
    """One output of every patient, padded to the longest: (P, N), replicates averaged.

    level is NaN on padding and, where `below`, the limit; time on padding is the patient's last.
    """

    ids: tuple[str, ...]
    time: np.ndarray
    level: np.ndarray
    below: np.ndarray

    @property
    def quantified(self) -> np.ndarray:
        """(P, N): levels that were measured."""
        return np.asarray(np.isfinite(self.level) & ~self.below)


def nca(cohort: Cohort, *, dvid: Sequence[int] | None = None, rule: str = RULES[0],
        blq: str = BLQ[0], days: Iterable[float] = DAYS,
        partial: Iterable[tuple[float, float]] = (),
        terminal: str | int | tuple[float, float] = "best", peak_from: float = 0.0,
        to_zero: bool = False, extrapolate: bool = False) -> pd.DataFrame:
    """Exposure of every patient from the samples alone, one row per patient and DVID.

    rule : of the areas: linear-up-log-down, linear, or log (linear where a level is 0)
    blq : levels below their limit are
        zero-then-missing: 0 before the first quantified level, left out after it
        half: half of the limit, everywhere
        missing: left out everywhere
        M3 is a likelihood and needs a model: fit one, and see tables/exposure.csv of its report
    days : areas from the infusion to these days; partial : (from, to) of further areas
    terminal : the points of the half-life: "best" takes the last 3 or more after the peak with
        the highest adjusted R2; a number takes the last so many; (from, to) those on these days
    peak_from : samples before this day are no peak (catheters may carry the product over)
    to_zero : in areas to a day, the first sample below the limit after Tlast counts as 0
    extrapolate : areas to a day that Tlast does not reach go on by lambda_z

    returns : ID, DVID, unit (of levels; areas are unit*day); observations, below (how many of
        them were below the limit); Cmax, Tmax (the first if tied); Clast, Tlast (the last
        quantified); Tbelow, the first sample below the limit after Tmax, and Tbql, after Tlast;
        Tend, the last sample; AUC0_7 and the like, AUClast; half_life, lambda_z,
        half_life_points, half_life_from, half_life_r2 (adjusted); AUCinf and
        AUC_extrapolated (%); C_M1, C_M3, C_M6, C_M12 and detectable_M1 ... (1 or 0): the sample
        nearest to day 28, 90, 182, 365, at most 5, 21, 30, 60 days away; note.
    What cannot be said is NaN. At time 0 the level is 0 unless a sample then says otherwise. An
    area to a day is given where Tlast reaches it, or a later sample was below the limit: then it
    ends at Tlast (half: at the last sample), which the note says.

    >>> from carpk import examples
    >>> table = nca(examples.example("tisacel_like"), days=(28, 84))
    >>> table[["ID", "Tmax", "AUC0_28"]].round(2).values[:2].tolist()
    [['1', 9.79, 263792.3], ['2', 9.64, 390231.49]]
    >>> table["note"][3]
    'AUC0_84: below the limit after day 59.49'
    """
    days, windows = tuple(float(d) for d in days), tuple(partial)
    _refuse(rule, blq, days, windows, terminal)
    there = sorted(int(d) for d in cohort.observations["DVID"].unique())
    missing = [d for d in dvid or () if d not in there]
    if missing:
        raise RequestError([Problem("error", "no observation has this DVID", "the file has "
                                    + ", ".join(map(str, there)), column="dvid", found=str(d))
                            for d in missing])
    tables = []
    for kind in dvid or there:
        rows = cohort.observations[cohort.observations["DVID"] == kind]
        profiles = profiles_of(rows, cohort.ids)
        table = pd.DataFrame({"ID": list(profiles.ids), "DVID": kind,
                              "unit": cohort.units.get(kind, "")})
        found = _endpoints(profiles, rule, blq, days, windows, terminal, peak_from, to_zero,
                           extrapolate)
        tables.append(pd.concat([table, found], axis=1))
    return pd.concat(tables, ignore_index=True)


def _refuse(rule: str, blq: str, days: Sequence[float],
            windows: Sequence[tuple[float, float]], terminal: Any) -> None:
    found = []
    if rule not in RULES:
        found.append(Problem("error", "no such rule", f"known: {', '.join(RULES)}", column="rule",
                             found=rule))
    if blq == "m3":
        found.append(Problem(
            "error", "M3 is a likelihood of levels below the limit: it needs a model",
            "fit one with carpk fit; tables/exposure.csv of its report is exposure by M3, and "
            "carpk nca FIT prints it", column="blq", found=blq))
    elif blq not in BLQ:
        found.append(Problem("error", "no such rule", f"known: {', '.join(BLQ)}, m3", column="blq",
                             found=blq))
    found += [Problem("error", "an area must end after it begins, at day 0 or later",
                      column="days" if a == 0 else "partial", found=f"{a:g} to {b:g}")
              for a, b in [*((0.0, d) for d in days), *windows] if not 0 <= a < b < math.inf]
    if not (terminal == "best" or (isinstance(terminal, int) and terminal >= 2)
            or (isinstance(terminal, tuple) and terminal[0] < terminal[1])):
        found.append(Problem("error", "not understood", 'write "best", a number of points of 2 '
                             "or more, or the first and last day", column="terminal",
                             found=str(terminal)))
    if found:
        raise RequestError(found)


def profiles_of(rows: pd.DataFrame, ids: Sequence[str]) -> Profiles:
    """The levels of one output; a level of 0 or less was not quantified.

    rows : observations of a cohort, of one DVID
    """
    codes = pd.Index(ids, dtype=object).get_indexer(rows["ID"].to_numpy(object))
    value, time = rows["DV"].to_numpy(float), rows["TIME"].to_numpy(float)
    below = (rows["CENS"].to_numpy() == 1) | (value <= 0)
    limit = quantification_limits(
        codes, np.zeros(len(rows)), time, rows["LOWER"].to_numpy(float),
        rows["UPPER"].to_numpy(float), rows["LLOQ"].to_numpy(float) if "LLOQ" in rows else None)
    # a zero that nobody flagged, in a file without a limit, stays a zero
    value = np.where(below, np.where(np.isfinite(limit), limit, 0.0), value)
    table = pd.DataFrame({"patient": codes, "time": time, "value": value, "below": below})
    # of replicates the mean of those quantified; below only where all are
    table = table[~table["below"] | table.groupby(["patient", "time"])["below"].transform("all")]
    table = table.groupby(["patient", "time"], as_index=False).agg(
        {"value": "mean", "below": "all"})
    place = table.groupby("patient").cumcount().to_numpy()
    shape = (len(ids), int(place.max()) + 1)
    at = (table["patient"].to_numpy(), place)
    level, hidden = np.full(shape, np.nan), np.zeros(shape, bool)
    level[at], hidden[at] = table["value"], table["below"]
    when = np.full(shape, np.nan)
    when[at] = table["time"]
    last = np.nanmax(when, axis=1, initial=0.0)[:, None]
    seen = [k for k in range(len(ids)) if np.isfinite(level[k]).any()]
    return Profiles(tuple(ids[k] for k in seen), np.where(np.isnan(when), last, when)[seen],
                    level[seen], hidden[seen])


def substituted(profiles: Profiles, blq: str) -> np.ndarray:
    """(..., N): the levels that areas are taken of; NaN where one is left out."""
    quantified = profiles.quantified
    level = np.where(quantified, profiles.level, np.nan)
    if blq == "half":
        return np.where(profiles.below, profiles.level / 2, level)
    if blq == "missing":
        return level
    before = np.cumsum(quantified, axis=-1) == 0
    return np.where(profiles.below & before, 0.0, level)


def area(time: np.ndarray, level: np.ndarray, start: Any, end: Any, rule: str = RULES[0]) \
        -> np.ndarray:
    """Area under levels between two times, of any number of profiles at once.

    time : (..., N), ascending; level : (..., N), NaN where there is none
    start, end : (...) or a number; what lies before the first level or after the last adds none
    returns : (...), unit of the levels times that of time

    >>> float(area(np.array([0.0, 1.0, 3.0]), np.array([0.0, 8.0, 2.0]), 0.0, 2.0, "linear"))
    10.5
    """
    shape = np.broadcast_shapes(np.shape(time), np.shape(level))
    time, level = np.broadcast_to(time, shape), np.broadcast_to(level, shape)
    total, t0, c0 = np.zeros(shape[:-1]), np.full(shape[:-1], np.nan), np.ones(shape[:-1])
    for k in range(shape[-1]):
        t1, c1 = time[..., k], level[..., k]
        there = np.isfinite(c1)
        a, b = np.maximum(start, t0), np.minimum(end, t1)
        with np.errstate(invalid="ignore"):
            counts = there & np.isfinite(t0) & (b > a)
        safe = (np.where(counts, x, y) for x, y in (
            (t0, 0.0), (c0, 1.0), (t1, 1.0), (c1, 1.0), (a, 0.0), (b, 1.0)))
        piece = _piece(rule, *safe)
        total = total + np.where(counts, piece, 0.0)
        t0, c0 = np.where(there, t1, t0), np.where(there, c1, c0)
    return total


def _piece(rule: str, t0: np.ndarray, c0: np.ndarray, t1: np.ndarray, c1: np.ndarray,
           a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area from a to b of the segment between two levels."""
    share = (c1 - c0) / (t1 - t0)
    straight = (b - a) * (c0 + share * (0.5 * (a + b) - t0))
    by_log = (c0 > 0) & (c1 > 0) & (c1 != c0)
    if rule == "linear":
        by_log &= False
    elif rule != "log":
        by_log &= c1 < c0
    slope = np.log(np.where(by_log, c1 / np.where(c0 > 0, c0, 1.0), 0.5)) / (t1 - t0)
    curved = c0 * np.exp(slope * (a - t0)) * np.expm1(slope * (b - a)) / slope
    return np.where(by_log, curved, straight)


def half_life(time: np.ndarray, level: np.ndarray, peak: float,
              terminal: str | int | tuple[float, float]) -> tuple[float, float, int, float, float]:
    """ln 2 / lambda_z, lambda_z, how many points, the first one's time, and adjusted R2.

    time, level : (n,), quantified levels only; peak : Tmax, after which the points lie

    >>> t = np.array([10.0, 20.0, 30.0, 40.0])
    >>> [round(x, 6) for x in half_life(t, 1000 * 2.0 ** (-t / 5), 10.0, "best")]
    [5.0, 0.138629, 3, 20.0, 1.0]
    """
    later = (time > peak) & (level > 0)
    t, y = time[later], np.log(level[later])
    if isinstance(terminal, tuple):
        inside = (t >= terminal[0]) & (t <= terminal[1])
        t, y = t[inside], y[inside]
        sizes: Sequence[int] = (len(t),)
    else:
        sizes = range(3, len(t) + 1) if terminal == "best" else (int(terminal),)
    fits = []
    for n in sizes:
        if not 2 <= n <= len(t):
            continue
        x, z = t[-n:] - t[-n:].mean(), y[-n:] - y[-n:].mean()
        slope = float(x @ z / (x @ x))
        # two points determine a line: nothing is left to judge it by
        r2 = 1 - (1 - float((x @ z) ** 2 / (x @ x) / max(z @ z, 1e-300))) * (n - 1) / (n - 2) \
            if n > 2 else math.nan
        if slope < 0:
            fits.append((math.log(2) / -slope, -slope, n, float(t[-n]), r2))
    if not fits:
        return math.nan, math.nan, 0, math.nan, math.nan
    best = max(f[4] for f in fits)
    return max((f for f in fits if not f[4] < best - _AS_GOOD), key=lambda f: f[2])


def _endpoints(p: Profiles, rule: str, blq: str, days: Sequence[float],
               windows: Sequence[tuple[float, float]],
               terminal: str | int | tuple[float, float], peak_from: float, to_zero: bool,
               extrapolate: bool) -> pd.DataFrame:
    """All columns after ID, DVID and unit."""
    rows = np.arange(len(p.ids))
    quantified, last = p.quantified, p.time[:, -1]
    some = quantified.any(axis=1)

    def of(values: np.ndarray, place: np.ndarray, there: Any) -> np.ndarray:
        return np.where(there, values[rows, place], np.nan)

    candidates = quantified & (p.time >= peak_from)
    at_peak = np.argmax(np.where(candidates, p.level, -np.inf), axis=1)
    peaked = candidates.any(axis=1)
    tmax = of(p.time, at_peak, peaked)
    at_last = p.time.shape[1] - 1 - np.argmax(quantified[:, ::-1], axis=1)
    tlast, clast = of(p.time, at_last, some), of(p.level, at_last, some)
    table: dict[str, Any] = {
        "observations": np.isfinite(p.level).sum(axis=1), "below": p.below.sum(axis=1),
        "Cmax": of(p.level, at_peak, peaked), "Tmax": tmax, "Clast": clast, "Tlast": tlast,
        "Tbelow": _first(p.time, p.below & (p.time > tmax[:, None])),
        "Tbql": _first(p.time, p.below & (p.time > tlast[:, None])), "Tend": last}
    notes: list[list[str]] = [[] for _ in rows]
    time, level = from_zero(p.time, substituted(p, blq))
    _, closed = from_zero(p.time, _closed(p, substituted(p, blq), tlast) if to_zero
                          else substituted(p, blq))
    decline = np.array([half_life(p.time[k][quantified[k]], p.level[k][quantified[k]], tmax[k],
                                  terminal) for k in rows]).reshape(-1, 5).T
    for a, b in [*((0.0, d) for d in days), *windows]:
        name = f"AUC{a:g}_{b:g}"
        short = some & ~(tlast >= b)
        followed = short & (last > tlast)
        table[name] = np.where(short & ~followed, np.nan, area(time, closed, a, b, rule))
        table[name] = np.where(some, table[name], np.nan)
        said = {"below the limit after": (followed, tlast), "last sample on": (
            short & ~followed, last)}
        if extrapolate:
            from_tlast = [np.exp(-decline[1] * (np.maximum(t, tlast) - tlast)) for t in (a, b)]
            beyond = clast / decline[1] * (from_tlast[0] - from_tlast[1])
            known = short & np.isfinite(beyond)
            table[name] = np.where(known, beyond + area(
                time, level, a, np.where(known, np.minimum(b, tlast), b), rule), table[name])
            said = {k: (where & ~known, day) for k, (where, day) in said.items()} | {
                "extrapolated from": (known, tlast)}
        for words, (where, at_day) in said.items():
            for k in np.flatnonzero(where):
                notes[k].append(f"{name}: {words} day {at_day[k]:g}")
    table["AUClast"] = np.where(some, area(time, level, 0.0, np.where(some, tlast, 0.0), rule),
                                np.nan)
    names = ("half_life", "lambda_z", "half_life_points", "half_life_from", "half_life_r2")
    table |= dict(zip(names, decline, strict=True))
    table["half_life_points"] = pd.array(table["half_life_points"].astype(int), dtype="Int64")
    beyond = clast / table["lambda_z"]
    table["AUCinf"] = table["AUClast"] + beyond
    table["AUC_extrapolated"] = 100 * beyond / table["AUCinf"]
    for month, (day, away) in MONTHS.items():
        distance = np.where(np.isfinite(p.level), np.abs(p.time - day), np.inf)
        at = distance.argmin(axis=1)
        sampled = distance[rows, at] <= away
        table[f"C_{month}"] = of(substituted(p, blq), at, sampled)
        table[f"detectable_{month}"] = pd.array(
            np.where(sampled, quantified[rows, at], np.nan), dtype="Float64").astype("Int64")
    for k in np.flatnonzero(~some):
        notes[k] = ["never above the limit"]
    return pd.DataFrame({**table, "note": ["; ".join(n) for n in notes]})


def from_zero(time: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times and levels (..., N + 1) that begin at time 0, with 0 where no level says otherwise."""
    there = np.isfinite(level)
    begins = np.where(there, time, np.inf).min(axis=-1, keepdims=True, initial=np.inf)
    first = np.where(begins > 0, 0.0, np.nan)
    return (np.concatenate([np.zeros((*time.shape[:-1], 1)), time], axis=-1),
            np.concatenate([first, level], axis=-1))


def _closed(p: Profiles, level: np.ndarray, tlast: np.ndarray) -> np.ndarray:
    """The levels with 0 at the first sample below the limit after Tlast."""
    late = p.below & (p.time > tlast[:, None])
    return np.where(late & (np.cumsum(late, axis=1) == 1), 0.0, level)


def _first(time: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(P,): the first of these times, NaN where there is none."""
    first = np.where(where, time, np.inf).min(axis=1)
    return np.where(np.isfinite(first), first, np.nan)
