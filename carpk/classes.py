"""Latent classes of patients, responders and non-responders: what tells them apart, their shares.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from carpk.priors import LINKS, Prior
from carpk.problems import Problem
from carpk.structure import StructuralModel

_APART = 0.75  # SD of ln delta: classes a factor of e apart, from 1.3 to 77 within 95 %
_EACH = 2.0  # of the shares' Dirichlet prior: above 1, so that no class is empty


@dataclass(frozen=True, slots=True)
class Mixture:
    """`count` classes of patients that differ in the typical values of `parameters`.

    `X_pop` is of class 1; `delta_X_k` is how far X of class k lies above that of class k - 1, on
    the link scale. Of the first parameter it is above 0: classes are numbered in its rising
    order, without which their labels could change places. `share_k` is the share of the
    patients in class k; class 1 has the rest.

    >>> Mixture(2, ("Cmax", "alpha")).names
    ('delta_Cmax_2', 'delta_alpha_2', 'share_2')
    """

    count: int
    parameters: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Its population parameters."""
        return (*(n for p in self.parameters for n in self.deltas(p)), *self.share_names)

    @property
    def share_names(self) -> tuple[str, ...]:
        """The shares of all classes but the first."""
        return tuple(f"share_{k}" for k in self._further)

    @property
    def written(self) -> str:
        """As it is asked for."""
        return f"{self.count}: {', '.join(self.parameters)}"

    @property
    def _further(self) -> range:
        return range(2, self.count + 1)

    def deltas(self, parameter: str) -> tuple[str, ...]:
        """The names of one parameter's differences."""
        return tuple(f"delta_{parameter}_{k}" for k in self._further)

    def shifts(self, theta: Mapping[str, Any], parameter: str) -> list[Any]:
        """How far each class lies above the first, link scale; 0 where the parameter is common."""
        steps = [theta[n] for n in self.deltas(parameter)] if parameter in self.parameters else \
            [0.0] * (self.count - 1)
        return [sum(steps[:k], jnp.zeros(())) for k in range(self.count)]

    def shares(self, theta: Mapping[str, Any]) -> list[Any]:
        """The share of each class."""
        further = [theta[n] for n in self.share_names]
        return [1.0 - sum(further), *further]

    def fractions(self, shares: Mapping[str, Any]) -> dict[str, Any]:
        """What is sampled in the place of the shares: of the patients in no higher class, the
        fraction in each. Of two classes it is the share itself."""
        left, found = 1.0, {}
        for name in reversed(self.share_names):
            found[name] = shares[name] / left
            left = left - shares[name]
        return found

    def of_fractions(self, fractions: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        """The shares, and ln |d shares / d fractions|."""
        left, volume, found = jnp.ones(()), jnp.zeros(()), {}
        for name in reversed(self.share_names):
            found[name] = fractions[name] * left
            volume = volume + jnp.log(left)
            left = left * (1.0 - fractions[name])
        return found, volume


def shares_log_density(mixture: Mixture, priors: Mapping[str, Prior], theta: Mapping[str, Any]) \
        -> Any:
    """Log prior density of the shares: of two classes as stated, of more the Dirichlet whose
    margins the priors are."""
    names = mixture.share_names
    if len(names) == 1:
        return priors[names[0]].log_density(theta[names[0]])
    a = priors[names[0]].numbers[0]
    return gammaln(a * mixture.count) - mixture.count * gammaln(a) \
        + (a - 1.0) * sum(jnp.log(s) for s in mixture.shares(theta))


def shares_drawn(mixture: Mixture, priors: Mapping[str, Prior], random: np.random.Generator) \
        -> dict[str, float]:
    """The shares of three or more classes from their prior."""
    a = priors[mixture.share_names[0]].numbers[0]
    return dict(zip(mixture.share_names, random.dirichlet([a] * mixture.count)[1:].tolist(),
                    strict=True))


def drawn_classes(mixture: Mixture | None, data: Mapping[str, Any], theta: Mapping[str, Any],
                  key: jax.Array) -> dict[str, Any]:
    """The data of new patients, whose classes, where there are any, are drawn and known."""
    if mixture is None:
        return dict(data)
    shares = jnp.stack([jnp.asarray(s, float) for s in mixture.shares(theta)])
    drawn = jax.random.categorical(key, jnp.log(shares), shape=(data["time"].shape[0],))
    return {**data, "classes": jax.nn.one_hot(drawn, mixture.count, dtype=float)}


def asked_mixture(structure: StructuralModel, asked: str | None, vary: tuple[str, ...]) \
        -> tuple[Mixture | None, list[Problem]]:
    """The classes of a request "2: Cmax, alpha", or the model file's own where there is none, and
    what of it is not understood. "1" is one class, whatever the file says."""
    own = structure.classes
    if asked is None:
        mixture = Mixture(len(own.shares), tuple(own.values)) if own else None
        return mixture, [_must_vary(n, 'give it a spread, or ask for classes "1"')
                         for n in (mixture.parameters if mixture else ()) if n not in vary]
    match = re.fullmatch(r"\s*(\d+)\s*(?::(.*))?", asked)
    if match is None or int(match[1]) < 1:
        return None, [Problem("error", "not COUNT: PARAMETER, PARAMETER", 'for instance '
                              '"2: Cmax, alpha"; "1" is one class', column="classes", found=asked)]
    count = int(match[1])
    names = tuple(n.strip() for n in (match[2] or "").split(",") if n.strip())
    if count == 1:
        return None, []
    if not names and own and len(own.shares) == count:
        names = tuple(own.values)
    known = [p.name for p in structure.parameters]
    found = [Problem("error", "no such parameter", f"known: {', '.join(sorted(known))}",
                     column="classes", found=n) for n in names if n not in known]
    found += [_must_vary(n, "give it a spread as well, or leave it out") for n in names
              if n in known and n not in vary]
    found += [Problem("error", "named twice", column="classes", found=n)
              for n in dict.fromkeys(names) if names.count(n) > 1]
    if not names:
        found.append(Problem("error", "in which parameters do the classes differ?",
                             f'for instance "{count}: {(vary or ("Cmax",))[0]}"',
                             column="classes", found=asked))
    return Mixture(count, names), found


def _must_vary(name: str, remedy: str) -> Problem:
    # its value would not follow from phi: every class would need a solve of its own
    return Problem("error", "classes differ in parameters that vary between patients, and this "
                   "one has no spread", remedy, column="classes", found=name)


def wrong_shares(mixture: Mixture, priors: Mapping[str, Prior], fixed: Mapping[str, float]) \
        -> list[Problem]:
    """What is asked of the shares and cannot hold together."""
    names = mixture.share_names
    held = [n for n in names if n in fixed]
    found = []
    if held and len(held) < len(names):
        found.append(Problem("error", "only some of the shares are fixed",
                             f"fix all: {', '.join(names)}", column=", ".join(held)))
    elif held and not (all(fixed[n] > 0 for n in held) and sum(fixed[n] for n in held) < 1):
        found.append(Problem("error", "shares are above 0, and together below 1: class 1 has the "
                             "rest", column=", ".join(held)))
    found += [Problem("error", "the classes are numbered in rising order of this parameter",
                      "a difference above 0", column=n, found=f"{fixed[n]:g}")
              for n in mixture.deltas(mixture.parameters[0]) if n in fixed and not fixed[n] > 0]
    found += [Problem("error", "the classes are numbered in rising order of this parameter",
                      "a prior above 0, such as lognormal(1, 0.75) or halfnormal(1)", column=n,
                      found=str(priors[n])) for n in mixture.deltas(mixture.parameters[0])
              if n in priors and priors[n].family not in (
                  "lognormal", "halfnormal", "halfcauchy", "exponential")]
    asked = [n for n in names if n in priors]
    if len(names) == 1:
        found += [Problem("error", "a share lies between 0 and 1", "beta(2, 2) or "
                          "logitnormal(0.3, 1)", column=n, found=str(priors[n]))
                  for n in asked if priors[n].family not in ("beta", "logitnormal")]
    elif asked:
        first = priors[asked[0]]
        a = first.numbers[0]
        right = first.family == "beta" and first == Prior("beta", (a, a * (mixture.count - 1)))
        if not right or any(priors.get(n) != first for n in names):
            found.append(Problem(
                "error", "the shares of three or more classes have a Dirichlet prior",
                f"give each of {', '.join(names)} beta(a, {mixture.count - 1} a), with one a",
                column=", ".join(asked), found=str(first)))
    return found


def published_classes(structure: StructuralModel, mixture: Mixture | None) -> dict[str, float]:
    """The model file's values of a mixture that is its own: typical values of class 1,
    differences, shares."""
    own = structure.classes
    if own is None or mixture is None or len(own.shares) != mixture.count \
            or not set(mixture.parameters) <= set(own.values):
        return {}
    values = dict(zip(mixture.share_names, own.shares[1:], strict=True))
    for name in mixture.parameters:
        link = LINKS[structure.parameter(name).link]
        real = np.array([float(link.to_real(jnp.asarray(v))) for v in own.values[name]])
        values |= {f"{name}_pop": own.values[name][0]}
        values |= dict(zip(mixture.deltas(name), np.diff(real).tolist(), strict=True))
    return values


def class_priors(structure: StructuralModel, mixture: Mixture, reasons: dict[str, str]) \
        -> dict[str, Prior]:
    """Default priors of the differences and the shares."""
    published = published_classes(structure, mixture)
    a, priors = _EACH, {}
    for name in mixture.parameters:
        p = structure.parameter(name)
        for delta in mixture.deltas(name):
            rises = name == mixture.parameters[0]
            priors[delta] = Prior("lognormal", (published.get(delta, p.size), _APART)) if rises \
                else Prior("normal", (published.get(delta, 0.0), p.size))
            reasons.setdefault(delta, "default: around the model file's value" if delta in published
                               else "default: of this order" + (
                                   "; above 0, as classes are numbered by it" if rises else ""))
    return priors | dict.fromkeys(mixture.share_names, Prior("beta", (a, a * (mixture.count - 1))))
