"""Laplace's method: the exact curvature at every patient's mode, censored rows and all."""

from __future__ import annotations

from dataclasses import dataclass

from carpk.estimators import Estimate, Estimator, Progress, odd, of_maximum, unknown
from carpk.maximum_likelihood import estimated
from carpk.population_model import PopulationModel
from carpk.problems import RequestError
from carpk.solve import Arrays


@dataclass(frozen=True)
class Laplace(Estimator):
    """Maximum likelihood by Laplace's method.

    draws : from the asymptotic normal, an odd number
    covariance : of the standard errors: observed information, expected (simulated), or sandwich
    """

    draws: int = 401
    covariance: str = "observed"

    def __post_init__(self) -> None:
        if found := odd(self.draws) + unknown(self.covariance):
            raise RequestError(found)

    def fit(self, model: PopulationModel, data: Arrays, ids: tuple[str, ...], seed: int,
            progress: Progress) -> Estimate:
        """See Estimator."""
        return of_maximum(estimated(model, data, ids, seed, progress, "laplace", self.draws,
                                    self.covariance))


ESTIMATOR = Laplace
