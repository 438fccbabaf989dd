"""What a request holds fixed or gives a prior, by the names of population parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from carpk.classes import Mixture, published_classes
from carpk.covariate_models import CovariateEffect
from carpk.earlier import Earlier, asked_earlier
from carpk.horseshoe import Horseshoe, asked_horseshoe
from carpk.priors import Prior
from carpk.problems import Problem, RequestError, unknown
from carpk.structure import StructuralModel


@dataclass(frozen=True)
class Nameable:
    """The population parameters that a request may name: `names`, and what begins with one of
    `stems`, which levels and knots of a cohort complete."""

    structure: StructuralModel
    mixture: Mixture | None
    names: tuple[str, ...]
    stems: tuple[str, ...]

    def whole(self, name: str) -> str:
        """`CL` stands for `CL_pop` in a request."""
        return f"{name}_pop" if f"{name}_pop" in self.names else name

    def holds(self, name: str) -> bool:
        """Whether a population parameter may be meant."""
        return name in self.names or name.startswith(self.stems)

    def unknown(self, name: str) -> Problem:
        """An error for a name that is not there."""
        open_ended = [f"{s}..." for s in self.stems if not any(n.startswith(s) for n in self.names)]
        return unknown("population parameter", name, [*self.names, *open_ended])

    def published(self, name: str) -> float | None:
        """The value that the model file gives."""
        of_classes = published_classes(self.structure, self.mixture)
        if name in of_classes:
            return of_classes[name]
        if name.endswith("_pop"):
            return self.structure.parameter(name.removesuffix("_pop")).typical
        if name.startswith("omega_"):
            omega = self.structure.parameter(name.removeprefix("omega_")).omega
            return omega.omega if omega else None
        return None


def held_values(known: Nameable, fixed: Mapping[str, float | str] | Iterable[str],
                free: set[str]) -> tuple[dict[str, float], dict[str, str], list[Problem]]:
    """Fixed values, why each is fixed, and what of the request was not understood."""
    freed = {known.whole(n) for n in free}
    found = [known.unknown(n) for n in sorted(freed - set(known.names))]
    held = {n: v for n, v in known.structure.held.items() if n in known.names and n not in freed}
    values = {n: value for n, (value, _) in held.items()}
    reasons = {n: f"held at the model file's value: {why}" for n, (_, why) in held.items()}
    wanted = fixed if isinstance(fixed, Mapping) else dict.fromkeys(fixed, "published")
    for short, value in wanted.items():
        name = known.whole(short)
        if not known.holds(name):
            found.append(known.unknown(name))
            continue
        number = known.published(name) if value == "published" else _number(value)
        if number is None:
            found.append(Problem("error", "not a number, nor a value the model file gives",
                                 "write the value to hold it at", column=name,
                                 found=str(value)))
            continue
        values[name] = number
        reasons[name] = "held at the model file's value on request" \
            if value == "published" else "fixed on request"
    return values, reasons, found


def joint_priors(priors: Mapping[str, Prior | str] | str | None,
                 effects: tuple[CovariateEffect, ...]) \
        -> tuple[dict[str, Prior | str], Earlier | None, Horseshoe | None,
                 tuple[CovariateEffect, ...], list[Problem]]:
    """Priors by name, those of many parameters together, the effects as the latter have them, and
    what is wrong."""
    stated: dict[str, Prior | str] = {"from": priors} if isinstance(priors, str) \
        else dict(priors or {})
    source = stated.pop("from", None)
    earlier, effects, found = asked_earlier(None if source is None else str(source), effects)
    sparse, more = asked_horseshoe(stated.pop("covariates", None))
    return stated, earlier, sparse, effects, found + more


def given_priors(known: Nameable, priors: Mapping[str, Prior | str]) \
        -> tuple[dict[str, Prior], list[Problem]]:
    """The priors a request states, and what of it was not understood."""
    given: dict[str, Prior] = {}
    found: list[Problem] = []
    for short, prior in priors.items():
        name = known.whole(short)
        if not known.holds(name):
            found.append(known.unknown(name))
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
