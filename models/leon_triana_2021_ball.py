"""CAR T cells, leukaemia and B cells in B-ALL: predator and two preys, relapse as oscillation.

CAR T cells C divide in proportion to the CD19+ cells they meet, leukaemic L and mature B, and
to the fraction beta of marrow progenitors, and live tC; L grow at rL without a limit; B mature
from progenitors within tI and live tB; both are killed at alpha per CAR T cell. Progenitors
are I0 / (1 + C / C50), as far as C lets them be: their quasi-steady state (the paper's three
equations 3; with I0 = 0 its equations 4, the first weeks). Cells in the whole body, time in
days after the infusion of C0; a later infusion is a dose into C.
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

TABLE, FIGURES = "parameter table", "values of the figures"
MARROW = "progenitors are not counted: only I0 / tI and beta I0 act"
AGE = "under CAR T cells B cells are killed long before they age"
PARAMETERS = (
    Parameter("rC", 1.125e-11, "1/(cell day)", "division per CD19+ cell met; 0.05 to 2 alpha",
              FIGURES, assumed(0.3)),
    Parameter("tC", 14.0, "day", "lifetime of activated CAR T cells; 14 to 30", TABLE,
              assumed(0.2)),
    Parameter("rL", 1 / 30, "1/day", "growth of leukaemic cells; 1/60 to 1/30", TABLE,
              assumed(0.3)),
    Parameter("alpha", 4.5e-11, "1/(cell day)", "killing per CAR T cell", FIGURES, assumed(0.3)),
    Parameter("tB", 60.0, "day", "lifetime of B cells; 30 to 60", TABLE, fixed=AGE),
    Parameter("tI", 6.0, "day", "lifetime of immature B cells; 2 to 6", TABLE, fixed=MARROW),
    Parameter("beta", 0.1, "-", "fraction of CAR T cells in marrow; 0.01 to 0.5", TABLE,
              link="logit", fixed=MARROW),
    Parameter("I0", 3e8, "cells", "progenitors without CAR T cells; 1e7 to 5e8", "Fig. 7",
              fixed=MARROW),
    Parameter("C50", 1e9, "cells", "CAR T cells that halve the progenitors", FIGURES,
              fixed=MARROW),
)


def rates(t, y, p):
    immature = p.I0 / (1.0 + y.C / p.C50)
    return {
        "C": p.rC * (y.L + y.B + p.beta * immature) * y.C - y.C / p.tC,
        "L": p.rL * y.L - p.alpha * y.L * y.C,
        "B": immature / p.tI - p.alpha * y.B * y.C - y.B / p.tB,
    }


def initial(p):
    return {"C": p.C0, "L": p.L0, "B": p.B0}


def observe(t, y, p):
    return {"C": y.C, "L": y.L, "B": y.B}


def derive(p):
    needed = 1.0 / (p.rC * p.tC)
    C_rest = p.rL / p.alpha
    immature = p.I0 / (1.0 + C_rest / p.C50)
    B_rest = immature / p.tI / (p.rL + 1.0 / p.tB)
    return {
        "targets_needed": needed,
        "C_bound": p.C0 + p.rC / p.alpha * (p.L0 + p.B0 - needed),
        "C_rest": C_rest,
        "L_rest": needed - p.beta * immature - B_rest,
        "B_rest": B_rest,
        "period": 2.0 * jnp.pi * jnp.sqrt(p.tC / p.rL),
        "doubling_time_L": jnp.log(2.0) / p.rL,
        "half_life_C": jnp.log(2.0) * p.tC,
    }


TYPICAL = {"C0": 1e7, "L0": 5e10, "B0": 2.5e10, **{p.name: p.typical for p in PARAMETERS}}
MODEL = StructuralModel(
    title="CAR T cells, B-ALL and B cells: expansion, relapse, oscillation",
    source=Source("León-Triana O et al. Commun Nonlinear Sci Numer Simul 2021;94:105570",
                  "10.1016/j.cnsns.2020.105570"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("C0", "cells", "CAR T cells infused that reach blood and marrow", default=1e7),
        Input("L0", "cells", "leukaemic cells at the infusion", default=5e10, equals="L"),
        Input("B0", "cells", "B cells at the infusion", default=2.5e10, equals="B"),
    ),
    states=(
        State("C", "cells", "CAR T cells", "log"),
        State("L", "cells", "leukaemic cells", "log"),
        State("B", "cells", "mature B cells", "log"),
    ),
    outputs=(
        Output("C", "cells", "CAR T cells", dvid=1),
        Output("L", "cells", "leukaemic cells", dvid=2),
        Output("B", "cells", "mature B cells", dvid=3),
    ),
    derived=(
        Derived("targets_needed", "cells", "1 / (rC tC): with fewer L + B no CAR T expansion"),
        Derived("C_bound", "cells", "more than C can reach, if I0 is 0"),
        Derived("C_rest", "cells", "rL / alpha: C where L neither grows nor shrinks"),
        Derived("L_rest", "cells", "L at the point of coexistence; below 0 there is none"),
        Derived("B_rest", "cells", "B at the point of coexistence"),
        Derived("period", "day", "2 pi sqrt(tC / rL): of small oscillations, if I0 is 0"),
        Derived("doubling_time_L", "day", "ln 2 / rL: without CAR T cells"),
        Derived("half_life_C", "day", "ln 2 tC: without targets"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    parameter_sets={
        "no new B cells": {**TYPICAL, "I0": 0.0},
        "no new B cells, weak stimulation": {**TYPICAL, "I0": 0.0, "rC": 2.25e-12},
        "I0 1e7": {**TYPICAL, "I0": 1e7},
        "I0 3e8": {**TYPICAL, "I0": 3e8},
        "I0 5e8": {**TYPICAL, "I0": 5e8},
    },
    taxonomy=Taxonomy(
        "pkpd", "mechanistic", ("car_t", "tumour", "healthy_target"),
        layers=("multi_population", "antigen_driven_expansion"),
        laws={"growth": "exponential", "killing": "mass_action", "expansion": "mass_action"},
        use="qualitative", parameters_from="literature", setting=("clinical",),
        measured=("none",), antigen="CD19", disease="B-ALL"),
    doubts=(
        "The article itself was not read: equations from its two curated SBML files and a "
        "public reproduction of its figures. The SBML of equations 3 lacks the factor C in the "
        "division on progenitors; it is here, as in the full system.",
        "Nothing was fitted: round values from the literature, every spread assumed. Cells are "
        "of the whole body: counts per uL must be scaled first. No cell number reaches 0.",
        "The full system, with stem cells and progenitors in their own right, is not built: "
        "its haematopoietic values were not found.",
    ),
)
