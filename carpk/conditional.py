"""Each patient's most likely parameters given the population, all patients at once."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from carpk.empirical_bayes import columns, dense, guess, row_derivatives, shared_places
from carpk.error_models import ErrorModel
from carpk.likelihood import patient_log_density, population_location, predicted_rows, to_theta
from carpk.paired_errors import Pair, with_partner
from carpk.population_model import PopulationModel
from carpk.small_matrices import Rows, cholesky, inverse_of, solve_lower, solve_upper
from carpk.solve import Arrays

_TOLERANCE = 1e-12  # Newton decrement: a mode within a millionth of its SD
_MOST, _NEWTON = 60, 20  # rounds of the search by scoring, and by Newton's steps after it
_KINK = 30.0  # times its scoring approximation: no curvature, but the jump of a slope
FIRST = 1e-4  # of a posterior SD, in first differences: they lose 1e-8 of a third derivative
_STUCK = 1e10  # damping at which a patient has stopped moving


class Look(NamedTuple):
    """What a model says of patients at some phi.

    predicted, slope, weight : (P, N) predictions, and of each row's log-likelihood its slope and
        its information, in the prediction on the scale its residual is added to; see `row_terms`
    jacobian : (P, N, K + S) of the predictions on that scale, in phi and in the S shared places
    value, gradient, information : (P,), (P, K + S), (P, K, K), of the log-likelihood
    """

    predicted: jax.Array
    slope: jax.Array
    weight: jax.Array
    jacobian: jax.Array
    value: jax.Array
    gradient: jax.Array
    information: jax.Array


class Modes(NamedTuple):
    """phi (P, K), what there is to see there, and the Newton decrements (P,) that are left."""

    phi: jax.Array
    look: Look
    decrement: Any


class Curvature(NamedTuple):
    """Of J at each patient's mode.

    log_det : (P,)
    exact : (P,), false where the mode is a kink of the model (a peak at the time of a sample) or
        no maximum: there is no curvature, and the scoring approximation stands in
    axes : W (P, K, K), W W' the inverse of the curvature
    rough : (P, K, K), such axes of its scoring approximation; turn : T (P, K, K), W = rough T
    mixed : (P, K + S, K), second derivatives of the log-likelihood along the rough axes
    """

    log_det: jax.Array
    exact: jax.Array
    axes: jax.Array
    rough: jax.Array
    turn: jax.Array
    mixed: jax.Array


class Patients:
    """The patients of a model, with the programs that look at them.

    A look is the only large program, so it is compiled once and called from here: a search and
    every difference quotient are rounds of looks.

    interaction : whether the residual SD follows a patient's own prediction; without it it is
        that of the typical patient, as in FO and FOCE
    """

    def __init__(self, model: PopulationModel, data: Arrays, interaction: bool = True) -> None:
        self.model, self.data, self.interaction = model, data, interaction
        self.shared = shared_places(model)
        self._look = jax.jit(lambda data, u, phi, sds: _look(model, data, u, phi, sds))
        self._turn = jax.jit(lambda data, *state: _turn(model, data, *state))
        self._typical = jax.jit(lambda data, u: population_location(
            model, data, to_theta(model, u))[0])
        self._axes, self._exact, self._newton, self._risen = (
            jax.jit(lambda data, *args, f=f: f(model, data, *args))
            for f in (_axes, _exact, _newton, _risen))
        self._likelier = jax.jit(lambda data, *args: _likelier(model, data, *args))
        self._theta = jax.jit(lambda u: to_theta(model, u))
        self._sds = jax.jit(lambda data, u: typical_sds(model, data, u))

    def typical(self, u: Any) -> jax.Array:
        """(P, K): where phi lies by the population alone."""
        return self._typical(self.data, u)

    def look(self, u: Any, phi: Any) -> Look:
        """What there is to see at phi."""
        return cast(Look, self._look(self.data, u, phi, self._held(u)))

    def _held(self, u: Any) -> dict[str, jax.Array] | None:
        return None if self.interaction else self._sds(self.data, u)

    def modes(self, u: Any, start: Any = None) -> Modes:
        """The most likely phi by damped scoring, each patient accepting or refusing its own step.

        start : (P, K); without it the search begins at the typical patient and at the best of
            200 draws, and the likelier of the two modes stays
        """
        if start is not None:
            return self._search(u, start)
        first = self._search(u, self.typical(u))
        drawn = guess(self.model, self._theta(u), self.data, jax.random.key(0))
        return cast(Modes, self._likelier(self.data, u, first, self._search(u, drawn)))

    def both_sides(self, u: Any, phi: Any, axes: Any, size: float) -> list[tuple[Look, Look]]:
        """Looks a step to either side along each axis of every patient.

        axes : (P, K, K), the axes in its columns
        """
        middle, steps = np.asarray(phi), size * np.asarray(axes)
        return [(self.look(u, middle + steps[:, :, m]), self.look(u, middle - steps[:, :, m]))
                for m in range(steps.shape[2])]

    def curvature(self, u: Any, modes: Modes) -> tuple[Curvature, list[tuple[Look, Look]]]:
        """The exact curvature at phi by differences along the axes of its scoring approximation,
        and the looks that were taken for it."""
        sides = self.both_sides(u, modes.phi, self._axes(self.data, u, modes.look), FIRST)
        slopes = [(np.asarray(a.gradient) - np.asarray(b.gradient)) / (2 * FIRST)
                  for a, b in sides]
        return cast(Curvature, self._exact(self.data, u, modes.look, stacked(
            slopes, modes.look.gradient))), sides

    def _polished(self, u: Any, modes: Modes) -> Modes:
        """Newton's steps by the exact curvature, where scoring creeps: along a ridge that bends.
        """
        size = np.ones(len(modes.decrement))
        for _ in range(_NEWTON):
            step, decrement = self._newton(self.data, u, modes, self.curvature(u, modes)[0])
            modes = modes._replace(decrement=np.asarray(decrement))
            left = modes.decrement > _TOLERANCE
            if not left.any():
                break
            trial = np.asarray(modes.phi) + (size * left)[:, None] * np.asarray(step)
            modes, better = self._risen(self.data, u, modes, trial, self.look(u, trial))
            size = np.where(better, 1.0, 0.2 * size)
        return modes

    def _search(self, u: Any, start: Any) -> Modes:
        """Rounds of one step for every patient."""
        sds, patients = self._held(u), start.shape[0]
        seen = self._look(self.data, u, start, sds)
        state = (start, seen, np.full(patients, -np.inf), np.full(patients, 1e-2))
        trial = start
        for _ in range(_MOST):
            state, trial, decrement, left = self._turn(self.data, u, state, trial, seen)
            if not int(left):
                break
            seen = self._look(self.data, u, trial, sds)
        modes = Modes(state[0], state[1], np.asarray(decrement))
        creeping = modes.decrement > _TOLERANCE  # NaN: where nothing is solved
        return self._polished(u, modes) if creeping.any() else modes


def _look(model: PopulationModel, data: Arrays, u: jax.Array, phi: jax.Array,
          sds: Any) -> Look:
    theta, k = to_theta(model, u), phi.shape[1]
    f, jacobian = columns(model, data, u, phi)
    value, slope, weight = row_terms(model, data, theta, f, sds)
    return Look(f, slope, weight, jacobian, value.sum(axis=1),
                jnp.einsum("pn,pnk->pk", slope, jacobian),
                information_of(data, weight, jacobian[..., :k]))


def information_of(data: Arrays, weight: jax.Array, jacobian: jax.Array) -> jax.Array:
    """(P, K, K), from the information of rows (see `row_terms`) and the slopes (P, N, K) of their
    predictions."""
    if weight.ndim == 2:
        return jnp.einsum("pn,pnk,pnl->pkl", jnp.maximum(weight, 0.0), jacobian, jacobian)
    partners = jnp.take_along_axis(jacobian, data["partner"][..., None], axis=1)
    weighed = jnp.maximum(weight[..., :1], 0.0) * jacobian + weight[..., 1:] * partners
    return jnp.einsum("pnk,pnl->pkl", jacobian, weighed)


def row_terms(model: PopulationModel, data: Arrays, theta: Any, predicted: jax.Array,
              sds: Any = None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Each row's log-likelihood, its slope in the prediction and its information, (P, N) each.

    The information is the expected one where the row was measured, 1/R + (R'/R)^2 / 2 of a
    variance R (which makes the first-order conditional method "with interaction"), or 1/(p (1-p))
    of a probability p, and the exact curvature where it was censored. 0 on padding. Where errors
    are correlated it is (P, N, 2): in the row's own prediction, and in that and its partner's.
    sds : {output: (P, N)}, residual SDs that do not follow the predictions
    """
    errors = cast(PopulationModel, _Held(model, sds)) if sds is not None else model
    value, slope, bend, mixed = row_derivatives(errors, data, theta, predicted)
    weight, seen = -bend, data["observed"]
    measured = seen & (data["lower"] == data["upper"])
    if mixed is not None:  # of a pair the exact curvature is the expected information
        measured = measured & ~with_partner(data)
    for k, (output, error) in enumerate(errors.error_models().items()):
        here = measured & (data["output"] == k)
        sd, follows = _sd_and_slope(error, jnp.where(here, predicted, 1.0),
                                    errors.sigma(theta, output, data.get("separate")))
        follows = 0.0 * follows if error.binary else follows  # of a probability, all is in 1 / sd^2
        weight = jnp.where(here, 1.0 / sd**2 + 2.0 * (follows / sd) ** 2, weight)
    slope, weight = jnp.where(seen, slope, 0.0), jnp.where(seen, weight, 0.0)
    return value, slope, weight if mixed is None else jnp.stack([weight, -mixed], axis=-1)


