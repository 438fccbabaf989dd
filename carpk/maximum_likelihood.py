"""The most likely population by an approximation: quasi-Newton on its exact gradient."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from carpk.approximations import Approximation, Likelihood, Method, refuse_binary
from carpk.asymptotics import (
    Uncertainty,
    estimates,
    hessian_of,
    inside,
    normal_draws,
    said_of_zero,
    uncertainty,
)
from carpk.checkpoints import Checkpoints, Progress
from carpk.climbing import Top
from carpk.conditional import Curvature, Patients
from carpk.empirical_bayes import Start
from carpk.expected_information import as_asked
from carpk.information_criteria import criteria
from carpk.likelihood import to_theta
from carpk.many_fits import Result
from carpk.model_record import received
from carpk.multistart import Ended, agreed, dispersed, made, plain, size_of
from carpk.population_model import PopulationModel
from carpk.problems import RequestError
from carpk.refused_priors import refuse_priors
from carpk.solve import Arrays
from carpk.starting_values import began, climbing_from, kept_start, start_kept

_ROUNDS = 200  # quasi-Newton steps
_HOPELESS = 1.0  # OFV still to be gained where a search stopped: another begins elsewhere
_STANDING = 1e-5  # OFV still to be gained by the quadratic model, below which a fit stands


class Found(NamedTuple):
    """What a fit by maximum likelihood is made of; see `carpk.estimators.Estimate`."""

    theta: dict[str, np.ndarray]
    phi: np.ndarray
    reasons: tuple[str, ...]
    remarks: tuple[str, ...]
    measures: dict[str, float]
    seconds: dict[str, float]
    estimates: dict[str, dict[str, float]]
    record: dict[str, Any]


class Maximum(NamedTuple):
    """u (Q,), the likelihood there with its scores, the expected gain in OFV of a further step,
    steps taken, and the places of patients whom a path had led to a mode that is not the likeliest.
    """

    u: np.ndarray
    found: Likelihood
    gain: float
    steps: int
    torn: tuple[int, ...] = ()

    @property
    def kinked(self) -> np.ndarray:
        """(P,), whose mode is a kink of the model."""
        return np.zeros(len(self.found.patients), bool) if self.found.kinked is None \
            else self.found.kinked

    @property
    def ofv(self) -> float:
        """-2 log-likelihood without N log 2 pi."""
        return float(self.found.patients.sum())

    @property
    def rested(self) -> bool:
        """Whether the search stands still: the objective would not fall further."""
        return self.gain < (0.5 if self.kinked.any() else 1e-3)


def maximised(approximation: Approximation, u: np.ndarray, phi: Any,
              told: Callable[[int], None], anew: bool = False) -> Maximum:
    """BFGS in coordinates in which the patients' scores at the start are uncorrelated.

    Modes are warm: each search starts at those of the best population so far; `anew`, from nothing
    too. A step is halved until the objective falls, and where a solve fails it has not fallen.
    """
    best, slopes = with_scores(approximation, u, phi, anew)
    # beside a patient without slopes there lies no solution: the others lead away from there
    slopes = np.where(np.isfinite(slopes), slopes, 0.0)
    sizes = np.array([size_of(approximation.model, n) for n in approximation.model.free])
    factor = _metric(slopes, sizes)
    inverse, gain, steps = np.eye(len(u)), np.inf, 0
    while steps < _ROUNDS:
        gradient = factor.T @ slopes.sum(axis=0)
        direction = -inverse @ gradient
        gain = -0.5 * float(gradient @ direction)
        told(steps)
        if not gain > _STANDING:
            break
        direction *= min(1.0, 4.0 / float(np.linalg.norm(direction)))  # four standard errors
        for share in 0.4 ** np.arange(14):
            trial = u + factor @ (share * direction)
            found, at = with_scores(approximation, trial, best.modes.phi, anew)
            fallen = float(found.patients.sum() - best.patients.sum())
            if np.isfinite(at).all() and fallen <= 1e-4 * share * float(gradient @ direction):
                break
        else:
            if np.array_equal(inverse, np.eye(len(u))):
                break
            inverse = np.eye(len(u))  # the metric was misled: begin it again
            factor = _metric(slopes, sizes)
            steps += 1
            continue
        inverse = _updated(inverse, share * direction, factor.T @ at.sum(axis=0) - gradient)
        u, best, slopes, steps = trial, found, at, steps + 1
    return Maximum(u, best._replace(scores=slopes), gain, steps)


def with_scores(approximation: Approximation, u: np.ndarray, phi: Any, anew: bool = False) \
        -> tuple[Likelihood, np.ndarray]:
    """The likelihood and the patients' gradients (P, Q)."""
    found = approximation.likelihood(u, phi, True, anew)
    assert found.scores is not None
    return found, found.scores


