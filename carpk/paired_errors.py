"""Correlated errors of two assays of one sample: pairs of rows at the same patient and time.

rho_A_B is the correlation of the residuals of outputs A and B, each normal on the scale that it is
added to. Where at least one of a pair is measured the other is normal given it, or lies beyond its
limit with a conditional probability. Where both are censored the pair has the probability of a
rectangle, ln P(l < X < u, Y < k): the integral over x of phi(x) Phi((k - rho x) / sqrt(1 - rho^2)),
a log-concave function, by Gauss-Legendre where it is not negligible.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from carpk.cohort import Design
from carpk.error_models import ErrorModel
from carpk.problems import Problem, unknown
from carpk.tails import TAILS, log_normal_below

Pair = tuple[str, str]

_FEW = 10  # measured pairs, of which a correlation is mostly its prior's
_DROP = 40.0  # of the log of the integrand below its top, beyond which it is left out
_REACH = 9.5  # SDs from the top, beyond which it has fallen by more than that
_ROUNDS = 12  # of Newton's method, which is monotone here: a concave function, from outside
_KINK = 6.0  # SDs from where Phi bends, within which it has a part of its own
_FAR = 60.0  # SDs, beyond which nothing lies
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_LOG_2PI = math.log(2.0 * math.pi)


def rho_of(pair: Pair) -> str:
    """The name of a pair's correlation."""
    return f"rho_{pair[0]}_{pair[1]}"


def asked_pairs(errors: Mapping[str, ErrorModel], asked: Iterable[Iterable[str]],
                censoring: str) -> tuple[tuple[Pair, ...], list[Problem]]:
    """The pairs of a request in the order of the outputs, and what is wrong with them.

    errors : of every output, in order
    """
    groups, column = [tuple(g) for g in asked], "correlated_errors"
    listed = [n for g in groups for n in g]
    found = [unknown("output", n, errors) for n in listed if n not in errors]
    found += [Problem("error", "two outputs make a pair", "name two", column=column,
                      found=", ".join(g)) for g in groups if len(g) != 2]
    found += [Problem("error", "stands in two pairs, or twice in one", "name it once",
                      column=column, found=n)
              for n in dict.fromkeys(listed) if listed.count(n) > 1]
    for n in dict.fromkeys(n for n in listed if n in errors):
        error = errors[n]
        if error.tails is not TAILS["normal"] or not error.constant:
            found.append(Problem(
                "error", "errors are correlated where they are normal with an SD that does not "
                "follow the prediction", "take lognormal or additive, without tails",
                column=f"errors.{n}", found=error.title))
        elif censoring == "M4" and not error.log_scale:
            found.append(Problem("error", "M4 takes levels above 0 one by one, not two together",
                                 "take M3, or lognormal errors", column=column, found=n))
    if found:
        return (), found
    order = list(errors)
    return tuple((a, b) if order.index(a) < order.index(b) else (b, a) for a, b in groups), []


def partners(pairs: Iterable[Pair], outputs: list[str], design: Design) -> np.ndarray:
    """(P, N): the place of each row's partner in the patient; its own where it has none."""
    own = np.broadcast_to(np.arange(design.time.shape[1]), design.time.shape).copy()
    for pair in pairs:
        a, b = (design.observed & (design.output == outputs.index(n)) for n in pair)
        for i in np.flatnonzero(a.any(axis=1) & b.any(axis=1)):
            first, second = np.flatnonzero(a[i]), np.flatnonzero(b[i])
            j, k = np.nonzero(design.time[i, first][:, None] == design.time[i, second][None])
            own[i, first[j]], own[i, second[k]] = second[k], first[j]
    return own


def pair_problems(pairs: Iterable[Pair], outputs: list[str], design: Design, source: str) \
        -> list[Problem]:
    """What is wrong with the rows of pairs, or to be known of them."""
    found = []
    interval = np.isfinite(design.lower) & np.isfinite(design.upper) & design.censored
    place = partners(pairs, outputs, design)
    paired = place != np.arange(place.shape[1])
    for pair in pairs:
        kinds = [design.observed & (design.output == outputs.index(n)) for n in pair]
        both = f"{pair[0]} and {pair[1]}"
        for own, name, other in zip(kinds, pair, pair[::-1], strict=True):
            for i, k in np.argwhere(own & paired):
                again = np.flatnonzero(own[i] & (design.time[i] == design.time[i, k]))
                found += [Problem(
                    "error", f"{name} was measured twice at this time: which of it and {other} is "
                    "of one sample?", "move one by a minute (0.0007 days), or leave it out",
                    source, int(design.line[i, k]), design.ids[i], "TIME",
                    f"{design.time[i, k]:g}") for _ in again[1:] if k != again[0]]
        twice = np.argwhere(kinds[0] & paired & interval
                            & np.take_along_axis(interval, place, axis=1))
        found += [Problem("error", f"{both} of one sample both lie in an interval",
                          "leave the lower end of one of them out (LIMIT)", source,
                          int(design.line[i, k]), design.ids[i], "LIMIT") for i, k in twice]
        here = kinds[0] & paired
        measured = here & ~design.censored & ~np.take_along_axis(design.censored, place, axis=1)
        if not here.any():
            found.append(Problem("error", f"no patient has {both} at the same time",
                                 "leave their correlation out", source,
                                 column="correlated_errors", found=both))
        elif measured.sum() < _FEW:
            found.append(Problem(
                "warning", f"{measured.sum()} samples have {both} measured: the correlation of "
                "their errors is mostly its prior's", "leave it out, or state what you know of "
                f"{rho_of(pair)} as its prior", source, column="correlated_errors", found=both))
    return found


