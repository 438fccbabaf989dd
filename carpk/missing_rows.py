"""What the tables say of covariates that some patients lack: their distribution, their values."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from carpk.fitting import Fit
from carpk.likelihood import data_of, level_log_densities
from carpk.missing import Missing
from carpk.population_model import PopulationModel
from carpk.posterior import fixed, phi_of
from carpk.prediction import quantiles, some_draws

_DRAWS = 1000  # per patient; the interval of a weight needs no more


def deviations(model: PopulationModel) -> set[str]:
    """The names of the patients' z, whose N(0, 1) is no belief."""
    return {n for gap in model.missing for n in gap.deviations}


def described(model: PopulationModel, name: str) -> dict[str, str] | None:
    """Kind, unit and meaning of a row that is of a missing covariate; None of others."""
    for gap in model.missing:
        if name in gap.names:
            return {"kind": "missing", "unit": "-", "meaning": _in_words(gap, name)
                    + f"; missing in {len(gap.patients)} patients"}
    return None


def _in_words(gap: Missing, name: str) -> str:
    column = gap.column
    scale = f"ln {column}" if gap.kind == "log" else column
    if name == f"mean_{column}":
        return f"{'geometric ' if gap.kind == 'log' else ''}mean of {column} among the patients"
    if name == f"sd_{column}":
        return f"SD of {scale}" + " given the other covariates" * bool(gap.given)
    if name in gap.deviations:
        return f"{scale} of patient {name.removeprefix(f'z_{column}_')} above what is expected"
    level = next((k for k in gap.levels[1:] if name == f"logit_{column}_{k}"
                  or name.startswith(f"slope_{column}_{k}_")), "")
    what = f"log odds of {column} {level} against {gap.levels[0]}" if level else scale
    if name.startswith("logit_"):
        return what
    of = next(g for g in gap.given if name.endswith(f"_{g.name}"))
    return f"slope of {what} per " + (
        f"{of.column} {of.level}" if of.level else f"SD of {'ln ' * of.logged}{of.column}")


def values(fit: Fit) -> dict[str, np.ndarray]:
    """(P,) of each column of the individual table; NaN of patients who lack nothing."""
    model, draws = fit.model, fit.posterior["posterior"].dataset
    if not model.missing:
        return {}
    some, data = some_draws(fit, _DRAWS), data_of(model, fit.design)
    theta = {n: jnp.asarray(draws[n].values.reshape(-1)[some]) for n in model.free}
    own = phi_of(model, draws)
    phi = jnp.asarray(own.reshape(-1, *own.shape[2:])[some])

    @jax.jit
    def every(theta: Any, phi: jax.Array, data: Any) -> Any:
        def one(draw: Any) -> Any:
            whole, columns = {**fixed(model), **draw[0]}, data["effects"]
            found: dict[str, Any] = {g.key: g.values(columns[g.key], whole)
                                     for g in model.missing if not g.levels}
            if model.hidden:
                found["levels"] = jax.nn.softmax(level_log_densities(
                    model, data, whole, draw[1]), axis=1)
            return found
        return jax.lax.map(one, (theta, phi))

    drawn = {n: np.asarray(v) for n, v in every(theta, phi, data).items()}
    combinations = list(itertools.product(*(gap.levels for gap in model.hidden)))
    table: dict[str, np.ndarray] = {}
    for gap in model.missing:
        lacking = gap.lacking(fit.design.covariates)
        if gap.levels:
            g = model.hidden.index(gap)
            for level in gap.levels:
                here = [k for k, c in enumerate(combinations) if c[g] == level]
                share = drawn["levels"][..., here].sum(axis=2).mean(axis=0)
                table[f"{gap.column}_{level}_probability"] = np.where(lacking, share, np.nan)
            continue
        ends = quantiles(drawn[gap.key], (0.025, 0.5, 0.975))
        for end, own in zip(("lower95", "median", "upper95"), ends, strict=True):
            table[f"{gap.column}_{end}"] = np.where(lacking, own, np.nan)
    return table
