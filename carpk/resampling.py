"""The bootstrap over patients: what estimates would be on other patients, without asymptotics.

Non-parametric: the cohort's patients drawn with replacement, within strata where asked. Parametric:
new patients of the estimated population, measured by the design of the cohort. Each replicate is
refitted from the fit's estimates. Intervals: percentiles, and BCa (Efron B. J Am Stat Assoc
1987;82:171-185), whose acceleration comes from the infinitesimal jackknife: each patient's score
times the inverse information, in place of leaving each out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from carpk.cohort import Design
from carpk.expected_information import censored_below
from carpk.fitting import Fit, load_fit
from carpk.many_fits import Result, Told, results
from carpk.predictive_check import limits
from carpk.problems import Problem, RequestError
from carpk.refitting import Refitting, must_be_maximum, of_patients

_INFLUENCE = "influence"
_LEAST = 20  # usable replicates: of fewer no quantile of 95 % is told


@dataclass(frozen=True)
class Bootstrap:
    """table : one row per free parameter, see `summary`; replicates : one row each, with every
    free parameter, ofv and failed (why it cannot be used, "" where it can); strata : remarks on
    them; folder : where all of it is kept."""

    table: pd.DataFrame
    replicates: pd.DataFrame
    remarks: tuple[str, ...]
    folder: Path

    @property
    def failures(self) -> dict[str, int]:
        """How many replicates failed, by reason, the most frequent first."""
        why = Counter(str(r) for r in self.replicates["failed"] if r)
        return dict(why.most_common())


def bootstrap(folder: str | Path, *, replicates: int = 200, parametric: bool = False,
              stratify: str | None = None, seed: int = 1, workers: int = 1,
              scheduler: str | None = None, told: Told | None = None) -> Bootstrap:
    """The bootstrap of the fit in a folder, by maximum likelihood.

    parametric : new patients from the fit in place of those of the cohort drawn again
    stratify : a covariate within whose values patients are drawn, so that each keeps its number
    workers, scheduler : see `carpk.many_fits.results`
    Replicates are kept in bootstrap/ of the fit's folder, by kind and seed: of 400 that are asked
    for after 200, 200 are made. Raises RequestError for what cannot be.
    """
    folder = Path(folder)
    fit = load_fit(folder)
    must_be_maximum(fit)
    wrong = _wrong(fit, replicates, parametric, stratify)
    if wrong:
        raise RequestError(wrong)
    asked = {"parametric": parametric, "stratify": stratify, "seed": seed}
    name = "_".join(["parametric" if parametric else "nonparametric",
                     *([f"by_{_plain(stratify)}"] if stratify else []), f"seed{seed}"])
    place = folder / "bootstrap" / name
    requests: dict[str, Any] = {_INFLUENCE: _INFLUENCE,
                                **{f"{k:05d}": k for k in range(1, replicates + 1)}}
    found = results(replicating, str(folder.resolve()), asked, requests, place / "replicates",
                    workers=workers, scheduler=scheduler, told=told)
    influence = {n: np.array(v) for n, v in found.pop(_INFLUENCE).items()}
    drawn = pd.DataFrame([{"replicate": int(k), **{n: r["theta"].get(n, math.nan)
                                                   for n in fit.model.free},
                           "ofv": r.get("ofv", math.nan), "failed": r["failed"]}
                          for k, r in found.items()])
    groups = strata(fit.design, stratify)
    usable = drawn[drawn["failed"] == ""]
    if len(usable) < _LEAST:
        raise RequestError(Problem(
            "error", f"only {len(usable)} of {replicates} replicates can be used: "
            + "; ".join(f"{n}: {why}" for why, n in Counter(drawn["failed"]).most_common(3) if why),
            f"ask for more: at least {_LEAST} are needed", str(place)))
    table = summary(fit.manifest["estimates"], usable, influence, groups)
    for file, written in (("table.csv", table), ("replicates.csv", drawn)):
        written.to_csv(place / file, index=False, float_format="%.8g", lineterminator="\n")
    return Bootstrap(table, drawn, _remarks(fit.design, stratify, groups, len(usable)), place)


def replicating(source: str, asked: Mapping[str, Any]) -> Callable[[Any], Result]:
    """Refits one replicate by its number, or says how each patient moves the estimates."""
    fit = load_fit(source)
    again = Refitting(fit)
    groups = strata(fit.design, asked["stratify"])
    below = rows_below(fit) if asked["parametric"] else None

    def one(request: int | str) -> Result:
        if request == _INFLUENCE:
            return again.influence()
        assert isinstance(request, int)
        random = np.random.default_rng([asked["seed"], request])
        if below is None:
            places = resampled(groups, random)
            data, phi = of_patients(again.data, places), again.phi[places]
        else:
            y, phi = again.measured(int(random.integers(2**31)))  # phi: where modes are near
            lost = int((~np.isfinite(y) & fit.design.observed).any(axis=1).sum())
            if lost:
                return {"theta": {}, "failed": f"no solution for {lost} simulated patients"}
            data = censored_below(again.data, y, below)
        made = again.again(data, phi, int(random.integers(2**31)))
        known = {n: v for n, v in made.theta.items() if math.isfinite(v)}
        return {"theta": known, "failed": made.failed, **(
            {"ofv": made.ofv} if math.isfinite(made.ofv) else {})}
    return one


def resampled(groups: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Places (P,) of patients drawn with replacement, from each group as many as it has.

    >>> drawn = resampled(np.array([0, 1, 1, 0]), np.random.default_rng(1))
    >>> sorted(np.array([0, 1, 1, 0])[drawn].tolist())
    [0, 0, 1, 1]
    """
    places = np.empty(len(groups), int)
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        places[own] = random.choice(own, len(own))
    return places


