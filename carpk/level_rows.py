"""What the parameter table says of the levels above the patients: SDs, units, typical values."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from carpk.fitting import Fit
from carpk.population_model import PopulationModel


def typical(fit: Fit) -> dict[str, np.ndarray]:
    """(chain, draw) of each parameter's typical value in each unit, as Cmax_pop_STUDY_A."""
    model, draws = fit.model, fit.posterior["posterior"].dataset
    shape = (draws.sizes["chain"], draws.sizes["draw"])

    def drawn(name: str) -> np.ndarray:
        return draws[name].values if name in model.free else np.full(shape, model.fixed[name])

    found = {}
    for level in model.levels:
        for name in level.parameters:
            link = model.scale(name)
            middle = link.to_real(jnp.asarray(drawn(f"{name}_pop")))
            for unit, b in zip(level.units, level.deviations(name), strict=True):
                found[f"{name}_pop_{level.column}_{unit}"] = np.asarray(
                    link.from_real(middle + drawn(level.tau(name)) * drawn(b)))
    return found


def deviations(model: PopulationModel) -> set[str]:
    """The names of the units' b: random effects of the model, whose N(0, 1) is no belief."""
    return {b for level in model.levels for p in level.parameters for b in level.deviations(p)}


def described(fit: Fit, name: str) -> dict[str, str] | None:
    """Kind, unit and meaning of a row that is of a level; None of others."""
    for level in fit.model.levels:
        for of in level.parameters:
            p = fit.model.structure.parameter(of)
            scale = {"log": f"ln {of}", "logit": f"logit {of}", "identity": of}[p.link]
            if name == level.tau(of):
                return {"kind": "level", "unit": p.unit if p.link == "identity" else "-",
                        "meaning": f"SD between {level.column} of {scale}"}
            for unit, b in zip(level.units, level.deviations(of), strict=True):
                if name == b:
                    return {"kind": "level", "unit": "-",
                            "meaning": f"{scale} of {level.column} {unit} above that of all, in "
                                       + level.tau(of)}
                if name == f"{of}_pop_{level.column}_{unit}":
                    return {"kind": "level", "unit": p.unit,
                            "meaning": f"{p.meaning}, {level.column} {unit}"}
    return None
