"""What a maximum of the likelihood leaves uncertain: standard errors, correlations, the flat
direction, and draws from the asymptotic normal."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from carpk.likelihood import to_theta
from carpk.population_model import PopulationModel

_STEP = 1e-3  # of a standard error: gradients are exact to 1e-6
_FLAT = 1e-6  # of the largest eigenvalue, in standard errors by the scores: no information


class Uncertainty(NamedTuple):
    """On the real line, of the Q free parameters.

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


def uncertainty(model: PopulationModel, hessian: np.ndarray, scores: np.ndarray) -> Uncertainty:
    """From the Hessian (Q, Q) and the patients' gradients (P, Q) of -2 log-likelihood."""
    squares = 0.25 * scores.T @ scores
    information = 0.5 * hessian
    scale = 1.0 / np.sqrt(np.maximum(np.diagonal(squares), 1e-300))
    own, axes = np.linalg.eigh(information * np.outer(scale, scale))
    flat = own <= _FLAT * own.max()
    said = ""
    if flat.any():
        # what the scores know stands in: it is at least positive
        borrowed = np.einsum("qa,qr,ra->a", axes, squares * np.outer(scale, scale), axes)
        own = np.where(flat, np.maximum(borrowed, 1e-3), own)
        said = _named(model, axes[:, int(np.argmin(np.where(flat, own, np.inf)))])
    covariance = np.outer(scale, scale) * ((axes / own) @ axes.T)
    sds = np.sqrt(np.diagonal(covariance))
    spread = np.linalg.eigvalsh(covariance / np.outer(sds, sds))
    return Uncertainty(covariance, covariance @ squares @ covariance,
                       float(spread.max() / max(spread.min(), 1e-300)), said)


def _named(model: PopulationModel, direction: np.ndarray) -> str:
    """The parameters that move along a direction, the most first."""
    share = direction**2 / np.sum(direction**2)
    order = [k for k in np.argsort(-share) if share[k] > 0.05][:4]
    names = " and ".join(model.free[k] for k in order)
    together = "along one combination of " if len(order) > 1 else "along "
    return f"the likelihood is flat {together}{names}"


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
