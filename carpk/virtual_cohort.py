"""Patients who were never seen: who they are, when they are sampled, what is measured of them."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from carpk.cohort import (
    DOSE_COLUMNS,
    EVENT_COLUMNS,
    EXCLUDED_COLUMNS,
    NOTHING_CHANGES,
    Cohort,
    Design,
)
from carpk.problems import Problem, RequestError
from carpk.simulation import Simulated
from carpk.structure import StructuralModel
from carpk.units import same_unit

_DIGITS = 4  # of a written level: no more than an assay gives
# after the first dose, on which patients, mice and dishes are usually sampled
_DAYS: dict[str, tuple[float, ...]] = {
    "clinical": (1, 3, 7, 14, 28, 60, 90), "mouse": (1, 3, 7, 10, 14, 21, 28),
    "in_vitro": (0.25, 0.5, 1, 2, 3, 5)}
_PER_DAY = {"h": 24.0, "hour": 24.0, "min": 1440.0, "day": 1.0, "week": 1 / 7, "month": 12 / 365}


def sets_named(structure: StructuralModel, wanted: Iterable[str]) -> list[str]:
    """The titles of the parameter sets that are asked for, by title or by group.

    A group is what is left of a title without its number: "CR", or "archetype=CR", stands for
    "CR 1", "CR 2" and so on. RequestError with each that is not there.
    """
    known = list(structure.parameter_sets)
    chosen: list[str] = []
    found: list[Problem] = []
    for asked in wanted:
        word = asked if asked in known else asked.rpartition("=")[2].strip()
        named = [t for t in known if word == t] or [t for t in known if word == group(t)]
        chosen += named
        if not named:
            groups = dict.fromkeys(group(t) for t in known)
            listed = ", ".join(known if len(known) <= 12 else [*groups, f"or one of {known[0]} "
                                                               f"to {known[-1]}"])
            found.append(Problem("error", f"{structure.name} has no such parameter set",
                                 f"known: {listed}" if known else "it has only typical values",
                                 column="set", found=asked))
    if found:
        raise RequestError(found)
    return list(dict.fromkeys(chosen))


def group(title: str) -> str:
    """A parameter set's title without the number it ends with.

    >>> group("CR 12"), group("PBT138 1:20"), group("no new B cells")
    ('CR', 'PBT138', 'no new B cells')
    """
    return re.sub(r"\s+[\d:./]+$", "", title)


def standing_in(structure: StructuralModel) -> dict[str, float]:
    """The inputs that have no default, at the first parameter set's values."""
    first = next(iter(structure.parameter_sets.values()), {})
    return {i.name: first[i.name] for i in structure.inputs
            if i.default is None and i.name in first}


def doses_written(structure: StructuralModel, texts: Iterable[str]) -> pd.DataFrame:
    """Bolus doses as they are written on a command line, AMT:STATE@TIME, for one patient.

    Without STATE it is the first one, without TIME it is 0. AMT may say its unit. RequestError
    with each that is wrong.

    >>> from carpk import registry
    >>> model = registry.find_model("one_compartment_oral")
    >>> doses_written(model, ["100 mg", "50:central@24"])[["TIME", "AMT", "CMT"]].values.tolist()
    [[0.0, 100.0, 1.0], [24.0, 50.0, 2.0]]
    """
    names = [s.name for s in structure.states]
    rows: list[tuple[int, str, float, float, float, int]] = []
    found: list[Problem] = []
    for text in texts:
        given, _, time = text.partition("@")
        given, _, state = (part.strip() for part in given.partition(":"))
        amount, _, unit = given.partition(" ")
        try:
            amt, at = float(amount), float(time or 0.0)
        except ValueError:
            amt, at = math.nan, math.nan
        if not names:
            found.append(Problem("error", f"{structure.name} takes no dose", column="--dose",
                                 found=text))
        elif not (0 < amt < math.inf and 0 <= at < math.inf):
            found.append(Problem("error", "not AMT:STATE@TIME", "for instance --dose "
                                 f"100:{names[0]}@0", column="--dose", found=text))
        elif state and state not in names:
            found.append(Problem("error", f"{structure.name} has no state {state}",
                                 f"it has {', '.join(names)}", column="--dose", found=text))
        else:
            into = structure.states[names.index(state) if state else 0]
            if unit and not same_unit(unit, into.unit):
                found.append(Problem("error", f"a dose into {into.name} of {structure.name} is in "
                                     f"{into.unit}", "convert it", column="--dose", found=text))
            rows.append((0, "", at, amt, 0.0, names.index(into.name) + 1))
    if found:
        raise RequestError(found)
    return pd.DataFrame(rows, columns=list(DOSE_COLUMNS))


