"""CAR T cells against B-ALL with a CD19- clone: killing, escape and CD19- relapse.

As liu_l_2022, with CD19- leukaemic cells M: they grow logistically at rBn up to the same nMB,
independently of B, arise from B at km (0 in the authors' file; not taken from B), and are
killed as bystanders by activated CAR T cells T, kb times more slowly than B (half at KBn).
M(0) = nBn0 is fixed, 1 % of marrow. Cells per uL (likely, see doubts), days after the infusion.
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

SCRIPT = "authors' simulation script, set 2"
UNSEEN = "N is never measured, so it trades against nTN0"
LOW = "far below it only its ratio to the maximal rate acts"
GONE = "B does not come back in CD19- relapse, so its regrowth is not seen"
START = "the authors held it"
PARAMETERS = (
    Parameter("nTN0", 0.3, "cells/uL", "infused cells that can engraft, N(0)", SCRIPT,
              assumed(2.0)),
    Parameter("ka", 0.19, "1/day", "maximal activation", SCRIPT, fixed=UNSEEN),
    Parameter("KBpTN", 93066.8, "cells/uL", "CD19+ cells at half of ka", SCRIPT, fixed=UNSEEN),
    Parameter("lTN", 0.073, "1/day", "loss of not yet activated cells", SCRIPT, fixed=UNSEEN),
    Parameter("rTA0", 1.7, "1/day", "maximal proliferation of activated cells", SCRIPT,
              assumed(0.5)),
    Parameter("KBpr", 827.08, "cells/uL", "CD19+ cells at half of rTA0", SCRIPT, fixed=LOW),
    Parameter("lTA0", 0.04, "1/day", "loss of activated cells", SCRIPT, assumed(0.5)),
    Parameter("eBp", 8.6, "1/day", "maximal killing per activated cell", SCRIPT, assumed(1.5)),
    Parameter("KBp", 794.99, "cells/uL", "CD19+ cells at half of eBp", SCRIPT, fixed=LOW),
    Parameter("rBp", 0.086, "1/day", "growth of CD19+ cells", SCRIPT, fixed=GONE),
    Parameter("nMB", 19988.53, "cells/uL", "carrying capacity of either clone", SCRIPT,
              fixed=GONE),
    Parameter("nBn0", 19.88984724, "cells/uL", "CD19- cells at the infusion, M(0)",
              "authors' model file", fixed=START),
    Parameter("rBn", 0.1, "1/day", "growth of CD19- cells", SCRIPT, assumed(0.5)),
    Parameter("km", 0.0, "1/day", "conversion of CD19+ into CD19- cells", SCRIPT,
              fixed="the authors' examples have none"),
    Parameter("kb", 7.9, "-", "killing of CD19+ over bystander killing", SCRIPT),
    Parameter("KBn", 5956.03, "cells/uL", "CD19- cells at half of eBp / kb", SCRIPT, fixed=LOW),
)


def rates(t, y, p):
    activated = p.ka * y.B / (y.B + p.KBpTN) * y.N
    bystander = p.eBp / p.kb * y.M / (y.M + p.KBn) * y.T
    return {
        "B": p.rBp * y.B * (1.0 - y.B / p.nMB) - p.eBp * y.B / (y.B + p.KBp) * y.T,
        "T": p.rTA0 * y.B / (y.B + p.KBpr) * y.T + activated - p.lTA0 * y.T,
        "N": -activated - p.lTN * y.N,
        "M": p.rBn * y.M * (1.0 - y.M / p.nMB) + p.km * y.B - bystander,
    }


def initial(p):
    return {"B": p.NB0, "T": 0.0, "N": p.nTN0, "M": p.nBn0}


def observe(t, y, p):
    return {"T": y.T, "B": y.B, "M": y.M}


def derive(p):
    return {
        "functional_index": p.rTA0 * p.eBp * p.ka / p.lTA0,
        "half_life_T": jnp.log(2.0) / p.lTA0,
        "doubling_time_T": jnp.log(2.0) / p.rTA0,
        "doubling_time_M": jnp.log(2.0) / p.rBn,
        "T_control": p.rBp * p.KBp / p.eBp,
        "T_control_M": p.rBn * p.KBn * p.kb / p.eBp,
    }


MODEL = StructuralModel(
    title="CAR T cells and B-ALL with a CD19- clone: CD19- relapse",
    source=Source("Liu L et al. J Immunother Cancer 2022;10:e005360", "10.1136/jitc-2022-005360"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(Input("NB0", "cells/uL", "CD19+ cells at the infusion", equals="B"),),
    states=(
        State("B", "cells/uL", "CD19+ leukaemic cells", "log"),
        State("T", "cells/uL", "activated CAR T cells"),
        State("N", "cells/uL", "CAR T cells not yet activated", "log"),
        State("M", "cells/uL", "CD19- leukaemic cells", "log"),
    ),
    outputs=(
        Output("T", "cells/uL", "CAR T cells in blood", dvid=1),
        Output("B", "cells/uL", "CD19+ leukaemic cells", dvid=2),
        Output("M", "cells/uL", "CD19- leukaemic cells", dvid=3),
    ),
    derived=(
        Derived("functional_index", "1/day^2", "rTA0 eBp ka / lTA0, the authors' FT"),
        Derived("half_life_T", "day", "ln 2 / lTA0"),
        Derived("doubling_time_T", "day", "ln 2 / rTA0: the shortest, loss left out"),
        Derived("doubling_time_M", "day", "ln 2 / rBn: far below nMB"),
        Derived("T_control", "cells/uL", "rBp KBp / eBp: more T than this shrink a small B"),
        Derived("T_control_M", "cells/uL", "rBn KBn kb / eBp: more T than this shrink a small M"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    parameter_sets={
        "set 2": {
            "NB0": 17212.23022, "nTN0": 0.3, "ka": 0.19, "KBpTN": 93066.8, "lTN": 0.073,
            "rTA0": 1.7, "KBpr": 827.08, "lTA0": 0.04, "eBp": 8.6, "KBp": 794.99, "rBp": 0.086,
            "nMB": 19988.53, "nBn0": 19.89, "rBn": 0.1, "km": 0.0, "kb": 7.9, "KBn": 5956.03,
        },
    },
    taxonomy=Taxonomy(
        "pkpd", "mechanistic", ("car_t", "tumour"), ("activated", "non_activated"),
        ("multi_population", "car_phenotypes", "receptor_or_antigen_density",
         "antigen_driven_expansion"),
        laws={"growth": "logistic", "killing": "holling_2", "expansion": "michaelis_menten",
              "bystander": "effector_signal", "antigen_loss": "one_way"},
        parameters_from="fitted", fit_level="nlme", setting=("clinical",),
        measured=("blood_qpcr", "blood_flow", "marrow"), product="several", antigen="CD19",
        disease="B-ALL", in_review=True),
    doubts=(
        "The authors' code states no unit; the magnitudes and its formula for the burden in "
        "percent fit cells per uL.",
        "The typical values are one set for drawing a curve, not population means; the authors' "
        "population estimates, spreads and residual errors were not found, so every spread here "
        "is assumed.",
        "KBn is 5956.03 in this set and 16956.03 as the default elsewhere in the authors' code: "
        "a leading digit may have been lost.",
    ),
)
