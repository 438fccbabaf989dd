"""Several starts of one search: where they begin, who makes them, whether all end at one maximum,
and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from carpk.checkpoints import Checkpoints
from carpk.likelihood import to_theta
from carpk.many_fits import Prepare, Result, Told, results
from carpk.model_record import sent
from carpk.population_model import PopulationModel
from carpk.problems import Problem
from carpk.solve import Arrays

_AGREE = 0.01  # OFV, within which two searches by an exact gradient are at one maximum
_NEAR = 0.5  # standard errors, beyond which two places of one OFV are not the same


class Ended(NamedTuple):
    """One start: u (Q,) where it began and ended, on the real line; OFV there with its Monte Carlo
    SE (0 of an approximation), steps taken. OFV is NaN where nothing could be solved."""

    began: np.ndarray
    u: np.ndarray
    ofv: float
    se: float
    steps: int


def refused_starts(starts: object) -> list[Problem]:
    """What is wrong with a number of starts."""
    return [] if isinstance(starts, int) and starts >= 1 else [Problem(
        "error", "must be a whole number above 0", column="starts", found=str(starts))]


def dispersed(model: PopulationModel, u: np.ndarray, starts: int, seed: int) -> np.ndarray:
    """(starts, Q): u itself, then draws around it on the real line: typical values by a factor of
    e (SD), spreads and residual SDs by one of 2, coefficients by half of their default prior's SD,
    correlations by 0.5.

    >>> from carpk import design, example, population
    >>> from carpk.preparation import resolve
    >>> asked = population("stein_2019")
    >>> model, _ = resolve(asked, design(example("tisacel_like"), asked.structure), {})
    >>> dispersed(model, np.zeros(len(model.free)), 8, seed=1).shape == (8, len(model.free))
    True
    """
    sizes = np.array([size_of(model, n) for n in model.free])
    z = np.random.default_rng([seed, 11]).normal(size=(starts, len(u)))
    z[0] = 0.0
    return np.asarray(u)[None] + sizes * z


def size_of(model: PopulationModel, name: str) -> float:
    """How far a start lies from another in this parameter on the real line, an SD."""
    kind, _, _ = name.partition("_")
    if kind in ("corr", "rho"):
        return 0.5
    if kind in ("omega", "gamma", "sigma"):
        return float(np.log(2.0))
    width = float(model.priors[name].numbers[-1])  # of a default: 1.5 on the link scale, or an SD
    return width / 2.0 if kind == "beta" else width / 1.5


def made(worker: Prepare, asked: Result, here: Callable[[Any], Result], model: PopulationModel,
         data: Arrays, places: np.ndarray, kept: Checkpoints | None, told: Told) -> list[Result]:
    """What each start came to, kept as it ends; what is kept already is not made again. Of one
    start nothing is kept, and of several something must be.

    worker, asked : what another process prepares, from the folder that is kept and these settings;
        here : what this one has ready. A request is the start's number and its place.
    places : (starts, Q), where they begin
    """
    if len(places) == 1:
        return [here([0, places[0].tolist()])]
    assert kept is not None
    alone = kept.workers == 1 and kept.scheduler is None
    if not alone:
        sent(model, data, kept)
    return list(results(
        worker, str(kept.folder.resolve()), asked,
        {f"start-{k}": [k, place.tolist()] for k, place in enumerate(places)},
        kept.folder / "starts", workers=kept.workers, scheduler=kept.scheduler, told=told,
        ready=here if alone else None).values())


def plain(values: Any) -> Any:
    """Numbers as JSON, None for what is no number; `np.array(plain, float)` has NaN there.

    >>> plain(np.array([1.0, np.nan]))
    [1.0, None]
    """
    array = np.array(values, dtype=object)
    array[~np.isfinite(np.asarray(values, dtype=float))] = None
    return array.tolist()


def agreed(model: PopulationModel, ended: Sequence[Ended], u: np.ndarray, ofv: float,
           covariance: np.ndarray, se: float = 0.0) \
        -> tuple[dict[str, list[dict[str, Any]]], list[str], list[str]]:
    """What is to be kept of several starts (nothing of one), reasons against the best, remarks.

    u, ofv, covariance, se : of the best: (Q,), its OFV, (Q, Q) on the real line, Monte Carlo SE
    returns : {"starts": a record of each}: start, ofv (None where there is none), its difference
        to the best, steps, distance (of the estimate that lies furthest from the best's, in
        standard errors), furthest (its name), began and estimates by name
    """
    if len(ended) == 1:
        return {}, [], []
    ses = np.sqrt(np.diagonal(covariance))
    ses = np.where(ses > 0.0, ses, np.inf)  # of a spread at 0, which has none
    theta = jax.jit(lambda u: to_theta(model, u))

    def by_name(u: np.ndarray) -> dict[str, float]:
        values = theta(u)
        return {n: float(values[n]) for n in model.free}

    records, worse, elsewhere, lost = [], [], [], []
    for k, e in enumerate(ended, 1):
        far, more = np.abs(e.u - u) / ses, e.ofv - ofv
        name = model.free[int(far.argmax())]
        known = bool(np.isfinite(e.ofv))
        if not known:
            lost.append(k)
        elif more > _AGREE + 3.0 * np.hypot(e.se, se):
            worse.append(more)
        elif far.max() > _NEAR:
            elsewhere.append((float(far.max()), name))
        records.append({
            "start": k, "ofv": e.ofv if known else None, "difference": more if known else None,
            "steps": e.steps, "distance": float(far.max()), "furthest": name,
            "began": by_name(e.began), "estimates": by_name(e.u)})
    return {"starts": records}, *_verdict(len(ended), worse, elsewhere, lost)


def _verdict(count: int, worse: list[float], elsewhere: list[tuple[float, str]],
             lost: list[int]) -> tuple[list[str], list[str]]:
    together, remarks = count - len(worse) - len(lost), []
    if together == count and not elsewhere:
        remarks.append(f"all {count} starts end at the same maximum")
    if worse:
        remarks.append(
            f"{len(worse)} of {count} starts ended at an OFV higher by {min(worse):.3g} to "
            f"{max(worse):.3g}: the likelihood has other maxima, or the search stops short of "
            "them; the fit is the best that was found")
    if elsewhere:
        far, name = max(elsewhere)
        remarks.append(
            f"{len(elsewhere)} of {count} starts reached the same OFV elsewhere, up to {far:.2g} "
            f"standard errors away in {name}: the data do not tell these estimates apart")
    if lost:
        remarks.append(f"no solution from starts {', '.join(map(str, lost))}")
    return ([f"only one of {count} starts came to the best OFV, so it may not be the maximum: take "
             "more starts, or a simpler model"] if together == 1 and count > 2 else []), remarks