def _sd_and_slope(error: ErrorModel, predicted: jax.Array, sigma: Any) \
        -> tuple[jax.Array, jax.Array]:
    """The residual SD and its slope in the prediction on the residual's scale."""
    def sd(shift: jax.Array) -> jax.Array:
        moved = predicted * jnp.exp(shift) if error.log_scale else predicted + shift
        return error.sd(moved, sigma) * jnp.ones_like(predicted)

    return jax.jvp(sd, (jnp.zeros_like(predicted),), (jnp.ones_like(predicted),))


@dataclasses.dataclass(frozen=True)
class _Held:
    """A model's errors with residual SDs that stand still: read like a PopulationModel."""

    model: PopulationModel
    sds: dict[str, jax.Array]

    @property
    def censoring(self) -> str:
        return self.model.censoring

    @property
    def error_pairs(self) -> tuple[Pair, ...]:
        return self.model.error_pairs

    def error_models(self) -> dict[str, ErrorModel]:
        return {o: dataclasses.replace(e, sd=lambda pred, sigma: sigma.held)
                for o, e in self.model.error_models().items()}

    def sigma(self, theta: Any, output: str, units: Any = None) -> SimpleNamespace:
        return SimpleNamespace(held=self.sds[output])


def typical_sds(model: PopulationModel, data: Arrays, u: jax.Array) -> dict[str, jax.Array]:
    """{output: (P, N)}: the residual SD at each patient's typical prediction; 1 on other rows."""
    theta = to_theta(model, u)
    f = predicted_rows(model, data, theta, population_location(model, data, theta)[0])
    sds = {}
    for k, (output, error) in enumerate(model.error_models().items()):
        here = data["observed"] & (data["output"] == k)
        sd = error.sd(jnp.where(here, f, 1.0), model.sigma(theta, output, data.get("separate")))
        sds[output] = jnp.where(here, sd * jnp.ones_like(f), 1.0)
    return sds


