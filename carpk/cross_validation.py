"""Prediction of patients a model has not seen: it is fitted without them, a fold at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from carpk.comparison import COLUMNS, differences, patient_log_likelihoods
from carpk.fitting import Fit
from carpk.problems import Problem, RequestError

_COARSE = 0.3  # Monte Carlo SE of a patient's log density: beyond it, few draws decide


def folds_of(ids: Sequence[str], count: int) -> list[tuple[str, ...]]:
    """The patients dealt into folds that differ by one at most; always the same for the same.

    RequestError where a fold would be empty or all of them.

    >>> [len(fold) for fold in folds_of("abcdefgh", 3)]
    [3, 3, 2]
    """
    if not 2 <= count <= len(ids):
        raise RequestError(Problem("error", f"{len(ids)} patients make 2 to {len(ids)} folds",
                                   column="--kfold", found=str(count)))
    order = np.random.default_rng(len(ids)).permutation(len(ids))
    return [tuple(ids[i] for i in sorted(order[k::count])) for k in range(count)]


def must_lack_nothing(fits: Mapping[str, Fit]) -> None:
    """RequestError where a fit models what patients lack: of one left out it knows no value."""
    found = [Problem("error", "missing values are modelled, and a patient left out has none",
                     "compare without --kfold, or fill them in", n, column=gap.column)
             for n, f in fits.items() for gap in f.model.missing]
    if found:
        raise RequestError(found)


def kfold(fits: Mapping[str, Fit], refits: Mapping[str, Sequence[Fit]],
          folds: Sequence[Sequence[str]], seed: int = 1) -> pd.DataFrame:
    """The expected log density of patients left out a fold at a time, best first.

    refits : of each fit, one to all patients but those of each fold
    The columns are those of `carpk.comparison.compare`; p_loo and pareto_k have no meaning here.
    weight: stacking, Yao et al. 2018, Bayesian Anal 13:917, of the patients' densities;
    unreliable: patients whose log density a few draws decide (Monte Carlo SE above 0.3).
    RequestError where a fold holds the only patients of a covariate's level, a study or an assay.
    """
    ids = list(next(iter(fits.values())).design.ids)
    densities, coarse = {}, {}
    for name, fit in fits.items():
        found, error = np.zeros(len(ids)), np.zeros(len(ids))
        for left, refit in zip(folds, refits[name], strict=True):
            _must_know_levels(fit, refit, left)
            places = np.array([ids.index(i) for i in left])
            logs = patient_log_likelihoods(refit, seed, of=fit, places=places)
            logs = logs.reshape(-1, len(places))
            found[places] = logsumexp(logs, axis=0) - np.log(len(logs))
            share = np.exp(logs - found[places])
            error[places] = share.std(axis=0, ddof=1) / len(logs) ** 0.5
        densities[name] = found
        coarse[name] = [i for i, e in zip(ids, error, strict=True) if not e <= _COARSE]
    whole = np.stack(list(densities.values()))
    weights = _stacked(whole)
    best = whole[whole.sum(axis=1).argmax()]
    differs = differences(fits)
    rows = []
    for name, weight in zip(fits, weights, strict=True):
        own = densities[name]
        behind = own - best
        rows.append({
            "fit": name, "unit": f"patient, {len(folds)} folds", "elpd": own.sum(),
            "se": _standard_error(own), "p_loo": np.nan, "difference": behind.sum(),
            "difference_se": _standard_error(behind), "weight": weight, "pareto_k": np.nan,
            "unreliable": ", ".join(coarse[name]), "differs": differs[name]})
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(
        "elpd", ascending=False, kind="stable").reset_index(drop=True)


def _standard_error(values: np.ndarray) -> float:
    """Of a sum over patients."""
    return float((len(values) * values.var()) ** 0.5)


def _stacked(densities: np.ndarray) -> np.ndarray:
    """(M,), the weights that mix M models' densities (M, P) best: EM, which never falls."""
    weights = np.full(len(densities), 1 / len(densities))
    share = np.exp(densities - densities.max(axis=0))
    for _ in range(5000):
        mixed = weights[:, None] * share
        weights = (mixed / mixed.sum(axis=0)).mean(axis=1)
    return weights


def _must_know_levels(fit: Fit, refit: Fit, left: Sequence[str]) -> None:
    """A level of a covariate that only patients of the fold have has no coefficient without them,
    a study no deviation, an assay no error."""
    def known(of: Fit) -> dict[str, set[str]]:
        return {s.column: set(s.units) for s in of.model.separate.values()} | {
            e.column: {str(e.reference), *map(str, e.points)} for e in of.model.effects
            if e.form == "category"} | {v.column: set(v.units) for v in of.model.levels}

    there = known(refit)
    found = [Problem("error", f"only patients of one fold have it ({', '.join(left)})",
                     "join levels, or take another number of folds", column=column, found=level)
             for column, levels in known(fit).items() for level in sorted(levels - there[column])]
    if found:
        raise RequestError(found)
