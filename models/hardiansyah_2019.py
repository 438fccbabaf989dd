"""CAR T cells, leukaemia and three cytokines in CLL: effector and memory in blood and tissue.

Effectors E replicate on the leukaemic cells B they meet, kill them at KBC and turn into memory
M where B is scarce, which returns where B abounds: both by the share fB = B / (B + h). E and M
exchange with tissue (Et, Mt) at kin and kout, far faster than anything else happens. Each
encounter of E and B releases IL-6, IL-10 and IFN-gamma over their baselines; IL-10 inhibits the
release of IFN-gamma. Cells in 1e9, cytokines in pg/mL, time in days after the first infusion;
the infusions are doses into E (10, 30 and 60 % on days 0, 1 and 2).
"""

import jax.numpy as jnp

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

S1, S2 = "Table S1", "Table S2, UPN1"
LITERATURE = "the authors took it from the literature"
PER = "pg/uL/(1e15 cells^2)/day"
PARAMETERS = (
    Parameter("rB", 9.30e-3, "1/day", "growth of leukaemic cells", S1, fixed=LITERATURE),
    Parameter("dB", 7.60e-3, "1/day", "death of leukaemic cells", S1, fixed=LITERATURE),
    Parameter("d6", 3.96, "1/day", "elimination of IL-6", S1, fixed=LITERATURE),
    Parameter("d10", 4.68, "1/day", "elimination of IL-10", S1, fixed=LITERATURE),
    Parameter("dG", 1.51, "1/day", "elimination of IFN-gamma", S1, fixed=LITERATURE),
    Parameter("aG", 0.59, "-", "IFN-gamma release left under full inhibition", S1, link="logit",
              fixed=LITERATURE),
    Parameter("bG", 650, "pg/mL", "IL-10 at half inhibition", S1, fixed=LITERATURE),
    Parameter("rM", 5.09e-2, "1/day", "growth of memory cells", S1, fixed=LITERATURE),
    Parameter("dM", 4.08e-1, "1/day", "death of memory cells in blood", S1, fixed=LITERATURE),
    Parameter("aM", 1, "1/day", "memory to effector, where B abounds", S1, fixed=LITERATURE),
    Parameter("kin", 76.78, "1/day", "blood to tissue", S1, fixed=LITERATURE),
    Parameter("kout", 1.84, "1/day", "tissue to blood", S1, fixed=LITERATURE),
    Parameter("h", 1e5, "1e9 cells", "leukaemic cells at half of fB", S1, fixed=LITERATURE),
    Parameter("P6", 0.18e-2, PER, "release of IL-6", S2, assumed(1.0)),
    Parameter("P10", 0.07e-2, PER, "release of IL-10", S2, assumed(1.0)),
    Parameter("PG", 0.03e-2, PER, "release of IFN-gamma", S2, assumed(1.0)),
    Parameter("rE", 16.16, "1/(1e9 cells)/day", "replication of effectors on B", S2),
    Parameter("dE", 23.04, "1/day", "loss of effectors in blood", S2, assumed(1.0)),
    Parameter("aE", 2.4e-2, "1/day", "effector to memory, where B is scarce", S2, assumed(0.8)),
    Parameter("KBC", 0.19, "1/(1e9 cells)/day", "killing of B by E", S2, assumed(1.0)),
)
S = 1e6  # (1e9 cells)^2 in 1e15 cells^2, and pg/uL in pg/mL


def rates(t, y, p):
    fB = y.B / (y.B + p.h)
    Fd = p.aG + (1.0 - p.aG) * p.bG / (y.IL10 + p.bG)
    met = S * y.B * y.E
    to_memory, to_effector = p.aE * y.E * (1.0 - fB), p.aM * y.M * fB
    return {
        "B": p.rB * y.B - p.dB * y.B - p.KBC * y.E * y.B,
        "E": p.rE * y.E * y.B - p.dE * y.E - p.kin * y.E + p.kout * y.Et - to_memory
             + to_effector,
        "Et": p.kin * y.E - p.kout * y.Et,
        "M": p.rM * y.M - p.dM * y.M - p.kin * y.M + p.kout * y.Mt + to_memory - to_effector,
        "Mt": p.kin * y.M - p.kout * y.Mt,
        "IL6": p.d6 * (p.IL60 - y.IL6) + p.P6 * met,
        "IL10": p.d10 * (p.IL100 - y.IL10) + p.P10 * met,
        "IFNg": p.dG * (p.IFNg0 - y.IFNg) + p.PG * met * Fd,
    }


def initial(p):
    return {"B": p.B0, "E": 0.0, "Et": 0.0, "M": 0.0, "Mt": 0.0, "IL6": p.IL60,
            "IL10": p.IL100, "IFNg": p.IFNg0}


