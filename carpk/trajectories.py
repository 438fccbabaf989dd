"""Curves without a fit: the typical patient of each parameter set, and simulated patients."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from carpk.accuracy import Mesh, Meshes, solved
from carpk.cohort import Design, design
from carpk.epochs import Epochs
from carpk.structure import StructuralModel
from carpk.virtual_cohort import (
    doses_said,
    each,
    per_day,
    planned,
    standing_in,
    usual_doses,
)

_DAYS = {"clinical": 360.0, "mouse": 60.0, "in_vitro": 7.0}  # how long such data are followed


@dataclass(frozen=True, eq=False)
class Trajectories:
    """The typical patient of each parameter set.

    titles : of the S sets; time : (T,); values : {output: (S, T)}, unit of the output
    note : what was assumed to draw them
    """

    titles: tuple[str, ...]
    time: np.ndarray
    values: dict[str, np.ndarray]
    note: str = ""


def typical(structure: StructuralModel, until: float | None = None,
            doses: pd.DataFrame | None = None) -> Trajectories:
    """Each parameter set's trajectory, without spread between patients or residual error.

    until : end of the time axis; as long as such data are followed where None
    doses : of one patient, as in a Cohort, for every set; the usual ones where None

    >>> from carpk import registry
    >>> paths = typical(registry.find_model("stein_2019"), until=28)
    >>> paths.titles, bool(9 < paths.time[paths.values["C"].argmax()] < 9.6)
    (('typical values',), True)
    """
    spare = standing_in(structure)
    own = {"typical values": {**structure.typical, **spare}}
    sets = {title: {**own["typical values"], **v} for title, v in
            structure.parameter_sets.items()}
    base = own["typical values"]
    if not any(all(v[n] == base[n] for n in base) for v in sets.values()):
        sets = {**own, **sets}
    end = until if until is not None else _horizon(structure)
    time = grid(end)
    ids = tuple(sets)
    inputs = pd.DataFrame(
        {i.name: [v.get(i.name, i.default) for v in sets.values()] for i in structure.inputs},
        index=pd.Index(ids, name="ID", dtype=object))
    sample = pd.DataFrame({"ID": list(ids), "TIME": end, "DVID": structure.outputs[0].dvid})
    given = usual_doses(structure) if doses is None else doses
    seen = design(planned(sample, inputs, each(given, ids)), structure)
    values = {p.name: np.array([v[p.name] for v in sets.values()]) for p in structure.parameters}
    paths, moved = curves(structure, seen, values, time)
    note = f"after {doses_said(structure, given)}" if len(given) else ""
    resting = [n for n, p in paths.items() if not p.any()]
    if resting:
        note += f"{'; ' if note else ''}{', '.join(resting)} 0 without a dose"
    below = [o.name for o in structure.outputs if o.positive
             and (p := paths[o.name]).min() < -1e-6 * np.abs(p).max()]
    if below:
        note += f"{'; ' if note else ''}NOT TO BE TRUSTED: {', '.join(below)} falls below 0"
    if moved > 0.05:  # more than a line's width
        note += f"{'; ' if note else ''}SOLVED COARSELY, not to be trusted: meshes differ by " \
            f"{moved:.2g} in the logarithm"
    return Trajectories(ids, time, paths, note)


def grid(end: float, points: int = 301) -> np.ndarray:
    """(points,), from 0 to the end; denser in its first days where the end is weeks away."""
    return end * np.linspace(0.0, 1.0, points) ** (2.5 if end > 40 else 1.0)


def curves(structure: StructuralModel, seen: Design, values: Mapping[str, np.ndarray],
           time: np.ndarray, mesh: Mesh | Meshes | None = None, epochs: Epochs | None = None,
           changing: Sequence[str] = ()) \
        -> tuple[dict[str, np.ndarray], float]:
    """{output: (P, T)}: the patients of a design, with its doses and inputs, at any times.

    values : each parameter as (P,); mesh : method and steps, found where None
    epochs, changing : as in `carpk.accuracy.solved`
    Also how far the last mesh tried moved the curves, on the log scale; 0 where it is given.
    """
    outputs, each = structure.outputs, len(time)
    shape = (len(seen.ids), len(outputs) * each)
    asked = dataclasses.replace(
        seen, time=np.broadcast_to(np.tile(time, len(outputs)), shape), lower=np.ones(shape),
        upper=np.ones(shape), observed=np.ones(shape, dtype=bool),
        output=np.broadcast_to(np.repeat(np.arange(len(outputs)), each), shape),
        line=np.full(shape, np.iinfo(np.int64).max))  # read after a dose at the same time
    paths, _, moved = solved(structure, asked, values, mesh, epochs, changing)
    return {o.name: paths[:, k * each:(k + 1) * each] for k, o in enumerate(outputs)}, moved


def _horizon(structure: StructuralModel) -> float:
    setting = structure.taxonomy.setting if structure.taxonomy else ("in_vitro",)
    days = max((_DAYS[s] for s in setting), default=_DAYS["clinical"])
    if structure.taxonomy is None and structure.time_unit == "h":
        days = 1.0
    return days * per_day(structure)
