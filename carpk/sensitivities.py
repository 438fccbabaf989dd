"""What a prediction and its row's likelihood depend on, to first order: all that a search for modes
has to know of a model."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from carpk.effects import coefficients
from carpk.error_models import ErrorModel
from carpk.likelihood import population_location, predicted_rows, row_log_likelihood, to_theta
from carpk.paired_errors import Pair, rho_of, second_rows, with_partner
from carpk.population_model import PopulationModel
from carpk.small_matrices import Rows
from carpk.solve import Arrays
from carpk.tails import TAILS


class Look(NamedTuple):
    """What a model says of patients at some phi.

    predicted, slope, weight : (P, N) predictions, and of each row's log-likelihood its slope and
        its information, in the prediction on the scale its residual is added to; see `row_terms`
    jacobian : (P, N, K + S) of the predictions on that scale, in phi and in the S shared places
    value, gradient, information : (P,), (P, K + S), (P, K, K), of the log-likelihood
    """

    predicted: Any
    slope: Any
    weight: Any
    jacobian: Any
    value: Any
    gradient: Any
    information: Any


def look_at(model: PopulationModel, data: Arrays, u: jax.Array, phi: jax.Array,
            sds: Any) -> Look:
    """What a model says of patients (P, K) of the population u (Q,); sds : as of `row_terms`."""
    theta, k = to_theta(model, u), phi.shape[1]
    f, jacobian = columns(model, data, u, phi)
    value, slope, weight = row_terms(model, data, theta, f, sds)
    return Look(f, slope, weight, jacobian, value.sum(axis=1),
                jnp.einsum("pn,pnk->pk", slope, jacobian),
                information_of(data, weight, jacobian[..., :k]))


def information_of(data: Arrays, weight: Any, jacobian: Any) -> Any:
    """(P, K, K), from the information of rows (see `row_terms`) and the slopes (P, N, K) of their
    predictions."""
    of = np if isinstance(weight, np.ndarray) else jnp
    weighed = of.maximum(weight if weight.ndim == 2 else weight[..., 0], 0.0)[..., None] * jacobian
    if weight.ndim == 3:
        partner = of.asarray(data["partner"])[..., None]
        weighed = weighed + weight[..., 1:] * of.take_along_axis(jacobian, partner, axis=1)
    return of.swapaxes(jacobian, 1, 2) @ weighed


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


def moved_rows(model: PopulationModel, data: Arrays, theta: Any, predicted: jax.Array,
                shift: jax.Array) -> jax.Array:
    """Row log-likelihoods (P, N) with each prediction moved by `shift` on the scale its residual
    is added to."""
    moved = predicted
    for k, error in enumerate(model.error_models().values()):
        own = predicted * jnp.exp(shift) if error.log_scale else predicted + shift
        moved = jnp.where(data["output"] == k, own, moved)
    return row_log_likelihood(model, data, theta, moved)


def row_derivatives(model: PopulationModel, data: Arrays, theta: Any, predicted: jax.Array) \
        -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    """Each row's log-likelihood, the slope and the bend of all in its prediction, taken on the
    scale the row's residual is added to, and the bend in that and its partner's; (P, N) each, the
    last None where no errors are correlated."""
    zero, one = jnp.zeros_like(predicted), jnp.ones_like(predicted)

    def moved(shift: jax.Array) -> jax.Array:
        return moved_rows(model, data, theta, predicted, shift)

    if not model.error_pairs:
        def slopes(shift: jax.Array) -> tuple[jax.Array, jax.Array]:
            return jax.jvp(moved, (shift,), (one,))

        (value, slope), (_, bend) = jax.jvp(slopes, (zero,), (one,))
        return value, slope, bend, None
    paired, second = with_partner(data), second_rows(
        model.error_pairs, list(model.error_models()), data)
    directions = jnp.stack([jnp.where(second, 0.0, 1.0), jnp.where(second, 1.0, 0.0)])

    def together(shift: jax.Array) -> jax.Array:
        rows = moved(shift)
        return rows + jnp.where(paired, jnp.take_along_axis(rows, data["partner"], axis=1), 0.0)

    def own_slopes(shift: jax.Array) -> jax.Array:
        first, other = jax.vmap(lambda d: jax.jvp(together, (shift,), (d,))[1])(directions)
        return jnp.where(second, other, first)

    (slope, _), (first, other) = jax.vmap(lambda d: jax.jvp(own_slopes, (zero,), (d,)))(directions)
    return (moved(zero), slope, jnp.where(second, other, first),
            jnp.where(paired, jnp.where(second, first, other), 0.0))


def columns(model: PopulationModel, data: Arrays, u: jax.Array, phi: jax.Array) \
        -> tuple[jax.Array, jax.Array]:
    """Predictions (P, N) and their derivatives (P, N, K + S) on their error model's own scale:
    in phi, then in u of the S shared places. One forward sweep carries all directions, so that a
    solver is compiled once."""
    shared = shared_places(model)
    k = phi.shape[1]

    def predicted(phi: jax.Array, v: jax.Array) -> jax.Array:
        return predicted_rows(model, data, to_theta(model, u.at[shared].set(v)), phi)

    directions = jnp.eye(k + len(shared))
    f, push = jax.linearize(predicted, phi, u[shared])
    jacobian = jax.vmap(lambda d: push(jnp.broadcast_to(d[:k], phi.shape), d[k:]),
                        out_axes=-1)(directions)
    for o, error in enumerate(model.error_models().values()):
        if error.log_scale:
            here = (data["output"] == o)[..., None]
            jacobian = jnp.where(here, jacobian / jnp.maximum(f, 1e-290)[..., None], jacobian)
    return f, jnp.where(data["observed"][..., None], jacobian, 0.0)


def shared_places(model: PopulationModel) -> np.ndarray:
    """Places in model.free of the typical values that no patient varies in, of what covariates and
    levels add to them, and of covariates that change in a patient: the predictions depend on these
    directly."""
    return np.array([k for k, n in enumerate(model.free)
                     if (_moves(model, n) and _moves(model, n) not in model.spread)
                     or n in _over_time(model)], dtype=int)


def located_places(model: PopulationModel) -> np.ndarray:
    """Places in model.free of what moves the location of a varying parameter."""
    return np.array([k for k, n in enumerate(model.free) if _moves(model, n) in model.spread
                     and n not in _over_time(model)], dtype=int)


def residual_places(model: PopulationModel) -> np.ndarray:
    """Places in model.free of the residual errors' own parameters."""
    own = {*model.residuals, *map(rho_of, model.error_pairs)}
    return np.array([k for k, n in enumerate(model.free) if n in own], int)


