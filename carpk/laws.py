"""The laws cells follow: growth, killing and expansion, exhaustion, antigen loss, extinction.

A model file imports them where "Gompertz growth, Holling II killing" reads better than the
equation. Each takes states, then parameters (numbers or JAX scalars), and where it says nothing
else returns a rate in cells per time. Killing and expansion are both what one population does
upon meeting another, and share their laws; so do exhaustion by antigen and the call back of
memory, a `mass_action` or `michaelis_menten` of their own pair.

Values, gradients and their gradients (of which an implicit solver's sensitivities are made) are
finite for all states >= 0 and parameters > 0. Where a law takes a logarithm or a power, fewer than
1e-140 cells (or a linear state that a solver let slip below 0) count as 1e-140: its value at 0 is
next to nothing and the gradient of that part is 0, where the true one may be infinite.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Number = Any  # a Python number or a JAX scalar
NO_CELLS = 1e-140  # its square, a part of second derivatives, leaves room in a float64


def exponential(x: Number, r: Number) -> Any:
    """r x. Rate r (1/time), without bound; doubles in ln 2 / r. First-order loss at -r.

    >>> exponential(10.0, 0.2)
    2.0
    """
    return r * x


def logistic(x: Number, r: Number, K: Number, rivals: Number = 0.0) -> Any:
    """r x (1 - (x + rivals) / K). Rate r (1/time) far below the capacity K (cells); fastest at K/2.

    `rivals` share the capacity: normal T cells in the niche, antigen-negative tumour. Verhulst
    1838.

    >>> logistic(500.0, 0.2, 1000.0)
    50.0
    """
    return r * x * (1.0 - (x + rivals) / K)


def richards(x: Number, r: Number, K: Number, v: Number) -> Any:
    """r x (1 - (x / K)^v). Rate r (1/time), capacity K (cells), shape v.

    v = 1 is logistic; v -> 0 with r = c / v is Gompertz at c; v -> infinity exponential with a
    stop. Generalised logistic, Richards 1959.

    >>> round(float(richards(500.0, 0.2, 1000.0, 2.0)), 9)
    75.0
    """
    return -r * x * jnp.expm1(v * (_log(x) - jnp.log(K)))  # 1 - power would lose a small v


def gompertz(x: Number, r: Number, K: Number, rivals: Number = 0.0) -> Any:
    """r x ln(K / (x + rivals)). Rate r (1/time), capacity K (cells); fastest at K / e.

    The per-cell rate rises without bound as x -> 0: a few cells grow fast. `rivals` share the
    capacity. Gompertz 1825.

    >>> round(float(gompertz(1000.0, 0.1, 10000.0)), 4)
    230.2585
    """
    return r * jnp.where(x > NO_CELLS, x, 0.0) * (jnp.log(K) - _log(x + rivals))


def bertalanffy(x: Number, a: Number, b: Number) -> Any:
    """a x^(2/3) - b x. Growth at the surface, a (cells^(1/3)/time), loss throughout, b (1/time).

    Rests at (a / b)^3, fastest at 8/27 of it. Von Bertalanffy 1957.

    >>> round(float(bertalanffy(8.0, 0.5, 0.05)), 9)
    1.6
    """
    return power_law(x, a, 2.0 / 3.0) - b * x


def power_law(x: Number, a: Number, p: Number) -> Any:
    """a x^p. Rate a (cells^(1-p)/time), exponent p: 1 exponential, 2/3 growth at the surface.

    >>> round(float(power_law(16.0, 0.5, 0.75)), 9)
    4.0
    """
    return a * jnp.where(x > NO_CELLS, jnp.exp(p * _log(x)), 0.0)


def hill(x: Number, h: Number, n: Number) -> Any:
    """x^n / (h^n + x^n), a share from 0 to 1: one half at h (unit of x), steeper with n > 1.

    Without overflow at any n; n = 1 is x / (h + x). Hill 1910.

    >>> round(float(hill(200.0, 100.0, 2.0)), 9)
    0.8
    """
    return jax.nn.sigmoid(n * (_log(x) - _log(h)))


def mass_action(e: Number, t: Number, k: Number) -> Any:
    """k e t. Every contact counts: k (1/(cells time)); Lotka-Volterra, Holling I.

    >>> round(mass_action(50.0, 400.0, 1e-3), 9)
    20.0
    """
    return k * e * t


def holling_2(e: Number, t: Number, k: Number, h: Number) -> Any:
    """k e t / (h + t). Each effector at most k (1/time), half of it at h targets (cells).

    t << h: mass action at k / h; t >> h: k e. Holling 1959. As expansion it is `michaelis_menten`
    (De Boer & Perelson 1995).

    >>> holling_2(50.0, 400.0, 2.0, 100.0)
    80.0
    """
    return k * e * t / (h + t)


michaelis_menten = holling_2


def holling_3(e: Number, t: Number, k: Number, h: Number, n: Number) -> Any:
    """k e t^n / (h^n + t^n). As Holling II, but with n > 1 few targets escape notice.

    >>> round(float(holling_3(50.0, 400.0, 2.0, 100.0, 2.0)), 4)
    94.1176
    """
    return k * e * hill(t, h, n)


def saturating_in_effectors(e: Number, t: Number, k: Number, h: Number) -> Any:
    """k t e / (h + e). The tumour is lost at most at k (1/time), half of it at h effectors (cells).

    e >> h: k t, so that a cure needs k above the growth rate.

    >>> round(saturating_in_effectors(50.0, 400.0, 2.0, 100.0), 3)
    266.667
    """
    return holling_2(t, e, k, h)


def hill_in_effectors(e: Number, t: Number, k: Number, h: Number, n: Number) -> Any:
    """k t e^n / (h^n + e^n). As `saturating_in_effectors`, with a threshold for n > 1.

    >>> round(float(hill_in_effectors(50.0, 400.0, 2.0, 100.0, 2.0)), 9)
    160.0
    """
    return holling_3(t, e, k, h, n)


def ratio_dependent(e: Number, t: Number, k: Number, s: Number, n: Number) -> Any:
    """k t e^n / (s t^n + e^n). Only the ratio e / t counts: k (1/time), s and n without unit.

    e >> t: k t, for few targets too; e << t: (k / s) e^n t^(1-n). De Pillis & Radunskaya 2005.

    >>> round(float(ratio_dependent(50.0, 400.0, 2.0, 0.3, 1.4)), 3)
    122.817
    """
    return k * t * jax.nn.sigmoid(n * (_log(e) - _log(t)) - _log(s))


def beddington_deangelis(e: Number, t: Number, k: Number, a: Number, b: Number) -> Any:
    """k e t / (1 + a t + b e). Mass action k, less by many targets (a) or effectors (b, 1/cells).

    b = 0 is Holling II, a = 0 `saturating_in_effectors`; 1/a and 1/b are the half-saturations of
    "double saturation". Beddington 1975, DeAngelis 1975.

    >>> round(beddington_deangelis(50.0, 400.0, 1e-3, 0.01, 0.005), 5)
    3.80952
    """
    return k * e * t / (1.0 + a * t + b * e)


def one_to_one(e: Number, t: Number, k: Number, h: Number) -> Any:
    """k ((h+e+t) - sqrt((h+e+t)^2 - 4 e t)) / 2. Pairs of one effector and one target act at k.

    h (cells) is their dissociation constant. h -> 0: k min(e, t); one of them rare: Holling II in
    the other. With t the antigen-presenting sites, the expansion of De Boer & Perelson 1995.

    >>> round(float(one_to_one(50.0, 400.0, 2.0, 100.0)), 4)
    78.3009
    """
    both = e + t
    # the difference of squares written out: nothing cancels, and the root is never of 0
    root = jnp.sqrt(h * h + 2.0 * h * both + (e - t) ** 2 + NO_CELLS)
    return 2.0 * k * e * t / (h + both + root)


def lysis_driven(e: Number, lysed: Number, j: Number, h: Number) -> Any:
    """j e lysed^2 / (h + lysed^2). Expansion at most at j (1/time) by cells lysed per time.

    lysed is a killing law's value, h is in its unit squared. Owens & Bozic 2021.

    >>> lysis_driven(50.0, 20.0, 0.6, 400.0)
    15.0
    """
    return holling_2(e, lysed * lysed, j, h)


def low_antigen(e: Number, t: Number, k: Number, h: Number) -> Any:
    """k e h / (h + t). At most k (1/time) without antigen, half of it at h: effector to memory.

    >>> low_antigen(50.0, 100.0, 0.02, 100.0)
    0.5
    """
    return k * e * h / (h + t)


def exposure(s: Number, t: Number, h: Number, w: Number) -> Any:
    """t / (h + t) - w s. Antigen seen (half at h cells), forgotten at w (1/time); s in time.

    >>> exposure(1.0, 300.0, 100.0, 0.05)
    0.7
    """
    return t / (h + t) - w * s


def exhausted(k: Number, s: Number, n: Number) -> Any:
    """k / (1 + s^n). What a rate k falls to after the exposure s (in units of its half-effect).

    >>> round(float(exhausted(2.0, 1.0, 3.0)), 9)
    1.0
    """
    return k * hill(1.0, s, n)


def bystander(lysed: Number, positive: Number, negative: Number, b: Number) -> Any:
    """b lysed negative / (positive + negative). Antigen-negative cells lost beside lysed positives.

    lysed is the antigen-positive cells' killing, b (without unit) the share of it that spreads.

    >>> round(float(bystander(20.0, 300.0, 100.0, 0.1)), 9)
    0.5
    """
    return b * lysed * hill(negative, positive, 1.0)


def phase(t: Number, start: Number, end: Number = jnp.inf) -> Any:
    """min(max(t, start), end) - start. How much of the time up to t lies between start and end.

    exp(rho phase(t, on, off)) grows at rho within that window: closed forms with a lag, an
    expansion and a contraction are products of such factors (De Boer 2001, Stein 2019).

    >>> [float(phase(t, 2.0, 9.0)) for t in (1.0, 5.0, 20.0)]
    [0.0, 3.0, 7.0]
    """
    return jnp.clip(t, start, jnp.maximum(start, end)) - start


def extinction(t: Number, n: Number, birth: Number, death: Number) -> Any:
    """The probability that n cells are gone by time t when each divides and dies at random.

    (death (g - 1) / (birth g - death))^n with g = exp((birth - death) t); rates in 1/time.
    t -> infinity: min(1, death / birth)^n. Kendall 1948.

    >>> round(float(extinction(50.0, 10.0, 0.1, 0.2)), 6)
    0.966706
    """
    rarer = jnp.minimum(birth, death)
    net = jnp.maximum(birth, death) - rarer  # with the gradient of abs at 0 that is needed: 0
    small = net * t < 1e-5  # the quotient has a limit at net = 0: its series up to the cube
    safe = jnp.where(small, 1.0, net)
    w = jnp.where(small, t * (1.0 - net * t / 2.0 + (net * t) ** 2 / 6.0),
                  -jnp.expm1(-safe * t) / safe)
    return power_law(death * w / (1.0 + rarer * w), 1.0, n)


def _log(x: Number) -> Any:
    return jnp.log(jnp.maximum(x, NO_CELLS))
