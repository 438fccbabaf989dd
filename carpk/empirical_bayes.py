"""A quick Laplace fit: each patient's most likely parameters and information, a population start.

Used to start every estimator at values the data support and to shape the sampler's coordinates;
what it returns never enters a posterior as a result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from carpk.climbing import patientwise, rises, scoring_step
from carpk.conditional import Patients, differences, factor, inverse_transposed
from carpk.correlated import correlations
from carpk.effects import coefficients
from carpk.likelihood import from_theta, population_location, to_theta
from carpk.paired_errors import rho_of, second_rows
from carpk.population_model import PopulationModel
from carpk.sensitivities import (
    Look,
    dense,
    information_of,
    located_places,
    residual_rows,
    shared_places,
)
from carpk.small_matrices import inverse_of
from carpk.solve import Arrays


class Start(NamedTuple):
    """Where a fit begins.

    u : (Q,), free population parameters on the real line
    phi : (P, K), conditional modes on the link scale
    information : (P, O, K, K), Gauss-Newton information of each output's rows at the mode
    linear : (P, O, K), information @ phi + gradient of the log-likelihood
    log_likelihood : (P,) at the mode; not finite where the solve failed
    sweeps : rounds of the search
    classes : (P, C), of a mixture how likely each patient is of each class
    left_open : (Q,), the share of its prior's variance that the levels leave of a typical value
        or a coefficient; NaN of others
    """

    u: jax.Array
    phi: jax.Array
    information: jax.Array
    linear: jax.Array
    log_likelihood: jax.Array
    sweeps: int
    classes: jax.Array | None = None
    left_open: jax.Array | None = None


def start_shape(model: PopulationModel, data: Arrays) -> Start:
    """The shapes of a model's start, for programs that are compiled before it is found."""
    p, k, o = data["time"].shape[0], len(model.sds), len(model.structure.outputs)
    shape: Start = jax.eval_shape(lambda: Start(
        jnp.zeros(len(model.free)), jnp.zeros((p, k)), jnp.zeros((p, o, k, k)),
        jnp.zeros((p, o, k)), jnp.zeros(p), 0,
        jnp.zeros((p, model.mixture.count)) if model.mixture else None))
    return shape


def location_scores(model: PopulationModel, data: Arrays, u: jax.Array, phi: jax.Array) \
        -> tuple[jax.Array, jax.Array]:
    """Gradient (G,) and information (G, G) of log p(phi | population) in the G located places."""
    places = located_places(model)

    def location(v: jax.Array) -> jax.Array:
        return population_location(model, data, to_theta(model, u.at[places].set(v)))[0]

    mu, slopes = location(u[places]), jax.jacfwd(location)(u[places])
    slopes = slopes * data["observed"].any(axis=1)[:, None, None]  # others fill up the arrays
    precision = dense(inverse_of(population_location(model, data, to_theta(model, u))[1]))
    return (jnp.einsum("pkg,kl,pl->g", slopes, precision, phi - mu),
            jnp.einsum("pkg,kl,plh->gh", slopes, precision, slopes))


def mean_variance(model: PopulationModel, name: str, whole: Any) -> Any:
    """Of what has the SD `name`: a parameter's etas, or its kappas in all courses."""
    places = [k for k, n in enumerate(model.sds) if n == name]
    return sum(whole[k, k] for k in places) / len(places)


