"""Cohorts and models made in memory, shared by the tests of the statistics."""

import numpy as np
import pandas as pd

from carpk.cohort import DOSE_COLUMNS, EXCLUDED_COLUMNS, OBSERVATION_COLUMNS, Cohort
from carpk.structure import Output, Parameter, Source, State, StructuralModel, sd


def cohort(rows, **inputs):
    """From (patient, time, dv[, lower, upper, dvid]) rows and one value per patient of inputs."""
    table = []
    for k, (patient, time, dv, *rest) in enumerate(rows):
        lower, upper, dvid = (*rest, *(dv, dv, 1)[len(rest):])
        table.append((k + 2, patient, float(time), dvid, dv, lower, upper, int(lower < upper)))
    ids = tuple(dict.fromkeys(r[0] for r in rows))
    return Cohort(ids, pd.DataFrame(table, columns=list(OBSERVATION_COLUMNS)),
                  pd.DataFrame(columns=list(DOSE_COLUMNS)), pd.DataFrame(inputs, index=list(ids)),
                  pd.DataFrame(columns=list(EXCLUDED_COLUMNS)), "made here", "")


DECAY = StructuralModel(
    title="mono-exponential decline", source=Source("textbook"), time_unit="day",
    parameters=(Parameter("C0", 100.0, "mg/L", "start", omega=sd(0.5)),
                Parameter("k", 0.2, "1/day", "rate", omega=sd(0.3))),
    outputs=(Output("C", "mg/L", "level"),),
    solution=lambda t, p: {"C": p.C0 * 2.718281828459045 ** (-p.k * t)}, file=__file__)


def decaying(patients=8, limit=20.0, seed=1):
    """A cohort of DECAY with log-normal spread and error, left-censored below the limit; its
    covariates WT and SEX change nothing."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(patients):
        start, k = 100 * np.exp(0.5 * rng.normal()), 0.2 * np.exp(0.3 * rng.normal())
        for t in (0.5, 2, 5, 9, 14.0):
            dv = start * np.exp(-k * t + 0.2 * rng.normal())
            rows.append((str(i + 1), t, dv) if dv >= limit
                        else (str(i + 1), t, limit, -np.inf, limit))
    return cohort(rows, WT=np.round(rng.uniform(50, 90, patients), 1),
                  SEX=np.where(np.arange(patients) % 3 == 0, "M", "F"))


# one level per patient, measured with an additive error: everything about it is normal
LEVEL = StructuralModel(
    title="a level", source=Source("textbook"), time_unit="day",
    parameters=(Parameter("m", 0.0, "mg/L", "level", omega=sd(0.5), link="identity"),),
    outputs=(Output("y", "mg/L", "level", error="additive"),),
    solution=lambda t, p: {"y": p.m + 0.0 * t}, file=__file__)

COVARIATES = {"C0 ~ WT": "power(70)", "k ~ SEX": "category(F)", "k ~ WT": "linear(70)"}

# A decays, B follows it within a minute: an explicit method needs steps of seconds for months
FOLLOWING = StructuralModel(
    title="a fast follower", source=Source("textbook"), time_unit="day",
    parameters=(Parameter("A0", 100.0, "mg/L", "start", omega=sd(0.5)),
                Parameter("k", 0.05, "1/day", "decay", omega=sd(0.3)),
                Parameter("fast", 5000.0, "1/day", "relaxation", fixed="never seen")),
    states=(State("A", "mg/L", "leader"), State("B", "mg/L", "follower")),
    outputs=(Output("B", "mg/L", "follower"),),
    rates=lambda t, y, p: {"A": -p.k * y.A, "B": p.fast * (y.A - y.B)},
    initial=lambda p: {"A": p.A0, "B": 0.0}, observe=lambda t, y, p: {"B": y.B}, file=__file__)