def observe(t, y, p):
    return {"CART": y.E + y.M, "B": y.B, "IL6": y.IL6, "IL10": y.IL10, "IFNg": y.IFNg}


def derive(p):
    tissue = p.kin / p.kout
    late = (p.dM - p.rM) / (1.0 + tissue)
    return {
        "doubling_time_B": jnp.log(2.0) / (p.rB - p.dB),
        "B_control": (p.dE + p.aE) / p.rE,
        "tissue_to_blood": tissue,
        "late_loss": late,
        "late_half_life": jnp.log(2.0) / late,
    }


TYPICAL = {p.name: p.typical for p in PARAMETERS}
MODEL = StructuralModel(
    title="CAR T cells in CLL: blood and tissue, memory, IL-6, IL-10, IFN-gamma",
    source=Source("Hardiansyah D, Ng CM. Clin Transl Sci 2019;12:343-349", "10.1111/cts.12636"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("B0", "1e9 cells", "leukaemic cells at the infusion", equals="B"),
        Input("IL60", "pg/mL", "IL-6 before the infusion", default=1.7, equals="IL6"),
        Input("IL100", "pg/mL", "IL-10 before the infusion", default=4.5, equals="IL10"),
        Input("IFNg0", "pg/mL", "IFN-gamma before the infusion", default=2.3, equals="IFNg"),
    ),
    states=(
        State("B", "1e9 cells", "leukaemic B cells in blood", "log"),
        State("E", "1e9 cells", "effector CAR T cells in blood; infusions go here"),
        State("Et", "1e9 cells", "effector CAR T cells in tissue"),
        State("M", "1e9 cells", "memory CAR T cells in blood"),
        State("Mt", "1e9 cells", "memory CAR T cells in tissue"),
        State("IL6", "pg/mL", "IL-6"),
        State("IL10", "pg/mL", "IL-10"),
        State("IFNg", "pg/mL", "IFN-gamma"),
    ),
    doses=(Dose("E", 0.11), Dose("E", 0.33, at=1.0), Dose("E", 0.66, at=2.0)),
    outputs=(
        Output("CART", "1e9 cells", "all CAR T cells in blood", dvid=1),
        Output("B", "1e9 cells", "leukaemic cells in blood", dvid=2),
        Output("IL6", "pg/mL", "IL-6 in serum", dvid=3),
        Output("IL10", "pg/mL", "IL-10 in serum", dvid=4),
        Output("IFNg", "pg/mL", "IFN-gamma in serum", dvid=5),
    ),
    derived=(
        Derived("doubling_time_B", "day", "ln 2 / (rB - dB): without CAR T cells"),
        Derived("B_control", "1e9 cells", "(dE + aE) / rE: with fewer B effectors decline"),
        Derived("tissue_to_blood", "-", "kin / kout: of cells at rest"),
        Derived("late_loss", "1/day", "(dM - rM) / (1 + kin / kout): of memory, both places"),
        Derived("late_half_life", "day", "ln 2 / late_loss"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    solver="rodas4",  # blood and tissue exchange some 80 times a day
    parameter_sets={
        "UPN1": {**TYPICAL, "B0": 4.14, "IL60": 1.7, "IL100": 4.5, "IFNg0": 2.3},
        "UPN3": {**TYPICAL, "P6": 0.6e-2, "P10": 1.7e-2, "PG": 0.6e-2, "rE": 14.40, "dE": 1.44,
                 "aE": 1.2e-1, "KBC": 2.21, "B0": 0.93, "IL60": 1.0, "IL100": 0.5,
                 "IFNg0": 1.7},
    },
    taxonomy=Taxonomy(
        "qsp", "mechanistic", ("car_t", "tumour"), ("effector", "memory"),
        ("multi_population", "car_phenotypes", "antigen_driven_expansion", "organ_distribution",
         "cytokines"),
        ("blood", "tissue"), "compartments",
        laws={"growth": "exponential", "killing": "mass_action", "expansion": "mass_action",
              "memory": "low_antigen"},
        parameters_from="mixed", fit_level="individual", setting=("clinical",),
        measured=("blood_qpcr", "blood_flow", "serum_marker"), product="tisagenlecleucel",
        antigen="CD19", disease="CLL", in_review=True),
    doubts=(
        "Doses are in 1e9 cells: UPN1 was given 1.1, UPN3 0.014 in all. A dose leaves blood for "
        "tissue within an hour: of a small burden the highest level is the one just after it.",
        "The supplement was not read: equations and tables come from a public transcription that "
        "redraws the figures. Its gain of memory is aE E (1 - fB), where M for E is printed; h "
        "is printed per mL, and only 1e5 in 1e9 cells gives the published memory: fB is near 0.",
        "Two patients, each fitted alone: typical values are UPN1's, every spread is assumed; "
        "cytokine baselines were read off a figure.",
    ),
)