def slopes_of(approximation: Approximation, u: np.ndarray, phi: Any) -> np.ndarray:
    """(P, Q), the patients' gradients alone."""
    return with_scores(approximation, u, phi)[1]


def _metric(scores: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """F (Q, Q): F F' is about the inverse Hessian of -2 log-likelihood, by the patients' scores.
    What these say nothing of is taken to be known within its size (Q,): else the first step leads
    it beyond all numbers, and none of the others gets anywhere."""
    squares = 0.5 * scores.T @ scores
    scale = np.minimum(1.0 / np.sqrt(np.maximum(np.diagonal(squares), 1e-300)), sizes)
    own, axes = np.linalg.eigh(squares * np.outer(scale, scale))
    return scale[:, None] * axes / np.sqrt(np.maximum(own, 1e-3))


def _updated(inverse: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """BFGS update of an inverse Hessian; none where the step saw no positive curvature."""
    along = float(step @ change)
    if not along > 1e-8 * float(np.linalg.norm(step) * np.linalg.norm(change)):
        return inverse
    left = np.eye(len(step)) - np.outer(step, change) / along
    return left @ inverse @ left.T + np.outer(step, step) / along


def settled(approximation: Approximation, begun: Maximum, told: Callable[[int], None]) \
        -> tuple[Maximum, np.ndarray]:
    """The maximum and the Hessian there, after Newton's steps by that Hessian, with the likeliest
    modes there are, also by a search from nothing: those of a fit must not depend on its path.
    Where the path had led away from these (to the end of a mode's life its curvature falls to 0,
    and Laplace's objective without end), all further looks begin from nothing.
    Where modes lie on kinks patients go from one to another: differences of scores are no Hessian
    there, the sum of squared scores stands in, and only the last look begins from nothing, which
    takes ten times as long."""
    best, torn = begun, tuple[int, ...]()
    for _ in range(4):
        fresh = approximation.likelihood(best.u, best.found.modes.phi, anew=True)
        apart = np.abs(fresh.patients - best.found.patients)
        if apart.sum() > 1e-3:  # a likelier mode of some patient
            torn += tuple(int(k) for k in np.flatnonzero(apart > 1e-4) if k not in torn)
            smooth = not best.kinked.any()
            best = maximised(approximation, best.u, fresh.modes.phi, told, smooth)
            if not smooth:  # patients go from one kink to another on any path
                found, at = with_scores(approximation, best.u, best.found.modes.phi, True)
                best = best._replace(found=found._replace(scores=at))
        best = best._replace(torn=torn)
        sizes = np.sqrt(2.0 / np.maximum(np.diagonal(0.5 * _scores(best).T @ _scores(best)), 1e-12))
        phi = best.found.modes.phi
        if best.kinked.any():
            return best, 0.5 * _scores(best).T @ _scores(best)
        hessian = hessian_of(lambda u, phi=phi: with_scores(  # type: ignore[misc]
            approximation, u, phi)[1].sum(axis=0), best.u, np.minimum(sizes, 1.0))
        gradient = _scores(best).sum(axis=0)
        there = np.flatnonzero(inside(approximation.model, best.u))  # spreads at 0 stay there
        curved = hessian[np.ix_(there, there)]
        if np.linalg.eigvalsh(curved).min(initial=1.0) <= 0:
            return best, hessian
        step = np.zeros_like(gradient)
        step[there] = -np.linalg.solve(curved, gradient[there])
        gain = -0.5 * float(gradient @ step)
        if gain < 1e-4:
            return best._replace(gain=gain), hessian
        found = approximation.likelihood(best.u + step, best.found.modes.phi, anew=bool(torn))
        fallen = float(found.patients.sum()) < best.ofv
        u, phi = (best.u + step, found.modes.phi) if fallen else (best.u, best.found.modes.phi)
        best = maximised(approximation, u, phi, told, bool(torn))._replace(torn=torn)
        if not fallen:
            return best, hessian
    return best, hessian


def _scores(at: Maximum) -> np.ndarray:
    assert at.found.scores is not None
    return at.found.scores


def estimated(model: PopulationModel, data: Arrays, ids: tuple[str, ...], seed: int,
              progress: Progress, method: Method, draws: int, covariance: str = "observed",
              inits: str = "", starts: int = 1, kept: Checkpoints | None = None) -> Found:
    """A maximum-likelihood fit by one of the approximations: the best of several starts, each
    kept as it ends, or from one start, and where that comes to no rest from another.

    covariance : of the standard errors, see `carpk.expected_information`
    """
    refuse_priors(model)
    refuse_binary(model, method, ", saem or nuts")
    clock = time.perf_counter()
    progress("start", 0, 1)
    approximation = Approximation(model, data, method)
    patients = approximation.patients if approximation.patients.interaction else None

    def begin(elsewhere: Start | None = None) -> Start:
        return climbing_from(model, data, ids, seed, inits, patients, elsewhere)

    def searched(start: Start) -> tuple[Maximum, Start, list[Ended], Callable[[int], None]]:
        ended, top, told = _searched(approximation, start, starts, seed, progress, kept)
        return top, start, ended, told

    start = start_kept(kept if starts > 1 else None, begin)
    progress("start", 1, 1)
    begun = time.perf_counter()
    tries = [searched(start)]
    if starts == 1 and inits in ("", "data") and not tries[0][0].gain < _HOPELESS:
        with suppress(RequestError):  # of what changes in a patient the data tell no start
            tries.append(searched(begin(start)))
    top, start, ended, told = min(tries, key=lambda t: np.nan_to_num(t[0].ofv, nan=np.inf))
    best, hessian = settled(approximation, top, told)
    progress("estimate", 41 * starts, 41 * starts)
    done = time.perf_counter()
    scores = _scores(best)
    known, said = as_asked(covariance, uncertainty(model, best.u, hessian, scores), approximation,
                           best.u, scores, slopes_of, seed)
    if method == "fo":  # which looked at nobody but the typical patient: NONMEM's POSTHOC
        best = best._replace(found=best.found._replace(modes=approximation.patients.modes(best.u)))
    records, alone, apart = agreed(model, ended, best.u, best.ofv, known.covariance)
    reasons, remarks, measures = judged(approximation, ids, best, known)
    theta, phi = asymptotic_draws(approximation, best.u, best.found.modes, known, draws, seed)
    said += tuple(f"the search did not come to rest, at an OFV of {tries[0][0].ofv:.2f}; from "
                  f"another start it ended at {top.ofv:.2f}" for top, *_ in tries[1:])
    return Found(theta, phi, (*reasons, *alone), (*remarks, *apart, *said), measures,
                 {"start": begun - clock, "estimate": done - begun,
                  "uncertainty": time.perf_counter() - done}, estimates(model, best.u, known),
                 {"inits": began(model, start), **records})


def _searched(approximation: Approximation, start: Start, starts: int, seed: int,
              progress: Progress, kept: Checkpoints | None) \
        -> tuple[list[Ended], Maximum, Callable[[int], None]]:
    """The searches from a start and from around it, the best of them, and how to tell of more."""
    first, ended = np.asarray(start.u), 0

    def told(steps: int) -> None:
        progress("estimate", 41 * min(ended, starts - 1) + min(steps, 40), 41 * starts)

    def another(done: int, total: int) -> None:
        nonlocal ended
        ended = done
        progress("estimate", 41 * done, 41 * starts)

    if starts == 1:
        place, top = _search(approximation, start, first, told)
        return [Ended(place, top.u, top.ofv, 0.0, top.steps)], top, told
    found = made(
        searching, {"method": approximation.method},
        lambda asked: _told(approximation, *_search(approximation, start, asked[1], told)),
        approximation.model, approximation.data,
        dispersed(approximation.model, first, starts, seed), kept, another)
    every = [Ended(np.array(r["began"]), np.array(r["u"]), float(np.array(r["ofv"], float)), 0.0,
                   r["steps"]) for r in found]
    k = int(np.argmin([e.ofv if np.isfinite(e.ofv) else np.inf for e in every]))
    likelihood, scores = with_scores(approximation, every[k].u, np.array(found[k]["phi"], float))
    return every, Maximum(every[k].u, likelihood._replace(scores=scores), float(
        np.array(found[k]["gain"], float)), every[k].steps), told


def searching(source: str, asked: Mapping[str, Any]) -> Callable[[Any], Result]:
    """One of several searches, by a worker, from what an unfinished fit keeps in its folder."""
    kept = Checkpoints(Path(source), {})
    (model, data), start = received(kept), kept_start(kept)
    assert start is not None
    approximation = Approximation(model, data, asked["method"])
    return lambda place: _told(approximation, *_search(
        approximation, start, place[1], lambda steps: None))


def _search(approximation: Approximation, start: Start, place: Any,
            told: Callable[[int], None]) -> tuple[np.ndarray, Maximum]:
    """Where a search began and what it found. A place at which patients have no solution is drawn
    nearer to the start."""
    first = np.asarray(start.u)
    for share in (1.0, 0.5, 0.25):
        u = first + share * (np.asarray(place) - first)
        found = approximation.likelihood(u, start.phi, anew=True)
        if np.isfinite(found.patients).all():
            break
    return u, maximised(approximation, u, found.modes.phi, told)


def _told(approximation: Approximation, place: np.ndarray, top: Maximum) -> Result:
    """A search as it is kept, by the modes that one from nothing finds where they are likelier, as
    those of the best will be."""
    fresh = approximation.likelihood(top.u)
    best = fresh if float(fresh.patients.sum()) < top.ofv else top.found
    return {"began": place.tolist(), "u": top.u.tolist(), "ofv": plain(best.patients.sum()),
            "steps": top.steps, "gain": plain(top.gain), "phi": plain(best.modes.phi)}


def asymptotic_draws(approximation: Approximation, u: np.ndarray, modes: Top,
                     known: Uncertainty, draws: int, seed: int) \
        -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Population values (1, draws) by name, and phi (1, draws, P, K): of each drawn population the
    modes that follow it, and around them the normal of their curvature."""
    model = approximation.model
    curvature, _ = approximation.patients.curvature(u, modes)
    follows = _following(approximation.patients, u, modes, curvature)
    drawn = normal_draws(u, known.covariance, draws, seed)
    axes = np.asarray(curvature.axes)
    random = np.random.default_rng([seed, 1])
    z = random.normal(size=((len(drawn) - 1) // 2, *modes.phi.shape))
    noise = np.concatenate([np.zeros((1, *modes.phi.shape)), z, -z])
    phi = np.asarray(modes.phi)[None] + np.einsum("pkq,mq->mpk", follows, drawn - u) \
        + np.einsum("pkl,mpl->mpk", axes, noise)
    theta = jax.jit(jax.vmap(lambda u: to_theta(model, u)))(drawn)
    return {n: np.asarray(theta[n])[None] for n in model.free}, phi[None]


def _following(patients: Patients, u: np.ndarray, modes: Top, curvature: Curvature) \
        -> np.ndarray:
    """(P, K, Q): how the modes move with the population; 0 where the curvature is unusable."""
    k = modes.phi.shape[1]
    cross = np.einsum("pkq,pkm->pmq", patients.moves(u, modes).rising, curvature.axes)
    cross[:, :, patients.shared] += np.einsum("psm,pml->pls", curvature.mixed[:, k:],
                                              curvature.turn)
    moved = np.einsum("pkm,pmq->pkq", curvature.axes, cross)
    return np.where(np.isfinite(moved), moved, 0.0)


def judged(approximation: Approximation, ids: tuple[str, ...], best: Maximum,
           known: Uncertainty) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, float]]:
    """Reasons against a fit, remarks and measures: it stands still, its likelihood is curved,
    every patient has a mode."""
    model = approximation.model
    reasons, remarks = [], []
    kinks = [i for i, k in zip(ids, best.kinked, strict=True) if k]
    if kinks:
        remarks.append(f"the mode of patients {', '.join(kinks)} lies on a kink of the model (a "
                       "peak at the time of a sample): the approximation is rough there, and "
                       "standard errors are from the scores; saem has no such trouble")
    if not best.rested:
        torn = ", ".join(ids[k] for k in best.torn)
        reasons.append(f"the objective could still fall by {best.gain:.2g}: the search did not "
                       "come to rest; " + (
                           f"patients {torn} have two modes as likely as each other, between "
                           "which it jumps: saem has no such trouble" if torn else
                           "fix or drop what the data do not inform"))
    if known.flat:
        reasons.append(f"{known.flat}: fix one of them, or take it out of the model")
    elif known.condition > 1000:
        remarks.append(f"the estimates are strongly correlated (condition number "
                       f"{known.condition:.3g})")
    lost = [i for i, v in zip(ids, best.found.patients, strict=True) if not np.isfinite(v)]
    if lost:
        reasons.append(f"no solution, or no mode, for patients {', '.join(lost)}")
    restless = [i for i, v in zip(ids, np.asarray(best.found.modes.decrement), strict=True)
                if v > 1e-6]
    if restless:
        remarks.append(f"the mode of patients {', '.join(restless)} is a kink or a ridge")
    remarks += said_of_zero(model, best.u)
    rows = int(np.asarray(approximation.data["observed"]).sum())
    measures = criteria(model, best.ofv, float(approximation.constant.sum()), len(ids), rows) | {
        "gain": best.gain, "steps": float(best.steps), "condition_number": known.condition}
    return tuple(reasons), tuple(remarks), measures
