"""Each patient's most likely parameters given the population, all patients at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from carpk.climbing import (
    ASIDE,
    TOLERANCE,
    Between,
    Point,
    Top,
    by_entries,
    climbed,
    patientwise,
    rises,
    uphill,
)
from carpk.likelihood import (
    patient_log_density,
    patient_log_likelihood,
    population_location,
    to_theta,
)
from carpk.padding import filled_on_devices, filled_to
from carpk.population_model import PopulationModel
from carpk.sensitivities import (
    Look,
    dense,
    information_of,
    look_at,
    omegas,
    residual_places,
    row_terms,
    shared_places,
    typical_sds,
)
from carpk.small_matrices import Rows, cholesky, inverse_of, solve_upper
from carpk.solve import Arrays

_NEWTON = 20  # rounds by Newton's steps, where a climb creeps
_KINK = 30.0  # times its scoring approximation: no curvature, but the jump of a slope
FIRST = 1e-4  # of a posterior SD, in first differences: they lose 1e-8 of a third derivative
_STEP = 1e-4  # on the real line of the population, for what follows it smoothly
_GUESSES, _WIDE = 200, 1.5  # draws a search may begin from, in SDs of the population
# parts of these draws, of each of which one climb begins: with one alone, at a maximum of stein90
# two patients of 90 ended at modes that are less likely, by 1.8 and 0.3
_CLIMBS = 4
_TWICE = 1e-8  # in height, within which two searches have come to the same mode
_TOGETHER = 100  # draws of one call


class Curvature(NamedTuple):
    """Of J at each patient's mode.

    log_det : (P,)
    smooth : (P,), false where the mode is a kink of the model (a peak at the time of a sample),
        whose curvature is that of both sides as far as each holds the mode; or where it is no
        maximum: there the scoring approximation stands in
    axes : W (P, K, K), W W' the inverse of the curvature
    rough : (P, K, K), such axes of its scoring approximation; turn : T (P, K, K), W = rough T
    mixed : (P, K + S, K), second derivatives of the log-likelihood along the rough axes
    tilt : (P,), how log_det moves with the share of phi's side of a kink
    """

    log_det: Any
    smooth: Any
    axes: Any
    rough: Any
    turn: Any
    mixed: Any
    tilt: Any


class Moves(NamedTuple):
    """How things move with the Q population parameters where phi and the predictions are held.

    height : (P, Q), log p(y, phi | population); rising : (P, K, Q), its gradient in phi
    information : (P, K, K, Q), of the rows, by their own weights; precision : (K, K, Q), Omega^-1
    """

    height: np.ndarray
    rising: np.ndarray
    information: np.ndarray
    precision: np.ndarray


class Patients:
    """The patients of a model, with the programs that look at them.

    Compiled is only what knows the model: a look, the densities of draws, the population. What a
    search does with them is arithmetic on small matrices, which costs less to run as it stands
    than to compile; a search and every difference quotient are rounds of looks.

    interaction : whether the residual SD follows a patient's own prediction; without it it is
        that of the typical patient, as in FO and FOCE
    """

    def __init__(self, model: PopulationModel, data: Arrays, interaction: bool = True) -> None:
        self.model, self.interaction = model, interaction
        self.reads(data)
        self.shared, self.residual = shared_places(model), residual_places(model)
        # of each place of phi a large deviation
        self.sizes = np.array([model.structure.parameter(n.partition("_")[2]).size
                               for n in model.sds])
        self._look = jax.jit(lambda data, u, phi, sds: look_at(model, data, u, phi, sds))
        self._between = jax.jit(lambda data, u: between(model, data, u))
        self._density = jax.jit(lambda data, u, phi: patient_log_density(
            model, data, to_theta(model, u), phi))
        self._densities = jax.jit(lambda data, u, phi: _densities(model, data, u, phi))
        self._omegas = jax.jit(lambda u: omegas(model, to_theta(model, u)))
        self._sds = jax.jit(lambda data, u: typical_sds(model, data, u))
        self._rows = jax.jit(lambda data, u, f, sds: row_terms(
            model, data, to_theta(model, u), f, sds))

    def reads(self, data: Arrays) -> None:
        """Other data of the same shape; programs take them filled up (`carpk.padding`)."""
        self.data, self.count = data, data["time"].shape[0]
        self.full = filled_on_devices(data)

    def _all(self, values: Any, axis: int = 0) -> np.ndarray:
        """Filled up as the data are."""
        return filled_to(self.full["time"].shape[0], values, axis)

    def between(self, u: Any) -> Between:
        """Where the population puts the patients."""
        at: Between = jax.tree.map(np.asarray, self._between(self.full, u))
        return at._replace(mu=at.mu[:self.count])

    def typical(self, u: Any) -> np.ndarray:
        """(P, K): where phi lies by the population alone."""
        return np.asarray(self.between(u).mu)

    def look(self, u: Any, phi: Any) -> Look:
        """What there is to see at phi."""
        return self.looks([(u, phi)])[0]

    def looks(self, places: Sequence[tuple[Any, Any]], held: Any = None) -> list[Look]:
        """The looks at some u and phi, on all cores; held : a population whose typical patient's
        residual SDs they have, where these are held; each look's own where not given."""
        running = [self._look(self.full, u, self._all(phi), self._held(
            u if held is None else held)) for u, phi in places]
        return [jax.tree.map(lambda x: np.asarray(x)[:self.count], seen) for seen in running]

    def rows(self, u: Any, predicted: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`row_terms` of predictions (P, N)."""
        value, slope, weight = (np.asarray(x)[:self.count] for x in self._rows(
            self.full, u, self._all(predicted), self._held(u)))
        return value, slope, weight

    def _held(self, u: Any) -> Any:
        return None if self.interaction else self._sds(self.full, u)

    def height(self, u: Any, phi: Any, look: Look) -> np.ndarray:
        """(P,), log p(y, phi | population)."""
        value: np.ndarray = look.value + self.density(u, phi)
        return value

    def density(self, u: Any, phi: Any) -> np.ndarray:
        """(P,), log p(phi | population)."""
        return np.asarray(self._density(self.full, u, self._all(phi)))[:self.count]

    def densities(self, u: Any, phi: np.ndarray) -> np.ndarray:
        """(M, P), log p(y, phi | population) of draws phi (M, P, K); -inf where a solve failed."""
        count = -(-len(phi) // _TOGETHER) * _TOGETHER
        padded = np.concatenate([phi, np.repeat(phi[-1:], count - len(phi), axis=0)])
        running = [self._densities(self.full, u, self._all(some, axis=1))  # on all cores
                   for some in np.split(padded, count // _TOGETHER)]
        return np.concatenate([np.asarray(some) for some in running])[:len(phi), :self.count]

    def best_of_draws(self, u: Any, seed: int, parts: int = 1) -> np.ndarray:
        """phi (parts, P, K): for each patient the likeliest of the typical patient and draws around
        it, in each part of these."""
        mu, omega = self.typical(u), np.asarray(self._omegas(u))
        noise = np.random.default_rng(seed).normal(size=(_GUESSES, *mu.shape))
        noise[0] = 0.0
        phi = mu + _WIDE * omega * noise
        best = np.argmax(self.densities(u, phi).reshape(parts, -1, len(mu)), axis=1)
        return phi.reshape(parts, len(phi) // parts, *mu.shape)[
            np.arange(parts)[:, None], best, np.arange(len(mu))]

    def modes(self, u: Any, start: Any = None, anew: bool = False) -> Top:
        """The most likely phi, each patient accepting or refusing its own steps.

        start : (P, K), where a climb begins; without one, or `anew`, others begin at the typical
            patient and at the likeliest of some draws around it, and the likeliest mode stays:
            of one found again the first, so that what is found from nothing depends on no start
        """
        starts = [self.typical(u), *self.best_of_draws(u, 0, _CLIMBS)] \
            if start is None or anew else []
        starts += [] if start is None else [np.asarray(start)]
        best = self._search(u, starts[0])
        for phi in starts[1:]:
            other = self._search(u, phi)
            one, two = (self.height(u, m.phi, m.look) for m in (best, other))
            best = patientwise(~(one >= two - _TWICE) & np.isfinite(two), other, best)
        return best

    def both_sides(self, u: Any, phi: Any, axes: Any, size: float) -> list[tuple[Look, Look]]:
        """Looks a step to either side along each axis of every patient.

        axes : (P, K, K), the axes in its columns
        """
        steps = size * np.asarray(axes)
        seen = self.looks([(u, phi + side * steps[:, :, m]) for m in range(steps.shape[2])
                           for side in (1.0, -1.0)])
        return list(zip(seen[::2], seen[1::2], strict=True))

    def curvature(self, u: Any, modes: Top) -> tuple[Curvature, list[tuple[Look, Look]]]:
        """The exact curvature at phi by differences along the axes of its scoring approximation,
        and the looks that were taken for it."""
        precision = self.between(u).precision
        with np.errstate(all="ignore"):  # where a solve failed
            low = factor(precision, modes.look.information)
            rough = inverse_transposed(low, modes.look.value)
            seen = [self.both_sides(u, modes.phi + s * ASIDE * modes.across, rough, FIRST)
                    for s in ((-1.0, 1.0) if (modes.share < 1.0).any() else (-1.0,))]
            each = [stacked([(a.gradient - b.gradient) / (2 * FIRST) for a, b in sides],
                            modes.look.gradient) for sides in seen]
            return _exact(precision, low, rough, modes, each), seen[0]

    def by_residuals(self, u: Any, f: Callable[[np.ndarray], Any]) -> Any:
        """(..., R), the slopes of f in the R residual parameters."""
        return differences(f, u, self.residual)

    def moves(self, u: Any, modes: Top) -> Moves:
        """How things move with the population at these modes."""
        phi, look = modes.phi, modes.look
        own = look.jacobian[..., :phi.shape[1]]

        def by_population(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            at = self.between(u)
            return self.density(u, phi), uphill(
                at, phi, np.zeros_like(phi)), at.precision

        def by_rows(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            value, slope, weight = self.rows(u, look.predicted)
            return value.sum(axis=1), np.einsum("pn,pnk->pk", slope, own), \
                information_of(self.data, weight, own)

        every = np.arange(len(u))
        places = self.residual if self.interaction else every  # SDs that are held follow them all
        with np.errstate(invalid="ignore"):  # where a solve failed
            height, rising, precision = differences(by_population, u, every)
            more_height, more_rising, of_rows = differences(by_rows, u, places)
        height[:, places] += more_height
        rising[..., places] += more_rising
        information = np.zeros((*look.information.shape, len(u)))
        information[..., places] = of_rows
        return Moves(height, rising, information, precision)

    def _search(self, u: Any, phi: np.ndarray) -> Top:
        """From phi up to the modes."""
        at, k = self.between(u), phi.shape[1]

        def seen_from(phi: np.ndarray) -> tuple[Point, Look]:
            look = self.look(u, phi)
            return Point(phi, self.height(u, phi, look),
                         uphill(at, phi, look.gradient[:, :k])), look

        top = climbed(at, seen_from, phi)
        modes = self._of_both(u, top) if (top.share < 1.0).any() else top
        return self._polished(u, modes, at) if modes.creeping.any() else modes

    def _of_both(self, u: Any, top: Top) -> Top:
        """On a kink a look whose slopes are those of both sides, as far as each holds phi. Where
        these differ by no more than curvature may over a first difference there is no kink: a
        climb whose information is too small brackets a smooth top as it does a kink."""
        look, k = top.look, top.phi.shape[1]
        near, far, beside, beyond = (x.jacobian for x in self.looks(
            [(u, top.phi + s * ASIDE * top.across) for s in (-1.0, -2.0, 1.0, 2.0)]))
        one, other = 2.0 * near - far, 2.0 * beside - beyond  # at phi, of either side
        jump = np.einsum("pn,pnk,pk->p", look.slope, (one - other)[..., :k], top.across,
                         optimize=True)
        kink = (top.share < 1.0) & ~(jump < 2 * FIRST * _KINK)
        smooth = (top.share < 1.0) & ~kink
        share = np.where(kink, top.share, 1.0)
        mine, differs = share[:, None, None], np.where(kink[:, None, None], one - other, 0.0)
        jacobian = np.where(mine < 1.0, mine * one + (1.0 - mine) * other, look.jacobian)
        return top._replace(
            decrement=np.where(smooth, np.inf, top.decrement), share=share, differs=differs,
            across=np.where(kink[:, None], top.across, 0.0), look=look._replace(
                jacobian=jacobian, gradient=np.einsum("pn,pnk->pk", look.slope, jacobian),
                information=information_of(self.data, look.weight, jacobian[..., :k])))

    def _polished(self, u: Any, modes: Top, at: Between) -> Top:
        """Newton's steps by the exact curvature, where scoring creeps: along a ridge that bends.
        """
        size = np.ones(len(modes.decrement))
        with np.errstate(all="ignore"):
            for _ in range(_NEWTON):
                step, decrement = _newton(at, modes, self.curvature(u, modes)[0])
                known = np.isfinite(decrement)
                modes = modes._replace(decrement=np.where(known, decrement, modes.decrement))
                left = known & (decrement > TOLERANCE)
                if not left.any():
                    break
                trial = modes.phi + (size * left)[:, None] * step
                seen = self.look(u, trial)
                better = rises(self.height(u, trial, seen),
                               self.height(u, modes.phi, modes.look))
                modes = patientwise(better, modes._replace(phi=trial, look=seen), modes)
                size = np.where(better, 1.0, 0.2 * size)
        return modes


def differences(f: Callable[[np.ndarray], Any], u: Any, places: np.ndarray) -> Any:
    """(..., len(places)), central differences in some places of u of an f, or of all it returns."""
    steps = [_STEP * (np.arange(len(u)) == k) for k in places]
    slopes = [jax.tree.map(lambda a, b: (a - b) / (2 * _STEP), f(u + s), f(u - s)) for s in steps]
    return jax.tree.map(lambda like, *columns: stacked(columns, like), f(u), *slopes)


def between(model: PopulationModel, data: Arrays, u: jax.Array) -> Between:
    """Where the population u (Q,) puts its patients."""
    mu, low = population_location(model, data, to_theta(model, u))
    return Between(mu, low, dense(inverse_of(low)))


def _densities(model: PopulationModel, data: Arrays, u: jax.Array, phi: jax.Array) -> jax.Array:
    theta = to_theta(model, u)

    def one(phi: jax.Array) -> jax.Array:
        value = patient_log_likelihood(model, data, theta, phi) \
            + patient_log_density(model, data, theta, phi)
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    return jax.lax.map(one, phi, batch_size=at_once(phi))


def at_once(phi: jax.Array) -> int | None:
    """How many draws of phi (M, P, K) to take side by side, a divisor of M: so many patients fill
    the processor's vectors and are still near it. None, for one by one, where nothing varies."""
    draws, patients, k = phi.shape
    return max(n for n in range(1, draws + 1) if draws % n == 0 and (
        n == 1 or n * patients <= 240)) if k else None


def _newton(at: Between, modes: Top, curvature: Curvature) -> tuple[np.ndarray, np.ndarray]:
    """Newton's step (P, K) and decrement; 0 and NaN where there is no smooth curvature."""
    slope = uphill(at, modes.phi, modes.look.gradient[:, :modes.phi.shape[1]])
    along = np.einsum("pkm,pk->pm", curvature.axes, slope)
    step = np.einsum("pkm,pm->pk", curvature.axes, along)
    usable = np.isfinite(step).all(axis=1) & curvature.smooth
    return np.where(usable[:, None], step, 0.0), np.where(usable, np.sum(along**2, axis=1), np.nan)


def stacked(columns: Sequence[np.ndarray], like: Any) -> np.ndarray:
    """The columns as a last axis, of which there may be none."""
    return np.stack(columns, axis=-1) if columns else np.zeros((*like.shape, 0))


def factor(precision: Any, information: Any) -> Rows:
    """Lower factor of information (P, K, K) + Omega^-1, by entries."""
    return cholesky(by_entries(information + precision[None]))


def log_determinant(low: Rows, like: Any) -> Any:
    """(P,), ln det of low low'."""
    of = np if isinstance(like, np.ndarray) else jnp
    return sum((2.0 * of.log(row[k]) for k, row in enumerate(low)),
               of.zeros(like.shape[0]))


def inverse_transposed(low: Rows, like: np.ndarray) -> np.ndarray:
    """(P, K, K), the inverse of low'."""
    size, one = len(low), np.ones(len(like))
    columns = [np.stack(solve_upper(low, [one * (k == m) for k in range(size)]), axis=1)
               for m in range(size)]
    return np.stack(columns, axis=2) if columns else np.zeros((len(like), 0, 0))


def _exact(precision: np.ndarray, low: Rows, rough: np.ndarray, modes: Top,
           each: list[np.ndarray]) -> Curvature:
    """From the scoring approximation's factor and axes, and the log-likelihood's second
    derivatives along these, on one side or on both sides of a kink."""
    k, like = rough.shape[1], modes.look.value
    bent = (each[0] - each[-1])[:, :k]
    mixed = each[-1] + modes.share[:, None, None] * (each[0] - each[-1])
    along = np.swapaxes(rough, 1, 2)
    whole = along @ precision @ rough - _symmetric(along @ mixed[:, :k])
    usable = sum((np.log(row[i]) for i, row in enumerate(cholesky(by_entries(whole)))),
                 np.zeros_like(like))
    steepest = np.max(np.einsum("pkk->pk", whole), axis=1, initial=0.0)
    exact = np.isfinite(usable) & (steepest < _KINK)
    inner = cholesky(by_entries(np.where(exact[:, None, None], whole, np.eye(k))))
    turn = inverse_transposed(inner, like)
    tilt = -np.einsum("pkm,pkl,plm->p", turn, _symmetric(along @ bent), turn, optimize=True)
    return Curvature(log_determinant(low, like) + log_determinant(inner, like),
                     exact & (modes.share == 1.0), rough @ turn, rough, turn, mixed,
                     np.where(exact, tilt, 0.0))


def _symmetric(matrices: np.ndarray) -> np.ndarray:
    return 0.5 * (matrices + np.swapaxes(matrices, 1, 2))
