"""The shape of a standard residual: normal, or with the heavier tails that outliers ask for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

_DF = 4.0  # of Student's t: the usual choice for robust errors; a variance still exists
_T_CONSTANT = math.lgamma((_DF + 1) / 2) - math.lgamma(_DF / 2) - 0.5 * math.log(_DF * math.pi)


@dataclass(frozen=True)
class Tails:
    """A symmetric density of z = residual / SD parameter, around 0 and of unit scale.

    log_density, log_below : of z; log_below = ln P(Z < z), exact far to the left
    draw : (key, shape) -> that many z
    variance : of z; that of Student's t is df / (df - 2)
    """

    title: str
    log_density: Callable[[Any], Any]
    log_below: Callable[[Any], Any]
    draw: Callable[[jax.Array, tuple[int, ...]], jax.Array]
    variance: float = 1.0

    def draw_above(self, key: jax.Array, least: Any) -> jax.Array:
        """z of the shape of `least` from this density, given that each lies above its least.

        By halving the interval in which ln P(Z > z) is that of a uniform share of P(Z > least), on
        a scale on which the far tail of a Cauchy is near.
        """
        least = jnp.asarray(least, float)
        share = jax.random.uniform(key, least.shape, minval=1e-300)
        wanted = jnp.log(share) + self.log_below(-least)

        def halved(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            low, high = ends
            middle = 0.5 * (low + high)
            above = self.log_below(-jnp.sinh(middle)) < wanted
            return jnp.where(above, low, middle), jnp.where(above, middle, high)

        low = jnp.arcsinh(least)
        low, high = jax.lax.fori_loop(0, 60, halved, (low, jnp.maximum(low, 0.0) + 50.0))
        return jnp.sinh(0.5 * (low + high))


# from here to the left the asymptotic series (Abramowitz & Stegun 26.2.12), whose next term is
# below 1e-13
_FAR = -12.0
_SERIES = [math.prod(range(-(2 * k - 1), 0, 2)) * 1.0 for k in range(10, 0, -1)]
_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)


@jax.custom_jvp
def log_normal_below(z: Any) -> Any:
    """ln P(Z < z) of a standard normal Z, of z's shape, with one erfc and one logarithm: censored
    rows are most of a closed form's gradient, and JAX's own takes half as long again.

    >>> import jax.numpy as jnp
    >>> [f"{v:.4f}" for v in log_normal_below(jnp.array([-40.0, 0.0]))]
    ['-804.6084', '-0.6931']
    """
    tail = 0.5 * jax.lax.erfc(jnp.where(z < _FAR, 1.0, jnp.abs(z)) * math.sqrt(0.5))
    far = jnp.where(z < _FAR, z, _FAR)
    series, inverse = jnp.zeros_like(z), 1.0 / far**2
    for coefficient in _SERIES:
        series = (series + coefficient) * inverse
    near = jnp.where(z < 0.0, tail, 1.0 - tail)
    return jnp.log(jnp.where(z < _FAR, (1.0 + series) / -far, near)) - jnp.where(
        z < _FAR, 0.5 * far**2 + _LOG_ROOT_2PI, 0.0)


@log_normal_below.defjvp
def _below_slope(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    (z,), (along,) = primals, tangents
    value = log_normal_below(z)
    return value, along * jnp.exp(-0.5 * z**2 - _LOG_ROOT_2PI - value)


def _t_below(z: Any) -> Any:
    """Of 4 degrees of freedom, P(Z < z) = d^2 (6 - d) / 32 of z below 0, with d = 8 / (root - z)
    / root and root = sqrt(4 + z^2): the textbook polynomial, arranged so that no tail cancels."""
    left = jnp.where(z < 0, z, -z)
    root = jnp.sqrt(4.0 + left**2)
    d = 8.0 / (root - left) / root
    tail = d**2 * (6.0 - d) / 32.0
    return jnp.where(z < 0, jnp.log(tail), jnp.log1p(-tail))


TAILS = {
    "normal": Tails("normal", lambda z: -0.5 * z**2 - _LOG_ROOT_2PI,
                     log_normal_below, jax.random.normal),
    "student_t": Tails(
        "Student's t of 4 degrees of freedom",
        lambda z: _T_CONSTANT - 0.5 * (_DF + 1) * jnp.log1p(z**2 / _DF), _t_below,
        lambda key, shape: jax.random.t(key, _DF, shape), _DF / (_DF - 2.0)),
    "cauchy": Tails(
        "Cauchy", lambda z: -math.log(math.pi) - jnp.log1p(z**2),
        lambda z: jnp.log(jnp.arctan2(1.0, -z) / math.pi), jax.random.cauchy,
        math.inf),
}
