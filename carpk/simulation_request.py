"""What a simulation is asked for on the command line: times, limits, sizes of errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pandas as pd

from carpk.problems import CarpkError, Problem
from carpk.structure import StructuralModel
from carpk.virtual_cohort import usual_doses, usual_times

Result = TypeVar("Result")


@dataclass(frozen=True)
class Asked:
    """A simulation as it is asked for on the command line."""

    model: str
    patients: int | None = None
    times: str | None = None
    seed: int = 0
    sets: Sequence[str] = ()
    like: str | None = None
    sigma: Sequence[str] = ()
    lloq: Sequence[str] = ()
    dvid: Sequence[int] = ()
    doses: Sequence[str] = ()
    units: Mapping[int | str, str] = field(default_factory=dict)
    out: str | None = None
    overwrite: bool = False
    effects: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)
    occasions: Sequence[str] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    donors: str | None = None
    solver: str | None = None


def noted(found: list[Problem], call: Callable[[], Result]) -> Result | None:
    """What the call returns; what it refuses is noted."""
    try:
        return call()
    except CarpkError as refused:
        found += refused.problems
        return None


def wrong_numbers(asked: Asked) -> list[Problem]:
    """What is wrong with the number of patients and the seed."""
    found = []
    if asked.patients is not None and asked.patients < 1:
        found.append(Problem("error", "must be 1 or more", column="--patients",
                             found=str(asked.patients)))
    if not 0 <= asked.seed < 2**63:
        found.append(Problem("error", "must not be negative", column="--seed",
                             found=str(asked.seed)))
    return found


def sampling_times(asked: Asked, structure: StructuralModel, doses: pd.DataFrame | None,
                   found: list[Problem]) -> list[float]:
    """The sampling times, none where the design gives them."""
    if asked.times is None:
        if asked.like is not None:
            return []
        if structure.taxonomy is None and structure.time_unit != "day":
            found.append(Problem("error", f"time is in {structure.time_unit} in {structure.name}: "
                                 "when are samples taken?", "for instance --times 0.5,1,2,4,8,24",
                                 column="--times"))
        return usual_times(structure, usual_doses(structure) if doses is None else doses)
    times = []
    for text in asked.times.split(","):
        value = _number(text)
        if value is None or not 0 <= value < math.inf:
            found.append(Problem("error", "not a time, 0 or later",
                                 "for instance --times 1,3,7,14,28", column="--times",
                                 found=text.strip()))
        else:
            times.append(value)
    return list(dict.fromkeys(times))


def by_output(option: str, texts: Iterable[str], structure: StructuralModel,
               found: list[Problem]) -> dict[str, float]:
    """A number for each output that has one: "0.3" is for all, "C=0.3" for one.

    An LLOQ must be above 0; of sigma, the value for all is under "".
    """
    names = [o.name for o in structure.outputs]
    values: dict[str, float] = {}
    for text in texts:
        name, equals, number = (part.strip() for part in text.rpartition("="))
        value = _number(number)
        if equals and name not in names:
            found.append(Problem("error", f"{structure.name} has no such output",
                                 f"it has {', '.join(names)}", column=f"--{option}", found=name))
        elif value is None or not math.isfinite(value) or value < 0 or (
                option == "lloq" and value == 0):
            found.append(Problem("error", "not a number above 0" if option == "lloq" else
                                 "not a number, 0 or above", f"for instance --{option} 0.3 or "
                                 f"--{option} {names[0]}=0.3", column=f"--{option}", found=text))
        elif equals or option == "sigma":
            values[name] = value
        else:
            values = {**dict.fromkeys(names, value), **values}
    return values


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
