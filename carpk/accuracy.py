"""Meshes that are fine enough: tried in turn until two of them agree, patient by patient."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from carpk.cohort import Design
from carpk.dosing import moments
from carpk.epochs import Epochs
from carpk.round_sizes import rounded
from carpk.solve import arrays, predict
from carpk.structure import Solver, StructuralModel

Mesh = tuple[Solver, int]
Meshes = tuple[Mesh, ...]  # each patient's

def _doubled(method: Solver, first: int, last: int) -> tuple[Mesh, ...]:
    return tuple((method, n) for n in (15, 30, 60, 120, 240, 480, 960, 1920, 3840, 7680)
                 if first <= n <= last)


# what is tried in turn. A simulation is solved once, and its few extreme patients on finer meshes;
# where a step is dear, meshes are nearer. A fit solves all patients on one mesh again and again.
# diffrax chooses its own steps: nodes between doses and samples only make it begin anew
MESHES: dict[str, dict[str, tuple[Mesh, ...]]] = {
    "simulate": {
        "auto": (("tsit5", 500), ("tsit5", 2000), ("rodas4", 500), ("rodas4", 2000),
                 ("rodas4", 8000), ("tsit5", 8000)),  # where not what is stiff asks for steps
        "tsit5": (("tsit5", 500), ("tsit5", 2000), ("tsit5", 8000)),
        "rodas4": (("rodas4", 250), *(("rodas4", 1000 << k) for k in range(5))),
        "diffrax_tsit5": (("diffrax_tsit5", 1), ("diffrax_tsit5", 4)),
        "diffrax_kvaerno5": (("diffrax_kvaerno5", 1), ("diffrax_kvaerno5", 4))},
    "fit": {
        "auto": (*_doubled("tsit5", 15, 960), *_doubled("rodas4", 120, 7680),
                 *_doubled("tsit5", 1920, 3840)),
        "tsit5": _doubled("tsit5", 15, 3840),
        "rodas4": _doubled("rodas4", 120, 7680),
        "diffrax_tsit5": (("diffrax_tsit5", 1), ("diffrax_tsit5", 2)),
        "diffrax_kvaerno5": (("diffrax_kvaerno5", 1), ("diffrax_kvaerno5", 2))}}
ROOM = {500: 2000, 250: 1000, 1: 4}  # what a mesh costs is mostly its compilation: two share one
_PIECE = 100  # patients: fewer are not worth a thread of their own
TOLERANCE, _WANTED = 1e-3, 1e-4  # of ln level: what a user is warned of; what is aimed at


class Solved(NamedTuple):
    """Predictions of a whole design.

    predicted : (P, N), unit of each row's output; mesh : the method and steps of each patient
    moved : how far the last mesh tried moved any of them, see `apart`; 0 where nothing was tried
    """

    predicted: np.ndarray
    mesh: Meshes
    moved: float


def solved(structure: StructuralModel, design: Design, values: Mapping[str, np.ndarray],
           mesh: Mesh | Meshes | None = None, epochs: Epochs | None = None,
           changing: Sequence[str] = ()) -> Solved:
    """A design's predictions, on a mesh that is fine enough for each patient in it.

    values : each parameter as (P,), natural scale; mesh : the one, or each patient's, to use
    instead of looking
    epochs : of the parameters `changing` in a patient, whose values are (P, E) or (P, E, 2)

    A patient whom two meshes in turn hardly move (`_settled`) is done; the few extreme ones alone
    are solved on finer ones. Where no two agree the two that differ least are taken.
    """
    run = runner(structure, design, values, epochs, changing)
    patients = len(design.ids)
    if mesh or not structure.states:
        each = meshes_of(mesh or ("tsit5", 1), patients)
        return Solved(on_each(run, each, design.output.shape), each, 0.0)
    first, *finer = MESHES["simulate"][structure.solver]
    before = run(first, room=ROOM.get(first[1], 0))
    best, meshes = before.copy(), np.full(patients, 0)
    least, left = np.full(patients, np.inf), np.arange(patients)
    for k, (last, tried) in enumerate(pairwise((first, *finer)), 1):
        after = before.copy()
        after[left] = run(tried, left, ROOM.get(tried[1], 0))
        moved = apart(before, after, design.output)
        nearer = left[moved[left] <= least[left]]
        best[nearer], least[nearer], meshes[nearer] = after[nearer], moved[nearer], k
        left, before = left[moved[left] > _settled(last, tried)], after
        if not len(left):
            break
    return Solved(best, tuple((first, *finer)[k] for k in meshes), float(least.max()))


def _settled(coarse: Mesh, fine: Mesh) -> float:
    """How near two meshes bring a patient whom the finer one has within `_WANTED`, were the error
    no better than proportional to a step; mostly it is a tenth or a hundredth of that."""
    return _WANTED * ((fine[1] / coarse[1] if coarse[0] == fine[0] else 4.0) - 1.0)


def meshes_of(mesh: Mesh | Meshes, patients: int) -> Meshes:
    """Each patient's mesh, where there may be one for all."""
    return (mesh,) * patients if isinstance(mesh[0], str) else mesh


