"""The doses and resets among the rows of a CSV, with what they repeat, as NONMEM reads them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from carpk.cohort import DOSE_COLUMNS, EVENT_COLUMNS
from carpk.records import Records

_MOST = 10_000  # further doses of a row: more are a mistake


def doses_in(rows: Records, time: np.ndarray) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """The table of doses and resets, which rows are observations, and which another event.

    The doses that ADDL adds stand in the table as their own rows, with the line of the row that
    adds them, up to the next reset: that ends them.
    """
    unsaid = rows.missing("EVID")
    evid = rows.codes("EVID", ~unsaid, -1, allowed=(0, 1, 2, 3, 4))
    amt = rows.numbers("AMT")
    dose = np.isin(evid, (1, 4)) | (unsaid & (amt > 0))
    reset, other = evid == 3, evid == 2
    seen = (evid == 0) | (unsaid & ~dose)
    for where, wrong, remedy in (
            (seen, "an observation holds no dose", "a dose? set EVID=1 and AMT above 0; else "
             "AMT=0"),
            (other, "another event (EVID=2) holds no dose", "a dose? set EVID=1; else AMT=0"),
            (reset, "a reset (EVID=3) holds no dose", "one that is given with it? set EVID=4")):
        rows.refuse(where & (amt != 0) & ~np.isnan(amt), "AMT", wrong, remedy)
    rows.refuse((dose | reset) & (time < 0), "TIME", "a dose or reset before time zero",
                "time zero is the infusion: shift the patient's times")
    _check_dv(rows, dose, unsaid)
    for name in ("ADDL", "II", "SS"):
        value = rows.numbers(name)
        rows.refuse(~dose & (value != 0) & ~np.isnan(value), name, "only a dose is repeated",
                    "a dose? set EVID=1 and AMT above 0; else leave it empty")
    steady = rows.codes("SS", dose, 0, allowed=(0, 1, 2))
    rate = np.nan_to_num(rows.numbers("RATE", dose))
    constant = (steady == 1) & (amt == 0) & ((rate > 0) | (rate == -1))
    rows.refuse(dose & rows.missing("AMT"), "AMT", "a dose without an amount",
                "give AMT; no dose? set EVID=0 and MDV=1")
    rows.refuse(dose & (amt <= 0) & ~constant, "AMT", "the amount of a dose must be above 0",
                "no dose? set EVID=0 and MDV=1; an infusion in steady state until now? set SS=1 "
                "and RATE")
    rows.refuse(dose & (rate < 0) & ~np.isin(rate, (-1, -2)), "RATE", "a rate cannot be negative",
                "give the rate, or 0 for a bolus; -1 is the model's own rate, -2 its duration")
    with np.errstate(all="ignore"):  # of rows that are refused
        duration = np.where((rate > 0) & ~constant, amt / rate, 0.0)
    rows.refuse(dose & np.isinf(duration), "RATE", "AMT / RATE is infinite", "correct the value")
    more, interval = _repeats(rows, dose & ((amt > 0) | constant), steady, constant)
    table = pd.DataFrame({
        "line": rows.line, "ID": rows.ids, "TIME": time, "AMT": np.where(reset, 0.0, amt),
        "DURATION": duration, "CMT": np.where(reset, 1, rows.codes("CMT", dose, 1)),
        "EVID": np.where(evid > 2, evid, 1), "SS": steady,
        "II": np.where((steady > 0) & ~constant, interval, 0.0),
        "RATE": np.where((rate < 0) | constant, rate, 0.0)})
    resets = reset | (evid == 4) | (dose & (steady == 1))
    table = _repeated(table, dose, reset, resets, more, interval)
    plain = (table["EVID"] == 1) & (table["SS"] == 0) & (table["RATE"] == 0)
    return table[list(DOSE_COLUMNS if plain.all() else (*DOSE_COLUMNS, *EVENT_COLUMNS))], \
        seen, other


def _check_dv(rows: Records, dose: np.ndarray, unsaid: np.ndarray) -> None:
    dv = rows.numbers("DV", False)
    held = dose & (dv != 0) & ~np.isnan(dv) & (rows.numbers("MDV", False) != 1)
    rows.refuse(held & unsaid, "DV", "a row with AMT is a dose, and this one holds a DV too",
                "write two rows: the dose (EVID=1) and the observation (EVID=0, AMT=0)")
    rows.warn_once(held & ~unsaid, "DV", "the row is a dose: its DV is not read")


def _repeats(rows: Records, dose: np.ndarray, steady: np.ndarray, constant: np.ndarray) \
        -> tuple[np.ndarray, np.ndarray]:
    """How many further doses each row adds, and the time between them."""
    more, interval = rows.codes("ADDL", dose, 0), np.nan_to_num(rows.numbers("II", dose))
    rows.refuse(dose & (more < 0), "ADDL", "the number of further doses cannot be negative",
                "correct the value; 0 or empty for none")
    rows.refuse(dose & (more > _MOST), "ADDL", f"more than {_MOST} further doses",
                "correct the value")
    rows.refuse(dose & (interval < 0), "II", "the time between doses cannot be negative",
                "correct the value")
    repeated = ((more > 0) | (steady > 0)) & ~constant
    rows.refuse(dose & repeated & (interval == 0), "II",
                "further doses (ADDL) or a steady state (SS) need the time between doses",
                "give it in II")
    wrong = dose & constant & ((interval != 0) | (more != 0))
    rows.refuse(wrong, "II", "an infusion in steady state until now (SS=1, AMT=0) is one dose: "
                "it has no II and no ADDL", "set both to 0; infusions that are repeated? give AMT")
    rows.warn_once(dose & ~repeated & ~constant & (interval > 0), "II",
                   "not read: the row repeats no dose (no ADDL, no SS)")
    return more, interval


def _repeated(table: pd.DataFrame, dose: np.ndarray, reset: np.ndarray, resets: np.ndarray,
              more: np.ndarray, interval: np.ndarray) -> pd.DataFrame:
    """The rows of doses and resets, and after each dose its further ones, in the order of time."""
    times = np.where(dose & (interval > 0) & (more <= _MOST), np.maximum(more, 0), 0)
    which = np.repeat(np.arange(len(table)), np.where(dose | reset, 1 + times, 0))
    n = np.arange(len(which)) - np.searchsorted(which, which)  # of the row's doses, 0 its own
    # the next reset of the same patient ends what the row repeats
    place = np.append(np.flatnonzero(resets), len(table))
    ends = place[np.searchsorted(place[:-1], which, side="right")]
    ids, time = np.array([*table["ID"], ""], dtype=object), np.append(table["TIME"], np.inf)
    at = time[which] + n * interval[which]
    until = np.where(ids[ends] == ids[which], time[ends], np.inf)
    kept = (n == 0) | (at < until)
    which, n, at = which[kept], n[kept], at[kept]
    later = n > 0
    given = table.iloc[which].assign(TIME=at)
    given["EVID"] = given["EVID"].mask(later, 1)
    given["SS"], given["II"] = given["SS"].mask(later, 0), given["II"].mask(later, 0.0)
    patient = pd.factorize(given["ID"])[0]
    return given.iloc[np.lexsort((given["line"], given["TIME"], patient))]
