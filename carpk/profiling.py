"""Profiles of the likelihood: the OFV with one parameter held at each value, the others at their
best, and the interval where it rises by no more than 3.84 (Wilks SS. Ann Math Stat 1938;9:60-62).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from carpk.approximations import Approximation, Likelihood, Method
from carpk.fitting import load_fit
from carpk.many_fits import Result, Told, results
from carpk.maximum_likelihood import maximised
from carpk.population_model import PopulationModel, correlations
from carpk.problems import Problem, RequestError
from carpk.refitting import Refitting, must_be_maximum

RISE = 3.841458820694124  # the 95th percentile of chi-squared with one degree of freedom
_NEAR = 0.01  # OFV: a limit stands where the rise is as near to it
_REACH = 8.0  # asymptotic standard errors, on the real line, within which a limit is looked for
_NOTHING = math.log(1000.0)  # an SD so many e-folds below the estimate is as good as 0
_MOST = 25  # refits of one side
_SIDES = {"lower": -1.0, "upper": 1.0}


@dataclass(frozen=True)
class Profile:
    """table : one row per parameter: parameter, estimate, lower95, upper95 (NaN where none was
    found within reach), asymptotic_lower95, asymptotic_upper95, remark; points : parameter,
    value, rise (of the OFV), quadratic (what the asymptotic SE makes of it); folder : where all
    is kept; remarks on the whole."""

    table: pd.DataFrame
    points: pd.DataFrame
    remarks: tuple[str, ...]
    folder: Path


def profile(folder: str | Path, parameters: Iterable[str] = (), *, workers: int = 1,
            scheduler: str | None = None, told: Told | None = None) -> Profile:
    """Profiles of free population parameters of the fit in a folder, all where none is named.

    workers, scheduler : see `carpk.many_fits.results`
    Sides of profiles are kept in profile/ of the fit's folder and made once. A fit by saem is
    profiled by laplace, around the maximum of that. Raises RequestError for what cannot be.
    """
    folder = Path(folder)
    fit = load_fit(folder)
    must_be_maximum(fit)
    named, remarks = _chosen(fit.model, tuple(parameters))
    requests = {f"{n}-{side}": [n, side] for n in named for side in _SIDES}
    place = folder / "profile"
    found = results(walking, str(folder.resolve()), {"rise": RISE}, requests, place / "sides",
                    workers=workers, scheduler=scheduler, told=told)
    rows, points = [], []
    for name in named:
        sides = {side: found[f"{name}-{side}"] for side in _SIDES}
        known = fit.manifest["estimates"][name]
        limit = {f"{side}95": math.nan if s["limit"] is None else s["limit"]
                 for side, s in sides.items()}
        rows.append({
            "parameter": name, "estimate": sides["lower"]["estimate"], **limit,
            "asymptotic_lower95": known["lower95"], "asymptotic_upper95": known["upper95"],
            "remark": "; ".join(dict.fromkeys(s["said"] for s in sides.values() if s["said"]))})
        every = [[sides["lower"]["estimate"], 0.0, 0.0],
                 *(p for s in sides.values() for p in s["points"])]
        points += [{"parameter": name, "value": v, "rise": r, "quadratic": q}
                   for v, r, q in sorted(every)]
    if fit.manifest["request"]["estimator"] == "saem":
        remarks = (*remarks, "the likelihood is that of laplace, around its own maximum")
    made = Profile(pd.DataFrame(rows), pd.DataFrame(points), remarks, place)
    for file, written in (("table.csv", made.table), ("points.csv", made.points)):
        written.to_csv(place / file, index=False, float_format="%.8g", lineterminator="\n")
    return made


class Point(NamedTuple):
    """One refit: how far on the real line the parameter was held from its estimate, how far the
    OFV rose (NaN where nothing is solved), and where the next refit may begin."""

    away: float
    rise: float
    rested: bool
    u: np.ndarray
    phi: Any


class Held:
    """A likelihood of which one place of u stands still, read like an Approximation."""

    def __init__(self, whole: Approximation, place: int, value: float) -> None:
        self.whole, self.place, self.value = whole, place, value
        held = {whole.model.free[place]: np.nan}  # its value is on the real line
        self.model = dataclasses.replace(whole.model, fixed={**whole.model.fixed, **held})

    @property
    def method(self) -> Method:
        """That of the whole."""
        return self.whole.method

    def likelihood(self, u: Any, start: Any = None, scores: bool = False,
                   anew: bool = False) -> Likelihood:
        """At the free places (Q - 1,)."""
        found = self.whole.likelihood(np.insert(np.asarray(u), self.place, self.value), start,
                                      scores, anew)
        return found if found.scores is None else \
            found._replace(scores=np.delete(found.scores, self.place, axis=1))


def walking(source: str, asked: Mapping[str, Any]) -> Callable[[Any], Result]:
    """One side of one parameter's profile; see `side`."""
    fit = load_fit(source)
    by_saem = fit.manifest["request"]["estimator"] == "saem"
    again = Refitting(fit, "laplace" if by_saem else None)
    u, at = again.u, again.at
    if by_saem:
        best = maximised(again.approximation, u, again.phi, lambda steps: None)
        u, at = best.u, best.found
    least = float(at.patients.sum())

    def one(request: list[str]) -> Result:
        name, way = request
        place = fit.model.free.index(name)
        slope = (again.theta(u + 1e-5 * (np.arange(len(u)) == place))[name]
                 - again.theta(u - 1e-5 * (np.arange(len(u)) == place))[name]) / 2e-5
        se = float(np.clip(fit.manifest["estimates"][name]["se"] / abs(slope), 1e-4, 3.0))

        def refitted(away: float, near: Point) -> Point:
            held = Held(again.approximation, place, u[place] + away)
            best = maximised(held, near.u, near.phi, lambda steps: None)  # type: ignore[arg-type]
            return Point(away, best.ofv - least, best.gain < 1e-3, best.u, best.found.modes.phi)

        def value(point: Point) -> float:
            return again.theta(np.insert(point.u, place, u[place] + point.away))[name]

        start = Point(0.0, 0.0, True, np.delete(u, place), at.modes.phi)
        reach = _REACH * se
        spread = name in fit.model.sds
        if way == "lower" and (spread or name in fit.model.residuals):
            reach = max(reach, _NOTHING)
        points, limit, said = side(refitted, start, _SIDES[way], se, reach)
        if limit is None and said.startswith("the OFV rises") and reach >= _NOTHING \
                and way == "lower" and spread:
            return {"estimate": value(start), "limit": 0.0, "points": _told(points, value, se),
                    "said": f"{said}: 0 is not excluded"}
        if points and min(p.rise for p in points) < -_NEAR:
            best_of = min(points, key=lambda p: p.rise)
            said = f"{said}; " * bool(said) + (
                f"the OFV is lower by {-best_of.rise:.3g} at {value(best_of):.4g}: the fit is not "
                "at its maximum")
        return {"estimate": value(start), "limit": None if limit is None else value(limit),
                "points": _told(points, value, se),
                "said": f"{said}, on the {way} side" if said else ""}
    return one