def with_partner(data: Mapping[str, Any]) -> jax.Array:
    """(P, N): the rows that have one."""
    partner = jnp.asarray(data["partner"])
    return partner != jnp.arange(partner.shape[1])[None]


def second_rows(pairs: Iterable[Pair], outputs: list[str], data: Mapping[str, Any]) -> jax.Array:
    """(P, N): the rows with a partner that are of the second output of their pair."""
    second = [data["output"] == outputs.index(b) for _, b in pairs]
    return with_partner(data) & jnp.any(jnp.stack(second), axis=0)


def correlated_noise(z: Any, first: Any, rho: Any, data: Mapping[str, Any]) -> jax.Array:
    """(P, N): standard normal z of a second output's rows, with the correlation rho to that of
    their partners; first : (P, N), of the first output."""
    partners = jnp.take_along_axis(first, jnp.asarray(data["partner"]), axis=1)
    return jnp.where(with_partner(data), rho * partners + jnp.sqrt(1.0 - rho**2) * z, z)


def paired_rows(pair: Pair, errors: Mapping[str, ErrorModel], data: Mapping[str, Any], rho: Any,
                predicted: jax.Array, sigmas: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
    """Log-likelihoods (P, N) of the rows of a pair's outputs, and which those are (P, N).

    data : observed, lower, upper, output, partner, (P, N) each; sigmas : of each output
    A row is taken given its partner where that is measured and the row is censored or of the
    second output; a row of the first holds what two censored rows have together.
    """
    def of_partner(x: Any) -> jax.Array:
        return jnp.take_along_axis(x, data["partner"], axis=1)

    here = [data["observed"] & (data["output"] == list(errors).index(n)) for n in pair]
    rows, second, paired = here[0] | here[1], here[1], with_partner(data)
    safe = jnp.where(rows, predicted, 1.0)
    lower, upper = (jnp.where(rows, data[end], 1.0) for end in ("lower", "upper"))
    measured = lower == upper
    location, sd, ends = jnp.zeros_like(safe), jnp.ones_like(safe), [lower, upper]
    for own, n in zip(here, pair, strict=True):
        location = jnp.where(own, errors[n].working(safe), location)
        sd = jnp.where(own, errors[n].sd(safe, sigmas[n]), sd)
        if errors[n].log_scale:
            ends = [jnp.where(own, jnp.where(end > 0.0, jnp.log(jnp.maximum(end, 1e-290)),
                                             -jnp.inf), end) for end in ends]
    inside = [jnp.isfinite(end) for end in ends]
    ends = [jnp.where(known, (jnp.where(known, end, location) - location) / sd, end)
            for known, end in zip(inside, ends, strict=True)]
    given = rows & paired & of_partner(measured) & (second | ~measured)
    moved = location + jnp.where(given, rho * sd * of_partner(
        jnp.where(measured, ends[1], 0.0)), 0.0)
    left = jnp.where(given, sd * jnp.sqrt(1.0 - rho**2), sd)
    value = jnp.zeros_like(safe)
    for own, n in zip(here, pair, strict=True):
        value = jnp.where(own, errors[n].log_likelihood_at(
            jnp.where(own, lower, 1.0), jnp.where(own, upper, 1.0), jnp.where(own, moved, 0.0),
            jnp.where(own, left, 1.0)), value)
    if "both_hidden" not in data:
        return value, rows
    hidden = rows & paired & ~measured & ~of_partner(measured)
    once = hidden & ~second
    mine = [jnp.where(hidden, e, 0.0) for e in ends]
    other = [of_partner(e) for e in mine]
    # x is the one with both ends, if any; y is mirrored where it lies above its limit
    swap = jnp.isfinite(other[0]) & jnp.isfinite(other[1])
    low, high = (jnp.where(once, jnp.where(swap, b, a), e)
                 for a, b, e in zip(mine, other, (-1.0, 1.0), strict=True))
    y_low, y_high = (jnp.where(once, jnp.where(swap, a, b), 0.0)
                     for a, b in zip(mine, other, strict=True))
    above = ~jnp.isfinite(y_high)
    k = jnp.where(above, -jnp.where(jnp.isfinite(y_low), y_low, -_FAR), y_high)
    joint = log_rectangle(low, high, k, jnp.where(above, -rho, rho))
    return jnp.where(hidden, jnp.where(second, 0.0, joint), value), rows


def may_both_hide(pairs: Iterable[Pair], outputs: list[str], design: Design) -> bool:
    """Whether both rows of a sample may be censored, in the design or in what is simulated of it:
    both outputs have limits."""
    limited = design.censored | (design.observed & np.isfinite(
        -np.inf if design.lloq is None else design.lloq))
    return any(all((limited & (design.output == outputs.index(n))).any() for n in pair)
               for pair in pairs)


@jax.custom_jvp
def log_rectangle(low: Any, high: Any, k: Any, rho: Any) -> jax.Array:
    """ln P(low < X < high, Y < k) of standard normal X and Y with correlation rho, elementwise.

    low, high : -inf and inf are open ends; k is finite. Exact to 1e-8 at any distance for |rho| up
    to 0.99; finite, with finite gradients.

    >>> round(float(jnp.exp(log_rectangle(-jnp.inf, 0.0, 0.0, 0.5))), 12)  # 1/4 + asin(1/2) / 2 pi
    0.333333333333
    """
    low, high, k, rho = jnp.broadcast_arrays(*(jnp.asarray(v) for v in (low, high, k, rho)))
    s = jnp.sqrt(1.0 - rho**2)

    def log_integrand(x: Any) -> tuple[Any, Any, Any]:
        """With its first and second derivative in x."""
        z = (k - rho * x) / s
        below, density = log_normal_below(z), -0.5 * z**2 - 0.5 * _LOG_2PI
        mills = jnp.exp(density - below)
        return (below - 0.5 * x**2 - 0.5 * _LOG_2PI, -x - rho / s * mills,
                -1.0 - (rho / s) ** 2 * mills * (z + mills))

    def uphill(_: Any, x: Any) -> Any:
        _, slope, bend = log_integrand(x)
        return x - slope / bend

    top = jnp.clip(jax.lax.fori_loop(0, _ROUNDS, uphill, jnp.zeros_like(low)), low, high)
    highest = log_integrand(top)[0]

    def nearer(_: Any, x: Any) -> Any:
        value, slope, _ = jax.vmap(log_integrand)(x)
        short = value - highest[None] + _DROP
        return jnp.where(short < 0.0, x - short / slope, x)

    first, last = jax.lax.fori_loop(0, _ROUNDS, nearer, jnp.stack([top - _REACH, top + _REACH]))
    first, last = jnp.maximum(first, low), jnp.minimum(last, high)
    safe = jnp.where(jnp.abs(rho) > 1e-6, rho, 1e-6)
    parts = jnp.stack([first, *(jnp.clip((k + side * jnp.sign(safe) * _KINK * s) / safe, first,
                                         last) for side in (-1.0, 1.0)), last])
    nodes, weights = (jnp.reshape(v, (-1, *[1] * parts.ndim)) for v in (_NODES, _WEIGHTS))
    half = 0.5 * jnp.diff(parts, axis=0)[None]
    x = parts[None, :-1] + half * (1.0 + nodes)
    rows = jax.vmap(jax.vmap(lambda x: jnp.exp(log_integrand(x)[0] - highest)))(x)
    return highest + jnp.log((half * weights * rows).sum(axis=(0, 1)))


@log_rectangle.defjvp
def _slopes(at: tuple[Any, ...], along: tuple[Any, ...]) -> tuple[Any, Any]:
    """Plackett's identity gives the slope in rho, densities on the sides those in the ends."""
    low, high, k, rho = at
    value, s = log_rectangle(low, high, k, rho), jnp.sqrt(1.0 - rho**2)

    def side(end: Any) -> tuple[Any, Any, Any]:
        """ln of the probability's slopes in one end and, there, in rho; and where y is then."""
        known = jnp.isfinite(end)
        x = jnp.where(known, end, 0.0)
        z, y = (k - rho * x) / s, (x - rho * k) / s
        density = -0.5 * x**2 - 0.5 * _LOG_2PI
        return (jnp.where(known, jnp.exp(density + log_normal_below(z) - value), 0.0),
                jnp.where(known, jnp.exp(density - 0.5 * z**2 - 0.5 * _LOG_2PI - value) / s, 0.0),
                jnp.where(known, y, jnp.sign(end) * 1e8))

    (in_low, rho_low, y_low), (in_high, rho_high, y_high) = side(low), side(high)
    mirrored = y_low > 0.0  # in the left tail a difference is exact
    ends = jnp.where(mirrored, -y_low, y_high), jnp.where(mirrored, -y_high, y_low)
    density = -0.5 * k**2 - 0.5 * _LOG_2PI - value
    in_k = jnp.exp(density + log_normal_below(ends[0])) \
        - jnp.exp(density + log_normal_below(ends[1]))
    parts = (-in_low, in_high, in_k, rho_high - rho_low)
    return value, sum((slope * jnp.where(jnp.isfinite(end), d, 0.0)
                       for slope, end, d in zip(parts, at, along, strict=True)),
                      jnp.zeros_like(value))
