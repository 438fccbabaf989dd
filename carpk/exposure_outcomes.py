"""Exposure-response: what becomes of patients against the exposure of their posterior curves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from carpk.exposure_summary import unit_of
from carpk.fit_exposure import exposure_draws
from carpk.fitting import Fit
from carpk.outcome_data import SURVIVAL, Outcomes, information, read_outcomes
from carpk.outcome_regression import KINDS, Regression, pooled, regress
from carpk.problems import Problem, RequestError

METRICS = ("Cmax", "Tmax", "half_life", "AUC0_28 (or to another day)")
MODELS = {"binary": "logistic", "ordinal": "proportional odds",
          "survival": "Weibull proportional hazards", "cox": "Cox proportional hazards"}
WEIGHED = "draws weighed by the outcome"
TWO_STAGES = (
    "The exposure was estimated without the outcome (two stages): where the samples tell little "
    "of it, the association is drawn towards none.")
_LATE = 0.1  # share of patients whose peak may come after the landmark
_PERFECT = 10.0  # a slope per SD beyond this is of an outcome that is perfectly predicted


@dataclass(frozen=True, eq=False)
class ExposureResponse:
    """An outcome on an exposure.

    table : a row for each coefficient, see `exposure_response`
    left_out : ID, reason of each patient who does not count; remarks : what a reader must know
    ids, exposure (S draws, n), read, regression : what the curves are drawn from
    """

    outcome: str
    kind: str
    metric: str
    unit: str
    landmark: float | None
    adjust: tuple[str, ...]
    table: pd.DataFrame
    left_out: pd.DataFrame
    remarks: tuple[str, ...]
    ids: tuple[str, ...]
    exposure: np.ndarray
    read: Outcomes
    regression: Regression

    @property
    def measure(self) -> str:
        """What the coefficients are, as `odds ratio`."""
        return "hazard ratio" if self.kind in SURVIVAL else "odds ratio"


def exposure_response(fit: Fit, outcome: str, kind: str, metric: str = "Cmax", *,
                      adjust: Sequence[str] = (), event: str | None = None,
                      landmark: float | None = None, output: str | None = None,
                      prior: float | None = None) -> ExposureResponse:
    """Regresses an outcome on the log2 of each patient's exposure, its uncertainty carried through.

    outcome : a column of the fitted data with one value per patient; if binary also a condition,
        "CRS_GRADE>=3" or "RESPONSE=CR"; the time of event or censoring for survival and cox,
        from the infusion, in the unit of TIME. Of a response's duration that is when it ended,
        missing in those who never had one
    kind : binary (logistic), ordinal (proportional odds), survival (Weibull, proportional
        hazards) or cox
    metric : Cmax, Tmax, half_life or AUC0_28, AUC0_14, ..., in capitals or not, of `output`
    adjust : covariates; numbers enter as they are, words against the most frequent level
    event : column with 1 where the time is of an event and 0 where it is of censoring
    landmark : of survival and cox: only patients whose time is later count, and their time runs
        from it. The exposure must be complete by then: who lives longer could otherwise have more
        of it for that reason alone (immortal time)
    prior : SD of a normal prior around 0 of the coefficients, per SD of a column or between two
        groups; without one, maximum likelihood

    returns : its table has, per coefficient, model, term, contrast, measure (odds ratio or hazard
        ratio), estimate, lower95, upper95, direction (probability that it lies on the side of 1
        that its estimate does), from_exposure (share of its variance that is of the exposure's
        uncertainty), n, events, outcome, metric, unit, adjusted_for, landmark, prior, draws. An
        ordinal outcome adds its exposure's odds ratio at each grade alone: were odds
        proportional, these would differ by chance only.

    Each of up to 200 draws of the posterior has an exposure of every patient, and a regression on
    it. The result is the mixture of the draws' normals Normal(estimate, covariance): with a flat
    prior and normal likelihoods that is the posterior of the coefficients when the outcome is kept
    from moving the exposure (a cut posterior: Plummer 2015, Stat Comput 25:37), and Rubin's rules
    (variance within plus variance between draws) give about the same intervals. Without
    uncertainty of the exposure it is the interval of maximum likelihood. That the outcome does not
    inform the exposure has a price, as in all multiple imputation without the outcome: an
    association is drawn towards none where the exposure is poorly known. By how much, a second
    row says (not of cox): "draws weighed by the outcome" maximises prod_i mean_d p(outcome of i |
    exposure of i in draw d), in which a patient's draws count the more the better they agree with
    the outcome, as in one model of both; the draws of different patients are taken as
    independent, though they share the population's values.
    Raises RequestError with everything that is wrong: columns, values, too few events, a metric
    that is not complete at the landmark, an outcome that is perfectly predicted.

    >>> from carpk import examples, fitting, population_model
    >>> few = examples.example("tisacel_like").select(["1", "2", "3", "4", "5", "6"])
    >>> fit = fitting.fit(population_model.population("stein_2019"), few, seed=1, chains=2,
    ...                   draws=20, warmup=20)
    >>> found = exposure_response(fit, "CRS_GRADE>=2", "binary", "auc0_28", prior=2.5)
    >>> found.table[["term", "contrast", "measure", "n"]].values.tolist()[0]
    ['AUC0_28', 'per doubling', 'odds ratio', 6]
    """
    found: list[Problem] = []
    wanted = _metric(metric, found)
    k = _output(fit, output, found)
    _asked(kind, event, landmark, prior, found)
    if wanted and kind in SURVIVAL and landmark is not None:
        _window(wanted, landmark, found)
    if found:  # with what is wrong with the columns, before the curves are solved
        read_outcomes(fit, kind if kind in KINDS else "binary", outcome, event, landmark, adjust,
                      _unknown(fit), found)
        raise RequestError(found)
    drawn = exposure_draws(fit, float(wanted.removeprefix("AUC0_")) if wanted.startswith("AUC")
                           else None)
    every = drawn[wanted][:, :-1, k]  # the typical patient comes last
    read = read_outcomes(fit, kind, outcome, event, landmark, adjust,
                         _unknown(fit, k, wanted, every), found)
    if read is None:
        raise RequestError(found)
    ids = [str(fit.design.ids[p]) for p in read.place]
    exposure = every[:, read.place]
    remarks = _remarks(fit, kind, outcome, wanted, read)
    if kind in SURVIVAL and wanted in ("Cmax", "Tmax"):
        assert landmark is not None
        peak = np.median(drawn["Tmax"][:, read.place, k], axis=0)
        remarks += _late_peaks(ids, peak, landmark, found)
    logs = np.log2(exposure)
    if not found and np.ptp(np.median(logs, axis=0)) < 1e-9:
        found.append(Problem("error", f"all patients have the same {wanted}",
                             "there is nothing to regress on", column="--metric", found=metric))
    if found:
        raise RequestError(found)
    x = np.concatenate([logs[..., None], np.broadcast_to(
        read.covariates, (len(logs), *read.covariates.shape))], axis=2)
    terms = [(wanted, "per doubling"), *read.terms]
    fitted = regress(kind, x, read.outcome, read.event, prior=prior)
    if not fitted.found.all():
        raise RequestError(_no_maximum(fitted, outcome, terms, prior))
    unit = unit_of(wanted, fit.manifest["data"]["units"][
        str(fit.model.structure.outputs[k].dvid)]).replace("day", fit.model.structure.time_unit)
    more = [] if kind == "cox" else _weighed(kind, x, read, terms, prior, fitted)
    if kind == "ordinal":
        more += _cuts(outcome, x, read, terms, prior)
    table = pd.concat([_table(kind, fitted, terms), *more], ignore_index=True)
    events = int(read.event.sum()) if read.event is not None else int((read.outcome > 0).sum())
    table = table.assign(
        n=len(read.place), events=events, outcome=outcome, metric=wanted, unit=unit,
        adjusted_for=" ".join(adjust), landmark=np.nan if landmark is None else landmark,
        prior=np.nan if prior is None else prior, draws=len(x))
    weighed = table["model"].str.endswith(WEIGHED).any()
    remarks.append(TWO_STAGES + f' The row "{WEIGHED}" corrects that.' * int(weighed))
    return ExposureResponse(
        outcome, kind, wanted, unit, landmark, tuple(adjust), table, read.left_out, tuple(remarks),
        tuple(ids), exposure, read, fitted)


def _metric(text: str, found: list[Problem]) -> str:
    """A metric as it is called in tables, or "" with a problem.

    >>> _metric("auc0_14", []), _metric("cmax", []), _metric("auc", problems := [])
    ('AUC0_14', 'Cmax', '')
    """
    area = re.fullmatch(r"auc0[_-](\d+(?:\.\d+)?)", text.lower())
    if area and float(area[1]) > 0:
        return f"AUC0_{float(area[1]):g}"
    named = {n.lower(): n for n in ("Cmax", "Tmax", "half_life")}.get(text.lower(), "")
    if not named:
        found.append(Problem(
            "error", "no such exposure", f"known: {', '.join(METRICS)}" + (
                "; the time below the limit lies beyond the samples of many patients, so that it "
                "has no doubling" if text.lower() == "tbelow" else ""),
            column="--metric", found=text))
    return named


def _output(fit: Fit, asked: str | None, found: list[Problem]) -> int:
    """The place of the output whose exposure it is: the one asked for, or the first observed."""
    present = np.unique(fit.design.output[fit.design.observed])
    names = {fit.model.structure.outputs[k].name: int(k) for k in present}
    if asked is not None and asked not in names:
        found.append(Problem("error", "no observation of such an output",
                             f"known: {', '.join(names)}", column="--output", found=asked))
    return names.get(asked or "", int(present[0]))


def _unknown(fit: Fit, k: int = 0, metric: str = "", every: np.ndarray | None = None) -> pd.Series:
    """Why a patient's exposure (S, P) of the k-th output is not known, "" where it is."""
    seen = fit.design
    reason = pd.Series("", index=pd.Index(seen.ids, dtype=object, name="ID"))
    if every is not None:
        reason[~(np.isfinite(every) & (every > 0)).all(axis=0)] = \
            f"{metric} is not known in every draw"
        reason[~((seen.output == k) & seen.observed).any(axis=1)] = \
            f"no observation of {fit.model.structure.outputs[k].name}"
    return reason


