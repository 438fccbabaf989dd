"""How a posterior is obtained: Estimator, its settings as fields, and the Estimate it returns."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from carpk.chains import Drawn
from carpk.checkpoints import Progress
from carpk.expected_information import COVARIANCES
from carpk.maximum_likelihood import Found
from carpk.population_model import PopulationModel
from carpk.problems import Problem, RequestError
from carpk.solve import Arrays


@dataclass(frozen=True)
class Convergence:
    """Whether an estimate can be used: `reasons` against it, `remarks` to know, `measures`."""

    ok: bool
    reasons: tuple[str, ...]
    remarks: tuple[str, ...]
    measures: Mapping[str, float]


@dataclass(frozen=True)
class Estimate:
    """What an estimator found.

    theta : free population parameters by name, (chain, draw), natural scale
    phi : (chain, draw, patient, parameter), varying parameters on their link scale
    sample_stats : by name, (chain, draw)
    draws_from : "posterior", "guide", "asymptotic" or "point"
    seconds : wall time by stage
    estimates : of maximum likelihood, by free parameter: estimate, se, lower95, upper95, ...
    record : what else is kept in the manifest: inits, the population values it began at
    """

    theta: Mapping[str, np.ndarray]
    phi: np.ndarray
    sample_stats: Mapping[str, np.ndarray]
    draws_from: str
    convergence: Convergence
    seconds: Mapping[str, float]
    estimates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)


class Estimator(abc.ABC):
    """An algorithm is its settings, given as fields, and `fit`.

    One that is `resumable` takes `kept`, a `carpk.checkpoints.Checkpoints`, goes on from what is
    there, and gives the draws of an uninterrupted run.
    """

    resumable: ClassVar[bool] = False

    @abc.abstractmethod
    def fit(self, model: PopulationModel, data: Arrays, ids: tuple[str, ...], seed: int,
            progress: Progress) -> Estimate:
        """The estimate of a resolved model on the arrays of a design."""


def of_maximum(found: Found) -> Estimate:
    """The estimate of a fit by maximum likelihood."""
    convergence = Convergence(not found.reasons, found.reasons, found.remarks, found.measures)
    return Estimate(found.theta, found.phi, {}, "asymptotic", convergence, found.seconds,
                    found.estimates, found.record)


def of_chains(drawn: Drawn) -> Estimate:
    """The estimate of a sampler."""
    convergence = Convergence(not drawn.reasons, drawn.reasons, drawn.remarks, drawn.measures)
    return Estimate(drawn.theta, drawn.phi, drawn.stats, "posterior", convergence, drawn.seconds,
                    record=drawn.record)


def odd(draws: object) -> list[Problem]:
    """What is wrong with a number of asymptotic draws: the estimate, and pairs beside it."""
    return [] if isinstance(draws, int) and draws >= 3 and draws % 2 else [Problem(
        "error", "must be an odd number of at least 3", column="draws", found=str(draws))]


def unknown(covariance: object) -> list[Problem]:
    """What is wrong with the choice of a covariance, of which the standard errors are."""
    return [] if covariance in COVARIANCES else [Problem(
        "error", f"must be one of {', '.join(COVARIANCES)}", column="covariance",
        found=str(covariance))]


def with_settings(estimator: type, settings: Mapping[str, Any]) -> Any:
    """An estimator from its settings by name; RequestError with all that are not understood.

    Every setting has a default, which says of which kind it is.
    """
    fields = {f.name: f.default for f in dataclasses.fields(estimator)}
    found = [Problem("error", f"{estimator.__name__} has no such setting",
                     f"known: {', '.join(fields)}", column=n) for n in settings if n not in fields]
    kinds = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    for name, value in settings.items():
        kind = type(fields.get(name, value))
        if type(value) is not kind and not (kind is float and type(value) is int):
            found.append(Problem("error", f"must be {kinds.get(kind, kind.__name__)}",
                                 column=name, found=repr(value)))
    if found:
        raise RequestError(found)
    return estimator(**settings)
