"""-2 log-likelihood of each patient by FO, FOCE, FOCEI and Laplace, with its exact gradient.

All leave out N log 2 pi, N the rows that enter through a density: NONMEM's scale. With phi at its
mode, J = -log p(y, phi) there and H a curvature of J,

    -2 log p(y) = 2 J + ln det H - K log 2 pi.

Laplace takes H exactly. FOCEI takes the expected information of every measured row and the exact
curvature of censored ones, and leaves second derivatives of the predictions out; FOCE also holds
the residual SDs at the typical patient's, and FO looks at nobody but the typical patient.

The gradient in the population parameters is by implicit differentiation: the mode follows the
population by -J_phiphi^-1 J_phiu. What it needs of second and third derivatives of the predictions
are central differences of looks along the axes of the posterior, one or two dozen looks in all;
what the population does at held predictions costs next to nothing and is by differences too. FO has
no modes: it is differentiated as it stands.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from carpk.climbing import Between, Top, uphill
from carpk.conditional import (
    FIRST,
    Curvature,
    Moves,
    Patients,
    between,
    factor,
    log_determinant,
    stacked,
)
from carpk.population_model import PopulationModel
from carpk.problems import Problem, RequestError
from carpk.sensitivities import Look, information_of, look_at, typical_sds
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


def refuse_binary(model: PopulationModel, method: str, instead: str) -> None:
    """RequestError where a method but for laplace is asked for a binary output."""
    for o in binary_outputs(model) if method in ("fo", "foce", "focei") else ():
        raise RequestError(Problem("error", f"{method} has no place for a binary output",
                                   f"take laplace{instead}", column=o, found=model.errors[o]))


class Likelihood(NamedTuple):
    """patients : (P,), each one's -2 log-likelihood without N log 2 pi; scores : (P, Q), their
    gradients in the free population parameters on the real line, or None; kinked : (P,), whose
    mode lies on a kink or has no curvature, where scores are asked for."""

    patients: np.ndarray
    modes: Top
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
        self._slopes = jax.jit(lambda data, u: jax.jacfwd(
            lambda u: _linearised(model, data, u))(u))
        self._reads(data)

    def _reads(self, data: Arrays) -> None:
        self.data = data
        self.patients.reads(data)
        binary = [k for k, e in enumerate(self.model.error_models().values()) if e.binary]
        self.constant = _LOG_2PI * np.sum(
            np.asarray(data["observed"]) & ~np.isin(np.asarray(data["output"]), binary) & (
                np.asarray(data["lower"]) == np.asarray(data["upper"])), axis=1)

    def of(self, data: Arrays) -> Approximation:
        """The same programs on other data of the same shape."""
        other = copy.copy(self)
        other.patients = copy.copy(self.patients)
        other._reads(data)
        return other

    def likelihood(self, u: Any, start: Any = None, scores: bool = False,
                   anew: bool = False) -> Likelihood:
        """At the population u (Q,), the free parameters on the real line.

        start : (P, K), where to look for the modes; those of a near u, say. Without it, or `anew`,
            they are also looked for from nothing.
        scores : with the gradients
        """
        if self.method == "fo":
            at = self.patients.between(u)
            phi = at.mu
            look = self.patients.look(u, phi)
            value = np.asarray(_first_order(self.data, at, look))
            nowhere = np.zeros(len(value), bool)
            return Likelihood(value - self.constant, Top(
                phi, look, np.zeros_like(value), np.ones_like(value), np.zeros_like(phi),
                np.zeros_like(look.jacobian)), *((np.asarray(self._slopes(
                    self.data, jnp.asarray(u))), nowhere) if scores else (None, None)))
        modes = self.patients.modes(u, start, anew)
        more: tuple[np.ndarray, np.ndarray] | tuple[None, None] = (None, None)
        if self.method == "laplace":
            value, more = self._laplace(u, modes, scores)
        else:
            value = self._joint(u, modes) \
                + _log_det(self.data, self.patients.between(u).precision, modes.look)
            if scores:
                more = self._focei(u, modes)
        return Likelihood(value - self.constant, modes, *more)

    def _joint(self, u: Any, modes: Top) -> np.ndarray:
        """(P,), 2 J - K log 2 pi."""
        return -2.0 * self.patients.height(u, modes.phi, modes.look) \
            - modes.phi.shape[1] * _LOG_2PI

    def _laplace(self, u: Any, modes: Top, scores: bool) \
            -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | tuple[None, None]]:
        patients, k = self.patients, modes.phi.shape[1]
        curvature = patients.curvature(u, modes)[0]
        value = self._joint(u, modes) + curvature.log_det
        if not scores:
            return value, (None, None)
        sides = [side for pair in patients.both_sides(u, modes.phi, curvature.axes, _SECOND)
                 for side in pair]
        # slope of ln det H = tr(H^-1 dH): third derivatives of J along the axes W of H^-1 = W W'
        bend = sum(((modes.look.gradient - s.gradient) / _SECOND**2 for s in sides),
                   np.zeros_like(modes.look.gradient))
        bend = np.where(curvature.smooth[:, None], bend, 0.0)
        moves = patients.moves(u, modes)

        def second(u: Any) -> np.ndarray:
            """(P,), the trace of the rows' part of H along W, at predictions that are held."""
            here = patients.rows(u, modes.look.predicted)[0].sum(axis=1)
            return sum(((here - patients.rows(u, s.predicted)[0].sum(axis=1)) / _SECOND**2
                        for s in sides), np.zeros(len(here)))

        smooth = np.einsum("pkm,klq,plm->pq", curvature.axes, moves.precision, curvature.axes,
                           optimize=True)
        smooth[:, patients.residual] += patients.by_residuals(u, second)
        own = np.where(curvature.smooth[:, None], smooth, _weighed(curvature, moves))
        along = np.einsum("pkm,pk->pm", curvature.rough, bend[:, :k])
        own += curvature.tilt[:, None] * _shifts(modes, moves)
        return value, (self._scores(u, modes, curvature, moves, along, bend[:, k:], own),
                       ~curvature.smooth)

    def _focei(self, u: Any, modes: Top) -> tuple[np.ndarray, np.ndarray]:
        """(P, Q), scores; (P,), kinked."""
        patients, k = self.patients, modes.phi.shape[1]
        curvature, sides = patients.curvature(u, modes)
        steps = FIRST * np.eye(len(u))[patients.shared]
        seen = patients.looks([(u + s, modes.phi) for step in steps for s in (step, -step)], u)
        sides += zip(seen[::2], seen[1::2], strict=True)
        precision = patients.between(u).precision
        with np.errstate(invalid="ignore"):  # where a solve failed on both sides
            slopes = stacked([(_log_det(self.data, precision, a) - _log_det(
                self.data, precision, b)) / (2 * FIRST) for a, b in sides], modes.look.value)
        moves = patients.moves(u, modes)
        one, other = (_log_det(self.data, precision, modes.look._replace(
            jacobian=modes.look.jacobian + s * modes.differs)) for s in (FIRST, -FIRST))
        with np.errstate(invalid="ignore"):  # likewise
            tilt = (one - other) / (2 * FIRST)  # with the share of one side of a kink
        own = _weighed(curvature, moves) + tilt[:, None] * _shifts(modes, moves)
        return self._scores(u, modes, curvature, moves, slopes[:, :k], slopes[:, k:], own), \
            ~curvature.smooth

    def _scores(self, u: Any, modes: Top, curvature: Curvature, moves: Moves, along: np.ndarray,
                shared: np.ndarray, own: np.ndarray) -> np.ndarray:
        """(P, Q), gradients of 2 J + ln det H with the mode following u.

        along : (P, K), slope of ln det H along the rough axes; shared : (P, S), in the shared
            places, what it does by the predictions; own : (P, Q), what it does where phi and the
            predictions are held
        """
        k = modes.phi.shape[1]
        # a mode on a kink stays on it; beside one, third derivatives are none either
        with np.errstate(invalid="ignore"):
            smooth = curvature.smooth & np.all(np.abs(along) < _KINK, axis=1)
        along, shared = (np.where(smooth[:, None], x, 0.0) for x in (along, shared))
        y = np.einsum("pkl,pml,pm->pk", curvature.turn, curvature.turn, along, optimize=True)
        # a mode is good to a millionth of its SD, so what is left of J's slope may stand against a
        # spread near 0: with phi following the population it enters
        left = np.where((smooth & np.isfinite(modes.decrement))[:, None], uphill(
            self.patients.between(u), modes.phi, modes.look.gradient[:, :k]), 0.0)
        y = y - 2.0 * np.einsum("pkm,pkl,pk->pm", curvature.turn, curvature.axes, left,
                                optimize=True)
        v = np.einsum("pkm,pm->pk", curvature.rough, y)
        scores: np.ndarray = -2.0 * moves.height + own + np.einsum("pk,pkq->pq", v, moves.rising)
        scores[:, self.patients.shared] += -2.0 * modes.look.gradient[:, k:] + shared \
            + np.einsum("psm,pm->ps", curvature.mixed[:, k:], y)
        return scores


