"""What a request holds fixed and what it gives priors to, by the names of population parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from carpk.classes import Mixture, published_classes
from carpk.priors import Prior
from carpk.problems import Problem, RequestError, unknown
from carpk.structure import StructuralModel


@dataclass(frozen=True)
class Names:
    """The population parameters of a model before it knows its patients: `names`, and the `stems`
    of those whose levels, knots or units are the cohort's."""

    structure: StructuralModel
    mixture: Mixture | None
    names: tuple[str, ...]
    stems: tuple[str, ...]

    def meant(self, name: str) -> bool:
        """Whether a population parameter may be meant."""
        return name in self.names or name.startswith(self.stems)

    def whole(self, name: str) -> str:
        """`CL` stands for `CL_pop` in a request."""
        return f"{name}_pop" if f"{name}_pop" in self.names else name


def held_values(known: Names, fixed: Mapping[str, float | str] | Iterable[str],
                free: set[str]) -> tuple[dict[str, float], dict[str, str], list[Problem]]:
    """Fixed values, why each is fixed, and what of the request was not understood."""
    structure = known.structure
    freed = {known.whole(n) for n in free}
    found = [unknown("population parameter", n, known.names)
             for n in sorted(freed - set(known.names))]
    held = {n: v for n, v in structure.held.items() if n in known.names and n not in freed}
    values = {n: value for n, (value, _) in held.items()}
    reasons = {n: f"held at the model file's value: {why}" for n, (_, why) in held.items()}
    wanted = fixed if isinstance(fixed, Mapping) else dict.fromkeys(fixed, "published")
    for short, value in wanted.items():
        name = known.whole(short)
        if not known.meant(name):
            found.append(unknown("population parameter", name, known.names))
            continue
        number = _published(known, name) if value == "published" else _number(value)
        if number is None:
            found.append(Problem("error", "not a number, nor a value the model file gives",
                                 "write the value to hold it at", column=name,
                                 found=str(value)))
            continue
        values[name] = number
        reasons[name] = "held at the model file's value on request" \
            if value == "published" else "fixed on request"
    return values, reasons, found


def given_priors(known: Names, priors: Mapping[str, Prior | str]) \
        -> tuple[dict[str, Prior], list[Problem]]:
    """The priors a request states, and what of it was not understood."""
    given: dict[str, Prior] = {}
    found: list[Problem] = []
    for short, prior in priors.items():
        name = known.whole(short)
        if not known.meant(name):
            found.append(unknown("population parameter", name, known.names))
            continue
        try:
            given[name] = Prior.parse(prior) if isinstance(prior, str) else prior
            if given[name].family == "horseshoe":
                found.append(Problem("error", "a horseshoe is of all coefficients together",
                                     'priors = {covariates = "horseshoe"}', column=name))
        except RequestError as refused:
            found += [dataclasses.replace(p, column=name) for p in refused.problems]
    return given, found


def _number(value: float | str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _published(known: Names, name: str) -> float | None:
    structure, of_classes = known.structure, published_classes(known.structure, known.mixture)
    if name in of_classes:
        return of_classes[name]
    if name.endswith("_pop"):
        return structure.parameter(name.removesuffix("_pop")).typical
    if name.startswith("omega_"):
        omega = structure.parameter(name.removeprefix("omega_")).omega
        return omega.omega if omega else None
    return None
