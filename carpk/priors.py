"""What is believed before the data: a Prior is a family's name and one or two numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from carpk.problems import Problem, RequestError

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def _normal(x: Any, mean: Any, sd: Any) -> jax.Array:
    return -0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd) - _HALF_LOG_2PI


def logit(x: Any) -> Any:
    """ln(x / (1 - x)), written so that it and its gradient stay finite inside (0, 1)."""
    return jnp.log(x) - jnp.log1p(-x)


@dataclass(frozen=True)
class Scale:
    """The way between a parameter's own scale and the whole real line."""

    to_real: Callable[[Any], Any]
    from_real: Callable[[Any], Any]


IDENTITY = Scale(lambda x: x, lambda u: u)
LOG = Scale(jnp.log, jnp.exp)
LOGIT = Scale(logit, jax.nn.sigmoid)
# An omega near zero has a long left tail on the log scale that a sampler walks slowly;
# softplus is the logarithm there only far below the tail and linear where omegas live.
SOFTPLUS = Scale(lambda x: x + jnp.log(-jnp.expm1(-x)), jax.nn.softplus)
LINKS = {"log": LOG, "logit": LOGIT, "identity": IDENTITY}

# family: (numbers it takes, scale to sample on, log density, median)
_FAMILIES: dict[str, tuple[int, Scale, Callable[..., Any], Callable[..., float]]] = {
    "normal": (2, IDENTITY, _normal, lambda m, s: m),
    "lognormal": (2, LOG, lambda x, m, s: _normal(jnp.log(x), jnp.log(m), s) - jnp.log(x),
                  lambda m, s: m),
    "logitnormal": (2, LOGIT, lambda x, m, s: _normal(logit(x), logit(m), s)
                    - jnp.log(x) - jnp.log1p(-x), lambda m, s: m),
    "halfnormal": (1, SOFTPLUS, lambda x, s: math.log(2.0) + _normal(x, 0.0, s),
                   lambda s: 0.6744897501960817 * s),
    "halfcauchy": (1, LOG, lambda x, s: math.log(2.0 / math.pi) - jnp.log(s)
                   - jnp.log1p((x / s) ** 2), lambda s: s),
    "exponential": (1, LOG, lambda x, s: -x / s - jnp.log(s), lambda s: math.log(2.0) * s),
}


@dataclass(frozen=True, slots=True)
class Prior:
    """A prior on the natural scale of a population parameter.

    normal(mean, SD), lognormal(median, SD of the log), logitnormal(median, SD of the logit),
    halfnormal(scale), halfcauchy(scale), exponential(mean).

    >>> str(Prior.parse("lognormal(24000, 1.5)"))
    'lognormal(24000, 1.5)'
    """

    family: str
    numbers: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.family not in _FAMILIES:
            raise RequestError(Problem("error", "there is no prior of this name",
                                       f"known: {', '.join(_FAMILIES)}", found=self.family))
        object.__setattr__(self, "numbers", tuple(map(float, self.numbers)))
        wanted, *_ = _FAMILIES[self.family]
        location_free = self.family in ("normal", "lognormal", "logitnormal")
        wrong = [x for x in self.numbers if not math.isfinite(x)]
        wrong += [x for x in self.numbers[int(location_free):] if not x > 0]
        if self.family == "lognormal":
            wrong += [x for x in self.numbers[:1] if not x > 0]
        if self.family == "logitnormal":
            wrong += [x for x in self.numbers[:1] if not 0 < x < 1]
        if len(self.numbers) != wanted or wrong:
            raise RequestError(Problem(
                "error", f"{self.family} takes {wanted} number{'s' * (wanted > 1)}, scales and "
                "medians above 0 (a logitnormal's median below 1)",
                "for instance lognormal(24000, 1.5) or halfnormal(1)", found=str(self)))

    @classmethod
    def parse(cls, text: str) -> Prior:
        """A prior from its written form; RequestError says what was not understood."""
        match = re.fullmatch(r"\s*(\w+)\s*\(([^()]*)\)\s*", text)
        try:
            assert match is not None
            numbers = tuple(float(x) for x in match[2].split(",")) if match[2].strip() else ()
        except (AssertionError, ValueError):
            raise RequestError(Problem("error", "not a prior: write family(number, number)",
                                       "for instance lognormal(24000, 1.5)",
                                       found=text)) from None
        return cls(match[1], numbers)

    def __str__(self) -> str:
        return f"{self.family}({', '.join(f'{x:.10g}' for x in self.numbers)})"

    @property
    def scale(self) -> Scale:
        """The scale it is sampled on."""
        return _FAMILIES[self.family][1]

    @property
    def median(self) -> float:
        """The value in the middle; the start where the data say nothing."""
        return float(_FAMILIES[self.family][3](*self.numbers))

    def log_density(self, x: Any) -> jax.Array:
        """Log density at x on the natural scale."""
        return _FAMILIES[self.family][2](x, *self.numbers)

    def log_density_real(self, u: Any) -> jax.Array:
        """Log density of u = scale.to_real(x): that of x plus the log of dx/du."""
        x, slope = jax.jvp(self.scale.from_real, (u,), (jnp.ones_like(u),))
        return self.log_density(x) + jnp.log(slope)
