"""What is done with levels below the limit of quantification: Beal's methods M1 to M7.

Beal SL, J Pharmacokinet Pharmacodyn 2001;28:481-504. M3 and M4 use their probability; M1, M6 and
M7 are what is often done instead, here to see what it costs.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from carpk.cohort import EXCLUDED_COLUMNS, Cohort
from carpk.problems import Problem, RequestError
from carpk.structure import StructuralModel

METHODS = {
    "M1": "left out",
    "M3": "by the probability of lying below the limit",
    "M4": "by the probability of lying between 0 and the limit, every level being above 0",
    "M6": "one of each run set to half the limit, the others left out",
    "M7": "one of each run set to 0, the others left out"}


def censored_as(cohort: Cohort, method: str, structure: StructuralModel) -> Cohort:
    """The cohort with its levels below a limit as the method has them.

    Of a run of such levels M6 and M7 keep the first or, before the patient's peak, the last.
    What is left out is in `excluded`. RequestError where the method does not suit the model.

    >>> from carpk import examples, registry
    >>> whole, model = examples.example("tisacel_like"), registry.find_model("stein_2019")
    >>> len(censored_as(whole, "M1", model).observations), len(whole.observations)
    (769, 1036)
    """
    if method not in METHODS:
        raise RequestError(Problem("error", "no such censoring method",
                                   f"known: {', '.join(METHODS)}", column="censoring",
                                   found=method))
    rows = cohort.observations
    below = (rows["CENS"] == 1).to_numpy()
    if method == "M3" or not below.any():
        return cohort
    positive = rows["DVID"].isin([o.dvid for o in structure.outputs if o.positive]).to_numpy()
    if method == "M4":
        lower = rows["LOWER"].where(~below | positive, np.maximum(rows["LOWER"], 0.0))
        return dataclasses.replace(cohort, observations=rows.assign(LOWER=lower))
    if method == "M7" and (below & positive).any():
        raise RequestError(Problem("error", "M7 sets levels to 0, which has no logarithm",
                                   "take M6, or an additive or proportional error",
                                   column="censoring", found=method))
    kept = np.zeros(len(rows), dtype=bool) if method == "M1" else _one_of_each_run(rows, below)
    value = np.where(method == "M6", rows["UPPER"] / 2, 0.0)
    changed = rows.assign(**{c: np.where(kept, value, rows[c]) for c in ("DV", "LOWER", "UPPER")},
                          CENS=np.where(kept, 0, rows["CENS"]))
    lost = rows[below & ~kept].assign(reason=f"{method}: below the limit")
    return dataclasses.replace(
        cohort, observations=changed[~below | kept].reset_index(drop=True),
        excluded=pd.concat([t for t in (cohort.excluded, lost[list(EXCLUDED_COLUMNS)]) if len(t)],
                           ignore_index=True))


def _one_of_each_run(rows: pd.DataFrame, below: np.ndarray) -> np.ndarray:
    """Of every run of levels below the limit the first or, before the peak, the last."""
    kept = np.zeros(len(rows), dtype=bool)
    for _, places in rows.groupby(["ID", "DVID"], sort=False).indices.items():
        hidden = below[places]
        seen = np.where(hidden, -np.inf, rows["DV"].to_numpy()[places])
        peak = int(seen.argmax()) if not hidden.all() else -1
        begins = hidden & ~np.concatenate([[False], hidden[:-1]])
        ends = hidden & ~np.concatenate([hidden[1:], [False]])
        early = np.arange(len(places)) < peak
        kept[places] = np.where(early, ends, begins)
    return kept
