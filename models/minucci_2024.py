"""CD4+ and CD8+ CAR T cells against CD19+ B cells and lymphoma: infused, effector, memory.

Infused cells I are activated by the share of CARs that CD19 occupies, fb: each leaves 2^ndiv
effectors E, of which the share fmem turns into memory M at the end of their life and the rest
dies. CD8+ effectors kill the CD19+ cells T, which else double every tdouble days; the other
lymphocytes L return from depletion. What is measured is CAR T cells per uL of blood and B cells
in percent of all lymphocytes. Cells in the blood's volume V, time in days after the infusion of
`dose` cells per kg, of which fCD8 are CD8+. Receptors and the activated stage are at their
quasi-steady state: no time is spent in dividing.
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

TABLE = "supplementary table, final sheet"
OWN = "supplementary table, patient F0104"
HELD = "the authors held it for all patients"
PARAMETERS = (
    Parameter("ndiv", 21.41559, "-", "divisions of an activated cell", OWN, assumed(0.13)),
    Parameter("fmem", 2.514715e-3, "-", "share of effectors that turn into memory", OWN,
              assumed(1.5), link="logit"),
    Parameter("N0", 1e7, "cells", "CD19+ cells in blood at the infusion", OWN, assumed(2.0)),
    Parameter("tau_i", 9.606881, "day", "lifespan of infused cells", TABLE),
    Parameter("tau_e", 3.101849, "day", "lifespan of effectors", TABLE),
    Parameter("tau_m8", 180, "day", "lifespan of CD8+ memory", TABLE, fixed=HELD),
    Parameter("tau_m4", 240, "day", "lifespan of CD4+ memory", TABLE, fixed=HELD),
    Parameter("tact8", 18, "h", "time to activation, CD8+", TABLE, fixed=HELD),
    Parameter("tact4", 36, "h", "time to activation, CD4+", TABLE, fixed=HELD),
    Parameter("mAg", 5000, "1/cell", "CD19 per cell", TABLE, fixed=HELD),
    Parameter("Kd", 1, "nM", "CD19 at which half of the CARs are bound", TABLE, fixed=HELD),
    Parameter("kkill", 1e-9, "1/(s*cell)", "maximal killing per CD8+ effector", TABLE,
              fixed="the authors calibrated it for all patients"),
    Parameter("tdouble", 16, "day", "doubling time of CD19+ cells", TABLE,
              fixed="the authors tuned it for all patients"),
    Parameter("V", 5, "L", "blood", TABLE, fixed=HELD),
    Parameter("Lss", 5e8, "1/L", "other lymphocytes of a healthy person", TABLE, fixed=HELD),
    Parameter("tau_L", 30, "day", "their lifespan", TABLE, fixed=HELD),
    Parameter("fdepl", 0.9, "-", "share of them that was depleted", TABLE, link="logit",
              fixed=HELD),
)
PER_NM = 6.022e14  # molecules in a litre at 1 nM
SECONDS, HOURS, UL = 86400.0, 24.0, 1e6  # in a day, in a day, in a litre


def rates(t, y, p):
    cd19 = p.mAg * y.T / (p.V * PER_NM)
    fb = cd19 / (p.Kd + cd19)
    active8, active4 = HOURS / p.tact8 * fb * y.I8, HOURS / p.tact4 * fb * y.I4
    divided = 2.0**p.ndiv
    killed = p.kkill * SECONDS * fb * y.E8 * y.T
    return {
        "I8": -active8 - y.I8 / p.tau_i,
        "E8": divided * active8 - y.E8 / p.tau_e,
        "M8": p.fmem * y.E8 / p.tau_e - y.M8 / p.tau_m8,
        "I4": -active4 - y.I4 / p.tau_i,
        "E4": divided * active4 - y.E4 / p.tau_e,
        "M4": p.fmem * y.E4 / p.tau_e - y.M4 / p.tau_m4,
        "T": jnp.log(2.0) / p.tdouble * y.T - killed,
        "L": (p.Lss * p.V - y.L) / p.tau_L,
    }


def initial(p):
    infused = p.WT * p.dose
    return {"I8": p.fCD8 * infused, "E8": 0.0, "M8": 0.0, "I4": (1.0 - p.fCD8) * infused,
            "E4": 0.0, "M4": 0.0, "T": p.N0, "L": (1.0 - p.fdepl) * p.Lss * p.V}


def observe(t, y, p):
    cells = y.I8 + y.E8 + y.M8 + y.I4 + y.E4 + y.M4
    return {"CAR": cells / (p.V * UL), "Bpct": 100.0 * y.T / (y.T + y.L)}


def derive(p):
    return {
        "offspring": 2.0**p.ndiv,
        "half_life_E": jnp.log(2.0) * p.tau_e,
        "half_life_M8": jnp.log(2.0) * p.tau_m8,
        "half_life_M4": jnp.log(2.0) * p.tau_m4,
        "T_half_bound": p.Kd * p.V * PER_NM / p.mAg,
    }


TYPICAL = {p.name: p.typical for p in PARAMETERS}
INDIVIDUAL = {  # WT, fCD8, N0, ndiv, fmem
    "F0104": (73, 0.333, 1e7, 21.41559, 2.514715e-3),
    "F0106": (57, 0.446, 1e7, 22.21255, 2.367866e-3),
    "F0107": (48, 0.461, 1e7, 21.15557, 1.336295e-2),
    "F0109": (88, 0.833, 1e5, 27.70301, 2.076709e-3),
    "F0110": (67, 0.820, 1e5, 19.58777, 0.1),
    "F0111": (76, 0.943, 1e5, 22.85367, 0.1),
    "F0118": (80, 0.290, 1e7, 15.88462, 2.267028e-3),
    "F0119": (62, 0.633, 1e7, 21.48104, 2.91e-10),
    "F0121": (62, 0.610, 3.834397e6, 18.06981, 1.182971e-3),
    "F0122": (62, 0.546, 1.162658e6, 19.63343, 7.041995e-3),
    "F0123": (63, 0.725, 1e5, 21.63407, 0.1),
    "F0125": (71, 0.376, 1.613397e6, 18.05807, 1.48e-7),
    "F0126": (68, 0.372, 2.798924e5, 22.42293, 4.57e-7),
}
MODEL = StructuralModel(
    title="CD4+ and CD8+ CAR T cells in lymphoma: activation by bound CARs, memory, B cells",
    source=Source("Minucci S et al. Front Syst Biol 2024;4:1380018", "10.3389/fsysb.2024.1380018"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("WT", "kg", "body weight"),
        Input("fCD8", "-", "share of CD8+ among the infused CAR T cells"),
        Input("dose", "cells/kg", "infused CAR T cells, all viable", default=1e6),
    ),
    states=(
        State("I8", "cells", "infused CD8+ CAR T cells", "log"),
        State("E8", "cells", "CD8+ effectors"),
        State("M8", "cells", "CD8+ memory"),
        State("I4", "cells", "infused CD4+ CAR T cells", "log"),
        State("E4", "cells", "CD4+ effectors"),
        State("M4", "cells", "CD4+ memory"),
        State("T", "cells", "CD19+ cells, healthy or not", "log"),
        State("L", "cells", "lymphocytes other than these"),
    ),
    outputs=(
        Output("CAR", "cells/uL", "CAR T cells in blood", dvid=1),
        Output("Bpct", "%", "B cells of all lymphocytes", dvid=2),
    ),
    derived=(
        Derived("offspring", "-", "2^ndiv: effectors from one activated cell"),
        Derived("half_life_E", "day", "ln 2 tau_e"),
        Derived("half_life_M8", "day", "ln 2 tau_m8"),
        Derived("half_life_M4", "day", "ln 2 tau_m4"),
        Derived("T_half_bound", "cells", "CD19+ cells that occupy half of the CARs"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    parameter_sets={
        title: {**TYPICAL, "dose": 1e6,
                **dict(zip(("WT", "fCD8", "N0", "ndiv", "fmem"), values, strict=True))}
        for title, values in INDIVIDUAL.items()},
    taxonomy=Taxonomy(
        "pkpd", "semi_mechanistic", ("car_t", "tumour", "other"),
        ("non_activated", "effector", "memory", "cd4", "cd8"),
        ("multi_population", "car_phenotypes", "receptor_or_antigen_density",
         "antigen_driven_expansion", "comedication_or_preconditioning"),
        ("blood",),
        laws={"growth": "exponential", "killing": "holling_2", "expansion": "michaelis_menten",
              "memory": "first_order"},
        parameters_from="mixed", fit_level="individual", setting=("clinical",),
        measured=("blood_qpcr", "blood_flow"), product="IM19", antigen="CD19",
        disease="B-cell NHL"),
    doubts=(
        "This is a public library's reduction of the published 25 states: without the 5.4 h of "
        "each division the peak comes some 5 days before the article's.",
        "13 patients, each fitted alone: typical values are those of F0104, near the median of "
        "ndiv and fmem, and every spread is assumed. Which dose a patient was given was not "
        "found; 1e6 cells/kg is the article's.",
        "Nothing limits T: past some 100 days, where few effectors are left, its growth is the "
        "equation's, not a patient's.",
        "Lss is 1e9 per L in the text, and 15877 CD19 per cell is listed besides 5000.",
    ),
)