def _log_det(data: Arrays, precision: Any, look: Look) -> Any:
    """(P,), ln det H of FOCE and FOCEI, by the rows' own weights."""
    own = look.jacobian[..., :look.information.shape[-1]]
    with np.errstate(all="ignore"):  # where a solve failed
        return log_determinant(factor(precision, information_of(data, look.weight, own)),
                               look.value)


def _linearised(model: PopulationModel, data: Arrays, u: jax.Array) -> Any:
    """(P,), FO with the constant, of the population alone."""
    at = between(model, data, u)
    return _first_order(data, at, look_at(model, data, u, at.mu, typical_sds(model, data, u)))


def _first_order(data: Arrays, at: Between, look: Look) -> Any:
    """(P,), FO with the constant: a normal y with what the predictions' slopes at the typical
    patient make of Omega. b' H^-1 b is what a mode of the linear model would gain."""
    k = look.information.shape[-1]
    with np.errstate(all="ignore"):
        low = factor(at.precision, information_of(data, look.weight, look.jacobian[..., :k]))
        gain = solve_lower(low, [look.gradient[:, i] for i in range(k)])
    return -2.0 * look.value - sum(x**2 for x in gain) + log_determinant(low, look.value) \
        + sum(2.0 * jnp.log(row[i]) for i, row in enumerate(at.low))


def _shifts(modes: Top, moves: Moves) -> np.ndarray:
    """(P, Q): how the share of phi's side of a kink moves with the population, phi staying on the
    kink: the pull of both sides has to hold what the population pulls; 0 off a kink."""
    k = modes.phi.shape[1]
    jump = np.einsum("pn,pnk,pk->p", modes.look.slope, modes.differs[..., :k], modes.across,
                     optimize=True)
    pulled = np.einsum("pk,pkq->pq", modes.across, moves.rising)
    return np.where((modes.share < 1.0)[:, None], -pulled / np.where(
        jump == 0.0, 1.0, jump)[:, None], 0.0)


def _weighed(curvature: Curvature, moves: Moves) -> np.ndarray:
    """(P, Q): how ln det H of FOCEI moves where phi and the predictions are held."""
    inverse = curvature.rough @ np.swapaxes(curvature.rough, 1, 2)
    return np.asarray(np.einsum("pkl,pklq->pq", inverse, moves.information)
                      + np.einsum("pkl,klq->pq", inverse, moves.precision))
