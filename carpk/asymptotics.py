"""What a maximum of the likelihood leaves uncertain: standard errors, correlations, the flat
direction, and draws from the asymptotic normal."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from carpk.correlated import correlations
from carpk.likelihood import to_theta
from carpk.population_model import PopulationModel

_LARGEST = float(np.finfo(float).max)
_STEP = 1e-3  # of a standard error: gradients are exact to 1e-6
_FLAT = 1e-6  # of the largest eigenvalue, in units of each parameter's own: no information
_AT_BOUND = 1e-3  # of what is a large spread: below it patients do not differ


class Uncertainty(NamedTuple):
    """On the real line, of the Q free parameters; 0 in the places of those that `at_zero` names,
    given whose values it is.

    covariance : (Q, Q), the inverse of the observed information; where that is not positive
        definite, the inverse of the sum of squared scores stands in the directions it lacks
    sandwich : (Q, Q), covariance x sum of squared scores x covariance
    condition : largest over smallest eigenvalue of the correlation matrix
    flat : a sentence on the direction without information, or ""
    """

    covariance: np.ndarray
    sandwich: np.ndarray
    condition: float
    flat: str


def hessian_of(gradient: Callable[[np.ndarray], np.ndarray], u: np.ndarray,
               sizes: np.ndarray) -> np.ndarray:
    """(Q, Q), symmetrised central differences of a gradient, some at a time; sizes (Q,): of a
    standard error."""
    steps = _STEP * np.diag(sizes)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        after, before = (np.stack(list(side), axis=1) for side in (
            pool.map(gradient, u + steps), pool.map(gradient, u - steps)))
    matrix = (after - before) / (2 * _STEP * sizes)
    return 0.5 * (matrix + matrix.T)


def at_zero(model: PopulationModel, theta: Mapping[str, Any]) -> dict[str, str]:
    """The free parameters that have no standard error, and of each the spread at its bound of 0
    that it is, or is a correlation of; theta : values by name, natural scale."""
    near = [n for n in dict.fromkeys(model.sds) if n in model.free and float(theta[n])
            < _AT_BOUND * model.structure.parameter(n.partition("_")[2]).size]
    pairs = [(a, b) for block in model.blocks for k, b in enumerate(block) for a in block[:k]]
    return {n: n for n in near} | {
        name: f"omega_{n}" for pair in pairs for n in pair
        if f"omega_{n}" in near and (name := correlations(pair)[0]) in model.free}


def inside(model: PopulationModel, u: np.ndarray) -> np.ndarray:
    """(Q,): which free parameters are not among those of `at_zero`."""
    lost = at_zero(model, to_theta(model, jnp.asarray(u)))
    return np.array([n not in lost for n in model.free])


def said_of_zero(model: PopulationModel, u: np.ndarray) -> list[str]:
    """Of the spreads that came to their bound, at most one sentence."""
    near = [n for n in at_zero(model, to_theta(model, jnp.asarray(u))) if n in model.sds]
    it, own, are = ("it", "its", "is") if len(near) == 1 else ("they", "their", "are")
    return [f"{' and '.join(near)} {are} at {own} bound of 0: {own} standard error is not defined, "
            f"and those of the others are given that {it} {are} 0"] if near else []


def uncertainty(model: PopulationModel, u: np.ndarray, hessian: np.ndarray,
                scores: np.ndarray) -> Uncertainty:
    """From the Hessian (Q, Q) and the patients' gradients (P, Q) of -2 log-likelihood at u (Q,)."""
    size, places = len(u), np.flatnonzero(inside(model, u))
    block = np.ix_(places, places)
    squares = 0.25 * scores[:, places].T @ scores[:, places]
    information = 0.5 * hessian[block]
    scale = 1.0 / np.sqrt(np.maximum(np.maximum(
        np.diagonal(information), np.diagonal(squares)), 1e-300))
    own, axes = np.linalg.eigh(information * np.outer(scale, scale))
    flat = own <= _FLAT * own.max(initial=0.0)
    said = ""
    if flat.any():
        # what the scores know stands in: it is at least positive
        borrowed = np.einsum("qa,qr,ra->a", axes, squares * np.outer(scale, scale), axes)
        own = np.where(flat, np.maximum(borrowed, 1e-3), own)
        said = _named([model.free[k] for k in places],
                      axes[:, int(np.argmin(np.where(flat, own, np.inf)))])
    covariance, sandwich = np.zeros((size, size)), np.zeros((size, size))
    covariance[block] = known = np.outer(scale, scale) * ((axes / own) @ axes.T)
    sandwich[block] = known @ squares @ known
    return Uncertainty(covariance, sandwich, condition_of(covariance), said)


