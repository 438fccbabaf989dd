"""Laplace's method: the exact curvature at every patient's mode, censored rows and all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from carpk.checkpoints import Checkpoints, Progress
from carpk.estimators import Estimate, Estimator, odd, of_maximum, unknown
from carpk.maximum_likelihood import estimated
from carpk.multistart import refused_starts
from carpk.population_model import PopulationModel
from carpk.problems import RequestError
from carpk.solve import Arrays
from carpk.starting_values import refused_inits


@dataclass(frozen=True)
class Laplace(Estimator):
    """Maximum likelihood by Laplace's method.

    draws : from the asymptotic normal, an odd number
    covariance : of the standard errors: observed information, expected (simulated), or sandwich
    inits : where it begins, see `carpk.starting_values.start_from`
    starts : how many searches, from there and around it; the fit is the best of them
    """

    resumable: ClassVar[bool] = True  # of several starts

    draws: int = 401
    covariance: str = "observed"
    inits: str = ""
    starts: int = 1

    def __post_init__(self) -> None:
        if found := [*odd(self.draws), *unknown(self.covariance), *refused_inits(self.inits),
                     *refused_starts(self.starts)]:
            raise RequestError(found)

    def fit(self, model: PopulationModel, data: Arrays, ids: tuple[str, ...], seed: int,
            progress: Progress, kept: Checkpoints | None = None) -> Estimate:
        """See Estimator."""
        return of_maximum(estimated(model, data, ids, seed, progress, "laplace", self.draws,
                                    self.covariance, self.inits, self.starts, kept))


ESTIMATOR = Laplace