def by_entries(matrices: jax.Array) -> Rows:
    """Matrices (P, K, K) as unrolled entries (P,)."""
    size = matrices.shape[-1]
    return [{j: matrices[:, i, j] for j in range(size)} for i in range(size)]


def uphill(model: PopulationModel, data: Arrays, theta: Any, phi: jax.Array,
           gradient: jax.Array) -> jax.Array:
    """(P, K): gradient of log p(y, phi | population), from that of the log-likelihood."""
    mu, low = population_location(model, data, theta)
    away = solve_upper(low, solve_lower(low, [phi[:, k] - mu[:, k] for k in range(len(low))]))
    return gradient - jnp.stack(away, axis=1) if away else gradient


def _turn(model: PopulationModel, data: Arrays, u: jax.Array, state: Any, trial: jax.Array,
          seen: Look) -> Any:
    """Accepts or refuses what was seen at the trial, and proposes the next.

    state : phi, the look there, its log density, damping
    returns : the new state, the next trial, decrements, how many patients go on
    """
    phi, at, height, damping = state
    theta, k = to_theta(model, u), phi.shape[1]
    risen = _height(model, data, u, trial, seen)
    # an equal height is no refusal: at a mode differences drown in rounding
    better = jnp.isfinite(risen) & (
        (risen >= height - 1e-12 * (1.0 + jnp.abs(height))) | ~jnp.isfinite(height))
    phi, at, height = _where(better, (trial, seen, risen), (phi, at, height))
    damping = jnp.clip(damping * jnp.where(better, 0.1, 10.0), 1e-12, 10 * _STUCK)
    slope = uphill(model, data, theta, phi, at.gradient[:, :k])
    _, low = population_location(model, data, theta)
    whole = at.information + precision(model, data, theta)[None]
    diagonal = jnp.einsum("pkk->pk", whole)
    damped = whole + jnp.eye(k)[None] * (damping[:, None] * diagonal)[:, None, :]
    step, newton = (_solved(m, slope) for m in (damped, whole))
    decrement = jnp.einsum("pk,pk->p", slope, newton)
    going = ~(decrement < _TOLERANCE) & (damping < _STUCK)
    z = solve_lower(low, [step[:, i] for i in range(k)])
    size = jnp.sqrt(sum((x**2 for x in z), jnp.full(phi.shape[0], 1e-300)))
    step = step * jnp.minimum(1.0, 10.0 / size)[:, None]  # no leap beyond ten spreads
    step = jnp.where(going[:, None] & jnp.isfinite(step), step, 0.0)
    return (phi, at, height, damping), phi + step, decrement, going.sum()


