"""First-order conditional estimation with interaction: NONMEM's method 1, quick and well known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

from carpk.approximations import Method
from carpk.checkpoints import Checkpoints, Progress
from carpk.estimators import Estimate, Estimator, odd, of_maximum, unknown
from carpk.maximum_likelihood import estimated
from carpk.multistart import refused_starts
from carpk.population_model import PopulationModel
from carpk.problems import Problem, RequestError
from carpk.solve import Arrays
from carpk.starting_values import refused_inits


@dataclass(frozen=True)
class Focei(Estimator):
    """Maximum likelihood by FOCEI, or by what came before it.

    method : focei, foce (residual SD of the typical patient), fo (around the typical patient;
        the patients' etas are then their conditional modes at the estimate, NONMEM's POSTHOC)
    draws : from the asymptotic normal, an odd number
    covariance : of the standard errors: observed information, expected (simulated), or sandwich
    inits : where it begins, see `carpk.starting_values.start_from`
    starts : how many searches, from there and around it; the fit is the best of them
    """

    resumable: ClassVar[bool] = True  # of several starts

    method: str = "focei"
    draws: int = 401
    covariance: str = "observed"
    inits: str = ""
    starts: int = 1

    def __post_init__(self) -> None:
        found = odd(self.draws) + unknown(self.covariance) + refused_inits(self.inits) \
            + refused_starts(self.starts)
        if self.method not in ("focei", "foce", "fo"):
            found.append(Problem("error", "must be focei, foce or fo", column="method",
                                 found=str(self.method)))
        if found:
            raise RequestError(found)

    def fit(self, model: PopulationModel, data: Arrays, ids: tuple[str, ...], seed: int,
            progress: Progress, kept: Checkpoints | None = None) -> Estimate:
        """See Estimator."""
        if self.method != "focei" and bool((data["observed"] & (
                data["lower"] < data["upper"])).any()):
            raise RequestError(Problem("error", f"{self.method} has no place for censored rows",
                                       "take focei, laplace or saem", column="CENS"))
        return of_maximum(estimated(model, data, ids, seed, progress,
                                    cast(Method, self.method), self.draws, self.covariance,
                                    self.inits, self.starts, kept))


ESTIMATOR = Focei