def _asked(kind: str, event: str | None, landmark: float | None, prior: float | None,
           found: list[Problem]) -> None:
    """What does not go together."""
    if kind not in KINDS:
        found.append(Problem("error", "no such type of outcome", f"known: {', '.join(KINDS)}",
                             column="--type", found=kind))
    elif kind in SURVIVAL:
        if event is None:
            found.append(Problem("error", "which patients had an event?",
                                 "name the column with 1 for those and 0 for the censored",
                                 column="--event"))
        if landmark is None or not landmark > 0:
            found.append(Problem(
                "error", "a time to event needs a landmark",
                "the day by which the exposure is complete, such as --landmark 28; patients count "
                "from there", column="--landmark", found=None if landmark is None else
                f"{landmark:g}"))
    elif event is not None or landmark is not None:
        found.append(Problem("error", f"a {kind} outcome has no event and no landmark",
                             "--type survival or cox takes them", column="--type", found=kind))
    if prior is not None and not prior > 0:
        found.append(Problem("error", "an SD is above 0", "2.5 is weakly informative",
                             column="--prior", found=f"{prior:g}"))


def _window(metric: str, landmark: float, found: list[Problem]) -> None:
    """Refuses an exposure that is complete only after the landmark."""
    if metric == "half_life":
        found.append(Problem(
            "error", "the half-life is read from the end of a patient's samples, after the "
            "landmark: who lives longer is sampled longer (immortal time)",
            "take Cmax, or an area that ends by the landmark", column="--metric", found=metric))
    elif metric.startswith("AUC") and float(metric.removeprefix("AUC0_")) > landmark:
        found.append(Problem(
            "error", f"this area ends after the landmark (day {landmark:g}): who dies between has "
            "no such exposure (immortal time)", f"take auc0_{landmark:g}, or a later landmark",
            column="--metric", found=metric))


