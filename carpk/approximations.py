"""-2 log-likelihood of each patient by FO, FOCE, FOCEI and Laplace, with its exact gradient.

All leave out N log 2 pi, N the rows that enter through a density: NONMEM's scale. With phi at its
mode, J = -log p(y, phi) there and H a curvature of J,

    -2 log p(y) = 2 J + ln det H - K log 2 pi.

Laplace takes H exactly. FOCEI takes the expected information of every measured row and the exact
curvature of censored ones, and leaves second derivatives of the predictions out; FOCE also holds
the residual SDs at the typical patient's, and FO looks at nobody but the typical patient.

The gradient in the population parameters is by implicit differentiation: the mode follows the
population by -J_phiphi^-1 J_phiu. What it needs of second and third derivatives of the predictions
are central differences of looks along the axes of the posterior, one or two dozen looks in all.
"""

from __future__ import annotations

import copy
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from carpk.conditional import (
    FIRST,
    Curvature,
    Look,
    Modes,
    Patients,
    factor,
    information_of,
    log_determinant,
    precision,
    row_terms,
    stacked,
    uphill,
)
from carpk.empirical_bayes import shared_places
from carpk.likelihood import (
    patient_log_density,
    population_location,
    row_log_likelihood,
    to_theta,
)
from carpk.population_model import PopulationModel
from carpk.small_matrices import solve_lower
from carpk.solve import Arrays

Method = Literal["fo", "foce", "focei", "laplace"]
METHODS: tuple[Method, ...] = ("fo", "foce", "focei", "laplace")
_LOG_2PI = 1.8378770664093453
# of a posterior SD, in second differences: they lose 1e-6 of a fifth derivative, and divide
# 1e-16 of rounding by the square
_SECOND = 3e-3
_KINK = 30.0  # slope of ln det H per posterior SD, above which it is a jump


def binary_outputs(model: PopulationModel) -> list[str]:
    """The outputs that are 0 or 1: of the approximations only laplace has a place for them."""
    return [o for o, e in model.error_models().items() if e.binary]


class Likelihood(NamedTuple):
    """patients : (P,), each one's -2 log-likelihood without N log 2 pi; scores : (P, Q), their
    gradients in the free population parameters on the real line, or None; kinked : (P,), whose
    mode has no curvature, where scores are asked for."""

    patients: np.ndarray
    modes: Modes
    scores: np.ndarray | None
    kinked: np.ndarray | None = None


