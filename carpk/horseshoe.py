"""The regularised horseshoe: one prior of many coefficients, of which few are expected to matter.

Piironen & Vehtari 2017, Electron J Stat 11:5018. A coefficient is normal(0, scale) with
scale = size tau lambda~, lambda~^2 = c^2 lambda^2 / (c^2 + tau^2 lambda^2): tau, one for all,
draws every coefficient to 0; lambda, its own, lets it escape; c bounds those that do.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from carpk.priors import Prior
from carpk.problems import Problem, RequestError

_SLAB = (2.0, 2.0)  # of c^2: escaped coefficients are Student t of 4 df, scale 1 x size


@dataclass(frozen=True)
class Horseshoe:
    """A horseshoe over coefficients.

    expected : how many are expected to matter; 0 leaves it to `over`
    sizes : of each coefficient, what one unit of scale is worth: a factor of e for an SD of what
        it multiplies, so that all are drawn to 0 alike
    """

    expected: float = 0.0
    sizes: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The population parameters it adds: tau_beta, slab_beta (c^2), a lambda each."""
        return ("tau_beta", "slab_beta", *map(own_name, self.sizes)) if self.sizes else ()

    @property
    def written(self) -> str:
        """As it is asked for."""
        return f"horseshoe({self.expected:g})" if self.expected else "horseshoe"

    def scales(self, theta: Mapping[str, Any]) -> dict[str, Any]:
        """The scale of each coefficient, unit of the coefficient.

        theta : population values by name
        """
        if not self.sizes:
            return {}
        tau, slab = theta["tau_beta"], theta["slab_beta"]
        found = {}
        for name, size in self.sizes.items():
            freed = tau * theta[own_name(name)]
            found[name] = size * freed * jnp.sqrt(slab / (slab + freed**2))
        return found

    def over(self, sizes: Mapping[str, float], patients: int, noise: float) \
            -> tuple[Horseshoe, dict[str, Prior]]:
        """It, over these coefficients, and the priors of what it adds.

        tau is half-Cauchy around expected / (D - expected) noise / sqrt(patients) of D
        coefficients; without a number, one in five is expected to matter, and at least one.
        noise : SD of the etas the effects stand against, link scale, in the sizes' unit
        RequestError where there are not more coefficients than are expected to matter.
        """
        expected = self.expected or max(1.0, len(sizes) / 5)
        if not expected < len(sizes):
            raise RequestError(Problem(
                "error", f"a horseshoe over {len(sizes)} coefficients cannot expect "
                f"{expected:g} of them to matter", "state more covariates, expect fewer, or drop "
                "it", column="priors.covariates", found=self.written))
        around = expected / (len(sizes) - expected) * noise / math.sqrt(patients)
        whole = dataclasses.replace(self, sizes=dict(sizes))
        tau, slab, *own = whole.names
        return whole, {tau: Prior("halfcauchy", (float(f"{around:.3g}"),)),
                       slab: Prior("inversegamma", _SLAB),
                       **dict.fromkeys(own, Prior("halfcauchy", (1.0,))),
                       **{n: Prior("horseshoe", (s,)) for n, s in sizes.items()}}


def own_name(coefficient: str) -> str:
    """The name of a coefficient's own scale.

    >>> own_name("beta_CL_WT")
    'lambda_CL_WT'
    """
    return f"lambda_{coefficient.removeprefix('beta_')}"


def asked_horseshoe(written: object) -> tuple[Horseshoe | None, list[Problem]]:
    """What `priors.covariates` asks for: "horseshoe", or with how many are expected to matter.

    >>> asked_horseshoe("horseshoe(3)")[0].expected
    3.0
    """
    if written is None:
        return None, []
    match = re.fullmatch(r"\s*horseshoe\s*(?:\(\s*(\d+\.?\d*)\s*\))?\s*", str(written))
    if match is None or (match[1] and not float(match[1]) > 0):
        return None, [Problem("error", "not a prior of all coefficients",
                              "horseshoe, or horseshoe(3) where 3 of them are expected to matter",
                              column="priors.covariates", found=str(written))]
    return Horseshoe(float(match[1] or 0.0)), []


def meaning(name: str) -> str:
    """What one of its parameters is."""
    return {"tau_beta": "horseshoe: scale of all coefficients",
            "slab_beta": "horseshoe: squared bound of those that matter"}.get(
                name, f"horseshoe: own scale of beta_{name.removeprefix('lambda_')}")
