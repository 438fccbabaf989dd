"""What is believed before the data: a Prior is a family's name and one or two numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from scipy.special import betaincinv, gammaincinv

from carpk.problems import Problem, RequestError
from carpk.small_matrices import Rows

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def _normal(x: Any, mean: Any, sd: Any) -> jax.Array:
    return -0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd) - _HALF_LOG_2PI


def _symmetric_beta(x: Any, b: Any) -> Any:
    """Log density of 2 B - 1 with B ~ Beta(b, b): of x in (-1, 1)."""
    return ((b - 1.0) * jnp.log1p(-x**2) - (2.0 * b - 1.0) * math.log(2.0)
            - (2.0 * gammaln(b) - gammaln(2.0 * b)))


def _beta(x: Any, a: Any, b: Any) -> Any:
    return ((a - 1.0) * jnp.log(x) + (b - 1.0) * jnp.log1p(-x)
            - (gammaln(a) + gammaln(b) - gammaln(a + b)))


def logit(x: Any) -> Any:
    """ln(x / (1 - x)), written so that it and its gradient stay finite inside (0, 1)."""
    return jnp.log(x) - jnp.log1p(-x)


def _unsoftened(x: Any) -> Any:
    """ln(exp x - 1), the inverse of softplus."""
    return x + jnp.log(-jnp.expm1(-x))


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
SOFTPLUS = Scale(_unsoftened, jax.nn.softplus)
# of a correlation, by way of partial ones, which may be anything in (-1, 1)
TANH = Scale(jnp.arctanh, jnp.tanh)
LINKS = {"log": LOG, "logit": LOGIT, "identity": IDENTITY}
_SUPPORTS = ((IDENTITY, (-math.inf, math.inf)), (LOG, (0.0, math.inf)),
             (SOFTPLUS, (0.0, math.inf)), (LOGIT, (0.0, 1.0)), (TANH, (-1.0, 1.0)))

# family: (numbers it takes, scale to sample on, log density, median, a draw)
_FAMILIES: dict[str, tuple[int, Scale, Callable[..., Any], Callable[..., float],
                           Callable[..., float]]] = {
    "normal": (2, IDENTITY, _normal, lambda m, s: m, lambda r, m, s: r.normal(m, s)),
    "lognormal": (2, LOG, lambda x, m, s: _normal(jnp.log(x), jnp.log(m), s) - jnp.log(x),
                  lambda m, s: m, lambda r, m, s: m * math.exp(r.normal(0.0, s))),
    "logitnormal": (2, LOGIT, lambda x, m, s: _normal(logit(x), logit(m), s)
                    - jnp.log(x) - jnp.log1p(-x), lambda m, s: m,
                    lambda r, m, s: 1.0 / (1.0 + (1.0 / m - 1.0) * math.exp(-r.normal(0.0, s)))),
    "halfnormal": (1, SOFTPLUS, lambda x, s: math.log(2.0) + _normal(x, 0.0, s),
                   lambda s: 0.6744897501960817 * s, lambda r, s: abs(r.normal(0.0, s))),
    "halfcauchy": (1, LOG, lambda x, s: math.log(2.0 / math.pi) - jnp.log(s)
                   - jnp.log1p((x / s) ** 2), lambda s: s,
                   lambda r, s: s * abs(r.standard_cauchy())),
    "exponential": (1, LOG, lambda x, s: -x / s - jnp.log(s), lambda s: math.log(2.0) * s,
                    lambda r, s: r.exponential(s)),
    "beta": (2, LOGIT, _beta, lambda a, b: float(betaincinv(a, b, 0.5)),
             lambda r, a, b: r.beta(a, b)),
    # of two correlated parameters; of more see `of_partial`
    "lkj": (1, TANH, _symmetric_beta, lambda s: 0.0, lambda r, s: 2.0 * r.beta(s, s) - 1.0),
    # of a coefficient over its scale: see `carpk.horseshoe`, which has the number
    "horseshoe": (1, IDENTITY, lambda z, s: _normal(z, 0.0, 1.0), lambda s: 0.0,
                  lambda r, s: r.normal()),
    "inversegamma": (2, LOG, lambda x, a, b: a * math.log(b) - math.lgamma(a)
                     - (a + 1.0) * jnp.log(x) - b / x, lambda a, b: b / gammaincinv(a, 0.5),
                     lambda r, a, b: b / r.gamma(a)),
    # what an earlier posterior of a spread and of a (partial) correlation comes to
    "softplusnormal": (2, SOFTPLUS, lambda x, m, s: _normal(_unsoftened(x), _unsoftened(m), s)
                       - jnp.log(-jnp.expm1(-x)), lambda m, s: m,
                       lambda r, m, s: np.logaddexp(0.0, float(_unsoftened(m))
                                                    + r.normal(0.0, s))),
    "tanhnormal": (2, TANH, lambda x, m, s: _normal(jnp.arctanh(x), jnp.arctanh(m), s)
                   - jnp.log1p(-x**2), lambda m, s: m,
                   lambda r, m, s: math.tanh(math.atanh(m) + r.normal(0.0, s))),
}


def families(low: float, high: float) -> list[str]:
    """The families of a parameter between two numbers; of a correlation those alone that are
    sampled as correlations are.

    >>> families(-1.0, 1.0)
    ['lkj', 'tanhnormal']
    """
    fit = {n: Prior(n, (0.5, 0.5)[:wanted]).support for n, (wanted, *_) in _FAMILIES.items()
           if n != "horseshoe"}
    return [n for n, (least, most) in fit.items()
            if ((least, most) == (low, high) if low == -1.0 else low <= least and most <= high)]


LOCATED = ("normal", "lognormal", "logitnormal", "softplusnormal", "tanhnormal")  # on their scale


def lkj_log_volume(partial: Rows) -> Any:
    """ln |d R / d partial| of the correlations R below the diagonal."""
    size = len(partial)
    return sum(0.5 * (size - 2 - j) * jnp.log1p(-z**2) for row in partial for j, z in row.items())


def of_partial(prior: Prior, size: int, j: int) -> Prior:
    """The prior of the partial correlation of i and j given all before j, j counted from 0, in a
    block of that size.

    Of LKJ(eta), whose density is (eta - 1) ln det R, they are independent and Beta(b, b) on
    (-1, 1) with b = eta + (size - 2 - j) / 2 (Lewandowski, Kurowicka & Joe 2009, J Multivar Anal
    100:1989); `lkj_log_volume` leads from them to R. Any other prior is of the partial
    correlation itself, which that with the first of a block (j = 0) is not distinct from.

    >>> str(of_partial(Prior.parse("lkj(2)"), 3, 0))
    'lkj(2.5)'
    """
    return Prior("lkj", (prior.numbers[0] + (size - 2 - j) / 2.0,)) \
        if prior.family == "lkj" else prior


@dataclass(frozen=True, slots=True)
class Prior:
    """A prior on the natural scale of a population parameter.

    normal(mean, SD), lognormal(median, SD of the log), logitnormal(median, SD of the logit),
    halfnormal(scale), halfcauchy(scale), exponential(mean), inversegamma(shape, scale), beta(a,
    b) of shares, lkj(shape) of correlations; softplusnormal(median, SD of ln(exp x - 1)) and
    tanhnormal(median, SD of atanh x), which are what `carpk.earlier` makes of a posterior.

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
        wrong = [x for x in self.numbers if not math.isfinite(x)]
        wrong += [x for x in self.numbers[int(self.family in LOCATED):] if not x > 0]
        low, high = {"lognormal": (0.0, math.inf), "softplusnormal": (0.0, math.inf),
                     "logitnormal": (0.0, 1.0), "tanhnormal": (-1.0, 1.0)}.get(
                         self.family, (-math.inf, math.inf))
        wrong += [x for x in self.numbers[:1] if not low < x < high]
        if len(self.numbers) != wanted or wrong:
            raise RequestError(Problem(
                "error", f"{self.family} takes {wanted} number{'s' * (wanted > 1)}, scales and "
                "medians above 0 (a logitnormal's and a tanhnormal's median below 1)",
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
    def support(self) -> tuple[float, float]:
        """Between which numbers its values lie."""
        return next(ends for scale, ends in _SUPPORTS if scale is self.scale)

    @property
    def median(self) -> float:
        """The value in the middle; the start where the data say nothing."""
        return float(_FAMILIES[self.family][3](*self.numbers))

    def draw(self, random: np.random.Generator) -> float:
        """One value."""
        return float(_FAMILIES[self.family][4](random, *self.numbers))

    def log_density(self, x: Any, *last: Any) -> jax.Array:
        """Log density at x on the natural scale; `last` stands for the last of its numbers."""
        numbers = (*self.numbers[:len(self.numbers) - len(last)], *last)
        return _FAMILIES[self.family][2](x, *numbers)

    def log_density_real(self, u: Any) -> jax.Array:
        """Log density of u = scale.to_real(x): that of x plus the log of dx/du."""
        x, slope = jax.jvp(self.scale.from_real, (u,), (jnp.ones_like(u),))
        return self.log_density(x) + jnp.log(slope)
