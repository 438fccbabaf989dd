"""Which information standard errors are of: observed, expected, or both by the sandwich.

The expected information of a population is the variance of a patient's score under the model
itself, summed over the patients of the design: here by simulation, with censoring as it was (cf.
Riviere MK, Ueckert S, Mentre F. Biostatistics 2016;17:737-750). A first-order formula would need
no simulation but knows neither censored rows nor the curvature of the model.

Of an exact likelihood that variance is the mean Hessian (Bartlett), of an approximate one nearly.
Of the 60 patients of `bauer501`, SEs of omega_CL, omega_V and sigma by 12 000 simulated patients
and by the mean Hessian of 40 simulated cohorts, good to 2.5 % each: by laplace 0.0249 and 0.0242,
0.0311 and 0.0310, 0.0147 and 0.0150; by focei 0.0236 and 0.0249, 0.0298 and 0.0315, 0.0141 and
0.0145, where the sandwich of the two has 0.0264 of omega_CL and 40 refits an SD of 0.0260: of
focei's spreads the expected SE is some 5 to 10 % too small. The observed SE of omega_CL in the data
themselves is 0.0193 by laplace and 0.0261 by focei: one far patient (ID 36) bends either likelihood
in a way of its own; without it the expected SE is 1.01 and 0.95 of the observed one, instead of
1.28 and 0.89.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from carpk.approximations import Approximation
from carpk.asymptotics import Uncertainty, condition_of, inside, uncertainty
from carpk.cohort import quantification_limits
from carpk.geometry import noncentred
from carpk.likelihood import drawn_rows, population_location, predicted_rows, to_theta
from carpk.population_model import PopulationModel
from carpk.solve import Arrays

COVARIANCES = ("observed", "expected", "sandwich")
Slopes = Callable[[Approximation, np.ndarray, Any], np.ndarray]
"""Of an approximation, u (Q,) and phi (P, K) near the modes: gradients (P, Q) of -2 log-likelihood.
"""
# patients in all: SEs are then good to 1 or 2 %, of a spread, whose scores have a kurtosis of up to
# 15, to 2.5 %; parts of them
_SIMULATED, _BATCHES = 6000, 10


def as_asked(which: str, known: Uncertainty, approximation: Approximation, u: np.ndarray,
             scores: np.ndarray, slopes: Slopes, seed: int) -> tuple[Uncertainty, tuple[str, ...]]:
    """The uncertainty with the covariance that was asked for, and what is to be said of it.

    known : by the observed information; scores (P, Q), of -2 log-likelihood at u (Q,)
    """
    if which == "observed":
        return known, ()
    said = f"standard errors are by the {which}" + " information" * (which == "expected")
    if which == "sandwich":
        return known._replace(covariance=known.sandwich,
                              condition=condition_of(known.sandwich)), (said,)
    parts = simulated_information(approximation, u, slopes, seed)
    model, whole = approximation.model, parts.mean(axis=0)
    there = inside(model, u)
    expected = uncertainty(model, u, 2.0 * whole, scores)
    # jackknife over the parts: how far other simulations would move a standard error
    others = np.stack([np.diagonal(uncertainty(model, u, 2.0 * (len(parts) * whole - part)
                                               / (len(parts) - 1), scores).covariance)[there]
                       for part in parts])
    noise = np.sqrt((len(parts) - 1) * np.log(others).var(axis=0)).max() / 2
    count = _each(len(scores)) * _BATCHES * len(scores)
    return expected._replace(sandwich=known.sandwich), (
        f"{said} of {count} simulated patients, good to {max(100 * noise, 0.1):.1g} %",)


def simulated_information(approximation: Approximation, u: np.ndarray, slopes: Slopes, seed: int,
                         simulated: int = _SIMULATED) -> np.ndarray:
    """(parts, Q, Q), whose mean is the expected information at u (Q,) on the real line.

    Scores of an approximate likelihood need not have mean 0: their variance is taken. A patient
    whose simulated solve fails counts by the other simulations of the same patient.
    """
    model, data = approximation.model, approximation.data
    draw = jax.jit(lambda data, u, key: new_cohort(model, data, u, key))
    limit, patients = _limits(data), data["time"].shape[0]
    each = _each(patients, simulated)
    parts = []
    for b in range(_BATCHES):
        found = []
        for m in range(each):
            y, phi = map(np.asarray, draw(data, u, jax.random.fold_in(
                jax.random.key(seed), b * each + m)))
            solved = np.all(np.isfinite(y) | ~np.asarray(data["observed"]), axis=1)
            other = approximation.of(censored_below(data, y, limit))
            found.append(np.where(solved[:, None], slopes(other, u, phi), np.nan))
        scores = -0.5 * np.stack(found)
        lost = ~np.all(np.isfinite(scores), axis=2)
        count = np.maximum((~lost).sum(axis=0), 1)
        scores = np.where(lost[..., None], 0.0, scores)
        away = np.where(lost[..., None], 0.0, scores - scores.sum(axis=0) / count[:, None])
        parts.append(np.einsum("mpq,mpr,p->qr", away, away, 1.0 / np.maximum(count - 1, 1)))
    return np.stack(parts)


def _each(patients: int, simulated: int = _SIMULATED) -> int:
    """Simulated cohorts of a part."""
    return max(math.ceil(simulated / patients / _BATCHES), 3)


def new_cohort(model: PopulationModel, data: Arrays, u: jax.Array, key: jax.Array) \
        -> tuple[jax.Array, jax.Array]:
    """Other patients of the population u (Q,) in the places of the design: what is measured of
    them (P, N), NaN where a solve failed, and their phi (P, K). Etas are normal."""
    theta, (between, within) = to_theta(model, u), jax.random.split(key)
    mu, low = population_location(model, data, theta)
    phi = noncentred(jax.random.normal(between, mu.shape), mu, low)[0] if model.sds else mu
    predicted = predicted_rows(model, data, theta, phi)
    return drawn_rows(model, data, theta, predicted, within), phi


def censored_below(data: Arrays, y: np.ndarray, limit: np.ndarray) -> Arrays:
    """The same design with other measurements y (P, N), censored below limits (P, N)."""
    hidden = y < limit
    return {**data, "lower": jnp.asarray(np.where(hidden, -np.inf, y)),
            "upper": jnp.asarray(np.where(hidden, limit, y))}


def _limits(data: Arrays) -> np.ndarray:
    """(P, N), as far as censored rows tell: a row's own, or of the patient's nearest in time."""
    here, output, time, lower, upper = (np.asarray(data[n]) for n in (
        "observed", "output", "time", "lower", "upper"))
    patient = np.broadcast_to(np.arange(len(here))[:, None], here.shape)
    block = np.full(here.shape, -np.inf)
    block[here] = quantification_limits(patient[here], output[here], time[here], lower[here],
                                        upper[here], None)
    return block
