"""Occasions in the tables of a fit: the spread between them, and each patient's values."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from carpk.fitting import Fit
from carpk.occasions import occasions_had
from carpk.structure import Parameter
from carpk.tails import TAILS


def between_occasions(fit: Fit, name: str, gamma: float) -> dict[str, float]:
    """CV % and shrinkage of a row gamma_X, over the occasions that there were, by the SD of the
    kappas, of which the gamma of Student's t is but the scale."""
    gamma = gamma * math.sqrt(TAILS[fit.model.etas].variance)
    parameter = fit.model.structure.parameter(name.removeprefix("gamma_"))
    kappa = fit.posterior["posterior"].dataset[f"kappa_{parameter.name}"].values.mean(axis=(0, 1))
    own = kappa[occasions_had(fit.design, fit.model.courses)]
    return {"cv_percent": cv_percent(parameter, gamma), "shrinkage": 1 - own.std(ddof=1) / gamma}


def cv_percent(parameter: Parameter, sd: float) -> float:
    """Of a log-normal parameter; NaN of others."""
    return 100 * math.sqrt(math.expm1(sd**2)) if parameter.link == "log" and sd < 20 else math.nan


def in_occasions(fit: Fit) -> dict[str, np.ndarray]:
    """(draw, patient) of each parameter in each of the patient's occasions, X_1 on the natural
    scale, and of its kappas, kappa_X_1; NaN where there was none."""
    model, draws = fit.model, fit.posterior["posterior"].dataset
    had = occasions_had(fit.design, model.courses) if model.occasions else np.zeros((0, 0))
    found: dict[str, np.ndarray] = {}
    for name in model.occasions:
        kappa, scale = draws[f"kappa_{name}"].values, model.scale(name)
        own = draws[name].values if name in draws else np.asarray(
            draws[f"{name}_pop"].values if f"{name}_pop" in draws else
            model.fixed[f"{name}_pop"])[..., None]
        at = np.asarray(scale.from_real(scale.to_real(jnp.asarray(own))[..., None] + kappa))
        for j in range(model.courses):
            for label, values in ((f"{name}_{j + 1}", at), (f"kappa_{name}_{j + 1}", kappa)):
                found[label] = np.where(had[:, j], values[..., j].reshape(-1, len(had)), np.nan)
    return found