def usual_doses(structure: StructuralModel) -> pd.DataFrame:
    """The doses a model file says its patients usually get, for one patient.

    >>> from carpk import registry
    >>> usual_doses(registry.find_model("one_compartment_oral"))[["TIME", "AMT", "CMT"]]
       TIME    AMT  CMT
    0   0.0  100.0    1
    """
    names = [s.name for s in structure.states]
    return pd.DataFrame([(0, "", d.at, d.amount, d.over, names.index(d.state) + 1)
                         for d in structure.doses], columns=list(DOSE_COLUMNS))


def doses_said(structure: StructuralModel, doses: pd.DataFrame) -> str:
    """The doses of one patient in words.

    >>> from carpk import registry
    >>> model = registry.find_model("one_compartment_oral")
    >>> doses_said(model, usual_doses(model))
    '100 mg into depot at 0'
    """
    rows = [(structure.states[int(d.CMT) - 1], d) for d in doses.itertuples()]
    return ", ".join(f"{d.AMT:g} {s.unit} into {s.name} at {d.TIME:g}" for s, d in rows)


def usual_times(structure: StructuralModel, doses: pd.DataFrame) -> list[float]:
    """When such data are usually sampled, counted from the first of one patient's doses.

    >>> from carpk import registry
    >>> model = registry.find_model("stein_2019")
    >>> usual_times(model, usual_doses(model))
    [1.0, 3.0, 7.0, 14.0, 28.0, 60.0, 90.0]
    """
    settings = structure.taxonomy.setting if structure.taxonomy else ()
    days = max((_DAYS[s] for s in settings), key=max, default=_DAYS["clinical"])
    if structure.taxonomy is None and structure.time_unit == "h":  # a drug, not cells
        days = tuple(h / 24 for h in (0.5, 1, 2, 4, 8, 12, 24))
    first = float(doses["TIME"].min()) if len(doses) else 0.0
    return [first + day * per_day(structure) for day in days]


def per_day(structure: StructuralModel) -> float:
    """How many of a model's units of time make a day; 1 where the unit is not one of them.

    >>> from carpk import registry
    >>> per_day(registry.find_model("one_compartment_oral"))
    24.0
    """
    return _PER_DAY.get(structure.time_unit, 1.0)


def each(doses: pd.DataFrame, ids: Iterable[str]) -> pd.DataFrame:
    """The same doses for every patient."""
    return pd.concat([doses.assign(ID=i) for i in ids], ignore_index=True)


def planned(samples: pd.DataFrame, covariates: pd.DataFrame, doses: pd.DataFrame | None = None,
            source: str = "simulated", changing: pd.DataFrame = NOTHING_CHANGES) -> Cohort:
    """A cohort before anything is measured: every level is still unknown.

    samples : ID, TIME, DVID, and line where it orders rows at one time
    covariates : index ID, one row per patient, inputs among them; doses : as in a Cohort
    changing : as in a Cohort
    Lines are numbered anew in the order of patients, time and line; a change comes first, then a
    dose.
    """
    doses = pd.DataFrame(columns=list(DOSE_COLUMNS)) if doses is None else doses
    place = {patient: k for k, patient in enumerate(covariates.index)}
    both = pd.concat([doses.assign(dose=True, **({} if "line" in samples else {"line": 0})),
                      samples.assign(dose=False, **({} if "line" in samples else {"line": 1}))]
                     if len(doses) else [samples.assign(dose=False, line=samples.get("line", 1))],
                     ignore_index=True)
    changed = changing if "line" in samples else changing.assign(
        line=np.arange(-len(changing), 0))  # before all at the same time
    both = pd.concat([both, changed.assign(dose=2)], ignore_index=True) if len(changing) else both
    both = both.assign(place=both["ID"].map(place)).sort_values(
        ["place", "TIME", "line", "dose"], ascending=[True, True, True, False], kind="stable")
    both["line"] = np.arange(2, len(both) + 2)
    changing = both.loc[both["dose"] == 2, [*changing]].reset_index(drop=True) \
        if len(changing) else changing
    both = both[both["dose"] != 2]
    seen = both[~both["dose"].astype(bool)].assign(DV=1.0, LOWER=1.0, UPPER=1.0, CENS=0)
    given = both[both["dose"].astype(bool)]
    columns = [*DOSE_COLUMNS, *(n for n in EVENT_COLUMNS if n in doses)]
    return Cohort(
        tuple(covariates.index),
        seen[["line", "ID", "TIME", "DVID", "DV", "LOWER", "UPPER", "CENS"]].astype(
            {"DVID": int}).reset_index(drop=True),
        given[columns].fillna(EVENT_COLUMNS).reset_index(drop=True) if len(doses) else doses,
        covariates,
        pd.DataFrame(columns=list(EXCLUDED_COLUMNS)), source, "", changing=changing,
        varying={n: () for n in changing.columns[3:]})


