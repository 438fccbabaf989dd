"""Axicabtagene ciloleucel: naive, memory and effector CAR T cells and the tumour's volume.

Naive TN become central-memory TCM, these effector-memory TEM, these effectors TEff, which only
die. The first three expand by Vmax1 V per day, in proportion to the CD19+ metabolic tumour
volume V and shared among the cells of their own kind (half of it at KM1 cells). All four kill,
each at its own rate, together half of their most at the volume KM5; V grows logistically. A
previous stem-cell transplant (ASCT) and a low day-7 ratio of CD4+ to CD8+ CAR T cells (R7) speed
the expansion up. No dose: 0.1 cells/uL of each kind at time 0. Time in days.
"""

import jax.numpy as jnp

from carpk.structure import (
    Classes,
    Derived,
    Input,
    Output,
    Parameter,
    Source,
    State,
    StructuralModel,
    cv,
)
from carpk.taxonomy import Taxonomy

TABLE, BURDEN = "Table 1", "mL/day per cell/uL"
LITERATURE = "the authors took it from the literature"
VITRO = "the authors scaled it from killing in vitro"
UNSEEN = "not identifiable, said the authors"
PARAMETERS = (
    Parameter("Vmax1", 0.00846, "cells/uL/day/mL", "expansion per mL of tumour", TABLE, cv(150)),
    Parameter("theta_ASCT", 2.53, "-", "Vmax1 more by a previous transplant, a fraction", TABLE,
              requires="ASCT"),
    Parameter("theta_R7", -0.385, "-", "power of R7 in Vmax1", TABLE, link="identity",
              requires="R7"),
    Parameter("KM1", 1.13, "cells/uL", "cells of a kind at half of its expansion", TABLE),
    Parameter("k12", 0.140, "1/day", "TN to TCM", TABLE),
    Parameter("k23", 0.191, "1/day", "TCM to TEM", TABLE),
    Parameter("k34", 0.355, "1/day", "TEM to TEff", TABLE),
    Parameter("ke4", 0.518, "1/day", "death of TEff", TABLE),
    Parameter("ke1", 0.0104, "1/day", "death of TN, TCM and TEM", TABLE,
              fixed="the authors took 0.02 of ke4"),
    Parameter("kp1", 0.0005, "1/day", "homeostatic proliferation of TN", TABLE, fixed=LITERATURE),
    Parameter("kp2", 0.007, "1/day", "the same of TCM and TEM", TABLE, fixed=LITERATURE),
    Parameter("Vmax51", 2.57, BURDEN, "killing by TN", TABLE, fixed=VITRO),
    Parameter("Vmax52", 4.04, BURDEN, "killing by TCM", TABLE, cv(307)),
    Parameter("Vmax53", 3.78, BURDEN, "killing by TEM", TABLE, fixed=VITRO),
    Parameter("Vmax54", 4.24, BURDEN, "killing by TEff", TABLE, fixed=VITRO),
    Parameter("KM5", 276, "mL", "volume at half of the killing", TABLE),
    Parameter("k5", 0.0023, "1/day", "growth of the tumour", TABLE, fixed=UNSEEN),
    Parameter("K0", 5000, "mL", "carrying capacity", TABLE, fixed=UNSEEN),
    Parameter("c0", 0.1, "cells/uL", "each kind of cell at time 0", "section 3.1.4",
              fixed="imputed by the authors; it moves the day of the peak, hardly its height"),
)


def expansion(p):
    return p.Vmax1 * (1.0 + p.theta_ASCT * p.ASCT) * p.R7**p.theta_R7


def rates(t, y, p):
    fed = expansion(p) * y.V
    killing = p.Vmax51 * y.TN + p.Vmax52 * y.TCM + p.Vmax53 * y.TEM + p.Vmax54 * y.TEff
    return {
        "TN": fed * y.TN / (p.KM1 + y.TN) + (p.kp1 - p.k12 - p.ke1) * y.TN,
        "TCM": fed * y.TCM / (p.KM1 + y.TCM) + p.k12 * y.TN + (p.kp2 - p.k23 - p.ke1) * y.TCM,
        "TEM": fed * y.TEM / (p.KM1 + y.TEM) + p.k23 * y.TCM + (p.kp2 - p.k34 - p.ke1) * y.TEM,
        "TEff": p.k34 * y.TEM - p.ke4 * y.TEff,
        "V": p.k5 * (1.0 - y.V / p.K0) * y.V - killing * y.V / (p.KM5 + y.V),
    }