def side(refitted: Callable[[float, Point], Point], start: Point, sign: float, se: float,
         reach: float) -> tuple[list[Point], Point | None, str]:
    """Walks away from the estimate until the OFV has risen by RISE, then closes in on it.

    refitted : refits at a distance, from a point near it; the root of the rise is nearly a
        straight line in the distance, which both the walk and the closing in go by
    returns : the points, the one at the limit or None, and why there is none, or ""
    """
    target = math.sqrt(RISE)
    points: list[Point] = []
    inside, outside, broken = start, None, 0
    away = 0.5 * target * se
    while len(points) + broken < _MOST:
        new = refitted(sign * away, inside)
        if not math.isfinite(new.rise):
            broken += 1
            if broken > 4:
                return points, None, "the refit fails before the OFV has risen by 3.84"
            away = 0.5 * (abs(inside.away) + away)
            continue
        points.append(new)
        if abs(new.rise - RISE) < _NEAR:
            return points, new, "" if new.rested else "the refit at the limit did not come to rest"
        if new.rise < RISE:
            inside = new
        else:
            outside = new
        low, low_root = abs(inside.away), math.sqrt(max(inside.rise, 0.0))
        if outside is None:
            if low >= reach:
                return points, None, (f"the OFV rises by no more than "
                                      f"{max(p.rise for p in points):.3g} within reach")
            straight = low * target / low_root if low_root > 0 else math.inf
            away = min(max(min(1.05 * straight, 3.0 * low), 1.2 * low), reach)
            continue
        high, high_root = abs(outside.away), math.sqrt(outside.rise)
        share = (target - low_root) / (high_root - low_root)
        away = low + min(max(share, 0.05), 0.95) * (high - low)
    return points, None, f"no limit after {_MOST} refits"


def _told(points: Iterable[Point], value: Callable[[Point], float], se: float) \
        -> list[list[float]]:
    return [[value(p), p.rise, (p.away / se) ** 2] for p in points]


def _chosen(model: PopulationModel, named: tuple[str, ...]) \
        -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parameters to profile and remarks; RequestError for those that cannot be."""
    # of a block of three the others' values on the real line depend on more than themselves
    inner = {n for block in model.blocks for n in correlations(block)
             if not n.startswith(f"corr_{block[0]}_")}
    found = []
    for n in named:
        if n not in model.free:
            found.append(Problem("error", "no such free population parameter",
                                 f"known: {', '.join(model.free)}", column="parameter", found=n))
        elif n in inner:
            found.append(Problem("error", "in a block of three only the correlations with its "
                                 "first parameter can be held", "name that parameter first in "
                                 "the block", column="parameter", found=n))
    if found:
        raise RequestError(found)
    if named:
        return tuple(dict.fromkeys(named)), ()
    left = [n for n in model.free if n in inner]
    return tuple(n for n in model.free if n not in inner), (
        (f"{', '.join(left)}: not profiled, as in a block of three only the correlations with its "
         "first parameter can be held",) if left else ())