def enrolled(structure: StructuralModel, patients: int | None, times: Sequence[float],
             sets: Sequence[str] = (), like: Cohort | None = None, dvid: Sequence[int] = (),
             seed: int = 0, more: pd.DataFrame | None = None) \
        -> tuple[Cohort, dict[str, np.ndarray]]:
    """A planned cohort, and the patients' own typical values where they come from sets.

    patients : how many; as many as in `like` (or 100) where None
    times : when each is sampled, every output (of `dvid`); with none, as in `like`
    sets : titles of parameter sets, dealt out evenly; an input of `like` stands above theirs
    like : a design whose patients are followed in turn: samples, doses, covariates
    more : doses that every patient is given besides those of `like`; with neither, the usual ones
    returns : the cohort, and {parameter: (P,), natural scale}
    """
    count = patients or (len(like.ids) if like else 100)
    ids = like.ids if like and count == len(like.ids) else \
        tuple(str(k + 1) for k in range(count))
    table = pd.DataFrame(index=pd.Index(ids, name="ID", dtype=object))
    follows = np.arange(count) % len(like.ids) if like else np.zeros(count, dtype=int)
    if like is not None:
        table = like.covariates.iloc[follows].set_axis(table.index)
    titles = [sets[k] for k in np.random.default_rng(seed).permutation(count) % len(sets)] \
        if sets else []
    values = [structure.parameter_sets[t] for t in titles]
    spare = standing_in(structure)
    for needed in structure.inputs:
        default = needed.default if needed.default is not None else spare.get(needed.name)
        own = pd.Series([v.get(needed.name, default) for v in values] or [default] * count,
                        index=table.index, dtype=float)
        if needed.name in table:
            table[needed.name] = table[needed.name].where(table[needed.name].notna(), own)
        elif np.isfinite(own).any():
            table[needed.name] = own.where(np.isfinite(own))
    if len(sets) > 1:
        table["SET"] = titles
    wanted = [o.dvid for o in structure.outputs if not dvid or o.dvid in dvid]
    if len(times) or like is None:
        samples = pd.DataFrame(
            [(i, t, d) for i in ids for t in sorted(times) for d in wanted],
            columns=["ID", "TIME", "DVID"])
    else:
        rows = like.observations[like.observations["DVID"].isin(wanted)]
        samples = _followed(rows[["line", "ID", "TIME", "DVID"]], like, ids, follows)
    doses = _followed(like.doses, like, ids, follows) if like is not None else None
    changing = NOTHING_CHANGES if like is None or not like.varying else _followed(
        like.changing[["line", "ID", "TIME", *like.varying]], like, ids, follows)
    if more is None and like is None:
        more = usual_doses(structure)
    if more is not None and len(more):
        doses = pd.concat([t for t in (doses, each(more, ids)) if t is not None and len(t)],
                          ignore_index=True)
    varying = {p.name: np.array([v[p.name] for v in values]) for p in structure.parameters
               if values and p.name in values[0]}
    return planned(samples, table, doses, changing=changing), varying


