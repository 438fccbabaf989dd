"""Meshes that are fine enough: tried in turn until two of them agree."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from carpk.cohort import Design
from carpk.epochs import Epochs
from carpk.solve import arrays, predict
from carpk.structure import Solver, StructuralModel

Run = TypeVar("Run")
Mesh = tuple[Solver, int]

MESHES: dict[str, tuple[Mesh, ...]] = {
    "auto": (("tsit5", 500), ("tsit5", 2000), ("rodas4", 500), ("rodas4", 2000), ("rodas4", 8000),
             ("tsit5", 8000)),  # where it is not what is stiff that asks for steps
    "tsit5": (("tsit5", 500), ("tsit5", 2000), ("tsit5", 8000)),
    "rodas4": (("rodas4", 250), ("rodas4", 1000), ("rodas4", 4000), ("rodas4", 16000))}
ROOM = {500: 2000, 250: 1000}  # what a mesh costs is mostly its compilation: two share one
_PIECE = 100  # patients: fewer are not worth a thread of their own
# of ln level; the finer of two meshes with 4 times the steps is then a hundred times nearer
TOLERANCE = 1e-3


class Solved(NamedTuple):
    """Predictions of a whole design.

    predicted : (P, N), unit of each row's output; mesh : the method and steps they are from
    moved : how far the last mesh tried moved them, see `apart`; 0 where nothing was tried
    """

    predicted: np.ndarray
    mesh: Mesh
    moved: float


def solved(structure: StructuralModel, design: Design, values: Mapping[str, np.ndarray],
           mesh: Mesh | None = None, epochs: Epochs | None = None,
           changing: Sequence[str] = ()) -> Solved:
    """A design's predictions, on a mesh that is fine enough for every patient in it.

    values : each parameter as (P,), natural scale; mesh : the one to use instead of looking
    epochs : of the parameters `changing` in a patient, whose values are (P, E) or (P, E, 2)
    """
    run = runner(structure, design, values, epochs, changing)
    if mesh or not structure.states:
        chosen = mesh or ("tsit5", 1)
        return Solved(run(chosen), chosen, 0.0)
    _, (mesh, predicted), moved = agreeing(
        MESHES[structure.solver], lambda m: run(m, ROOM.get(m[1], 0)),
        lambda a, b: apart(a, b, design.output), TOLERANCE)
    return Solved(predicted, mesh, moved)


def runner(structure: StructuralModel, design: Design, values: Mapping[str, np.ndarray],
           epochs: Epochs | None = None, changing: Sequence[str] = ()) \
        -> Callable[..., np.ndarray]:
    """run(mesh, room=0) -> (P, N) predictions of a design, 0 where nothing is observed.

    Large cohorts are solved in as many pieces as there are cores, side by side. What was compiled
    for a mesh serves every later run of its shape.
    """
    own = {n: jnp.asarray(v, dtype=float) for n, v in values.items()}
    patients = len(design.ids)
    pieces = min(os.cpu_count() or 1, max(1, patients // _PIECE))
    size = -(-patients // pieces)
    places = [np.minimum(np.arange(k * size, (k + 1) * size), patients - 1) for k in range(pieces)]
    programs: dict[tuple[Solver, int], Callable[..., jax.Array]] = {}

    def run(mesh: Mesh, room: int = 0) -> np.ndarray:
        method, steps = mesh
        whole = (own, arrays(design, structure, steps, room, epochs, changing))
        parts = [jax.tree.map(lambda x, p=p: x[p], whole) for p in places]
        key = (method, max(steps, room))
        if key not in programs:
            programs[key] = jax.jit(lambda values, data: predict(
                by(structure, (method, 0)), data, values)).lower(*parts[0]).compile()
        with ThreadPoolExecutor(pieces) as pool:
            solved = list(pool.map(lambda part: np.asarray(programs[key](*part)), parts))
        return np.where(design.observed, np.concatenate(solved)[:patients], 0.0)

    return run


def agreeing(meshes: Iterable[Mesh], run: Callable[[Mesh], Run],
             differ: Callable[[Run, Run], float], tolerance: float) \
        -> tuple[tuple[Mesh, Run], tuple[Mesh, Run], float]:
    """The first two meshes in turn whose runs differ by no more than the tolerance, the runs, and
    by how much they differ; where none do, the two that differ least, the last ones if all fail."""
    before, *finer = meshes
    earlier = later = (before, run(before))
    best = (earlier, later, np.inf)
    for mesh in finer:
        earlier, later = later, (mesh, run(mesh))
        difference = differ(earlier[1], later[1])  # infinite where a solve failed
        if difference <= best[2]:
            best = (earlier, later, difference)
        if difference <= tolerance:
            break
    return best


def by(structure: StructuralModel, mesh: Mesh) -> StructuralModel:
    """The model with the method of a mesh."""
    return dataclasses.replace(structure, solver=mesh[0]) if structure.states else structure


def apart(before: np.ndarray, after: np.ndarray, output: np.ndarray) -> float:
    """The largest difference on the log scale; infinite where a solve failed.

    before, after, output : (P, N), two solutions and which output each level is of
    A millionth of the output's highest level is added to both: less is nothing.
    """
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return np.inf
    size = np.array([np.abs(after[output == k]).max(initial=0.0) for k in range(output.max() + 1)])
    floor = 1e-6 * np.where(size > 0, size, 1.0)[output]
    return float(np.abs(np.log((np.abs(after) + floor) / (np.abs(before) + floor))).max())
