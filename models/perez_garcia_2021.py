"""CAR T cells against T-cell leukaemia: they also meet, feed on and kill one another.

CAR T cells C, leukaemic T cells L and normal T cells N carry the same antigen. C divide at rC
for every cell of the three they meet and live tC; C kill L, N and each other (fratricide) at
alpha; L grow at rL without a limit; N are not renewed. Alone, as in a culture, C always decline
where rC is below alpha; with enough targets they expand. The end is control: C and L coexist.
Values are SECOND-HAND, from a simulator that names this paper as its source (see doubts). Cells
in the whole body, time in days after the infusion of C0; a later one is a dose into C.
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

SIMULATOR = "second-hand: code of the simulator MEHLISSA"
PARAMETERS = (
    Parameter("rC", 1e-11, "1/(cell day)", "division per T cell met, of any kind", SIMULATOR,
              assumed(0.3)),
    Parameter("tC", 21.0, "day", "lifetime of CAR T cells", SIMULATOR, assumed(0.2)),
    Parameter("rL", 1 / 40, "1/day", "growth of leukaemic cells", SIMULATOR, assumed(0.3)),
    Parameter("alpha", 6e-11, "1/(cell day)", "killing of L, of N and of one another", SIMULATOR,
              assumed(0.3)),
)


def rates(t, y, p):
    return {
        "C": p.rC * (y.L + y.N + y.C) * y.C - p.alpha * y.C**2 - y.C / p.tC,
        "L": p.rL * y.L - p.alpha * y.L * y.C,
        "N": -p.alpha * y.N * y.C,
    }


def initial(p):
    return {"C": p.C0, "L": p.L0, "N": p.N0}


def observe(t, y, p):
    return {"C": y.C, "L": y.L, "N": y.N}


def derive(p):
    C_rest = p.rL / p.alpha
    return {
        "targets_needed": (1.0 / p.tC + (p.alpha - p.rC) * p.C0) / p.rC,
        "C_rest": C_rest,
        "L_rest": (1.0 / p.tC + (p.alpha - p.rC) * C_rest) / p.rC,
        "doubling_time_L": jnp.log(2.0) / p.rL,
        "half_life_C": jnp.log(2.0) * p.tC,
    }


TYPICAL = {"C0": 1e7, "L0": 5e10, "N0": 2.5e10, **{p.name: p.typical for p in PARAMETERS}}
MODEL = StructuralModel(
    title="CAR T cells and T-cell leukaemia: fratricide and control (second-hand values)",
    source=Source("Pérez-García VM et al. Commun Nonlinear Sci Numer Simul 2021;96:105684",
                  "10.1016/j.cnsns.2020.105684"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("C0", "cells", "CAR T cells infused; default of leon_triana_2021_ball",
              default=1e7),
        Input("L0", "cells", "leukaemic cells at the infusion; default of leon_triana_2021_ball",
              default=5e10, equals="L"),
        Input("N0", "cells", "normal T cells at the infusion; default: leon_triana_2021_ball's B",
              default=2.5e10, equals="N"),
    ),
    states=(
        State("C", "cells", "CAR T cells", "log"),
        State("L", "cells", "leukaemic T cells", "log"),
        State("N", "cells", "normal T cells", "log"),
    ),
    outputs=(
        Output("C", "cells", "CAR T cells", dvid=1),
        Output("L", "cells", "leukaemic T cells", dvid=2),
        Output("N", "cells", "normal T cells", dvid=3),
    ),
    derived=(
        Derived("targets_needed", "cells", "with fewer L + N the infused C0 do not expand"),
        Derived("C_rest", "cells", "rL / alpha: C where L neither grows nor shrinks"),
        Derived("L_rest", "cells", "L at the point of coexistence, without N"),
        Derived("doubling_time_L", "day", "ln 2 / rL: without CAR T cells"),
        Derived("half_life_C", "day", "ln 2 tC: without targets and fratricide"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    parameter_sets={
        "rL 1/40": TYPICAL,
        "L doubles in 40 days": {**TYPICAL, "rL": 0.017328679513998632},
    },
    taxonomy=Taxonomy(
        "pkpd", "mechanistic", ("car_t", "normal_t", "tumour"),
        layers=("multi_population", "antigen_driven_expansion"),
        laws={"growth": "exponential", "killing": "mass_action", "expansion": "mass_action"},
        use="qualitative", parameters_from="literature", setting=("in_vitro", "clinical"),
        measured=("none",), disease="T-cell leukaemia"),
    doubts=(
        "Second-hand: the article was not read. Structure and values are those of an "
        "independent simulator (MEHLISSA) built on it, whose chances per contact are taken as "
        "rates per day; its 40 days between divisions may mean rL = 1/40 or ln 2 / 40.",
        "Cell numbers at the infusion are borrowed from leon_triana_2021_ball. Renewal of "
        "normal T cells was not found and is left out, so that they are lost for good.",
        "Nothing was fitted: every spread is assumed. No cell number reaches 0.",
    ),
)