class _Population:
    """The population's update by what there is to see of its patients."""

    def __init__(self, patients: Patients) -> None:
        model = self.model = patients.model
        self.patients, self.data = patients, jax.tree.map(np.asarray, patients.data)
        self.located, self.shared = located_places(model), shared_places(model)
        size = {f"{q.name}_pop": q.size for q in model.structure.parameters} | {
            n: model.structure.parameter(e.parameter).size
            for e in model.effects for n in coefficients(e)}
        self.reach = np.array([0.5 * size.get(n, 1.0) for n in model.free])  # of one update
        self.theta = jax.jit(lambda u: to_theta(model, u))
        self.u = jax.jit(lambda theta: from_theta(model, theta))
        used = [*self.located, *self.shared, *patients.residual]
        self.prior = jax.jit(lambda u: jnp.stack([
            model.priors[n].log_density_real(u[k]) if k in used else jnp.zeros(())
            for k, n in enumerate(model.free)]) if model.free else u)

    def update(self, u: np.ndarray, look: Look, phi: np.ndarray, covariance: np.ndarray,
               then: np.ndarray) -> np.ndarray:
        """u (Q,) by a look at phi, with each patient's covariance (P, K, K); `then` (P, K) is
        where they will be seen next."""
        with np.errstate(all="ignore"):  # of no solution: such steps are refused
            return self._updated(u, look, phi, covariance, then)

    def _updated(self, u: np.ndarray, look: Look, phi: np.ndarray, covariance: np.ndarray,
                 then: np.ndarray) -> np.ndarray:
        k = phi.shape[1]
        own, shared = look.jacobian[..., :k], look.jacobian[..., k:]
        at = self.patients.between(u)
        covariance = np.where(np.isfinite(covariance), covariance, np.diag(
            1.0 / np.diagonal(at.precision)))
        slopes = differences(lambda u: self.patients.between(u).mu, u, self.located)
        weighed = np.einsum("pkg,kl->plg", slopes, at.precision)
        new = self._newton(u, self.located, np.einsum("plg,pl->g", weighed, phi - at.mu),
                           np.einsum("plg,plh->gh", weighed, slopes))
        theta = {n: np.asarray(v) for n, v in self.theta(new).items()}
        new = np.asarray(self.u(self._spreads(
            theta, phi - self.patients.between(new).mu, covariance)))
        new = self._residual_step(new, look.predicted, ((own @ covariance) * own).sum(axis=2))
        return self._shared_step(new, then, self._newton(
            new, self.shared, np.einsum("pn,pns->s", look.slope, shared),
            information_of(self.data, look.weight, shared).sum(axis=0)))

    def left_open(self, u: np.ndarray, look: Look) -> np.ndarray:
        """(Q,): of typical values and coefficients, the share of the prior's variance that the
        levels leave at a look at the modes, the patients' own parameters integrated out."""
        k, places = look.jacobian.shape[2] - len(self.shared), [*self.located, *self.shared]
        at = self.patients.between(u)
        slopes = differences(lambda u: self.patients.between(u).mu, u, self.located)
        with np.errstate(all="ignore"):  # where a solve failed, of whom nothing is known
            seen = information_of(self.data, look.weight, look.jacobian)
            seen = np.where(np.isfinite(seen).all(axis=(1, 2), keepdims=True), seen, 0.0)
        pulled = at.precision @ slopes
        known, size = np.zeros((len(seen), len(places), len(places))), len(self.located)
        known[:, :size, :size] = np.swapaxes(slopes, 1, 2) @ pulled
        known[:, size:, size:] = seen[:, k:, k:]
        across = np.concatenate([-pulled, seen[:, :k, k:]], axis=2)
        known = known - np.swapaxes(across, 1, 2) @ np.linalg.solve(
            at.precision + seen[:, :k, :k], across)
        prior = 1e-9 - np.minimum(self._of_prior(u)[1][places], 0.0)
        left = np.full(len(u), np.nan)
        left[places] = prior * np.diagonal(np.linalg.inv(known.sum(axis=0) + np.diag(prior)))
        return left

    def _shared_step(self, u: np.ndarray, phi: np.ndarray, new: np.ndarray) -> np.ndarray:
        """From u towards `new`, which differs in what moves the predictions where phi is held, as
        far as it helps and no patient loses its solution: it would not find it again."""
        if np.array_equal(u, new):
            return u

        def height(u: np.ndarray) -> np.ndarray:
            return np.append(self.patients.look(u, phi).value, self.prior(u)[self.shared])

        before = height(u)
        known = np.isfinite(before)
        for share in 0.25 ** np.arange(4):
            trial = u + share * (new - u)
            if np.sum(height(trial)[known] - before[known]) >= 0.0:
                return trial
        return u

    def _newton(self, u: np.ndarray, places: np.ndarray, gradient: np.ndarray,
                information: np.ndarray) -> np.ndarray:
        """One Newton step of some places of u, their priors included; gradient, information of
        the rest of the log density, (S,) and (S, S)."""
        if not len(places):
            return u
        slopes, bends = self._of_prior(u)
        total = information + np.diag(1e-9 - np.minimum(bends[places], 0.0))
        if not (np.isfinite(total).all() and np.isfinite(gradient).all()):
            return u  # a patient without a solution; the next look may have one
        move = np.linalg.solve(total, gradient + slopes[places])
        # shortened as a whole, it still leads uphill
        return self._moved(u, places, move / max(1.0, np.max(np.abs(move) / self.reach[places])))

    def _moved(self, u: np.ndarray, places: np.ndarray, move: np.ndarray) -> np.ndarray:
        """u with some places moved, none beyond its reach nor where the move is no number."""
        new, reach = u.copy(), self.reach[places]
        new[places] += np.where(np.isfinite(move), np.clip(move, -reach, reach), 0.0)
        return new

    def _of_prior(self, u: np.ndarray, step: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
        """Slopes and bends of the log priors (Q,) on the real line."""
        low, here, high = (np.asarray(self.prior(u + s)) for s in (-step, 0.0, step))
        return (high - low) / (2 * step), (high - 2 * here + low) / step**2

    def _residual_step(self, u: np.ndarray, f: np.ndarray, row_variance: np.ndarray) -> np.ndarray:
        """One scoring step on the residual errors. The predictions' uncertainty `row_variance`
        (P, N) enters by taking each row a standard deviation above and below (else sigma would
        come out too small); the information about the log of a sigma is two per row."""
        model, data, patients = self.model, self.data, self.patients
        away = np.sqrt(np.where(data["observed"], row_variance, 0.0))
        log, share = (np.isin(data["output"], [
            k for k, e in enumerate(model.error_models().values()) if of(e)])
            for of in (lambda e: e.log_scale, lambda e: "prop" in e.sigmas))
        # an SD in proportion to a prediction that may be 0 would be beyond all numbers
        factors = np.where(log, away, np.minimum(away / np.abs(f), 1.0))
        sides = [np.where(log | share, f * np.exp(s * factors), f + s * away) for s in (-1, 1)]
        gradient = 0.5 * patients.by_residuals(u, lambda u: np.sum(
            [patients.rows(u, side)[0] for side in sides]))
        slopes = differences(lambda u: np.array(
            [float(self.theta(u)[model.free[k]]) for k in patients.residual]), u, patients.residual)
        theta, known = self.theta(u), []
        pairs = {rho_of(pair): pair for pair in model.error_pairs}
        for k, slope in zip(patients.residual, np.diagonal(slopes), strict=True):
            name = model.free[k]
            if name in pairs:
                rows = np.sum(second_rows([pairs[name]], list(model.errors), data))
                known.append(max(float(rows), 1.0) * (1.0 + float(theta[name]) ** 2))
            else:
                rows = np.sum(residual_rows(model, data, name))
                known.append(2.0 * max(float(rows), 1.0) * (slope / float(theta[name])) ** 2)
        gradient = gradient + self._of_prior(u)[0][patients.residual]
        return self._moved(u, patients.residual, gradient / np.array(known))

    def _spreads(self, theta: dict[str, np.ndarray], away: np.ndarray, covariance: np.ndarray) \
            -> dict[str, np.ndarray]:
        """Omegas and correlations from the conditional modes, `away` (P, K) from their location,
        and their covariances (P, K, K)."""
        model, updated = self.model, dict(theta)
        # as if two more patients had a spread of a third of what is large: it keeps omega off zero
        whole = (away.T @ away + covariance.sum(axis=0)
                 + 2 * 0.1 * np.diag(self.patients.sizes**2)) / (len(away) + 2)
        for name in dict.fromkeys(model.sds):
            if name not in model.fixed:
                updated[name] = np.sqrt(mean_variance(model, name, whole))
        for block in model.blocks:
            places = [model.spread.index(n) for n in block]
            pairs = [(i, j) for k, i in enumerate(places) for j in places[:k]]
            for name, (i, j) in zip(correlations(block), pairs, strict=True):
                if name not in model.fixed:
                    updated[name] = whole[i, j] / np.sqrt(whole[i, i] * whole[j, j])
        return updated


def _first(model: PopulationModel, name: str) -> float:
    """Where the search begins: the prior's median or, since a prior that was asked for may be
    flat and lie anywhere, the model file's value where that prior leaves it room."""
    if name not in model.priors:
        return float(model.fixed[name])
    prior = model.priors[name]
    if model.reasons.get(name) == "asked for" and name.endswith("_pop"):
        typical = model.structure.parameter(name.removesuffix("_pop")).typical
        away = float(prior.scale.to_real(jnp.asarray(typical))
                     - prior.scale.to_real(jnp.asarray(prior.median)))
        if abs(away) < 3.0 * prior.numbers[-1]:
            return typical
    # of a correlation the median is that of the partial one: in a block they need not hold together
    return 0.0 if prior.family == "tanhnormal" else prior.median


def laplace_start(model: PopulationModel, data: Arrays, seed: int, rounds: int = 120,
                  begin: Mapping[str, float] | None = None, held: bool = False,
                  patients: Patients | None = None) -> Start:
    """Modes, information and a population start by Laplace-EM from the best of many guesses.

    Every patient first takes the best of 200 draws around the priors' medians (peaks and slopes
    of its own data decide which is best). Then rounds of one damped scoring step for every
    patient, each accepting or refusing its own, and one update of the population follow, until
    the population stands still. A patient whose solve fails everywhere keeps the typical values
    and has a `log_likelihood` that is not finite.

    begin : population values by name in place of those medians; held : they stay as they are
    patients : the model's, if there are any already: they keep the programs
    """
    theta = {n: _first(model, n) for n in model.names}
    for n in model.spread:  # an omega's prior median is small where patients differ much
        theta[f"omega_{n}"] = model.fixed.get(f"omega_{n}", max(
            theta[f"omega_{n}"], 0.7 * model.structure.parameter(n).size))
    theta |= begin or {}
    patients = patients or Patients(model, data)
    known = _Population(patients)
    u = np.asarray(known.u({n: np.asarray(v, float) for n, v in theta.items()}))
    phi = patients.best_of_draws(u, seed)[0]
    look, damping = patients.look(u, phi), np.full(len(phi), 0.1)

    moved, count = 1.0, 0
    while count < (30 if held else 8) or (moved > 0.006 and count < rounds):
        better, new, seen, covariance = _turned(patients, u, phi, look, damping)
        before, count = u, count + 1
        u = u if held else known.update(u, look, phi, covariance, new)
        moved = float(np.max(np.abs(u - before) / known.reach, initial=0.0))
        phi, look = new, seen if held else patients.look(u, new)
        damping = np.clip(damping * np.where(better, 0.2, 8.0), 1e-9, 1e6)
    for _ in range(10):  # the patients to their modes, the population at rest
        better, phi, look, _ = _turned(patients, u, phi, look, damping)
        damping = np.clip(damping * np.where(better, 0.2, 8.0), 1e-9, 1e6)
    return _begun(model, data, u, phi, look, count)._replace(
        left_open=jnp.asarray(known.left_open(u, look)))


def _turned(patients: Patients, u: np.ndarray, phi: np.ndarray, look: Look, damping: np.ndarray) \
        -> tuple[np.ndarray, np.ndarray, Look, np.ndarray]:
    """Whose step helps (P,), the phi and the look that these lead to, and the covariances
    (P, K, K) there were."""
    at = patients.between(u)
    with np.errstate(all="ignore"):  # where a solve failed
        step = scoring_step(at, phi, look, damping)
        most = 3.0 * patients.sizes
        trial = phi + np.clip(step, -most, most)
        seen = patients.look(u, trial)
        better = rises(patients.height(u, trial, seen), patients.height(u, phi, look))
        axes = inverse_transposed(factor(at.precision, look.information), look.value)
        return better, *patientwise(better, (trial, seen), (phi, look)), \
            axes @ np.swapaxes(axes, 1, 2)


def _begun(model: PopulationModel, data: Arrays, u: np.ndarray, phi: np.ndarray, look: Look,
           count: int) -> Start:
    """The start, with what each output's rows say."""
    own, output = look.jacobian[..., :phi.shape[1]], np.asarray(data["output"])
    gradient, information = [], []
    with np.errstate(all="ignore"):  # where a solve failed
        for o in range(len(model.structure.outputs)):
            # of pairs what a row says of itself: it is for coordinates only
            weight = look.weight if look.weight.ndim == 2 else look.weight[..., 0]
            slope, weight = (np.where(output == o, x, 0.0)[..., None]
                             for x in (look.slope, np.maximum(weight, 0.0)))
            gradient.append((slope * own).sum(axis=1))
            information.append(np.swapaxes(own, 1, 2) @ (weight * own))
        first, second = np.stack(gradient, axis=1), np.stack(information, axis=1)
        usable = np.isfinite(second).all(axis=(1, 2, 3)) & np.isfinite(first).all(axis=(1, 2))
        second = np.where(usable[:, None, None, None], second, 0.0)
        linear = np.einsum("pokl,pl->pok", second, phi) + np.where(
            usable[:, None, None], first, 0.0)
    return Start(jnp.asarray(u), jnp.asarray(phi), jnp.asarray(second), jnp.asarray(linear),
                 jnp.asarray(look.value), count)