def _late_peaks(ids: list[str], peak: np.ndarray, landmark: float, found: list[Problem]) \
        -> list[str]:
    """Of a peak that comes after the landmark: a remark if of few patients, else a problem."""
    late = peak > landmark
    if not late.any():
        return []
    who = _listed([i for i, x in zip(ids, late, strict=True) if x])
    text = f"the peak comes after the landmark in {late.sum()} of {len(late)} patients ({who})"
    if late.mean() > _LATE:
        found.append(Problem(
            "error", f"{text}: who lives longer can have a later peak (immortal time)",
            f"take a landmark from {np.ceil(np.quantile(peak, 1 - _LATE)):g} on, or an area that "
            "ends by it", column="--landmark", found=f"{landmark:g}"))
    return [f"{text}, which is immortal time of theirs; an area that ends by the landmark is free "
            "of it"]


def _listed(ids: Sequence[str], most: int = 8) -> str:
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(ids[:most]) + more


def _remarks(fit: Fit, kind: str, outcome: str, metric: str, read: Outcomes) -> list[str]:
    said = []
    if not fit.convergence.ok:
        said.append("NOT CONVERGED: the fit's draws are not of its posterior")
    source = fit.posterior["posterior"].dataset.attrs["draws_from"]
    if source == "point":
        said.append("the fit is a point estimate: it has no uncertainty of exposure to carry")
    inside = sorted({e.column for e in fit.model.effects
                     if re.split(r"\s*(?:>=|=)", outcome)[0] == e.column})
    if inside:
        said.append(f"{inside[0]} is a covariate of the fit, which has thereby put it into the "
                    "exposure: the association is partly assumed; fit without it")
    if metric == "half_life":
        said.append("the half-life is read from the end of a patient's samples, which the outcome "
                    "itself may have ended")
    events, slopes = information(kind, read.outcome, read.event), 1 + len(read.terms)
    if events < 10 * slopes:
        said.append(f"few events: {events:.0f} (in effect) for {slopes} coefficients, want ten "
                    "for each; estimates are biased away from 1, and --prior 2.5 tempers that")
    return said


