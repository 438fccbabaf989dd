"""What a request holds fixed or gives a prior, by the names of population parameters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from carpk.classes import Mixture, published_classes
from carpk.correlated import correlations, half_fixed
from carpk.covariate_models import CovariateEffect
from carpk.earlier import Earlier, asked_earlier
from carpk.horseshoe import Horseshoe, asked_horseshoe
from carpk.priors import Prior, families
from carpk.problems import Problem, RequestError, unknown
from carpk.structure import StructuralModel

_REAL, _POSITIVE = (-math.inf, math.inf), (0.0, math.inf)
# of a large deviation: differences of a likelihood, at steps of 1e-4 of a spread, are good to 1e-4
_LEAST_SPREAD = 1e-6
DROWNS = ("a spread so near 0 that patients' deviations drown in rounding",
          "hold it at 0: patients then do not differ in it")


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

    def support(self, name: str) -> tuple[float, float]:
        """Between which numbers a population parameter lies."""
        if name.endswith("_pop"):
            link = self.structure.parameter(name.removesuffix("_pop")).link
            return {"log": _POSITIVE, "logit": (0.0, 1.0), "identity": _REAL}[link]
        powers = tuple(f"sigma_{o.name}_power" for o in self.structure.outputs)
        if name.startswith(("omega_", "gamma_", "tau_", "sigma_", "sd_")):
            return _REAL if name.startswith(powers) else _POSITIVE
        return (-1.0, 1.0) if name.startswith(("corr_", "rho_")) else _REAL


def drowns(structure: StructuralModel, name: str, value: float) -> bool:
    """Whether a spread is not 0 and yet so small that patients' deviations drown in rounding."""
    kind, _, of = name.partition("_")
    return kind in ("omega", "gamma") and \
        0.0 < value < _LEAST_SPREAD * structure.parameter(of).size


def held_values(known: Nameable, fixed: Mapping[str, float | str] | Iterable[str],
                free: set[str]) -> tuple[dict[str, float], dict[str, str], list[Problem]]:
    """Fixed values, why each is fixed, and what of the request was not understood."""
    freed = {known.whole(n) for n in free}
    found = [known.unknown(n) for n in sorted(freed - set(known.names))]
    held = {n: v for n, v in known.structure.held.items() if n in known.names and n not in freed}
    values = {n: value for n, (value, _) in held.items()}
    reasons = {n: f"held at the model file's value: {why}" for n, (_, why) in held.items()}
    wanted = fixed if isinstance(fixed, Mapping) else dict.fromkeys(fixed, "published")
    found += _named_twice(known, wanted)
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
        low, high = known.support(name)
        if drowns(known.structure, name, number):
            found.append(Problem("error", *DROWNS, column=name, found=f"{number:g}"))
            continue
        none = number == 0.0 and name.startswith(("omega_", "gamma_", "tau_"))  # no spread
        if not (low < number < high or none):
            found.append(Problem("error", "held at a value it cannot have",
                                 f"it lies between {low:g} and {high:g}", column=name,
                                 found=f"{number:g}"))
            continue
        values[name] = number
        reasons[name] = "held at the model file's value on request" \
            if value == "published" else "fixed on request"
    return values, reasons, found


def joint_priors(priors: Mapping[str, Prior | str] | str | None,
                 effects: tuple[CovariateEffect, ...]) \
        -> tuple[dict[str, Prior | str], Earlier | None, Horseshoe | None, Prior | None,
                 tuple[CovariateEffect, ...], list[Problem]]:
    """Priors by name, those of many parameters together (of an earlier fit, of coefficients, of
    correlations), the effects as they have them, and what is wrong."""
    stated: dict[str, Prior | str] = {"from": priors} if isinstance(priors, str) \
        else dict(priors or {})
    source = stated.pop("from", None)
    earlier, effects, found = asked_earlier(None if source is None else str(source), effects)
    sparse, more = asked_horseshoe(stated.pop("covariates", None))
    found += more
    joint = stated.pop("correlated", None)
    try:
        lkj = Prior.parse(joint) if isinstance(joint, str) else joint
    except RequestError as refused:
        lkj, found = None, found + [dataclasses.replace(p, column="correlated")
                                    for p in refused.problems]
    if lkj is not None and lkj.family != "lkj":
        found.append(Problem("error", "the joint prior of correlations is an LKJ",
                             'priors = {correlated = "lkj(2)"}', column="correlated",
                             found=str(lkj)))
    return stated, earlier, sparse, lkj, effects, found


def given_priors(known: Nameable, priors: Mapping[str, Prior | str]) \
        -> tuple[dict[str, Prior], list[Problem]]:
    """The priors a request states, and what of it was not understood."""
    given: dict[str, Prior] = {}
    found = _named_twice(known, priors)
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
            fit = families(*known.support(name))
            if given[name].family not in fit:
                found.append(Problem("error", "this prior has values that the parameter cannot "
                                     "have", f"these fit: {', '.join(fit)}", column=name,
                                     found=str(given[name])))
        except RequestError as refused:
            found += [dataclasses.replace(p, column=name) for p in refused.problems]
    return given, found


def asked_correlations(blocks: Sequence[tuple[str, ...]], joint: Prior | None,
                       given: Mapping[str, Prior], fixed: Mapping[str, float]) \
        -> tuple[dict[str, Prior], list[Problem]]:
    """The priors given with `joint`, the one LKJ of every block, in the places of the correlations
    that have none of their own; and what is wrong with what is asked of correlations.

    In a block of three or more a pair's own prior is of a correlation with the first parameter;
    those of the others keep LKJ's, given them (see `carpk.priors.of_partial`).
    """
    found, priors = half_fixed(blocks, fixed), dict(given)
    free = [n for block in blocks for n in correlations(block) if n not in fixed]
    found += [Problem("error", "a prior of a correlation that is not estimated",
                      "drop it, or let both parameters vary", column=n, found=str(p))
              for n, p in given.items() if n.startswith("corr_") and n not in free]
    if joint is not None:
        priors = {**dict.fromkeys(free, joint), **priors}
        if not free:
            found.append(Problem("error", "a prior of correlations, and none are estimated",
                                 "say which parameters are correlated", column="priors",
                                 found=str(joint)))
        elif all(n in given for n in free):
            found.append(Problem("error", "every correlation has a prior of its own",
                                 "drop this one, or theirs", column="priors", found=str(joint)))
    for block in (b for b in blocks if len(b) > 2):
        own = {n: priors[n] for n in correlations(block) if n in priors}
        first = [f"corr_{block[0]}_{b}" for b in block[1:]]
        found += [Problem("error", "in a block of three or more only a correlation with its first "
                          f"parameter, {block[0]}, has a prior of its own",
                          'one for all: priors = {correlated = "lkj(2)"}', column=n, found=str(p))
                  for n, p in own.items() if p.family != "lkj" and n not in first]
        sizes = {str(p) for n in correlations(block)
                 if (p := own.get(n, Prior("lkj", (2.0,)))).family == "lkj"}
        if len(sizes) > 1:
            found.append(Problem("error", "a block of three or more has one LKJ",
                                 'one for all: priors = {correlated = "lkj(2)"}',
                                 column=", ".join(own), found=", ".join(sorted(sizes))))
    return priors, found


def _named_twice(known: Nameable, stated: Iterable[str]) -> list[Problem]:
    """What is meant by its short and by its whole name, of which only one could be used."""
    names = [known.whole(n) for n in stated]
    return [Problem("error", f"stated as {n.removesuffix('_pop')} and as {n}", "drop one", column=n)
            for n in dict.fromkeys(names) if names.count(n) > 1]


def _number(value: float | str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
