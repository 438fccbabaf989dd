"""CAR T cells in a mouse with a tumour: blood, seven organs, lymph, CAR-antigen complexes.

From blood CB, cells pass the lung into the vessels of the other organs (Cv) at their blood flow
Q, leave these for the interstitium (Ce) at J and return by lymph at L, through the node (CLN);
blood from spleen and gut passes the liver, where they are lost at Kdep. In the tumour, CAR T
cells A bind antigen: the complexes TE per tumour cell, x, drive expansion Kact and, through four
stages of delay K1 to K4, the killing of the volume V. Organs in cells/mL of their vessels or
interstitium, B and A in cells, TE per mL of tumour interstitium, time in hours after the dose
into blood.
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

CODE = "public port of the supplement"
BODY = "physiology of a mouse of 25 g, from the literature"
FITTED = "the authors fitted it to biodistribution in other mice"
VITRO = "measured in vitro"
ORGANS = {  # blood flow, lymph flow (mL/h), transmigration (1/h), vessels, interstitium (mL)
    "lung": (373, 0.0746, 4705.13, 0.0295, 0.0384),
    "spleen": (8.18, 0.00164, 1799.76, 0.0154, 0.0254),
    "kidney": (68.5, 0.0137, 296.75, 0.0289, 0.0788),
    "brain": (11.8, 0.00236, 1.4, 0.0107, 0.0873),
    "other": (192.82, 0.0386, 86.8, 0.55209, 4.11183),
    "gut": (75.4, 0.0151, 9.05, 0.0166, 0.1815),
    "liver": (10.3, 0.00206, 716.49, 0.164, 0.385),
}
FED = ("spleen", "gut")  # their blood goes through the liver


def of_organ(o, Q, L, J, Vv, Ve):
    return (Parameter(f"Q_{o}", Q, "mL/h", f"blood flow: {o}", CODE, fixed=BODY),
            Parameter(f"L_{o}", L, "mL/h", f"lymph flow: {o}", CODE, fixed=BODY),
            Parameter(f"J_{o}", J, "1/h", f"transmigration: {o}", CODE, fixed=FITTED),
            Parameter(f"Vv_{o}", Vv, "mL", f"vessels: {o}", CODE, fixed=BODY),
            Parameter(f"Ve_{o}", Ve, "mL", f"interstitium: {o}", CODE, fixed=BODY))


PARAMETERS = (
    *(p for o, values in ORGANS.items() for p in of_organ(o, *values)),
    Parameter("Q_T", 6, "mL/h", "blood flow of the tumour", CODE, fixed=BODY),
    Parameter("L_T", 0.0012, "mL/h", "lymph flow of the tumour", CODE, fixed=BODY),
    Parameter("J_T", 10.35, "1/h", "transmigration into the tumour", CODE, fixed=FITTED),
    Parameter("fv", 0.113, "-", "vascular share of the tumour", CODE, link="logit", fixed=BODY),
    Parameter("L_LN", 0.14926, "mL/h", "lymph flow through the node", CODE, fixed=BODY),
    Parameter("V_LN", 0.113, "mL", "lymph node", CODE, fixed=BODY),
    Parameter("V_B", 0.944, "mL", "blood", CODE, fixed=BODY),
    Parameter("Kdep", 0.0288, "1/h", "loss in the interstitium of the liver", CODE, fixed=FITTED),
    Parameter("kon", 1.08e-12, "mL/h", "association, per molecule", CODE, fixed=VITRO),
    Parameter("koff", 6.48, "1/h", "dissociation", CODE, fixed=VITRO),
    Parameter("CAR", 5000, "1/cell", "CARs per CAR T cell", CODE, fixed=VITRO),
    Parameter("TAA", 12590, "1/cell", "antigen per tumour cell", CODE, fixed=VITRO),
    Parameter("TC", 1e8, "1/mL", "tumour cells per mL of tumour", CODE,
              fixed="the authors held it"),
    Parameter("Kexp", 0.0906, "1/h", "maximal expansion in the tumour", CODE, assumed(0.3)),
    Parameter("EC50", 5.18, "1/cell", "complexes per tumour cell at half of it", CODE),
    Parameter("Kkmax", 0.0486, "1/h", "maximal killing", CODE, assumed(0.3)),
    Parameter("IC50", 9.94, "1/cell", "complexes per tumour cell at half of it", CODE),
    Parameter("tau", 21.6, "h", "time in each of four stages of delay before death", CODE),
    Parameter("g1", 1, "-", "Hill exponent of expansion", CODE, fixed="the authors held it"),
    Parameter("g2", 1, "-", "Hill exponent of killing", CODE, fixed="the authors held it"),
    Parameter("Kg", 0.00305, "1/h", "growth of the tumour", CODE, assumed(0.2)),
)
PER_NM = 6.022e11  # molecules in a mL at 1 nM
NONE = 1e-30  # complexes per cell: below, a power has no slope


def bound(x, g, half):
    """The share x^g / (x^g + half^g), of complexes that rounding may take below 0."""
    some = jnp.maximum(x, NONE) ** g
    return some / (some + half**g)


def rates(t, y, p):
    Q, L, J, Vv, Ve = ({o: getattr(p, f"{n}_{o}") for o in ORGANS}
                       for n in ("Q", "L", "J", "Vv", "Ve"))
    Cv, Ce = ({o: getattr(y, f"{n}_{o}") for o in ORGANS} for n in ("Cv", "Ce"))
    CB = y.B / p.V_B
    dy = {}
    for o in ORGANS:
        out = {"lung": Q["lung"], "liver": sum(Q[k] - L[k] for k in ("liver", *FED))}.get(
            o, Q[o] - L[o])
        given = Q[o] * Cv["lung"] if o != "lung" else (Q[o] + L[o]) * CB
        if o == "liver":
            given = given + sum((Q[k] - L[k]) * Cv[k] for k in FED)
        left = J[o] * Cv[o] * Vv[o]
        dy[f"Cv_{o}"] = (given - left - out * Cv[o]) / Vv[o]
        dy[f"Ce_{o}"] = (left - L[o] * Ce[o]) / Ve[o] - (p.Kdep * Ce[o] if o == "liver" else 0.0)
    V_tv, V_te = p.fv * y.V, (1.0 - p.fv) * y.V
    CA = y.A / V_te
    free = CA - y.TE / p.CAR
    into_tumour = p.J_T * y.Cv_T * V_tv
    liver_out = sum(Q[k] - L[k] for k in ("liver", *FED)) * Cv["liver"]
    back = sum((Q[k] - L[k]) * Cv[k] for k in ("kidney", "brain", "other"))
    lymph = sum(L[o] * Ce[o] for o in ORGANS) + p.L_T * free
    x = y.TE / p.TC
    return {
        **dy,
        "B": -(Q["lung"] + L["lung"]) * CB + liver_out + back + (p.Q_T - p.L_T) * y.Cv_T
             + p.L_LN * y.CLN,
        "CLN": (lymph - p.L_LN * y.CLN) / p.V_LN,
        "Cv_T": (p.Q_T * Cv["lung"] - into_tumour - (p.Q_T - p.L_T) * y.Cv_T) / V_tv,
        "A": into_tumour - p.L_T * free + p.Kexp * bound(x, p.g1, p.EC50) * y.A,
        "TE": p.kon * (CA * p.CAR - y.TE) * (p.TC * p.TAA - y.TE) - p.koff * y.TE,
        "K1": (p.Kkmax * bound(x, p.g2, p.IC50) - y.K1) / p.tau,
        "K2": (y.K1 - y.K2) / p.tau,
        "K3": (y.K2 - y.K3) / p.tau,
        "K4": (y.K3 - y.K4) / p.tau,
        "V": (p.Kg - y.K4) * y.V,
    }


def initial(p):
    return {**dict.fromkeys((s.name for s in STATES), 0.0), "A": 1e-10, "V": p.V0 / 1000.0}


def observe(t, y, p):
    return {"blood": y.B / p.V_B, "lung": y.Ce_lung, "spleen": y.Ce_spleen, "liver": y.Ce_liver,
            "tumour": y.A / ((1.0 - p.fv) * y.V), "volume": 1000.0 * y.V}


def derive(p):
    return {
        "doubling_time_V": jnp.log(2.0) / p.Kg,
        "doubling_time_A": jnp.log(2.0) / p.Kexp,
        "KD": p.koff / p.kon / PER_NM,
        # of a maximal rate at or below Kg no number is enough
        "x_control": p.IC50 * (p.Kg / jnp.maximum(p.Kkmax - p.Kg, NONE)) ** (1.0 / p.g2),
    }


TYPICAL = {p.name: p.typical for p in PARAMETERS}


def construct(KD, TAA, Kkmax, Kg, **own):
    """The values that were found for a construct, in those of the anti-BCMA one."""
    return {**TYPICAL, "koff": TYPICAL["kon"] * KD * PER_NM, "TAA": TAA, "Kkmax": Kkmax, "Kg": Kg,
            **own}


STATES = (
    State("B", "cells", "in blood; doses go here"),
    *(State(f"{n}_{o}", "cells/mL", f"in {where} of the {o}") for o in ORGANS
      for n, where in (("Cv", "vessels"), ("Ce", "the interstitium"))),
    State("CLN", "cells/mL", "in the lymph node"),
    State("Cv_T", "cells/mL", "in vessels of the tumour"),
    State("A", "cells", "CAR T cells in the interstitium of the tumour"),
    State("TE", "1/mL", "CAR-antigen complexes in the tumour"),
    *(State(f"K{k}", "1/h", f"killing, stage {k} of its delay") for k in range(1, 5)),
    State("V", "mL", "volume of the tumour", "log"),
)
MODEL = StructuralModel(
    title="CAR T cells in mouse organs and a tumour: PBPK, CAR-antigen complexes, three antigens",
    source=Source("Singh AP et al. mAbs 2020;12:1688616", "10.1080/19420862.2019.1688616"),
    time_unit="h",
    parameters=PARAMETERS,
    inputs=(Input("V0", "mm3", "volume of the tumour at the dose", default=50.0,
                  equals="volume"),),
    states=STATES,
    doses=(Dose("B", 1e7),),
    outputs=(
        Output("blood", "cells/mL", "CAR T cells in blood", dvid=1),
        Output("lung", "cells/mL", "CAR T cells in the interstitium of the lung", dvid=2),
        Output("spleen", "cells/mL", "CAR T cells in the interstitium of the spleen", dvid=3),
        Output("liver", "cells/mL", "CAR T cells in the interstitium of the liver", dvid=4),
        Output("tumour", "cells/mL", "CAR T cells in the interstitium of the tumour", dvid=5),
        Output("volume", "mm3", "volume of the tumour", dvid=6),
    ),
    derived=(
        Derived("doubling_time_V", "h", "ln 2 / Kg: without CAR T cells"),
        Derived("doubling_time_A", "h", "ln 2 / Kexp: the shortest"),
        Derived("KD", "nM", "koff / kon"),
        Derived("x_control", "1/cell", "complexes per tumour cell above which it shrinks"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    solver="rodas4",  # blood passes the lung 10,000 times an hour
    parameter_sets={
        "BCMA": TYPICAL,
        "CD19, rest as BCMA": construct(5.0, 50000.0, 0.093, 0.00473, tau=56.6),
        "EGFR, rest as BCMA": construct(40.0, 30899.0, 0.0323, 0.00367),
    },
    taxonomy=Taxonomy(
        "pbpk_pd", "mechanistic", ("car_t", "tumour"),
        layers=("multi_population", "receptor_or_antigen_density", "antigen_driven_expansion",
                "habitats_or_topology", "organ_distribution"),
        habitats=("blood", "lymph_node", "tumour_site", "tissue"), distribution="pbpk",
        laws={"growth": "exponential", "killing": "bound_complexes",
              "expansion": "bound_complexes"},
        parameters_from="mixed", fit_level="population_mean", setting=("mouse",),
        measured=("blood_qpcr", "imaging_volume"), antigen="BCMA", disease="multiple myeloma"),
    doubts=(
        "Read through a public port of the supplement, not in the article; how precise its values "
        "are was not found, nor any spread between mice: every spread here is assumed. Loss in "
        "the liver is Kdep Ce, per time of a concentration.",
        "Complexes per tumour cell drive expansion too, with 1e8 tumour cells per mL throughout. "
        "Of the CD19 and EGFR constructs only KD, antigen, maximal killing, growth and, for CD19, "
        "tau were found; HER2 lacks its densities and is left out.",
        "Once the tumour is gone, its interstitium shrinks towards nothing and CAR T cells per mL "
        "of it mean little. No equation bounds a tumour that is not controlled.",
    ),
)
