"""Spline: a natural cubic in x, straight beyond its outer knots, 0 at the reference.

The basis is the truncated-power form of Hastie, Tibshirani & Friedman, The Elements of
Statistical Learning, 2nd ed., equation 5.4, in units of the knots' range. Knots stand at the
5th, 35th, 65th and 95th percentile of the patients (Harrell's choice for four).
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from carpk.covariate_models import CovariateEffect, CovariateModel, median_reference


def found(x: np.ndarray, effect: CovariateEffect) -> CovariateEffect:
    """Four knots at the patients' percentiles, the median as reference."""
    knots = effect.points or tuple(
        float(q) for q in np.unique(np.quantile(x, [0.05, 0.35, 0.65, 0.95])))
    return dataclasses.replace(median_reference(x, effect), points=knots)


def basis(x: Any, knots: np.ndarray) -> Any:
    """(P, knots - 1): the line, then a cubic for each knot but the last two."""
    k = (knots - knots[0]) / (knots[-1] - knots[0])
    s = (x - knots[0]) / (knots[-1] - knots[0])

    def cubed(at: float) -> Any:
        return jnp.maximum(s - at, 0.0) ** 3

    def bend(j: int) -> Any:
        return (cubed(k[j]) - cubed(k[-1])) / (k[-1] - k[j])

    return jnp.stack([s, *(bend(j) - bend(len(k) - 2) for j in range(len(k) - 2))], axis=1)


def columns(x: Any, effect: CovariateEffect) -> Any:
    """(P, knots - 1), 0 at the reference."""
    knots = np.array(effect.points, dtype=float)
    return basis(x, knots) - basis(np.array([effect.reference], dtype=float), knots)


COVARIATE_MODEL = CovariateModel(
    title="natural cubic spline", says="P = P_pop exp(spline(x) - spline(reference))",
    found=found, columns=columns,
    suffixes=lambda effect: tuple(f"_{k + 1}" for k in range(len(effect.points) - 1)))