def _over_time(model: PopulationModel) -> set[str]:
    return {n for e in model.effects if model.changes(e) for n in coefficients(e)}


def _moves(model: PopulationModel, name: str) -> str:
    """The structural parameter that a typical value or a coefficient is of; "" for others."""
    if name.endswith("_pop"):
        return name.removesuffix("_pop")
    return next((e.parameter for e in model.effects if name in coefficients(e)),
                next((of for level in model.levels if (of := level.of(name))), ""))


def residual_rows(model: PopulationModel, data: Arrays, name: str) -> jax.Array:
    """(P, N): the observations that a residual parameter is of."""
    output, _, unit = model.residuals[name]
    index = [o.name for o in model.structure.outputs].index(output)
    rows = data["observed"] & (data["output"] == index)
    return rows & (data["separate"][output] == model.separate[output].units.index(unit)) \
        if unit else rows


def only_sd(model: PopulationModel, name: str) -> bool:
    """Whether residuals over it are standard normal, and nothing else is estimated of them."""
    if name not in model.residuals:
        return False
    output = model.residuals[name][0]
    error = model.error_models()[output]
    return len(error.sigmas) == 1 and error.tails is TAILS["normal"] and not error.binary \
        and not any(output in pair for pair in model.error_pairs) \
        and (model.censoring != "M4" or error.log_scale)


def dense(rows: Rows) -> jax.Array:
    """(K, K), a small matrix as an array."""
    size = len(rows)
    entries = [[jnp.asarray(row.get(j, 0.0), float) for j in range(size)] for row in rows]
    return jnp.stack([jnp.stack(row) for row in entries]) if size else jnp.zeros((0, 0))


def omegas(model: PopulationModel, theta: Any) -> jax.Array:
    """(K,): the spread of each varying parameter, and of the kappas."""
    return jnp.stack([jnp.asarray(theta[n], float) for n in model.sds]) \
        if model.sds else jnp.zeros(0)
