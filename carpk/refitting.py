"""A fit by maximum likelihood made again on other patients of its shape, from where it stands."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from carpk.approximations import Approximation, Likelihood, Method, binary_outputs
from carpk.asymptotics import hessian_of, uncertainty
from carpk.empirical_bayes import Start
from carpk.expected_information import new_cohort
from carpk.fitting import Fit
from carpk.likelihood import data_of, from_theta, to_theta
from carpk.maximum_likelihood import maximised, with_scores
from carpk.posterior import phi_of
from carpk.problems import Problem, RequestError
from carpk.solve import Arrays
from carpk.stochastic_em import Programs, chains_for, walked

_ALMOST_NONE = 1e-12  # an SD of exactly 0 has no place on the real line


class Again(NamedTuple):
    """u (Q,) and its values by name, the OFV (NaN by saem, whose objective is not evaluated
    again), and why the fit cannot be used, or ""."""

    u: np.ndarray
    theta: dict[str, float]
    ofv: float
    failed: str


class Refitting:
    """The programs of a fit, compiled once for all data of its shape.

    Each search begins at the fit's estimates, with the modes its patients had: a replicate of a
    cohort is near the cohort. Without it a search from data-based starts would take ten times as
    long, and land in the same maximum.

    method : of the objective, where not the fit's own (of saem: focei, as its standard errors)
    Raises RequestError for a fit that is not by maximum likelihood.
    """

    def __init__(self, fit: Fit, method: Method | None = None) -> None:
        must_be_maximum(fit)
        request, model = fit.manifest["request"], fit.model
        self.estimator, self.settings = request["estimator"], request["settings"]
        self.model, self.data = model, data_of(model, fit.design)
        own = {"focei": self.settings.get("method", "focei"), "laplace": "laplace",
               "saem": "laplace" if binary_outputs(model) else "focei"}[self.estimator]
        self.approximation = Approximation(model, self.data, method or cast(Method, own))
        found = {n: v["estimate"] for n, v in fit.manifest["estimates"].items()}
        self.u = np.asarray(from_theta(model, {n: found[n] or _ALMOST_NONE for n in model.free}))
        draws = fit.posterior["posterior"].dataset  # the first is the estimate, with its modes
        self.at: Likelihood = self.approximation.likelihood(self.u, phi_of(model, draws)[0, 0])
        self.phi = np.asarray(self.at.modes.phi)
        self._theta = jax.jit(lambda u: to_theta(model, u))
        self._measured = jax.jit(lambda data, u, key: new_cohort(model, data, u, key))
        self._programs = Programs(model)

    def theta(self, u: Any) -> dict[str, float]:
        """The free population values by name, natural scale."""
        values = self._theta(u)
        return {n: float(values[n]) for n in self.model.free}

    def measured(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Other patients of the estimated population, measured by the fit's design: (P, N), NaN
        where a solve failed; and their phi (P, K)."""
        y, phi = self._measured(self.data, self.u, jax.random.key(seed))
        return np.asarray(y), np.asarray(phi)

    def again(self, data: Arrays, phi: Any, seed: int) -> Again:
        """The fit of other data, by the estimator that made the fit.

        phi : (P, K), where the search for the modes begins; seed : of saem
        """
        if self.estimator == "saem":
            return self._by_saem(data, phi, seed)
        best = maximised(self.approximation.of(data), self.u, phi, lambda steps: None)
        lost = int((~np.isfinite(best.found.patients)).sum())
        failed = f"no solution, or no mode, for {lost} patients" if lost else \
            "" if best.rested else "the search did not come to rest"
        return Again(best.u, self.theta(best.u), best.ofv, failed)

    def _by_saem(self, data: Arrays, phi: Any, seed: int) -> Again:
        patients = self.approximation.of(data).patients
        look = patients.look(self.u, phi)
        usable = np.isfinite(np.asarray(look.information)).all(axis=(1, 2))
        if not usable.all():
            return Again(self.u, {}, np.nan, f"no solution for {int((~usable).sum())} patients")
        start = Start(jnp.asarray(self.u), jnp.asarray(phi), look.information[:, None],
                      look.gradient[:, None, :phi.shape[1]], look.value, 0)
        s = self.settings
        found = walked(patients, start, s["chains"] or chains_for(len(phi)), s["burn_in"],
                       s["smoothing"], seed, lambda done: None, self._programs)
        return Again(found.u, self.theta(found.u), np.nan, "" if found.rested else
                     "the estimates had not come to rest")

    def influence(self) -> dict[str, list[float]]:
        """By free parameter, (P,): how far the estimate moves with the weight of each patient, by
        the infinitesimal jackknife: information^-1 times the patient's score."""
        at, slopes = with_scores(self.approximation, self.u, self.phi)
        squares = 0.5 * slopes.T @ slopes
        if at.kinked is not None and at.kinked.any():
            hessian = squares
        else:
            sizes = np.minimum(np.sqrt(2.0 / np.maximum(np.diagonal(squares), 1e-12)), 1.0)
            hessian = hessian_of(lambda u: with_scores(self.approximation, u, self.phi)[1].sum(
                axis=0), self.u, sizes)
        known = uncertainty(self.model, self.u, hessian, slopes)
        moved = -0.5 * slopes @ known.covariance
        natural = jax.jit(jax.jacfwd(lambda u: {n: to_theta(self.model, u)[n]
                                                for n in self.model.free}))(self.u)
        return {n: (moved @ np.asarray(s)).tolist() for n, s in natural.items()}


def of_patients(data: Arrays, places: np.ndarray) -> Arrays:
    """The data of these patients, (P,) places in the cohort; one may come twice."""
    taken: Arrays = jax.tree.map(lambda x: x[places], data)
    return taken


def must_be_maximum(fit: Fit) -> None:
    """RequestError for a fit that has no maximum to go back to."""
    if "estimates" not in fit.manifest:
        raise RequestError(Problem(
            "error", "not a fit by maximum likelihood", "its draws are its uncertainty; for a "
            "likelihood fit with focei, laplace or saem", column="estimator",
            found=str(fit.manifest["request"]["estimator"])))

