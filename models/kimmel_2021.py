"""CAR T cells and normal T cells compete for one niche; their number kills the lymphoma.

After lymphodepletion normal T cells N regrow to K_N and CAR T cells C to the smaller K_C, both
by Gompertz laws of the total T = N + C: C expands while T is below K_C and declines ever after.
The growth rate of C is rho_C near the full niche and up to b / (1 + a T^2 / (T - K_N)^2) more
while the niche is far from K_N (the signals of reconstitution). The tumour B grows at r_B and
is lost at most at gamma_B, half of it at k_B CAR T cells; it drives no expansion. Whole-body
cells, time in days after the infusion; a further infusion is a dose into C.
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

TABLE = "Table 1"
NICHE = "normal T cells of the first weeks are seldom counted apart"
PARAMETERS = (
    Parameter("K_N", 2.5e11, "cells", "capacity for normal T cells", TABLE,
              fixed="the authors took it from the literature"),
    Parameter("K_C", 6.96e10, "cells", "T cells at which CAR T cells turn to decline", TABLE,
              assumed(0.2)),
    Parameter("r_N", 0.170, "1/day", "growth of normal T cells", TABLE, fixed=NICHE),
    Parameter("rho_C", 2.51e-2, "1/day", "growth of CAR T cells in the full niche", TABLE,
              assumed(0.3)),
    Parameter("a", 0.423, "-", "how soon the signals of reconstitution fade", TABLE, fixed=NICHE),
    Parameter("b", 0.525, "1/day", "growth of CAR T cells by reconstitution", TABLE, fixed=NICHE),
    Parameter("r_B", 0.065, "1/day", "growth of the tumour; 0.01 to 0.50", "Table 1, script",
              assumed(0.8)),
    Parameter("gamma_B", 1.15, "1/day", "maximal killing", TABLE, assumed(0.4)),
    Parameter("k_B", 2.024e9, "cells", "CAR T cells at half of gamma_B", TABLE,
              fixed="correlated above 0.9 with r_B and with gamma_B in the authors' fit"),
    Parameter("V", 5e8, "uL", "whole-body T cells per cell/uL of blood", "script",
              fixed="5e6 uL of blood hold 1 % of the T cells"),
)


def rates(t, y, p):
    T = y.N + y.C
    away = (T - p.K_N) ** 2
    r_C = p.rho_C + p.b * away / (p.a * T**2 + away)
    return {
        "N": -p.r_N * y.N * jnp.log(T / p.K_N),
        "C": -r_C * y.C * jnp.log(T / p.K_C),
        "B": p.r_B * y.B - p.gamma_B * y.B * y.C / (p.k_B + y.C),
    }


def initial(p):
    return {"N": p.N0, "C": p.C0, "B": p.B0}


def observe(t, y, p):
    return {"CART": y.C / p.V, "ALC": (y.N + y.C) / p.V, "B": y.B}


def derive(p):
    loss = p.rho_C * jnp.log(p.K_N / p.K_C)
    return {
        "late_loss_C": loss,
        "late_half_life_C": jnp.log(2.0) / loss,
        "C_control": p.k_B * p.r_B / (p.gamma_B - p.r_B) / p.V,
        "doubling_time_B": jnp.log(2.0) / p.r_B,
    }


START = {"N0": 3e9, "C0": 1.8e8, "B0": 9.486e10}
TABLE_1 = {**START, **{p.name: p.typical for p in PARAMETERS}}
SCRIPT = {**TABLE_1, "rho_C": 0.037, "r_N": 0.171, "K_C": 139.28 * 5e8, "k_B": 5e8 / 0.247}
MODEL = StructuralModel(
    title="CAR T and normal T cells in one niche, large B-cell lymphoma",
    source=Source("Kimmel GJ, Locke FL, Altrock PM. Proc R Soc B 2021;288:20210229",
                  "10.1098/rspb.2021.0229"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("N0", "cells", "normal T cells after lymphodepletion", default=START["N0"]),
        Input("C0", "cells", "CAR T cells infused at time 0", default=START["C0"]),
        Input("B0", "cells", "tumour cells at the infusion, 1e9 per mL", default=START["B0"],
              equals="B"),
    ),
    states=(
        State("N", "cells", "normal T cells", "log"),
        State("C", "cells", "CAR T cells", "log"),
        State("B", "cells", "CD19+ tumour cells", "log"),
    ),
    outputs=(
        Output("CART", "cells/uL", "CAR T cells in blood", dvid=1),
        Output("ALC", "cells/uL", "absolute lymphocyte count: all T cells in blood", dvid=2),
        Output("B", "cells", "tumour cells, 1e9 per mL", dvid=3),
    ),
    derived=(
        Derived("late_loss_C", "1/day", "rho_C ln(K_N / K_C): decline in the full niche"),
        Derived("late_half_life_C", "day", "ln 2 / late_loss_C"),
        Derived("C_control", "cells/uL",
                "k_B r_B / (gamma_B - r_B): with fewer in blood the tumour regrows"),
        Derived("doubling_time_B", "day", "ln 2 / r_B: without CAR T cells"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    parameter_sets={"Table 1": TABLE_1, "authors' script": SCRIPT},
    taxonomy=Taxonomy(
        "pkpd", "mechanistic", ("car_t", "normal_t", "tumour"),
        layers=("multi_population", "t_cell_competition", "comedication_or_preconditioning"),
        laws={"growth": "exponential", "killing": "saturating_in_effectors",
              "competition": "gompertz"},
        parameters_from="fitted", fit_level="population_mean", setting=("clinical",),
        measured=("blood_qpcr", "blood_flow", "imaging_volume"),
        product="axicabtagene ciloleucel", antigen="CD19", disease="DLBCL", in_review=True),
    doubts=(
        "rho_C of Table 1 does not give the published curve of CAR T cells, that of the "
        "authors' script does: take the set \"authors' script\" to reproduce the data.",
        "The deterministic part only: below some 100 cells the paper treats the tumour as a "
        "birth-and-death process that may end in cure; here it regrows from any depth.",
        "Fitted to medians of ZUMA-1: no spread between patients was published, every one here "
        "is assumed. The quartile fits of a and b do not contain the values of Table 1.",
    ),
)
