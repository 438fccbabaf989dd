"""Occasions: a re-infusion or a second course, in which a patient's parameters may differ again.

Parameter P of patient i in occasion j is, on its link scale, the patient's own value plus
kappa_P_j, which lies around 0 as an eta does, with the SD gamma_P (Karlsson MO, Sheiner LB. J
Pharmacokinet Biopharm 1993;21:735-750). A patient's occasions are the different values of the
column OCC, numbered as they come; one begins at its first row and lasts until the first row of
another. (NONMEM advances to a record with the record's own parameters: there an occasion begins
after the last row of the one before.)
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from carpk.cohort import Design
from carpk.epochs import OCCASION, Epochs, epochs_between
from carpk.population_model import PopulationModel
from carpk.problems import Problem


def occasion_numbers(epochs: Epochs) -> np.ndarray:
    """(P, E): the number of each epoch's occasion, from 0; -1 where no row gives one."""
    numbers = np.full(epochs.start.shape, -1)
    values = epochs.first[OCCASION].to_numpy(object).reshape(numbers.shape)
    for own, row in zip(numbers, values, strict=True):
        own[:] = pd.factorize(row)[0]  # epochs stand in the order of time; what is missing is -1
    return numbers


def occasion_columns(model: PopulationModel, epochs: Epochs) -> np.ndarray:
    """(P, E, courses), or (P, E, 2, courses) where epochs slope: 1 in the epoch's occasion."""
    there = (occasion_numbers(epochs)[..., None] == np.arange(model.courses)).astype(float)
    return np.repeat(there[:, :, None], 2, axis=2) if epochs.sloping else there


def occasions_had(design: Design, courses: int) -> np.ndarray:
    """(P, courses): which occasions each patient has."""
    found = epochs_between(design.changing, design.ids, {OCCASION: "locf"})
    return (occasion_numbers(found)[..., None] == np.arange(courses)).any(axis=1)


def courses_of(model: PopulationModel, design: Design, source: str) -> tuple[int, list[Problem]]:
    """The most occasions that a patient of the design has, and what is wrong with them."""
    if not model.occasions:
        return 0, []
    if OCCASION not in design.changing:
        there = OCCASION in design.covariates
        return 0, [Problem(
            "error", "every patient has one occasion: there is nothing to tell between occasions "
            "from between patients" if there else "the file has no column that numbers occasions",
            "drop --occasions" if there else f"name it: --column {OCCASION}=YOURS", source,
            column=OCCASION)]
    had = occasions_had(design, len(design.changing))
    found = [Problem("error", "no row of the patient has one", "number the patient's occasions",
                     source, patient=i, column=OCCASION)
             for i, own in zip(design.ids, had, strict=True) if not own.any()]
    courses = int(had.sum(axis=1).max())
    if courses < 2:
        found.append(Problem("error", "every patient has one occasion", "drop --occasions", source,
                             column=OCCASION))
    switches = model.structure.switches
    if switches:
        found.append(Problem(
            "warning", f"rates of {model.structure.name} change at {', '.join(switches)}, counted "
            "from time 0 in every occasion", "a model whose rates do not read the time knows no "
            "such doubt", source, column=OCCASION))
    return courses, found