def initial(p):
    return {"TN": p.c0, "TCM": p.c0, "TEM": p.c0, "TEff": p.c0, "V": p.V0}


def observe(t, y, p):
    return {"TN": y.TN, "TCM": y.TCM, "TEM": y.TEM, "TEff": y.TEff, "V": y.V,
            "Tall": y.TN + y.TCM + y.TEM + y.TEff}


def derive(p):
    first = expansion(p) * p.V0
    return {
        "Vmax1_patient": expansion(p),
        "half_life_TEff": jnp.log(2.0) / p.ke4,
        "doubling_time_V": jnp.log(2.0) / p.k5,
        "growth_TN": first / (p.KM1 + p.c0) + p.kp1 - p.k12 - p.ke1,
    }


REFERENCE = {"V0": 85.7, **{p.name: p.typical for p in PARAMETERS}}
MODEL = StructuralModel(
    title="Four kinds of CAR T cells and metabolic tumour volume, axi-cel",
    source=Source("Mueller-Schoell A et al. Cancers 2021;13:2782", "10.3390/cancers13112782"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("V0", "mL", "CD19+ metabolic tumour volume before the infusion", equals="V"),
        Input("ASCT", "-", "1 after a previous autologous stem-cell transplant", default=0.0),
        Input("R7", "-", "CD4+ over CD8+ CAR T cells on day 7", default=1.0),
    ),
    states=(
        State("TN", "cells/uL", "naive CAR T cells", "log"),
        State("TCM", "cells/uL", "central-memory CAR T cells", "log"),
        State("TEM", "cells/uL", "effector-memory CAR T cells", "log"),
        State("TEff", "cells/uL", "effector CAR T cells", "log"),
        State("V", "mL", "CD19+ metabolic tumour volume", "log"),
    ),
    outputs=(
        Output("TN", "cells/uL", "naive CAR T cells in blood", dvid=1),
        Output("TCM", "cells/uL", "central-memory CAR T cells in blood", dvid=2),
        Output("TEM", "cells/uL", "effector-memory CAR T cells in blood", dvid=3),
        Output("TEff", "cells/uL", "effector CAR T cells in blood", dvid=4),
        Output("V", "mL", "metabolic tumour volume on FDG PET-CT", dvid=5),
        Output("Tall", "cells/uL", "all CAR T cells in blood", dvid=6),
    ),
    derived=(
        Derived("Vmax1_patient", "cells/uL/day/mL", "Vmax1 with ASCT and R7"),
        Derived("half_life_TEff", "day", "ln 2 / ke4"),
        Derived("doubling_time_V", "day", "ln 2 / k5: far below K0"),
        Derived("growth_TN", "1/day", "net growth of naive cells at time 0; below 0, no rise"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    parameter_sets={
        "reference class": REFERENCE,
        "low class": {**REFERENCE, "Vmax1": 0.000700, "theta_R7": 0.0},
    },
    classes=Classes({"Vmax1": (0.000700, 0.00846)}, (0.197, 0.803),
                    ("low class", "reference class")),
    taxonomy=Taxonomy(
        "pkpd", "semi_mechanistic", ("car_t", "tumour"),
        ("naive", "central_memory", "effector_memory", "effector"),
        ("multi_population", "car_phenotypes", "antigen_driven_expansion",
         "organism_covariates"),
        ("blood", "tumour_site"),
        laws={"growth": "logistic", "killing": "holling_2",
              "expansion": "same_phenotype_saturation", "memory": "first_order"},
        parameters_from="fitted", fit_level="nlme", setting=("clinical",),
        measured=("blood_flow", "imaging_volume"), product="axicabtagene ciloleucel",
        antigen="CD19", disease="DLBCL", in_review=True),
    doubts=(
        "The paper is a mixture: a patient is of the reference class with probability 0.803 and "
        "else of the low class, Vmax1 0.0007 without spread and no effect of R7. Here the classes "
        "differ in Vmax1 alone and share its spread and the effect of R7; the parameter set 'low "
        "class' has the published values.",
        "Published residual error, SD of the logarithm: TN 0.55, TCM 0.74, TEM 0.94, TEff 0.64, "
        "V 0.92. How levels below the limit of quantification were treated was not found.",
        "Read in a public transcription, not in the article. The spread of Vmax52 moves the "
        "killing by TCM only, as transcribed; Vmax51, Vmax53 and Vmax54 stay.",
    ),
)
