"""IL13Ra2 CAR T cells against lesions of one glioblastoma: growth, killing, exhaustion.

The equations of sahoo_2020_carrgo in cells: cancer cells X of a lesion grow logistically and
are killed in proportion to its CAR T cells Y, which multiply (k2 above 0) or exhaust (k2 below
0) in proportion to X and die at theta. An infusion adds to Y what reaches the lesion, 5 to 10 %
of the cells given: a dose into Y, or Y0 at time 0. X is the lesion's volume on MRI divided by
that of a sphere of 20 um (4188.79 um3). Time in days.
"""

import jax.numpy as jnp

from carpk.structure import (
    Derived,
    Input,
    Output,
    Parameter,
    Source,
    State,
    StructuralModel,
    assumed,
)
from carpk.taxonomy import Taxonomy

TEXT = "text of section 4.5, T7"
SLOW = "a loss over centuries is no loss"
PARAMETERS = (
    Parameter("rho", 0.06, "1/day", "growth of cancer cells", TEXT, assumed(0.5)),
    Parameter("K", 2e9, "cells", "carrying capacity", "assumed; the text has the order 1e9",
              assumed(0.5)),
    Parameter("k1", 6e-9, "1/(cell day)", "killing", TEXT, assumed(1.0)),
    Parameter("k2", 30.0, "1/(1e12 cells day)", "proliferation, or exhaustion below 0", TEXT,
              assumed(20.0), link="identity"),  # of order 1: the default prior is at least 1 wide
    Parameter("theta", 1e-6, "1/day", "death of CAR T cells", TEXT, fixed=SLOW),
)


def rates(t, y, p):
    return {
        "X": p.rho * y.X * (1.0 - y.X / p.K) - p.k1 * y.X * y.Y,
        "Y": 1e-12 * p.k2 * y.X * y.Y - p.theta * y.Y,
    }


def initial(p):
    return {"X": p.X0, "Y": p.Y0}


def observe(t, y, p):
    return {"X": y.X, "Y": y.Y}


def derive(p):
    return {"doubling_time_X": jnp.log(2.0) / p.rho, "Y_control": p.rho / p.k1}


MODEL = StructuralModel(
    title="CARRGO: CAR T cells and glioblastoma, one patient's lesions",
    source=Source("Sahoo P et al. J R Soc Interface 2020;17:20190734", "10.1098/rsif.2019.0734"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("X0", "cells", "cancer cells of the lesion at time 0", equals="X"),
        Input("Y0", "cells", "CAR T cells that reached the lesion at time 0", default=0.0),
    ),
    states=(
        State("X", "cells", "cancer cells", "log"),
        State("Y", "cells", "CAR T cells in the lesion"),
    ),
    outputs=(
        Output("X", "cells", "cancer cells, from the volume on MRI", dvid=1),
        Output("Y", "cells", "CAR T cells in the lesion", dvid=2),
    ),
    derived=(
        Derived("doubling_time_X", "day", "ln 2 / rho: far below K"),
        Derived("Y_control", "cells", "rho / k1: more Y than this shrink a small X"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    parameter_sets={
        "T6": {"rho": 0.07, "K": 2e9, "k1": 6e-9, "k2": 30.0, "theta": 1e-6, "X0": 3e8,
               "Y0": 1e6},
        "T7": {"rho": 0.06, "K": 2e9, "k1": 6e-9, "k2": 30.0, "theta": 1e-6, "X0": 3e8,
               "Y0": 1e6},
        "T9": {"rho": 0.2, "K": 7e10, "k1": 9e-8, "k2": -0.2, "theta": 5e-5, "X0": 5e9,
               "Y0": 1e6},
    },
    taxonomy=Taxonomy(
        "pkpd", "mechanistic", ("car_t", "tumour"),
        layers=("multi_population", "antigen_driven_expansion"), habitats=("brain",),
        laws={"growth": "logistic", "killing": "mass_action", "expansion": "mass_action"},
        parameters_from="fitted", fit_level="individual", setting=("clinical",),
        measured=("imaging_volume",), antigen="IL13Ra2", disease="glioblastoma",
        in_review=True),
    doubts=(
        "K, X0 and Y0 of every set are assumed: the text gives an order of magnitude, and the "
        "supplement was not found. Which of T6 and T7 has rho 0.06 differs between text and "
        "figure; the caption calls the killing of T9 weaker, its k1 is the largest.",
        "One patient: every spread is assumed. CAR T cells were not counted in the lesions.",
    ),
)
