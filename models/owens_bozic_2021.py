"""Chemotherapy before CAR T cells: tumour, the patient's own effectors, CAR T cells, drug.

Effectors E and CAR T cells C lyse tumour cells T by the ratio E/T or C/T (at most d_E and d_C
per day, half where (E/T)^l is s), multiply on the cells they lyse as long as E + C is below the
immune capacity K, and are spent at q_E and q_C per tumour cell. The tumour grows logistically.
The drug M kills all three at 1 - exp(-M) of K_T, K_E and K_C. Chemotherapy is an infusion into
M (uM), CAR T cells a dose into C: the 1 % of the cells infused that circulate. Cells, days.
"""

import jax.numpy as jnp

from carpk.laws import logistic, lysis_driven, ratio_dependent
from carpk.structure import (
    Derived,
    Dose,
    Input,
    Output,
    Parameter,
    Source,
    State,
    StructuralModel,
    assumed,
)
from carpk.taxonomy import Taxonomy

TABLE = "Table 1, patient 1"
OWN = "the patient's own effectors are not counted apart"
STEEP = "a slope and a half-saturation that counts in blood do not tell from d_C"
DRUG = "a property of the drug, from the literature"
PARAMETERS = (
    Parameter("a", 0.255, "1/day", "growth of the tumour", TABLE, assumed(0.3)),
    Parameter("b", 1 / 2e12, "1/cells", "1 over the tumour's capacity", TABLE,
              fixed="no treated tumour is followed up to it"),
    Parameter("d_E", 2.03, "1/day", "maximal lysis by E", TABLE, fixed=OWN),
    Parameter("d_C", 2.25, "1/day", "maximal lysis by C", TABLE, assumed(0.3)),
    Parameter("g", 1.4e3, "cells/day", "source of E", TABLE, fixed=OWN),
    Parameter("j_E", 1.1e-2, "1/day", "maximal recruitment of E", TABLE, fixed=OWN),
    Parameter("j_C", 0.242, "1/day", "maximal recruitment of C, 22 times j_E", TABLE,
              assumed(0.3)),
    Parameter("K", 1.65e9, "cells", "immune capacity", TABLE, assumed(0.3)),
    Parameter("k", 2.019e5, "cells^2/day^2", "square of the lysis at half of recruitment", TABLE,
              fixed="far below the lysis of any tumour that is seen"),
    Parameter("l", 1.395, "-", "exponent of lysis", TABLE, fixed=STEEP),
    Parameter("m_E", 7e-3, "1/day", "death of E", TABLE, fixed=OWN),
    Parameter("m_C", 2.93e-2, "1/day", "death of C", TABLE, assumed(0.3)),
    Parameter("q_E", 3.42e-11, "1/(cell day)", "inactivation of E by T", TABLE, fixed=OWN),
    Parameter("q_C", 3.0e-11, "1/(cell day)", "inactivation of C by T", TABLE, assumed(0.5)),
    Parameter("s", 0.305, "-", "(C/T)^l at half of the lysis", TABLE, fixed=STEEP),
    Parameter("K_T", 0.70, "1/day", "maximal killing of T by the drug", TABLE, fixed=DRUG),
    Parameter("K_E", 0.60, "1/day", "maximal killing of E by the drug", TABLE, fixed=DRUG),
    Parameter("K_C", 0.60, "1/day", "maximal killing of C by the drug", TABLE, fixed=DRUG),
    Parameter("gamma", 0.90, "1/day", "decay of the drug", TABLE, fixed=DRUG),
)


def rates(t, y, p):
    D_E = ratio_dependent(y.E, y.T, p.d_E, p.s, p.l)
    D_C = ratio_dependent(y.C, y.T, p.d_C, p.s, p.l)
    room = jnp.log(p.K / (y.E + jnp.maximum(y.C, 0.0)))  # solvers let what vanishes slip below 0
    h = -jnp.expm1(-y.M)
    return {
        "T": logistic(y.T, p.a, 1.0 / p.b) - D_E - D_C - p.K_T * h * y.T,
        "E": p.g - p.m_E * y.E + lysis_driven(y.E, D_E, p.j_E, p.k) * room
             - p.q_E * y.E * y.T - p.K_E * h * y.E,
        "C": -p.m_C * y.C + lysis_driven(y.C, D_C, p.j_C, p.k) * room
             - p.q_C * y.C * y.T - p.K_C * h * y.C,
        "M": -p.gamma * y.M,
    }


