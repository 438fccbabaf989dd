"""CAR T cells against CD19+ B-ALL: activation, expansion, killing, relapse.

CD19+ leukaemic cells B grow logistically up to nMB and are killed by activated CAR T cells T
at most eBp per T and day (half of it at KBp). Infused cells that can engraft, N, become T in
the presence of B (at most ka, half at KBpTN); T proliferate on B (at most rTA0, half at KBpr)
and are lost at lTA0, N at lTN. The infusion enters only as N(0) = nTN0; T(0) = 0, and B(0) is
the patient's own count NB0. B never reaches 0: remission is a depth and a time, and relapse a
regrowth. Cells per uL (likely, see doubts), time in days after the infusion.
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

SCRIPT = "authors' simulation script, set 1"
UNSEEN = "N is never measured, so it trades against nTN0"
LOW = "far below it only its ratio to the maximal rate acts"
LATE = "counts of B near the limit of detection say little about regrowth"
FAST = "estimated, it lets patients with few samples of the rise divide ten times a day"
TWOFOLD = "estimated, slow loss and late regrowth explain patients with few samples equally well"
PARAMETERS = (
    Parameter("nTN0", 16.46, "cells/uL", "infused cells that can engraft, N(0)", SCRIPT,
              assumed(2.0)),
    Parameter("ka", 0.65, "1/day", "maximal activation", SCRIPT, fixed=UNSEEN),
    Parameter("KBpTN", 1808.02, "cells/uL", "CD19+ cells at half of ka", SCRIPT, fixed=UNSEEN),
    Parameter("lTN", 3e-5, "1/day", "loss of not yet activated cells", SCRIPT, fixed=UNSEEN),
    Parameter("rTA0", 1.62, "1/day", "maximal proliferation of activated cells", SCRIPT,
              assumed(0.3, fixed=FAST)),
    Parameter("KBpr", 637.64, "cells/uL", "CD19+ cells at half of rTA0", SCRIPT, fixed=LOW),
    Parameter("lTA0", 0.12, "1/day", "loss of activated cells", SCRIPT,
              assumed(0.3, fixed=TWOFOLD)),
    Parameter("eBp", 22.72, "1/day", "maximal killing per activated cell", SCRIPT, assumed(1.5)),
    Parameter("KBp", 5891.45, "cells/uL", "CD19+ cells at half of eBp", SCRIPT, fixed=LOW),
    Parameter("rBp", 0.069, "1/day", "growth of CD19+ cells", SCRIPT, fixed=LATE),
    Parameter("nMB", 2939.1, "cells/uL", "carrying capacity", SCRIPT, fixed=LATE),
)


def rates(t, y, p):
    activated = p.ka * y.B / (y.B + p.KBpTN) * y.N
    return {
        "B": p.rBp * y.B * (1.0 - y.B / p.nMB) - p.eBp * y.B / (y.B + p.KBp) * y.T,
        "T": p.rTA0 * y.B / (y.B + p.KBpr) * y.T + activated - p.lTA0 * y.T,
        "N": -activated - p.lTN * y.N,
    }


def initial(p):
    return {"B": p.NB0, "T": 0.0, "N": p.nTN0}


def observe(t, y, p):
    return {"T": y.T, "B": y.B}


def derive(p):
    return {
        "functional_index": p.rTA0 * p.eBp * p.ka / p.lTA0,
        "half_life_T": jnp.log(2.0) / p.lTA0,
        "doubling_time_T": jnp.log(2.0) / p.rTA0,
        "doubling_time_B": jnp.log(2.0) / p.rBp,
        "T_control": p.rBp * p.KBp / p.eBp,
    }


MODEL = StructuralModel(
    title="CAR T cells and CD19+ B-ALL: remission, resistance, CD19+ relapse",
    source=Source("Liu L et al. J Immunother Cancer 2022;10:e005360", "10.1136/jitc-2022-005360"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(Input("NB0", "cells/uL", "CD19+ cells at the infusion", equals="B"),),
    states=(
        State("B", "cells/uL", "CD19+ leukaemic cells", "log"),
        State("T", "cells/uL", "activated CAR T cells"),
        State("N", "cells/uL", "CAR T cells not yet activated", "log"),
    ),
    outputs=(
        Output("T", "cells/uL", "CAR T cells in blood", dvid=1),
        Output("B", "cells/uL", "CD19+ leukaemic cells", dvid=2),
    ),
    derived=(
        Derived("functional_index", "1/day^2", "rTA0 eBp ka / lTA0, the authors' FT"),
        Derived("half_life_T", "day", "ln 2 / lTA0"),
        Derived("doubling_time_T", "day", "ln 2 / rTA0: the shortest, loss left out"),
        Derived("doubling_time_B", "day", "ln 2 / rBp: far below nMB"),
        Derived("T_control", "cells/uL", "rBp KBp / eBp: more T than this shrink a small B"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    parameter_sets={
        "set 1": {
            "NB0": 2200.24, "nTN0": 16.46, "ka": 0.65, "KBpTN": 1808.02, "lTN": 3e-5,
            "rTA0": 1.62, "KBpr": 637.64, "lTA0": 0.12, "eBp": 22.72, "KBp": 5891.45,
            "rBp": 0.069, "nMB": 2939.1,
        },
        "set 3": {
            "NB0": 1874.144179, "nTN0": 7.892191922, "ka": 0.395195924, "KBpTN": 2118.538966,
            "lTN": 3.03e-5, "rTA0": 1.686986892, "KBpr": 813.2196461, "lTA0": 0.109101224,
            "eBp": 26.14056824, "KBp": 7932.097398, "rBp": 0.070779259, "nMB": 2808.586835,
        },
    },
    taxonomy=Taxonomy(
        "pkpd", "mechanistic", ("car_t", "tumour"), ("activated", "non_activated"),
        ("multi_population", "car_phenotypes", "antigen_driven_expansion"),
        laws={"growth": "logistic", "killing": "holling_2", "expansion": "michaelis_menten"},
        parameters_from="fitted", fit_level="nlme", setting=("clinical",),
        measured=("blood_qpcr", "blood_flow", "marrow"), product="several", antigen="CD19",
        disease="B-ALL", in_review=True),
    doubts=(
        "The authors' code states no unit; the magnitudes and its formula for the burden in "
        "percent fit cells per uL.",
        "The typical values are one set for drawing a curve, not population means; the authors' "
        "population estimates, spreads and residual errors were not found, so every spread here "
        "is assumed; those of rTA0 and lTA0, which 21 real patients do not determine, are held.",
        "A patient whose B(0) lies above nMB loses CD19+ cells without any CAR T cell.",
    ),
)