def resampled(cohort: Cohort, donors: Cohort, seed: int) -> Cohort:
    """The cohort with the covariates of other patients: of each a whole row, drawn with
    replacement, so that covariates go together as they do there. What a patient lacks stays as it
    was.

    >>> from carpk import examples, registry
    >>> few, _ = enrolled(registry.find_model("stein_2019"), 20, [1.0, 7.0])
    >>> sorted(set(resampled(few, examples.example("tisacel_like"), 1).covariates["RESPONSE"]))
    ['CR', 'NR']
    """
    rows = np.random.default_rng([seed, 3]).integers(len(donors.ids), size=len(cohort.ids))
    drawn = donors.covariates.iloc[rows].set_axis(cohort.covariates.index)
    table = cohort.covariates.assign(**{n: drawn[n].where(
        drawn[n].notna(), cohort.covariates[n]) if n in cohort.covariates else drawn[n]
        for n in drawn})
    return dataclasses.replace(cohort, covariates=table)


def measured(cohort: Cohort, structure: StructuralModel, seen: Design, drawn: Simulated,
             limits: Mapping[str, float]) -> tuple[Cohort, tuple[Problem, ...]]:
    """The cohort with its simulated levels, and what a user should know of them.

    limits : {output: LLOQ}; levels below it are censored at it
    A level that failed to solve, or of 0 where the output is fitted on the log scale, is left
    out and said.
    """
    at = pd.Series(drawn.dv[seen.observed], index=seen.line[seen.observed])
    rows = cohort.observations
    rows = rows.assign(DV=rows["line"].map(at))
    rows = rows[rows["line"].isin(at.index)]  # not those that are the model's input
    warnings, kept = [], np.ones(len(rows), dtype=bool)
    for output in structure.outputs:
        mine = (rows["DVID"] == output.dvid).to_numpy()
        dv, limit = rows["DV"].to_numpy(), limits.get(output.name, math.nan)
        failed = mine & ~np.isfinite(dv)
        none = mine & (dv <= 1e-280) & output.positive & math.isnan(limit)
        kept &= ~(failed | none)
        if mine.any() and not dv[mine & ~failed].any():
            warnings.append(Problem(
                "warning", f"{output.name} is 0 in every patient: {output.meaning}",
                "does it need a dose? --dose AMT:STATE@TIME, or rows with AMT in a --design"))
        for where, wrong, remedy in (
                (failed, "could not be solved and are left out", "try other --times"),
                (none, "are 0, which has no logarithm, and are left out",
                 f"a limit censors low levels: --lloq {output.name}=...")):
            if where.any():
                warnings.append(Problem("warning", f"{where.sum()} levels of {output.name} {wrong}",
                                        remedy))
        fine = dv[mine & kept]
        low = fine[fine > 0].min(initial=math.inf)
        if math.isnan(limit) and fine.size and low < 1e-6 * fine.max():
            warnings.append(Problem(
                "warning", f"{output.name} falls to {low:.2g} {output.unit}, below what is "
                "measured", f"a limit censors such levels: --lloq {output.name}=..."))
    rows = rows[kept]
    limit = rows["DVID"].map({o.dvid: limits.get(o.name, -math.inf) for o in structure.outputs})
    below = (rows["DV"] < limit).to_numpy()
    dv = np.array([float(f"{v:.{_DIGITS}g}") for v in np.where(below, limit, rows["DV"])])
    rows = rows.assign(DV=dv, LOWER=np.where(below, -np.inf, dv), UPPER=dv,
                       CENS=below.astype(int)).reset_index(drop=True)
    return dataclasses.replace(cohort, observations=rows), tuple(warnings)


def _followed(rows: pd.DataFrame, like: Cohort, ids: tuple[str, ...], follows: np.ndarray) \
        -> pd.DataFrame:
    """The rows of each patient's model in `like`, under the patient's own ID."""
    by_id = dict(list(rows.groupby("ID", sort=False)))
    tables = [by_id[of].assign(ID=own) for own, of in
              zip(ids, (like.ids[k] for k in follows), strict=True) if of in by_id]
    return pd.concat(tables, ignore_index=True) if tables else rows.iloc[:0]
