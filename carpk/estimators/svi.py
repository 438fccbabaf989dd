"""Variational inference: a normal guide fitted to the posterior, quick, approximate, and measured.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from scipy.special import logsumexp

from carpk import posterior
from carpk.checkpoints import Progress
from carpk.empirical_bayes import Start
from carpk.estimators import Convergence, Estimate, Estimator
from carpk.geometry import frozen, log_density, to_phi
from carpk.likelihood import (
    log_covariates,
    log_jacobian,
    log_prior,
    patient_log_density,
    patient_log_likelihood,
    to_theta,
)
from carpk.padding import filled_on_devices, filled_start, filled_to, own_patients
from carpk.population_model import PopulationModel
from carpk.problems import Problem, RequestError
from carpk.solve import Arrays
from carpk.starting_values import began, refused_inits, start_from

_BLOCK = 100  # steps of one call: what the progress bar moves by
_FAST, _SLOW = 0.03, 0.001  # step sizes of Adam at the beginning and at the end
_AVERAGED = 0.3  # share of the steps, the last, over which the guide's parameters are averaged
_OUTER, _INNER = 400, 25  # draws of the population by which the guide is measured, and of phi each
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_BAD = 0.7  # a Pareto k above it: importance weights cannot mend the guide, and it is not near


@dataclass(frozen=True)
class Svi(Estimator):
    """A multivariate normal of the population parameters on the real line, and one of each
    patient's parameters in coordinates that the patient's own data inform, fitted by maximising
    the evidence lower bound. It is an approximation: intervals are usually too narrow.

    Pareto k of importance weights says how near it is (Yao et al. 2018, ICML): of the population,
    patients integrated out, and of all parameters at once.

    steps : of Adam; particles : draws for each gradient; draws : from the guide
    inits : where it begins, see `carpk.starting_values.start_from`
    """

    steps: int = 3000
    particles: int = 4
    draws: int = 2000
    inits: str = ""

    def __post_init__(self) -> None:
        found = refused_inits(self.inits)
        found += [Problem("error", f"must be a whole number of at least {least}", column=n,
                          found=str(getattr(self, n)))
                  for n, least in (("steps", 500), ("particles", 1), ("draws", 100))
                  if not (isinstance(getattr(self, n), int) and getattr(self, n) >= least)]
        if found:
            raise RequestError(found)

    def fit(self, model: PopulationModel, data: Arrays, ids: tuple[str, ...], seed: int,
            progress: Progress) -> Estimate:
        """Starts, climbs the bound, draws and measures; see Estimator."""
        clock = time.perf_counter()
        progress("start", 0, 1)
        start = start_from(model, data, seed, self.inits)
        progress("start", 1, 1)
        # all of the information at the modes: then the guide is exact of a linear normal model
        full, frame = filled_on_devices(data), frozen(
            model, filled_start(start, len(jax.devices())), trusted=1.0)
        begun = time.perf_counter()
        guide, elbo, lost = self._climbed(model, full, frame, start, seed, progress)
        done = time.perf_counter()
        u, z = _drawn(guide, self.draws, np.random.default_rng([seed, 5]))
        theta, phi = jax.jit(lambda u, z, data, frame: jax.lax.map(
            lambda pair: _natural(model, data, frame, *pair), (u, z)))(
                u, filled_to(len(full["time"]), z, 1), full, frame)
        k, joint = _measured(model, full, frame, guide, seed)
        convergence = _judged(elbo, lost, k, joint, self.steps)
        return Estimate({n: np.asarray(v)[None] for n, v in theta.items()},
                        np.asarray(phi)[None, :, :len(ids)], {}, "guide", convergence,
                        {"start": begun - clock, "estimate": done - begun,
                         "measure": time.perf_counter() - done},
                        record={"inits": began(model, start)})

    def _climbed(self, model: PopulationModel, data: Arrays, frame: Arrays, start: Start,
                 seed: int, progress: Progress) -> tuple[Arrays, np.ndarray, int]:
        """The guide's parameters, averaged at last, the bound after each step, steps lost.

        Of those who fill up the data neither density nor guide knows: they stay at 0 and 1.
        """
        (patients, k), room, size = start.phi.shape, len(data["time"]), len(model.free)

        def particle(params: Arrays, key: jax.Array, data: Arrays, frame: Arrays) -> jax.Array:
            """log density less the guide's, where one draw of the guide lies."""
            own = own_patients(data)[:, None]
            of_u, of_z = jax.random.split(key)
            low, low_z = _lower(params["low"]), _lower(params["z_low"])
            x, y = jax.random.normal(of_u, (size,)), jax.random.normal(of_z, (room, k))
            z = jnp.where(own, params["z_mean"] + jnp.einsum("pkl,pl->pk", low_z, y), 0.0)
            volume = jnp.log(jnp.diagonal(low)).sum() + jnp.where(own, jnp.log(
                jnp.diagonal(low_z, axis1=1, axis2=2)), 0.0).sum()
            squares = (x**2).sum() + jnp.where(own, y**2, 0.0).sum()
            return log_density(model, data, frame, params["mean"] + low @ x, z, "informed") \
                + volume + 0.5 * squares + _HALF_LOG_2PI * (size + k * own.sum())

        @jax.jit
        def block(key: jax.Array, state: Any, mean: Arrays, count: jax.Array, *given: Any) -> Any:
            def one(carry: Any, _: None) -> Any:
                key, state, mean, count = carry
                key, now = jax.random.split(key)
                draws = jax.random.split(now, self.particles)
                (loss, _), state = adam.eval_and_stable_update(lambda params: (-jax.vmap(
                    lambda key: particle(params, key, *given))(draws).mean(), None), state)
                count = count + 1
                share = 1.0 / jnp.maximum(1.0, count)  # until count is above 0: the last alone
                mean = jax.tree.map(lambda a, b: a + share * (b - a), mean,
                                    _guide(adam.get_params(state)))
                return (key, state, mean, count), -loss

            return jax.lax.scan(one, (key, state, mean, count), None, length=_BLOCK)

        def size_of(step: Any) -> Any:
            return _FAST * (_SLOW / _FAST) ** (step / self.steps)

        adam, blocks, bounds = numpyro.optim.Adam(size_of), -(-self.steps // _BLOCK), []
        first = {"mean": np.asarray(start.u), "z_mean": np.zeros((room, k)),
                 "low": np.eye(size) * np.log(np.expm1(patients**-0.5)),
                 "z_low": np.tile(np.eye(k) * np.log(np.expm1(1.0)), (room, 1, 1))}
        carry = jax.tree.map(np.asarray, (
            jax.random.PRNGKey(seed), adam.init(first), _guide(first),
            -float(round((1.0 - _AVERAGED) * blocks) * _BLOCK)))
        for done in range(blocks):
            # to the host and back: spread over devices as it comes it would need another program
            carry, bound = jax.tree.map(np.asarray, block(*carry, data, frame))
            bounds.append(bound)
            progress("estimate", done + 1, blocks)
        elbo = np.concatenate(bounds)
        return {n: v[:patients] if n.startswith("z_") else v for n, v in carry[2].items()}, elbo, \
            int((~np.isfinite(elbo)).sum())


def _guide(params: Arrays) -> Arrays:
    """The means and lower factors that Adam's parameters, any numbers, stand for."""
    return {n: _lower(v) if n.endswith("low") else v for n, v in params.items()}


def _lower(squares: jax.Array) -> jax.Array:
    """(..., K, K), the diagonals made positive and nothing above them."""
    one = jnp.broadcast_to(jnp.eye(squares.shape[-1]), squares.shape)
    return jnp.tril(squares, -1) + one * jax.nn.softplus(squares)


def _natural(model: PopulationModel, data: Arrays, frame: Arrays, u: jax.Array, z: jax.Array) \
        -> tuple[Arrays, jax.Array]:
    theta = to_theta(model, u)
    return {n: theta[n] for n in model.free}, to_phi(model, data, theta, z, frame, "informed")[0]


def _drawn(guide: Arrays, draws: int, random: np.random.Generator) \
        -> tuple[np.ndarray, np.ndarray]:
    """u (draws, Q) and z (draws, P, K) from the guide."""
    u = guide["mean"] + random.normal(size=(draws, len(guide["mean"]))) @ guide["low"].T
    return u, _patients_drawn(guide, draws, random)


def _patients_drawn(guide: Arrays, draws: int, random: np.random.Generator) -> np.ndarray:
    middle = guide["z_mean"]
    return np.asarray(middle + np.einsum("pkl,dpl->dpk", guide["z_low"],
                                         random.normal(size=(draws, *middle.shape))))


def _log_normal(x: np.ndarray, mean: np.ndarray, low: np.ndarray) -> np.ndarray:
    """(...): log density of a multivariate normal with lower factor (..., K, K)."""
    z = np.linalg.solve(low, (x - mean)[..., None])[..., 0]
    volume = np.log(np.diagonal(low, axis1=-2, axis2=-1)).sum(axis=-1)
    return np.asarray(-0.5 * (z**2).sum(axis=-1) - volume
                      - 0.5 * x.shape[-1] * np.log(2.0 * np.pi))


def _measured(model: PopulationModel, data: Arrays, frame: Arrays, guide: Arrays, seed: int) \
        -> tuple[float, float]:
    """Pareto k of importance weights: of the population, with each patient's likelihood the mean
    over draws of the patient, and of the population with one draw of every patient."""
    random = np.random.default_rng([seed, 6])
    mean, low, (patients, k) = guide["mean"], guide["low"], guide["z_mean"].shape
    u = mean + random.normal(size=(_OUTER, len(mean))) @ low.T
    inner = _INNER if k else 1
    z = _patients_drawn(guide, _OUTER * inner, random)
    proposed = _log_normal(z, guide["z_mean"], guide["z_low"]).reshape(_OUTER, inner, patients)
    z = filled_to(len(data["time"]), z, 1).reshape(_OUTER, inner, len(data["time"]), k)

    @jax.jit
    def terms(u: jax.Array, z: jax.Array, data: Arrays, frame: Arrays) -> Any:
        def one(pair: Any) -> Any:
            u, z = pair
            theta = to_theta(model, u)

            def patient(z: jax.Array) -> jax.Array:
                phi, volume = to_phi(model, data, theta, z, frame, "informed")
                value = patient_log_likelihood(model, data, theta, phi) \
                    + patient_log_density(model, data, theta, phi) + volume
                return jnp.where(jnp.isfinite(value), value, -jnp.inf)

            return jax.lax.map(patient, z), log_covariates(model, data, theta) \
                + log_prior(model, theta, data) + log_jacobian(model, u)
        return jax.lax.map(one, (u, z))

    each, prior = (np.asarray(v) for v in terms(u, z, data, frame))
    each = each[..., :patients] - proposed
    whole = prior - _log_normal(u, mean, low)
    marginal = logsumexp(each, axis=1).sum(axis=1) + whole
    both = np.stack([marginal, each[:, 0].sum(axis=1) + whole], axis=1)
    found = posterior.pareto_k(np.where(np.isfinite(both), both, both[np.isfinite(both)].min(
        initial=-1e300) - 1e3))
    return float(found[0]), float(found[1])


def _judged(elbo: np.ndarray, lost: int, k: float, joint: float, steps: int) -> Convergence:
    """The bound had stopped rising, few steps were lost, and the weights have a mean."""
    tenth = len(elbo) // 10
    before, last = elbo[-2 * tenth:-tenth], elbo[-tenth:]
    gain = float(np.nanmean(last) - np.nanmean(before))
    noise = float(np.hypot(np.nanstd(last), np.nanstd(before)) / tenth**0.5)
    reasons = []
    if not gain < 0.2 + 3.0 * noise:
        reasons.append(f"the bound was still rising, by {gain:.2g} in the last tenth of {steps} "
                       "steps: take more")
    if not k < _BAD:
        reasons.append(f"Pareto k of the population's importance weights is {k:.2f} (want below "
                       f"{_BAD}): the guide is not near the posterior; take nuts")
    if lost > 0.05 * len(elbo):
        reasons.append(f"{lost} of {len(elbo)} steps had no solution")
    remarks = ("an approximation of the posterior by a normal guide: intervals are usually too "
               "narrow, and nuts draws from the posterior itself",)
    measures = {"elbo": float(np.nanmean(last)), "elbo_gain": gain, "pareto_k": k,
                "pareto_k_joint": joint, "lost_steps": float(lost)}
    return Convergence(not reasons, tuple(reasons), remarks, measures)


ESTIMATOR = Svi
