"""Stochastic approximation EM: the maximum of the exact likelihood, censored rows and all."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from carpk.approximations import Approximation, binary_outputs
from carpk.asymptotics import hessian_of, uncertainty
from carpk.checkpoints import Progress
from carpk.estimators import Estimate, Estimator, odd, of_maximum, unknown
from carpk.expected_information import as_asked
from carpk.importance import Sampled, importance_sampled
from carpk.information_criteria import criteria
from carpk.maximum_likelihood import (
    Found,
    asymptotic_draws,
    estimates,
    refuse_priors,
    slopes_of,
)
from carpk.multistart import Ended, agreed, dispersed, refused_starts
from carpk.population_model import PopulationModel
from carpk.posterior import pareto_k
from carpk.problems import Problem, RequestError
from carpk.solve import Arrays
from carpk.starting_values import began, climbing_from, refused_inits
from carpk.stochastic_em import Programs, Walked, chains_for, moved_start, walked


@dataclass(frozen=True)
class Saem(Estimator):
    """SAEM from a quick Laplace fit; then the likelihood by importance sampling, and standard
    errors from the FOCEI information at the estimate (of Laplace where an output is binary).

    chains : per patient; 0 for as many as make a hundred in all, at least three
    burn_in, smoothing : iterations; 0 for as many as it takes to come to rest, at most 1000 each
    importance : draws per patient for the likelihood
    draws : from the asymptotic normal, an odd number
    covariance : of the standard errors: observed information, expected (simulated), or sandwich
    inits : where it begins, see `carpk.starting_values.start_from`
    starts : how many searches, from there and around it; the fit is the best of them
    """

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
            progress: Progress) -> Estimate:
        """See Estimator."""
        _refuse(model)
        clock = time.perf_counter()
        progress("start", 0, 1)
        approximation = Approximation(model, data, "laplace" if binary_outputs(model) else "focei")
        chains, walking = self.chains or chains_for(len(ids)), 0.0
        with ThreadPoolExecutor(1) as pool:  # compiles on another core meanwhile
            compiled = pool.submit(Programs(model).compiled, data, chains)
            start = climbing_from(model, data, ids, seed, self.inits, approximation.patients)
            programs = compiled.result()
        progress("start", 1, 1)
        begun = time.perf_counter()
        constant = float(approximation.constant.sum())
        total = (self.burn_in or 300) + (self.smoothing or 500)
        searched: list[tuple[Walked, Sampled]] = []
        ended: list[Ended] = []
        for k, u in enumerate(dispersed(model, np.asarray(start.u), self.starts, seed)):
            since = time.perf_counter()
            tried = walked(
                model, data, moved_start(model, data, start, u) if k else start, chains,
                self.burn_in, self.smoothing, seed + k, lambda done, k=k: progress(
                    "estimate", k * total + min(done, total), self.starts * total), programs)
            walking += time.perf_counter() - since
            weighed = importance_sampled(
                approximation.patients, tried.u, tried.mean, np.linalg.cholesky(
                    tried.covariance + 1e-12 * np.eye(tried.mean.shape[1])), self.importance, seed)
            searched.append((tried, weighed))
            ended.append(Ended(u, tried.u, float(weighed.patients.sum()) - constant,
                               float(np.sqrt((weighed.se**2).sum())),
                               tried.burn_in + tried.smoothing))
        top = int(np.argmin([e.ofv if np.isfinite(e.ofv) else np.inf for e in ended]))
        (found, sampled), (ofv, noise) = searched[top], ended[top][2:4]
        counted = time.perf_counter()
        at = approximation.likelihood(found.u, found.mean, scores=True)
        assert at.scores is not None
        assert at.kinked is not None
        squares = 0.5 * at.scores.T @ at.scores
        if at.kinked.any():
            hessian = squares
        else:
            sizes = np.sqrt(2.0 / np.maximum(np.diagonal(squares), 1e-12))
            hessian = hessian_of(lambda u: np.asarray(approximation.likelihood(
                u, at.modes.phi, scores=True).scores).sum(axis=0), found.u,
                np.minimum(sizes, 1.0))
        known, said = as_asked(self.covariance, uncertainty(model, hessian, at.scores),
                               approximation, found.u, at.scores, slopes_of, seed)
        theta, phi = asymptotic_draws(approximation, found.u, at.modes, known, self.draws, seed)
        records, alone, apart = agreed(model, ended, found.u, ofv, known.covariance, noise)
        bad = [i for i, k in zip(ids, pareto_k(sampled.log_weights), strict=True) if k > 0.7]
        reasons, remarks = [], [*said]
        if not found.rested:
            reasons.append(f"the estimates had not come to rest after {found.burn_in} and "
                           f"{found.smoothing} iterations: fix what the data do not inform")
        if known.flat:
            reasons.append(f"{known.flat}: fix one of them, or take it out of the model")
        if at.kinked.any():
            remarks.append("standard errors are from the patients' scores: modes lie on kinks")
        if bad:
            remarks.append(f"the OFV is rough: Pareto k is above 0.7 for patients {', '.join(bad)}")
        rows = int(np.asarray(data["observed"]).sum())
        measures = criteria(model, ofv, constant, len(ids), rows) | {
            "ofv_se": noise,
            "burn_in": float(found.burn_in), "smoothing": float(found.smoothing),
            "condition_number": known.condition}
        return of_maximum(Found(
            theta, phi, (*reasons, *alone), (*remarks, *apart), measures,
            {"start": begun - clock, "estimate": walking, "likelihood": counted - begun - walking,
             "uncertainty": time.perf_counter() - counted}, estimates(model, found.u, known),
            {"inits": began(model, start), **records}))


def _refuse(model: PopulationModel) -> None:
    refuse_priors(model)
    if not model.sds:
        raise RequestError(Problem(
            "error", "no parameter varies between patients: saem has nothing to sample",
            "take focei or laplace", column="spread"))


ESTIMATOR = Saem
