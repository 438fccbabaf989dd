"""Ide-cel in myeloma: CAR-BCMA complexes drive expansion and killing, two serum markers follow.

Infused effectors Eb leave blood for the marrow (Et), where they expand, kill and turn into
memory (Mt, Mb in blood). X are the bound CAR-BCMA pairs: their number per CAR T cell sets the
expansion, their number per myeloma cell T the killing. Myeloma cells secrete M-protein P and
soluble BCMA S, each at a power of T / T0. CAR T cells are numbers of cells, so that volumes drop
out of the exchange; X and T are per litre of marrow, time in days after the infusion, which is a
dose into Eb. Binding settles within a second of a day that the cells take: the model is stiff.
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
    sd,
)
from carpk.taxonomy import Taxonomy

TABLE, CODE = "Table 1, clinical", "authors' code"
HELD = "the authors held it"
VITRO = "measured in vitro"
HALF = assumed(0.5, fixed="the authors assumed 50 %")
PARAMETERS = (
    Parameter("Kexpmax", 1.73, "1/day", "maximal expansion", TABLE, sd(0.22)),
    Parameter("EC50exp", 10, "1/cell", "complexes per CAR T cell at half of it", TABLE,
              fixed="CAR T cells bear thousands of complexes until they contract"),
    Parameter("Rm", 2e-5, "1/day", "effectors that turn into memory", TABLE),
    Parameter("Kel_e", 113, "1/day", "elimination of effectors from blood", TABLE, HALF),
    Parameter("Kel_m", 0.219, "1/day", "elimination of memory from blood", TABLE, HALF),
    Parameter("K12", 1.71, "1/day", "blood to marrow", TABLE, HALF),
    Parameter("K21", 0.176, "1/day", "marrow to blood", TABLE, HALF),
    Parameter("Kkillmax", 0.343, "1/day", "maximal killing", TABLE, sd(0.50)),
    Parameter("KC50", 2.24, "1/cell", "complexes per myeloma cell at half of it", TABLE,
              fixed=VITRO),
    Parameter("Kg", 0.008, "1/day", "growth of myeloma cells", TABLE, fixed=HELD),
    Parameter("gm", 0.215, "-", "power of T by which M-protein is secreted", TABLE, sd(0.21)),
    Parameter("gb", 1, "-", "power of T by which BCMA is shed", TABLE, sd(1.0), fixed=HELD),
    Parameter("kon", 7.103e4, "1/M/s", "association of CAR and BCMA", CODE, fixed=VITRO),
    Parameter("koff", 2.385e-3, "1/s", "dissociation of CAR and BCMA", CODE, fixed=VITRO),
    Parameter("AgCAR", 15000, "1/cell", "CARs per CAR T cell", TABLE, fixed=VITRO),
    Parameter("AgT", 12590, "1/cell", "BCMA per myeloma cell", TABLE, fixed=VITRO),
    Parameter("TransC", 0.002, "copies*L/ug", "copies/ug per CAR T cell/L", TABLE, fixed=HELD),
    Parameter("Vb", 5, "L", "blood", TABLE, fixed=HELD),
    Parameter("Vbm", 3.65, "L", "marrow", TABLE, fixed=HELD),
    Parameter("Km", 0.117, "1/day", "elimination of M-protein", TABLE, fixed=HELD),
    Parameter("Pm", 12.1, "pg/cell/day", "secretion of M-protein at T0", TABLE, fixed=HELD),
    Parameter("Kb", 0.7, "1/day", "elimination of soluble BCMA", TABLE, fixed=HELD),
    Parameter("Pb", 0.175, "pg/cell/day", "shedding of BCMA at T0", TABLE, fixed=HELD),
)
SECONDS, AVOGADRO = 86400.0, 6.023e23  # in a day; as the authors' code has it
GRAMS, NG_PER_ML = 1e-12, 1e-6  # in a pg; in a pg/L
NONE = 1e-30  # complexes per L: keeps a share finite where there is no cell left


def rates(t, y, p):
    cart = (y.Et + y.Mt) / p.Vbm
    X = jnp.maximum(y.X, 0.0)
    CF = jnp.maximum(cart * p.AgCAR - X, 0.0)  # CARs and BCMA not bound
    AF = jnp.maximum(y.T * p.AgT - X, 0.0)
    Kexp = p.Kexpmax * X / (p.EC50exp * jnp.maximum(cart, 0.0) + X + NONE)
    Kkill = p.Kkillmax * X / (p.KC50 * y.T + X + NONE)
    to_memory = p.Rm * y.Et
    return {
        "Eb": -p.K12 * y.Eb + p.K21 * y.Et - p.Kel_e * y.Eb,
        "Et": p.K12 * y.Eb - p.K21 * y.Et + Kexp * y.Et - to_memory,
        "Mb": -p.K12 * y.Mb + p.K21 * y.Mt - p.Kel_m * y.Mb,
        "Mt": p.K12 * y.Mb - p.K21 * y.Mt + to_memory,
        "X": p.kon * SECONDS / AVOGADRO * CF * AF - p.koff * SECONDS * y.X,
        "T": (p.Kg - Kkill) * y.T,
        "P": GRAMS * p.Pm * p.T0 * (y.T / p.T0) ** p.gm - p.Km * y.P,
        "S": NG_PER_ML * p.Pb * p.T0 * (y.T / p.T0) ** p.gb - p.Kb * y.S,
    }


def at_rest(p):
    """M-protein (g/L) and soluble BCMA (ng/mL) that T0 myeloma cells keep up."""
    return GRAMS * p.Pm * p.T0 / p.Km, NG_PER_ML * p.Pb * p.T0 / p.Kb


def initial(p):
    P, S = at_rest(p)
    return {"Eb": 0.0, "Et": 1e-6 * p.Vbm, "Mb": 0.0, "Mt": 0.0, "X": 0.0, "T": p.T0,
            "P": P, "S": S}


def observe(t, y, p):
    P, S = at_rest(p)
    return {"transgene": p.TransC * (y.Eb + y.Mb) / p.Vb,
            "Mprotein": 100.0 * (y.P - P) / P, "sBCMA": 100.0 * (y.S - S) / S}


def slowest(p, elimination):
    """Of the two rates at which cells leave blood and marrow together."""
    total = p.K12 + p.K21 + elimination
    return 0.5 * (total - jnp.sqrt(total**2 - 4.0 * p.K21 * elimination))


def derive(p):
    return {
        "late_half_life_E": jnp.log(2.0) / slowest(p, p.Kel_e),
        "late_half_life_M": jnp.log(2.0) / slowest(p, p.Kel_m),
        "doubling_time_E": jnp.log(2.0) / p.Kexpmax,
        "doubling_time_T": jnp.log(2.0) / p.Kg,
        "half_life_P": jnp.log(2.0) / p.Km,
        "half_life_S": jnp.log(2.0) / p.Kb,
        "KD": 1e9 * p.koff / p.kon,
        # of a maximal rate at or below Kg no number is enough
        "X_control": p.KC50 * p.Kg / jnp.maximum(p.Kkillmax - p.Kg, NONE),
    }


MODEL = StructuralModel(
    title="Ide-cel in myeloma: CAR-BCMA complexes, blood and marrow, M-protein, soluble BCMA",
    source=Source("Singh AP et al. CPT Pharmacometrics Syst Pharmacol 2021;10:362-376",
                  "10.1002/psp4.12598"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(Input("T0", "cells/L", "myeloma cells in marrow at the infusion", default=2.5e9),),
    states=(
        State("Eb", "cells", "effector CAR T cells in blood; infusions go here"),
        State("Et", "cells", "effector CAR T cells in marrow"),
        State("Mb", "cells", "memory CAR T cells in blood"),
        State("Mt", "cells", "memory CAR T cells in marrow"),
        State("X", "1/L", "CAR-BCMA complexes in marrow"),
        State("T", "cells/L", "myeloma cells in marrow", "log"),
        State("P", "g/L", "M-protein in serum"),
        State("S", "ng/mL", "soluble BCMA in serum"),
    ),
    doses=(Dose("Eb", 450e6),),
    outputs=(
        Output("transgene", "copies/ug", "CAR transgene in blood", dvid=1),
        Output("Mprotein", "%", "change of M-protein since the infusion", dvid=2,
               error="additive"),
        Output("sBCMA", "%", "change of soluble BCMA since the infusion", dvid=3,
               error="additive"),
    ),
    derived=(
        Derived("late_half_life_E", "day", "of effectors that no longer expand, both places"),
        Derived("late_half_life_M", "day", "of memory, both places"),
        Derived("doubling_time_E", "day", "ln 2 / Kexpmax: the shortest, loss left out"),
        Derived("doubling_time_T", "day", "ln 2 / Kg: without CAR T cells"),
        Derived("half_life_P", "day", "ln 2 / Km: M-protein"),
        Derived("half_life_S", "day", "ln 2 / Kb: soluble BCMA"),
        Derived("KD", "nM", "koff / kon"),
        Derived("X_control", "1/cell", "KC50 Kg / (Kkillmax - Kg): more complexes per myeloma "
                "cell than this shrink T"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    solver="rodas4",  # complexes form up to 3e5 times a day, effectors leave blood 100 times
    taxonomy=Taxonomy(
        "pkpd", "mechanistic", ("car_t", "tumour"), ("effector", "memory"),
        ("multi_population", "car_phenotypes", "receptor_or_antigen_density",
         "antigen_driven_expansion", "habitats_or_topology", "organ_distribution",
         "other_molecular"),
        ("blood", "bone_marrow"), "compartments",
        laws={"growth": "exponential", "killing": "bound_complexes",
              "expansion": "bound_complexes", "memory": "first_order"},
        parameters_from="mixed", fit_level="nlme", setting=("clinical",),
        measured=("blood_qpcr", "serum_marker"), product="idecabtagene vicleucel",
        antigen="BCMA", disease="multiple myeloma"),
    doubts=(
        "Read through public re-implementations that cite the supplement and the authors' code. "
        "There effectors kill T itself (as here) where the printed equation has their own number, "
        "and T0 and the few effectors in marrow at time 0 are given only there. EC50exp is 1.15 "
        "in some code: the peak is then some hundred times higher.",
        "Typical values were fitted to the mean curves of four doses, then spreads to individual "
        "M-protein responses; those of K12, K21, Kel_e and Kel_m were assumed to be 50 %, taken "
        "as SD 0.5, and the printed 4e-5 of Rm is none. The residual error was not found.",
        "Exposure hardly depends on the dose and steeply on T0, which no patient is without: "
        "give each patient's own. The paper's mouse layer, of these equations, is no model here: "
        "they do not return its figure (CAR T cells never contract), and two of its rates and "
        "its tumour at the start were guessed.",
    ),
)
