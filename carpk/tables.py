"""Fit -> tables: parameters, individuals, predictions, excluded. The column names live here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from carpk import (
    class_rows,
    covariate_effects,
    fitting,
    horseshoe,
    level_rows,
    missing_rows,
    posterior,
    prediction,
)
from carpk.asymptotics import at_zero
from carpk.conditional_residuals import cwres
from carpk.correlated import correlations
from carpk.covariate_models import CovariateEffect
from carpk.effects import coefficients
from carpk.fitting import Fit
from carpk.information_criteria import CONVENTIONS, MEANINGS
from carpk.likelihood import log_prior
from carpk.normalised_errors import npde
from carpk.occasion_rows import between_occasions, cv_percent, in_occasions
from carpk.paired_errors import rho_of
from carpk.prediction import quantiles, some_draws
from carpk.priors import Prior, of_partial
from carpk.structure import Parameter, named
from carpk.tails import TAILS

PARAMETER_COLUMNS = (
    "parameter", "unit", "mean", "median", "sd", "lower95", "upper95", "rse", "rhat", "ess_bulk",
    "ess_tail", "cv_percent", "shrinkage", "prior", "note", "kind", "meaning")
_DOMINATED = 0.7  # of the prior's SD: the data then took less than half of its variance away
_MOVED = 0.05  # of a power-scaling distance: what its authors call noticeable
_DERIVED_DRAWS = 1000  # per patient; the interval of a half-life needs no more


def parameters(fit: Fit) -> pd.DataFrame:
    """One row per population parameter and per derived quantity of the typical patient.

    parameter, unit; mean, median, sd, lower95, upper95 on the natural scale (omega: SD of eta on
    the link scale); rse: 100 sd / |mean|; rhat, ess_bulk, ess_tail;
    cv_percent: of a log-normal parameter, 100 sqrt(exp(omega^2) - 1), of Student's t with the SD
    of its etas, sqrt(2) omega, in the place of omega; shrinkage, as a fraction: of a spread
    1 - SD(posterior mean eta) / SD of the etas, of a residual error 1 - SD(IWRES) of its measured
    levels; prior, as it was used;
    note: why it is fixed, why the prior is what it is, and when the data add little to it;
    kind: typical, covariate, shrinkage, class, level, missing, spread, occasions, correlation,
    residual or derived; meaning, in words. Of a mixture X_pop is of class 1; X_pop_2, share_1 and
    a study's X_pop_STUDY_A are computed from the draws.
    A fixed parameter has its value as mean and median. Of maximum likelihood, mean and median
    are the estimate, sd its standard error. What does not apply is NaN or "".
    """
    model, draws = fit.model, fit.posterior["posterior"].dataset
    derived = _typical_derived(fit)
    weak, likeliest = prior_dominated(fit), fit.manifest.get("estimates", {})
    at_bound = at_zero(model, {n: v["estimate"] for n, v in likeliest.items()}) if likeliest else {}
    summary = posterior.summary({**{n: draws[n].values for n in model.free if n not in likeliest},
                                 **derived})
    own = missing_rows.deviations(model)  # patients', and in their table
    left = prediction.residual_shrinkage(fit)
    if draws.attrs["draws_from"] != "posterior":  # draws of a normal: no chains to compare
        summary[["rhat", "ess_bulk", "ess_tail"]] = math.nan
    rows = []
    for name in (*(n for n in model.names if n not in own), *derived):
        row: dict[str, Any] = dict(described(fit, name))
        if name in model.fixed:
            row |= {"mean": float(model.fixed[name]), "median": float(model.fixed[name]),
                    "note": f"fixed: {model.reasons.get(name, 'on request')}"}
        elif name in derived and np.ptp(derived[name]) <= 1e-9 * abs(derived[name].mean()):
            value = float(derived[name].mean())  # of fixed parameters only
            row |= {"mean": value, "median": value, "note": "fixed: by the parameters it is of"}
        elif name in likeliest:
            found = likeliest[name]
            row |= {"mean": found["estimate"], "median": found["estimate"]}
            if name in at_bound:
                whose = "" if at_bound[name] == name else f"{at_bound[name]} is "
                row["note"] = f"{whose}at its bound of 0: there is no standard error"
            else:
                row |= {"sd": found["se"], "lower95": found["lower95"],
                        "upper95": found["upper95"]}
        else:
            row |= summary.loc[name].to_dict()
        if row.get("mean") and row.get("sd"):
            row["rse"] = 100 * row["sd"] / abs(row["mean"])
        if name in model.priors and name in model.free and not likeliest:
            notes = [model.reasons.get(name, "default"), *([weak[name]] if name in weak else [])]
            row |= {"prior": str(model.priors[name]), "note": "; ".join(notes)}
        if row["kind"] == "spread":
            row |= _spread(fit, name, row["median"])
        if row["kind"] == "occasions":
            row |= between_occasions(fit, name, row["median"])
        if row["kind"] == "residual":
            row["shrinkage"] = left[name]
        words = dict.fromkeys(("unit", "prior", "note", "meaning"), "")
        rows.append({"parameter": name, **words, **row})
    return pd.DataFrame(rows, columns=list(PARAMETER_COLUMNS))


def individuals(fit: Fit) -> pd.DataFrame:
    """One row per patient: ID, observations, censored; of every varying parameter X: X_mean,
    X_median, X_sd, X_lower95, X_upper95 (natural scale), eta_X_mean; of one that differs between
    occasions X_1_median, X_1_lower95, X_1_upper95, kappa_X_1_median, ... in the first and so on,
    NaN where the patient has fewer; the covariates of the model; of every derived quantity D:
    D_median, D_lower95, D_upper95. Of a mixture class_k_probability of each class k, and class,
    the likeliest; of a covariate that some patients lack WT_median, WT_lower95, WT_upper95, or of
    a category SEX_F_probability of each level, for those who lack it."""
    seen, draws = fit.design, fit.posterior["posterior"].dataset
    columns: dict[str, Any] = {
        "ID": list(seen.ids), "observations": seen.observed.sum(axis=1),
        "censored": seen.censored.sum(axis=1)}
    for name in fit.model.spread:
        values = draws[name].values.reshape(-1, len(seen.ids))
        lower, median, upper = quantiles(values, (0.025, 0.5, 0.975))
        columns |= {f"{name}_mean": values.mean(axis=0), f"{name}_median": median,
                    f"{name}_sd": values.std(axis=0, ddof=1), f"{name}_lower95": lower,
                    f"{name}_upper95": upper,
                    f"eta_{name}_mean": draws[f"eta_{name}"].values.mean(axis=(0, 1))}
    for name, values in in_occasions(fit).items():
        lower, median, upper = quantiles(values, (0.025, 0.5, 0.975))
        columns |= {f"{name}_median": median, f"{name}_lower95": lower, f"{name}_upper95": upper}
    if fit.model.mixture:
        each = prediction.class_probabilities(fit)
        columns |= {f"class_{k + 1}_probability": p for k, p in enumerate(each.T)}
        columns["class"] = each.argmax(axis=1) + 1
    for name in (n for n in fit.model.covariates if n in seen.covariates):
        columns[name] = seen.covariates[name].to_numpy()
    columns |= missing_rows.values(fit)
    for name, values in _patients_derived(fit).items():
        lower, median, upper = quantiles(values, (0.025, 0.5, 0.975))
        columns |= {f"{name}_median": median, f"{name}_lower95": lower, f"{name}_upper95": upper}
    return pd.DataFrame(columns)


def covariates(fit: Fit) -> pd.DataFrame:
    """What each covariate does; see `carpk.covariate_effects.covariates`."""
    return covariate_effects.covariates(fit)


def correlations_of_estimates(fit: Fit) -> pd.DataFrame:
    """(Q, Q): correlation of the draws of the free population parameters, on the scales they are
    estimated on; the first column names the row. Blank of one whose draws do not differ, or reach
    the end of their range, as do those of a spread that maximum likelihood puts at 0."""
    draws, own = fit.posterior["posterior"].dataset, missing_rows.deviations(fit.model)
    free = [n for n in fit.model.free if n not in own]
    u = np.array([np.asarray(fit.model.priors[n].scale.to_real(jnp.asarray(
        draws[n].values.ravel()))) for n in free])
    usable = np.array([np.isfinite(x).all() and np.ptp(x) > 1e-9 for x in u], dtype=bool)
    matrix = np.full((len(free), len(free)), math.nan)
    if usable.any():
        matrix[np.ix_(usable, usable)] = np.corrcoef(u[usable])
    return pd.DataFrame(matrix, free, free).rename_axis("parameter").reset_index()


def likelihood_measures(fit: Fit) -> pd.DataFrame:
    """What a fit by maximum likelihood is chosen by: measure, value, and convention, in words.

    OFV is -2 log-likelihood without N ln 2 pi, N the measured rows; see
    `carpk.information_criteria.criteria`. No rows of a posterior.
    """
    measures = fit.convergence.measures
    return pd.DataFrame([(CONVENTIONS[n], measures[n], said) for n, said in MEANINGS.items()
                         if n in measures], columns=["measure", "value", "convention"])


def starts(fit: Fit) -> pd.DataFrame:
    """Where each of several starts of a search ended, see `carpk.multistart.agreed`: start, ofv,
    difference, steps, distance, furthest, and the estimates. No rows where there was one."""
    return pd.DataFrame([{**{n: v for n, v in s.items() if n not in ("began", "estimates")},
                          **s["estimates"]} for s in fit.manifest.get("starts", ())])


def prior_sensitivity(fit: Fit) -> pd.DataFrame:
    """Whether the answer hangs on the priors, one row per free population parameter.

    parameter (a unit's b has no prior of its own); prior, likelihood: how far power-scaling all
    priors together, or the likelihood, moves it (`posterior.sensitivity`); remark: a sentence where
    the priors move it noticeably. Draws of a posterior only.
    """
    model, draws = fit.model, fit.posterior["posterior"].dataset
    random = level_rows.deviations(model) | missing_rows.deviations(model)
    own = {n: draws[n].values for n in model.free if n not in random}
    if not own:
        return pd.DataFrame(columns=["parameter", "prior", "likelihood", "remark"])
    if model.earlier is None and model.horseshoe is None:
        densities = {n: np.asarray(model.priors[n].log_density(jnp.asarray(v)))
                     for n, v in own.items()}
    else:  # parameters depend on each other in the prior
        densities = {"all": np.asarray(jax.jit(lambda theta: jax.lax.map(
            lambda draw: log_prior(model, {**model.fixed, **draw}) - sum(
                model.priors[n].log_density(draw[n]) for n in model.free if n not in own), theta))(
                {n: jnp.asarray(draws[n].values.ravel()) for n in model.free})).reshape(
                    draws.sizes["chain"], draws.sizes["draw"])}
    table = posterior.sensitivity(own, densities,
                                  fit.posterior["log_likelihood"].dataset["y"].values)

    def remark(name: str, prior: float, likelihood: float) -> str:
        if not prior >= _MOVED:
            return ""
        if likelihood >= _MOVED:
            return (f"{name} moves with the priors as well as with the data: look whether they, "
                    f"its own {model.priors[name]} first, are what you believe")
        return f"{name} moves with the priors and hardly with the data: it is mostly theirs"

    return pd.DataFrame([(n, p, d, remark(n, p, d)) for n, p, d in
                         table[["prior", "likelihood"]].itertuples(name=None)],
                        columns=["parameter", "prior", "likelihood", "remark"])


def predictions(fit: Fit) -> pd.DataFrame:
    """One row per fitted observation; see `carpk.prediction.predictions`. And CWRES, of
    `carpk.conditional_residuals.cwres`, and NPDE, of `carpk.normalised_errors.npde`."""
    return prediction.predictions(fit).assign(CWRES=cwres(fit), NPDE=npde(fit))


def excluded(fit: Fit) -> pd.DataFrame:
    """The rows of the file that were not fitted: line, ID, TIME, DVID, DV, reason."""
    return fitting.excluded(fit)


def prior_dominated(fit: Fit) -> dict[str, str]:
    """A sentence for each free population parameter the data say little about, by name.

    It is one whose posterior SD, on the scale it is sampled on, is above 0.7 of its prior's. A
    spread pressed against 0 is wide on that scale although the data bound it: it is left out
    when it lies more than the prior's SD from the prior's centre. Maximum likelihood has none.
    """
    if "estimates" in fit.manifest:
        return {}
    found, draws = {}, fit.posterior["posterior"].dataset
    random = level_rows.deviations(fit.model) | missing_rows.deviations(fit.model)
    for name in (n for n in fit.model.free if n not in random):
        prior = _marginal(fit, name)
        # of a partial correlation, and of a coefficient over its scale, not of this one
        if prior.family in ("tanhnormal", "horseshoe"):
            continue
        centre, sd = prior_on_real_line(prior)
        u = np.asarray(prior.scale.to_real(jnp.asarray(draws[name].values)))
        moved = len(prior.numbers) == 1 and abs(u.mean() - centre) > sd
        if u.std() > _DOMINATED * sd and not moved:
            found[name] = f"the data say little about {name}: its interval is mostly the prior's"
    return found


def _marginal(fit: Fit, name: str) -> Prior:
    """The prior of one population parameter; of a correlation in a block of m, LKJ(eta) gives
    that of a pair with eta + (m - 2) / 2."""
    size = next((len(b) for b in fit.model.blocks if name in correlations(b)), 2)
    return of_partial(fit.model.priors[name], size, 0)


def prior_on_real_line(prior: Prior) -> tuple[float, float]:
    """Mean and SD of a prior on the scale it is sampled on, by summing its density.

    >>> [round(x, 3) for x in prior_on_real_line(Prior.parse("lognormal(1, 1.5)"))]
    [0.0, 1.5]
    """
    middle = float(prior.scale.to_real(jnp.asarray(prior.median)))
    steps = np.geomspace(1e-4, 1e7, 1500)  # a hundredth of any SD, and far beyond any tail
    u = middle + np.concatenate([-steps[::-1], [0.0], steps])
    density = np.asarray(prior.log_density_real(jnp.asarray(u)))
    density = np.where(np.isfinite(density), density, -np.inf)
    weight = np.exp(density - density.max()) * np.gradient(u)
    mean = float(np.average(u, weights=weight))
    return mean, float(np.sqrt(np.average((u - mean) ** 2, weights=weight)))


def described(fit: Fit, name: str) -> Mapping[str, str]:
    """Kind, unit and meaning of a row; a unit of the output is the cohort's."""
    structure = fit.model.structure
    given = {o.unit: fit.manifest["data"]["units"][str(o.dvid)]
             for o in reversed(structure.outputs)}
    kind, _, rest = name.partition("_")
    effect = next((e for e in fit.model.effects if name in coefficients(e)), None)
    of_class = class_rows.described(fit, name) or level_rows.described(fit, name) \
        or missing_rows.described(fit.model, name)
    if of_class is not None:
        unit = of_class["unit"]
        return {**of_class, "unit": given.get(unit, unit)}
    if effect is not None:
        p = structure.parameter(effect.parameter)
        unit = "-" if p.link != "identity" else given.get(p.unit, p.unit) + (
            "" if effect.form in ("category", "power", "spline") else f" per {effect.column}")
        return {"kind": "covariate", "unit": unit, "meaning": _effect_in_words(effect, name, p)}
    if fit.model.horseshoe and name in fit.model.horseshoe.names:
        return {"kind": "shrinkage", "unit": "-", "meaning": horseshoe.meaning(name)}
    if name in {n for block in fit.model.blocks for n in correlations(block)}:
        return {"kind": "correlation", "unit": "-", "meaning": "correlation of the etas of "
                + " and ".join(next((a, b) for block in fit.model.blocks for a in block
                                    for b in block if f"corr_{a}_{b}" == name))}
    pair = next((p for p in fit.model.error_pairs if name == rho_of(p)), None)
    if pair is not None:
        return {"kind": "correlation", "unit": "-", "meaning": "correlation of the residuals of "
                f"{pair[0]} and {pair[1]} in one sample"}
    if name in fit.model.residuals:
        output, part, own = fit.model.residuals[name]
        error = fit.model.error_models()[output]
        unit = structure.output(output).unit if part in error.in_units else "-"
        return {"kind": "residual", "unit": given.get(unit, unit),
                "meaning": f"{output}: {error.sigmas[part]}"
                + (f", {fit.model.separate[output].column} {own}" if own else "")}
    if name in fit.model.sds:
        p = structure.parameter(rest)
        what = "scale (Student's t, 4 df)" if fit.model.etas == "student_t" else "SD"
        between = "patients" if kind == "omega" else "occasions of a patient"
        return {"kind": "spread" if kind == "omega" else "occasions",
                "meaning": f"{what} between {between} of {_on_its_scale(p)}",
                "unit": given.get(p.unit, p.unit) if p.link == "identity" else "-"}
    words = {f"{q.name}_pop": (q.unit, q.meaning) for q in structure.derived} | \
        {f"{q.name}_pop": (q.unit, q.meaning) for q in structure.parameters}
    unit, meaning = words[name]
    return {"kind": "typical" if name in fit.model.names else "derived",
            "unit": given.get(unit, unit), "meaning": meaning}


def _on_its_scale(p: Parameter) -> str:
    """What is normal between patients, and what effects add up on."""
    return {"log": f"ln {p.name}", "logit": f"logit {p.name}", "identity": p.name}[p.link]


def _effect_in_words(effect: CovariateEffect, name: str, p: Parameter) -> str:
    """What a coefficient multiplies, with its reference."""
    at = f"{effect.reference:.6g}" if isinstance(effect.reference, float) else effect.reference
    part = name.removeprefix(effect.stem).removeprefix("_")
    column, moved = effect.column, _on_its_scale(p)
    if effect.form == "category":
        return f"{moved} of {column} {part} against {at}"
    if effect.form == "power":
        return f"power of {column} / {at}, on {p.name}" if p.link == "log" else \
            f"slope in ln({column} / {at}), on {moved}"
    what = {"linear": "proportional slope", "spline": "spline term"}.get(effect.form, "slope")
    on = p.name if effect.form == "linear" else moved
    return f"{what}{' ' + part if part else ''} in {column}, 0 at {at}, on {on}"


def _spread(fit: Fit, name: str, omega: float) -> dict[str, float]:
    """CV % and shrinkage of a row omega_X, by the SD of the etas, of which the omega of Student's
    t is but the scale."""
    omega = omega * math.sqrt(TAILS[fit.model.etas].variance)
    parameter = fit.model.structure.parameter(name.removeprefix("omega_"))
    eta = fit.posterior["posterior"].dataset[f"eta_{parameter.name}"].values.mean(axis=(0, 1))
    shrinkage = 1 - eta.std(ddof=1) / omega if len(eta) > 1 else math.nan
    return {"cv_percent": cv_percent(parameter, omega), "shrinkage": shrinkage}


def _typical_derived(fit: Fit) -> dict[str, np.ndarray]:
    """Each derived quantity at every draw's population values, (chain, draw), as `X_pop`; of a
    mixture also what its classes have of their own."""
    model, draws = fit.model, fit.posterior["posterior"].dataset
    shape = (draws.sizes["chain"], draws.sizes["draw"])
    values = {p.name: draws[f"{p.name}_pop"].values if f"{p.name}_pop" in model.free
              else np.full(shape, float(model.fixed[f"{p.name}_pop"]))
              for p in model.structure.parameters}
    values |= {n: np.full(shape, np.median(v)) for n, v in fit.design.inputs.items()}
    first = _derive(fit, values, shape)
    found = {**class_rows.typical(fit), **level_rows.typical(fit),
             **{f"{n}_pop": v for n, v in first.items()}}
    for k, own in class_rows.further(fit, values):
        found |= {f"{n}_pop_{k}": v for n, v in _derive(fit, own, shape).items()
                  if not np.array_equal(v, first[n])}
    return found


def _patients_derived(fit: Fit) -> dict[str, np.ndarray]:
    """Each derived quantity of each patient, (some draws, patient)."""
    model, draws = fit.model, fit.posterior["posterior"].dataset
    some, patients = some_draws(fit, _DERIVED_DRAWS), len(fit.design.ids)
    shape = (len(some), patients)

    def drawn(name: str) -> np.ndarray:
        if name in draws and "patient" in draws[name].dims:
            return draws[name].values.reshape(-1, patients)[some]
        whole = f"{name}_pop"
        if whole in model.fixed:
            return np.full(shape, float(model.fixed[whole]))
        return np.broadcast_to(draws[whole].values.reshape(-1)[some, None], shape)

    values = {p.name: drawn(p.name) for p in model.structure.parameters}
    values |= {n: np.broadcast_to(v, shape) for n, v in fit.design.inputs.items()}
    return _derive(fit, values, shape)


def _derive(fit: Fit, values: Mapping[str, np.ndarray], shape: tuple[int, int]) \
        -> dict[str, np.ndarray]:
    derive = fit.model.structure.derive
    if derive is None:
        return {}
    flat = {n: jnp.asarray(v.reshape(-1)) for n, v in values.items()}
    out = jax.jit(jax.vmap(lambda p: dict(derive(named(p)))))(flat)
    return {n: np.asarray(v).reshape(shape) for n, v in out.items()}