def _solved(matrices: jax.Array, b: jax.Array) -> jax.Array:
    """(P, K): each matrix (P, K, K) solved for b (P, K)."""
    low = cholesky(by_entries(matrices))
    x = solve_upper(low, solve_lower(low, [b[:, k] for k in range(b.shape[1])]))
    return jnp.stack(x, axis=1) if x else b


def _likelier(model: PopulationModel, data: Arrays, u: jax.Array, a: Modes, b: Modes) -> Modes:
    """Of two modes the likelier; of the same mode twice the first, which needed no luck."""
    first, second = (_height(model, data, u, m.phi, m.look) for m in (a, b))
    return _where(~(first >= second - 1e-6) & jnp.isfinite(second), b, a)


def _height(model: PopulationModel, data: Arrays, u: jax.Array, phi: jax.Array, look: Look) \
        -> jax.Array:
    """(P,), log p(y, phi | population)."""
    return look.value + patient_log_density(model, data, to_theta(model, u), phi)


def _where(chosen: jax.Array, a: Any, b: Any) -> Any:
    """Patient by patient, of trees of (P, ...) arrays."""
    return jax.tree.map(lambda x, y: jnp.where(
        chosen.reshape(-1, *[1] * (x.ndim - 1)), x, y), a, b)


def _newton(model: PopulationModel, data: Arrays, u: jax.Array, modes: Modes,
            curvature: Curvature) -> tuple[jax.Array, jax.Array]:
    """Newton's step (P, K), 0 where the curvature is not positive definite, and decrements."""
    k = modes.phi.shape[1]
    slope = uphill(model, data, to_theta(model, u), modes.phi, modes.look.gradient[:, :k])
    along = jnp.einsum("pkm,pk->pm", curvature.axes, slope)
    step = jnp.einsum("pkm,pm->pk", curvature.axes, along)
    usable = jnp.isfinite(step).all(axis=1) & curvature.exact
    return jnp.where(usable[:, None], step, 0.0), jnp.where(
        usable, jnp.sum(along**2, axis=1), 0.0)