class Approximation:
    """One method on one model's patients, compiled once.

    >>> from carpk import design, example, population
    >>> from carpk.likelihood import data_of, from_theta
    >>> from carpk.preparation import resolve
    >>> few, asked = example("tisacel_like").select(["1", "2", "3"]), population("stein_2019")
    >>> seen = design(few, asked.structure)
    >>> model, _ = resolve(asked, seen, {})
    >>> method = Approximation(model, data_of(model, seen), "laplace")
    >>> u = from_theta(model, {n: model.priors[n].median for n in model.free})
    >>> method.likelihood(u).patients.shape
    (3,)
    """

    def __init__(self, model: PopulationModel, data: Arrays, method: Method) -> None:
        self.model, self.method = model, method
        self.patients = Patients(model, data, interaction=method in ("focei", "laplace"))
        self._programs = {f: jax.jit(lambda data, *args, f=f: f(model, data, *args)) for f in (
            _first_order, _conditional, _joint, _log_det, _focei_scores, _laplace_scores)}
        self._reads(data)

    def _reads(self, data: Arrays) -> None:
        self.data = self.patients.data = data
        binary = [k for k, e in enumerate(self.model.error_models().values()) if e.binary]
        self.constant = _LOG_2PI * np.sum(
            np.asarray(data["observed"]) & ~np.isin(np.asarray(data["output"]), binary) & (
                np.asarray(data["lower"]) == np.asarray(data["upper"])), axis=1)
        self._run = {f: functools.partial(p, data) for f, p in self._programs.items()}

    def of(self, data: Arrays) -> Approximation:
        """The same programs on other data of the same shape."""
        other = copy.copy(self)
        other.patients = copy.copy(self.patients)
        other._reads(data)
        return other

    def likelihood(self, u: Any, start: Any = None,
                   scores: bool = False) -> Likelihood:
        """At the population u (Q,), the free parameters on the real line.

        start : (P, K), where to look for the modes; those of a near u, say
        scores : with the gradients; of focei and laplace alone
        """
        if self.method == "fo":
            phi = self.patients.typical(u)
            look = self.patients.look(u, phi)
            value = np.asarray(self._run[_first_order](u, look))
            return Likelihood(value - self.constant,
                              Modes(phi, look, np.zeros(len(value))), None)
        modes = self.patients.modes(u, start)
        if self.method == "laplace":
            value, more = self._laplace(u, modes, scores)
        else:
            value = self._run[_conditional](u, modes.phi, modes.look)
            more = self._focei(u, modes) if scores else ()
        slopes, kinked = map(np.asarray, more) if more else (None, None)
        return Likelihood(np.asarray(value) - self.constant, modes, slopes, kinked)

    def _laplace(self, u: Any, modes: Modes, scores: bool) \
            -> tuple[np.ndarray, tuple[Any, ...]]:
        curvature = self.patients.curvature(u, modes)[0]
        value = np.asarray(self._run[_joint](u, modes.phi, modes.look)) \
            + np.asarray(curvature.log_det)
        if not scores:
            return value, ()
        sides = [side for pair in self.patients.both_sides(
            u, modes.phi, curvature.axes, _SECOND)
                 for side in pair]
        here = np.asarray(modes.look.gradient)
        bend = sum(((np.asarray(s.gradient) - here) / _SECOND**2 for s in sides),
                   np.zeros_like(here))
        moved = np.stack([s.predicted for s in sides]) if sides else \
            np.zeros((0, *modes.look.predicted.shape))
        return value, (self._run[_laplace_scores](
            u, modes.phi, modes.look, curvature, -bend, moved), ~np.asarray(curvature.exact))

    def _focei(self, u: Any, modes: Modes) -> tuple[Any, ...]:
        """(P, Q), scores; (P,), kinked."""
        curvature, sides = self.patients.curvature(u, modes)
        for k in self.patients.shared:
            step = FIRST * (np.arange(len(u)) == k)
            sides.append((self.patients.look(u + step, modes.phi),
                          self.patients.look(u - step, modes.phi)))

        def log_det(look: Look) -> np.ndarray:
            return np.asarray(self._run[_log_det](u, look))

        with np.errstate(invalid="ignore"):  # where a solve failed on both sides
            slopes = [(log_det(a) - log_det(b)) / (2 * FIRST) for a, b in sides]
        return (self._run[_focei_scores](u, modes.phi, modes.look, curvature, stacked(
            slopes, modes.look.value)), ~np.asarray(curvature.exact))


def _joint(model: PopulationModel, data: Arrays, u: jax.Array, phi: jax.Array, look: Look) \
        -> jax.Array:
    """(P,), 2 J - K log 2 pi."""
    density = look.value + patient_log_density(model, data, to_theta(model, u), phi)
    return -2.0 * density - phi.shape[1] * _LOG_2PI


def _log_det(model: PopulationModel, data: Arrays, u: jax.Array, look: Look) -> jax.Array:
    """(P,), ln det H of FOCE and FOCEI."""
    low = factor(model, data, to_theta(model, u), _information(data, look))
    return log_determinant(low, look.value)


def _information(data: Arrays, look: Look) -> jax.Array:
    """(P, K, K), by the rows' own weights."""
    return information_of(data, look.weight, look.jacobian[..., :look.information.shape[-1]])


def _conditional(model: PopulationModel, data: Arrays, u: jax.Array, phi: jax.Array,
                 look: Look) -> jax.Array:
    """(P,), FOCE and FOCEI with the constant."""
    return _joint(model, data, u, phi, look) + _log_det(model, data, u, look)


