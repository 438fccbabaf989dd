"""Curves without a fit: the typical patient of each parameter set, and simulated patients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from carpk.cohort import Design, design
from carpk.solve import Arrays, arrays, predict
from carpk.structure import Solver, StructuralModel
from carpk.virtual_cohort import each, planned, standing_in

Run = TypeVar("Run")

# tried in turn until two agree; what each costs is mostly its compilation
MESHES: dict[str, tuple[tuple[Solver, int], ...]] = {
    "auto": (("tsit5", 500), ("tsit5", 2000), ("rodas4", 500), ("rodas4", 2000), ("tsit5", 8000)),
    "tsit5": (("tsit5", 500), ("tsit5", 2000), ("tsit5", 8000)),
    "rodas4": (("rodas4", 250), ("rodas4", 500), ("rodas4", 2000), ("rodas4", 8000))}
TOLERANCE = 0.01  # on the log scale: finer than a line over any number of decades
_DAYS = {"clinical": 360.0, "mouse": 60.0, "in_vitro": 7.0}  # how long such data are followed
_PER_DAY = {"h": 24.0, "hour": 24.0, "min": 1440.0, "day": 1.0, "week": 1 / 7, "month": 12 / 365}
_TEST_DOSE = 100.0


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
    doses : of one patient, as in a Cohort; every set is given them. A model at rest without
        any is given 100 units into its first state.

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
    given = None if doses is None or not len(doses) else each(doses, ids)
    seen = design(planned(sample, inputs, given), structure)
    values = {p.name: np.array([v[p.name] for v in sets.values()]) for p in structure.parameters}
    (paths, moved), note = curves(structure, seen, values, time), ""
    if structure.states and not any(p.any() for p in paths.values()):
        first, one = structure.states[0], np.zeros((len(ids), 1))
        seen = dataclasses.replace(
            seen, dose_time=one, dose_amount=one + _TEST_DOSE, dose_duration=one,
            dose_state=one.astype(np.int64), dose_line=one.astype(np.int64))
        paths, moved = curves(structure, seen, values, time)
        note = f"after {_TEST_DOSE:g} {first.unit} into {first.name}, a dose of convenience"
    elif given is not None:
        note = "after " + ", ".join(
            f"{d.AMT:g} {(s := structure.states[int(d.CMT) - 1]).unit} into {s.name} at {d.TIME:g}"
            for d in given[given["ID"] == ids[0]].itertuples())
    resting = [n for n, p in paths.items() if not p.any()]
    if resting:
        note += f"{'; ' if note else ''}{', '.join(resting)} 0 without a dose"
    below = [o.name for o in structure.outputs if o.error == "lognormal"
             and (p := paths[o.name]).min() < -1e-6 * np.abs(p).max()]
    if below:
        note += f"{'; ' if note else ''}NOT TO BE TRUSTED: {', '.join(below)} falls below 0"
    if moved > 5 * TOLERANCE:  # more than a line's width
        note += f"{'; ' if note else ''}SOLVED COARSELY, not to be trusted: meshes differ by " \
            f"{moved:.2g} in the logarithm"
    return Trajectories(ids, time, paths, note)


def grid(end: float, points: int = 301) -> np.ndarray:
    """(points,), from 0 to the end; denser in its first days where the end is weeks away."""
    return end * np.linspace(0.0, 1.0, points) ** (2.5 if end > 40 else 1.0)


def curves(structure: StructuralModel, seen: Design, values: Mapping[str, np.ndarray],
           time: np.ndarray, mesh: tuple[Solver, int] | None = None) \
        -> tuple[dict[str, np.ndarray], float]:
    """{output: (P, T)}: the patients of a design, with its doses and inputs, at any times.

    values : each parameter as (P,); mesh : method and steps, found where None
    Also how far the last mesh tried moved the curves, on the log scale; 0 where it is given.
    """
    outputs, each = structure.outputs, len(time)
    shape = (len(seen.ids), len(outputs) * each)
    asked = dataclasses.replace(
        seen, time=np.broadcast_to(np.tile(time, len(outputs)), shape), lower=np.ones(shape),
        upper=np.ones(shape), observed=np.ones(shape, dtype=bool),
        output=np.broadcast_to(np.repeat(np.arange(len(outputs)), each), shape),
        line=np.full(shape, np.iinfo(np.int64).max))  # read after a dose at the same time
    own = {n: jnp.asarray(v, dtype=float) for n, v in values.items()}

    def run(solved: StructuralModel, steps: int) -> np.ndarray:
        @jax.jit
        def solve(values: Arrays, data: Arrays) -> jax.Array:
            return predict(solved, data, values)
        return np.asarray(solve(own, arrays(asked, solved, steps)))

    if mesh:
        paths, moved = run(by(structure, mesh), mesh[1]), 0.0
    else:
        paths, _, moved = settled(structure, run, lambda y: y, asked.output)
    return {o.name: paths[:, k * each:(k + 1) * each] for k, o in enumerate(outputs)}, moved


def settled(structure: StructuralModel, run: Callable[[StructuralModel, int], Run],
            levels: Callable[[Run], np.ndarray], output: np.ndarray) \
        -> tuple[Run, tuple[Solver, int], float]:
    """A run with a method and mesh that are good enough: which, and how far the last one moved it.

    run : called with the model, its solver said, and steps; levels : its (P, N) levels
    output : (P, N), whose level each is
    Compared on the log scale; levels below a millionth of the output's highest are left out.
    """
    meshes = MESHES[structure.solver]
    mesh, moved = meshes[0], 0.0
    here = run(by(structure, mesh), mesh[1])
    for mesh in meshes[1:] if structure.states else ():
        before, here = here, run(by(structure, mesh), mesh[1])
        moved = _moved(levels(before), levels(here), output)
        if moved <= TOLERANCE:
            break
    return here, mesh, moved


def by(structure: StructuralModel, mesh: tuple[Solver, int]) -> StructuralModel:
    """The model with the method of a mesh."""
    return dataclasses.replace(structure, solver=mesh[0]) if structure.states else structure


def _moved(before: np.ndarray, after: np.ndarray, output: np.ndarray) -> float:
    """The largest change on the log scale; infinite where a solve failed."""
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return np.inf
    size = np.array([np.abs(after[output == k]).max(initial=0.0) for k in range(output.max() + 1)])
    floor = 1e-6 * np.where(size > 0, size, 1.0)[output]
    return float(np.abs(np.log((np.abs(after) + floor) / (np.abs(before) + floor))).max())


def _horizon(structure: StructuralModel) -> float:
    setting = structure.taxonomy.setting if structure.taxonomy else ("in_vitro",)
    days = max((_DAYS[s] for s in setting), default=_DAYS["clinical"])
    if structure.taxonomy is None and structure.time_unit == "h":
        days = 1.0
    return days * _PER_DAY.get(structure.time_unit, 1.0)
