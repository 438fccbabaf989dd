"""Which of several fits by maximum likelihood to keep: likelihood-ratio tests, AIC, BIC, BICc."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pandas as pd
from scipy.stats import chi2

from carpk.approximations import Approximation
from carpk.comparison import differences, unlike_data
from carpk.error_models import without_column
from carpk.fitting import Fit
from carpk.information_criteria import criteria
from carpk.likelihood import data_of, from_theta
from carpk.marginal import SAMPLING, Objective, evaluated
from carpk.population_model import correlations
from carpk.problems import Problem, RequestError
from carpk.separate_errors import stem

_SIMPLER = {"combined": ("additive", "proportional"), "combined_sum": ("additive", "proportional")}
FIT_COLUMNS = ("fit", "method", "parameters", "ofv", "ofv_se", "minus_two_log_likelihood", "aic",
               "bic", "bicc", "aic_difference", "bic_difference", "bicc_difference", "converged",
               "differs")
TEST_COLUMNS = ("smaller", "larger", "added", "df", "dofv", "se", "p", "boundary", "p_mixture",
                "note")


@dataclass(frozen=True, eq=False)
class Choice:
    """fits : a row for each, least BICc first; tests : a row for each nested pair."""

    fits: pd.DataFrame
    tests: pd.DataFrame


def choose(fits: Mapping[str, Fit], *, method: str | None = None, draws: int = 3000,
           seed: int = 1) -> Choice:
    """Fits by maximum likelihood to the same data, side by side.

    method : "importance_sampling" puts all of them on one scale, each at its own estimates;
        without it they must have been fitted by one method, for the OFV of one approximation says
        nothing of that of another

    fits: method (of the OFV), parameters (how many), ofv with its Monte Carlo SE (0 of an
    approximation), the measures of `carpk.information_criteria.criteria`, differences to the
    least, converged, and how the request differs from the first's.

    tests: of every pair of which one is the other with some parameters held. dofv, by how much
    the larger model's OFV is lower (se: its Monte Carlo SE); df, parameters added; p by
    chi-square. Spreads and residual SDs are tested at their bound of 0 (boundary): there the
    chi-square is too wide, and p_mixture is by Self and Liang 1987, J Am Stat Assoc 82:605, and
    Stram and Lee 1994, Biometrics 50:1171, half and half of df - 1 and df where one such
    parameter is added; of several a binomial mixture, as if their estimates were uncorrelated.

    Raises RequestError for fits that are no maxima, of other data, or of different methods.
    """
    _must_be_comparable(fits, method)
    differs = differences(fits)
    found = {n: _measured(f, method, draws, seed) for n, f in fits.items()}
    rows = [{"fit": n, "method": method or method_of(f), "parameters": len(f.model.free),
             **found[n], "converged": f.convergence.ok, "differs": differs[n]}
            for n, f in fits.items()]
    table = pd.DataFrame(rows)
    for name in ("aic", "bic", "bicc"):
        table[f"{name}_difference"] = table[name] - table[name].min()
    tests = [t for a, b in itertools.permutations(fits, 2)
             if (t := _test(a, b, fits[a], fits[b], found)) is not None]
    return Choice(table.sort_values("bicc", kind="stable")[list(FIT_COLUMNS)].reset_index(
        drop=True), pd.DataFrame(tests, columns=list(TEST_COLUMNS)))


def method_of(fit: Fit) -> str:
    """By which method the OFV of a fit was found: fo, foce, focei, laplace or
    importance_sampling."""
    request = fit.manifest["request"]
    return SAMPLING if "ofv_se" in fit.convergence.measures else \
        str(request["settings"].get("method", request["estimator"]))


def sampled(fit: Fit, draws: int = 3000, seed: int = 1) -> Objective:
    """The objective of a fit at its estimates by importance sampling."""
    model = fit.model
    approximation = Approximation(model, data_of(model, fit.design), "laplace")
    u = np.asarray(jax.jit(lambda theta: from_theta(model, theta))(
        {n: v["estimate"] for n, v in fit.manifest["estimates"].items()}))
    return evaluated(approximation, u, fit.design.ids, SAMPLING, draws, seed)[0]


def _measured(fit: Fit, method: str | None, draws: int, seed: int) -> dict[str, float]:
    measures, seen = fit.convergence.measures, fit.design
    ofv, se = measures["ofv"], measures.get("ofv_se", 0.0)
    constant = measures["minus_two_log_likelihood"] - ofv
    if method is not None and method != method_of(fit):
        again = sampled(fit, draws, seed)
        ofv, se = again.total, again.se
    return {**criteria(fit.model, ofv, constant, len(seen.ids), int(seen.observed.sum())),
            "ofv_se": se}


def _must_be_comparable(fits: Mapping[str, Fit], method: str | None) -> None:
    found = unlike_data(fits)
    if method not in (None, SAMPLING):
        found.append(Problem("error", "the one scale is importance_sampling", "take that, or none",
                             column="method", found=str(method)))
    found += [Problem("error", "it is no fit by maximum likelihood",
                      "compare fits of the same kind", n)
              for n, f in fits.items() if "estimates" not in f.manifest]
    if found:
        raise RequestError(found)
    methods = {n: method_of(f) for n, f in fits.items()}
    if method is None and len(set(methods.values())) > 1:
        first = next(iter(methods.values()))
        raise RequestError(Problem(
            "error", f"its OFV is by {of}, the first fit's by {first}: their difference is of the "
            "methods as well as of the models", f"--method {SAMPLING} puts all on one scale", n)
            for n, of in methods.items() if of != first)


def _values(fit: Fit) -> dict[str, float | None]:
    """Of every population parameter: None where it was estimated, else its value."""
    return {n: fit.model.fixed.get(n) for n in fit.model.names}


def added(small: Fit, large: Fit) -> tuple[str, ...] | None:
    """The parameters that the large model estimates and the small one holds, if it is the large
    one with these held; else None. A spread, coefficient or correlation that a model lacks is 0.
    """
    a, b = small.model, large.model
    if small.manifest["model"]["sha256"] != large.manifest["model"]["sha256"] \
            or (a.censoring, a.etas, dict(a.time_varying)) != (
                b.censoring, b.etas, dict(b.time_varying)) \
            or not {e.key: e for e in a.effects}.items() <= {e.key: e for e in b.effects}.items() \
            or not all(_simpler(e, b.errors[o]) for o, e in a.errors.items()):
        return None
    ours, theirs = _values(small), _values(large)
    own = set(a.free)
    for n in _made_equal(small, large):  # one of several that the small model takes to be equal
        shared = stem(*b.residuals[n][:2])
        if shared in ours:
            ours[n] = ours.pop(shared)
            own = own - {shared} | {n}
    for name in {*ours, *theirs}:
        mine, other = ours.get(name, 0.0), theirs.get(name, 0.0)
        if other is not None and (mine is None or mine != other):
            return None
    more = tuple(n for n in b.free if n not in own)
    return more or None


def _simpler(small: str, large: str) -> bool:
    """Whether an error model is another, or one with something of it held."""
    (plain, by), (other, column) = without_column(small), without_column(large)
    return (plain == other or plain in _SIMPLER.get(other, ())) and by in ("", column)


def _made_equal(small: Fit, large: Fit) -> list[str]:
    """The residual parameters that are separate in the large model and shared in the small one."""
    return [n for n, r in large.model.residuals.items()
            if r.unit and stem(r.output, r.sigma) in small.model.names]


def _test(smaller: str, larger: str, small: Fit, large: Fit,
          found: Mapping[str, Mapping[str, float]]) -> dict[str, Any] | None:
    more = added(small, large)
    if more is None:
        return None
    df, dofv = len(more), found[smaller]["ofv"] - found[larger]["ofv"]
    se = math.hypot(found[smaller]["ofv_se"], found[larger]["ofv_se"])
    held = _values(small)
    bound = [n for n in more if n in (*large.model.sds, *large.model.residuals)
             and held.get(n, 0.0) == 0.0 and n not in _made_equal(small, large)]
    notes = []
    if dofv < -max(0.01, 3.0 * se):
        notes.append("the larger model fits worse: its search stopped short")
    if 0.0 < abs(dofv) < 2.0 * se:
        notes.append("within the Monte Carlo noise: take more draws")
    joined = [b for b in large.model.blocks
              if sum(f"omega_{n}" in bound for n in b) > 1 and correlations(b)[0] in more]
    if joined:
        notes.append("several correlated spreads at once: p by chi-square is an upper bound")
    elif len(bound) > 1:
        notes.append("several spreads at once: the mixture is a rough one")
    mixture = math.nan if not bound or joined else mixture_p(dofv, df - len(bound), len(bound))
    return {"smaller": smaller, "larger": larger, "added": ", ".join(more), "df": df,
            "dofv": dofv, "se": se, "p": float(chi2.sf(max(dofv, 0.0), df)),
            "boundary": ", ".join(bound), "p_mixture": mixture, "note": "; ".join(notes)}


def mixture_p(dofv: float, inner: int, bound: int) -> float:
    """P(a fall in OFV of at least this) where `inner` parameters lie inside their range and
    `bound` at its end: each of the latter is free or stuck, half and half.

    >>> round(mixture_p(2.706, 0, 1), 3), mixture_p(0.0, 0, 1)  # one spread: half of chi-square
    (0.05, 1.0)
    """
    weights = [math.comb(bound, k) / 2**bound for k in range(bound + 1)]
    return float(sum(w * (chi2.sf(max(dofv, 0.0), inner + k) if inner + k else float(dofv <= 0.0))
                     for k, w in enumerate(weights)))