def strata(seen: Design, column: str | None) -> np.ndarray:
    """(P,): the number of each patient's group, by the values of a covariate; 0 without one."""
    if column is None:
        return np.zeros(len(seen.ids), int)
    values = seen.covariates[column].astype(object).map(
        lambda v: "" if pd.isna(v) else v if isinstance(v, str) else f"{v:.6g}")
    return np.asarray(pd.factorize(values.loc[list(seen.ids)])[0])


def rows_below(fit: Fit) -> np.ndarray:
    """(P, N): the limit below which a simulated row is censored; -inf on padding."""
    seen = fit.design
    block = np.full(seen.observed.shape, -np.inf)
    block[seen.observed] = limits(fit)
    return block


def summary(estimates: Mapping[str, Mapping[str, float]], replicates: pd.DataFrame,
            influence: Mapping[str, np.ndarray], groups: np.ndarray) -> pd.DataFrame:
    """One row per free parameter of the usable replicates.

    parameter; estimate; mean, bias (mean - estimate), se of the replicates; lower95, upper95:
    percentiles; bca_lower95, bca_upper95; asymptotic_se, asymptotic_lower95, asymptotic_upper95:
    the fit's own. Natural scale; omega is an SD on the link scale.
    influence, groups : of the patients, (P,); see `Refitting.influence` and `strata`
    """
    rows = []
    for name, known in estimates.items():
        values = replicates[name].to_numpy(float)
        low, high = np.quantile(values, [0.025, 0.975])
        bca = bca_interval(values, known["estimate"], influence[name], groups)
        rows.append({
            "parameter": name, "estimate": known["estimate"], "mean": values.mean(),
            "bias": values.mean() - known["estimate"], "se": values.std(ddof=1), "lower95": low,
            "upper95": high, "bca_lower95": bca[0], "bca_upper95": bca[1],
            "asymptotic_se": known["se"], "asymptotic_lower95": known["lower95"],
            "asymptotic_upper95": known["upper95"]})
    return pd.DataFrame(rows)


def bca_interval(values: np.ndarray, estimate: float, influence: np.ndarray,
                 groups: np.ndarray | None = None, level: float = 0.95) -> tuple[float, float]:
    """The bias-corrected and accelerated interval; NaN where all replicates lie on one side of
    the estimate, or none moves.

    values : (R,), replicates; influence : (P,), of each patient on the estimate, centred in its
        group; groups : (P,)

    >>> values = np.random.default_rng(1).normal(5.0, 2.0, 100_000)
    >>> [round(x, 1) for x in bca_interval(values, 5.0, np.array([-1.0, 1.0]))]
    [1.1, 8.9]
    """
    own = np.asarray(influence, float)
    for group in np.unique(groups) if groups is not None else ():
        own = np.where(groups == group, own - own[groups == group].mean(), own)
    # as many replicates below as at the estimate would be on one side: ties are halved
    below = (np.mean(values < estimate) + np.mean(values <= estimate)) / 2
    squares = float((own**2).sum())
    if not 0.0 < below < 1.0 or squares == 0.0 or np.ptp(values) == 0.0:
        return math.nan, math.nan
    acceleration = float((own**3).sum()) / (6.0 * squares**1.5)
    shift = ndtri(below)
    z = shift + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    low, high = np.quantile(values, ndtr(shift + z / (1.0 - acceleration * z)))
    return float(low), float(high)


def _plain(column: str | None) -> str:
    return "".join(c if c.isalnum() else "-" for c in column or "")


def _wrong(fit: Fit, replicates: int, parametric: bool, stratify: str | None) -> list[Problem]:
    found, seen = [], fit.design
    if replicates < _LEAST:
        found.append(Problem("error", f"must be at least {_LEAST}", "200 give an SE, 1000 an "
                             "interval", column="replicates", found=str(replicates)))
    if stratify is not None and stratify not in seen.covariates:
        found.append(Problem("error", "no such covariate", "the fit has "
                             + (", ".join(map(str, seen.covariates.columns)) or "none"),
                             column="stratify", found=stratify))
    elif stratify is not None and parametric:
        found.append(Problem("error", "a parametric bootstrap draws no patients again: every one "
                             "keeps its covariates", "drop it", column="stratify", found=stratify))
    elif stratify is not None and \
            np.bincount(strata(seen, stratify)).max() == 1:
        found.append(Problem("error", "differs in every patient: nobody could be drawn twice",
                             "take a column of few values", column="stratify", found=stratify))
    if parametric and (seen.censored & np.isfinite(seen.lower)).any():
        found.append(Problem("error", "levels known to lie above a limit, or between two, cannot "
                             "be simulated: the other rows' limits are not known",
                             "take the non-parametric bootstrap", column="CENS"))
    if parametric and fit.model.censoring != "M3":
        found.append(Problem("error", "censored levels are simulated for M3 only",
                             "take the non-parametric bootstrap", column="censoring",
                             found=fit.model.censoring))
    return found


def _remarks(seen: Design, stratify: str | None, groups: np.ndarray, usable: int) \
        -> tuple[str, ...]:
    said = []
    sizes = np.bincount(groups)
    if stratify is not None and (sizes == 1).any():
        said.append(f"{int((sizes == 1).sum())} values of {stratify} have one patient each, who "
                    "is in every replicate")
    if usable < 1000:
        said.append("intervals rest on the few outermost replicates: 1000 are usual for them")
    return tuple(said)