def _no_maximum(fitted: Regression, outcome: str, terms: list[tuple[str, str]],
                prior: float | None) -> Problem:
    lost = ~fitted.found
    size = np.abs(np.nan_to_num(fitted.standardised[lost], nan=np.inf)).max(axis=0)
    guilty = [f"{t} ({c})" for (t, c), v in zip(terms, size, strict=True) if v > _PERFECT]
    return Problem(
        "error", f"{outcome} is perfectly predicted by {' and '.join(guilty) or 'the columns'} "
        "(separation), or columns say the same: the likelihood has no maximum"
        + (f" in {lost.sum()} of {len(lost)} draws" if not lost.all() else ""),
        "adjust for less, or state how large a coefficient may be: --prior 2.5" if prior is None
        else "adjust for less, or take a smaller --prior", column="--outcome", found=outcome)


def _table(kind: str, fitted: Regression, terms: list[tuple[str, str]]) -> pd.DataFrame:
    rows = []
    for j, (term, contrast) in enumerate(terms):
        slopes, errors = fitted.slopes[:, j], fitted.errors[:, j]
        (middle, low, high), above = pooled(slopes, errors)
        between = slopes.var()
        rows.append({
            "model": MODELS[kind], "term": term, "contrast": contrast,
            "measure": "hazard ratio" if kind in SURVIVAL else "odds ratio",
            "estimate": np.exp(middle), "lower95": np.exp(low), "upper95": np.exp(high),
            "direction": above if middle > 0 else 1.0 - above,
            "from_exposure": between / (between + (errors**2).mean())})
    return pd.DataFrame(rows)


def _weighed(kind: str, x: np.ndarray, read: Outcomes, terms: list[tuple[str, str]],
             prior: float | None, fitted: Regression) -> list[pd.DataFrame]:
    """The exposure's ratio by the likelihood averaged over the draws, where that has a maximum."""
    joint = regress(kind, x, read.outcome, read.event, prior=prior, together=fitted)
    return [_table(kind, joint, terms[:1]).assign(
        from_exposure=np.nan, model=f"{MODELS[kind]}, {WEIGHED}")] if joint.found.all() else []


def _cuts(outcome: str, x: np.ndarray, read: Outcomes, terms: list[tuple[str, str]],
          prior: float | None) -> list[pd.DataFrame]:
    """The exposure's odds ratio of each grade or more, where that has a maximum."""
    rows = []
    for grade in np.unique(read.outcome)[1:]:
        fitted = regress("binary", x, (read.outcome >= grade).astype(int), prior=prior)
        if fitted.found.all():
            rows.append(_table("binary", fitted, terms[:1]).assign(
                model=f"logistic, {outcome} >= {grade:g}"))
    return rows
