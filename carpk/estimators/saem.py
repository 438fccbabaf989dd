"""Stochastic approximation EM: the maximum of the exact likelihood, censored rows and all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from carpk.approximations import Approximation, binary_outputs
from carpk.asymptotics import estimates, hessian_of, said_of_zero, uncertainty
from carpk.checkpoints import Checkpoints, Progress
from carpk.empirical_bayes import Start
from carpk.estimators import Estimate, Estimator, odd, of_maximum, unknown
from carpk.expected_information import as_asked
from carpk.importance import importance_sampled
from carpk.information_criteria import criteria
from carpk.many_fits import Result
from carpk.maximum_likelihood import Found, asymptotic_draws, slopes_of
from carpk.model_record import received
from carpk.multistart import Ended, agreed, dispersed, made, plain, refused_starts
from carpk.population_model import PopulationModel
from carpk.posterior import pareto_k
from carpk.problems import Problem, RequestError
from carpk.refused_priors import refuse_priors
from carpk.solve import Arrays
from carpk.starting_values import began, climbing_from, kept_start, refused_inits, start_kept
from carpk.stochastic_em import Programs, chains_for, moved_start, walked


@dataclass(frozen=True)
class Saem(Estimator):
    """SAEM from a quick Laplace fit; then the likelihood by importance sampling, and standard
    errors from the FOCEI information at the estimate (of Laplace where an output is binary).

    chains : per patient; 0 for as many as make a hundred in all or more, at least three
    burn_in, smoothing : iterations; 0 for as many as it takes to come to rest, at most 1000 each
    importance : draws per patient for the likelihood
    draws : from the asymptotic normal, an odd number
    covariance : of the standard errors: observed information, expected (simulated), or sandwich
    inits : where it begins, see `carpk.starting_values.start_from`
    starts : how many searches, from there and around it; the fit is the best of them
    """

    resumable: ClassVar[bool] = True  # of several starts

    chains: int = 0
    burn_in: int = 0
    smoothing: int = 0
    importance: int = 3000
    draws: int = 401
    covariance: str = "observed"
    inits: str = ""
    starts: int = 1

    def __post_init__(self) -> None:
        found = odd(self.draws) + unknown(self.covariance) + refused_inits(self.inits) \
            + refused_starts(self.starts)
        found += [Problem("error", "must be a whole number, not below 0", column=n,
                          found=str(getattr(self, n))) for n in ("chains", "burn_in", "smoothing")
                  if not (isinstance(getattr(self, n), int) and getattr(self, n) >= 0)]
        if not self.importance >= 100:
            found.append(Problem("error", "must be at least 100", column="importance",
                                 found=str(self.importance)))
        if found:
            raise RequestError(found)

    def fit(self, model: PopulationModel, data: Arrays, ids: tuple[str, ...], seed: int,
            progress: Progress, kept: Checkpoints | None = None) -> Estimate:
        """See Estimator."""
        _refuse(model)
        clock = time.perf_counter()
        progress("start", 0, 1)
        approximation = Approximation(model, data, "laplace" if binary_outputs(model) else "focei")
        asked = {"chains": self.chains or chains_for(len(ids)), "seed": seed,
                 **{n: getattr(self, n) for n in ("burn_in", "smoothing", "importance")}}
        with ThreadPoolExecutor(1) as pool:  # compiles on another core meanwhile
            compiled = pool.submit(Programs(model).compiled, approximation.patients,
                                   asked["chains"])
            start = start_kept(kept if self.starts > 1 else None, lambda: climbing_from(
                model, data, ids, seed, self.inits, approximation.patients))
            programs = compiled.result()
        progress("start", 1, 1)
        begun = time.perf_counter()
        constant = float(approximation.constant.sum())
        total = (self.burn_in or 300) + (self.smoothing or 500)

        def told(k: int, done: int) -> None:
            progress("estimate", k * total + min(done, total), self.starts * total)

        places = dispersed(model, np.asarray(start.u), self.starts, seed)
        searched = made(
            searching, {"method": approximation.method, **asked},
            _search(asked, approximation, start, programs, told), model, data, places, kept,
            lambda done, _: told(done, 0))
        ended = [Ended(place, np.array(r["u"], float), float(np.array(r["ofv"], float)),
                       float(np.array(r["se"], float)), r["burn_in"] + r["smoothing"])
                 for place, r in zip(places, searched, strict=True)]
        top = int(np.argmin([e.ofv if np.isfinite(e.ofv) else np.inf for e in ended]))
        found, (_, u, ofv, noise, _) = searched[top], ended[top]
        counted = time.perf_counter()
        walking = min(sum(r["seconds"] for r in searched), counted - begun)
        at = approximation.likelihood(u, np.array(found["mean"], float), scores=True)
        assert at.scores is not None
        assert at.kinked is not None
        squares = 0.5 * at.scores.T @ at.scores
        if at.kinked.any():
            hessian = squares
        else:
            sizes = np.sqrt(2.0 / np.maximum(np.diagonal(squares), 1e-12))
            hessian = hessian_of(lambda u: np.asarray(approximation.likelihood(
                u, at.modes.phi, scores=True).scores).sum(axis=0), u,
                np.minimum(sizes, 1.0))
        known, said = as_asked(self.covariance, uncertainty(model, u, hessian, at.scores),
                               approximation, u, at.scores, slopes_of, seed)
        theta, phi = asymptotic_draws(approximation, u, at.modes, known, self.draws, seed)
        records, alone, apart = agreed(model, ended, u, ofv, known.covariance, noise)
        bad = [i for i, k in zip(ids, found["pareto_k"], strict=True)
               if k is not None and k > 0.7]
        reasons, remarks = [], [*said]
        if not found["rested"]:
            reasons.append(f"the estimates had not come to rest after {found['burn_in']} and "
                           f"{found['smoothing']} iterations: fix what the data do not inform")
        if known.flat:
            reasons.append(f"{known.flat}: fix one of them, or take it out of the model")
        remarks += said_of_zero(model, u)
        if at.kinked.any():
            remarks.append("standard errors are from the patients' scores: modes lie on kinks")
        if bad:
            remarks.append(f"the OFV is rough: Pareto k is above 0.7 for patients {', '.join(bad)}")
        rows = int(np.asarray(data["observed"]).sum())
        measures = criteria(model, ofv, constant, len(ids), rows) | {
            "ofv_se": noise,
            "burn_in": float(found["burn_in"]), "smoothing": float(found["smoothing"]),
            "condition_number": known.condition}
        return of_maximum(Found(
            theta, phi, (*reasons, *alone), (*remarks, *apart), measures,
            {"start": begun - clock, "estimate": walking, "likelihood": counted - begun - walking,
             "uncertainty": time.perf_counter() - counted}, estimates(model, u, known),
            {"inits": began(model, start), **records}))


def searching(source: str, asked: Mapping[str, Any]) -> Callable[[Any], Result]:
    """One of several starts, by a worker, from what an unfinished fit keeps in its folder."""
    kept = Checkpoints(Path(source), {})
    (model, data), start = received(kept), kept_start(kept)
    assert start is not None
    return _search(asked, Approximation(model, data, asked["method"]), start, Programs(model),
                   lambda k, done: None)


def _search(asked: Mapping[str, Any], approximation: Approximation, start: Start,
            programs: Programs, told: Callable[[int, int], None]) -> Callable[[Any], Result]:
    """What SAEM comes to from a place, by the start's number and the place."""
    patients = approximation.patients

    def one(request: tuple[int, Any]) -> Result:
        k, place = request
        since = time.perf_counter()
        found = walked(
            patients, moved_start(patients, start, np.asarray(place)) if k else start,
            asked["chains"], asked["burn_in"], asked["smoothing"], asked["seed"] + k,
            lambda done: told(k, done), programs)
        seconds = time.perf_counter() - since
        weighed = importance_sampled(
            patients, found.u, found.mean, np.linalg.cholesky(
                found.covariance + 1e-12 * np.eye(found.mean.shape[1])), asked["importance"],
            asked["seed"])
        return {"u": found.u.tolist(), "mean": plain(found.mean), "rested": found.rested,
                "burn_in": found.burn_in, "smoothing": found.smoothing,
                "ofv": plain(weighed.patients.sum() - float(approximation.constant.sum())),
                "se": plain(np.sqrt((weighed.se**2).sum())),
                "seconds": seconds, "pareto_k": plain(pareto_k(weighed.log_weights))}
    return one


def _refuse(model: PopulationModel) -> None:
    refuse_priors(model)
    if not model.sds:
        raise RequestError(Problem(
            "error", "no parameter varies between patients: saem has nothing to sample",
            "take focei or laplace", column="spread"))


ESTIMATOR = Saem
