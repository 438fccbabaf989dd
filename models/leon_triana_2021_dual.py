"""Dual-target CAR T cells: expansion on B cells in blood carries a solid tumour's killing.

CAR T cells D outside the tumour expand on CD19+ B cells (at most rho_D, half of it at g_B),
kill them, and pass to the tumour at k; there, as C, they follow leon_triana_2021_single: they
expand on tumour cells T, are inactivated by them at alpha_1 T / (g_C + C) and kill them. Both
live tau_C; B cells are lost at 1 / tau_B and not replaced. The infusion is D(0) = D0, and C(0)
is 0 (equations 3 to 6 of the paper). Cells, time in days after the infusion.
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

SBML = "SBML file BIOMD0000001014"
HALF = "trades against the maximal rate when the other cells are few or many"
OUTSIDE = "C and D differ only by it and rho_D: both would have to be counted"
AGE = "under CAR T cells B cells are killed long before they age"
PARAMETERS = (
    Parameter("rho_C", 0.9, "1/day", "maximal expansion on tumour cells", SBML, assumed(0.2)),
    Parameter("g_T", 1e10, "cells", "tumour cells at half of rho_C", SBML, fixed=HALF),
    Parameter("alpha_1", 0.02, "1/day", "inactivation by tumour cells; 0 to 0.2", SBML,
              assumed(0.5)),
    Parameter("g_C", 2e9, "cells", "CAR T cells that halve the inactivation", SBML, fixed=HALF),
    Parameter("tau_C", 7.0, "day", "lifetime of CAR T cells", SBML, assumed(0.2)),
    Parameter("rho_T", 0.02, "1/day", "growth of tumour cells", SBML, assumed(0.3)),
    Parameter("alpha_2", 2.5e-10, "1/(cell day)", "killing of tumour cells per CAR T cell", SBML,
              assumed(0.3)),
    Parameter("rho_D", 0.9, "1/day", "maximal expansion on B cells", SBML, assumed(0.2)),
    Parameter("g_B", 1e10, "cells", "B cells at half of rho_D", SBML, fixed=HALF),
    Parameter("k", 0.2, "1/day", "passage to the tumour", SBML, fixed=OUTSIDE),
    Parameter("alpha_B", 4.5e-11, "1/(cell day)", "killing of B cells per CAR T cell", SBML,
              assumed(0.3)),
    Parameter("tau_B", 60.0, "day", "lifetime of B cells", SBML, fixed=AGE),
)


def rates(t, y, p):
    expansion = p.rho_C * y.T / (p.g_T + y.T)
    inactivation = p.alpha_1 * y.T / (p.g_C + y.C)
    return {
        "C": (expansion - inactivation) * y.C - y.C / p.tau_C + p.k * y.D,
        "T": p.rho_T * y.T - p.alpha_2 * y.C * y.T,
        "D": p.rho_D * y.B / (p.g_B + y.B) * y.D - y.D / p.tau_C - p.k * y.D,
        "B": -p.alpha_B * y.B * y.D - y.B / p.tau_B,
    }


def initial(p):
    return {"C": 0.0, "T": p.T0, "D": p.D0, "B": p.B0}


def observe(t, y, p):
    return {"D": y.D, "T": y.T, "C": y.C, "B": y.B}


def derive(p):
    return {
        "C_rest": p.rho_T / p.alpha_2,
        "B_needed": p.g_B / (p.rho_D / (1.0 / p.tau_C + p.k) - 1.0),
        "doubling_time_T": jnp.log(2.0) / p.rho_T,
        "half_life_C": jnp.log(2.0) * p.tau_C,
    }


TYPICAL = {"D0": 2e8, "T0": 3.35e10, "B0": 2.5e10, **{p.name: p.typical for p in PARAMETERS}}
MODEL = StructuralModel(
    title="Dual-target CAR T cells: B cells feed them, a solid tumour fights them",
    source=Source("León-Triana O et al. Cancers 2021;13:703", "10.3390/cancers13040703"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("D0", "cells", "CAR T cells infused", default=2e8),
        Input("T0", "cells", "tumour cells at the infusion", default=3.35e10, equals="T"),
        Input("B0", "cells", "B cells at the infusion", default=2.5e10, equals="B"),
    ),
    states=(
        State("C", "cells", "CAR T cells at the tumour"),
        State("T", "cells", "tumour cells", "log"),
        State("D", "cells", "CAR T cells in blood and lymphoid organs", "log"),
        State("B", "cells", "CD19+ B cells", "log"),
    ),
    outputs=(
        Output("D", "cells", "CAR T cells in blood and lymphoid organs", dvid=1),
        Output("T", "cells", "tumour cells", dvid=2),
        Output("C", "cells", "CAR T cells at the tumour", dvid=3),
        Output("B", "cells", "CD19+ B cells", dvid=4),
    ),
    derived=(
        Derived("C_rest", "cells", "rho_T / alpha_2: C where T neither grows nor shrinks"),
        Derived("B_needed", "cells", "with fewer B cells D declines"),
        Derived("doubling_time_T", "day", "ln 2 / rho_T: without CAR T cells"),
        Derived("half_life_C", "day", "ln 2 tau_C: without any target"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    parameter_sets={
        "weak suppression": {**TYPICAL, "alpha_1": 0.02},
        "controlled suppression": {**TYPICAL, "alpha_1": 0.183},
        "escape": {**TYPICAL, "alpha_1": 0.2},
    },
    taxonomy=Taxonomy(
        "pkpd", "mechanistic", ("car_t", "tumour", "healthy_target"),
        layers=("multi_population", "antigen_driven_expansion", "habitats_or_topology",
                "organ_distribution"),
        habitats=("blood", "tumour_site"), distribution="compartments",
        laws={"growth": "exponential", "killing": "mass_action",
              "expansion": "michaelis_menten", "exhaustion": "saturating_in_effectors"},
        use="qualitative", parameters_from="literature", setting=("clinical",),
        measured=("none",), antigen="CD19 and a tumour antigen", disease="glioblastoma"),
    doubts=(
        "Nothing was fitted: round values, every spread assumed. The passage k moves cell "
        "numbers, without volumes; B cells have no source, so they do not recover.",
        "alpha_1 is a scenario: the SBML's curator needed 0.183 where the text has 0.2. The "
        "tumour never reaches 0 cells: take fewer than one cell for a cure.",
        "An escaping tumour of 1e12 cells inactivates C a hundred times a day, faster than an "
        "explicit method follows: with alpha_1 near 0.2 ask for the solver rodas4.",
    ),
)
