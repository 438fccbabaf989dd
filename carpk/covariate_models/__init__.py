"""How a covariate moves a parameter: CovariateModel, and CovariateEffect, one use of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd


@dataclass(frozen=True)
class CovariateEffect:
    """One covariate on one parameter.

    parameter, column, form : as in {"Cmax ~ DOSE": "power"}
    reference : the value (or the level of a category) at which the parameter is its typical one
    points : the other levels of a category, the knots of a spline, the break of a hockey stick
    """

    parameter: str
    column: str
    form: str
    reference: float | str | None = None
    points: tuple[float | str, ...] = ()

    @property
    def key(self) -> str:
        """How it is written: `Cmax ~ DOSE`."""
        return f"{self.parameter} ~ {self.column}"

    @property
    def written(self) -> str:
        """The form as it is asked for: `power(3.1)`."""
        given = [*([] if self.reference is None else [self.reference]), *self.points]
        return f"{self.form}({', '.join(map(str, given))})" if given else self.form

    @property
    def stem(self) -> str:
        """What its coefficients' names begin with."""
        return f"beta_{self.parameter}_{self.column}"


def median_reference(x: np.ndarray, effect: CovariateEffect) -> CovariateEffect:
    """The effect with the patients' median as its reference, where none was given."""
    return effect if effect.reference is not None else dataclasses.replace(
        effect, reference=float(np.median(x)))


@dataclass(frozen=True)
class CovariateModel:
    """What a form does to a parameter, on the parameter's link scale, so that effects add up.

    says : the equation, for a log-normal parameter P
    columns : (x (P,), effect) -> (P, C), what the C coefficients multiply; of a numeric form x may
        be traced
    suffixes : effect -> C endings of the coefficients' names after `beta_Cmax_DOSE`
    found : (x, effect) -> the effect with its reference and points, from the patients where they
        were not given
    needs : effect -> the columns of the file; read : (their table, effect) -> x (P,)
    numeric, positive : what x must be
    proportional : the parameter is multiplied by 1 + the sum, instead of by its exponential
    """

    title: str
    says: str
    columns: Callable[[Any, CovariateEffect], Any]
    suffixes: Callable[[CovariateEffect], tuple[str, ...]] = lambda effect: ("",)
    found: Callable[[np.ndarray, CovariateEffect], CovariateEffect] = median_reference
    needs: Callable[[CovariateEffect], tuple[str, ...]] = lambda effect: (effect.column,)
    read: Callable[[pd.DataFrame, CovariateEffect], np.ndarray] = \
        lambda table, effect: table[effect.column].to_numpy()
    numeric: bool = True
    positive: bool = False
    proportional: bool = False

    def names(self, effect: CovariateEffect) -> tuple[str, ...]:
        """Of the coefficients of an effect that has its points."""
        return tuple(f"{effect.stem}{s}" for s in self.suffixes(effect))

    def shift(self, columns: Any, beta: Sequence[Any]) -> Any:
        """(P,), what is added on the link scale; (P, E) of one that changes in a patient.

        columns : (P, C), or (P, E, C); beta : C coefficients
        """
        total = sum(columns[..., k] * b for k, b in enumerate(beta))
        # a factor at or below 0 is no parameter: far beyond any patient it stays a small one
        return jnp.log(jnp.maximum(1.0 + total, 1e-6)) if self.proportional else total
