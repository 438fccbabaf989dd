"""Category: P = P_pop exp(beta of the level); the reference level has none."""

import dataclasses

import numpy as np
import pandas as pd

from carpk.covariate_models import CovariateEffect, CovariateModel


def level(value: object) -> str:
    """A level as it is written.

    >>> level(1.0), level("NR")  # a column of numbers holds 1.0
    ('1', 'NR')
    """
    return f"{value:g}" if isinstance(value, float) else str(value)


def found(x: np.ndarray, effect: CovariateEffect) -> CovariateEffect:
    """The most frequent level as the reference, the others as points."""
    counts = pd.Series([level(v) for v in x]).value_counts()
    most = sorted(n for n in counts.index if counts[n] == counts.max())[0]
    reference = most if effect.reference is None else level(effect.reference)
    return dataclasses.replace(effect, reference=reference, points=effect.points or tuple(
        sorted(n for n in counts.index if n != reference)))


def columns(x: np.ndarray, effect: CovariateEffect) -> np.ndarray:
    """(P, levels but the reference), 1 where the patient is of the level."""
    written = np.array([level(v) for v in x], dtype=object)
    return np.stack([(written == p).astype(float) for p in effect.points], axis=1) \
        if effect.points else np.zeros((len(x), 0))


COVARIATE_MODEL = CovariateModel(
    title="category", says="P = P_pop exp(beta of the level)", numeric=False, found=found,
    columns=columns, suffixes=lambda effect: tuple(f"_{p}" for p in effect.points))