def on_each(run: Callable[..., np.ndarray], meshes: Meshes, shape: tuple[int, int]) -> np.ndarray:
    """Every patient's predictions on the patient's own mesh; the meshes are solved side by side,
    for the few extreme patients of one leave a core idle."""
    predicted = np.empty(shape)
    groups = {mesh: np.flatnonzero([m == mesh for m in meshes]) for mesh in dict.fromkeys(meshes)}
    with ThreadPoolExecutor(max(len(groups), 1)) as pool:
        for who, levels in zip(groups.values(), pool.map(run, groups, groups.values()),
                               strict=True):
            predicted[who] = levels
    return predicted


def runner(structure: StructuralModel, design: Design, values: Mapping[str, np.ndarray],
           epochs: Epochs | None = None, changing: Sequence[str] = ()) \
        -> Callable[..., np.ndarray]:
    """run(mesh, who=all, room=0) -> predictions of patients of a design, 0 where nothing is
    observed; who : their places

    Large cohorts are solved in as many pieces as there are cores, side by side. What was compiled
    for a mesh serves every later run of its shape.
    """
    own = {n: np.asarray(v, dtype=float) for n, v in values.items()}
    everyone, least = np.arange(len(design.ids)), moments(design).time.shape[1]
    programs: dict[tuple[Solver, int, int], Callable[..., jax.Array]] = {}

    def run(mesh: Mesh, who: np.ndarray = everyone, room: int = 0) -> np.ndarray:
        method, steps = mesh
        pieces = min(os.cpu_count() or 1, max(1, len(who) // _PIECE))
        size = -(-len(who) // pieces)
        # so that another number of patients shares the program
        size = rounded(size) if len(who) == len(everyone) else 1 << (size - 1).bit_length()
        places = [who[np.minimum(np.arange(k * size, (k + 1) * size), len(who) - 1)]
                  for k in range(pieces)]

        def part(p: np.ndarray) -> tuple[Any, Any]:
            some = {n: jnp.asarray(v[p]) for n, v in own.items()}
            if epochs is None:
                return some, arrays(_some(design, p), structure, steps, room, least=least)
            whole = arrays(design, structure, steps, room, epochs, changing)
            return some, jax.tree.map(lambda x: x[p], whole)

        parts = [part(p) for p in places]
        key = (method, max(steps, room), size)
        if key not in programs:
            programs[key] = jax.jit(lambda values, data: predict(
                by(structure, (method, 0)), data, values)).lower(*parts[0]).compile()
        with ThreadPoolExecutor(pieces) as pool:
            solved = list(pool.map(lambda part: np.asarray(programs[key](*part)), parts))
        return np.where(design.observed[who], np.concatenate(solved)[:len(who)], 0.0)

    return run


def _some(design: Design, who: np.ndarray) -> Design:
    """The patients in these places; one may stand in several."""
    arrays = {f.name: value[who] for f in dataclasses.fields(design)
              if isinstance(value := getattr(design, f.name), np.ndarray)}
    return dataclasses.replace(
        design, ids=tuple(design.ids[k] for k in who), **arrays,
        inputs={n: v[who] for n, v in design.inputs.items()},
        dose_events={n: v[who] for n, v in design.dose_events.items()})


def chosen_mesh(meshes: Sequence[Mesh], moved: np.ndarray, tolerance: float) \
        -> tuple[Mesh, np.ndarray]:
    """The first mesh that the next one moves no patient from by more than the tolerance; where
    there is none, the finer of the two that differ least. And who decided it: (P,).

    moved : (M - 1, P), how far each of the M meshes is from the next, infinite where a solve
        failed. A patient whom no two meshes bring within the tolerance decides nothing, so that
        one set of absurd parameters does not choose the mesh of a cohort; if that is so of all,
        those who were solved at all decide.
    """
    decide = np.asarray((moved <= tolerance).any(axis=0))
    if not decide.any():
        decide = np.asarray(np.isfinite(moved).any(axis=0))
    if not decide.any():
        return meshes[-1], decide
    furthest = moved[:, decide].max(axis=1)
    k = int(np.argmax(furthest <= tolerance))
    if furthest[k] <= tolerance:
        return meshes[k], decide
    return meshes[int(np.argmin(furthest)) + 1], decide


def by(structure: StructuralModel, mesh: Mesh) -> StructuralModel:
    """The model with the method of a mesh."""
    return dataclasses.replace(structure, solver=mesh[0]) if structure.states else structure


def apart(before: np.ndarray, after: np.ndarray, output: np.ndarray) -> np.ndarray:
    """(P,), each patient's largest difference on the log scale; infinite where a solve failed.

    before, after, output : (P, N), two solutions and which output each level is of
    A millionth of the output's highest level is added to both: less is nothing.
    """
    whole = np.isfinite(before).all(axis=1) & np.isfinite(after).all(axis=1)
    a, b = (np.where(whole[:, None], np.abs(v), 0.0) for v in (before, after))
    size = np.array([b[output == k].max(initial=0.0) for k in range(output.max() + 1)])
    floor = 1e-6 * np.where(size > 0, size, 1.0)[output]
    return np.where(whole, np.abs(np.log((b + floor) / (a + floor))).max(axis=1), np.inf)
