"""The likelihood of a cohort at given population values: `objective`, on NONMEM's scale."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from carpk import posterior
from carpk.approximations import METHODS, Approximation, Method, refuse_binary
from carpk.censoring import censored_as
from carpk.cohort import Cohort, Design, design
from carpk.correlated import correlations
from carpk.importance import importance_sampled
from carpk.likelihood import data_of, from_theta
from carpk.population_model import PopulationModel
from carpk.preparation import choose_steps, refined, resolve, solve_error
from carpk.problems import Problem, RequestError
from carpk.stated_values import DROWNS, drowns
from carpk.tails import TAILS

SAMPLING = "importance_sampling"


@dataclass(frozen=True)
class Objective:
    """-2 log-likelihood of a cohort.

    total : without N log 2 pi, NONMEM's OFV; add `constant` for -2 log-likelihood itself
    patients : index ID; ofv, each patient's part of the total; and of importance sampling se,
        its Monte Carlo SE, and pareto_k (above 0.7: the sampling cannot be trusted there)
    constant : N log 2 pi, N = measured rows: censored ones enter by a probability
    se : Monte Carlo SE of the total; 0 of an approximation
    """

    method: str
    total: float
    patients: pd.DataFrame
    constant: float
    se: float = 0.0


def objective(model: PopulationModel, cohort: Cohort, theta: Mapping[str, float],
              method: str = "focei", *, draws: int = 3000, seed: int = 1,
              etas: pd.DataFrame | None = None) -> Objective:
    """The objective function value of population values, and each patient's contribution.

    theta : every population parameter by name on the natural scale: CL_pop, omega_CL (SD on the
        link scale), corr_CL_V, beta_CL_WT, sigma_Cc_prop; one the model fixes may be left out
    method : fo, foce (residual SD at eta = 0), focei, laplace, or importance_sampling, which is
        exact but for the noise of its `draws` per patient, drawn by `seed`
    etas : index ID, a column per varying parameter: where to look for each patient's mode; the
        likeliest of two searches is taken without it

    A log-normal error gives the density of DV itself: a data set that holds ln DV under an
    additive error has a value lower by 2 sum(ln DV).
    Raises RequestError for values that are missing or impossible, DataError as `carpk.fit`.

    >>> from carpk import example, population
    >>> few = example("tisacel_like").select(["1", "2", "3"])
    >>> model = population("stein_2019", spread=["Cmax", "alpha"])
    >>> theta = {n: model.structure.parameter(n[:-4]).typical for n in model.free
    ...          if n.endswith("_pop")}
    >>> theta |= {"omega_Cmax": 1.0, "omega_alpha": 0.5, "sigma_C_log": 0.7}
    >>> result = objective(model, few, theta, "laplace")
    >>> bool(abs(result.patients["ofv"].sum() - result.total) < 1e-9)
    True
    """
    if method not in (*METHODS, SAMPLING):
        raise RequestError(Problem("error", "no such method",
                                   f"known: {', '.join((*METHODS, SAMPLING))}", found=method))
    seen = design(censored_as(cohort, model.censoring, model.structure), model.structure)
    resolved, _ = resolve(model, seen, cohort.units)
    at = _at(resolved, theta)
    _must_be_normal(at, seen, method)
    chosen = choose_steps(at, seen)
    inner = cast(Method, "laplace" if method == SAMPLING else method)
    u = np.asarray(jax.jit(lambda theta: from_theta(chosen, theta))(
        {n: float(theta[n]) for n in chosen.free}))
    while True:
        approximation = Approximation(chosen, data_of(chosen, seen), inner)
        start = None if etas is None else np.asarray(approximation.patients.typical(u)) + np.pad(
            etas.loc[list(seen.ids), list(chosen.spread)].to_numpy(float),
            ((0, 0), (0, len(chosen.kappas))))
        found, phi = evaluated(approximation, u, seen.ids, method, draws, seed, start)
        finer = chosen if at.steps else refined(chosen, seen.ids, solve_error(
            chosen, seen, {**at.fixed, **theta}, phi))
        if finer is chosen:
            return found
        chosen = finer


def evaluated(approximation: Approximation, u: np.ndarray, ids: tuple[str, ...], method: str,
              draws: int = 3000, seed: int = 1, start: Any = None) \
        -> tuple[Objective, np.ndarray]:
    """The objective of a model whose programs are compiled, u (Q,) on the real line; and phi
    (P, K) at the modes."""
    constant = float(approximation.constant.sum())
    if method != SAMPLING:
        found = approximation.likelihood(u, start)
        patients = pd.DataFrame({"ofv": found.patients}, index=_index(ids))
        return Objective(method, float(patients["ofv"].sum()), patients, constant), \
            found.modes.phi
    modes = approximation.patients.modes(u, start)
    exact, _ = approximation.patients.curvature(u, modes)
    sampled = importance_sampled(approximation.patients, u, modes.phi, exact.axes,
                                 draws, seed)
    patients = pd.DataFrame({
        "ofv": sampled.patients - approximation.constant, "se": sampled.se,
        "pareto_k": posterior.pareto_k(sampled.log_weights)}, index=_index(ids))
    return Objective(method, float(patients["ofv"].sum()), patients, constant,
                     float(np.sqrt((patients["se"]**2).sum()))), modes.phi


def _index(ids: tuple[str, ...]) -> pd.Index:
    return pd.Index(ids, dtype=object, name="ID")


def _at(model: PopulationModel, theta: Mapping[str, float]) -> PopulationModel:
    """The model with what `theta` says of fixed values; RequestError for what it lacks."""
    found = []
    for name in theta:
        if name not in model.names:
            near = difflib.get_close_matches(name, model.names, n=1)
            found.append(Problem("error", "no such population parameter",
                                 f"did you mean {near[0]}?" if near else
                                 f"known: {', '.join(model.names)}", column=name))
    found += [Problem("error", "no value is given", "every population parameter needs one",
                      column=n) for n in model.free if n not in theta]
    for name, value in theta.items():
        wrong = _impossible(model, name, float(value)) if name in model.names else ""
        if wrong:
            found.append(Problem("error", wrong, column=name, found=f"{value:g}"))
    if not found:
        found += _impossible_blocks(model, theta)
    if found:
        raise RequestError(found)
    fixed = {n: float(theta.get(n, v)) for n, v in model.fixed.items()}
    return dataclasses.replace(model, fixed=fixed)


def _impossible(model: PopulationModel, name: str, value: float) -> str:
    if not math.isfinite(value):
        return "must be finite"
    if drowns(model.structure, name, value):
        return "{}: {}".format(*DROWNS)
    if name in model.fixed:
        return ""
    real = float(model.priors[name].scale.to_real(jnp.asarray(value)))
    if value == 0.0 and name in model.sds:
        return "a spread that is estimated is above 0: " + DROWNS[1]
    return "" if math.isfinite(real) else "beyond its bounds: SDs and log-normal values are " \
        "above 0, correlations and logit values inside their intervals"


def _impossible_blocks(model: PopulationModel, theta: Mapping[str, float]) -> list[Problem]:
    found = []
    for block in model.blocks:
        names = correlations(block)
        matrix = np.eye(len(block))
        matrix[np.tril_indices(len(block), -1)] = [
            float(theta[n] if n in theta else model.fixed[n]) for n in names]
        if np.linalg.eigvalsh(matrix).min() <= 0:  # reads the lower triangle
            found.append(Problem("error", "these correlations cannot hold together",
                                 "no such matrix is positive definite", column=", ".join(names)))
    return found


def _must_be_normal(model: PopulationModel, seen: Design, method: str) -> None:
    """FO and FOCE know the variance of a row and nothing else; all of them take normal etas."""
    if model.etas != "normal":
        raise RequestError(Problem("error", "an objective is of normal etas", "drop it",
                                   column="etas", found=model.etas))
    if model.mixture:
        raise RequestError(Problem("error", "an objective is of patients of one class",
                                   'classes = "1"', column="classes",
                                   found=model.mixture.written))
    if model.levels:
        raise RequestError(Problem("error", "an objective has no level above the patients",
                                   "take it as a covariate", column="levels",
                                   found=level.column) for level in model.levels)
    if model.missing:
        raise RequestError(Problem(
            "error", "an objective is of covariates that no patient lacks", "fill them in",
            column=gap.column, found=f"missing in {len(gap.patients)} patients")
            for gap in model.missing)
    heavy = [o for o, e in model.error_models().items() if e.tails is not TAILS["normal"]]
    if method in ("fo", "foce", "focei") and heavy:
        raise RequestError(Problem("error", f"{method} takes normal residuals",
                                   "take laplace or importance_sampling", column=heavy[0],
                                   found=model.errors[heavy[0]]))
    refuse_binary(model, method, " or importance_sampling")
    if method in ("fo", "foce") and seen.censored.any():
        raise RequestError(Problem(
            "error", f"{method} has no place for the {int(seen.censored.sum())} censored rows",
            "take laplace, focei or importance_sampling", column="CENS"))
