"""CAR T cells against an immunosuppressive solid tumour: a number they must reach or fail.

CAR T cells C at the tumour expand on tumour cells T at most at rho_C (half of it at g_T), are
inactivated by T at alpha_1 T / (g_C + C), less the more they are, and live tau_C; T grow at
rho_T without a limit and are killed at alpha_2 per CAR T cell. Above a certain alpha_1 too few
CAR T cells decline from the first day. The single-target model of the paper (equations 1, 2);
leon_triana_2021_dual adds the second target. Cells, time in days after the infusion of C0.
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

SBML = "SBML file BIOMD0000001013, figures"
HALF = "trades against the maximal rate when the other cells are few or many"
PARAMETERS = (
    Parameter("rho_C", 0.9, "1/day", "maximal expansion on tumour cells", SBML, assumed(0.2)),
    Parameter("g_T", 1e10, "cells", "tumour cells at half of rho_C", SBML, fixed=HALF),
    Parameter("alpha_1", 0.02, "1/day", "inactivation by tumour cells; 0 to 0.2", "figures",
              assumed(0.5)),
    Parameter("g_C", 2e9, "cells", "CAR T cells that halve the inactivation", SBML, fixed=HALF),
    Parameter("tau_C", 7.0, "day", "lifetime of CAR T cells", SBML, assumed(0.2)),
    Parameter("rho_T", 0.02, "1/day", "growth of tumour cells", SBML, assumed(0.3)),
    Parameter("alpha_2", 2.5e-10, "1/(cell day)", "killing per CAR T cell", SBML, assumed(0.3)),
)


def rates(t, y, p):
    expansion = p.rho_C * y.T / (p.g_T + y.T)
    inactivation = p.alpha_1 * y.T / (p.g_C + y.C)
    return {
        "C": (expansion - inactivation) * y.C - y.C / p.tau_C,
        "T": p.rho_T * y.T - p.alpha_2 * y.C * y.T,
    }


def initial(p):
    return {"C": p.C0, "T": p.T0}


def observe(t, y, p):
    return {"C": y.C, "T": y.T}


def derive(p):
    C_rest = p.rho_T / p.alpha_2
    gap = jnp.sqrt(p.rho_C) - jnp.sqrt(1.0 / p.tau_C)
    return {
        "C_rest": C_rest,
        "alpha_1_crit": (p.g_C + C_rest) / p.g_T * gap**2,
        "doubling_time_T": jnp.log(2.0) / p.rho_T,
        "half_life_C": jnp.log(2.0) * p.tau_C,
    }


TYPICAL = {"C0": 8e7, "T0": 3.35e10, **{p.name: p.typical for p in PARAMETERS}}
MODEL = StructuralModel(
    title="CAR T cells and a suppressive solid tumour: the number needed",
    source=Source("León-Triana O et al. Cancers 2021;13:703", "10.3390/cancers13040703"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("C0", "cells", "CAR T cells that reach the tumour at time 0", default=8e7),
        Input("T0", "cells", "tumour cells at time 0", default=3.35e10, equals="T"),
    ),
    states=(
        State("C", "cells", "CAR T cells at the tumour", "log"),
        State("T", "cells", "tumour cells", "log"),
    ),
    outputs=(
        Output("C", "cells", "CAR T cells at the tumour", dvid=1),
        Output("T", "cells", "tumour cells", dvid=2),
    ),
    derived=(
        Derived("C_rest", "cells", "rho_T / alpha_2: C where T neither grows nor shrinks"),
        Derived("alpha_1_crit", "1/day", "above it no coexistence of C_rest and any T"),
        Derived("doubling_time_T", "day", "ln 2 / rho_T: without CAR T cells"),
        Derived("half_life_C", "day", "ln 2 tau_C: without tumour cells"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    parameter_sets={
        "no suppression": {**TYPICAL, "alpha_1": 0.0},
        "weak suppression": {**TYPICAL, "alpha_1": 0.02},
        "strong suppression": {**TYPICAL, "alpha_1": 0.04},
        "strong suppression, small tumour": {**TYPICAL, "alpha_1": 0.04, "C0": 4e8, "T0": 6.7e9},
    },
    taxonomy=Taxonomy(
        "pkpd", "mechanistic", ("car_t", "tumour"),
        layers=("multi_population", "antigen_driven_expansion"), habitats=("tumour_site",),
        laws={"growth": "exponential", "killing": "mass_action",
              "expansion": "michaelis_menten", "exhaustion": "saturating_in_effectors"},
        use="qualitative", parameters_from="literature", setting=("clinical",),
        measured=("none",), disease="glioblastoma"),
    doubts=(
        "Nothing was fitted: round values, every spread assumed; the paper's table of ranges "
        "was not read. alpha_1 is a scenario: captions, text and SBML files disagree on it.",
        "The tumour never reaches 0 cells and returns in waves: take fewer than one cell for "
        "a cure. PD-1 blockade is a lower alpha_1; how much lower was not found.",
    ),
)