def _risen(model: PopulationModel, data: Arrays, u: jax.Array, modes: Modes, trial: jax.Array,
           look: Look) -> tuple[Modes, jax.Array]:
    """The modes with the trials of those patients that rise, and who they are."""
    before = _height(model, data, u, modes.phi, modes.look)
    after = _height(model, data, u, trial, look)
    better = after >= before - 1e-12 * (1.0 + jnp.abs(before))
    return _where(better, Modes(trial, look, modes.decrement), modes), better


def stacked(columns: list[np.ndarray], like: Any) -> np.ndarray:
    """The columns as a last axis, of which there may be none."""
    return np.stack(columns, axis=-1) if columns else np.zeros((*like.shape, 0))


def precision(model: PopulationModel, data: Arrays, theta: Any) -> jax.Array:
    """Omega^-1 (K, K)."""
    return dense(inverse_of(population_location(model, data, theta)[1]))


def factor(model: PopulationModel, data: Arrays, theta: Any, information: jax.Array) -> Rows:
    """Lower factor of information (P, K, K) + Omega^-1, by entries."""
    return cholesky(by_entries(information + precision(model, data, theta)[None]))


def log_determinant(low: Rows, like: jax.Array) -> jax.Array:
    """(P,), ln det of low low'."""
    return sum((2.0 * jnp.log(row[k]) for k, row in enumerate(low)), jnp.zeros(like.shape[0]))


def _inverse_transposed(low: Rows, like: jax.Array) -> jax.Array:
    """(P, K, K), the inverse of low'."""
    size, one = len(low), jnp.ones(like.shape[0])
    columns = [jnp.stack(solve_upper(low, [one * (k == m) for k in range(size)]), axis=1)
               for m in range(size)]
    return jnp.stack(columns, axis=2) if columns else jnp.zeros((like.shape[0], 0, 0))


def _axes(model: PopulationModel, data: Arrays, u: jax.Array, look: Look) -> jax.Array:
    """(P, K, K), axes of the scoring approximation of the curvature."""
    return _inverse_transposed(factor(model, data, to_theta(model, u), look.information),
                               look.value)


def _exact(model: PopulationModel, data: Arrays, u: jax.Array, look: Look,
           mixed: jax.Array) -> Curvature:
    theta, k = to_theta(model, u), look.information.shape[-1]
    low = factor(model, data, theta, look.information)
    rough = _inverse_transposed(low, look.value)
    seen = jnp.einsum("pkm,pkl->pml", rough, mixed[:, :k])
    whole = jnp.einsum("pkm,kj,pjl->pml", rough, precision(model, data, theta), rough) \
        - 0.5 * (seen + jnp.swapaxes(seen, 1, 2))
    size = whole.shape[-1]
    usable = sum((jnp.log(row[i]) for i, row in enumerate(cholesky(by_entries(whole)))),
                 jnp.zeros_like(look.value))
    steepest = jnp.max(jnp.einsum("pkk->pk", whole), axis=1, initial=0.0)
    exact = jnp.isfinite(usable) & (steepest < _KINK)
    inner = cholesky(by_entries(jnp.where(exact[:, None, None], whole, jnp.eye(size)[None])))
    turn = _inverse_transposed(inner, look.value)
    return Curvature(log_determinant(low, look.value) + log_determinant(inner, look.value),
                     exact, jnp.einsum("pkm,pml->pkl", rough, turn), rough, turn, mixed)