def condition_of(covariance: np.ndarray) -> float:
    """Largest over smallest eigenvalue of the correlation matrix of what varies."""
    places = np.flatnonzero(np.diagonal(covariance))
    sds = np.sqrt(np.diagonal(covariance)[places])
    own = np.linalg.eigvalsh(covariance[np.ix_(places, places)] / np.outer(sds, sds))
    return float(own.max(initial=1.0) / max(own.min(initial=1.0), 1e-300))


def _named(names: Sequence[str], direction: np.ndarray) -> str:
    """The parameters that move along a direction, the most first."""
    share = direction**2 / np.sum(direction**2)
    order = [k for k in np.argsort(-share) if share[k] > 0.05][:4]
    moving = " and ".join(names[k] for k in order)
    together = "along one combination of " if len(order) > 1 else "along "
    return f"the likelihood is flat {together}{moving}"


def natural_scale(model: PopulationModel, u: np.ndarray, covariances: Sequence[np.ndarray] = (),
                  ends: np.ndarray | None = None) \
        -> tuple[dict[str, float], list[dict[str, float]], dict[str, np.ndarray]]:
    """Estimates by name on the natural scale, standard errors by the delta method of each
    covariance (Q, Q), and what other u (M, Q) are there."""
    def free(u: jax.Array) -> dict[str, Any]:
        theta = to_theta(model, u)
        return {n: theta[n] for n in model.free}

    @jax.jit
    def all_of_it(u: jax.Array, ends: jax.Array) -> Any:
        return free(u), jax.jacfwd(free)(u), jax.vmap(free)(ends)

    values, slopes, moved = all_of_it(u, np.zeros((0, len(u))) if ends is None else ends)
    ses = [{n: float(np.sqrt(max(float(np.asarray(s) @ c @ np.asarray(s)), 0.0)))
            for n, s in slopes.items()} for c in covariances]
    return {n: float(v) for n, v in values.items()}, ses, {
        n: np.asarray(v) for n, v in moved.items()}


def estimates(model: PopulationModel, u: np.ndarray, known: Uncertainty) \
        -> dict[str, dict[str, float]]:
    """By name: estimate, se, lower95, upper95 (from the real line, so that they keep to the
    bounds), and se_sandwich. A spread at its bound of 0 has 0 for its se, where none is defined."""
    half = 1.959963984540054 * np.sqrt(np.diagonal(known.covariance))
    values, (ses, robust), ends = natural_scale(model, u, (known.covariance, known.sandwich),
                                                np.stack([u - half, u + half]))
    joint = {n for n in model.free if n.startswith("corr_")}  # ends of partial ones would mislead
    table = {}
    for n in model.free:
        low, high = (float(e) for e in ends[n])
        if n in joint:
            wide = 1.959963984540054 * ses[n] / max(1.0 - values[n]**2, 1e-12)
            low, high = (float(np.tanh(np.arctanh(values[n]) + s * wide)) for s in (-1, 1))
        # an end beyond all numbers, of what the data know nothing of, is the largest one there is
        table[n] = {k: float(np.clip(v, -_LARGEST, _LARGEST)) for k, v in {
            "estimate": values[n], "se": ses[n], "lower95": low, "upper95": high,
            "se_sandwich": robust[n]}.items()}
    return table


def normal_draws(u: np.ndarray, covariance: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(draws, Q), an odd number of them: u itself, then pairs at either side of it, scaled to
    have exactly this covariance, so that medians and SDs of draws are no lottery."""
    half = (draws - 1) // 2
    z = np.random.default_rng(seed).normal(size=(half, len(u)))
    if half > len(u):
        z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / half).T)
    own, axes = np.linalg.eigh(covariance)
    away = z @ (axes * np.sqrt(np.maximum(own, 0.0))).T
    return np.concatenate([u[None], u + away, u - away])