def _first_order(model: PopulationModel, data: Arrays, u: jax.Array, look: Look) -> jax.Array:
    """(P,), FO with the constant: a normal y with what the predictions' slopes at the typical
    patient make of Omega. b' H^-1 b is what a mode of the linear model would gain."""
    k = look.information.shape[-1]
    low = factor(model, data, to_theta(model, u), _information(data, look))
    gain = solve_lower(low, [look.gradient[:, i] for i in range(k)])
    _, spread = population_location(model, data, to_theta(model, u))
    return (-2.0 * look.value - sum((x**2 for x in gain), jnp.zeros_like(look.value))
            + log_determinant(low, look.value)
            + sum((2.0 * jnp.log(row[i]) for i, row in enumerate(spread)), jnp.zeros(())))


def _scores(model: PopulationModel, data: Arrays, u: jax.Array, phi: jax.Array, look: Look,
            curvature: Curvature, along: jax.Array, shared: jax.Array, extra: Any) -> jax.Array:
    """(P, Q), gradients of 2 J + ln det H with the mode following u.

    along : (P, K), slope of ln det H along the rough axes; shared : (P, S), in the shared places
    extra : u -> (P,), what of ln det H depends on u at a fixed phi, predictions held
    """
    k = phi.shape[1]
    # a mode on a kink stays on it; beside one, third derivatives are none either
    smooth = curvature.exact & jnp.all(jnp.abs(along) < _KINK, axis=1)
    along, shared = (jnp.where(smooth[:, None], x, 0.0) for x in (along, shared))
    y = jnp.einsum("pkl,pml,pm->pk", curvature.turn, curvature.turn, along)
    v = jnp.einsum("pkm,pm->pk", curvature.rough, y)

    def value(u: jax.Array) -> jax.Array:
        theta = to_theta(model, u)
        rows, slope, _ = row_terms(model, data, theta, look.predicted)
        density = rows.sum(axis=1) + patient_log_density(model, data, theta, phi)
        gradient = jnp.einsum("pn,pnk->pk", slope, look.jacobian[..., :k])
        rising = uphill(model, data, theta, phi, gradient)
        return -2.0 * density + extra(u) + jnp.einsum("pk,pk->p", v, rising)

    scores = jax.jacfwd(value)(u)
    moved = -2.0 * look.gradient[:, k:] + shared + jnp.einsum(
        "psm,pm->ps", curvature.mixed[:, k:], y)
    return scores.at[:, shared_places(model)].add(moved)


def _focei_scores(model: PopulationModel, data: Arrays, u: jax.Array, phi: jax.Array,
                  look: Look, curvature: Curvature, slopes: jax.Array) -> jax.Array:
    """slopes : (P, K + S), of ln det H along the rough axes and in the shared places."""
    k = phi.shape[1]
    return _scores(model, data, u, phi, look, curvature, slopes[:, :k], slopes[:, k:],
                   lambda u: _weighed_log_det(model, data, u, look))


def _weighed_log_det(model: PopulationModel, data: Arrays, u: jax.Array, look: Look) -> jax.Array:
    """ln det H at the predictions of a look, as a function of u."""
    _, _, weight = row_terms(model, data, to_theta(model, u), look.predicted)
    return _log_det(model, data, u, look._replace(weight=weight))


def _laplace_scores(model: PopulationModel, data: Arrays, u: jax.Array, phi: jax.Array,
                    look: Look, curvature: Curvature, bend: jax.Array, moved: jax.Array) \
        -> jax.Array:
    """bend : (P, K + S), slope of ln det H = tr(H^-1 dH), a sum of third derivatives of J along
    the axes W of H^-1 = W W'; moved : (2 K, P, N), predictions to either side along them."""
    k = phi.shape[1]

    def trace(u: jax.Array) -> jax.Array:
        theta = to_theta(model, u)

        def rows(predicted: jax.Array) -> jax.Array:
            return row_log_likelihood(model, data, theta, predicted).sum(axis=1)

        second = (jax.vmap(rows)(moved) - rows(look.predicted)[None]).sum(axis=0) / _SECOND**2
        smooth = -second + jnp.einsum("pkm,kl,plm->p", curvature.axes,
                                      precision(model, data, theta), curvature.axes)
        return jnp.where(curvature.exact, smooth, _weighed_log_det(model, data, u, look))

    bend = jnp.where(curvature.exact[:, None], bend, 0.0)
    along = jnp.einsum("pkm,pk->pm", curvature.rough, bend[:, :k])
    return _scores(model, data, u, phi, look, curvature, along, bend[:, k:], trace)
