"""Each patient's likelihood with phi integrated out, at many draws of the population."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from carpk.climbing import Between
from carpk.conditional import Patients
from carpk.importance import factor_of, placed, spread_t, t_log_density
from carpk.small_matrices import Rows

_INNER = 100  # draws of each patient's phi, at each draw of the population


class Told(NamedTuple):
    """What a patient's own data tell of phi, as a quadratic: information (P, K, K), and linear
    (P, K), the information times where the data alone put phi."""

    information: np.ndarray
    linear: np.ndarray


def log_marginals(patients: Patients, us: np.ndarray, centre: np.ndarray, covariance: np.ndarray,
                  seed: int = 1, draws: int = _INNER) -> np.ndarray:
    """(S, P): log p(y_i | population) at each of us (S, Q).

    centre (P, K), covariance (P, K, K) : of phi over the whole posterior

    Importance sampling from equal parts of two multivariate t, weighed by their mixture (Owen and
    Zhou 2000, J Am Stat Assoc 95:135). One follows the population: the patient's own information
    on phi, which hardly depends on it, is joined to the location and the spreads of that draw, so
    that it shrinks with an omega that comes near 0. The other is the patient's whole posterior,
    for what a quadratic does not tell. Of a mixture the first is there for each class.
    """
    random, told = np.random.default_rng(seed), _told(patients, us.mean(axis=0), centre)
    whole = centre, factor_of(covariance)
    classes = _by_class(patients)
    return np.stack([_log_marginal(patients, u, [
        *(following(known.between(u), told) for known in classes), whole], random, draws)
        for u in us])


def _told(patients: Patients, u: np.ndarray, phi: np.ndarray) -> Told:
    """At phi (P, K); nothing of a patient without a solution there."""
    look = patients.look(u, phi)
    solved = np.isfinite(look.value) & np.isfinite(look.information).all(axis=(1, 2))
    information = np.where(solved[:, None, None], look.information, 0.0)
    linear = np.einsum("pkl,pl->pk", information, phi) + np.where(
        solved[:, None], look.gradient[:, :phi.shape[1]], 0.0)
    return Told(information, linear)


def _by_class(patients: Patients) -> list[Patients]:
    """The patients as if all were of one class, for each class there is."""
    mixture = patients.model.mixture
    if mixture is None:
        return [patients]
    each = jnp.eye(mixture.count)
    return [Patients(patients.model, {**patients.data, "classes": jnp.tile(
        row, (patients.count, 1))}) for row in each]


def following(at: Between, told: Told) -> tuple[np.ndarray, Rows]:
    """Centre (P, K) and factor of phi given the data, of a quadratic likelihood, in units of the
    spreads: of one of 0 nothing is divided by it.

    >>> one = Between(np.array([[1.0]]), [{0: 2.0}], None)
    >>> centre, low = following(one, Told(np.array([[[0.25]]]), np.array([[0.75]])))
    >>> round(float(centre[0, 0]), 9), round(float(low[0][0][0] ** 2), 9)  # halfway from 1 to 3
    (2.0, 2.0)
    """
    size = len(at.low)
    wide = np.array([[float(row.get(j, 0.0)) for j in range(size)] for row in at.low]).reshape(
        size, size)
    left = np.linalg.inv(np.eye(size) + wide.T @ told.information @ wide)
    away = told.linear - np.einsum("pkl,pl->pk", told.information, at.mu)
    return (at.mu + np.einsum("pkl,pl->pk", wide @ left @ wide.T, away),
            factor_of(wide @ left @ wide.T))


def _log_marginal(patients: Patients, u: Any, proposals: Sequence[tuple[np.ndarray, Rows]],
                  random: np.random.Generator, draws: int) -> np.ndarray:
    """(P,), by draws from each of the proposals."""
    counts = [len(part) for part in np.array_split(np.arange(draws), len(proposals))]
    phi = np.concatenate([placed(centre, low, spread_t(random, (count, *centre.shape)))
                          for count, (centre, low) in zip(counts, proposals, strict=True)])
    proposed = logsumexp([np.log(count / draws) + t_log_density(centre, low, phi)
                          for count, (centre, low) in zip(counts, proposals, strict=True)], axis=0)
    return logsumexp(patients.densities(u, phi) - proposed, axis=0) - np.log(draws)
