"""-2 log-likelihood of each patient by importance sampling: exact but for Monte Carlo noise."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import gammaln, softmax

from carpk.conditional import Patients, by_entries
from carpk.small_matrices import Rows, cholesky, multiplied, solve_lower

FREEDOM = 5.0  # of the proposal's Student t: heavier tails than any posterior met here
_PILOT = 500  # draws that only shape the proposal


class Sampled(NamedTuple):
    """patients : (P,), -2 log-likelihoods with the constant; se : (P,), Monte Carlo SEs;
    log_weights : (M, P), of the draws."""

    patients: np.ndarray
    se: np.ndarray
    log_weights: np.ndarray


class Moments(NamedTuple):
    """Of each patient's phi given y: mean (P, K), covariance (P, K, K), and how many independent
    draws they are worth (P,)."""

    mean: np.ndarray
    covariance: np.ndarray
    effective: np.ndarray


def importance_sampled(patients: Patients, u: Any, centre: np.ndarray, axes: np.ndarray,
                       draws: int, seed: int) -> Sampled:
    """log p(y_i) as the mean of p(y_i, phi) / q_i(phi) over draws from q_i.

    q_i is a multivariate t around the mode with the curvature's inverse as its scale, moved once
    to the mean and covariance that a pilot of draws gives.
    centre : (P, K), modes; axes : (P, K, K), W with W W' the first scale
    """
    weights, _ = _drawn(patients, u, centre, axes @ np.swapaxes(axes, 1, 2), draws, seed, _PILOT)
    highest = weights.max(axis=0)
    with np.errstate(invalid="ignore"):  # of a patient without a solution
        share = np.exp(weights - highest)
    mean = share.mean(axis=0)
    return Sampled(-2.0 * (highest + np.log(mean)),
                   2.0 * share.std(axis=0, ddof=1) / mean / len(share)**0.5, weights)


def conditional_moments(patients: Patients, u: Any, centre: np.ndarray, scale: np.ndarray,
                        draws: int, seed: int) -> Moments:
    """What EM needs of each patient, exact but for Monte Carlo noise; see `importance_sampled`.

    scale : (P, K, K), about the covariance
    """
    weights, phi = _drawn(patients, u, centre, scale, draws, seed, draws)
    return _moments(weights, phi)


def _drawn(patients: Patients, u: Any, centre: np.ndarray, scale: np.ndarray, draws: int,
           seed: int, pilot: int) -> tuple[np.ndarray, np.ndarray]:
    """Log weights and draws of the proposal that a pilot of draws has moved."""
    random, low = np.random.default_rng(seed), factor_of(scale)
    first = weighed(patients, u, centre, low, spread_t(random, (pilot, *centre.shape)))
    centre, low = _reshaped(_moments(*first), centre, low)
    return weighed(patients, u, centre, low, spread_t(random, (draws, *centre.shape)))


def _moments(log_weights: np.ndarray, phi: np.ndarray) -> Moments:
    with np.errstate(invalid="ignore"):
        weight = softmax(log_weights, axis=0)
    mean = np.einsum("mp,mpk->pk", weight, phi)
    away = phi - mean
    covariance = np.moveaxis(away * weight[..., None], 0, 2) @ np.moveaxis(away, 0, 1)
    return Moments(mean, covariance, 1.0 / np.sum(weight**2, axis=0))


def spread_t(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws of an uncorrelated t, as `weighed` takes them."""
    scale = random.chisquare(FREEDOM, size=(*shape[:-1], 1)) / FREEDOM
    return random.normal(size=shape) / np.sqrt(scale)


def weighed(patients: Patients, u: Any, centre: np.ndarray, low: Rows, z: np.ndarray) \
        -> tuple[np.ndarray, np.ndarray]:
    """Log weights (M, P) and the draws (M, P, K); one whose solve failed weighs nothing.

    z : (M, P, K), of `spread_t`; centre : (P, K) and low : by entries (P,), what becomes of it
    """
    phi = placed(centre, low, z)
    proposed = t_log_density(centre, low, phi)
    return patients.densities(u, phi) - proposed, phi


def placed(centre: np.ndarray, low: Rows, z: np.ndarray) -> np.ndarray:
    """Draws (M, P, K) of `spread_t` around centre (P, K), by the factor low."""
    moved = multiplied(low, [z[..., i] for i in range(z.shape[-1])])
    return centre + np.stack(moved, axis=-1) if moved else z


def t_log_density(centre: np.ndarray, low: Rows, phi: np.ndarray) -> np.ndarray:
    """(M, P): of phi (M, P, K), under the multivariate t that `placed` draws from."""
    k = len(low)
    z = solve_lower(low, [phi[..., i] - centre[:, i] for i in range(k)])
    squares = sum((x**2 for x in z), np.zeros(phi.shape[:-1]))
    volume = sum((np.log(row[i]) for i, row in enumerate(low)), np.zeros(len(centre)))
    density: np.ndarray = gammaln((FREEDOM + k) / 2) - gammaln(FREEDOM / 2) \
        - 0.5 * k * np.log(FREEDOM * np.pi) - volume \
        - 0.5 * (FREEDOM + k) * np.log1p(squares / FREEDOM)
    return density


def factor_of(matrices: np.ndarray) -> Rows:
    """Lower factors of symmetric matrices (P, K, K), by entries."""
    with np.errstate(invalid="ignore"):
        return cholesky([{j: row[j] for j in range(i + 1)}
                         for i, row in enumerate(by_entries(matrices))])


def _reshaped(found: Moments, centre: np.ndarray, low: Rows) -> tuple[np.ndarray, Rows]:
    """Centre and factor of the draws' own mean and covariance; where few of them carry the
    weight, mostly those there were."""
    trust = found.effective / (found.effective + 20.0)
    size = centre.shape[1]
    before = [[sum(low[i][m] * low[j][m] for m in range(min(i, j) + 1)) for j in range(size)]
              for i in range(size)]
    blended = [{j: trust * found.covariance[:, i, j] + (1.0 - trust) * before[i][j]
                for j in range(i + 1)} for i in range(size)]
    with np.errstate(invalid="ignore"):
        return centre + trust[:, None] * (found.mean - centre), cholesky(blended)
