"""How an assay errs around the model: ErrorModel, one likelihood for measured and censored rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from carpk import registry
from carpk.problems import Problem, RequestError
from carpk.tails import TAILS, Tails

# a level of exactly zero (a state before its first inflow) has no logarithm; this one has,
# and lies so far below any limit that its censored probability is one
_TINY = 1e-290
Ends = Literal["none", "one", "both"]
_EDGE = 1e-12  # from 0 and from 1, of a probability


@dataclass(frozen=True)
class ErrorModel:
    """A residual on the natural or the log scale, with the SD the file's function gives.

    sigmas : names and meanings; `sd(pred, sigma)` reads them as `sigma.<name>`.
    log_scale : the residual is added to ln(pred); `sd` is then in log units.
    binary : DV is 0 or 1 and the prediction its probability; `sd` is then that of DV.
    constant : the SD does not follow the prediction.
    in_units : sigmas that carry the output's unit (their prior scales with the data).
    tails : the shape of residual / SD; of heavier ones the SD is the scale.
    """

    title: str
    sigmas: dict[str, str]
    sd: Callable[[Any, Any], Any]
    log_scale: bool = False
    in_units: tuple[str, ...] = ()
    binary: bool = False
    tails: Tails = TAILS["normal"]
    constant: bool = False

    def working(self, pred: Any) -> Any:
        """The prediction on the scale the residual is added to."""
        return jnp.log(jnp.maximum(pred, _TINY)) if self.log_scale else pred

    def log_likelihood(self, lower: Any, upper: Any, pred: Any, sigma: Any,
                       ends: Ends = "both") -> jax.Array:
        """Log density of a measured row (lower = upper = DV), log probability of a censored one.

        lower, upper, pred : the same shape, unit of the output; -inf and +inf are open ends.
        On the log scale a lower end at or below 0 is open. Finite with a finite gradient at
        any distance from the limit.
        ends : how many ends censored rows have at most; programs for fewer are smaller
        """
        if self.binary:
            p = between_0_and_1(pred)
            return jnp.where(upper > 0.5, jnp.log(p), jnp.log1p(-p))
        return self.log_likelihood_at(lower, upper, self.working(pred), self.sd(pred, sigma), ends)

    def log_likelihood_at(self, lower: Any, upper: Any, location: Any, sd: Any,
                          ends: Ends = "both") -> jax.Array:
        """The same where the residual is around a location, with an SD, on its own scale."""
        measured = lower == upper
        y = jnp.where(measured, upper, 1.0)
        z = ((jnp.log(y) if self.log_scale else y) - location) / sd
        density = self.tails.log_density(z) - jnp.log(sd)
        if self.log_scale:
            density = density - jnp.log(y)
        return density if ends == "none" else jnp.where(
            measured, density, self._log_interval(lower, upper, measured, location, sd, ends))

    def _log_interval(self, lower: Any, upper: Any, measured: Any, location: Any,
                      sd: Any, ends: Ends) -> jax.Array:
        """ln P(lower < Y < upper), each branch fed only with values that are finite in it."""
        has_low = ~measured & jnp.isfinite(lower) & ((lower > 0.0) | (not self.log_scale))
        has_high = ~measured & jnp.isfinite(upper)
        low, high = jnp.where(has_low, lower, 1.0), jnp.where(has_high, upper, 1.0)
        if self.log_scale:
            low, high = jnp.log(low), jnp.log(high)
        z_low, z_high = (low - location) / sd, (high - location) / sd
        both = has_low & has_high
        log_below = self.tails.log_below
        # of an interval above the mean, take the mirror image: it is exact in the left tail
        flip = z_low > 0.0
        near = jnp.where(has_high & ~(both & flip), z_high, -z_low)
        near = log_below(jnp.where(has_low | has_high, near, 0.0))

        def two_sided() -> jax.Array:
            far = log_below(jnp.where(both, jnp.where(flip, -z_high, z_low), -40.0))
            gap = jnp.where(both, jnp.minimum(far - near, -1e-300), -1.0)
            return near + jnp.where(both, jnp.log(-jnp.expm1(gap)), 0.0)

        # a tail costs more than the rest of a row
        value = near if ends == "one" else jax.lax.cond(both.any(), two_sided, lambda: near)
        return jnp.where(has_low | has_high, value, 0.0)

    def draw(self, key: jax.Array, pred: Any, sigma: Any, positive: bool = False) -> jax.Array:
        """One simulated measurement per prediction, same shape and unit; of a residual on the
        natural scale, given that the measurement is above 0 where it must be `positive`."""
        if self.binary:
            drawn = jax.random.uniform(key, jnp.shape(pred)) < pred
            return jnp.where(jnp.isfinite(pred), drawn.astype(float), jnp.nan)
        if positive and not self.log_scale:
            z = self.tails.draw_above(key, -pred / self.sd(pred, sigma))
            # of a level far below its SD rounding must not reach 0
            return jnp.maximum(self.at_residual(z, pred, sigma), _TINY)
        return self.at_residual(self.tails.draw(key, jnp.shape(pred)), pred, sigma)

    def at_residual(self, z: Any, pred: Any, sigma: Any) -> jax.Array:
        """The measurement whose residual is z SDs."""
        value = self.working(pred) + self.sd(pred, sigma) * z
        return jnp.exp(value) if self.log_scale else value


def between_0_and_1(pred: Any) -> jax.Array:
    """A probability off both ends, where the other outcome has no logarithm."""
    return jnp.clip(pred, _EDGE, 1.0 - _EDGE)


def without_column(written: str) -> tuple[str, str]:
    """An error model without the column by whose levels it is separate, and that column.

    >>> without_column("lognormal student_t by ASSAY")
    ('lognormal student_t', 'ASSAY')
    """
    plain, _, column = written.strip().partition(" by ")
    return plain.strip(), column.strip()


def error_model(written: str) -> ErrorModel:
    """An error model by its name, the tails that may follow it, and the column by which it is
    separate: "lognormal student_t by ASSAY".

    >>> error_model("lognormal cauchy").title
    'additive on the log scale, Cauchy'
    """
    plain, column = without_column(written)
    name, _, tails = plain.partition(" ")
    model: ErrorModel = registry.load("error_models", name)
    if column:
        model = dataclasses.replace(model, title=f"{model.title}, separate by {column}")
    if not tails:
        return model
    shape = TAILS.get(tails.strip()) if not model.binary else None
    if shape is None:
        raise RequestError(Problem("error", "no such tails of an error model",
                                   "a binary DV has none" if model.binary
                                   else f"known: {', '.join(TAILS)}", found=written))
    return dataclasses.replace(model, title=f"{model.title}, {shape.title}", tails=shape)