def initial(p):
    return {"T": p.T0, "E": p.E0, "C": 0.0, "M": 0.0}


def observe(t, y, p):
    return {"C": y.C, "T": y.T, "E": y.E, "M": y.M}


def derive(p):
    return {
        "doubling_time_T": jnp.log(2.0) / p.a,
        "E_rest": p.g / p.m_E,
        "cure_rate": p.d_E + p.d_C - p.a,
        "half_life_C": jnp.log(2.0) / p.m_C,
        "half_life_M": jnp.log(2.0) / p.gamma,
    }


DLBCL = {p.name: p.typical for p in PARAMETERS}
CLL = {**DLBCL, "a": 0.176, "g": 4.7e4, "j_E": 7.46e-3, "j_C": 0.165, "k": 7.0e7, "l": 1.419,
       "m_E": 3.4e-2, "q_E": 6.716e-11}
MELANOMA = {**DLBCL, "a": 0.514, "b": 1 / 9.804e8, "d_E": 5.8, "g": 1.3e4, "j_E": 2.7e-2,
            "j_C": 0.60, "K": 1.65e8, "k": 2.0e7, "l": 1.36, "m_E": 2e-2, "q_E": 3.42e-10,
            "q_C": 1.53e-9, "s": 0.25}
MODEL = StructuralModel(
    title="CAR T cells after chemotherapy: schedule, rest and dose",
    source=Source("Owens K, Bozic I. Bull Math Biol 2021;83:42", "10.1007/s11538-021-00869-5"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("T0", "cells", "tumour cells before chemotherapy", equals="T"),
        Input("E0", "cells", "the patient's own effectors before chemotherapy", default=4e5),
    ),
    states=(
        State("T", "cells", "tumour cells", "log"),
        State("E", "cells", "the patient's own effectors", "log"),
        State("C", "cells", "CAR T cells in circulation; doses go here, 1 % of those infused"),
        State("M", "uM", "chemotherapy, like fludarabine; infusions go here"),
    ),
    doses=(*(Dose("M", 125.0 / 48.0, at=day, over=1.0 / 48.0) for day in (0.0, 1.0, 2.0)),
           Dose("C", 2.5e6, at=6.0)),
    outputs=(
        Output("C", "cells", "CAR T cells in circulation", dvid=1),
        Output("T", "cells", "tumour cells", dvid=2),
        Output("E", "cells", "the patient's own effectors", dvid=3),
        Output("M", "uM", "chemotherapy in blood", dvid=4),
    ),
    derived=(
        Derived("doubling_time_T", "day", "ln 2 / a: untreated, far below the capacity"),
        Derived("E_rest", "cells", "g / m_E: effectors without a tumour"),
        Derived("cure_rate", "1/day", "d_E + d_C - a: decline of a small tumour; above 0, cure"),
        Derived("half_life_C", "day", "ln 2 / m_C: without a tumour"),
        Derived("half_life_M", "day", "ln 2 / gamma"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    parameter_sets={
        "patient 1, DLBCL": {**DLBCL, "T0": 5e9},
        "patient 2, CLL": {**CLL, "T0": 5e9},
        "patient 3, melanoma": {**MELANOMA, "T0": 5e8},
        "patient 4, melanoma": {**MELANOMA, "d_E": 4.23, "l": 1.43, "s": 0.36, "T0": 5e8},
    },
    taxonomy=Taxonomy(
        "pkpd", "mechanistic", ("car_t", "normal_t", "tumour"),
        layers=("multi_population", "antigen_driven_expansion", "t_cell_competition",
                "comedication_or_preconditioning"),
        laws={"growth": "logistic", "killing": "ratio_dependent", "expansion": "lysis_driven",
              "competition": "gompertz", "exhaustion": "mass_action"},
        parameters_from="literature", setting=("clinical",), measured=("none",),
        disease="several", in_review=True),
    doubts=(
        "The paper's plans: C3 is 125/48 uM over 1/48 day on days 0, 1, 2; C5 is 77/48 uM on "
        "days 0 to 4; CAR T cells 1e5, 1e6 or 2.5e6 in circulation after 2 to 17 days of rest.",
        "The cure borders of its Fig. 4 are met within a day or two, not exactly, and patients 3 "
        "and 4 look interchanged between Table 1 (used here) and the figures.",
        "Four virtual patients by the literature, nothing fitted: every spread is assumed. A "
        "tumour near its capacity inactivates cells some 60 times a day: stiff there.",
    ),
)
