"""CAR T cells in a mouse with a liver tumour: blood, lung, gut, spleen, liver, lymph, the tumour.

Cells flow with blood and lymph (Q, q and L, mL/h, times a concentration), leave vessels V for the
interstitium I at J (1/h, of an amount) and are lost in that of the lung at kel. The tumour takes
qTha, qTgi and qTs of the flows from the hepatic artery, gut and spleen; it and its vessels grow
with its cells. In its interstitium free CAR T cells IT bind free tumour cells F through the
copies of their antigen; a complex X ends with the tumour cell dead and the CAR T cell free
(kkill), and while it lasts makes CAR T cells at kpro, less the more tumour cells there are (half
at KI). Free and bound, the tumour has T = F + X cells; the article writes T and X.

The usual dose is 3e6 cells into Aven, intravenous. One into the hepatic artery goes into VT, one
into the portal vein into VT with its share fpv and into VH with the rest. Cells, mL, time in
hours after the dose.
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

FIT, BODY, TEXT = "Table 1", "Table S3", "supplement, model equations"
PHYSIOLOGY = "physiology of a mouse, from the literature"
RATE = "the authors took or derived it from the literature"
OWN = "assumed by the authors"
PARAMETERS = (
    Parameter("Q", 678, "mL/h", "blood flow through the lung", BODY, fixed=PHYSIOLOGY),
    Parameter("Vart", 0.8585, "mL", "arterial blood", BODY, fixed=PHYSIOLOGY),
    Parameter("Vven", 0.8585, "mL", "venous blood", BODY, fixed=PHYSIOLOGY),
    Parameter("LL", 0.746, "mL/h", "lymph flow of the lung", BODY, fixed=PHYSIOLOGY),
    Parameter("VvL", 0.0536, "mL", "vessels of the lung", BODY, fixed=PHYSIOLOGY),
    Parameter("ViL", 0.0384, "mL", "interstitium of the lung", BODY, fixed=PHYSIOLOGY),
    Parameter("JL", 1843, "1/h", "transmigration in the lung", BODY, fixed=RATE),
    Parameter("kel", 0.84, "1/h", "loss in the interstitium of the lung", BODY, fixed=RATE),
    Parameter("Qo", 507.42, "mL/h", "blood flow through other tissue", BODY, fixed=PHYSIOLOGY),
    Parameter("Lo", 0.549, "mL/h", "lymph flow of other tissue", BODY, fixed=PHYSIOLOGY),
    Parameter("Vvo", 1.076, "mL", "vessels of other tissue", BODY, fixed=PHYSIOLOGY),
    Parameter("Vio", 4.278, "mL", "interstitium of other tissue", BODY, fixed=PHYSIOLOGY),
    Parameter("Jo", 16.7, "1/h", "transmigration in other tissue", BODY, fixed=RATE),
    Parameter("LLN", 1.65, "mL/h", "lymph flow through the nodes", BODY, fixed=PHYSIOLOGY),
    Parameter("VLN", 0.113, "mL", "lymph nodes", BODY, fixed=PHYSIOLOGY),
    Parameter("Qha", 18.7, "mL/h", "blood flow of the hepatic artery", BODY, fixed=PHYSIOLOGY),
    Parameter("LH", 0.1874, "mL/h", "lymph flow of the liver with its tumour", BODY,
              fixed=PHYSIOLOGY),
    Parameter("VvH", 0.298, "mL", "vessels of the liver", BODY, fixed=PHYSIOLOGY),
    Parameter("ViH", 0.385, "mL", "interstitium of the liver", BODY, fixed=PHYSIOLOGY),
    Parameter("JH", 126.9, "1/h", "transmigration in the liver", BODY, fixed=RATE),
    Parameter("RH", 2.5, "-", "retention in the liver and the tumour", BODY, fixed=RATE),
    Parameter("Qg", 137, "mL/h", "blood flow through the gut", BODY, fixed=PHYSIOLOGY),
    Parameter("Lg", 0.1508, "mL/h", "lymph flow of the gut", BODY, fixed=PHYSIOLOGY),
    Parameter("VvG", 0.03019, "mL", "vessels of the gut", BODY, fixed=PHYSIOLOGY),
    Parameter("ViG", 0.1815, "mL", "interstitium of the gut", BODY, fixed=PHYSIOLOGY),
    Parameter("JG", 18.1, "1/h", "transmigration in the gut", BODY, fixed=RATE),
    Parameter("Qs", 14.88, "mL/h", "blood flow through the spleen", BODY, fixed=PHYSIOLOGY),
    Parameter("Ls", 0.01636, "mL/h", "lymph flow of the spleen", BODY, fixed=PHYSIOLOGY),
    Parameter("VvS", 0.028, "mL", "vessels of the spleen", BODY, fixed=PHYSIOLOGY),
    Parameter("ViS", 0.0254, "mL", "interstitium of the spleen", BODY, fixed=PHYSIOLOGY),
    Parameter("JS", 114, "1/h", "transmigration in the spleen", BODY, fixed=RATE),
    Parameter("RS", 9.8, "-", "retention in the spleen", BODY, fixed=RATE),
    Parameter("qTha", 2, "mL/h", "of the hepatic artery through the tumour", BODY, fixed=OWN),
    Parameter("qTgi", 14.5, "mL/h", "of the gut's outflow through the tumour", BODY, fixed=OWN),
    Parameter("qTs", 1.5, "mL/h", "of the spleen's outflow through the tumour", BODY, fixed=OWN),
    Parameter("LTha", 0.004, "mL/h", "lymph flow of the tumour, arterial", BODY, fixed=OWN),
    Parameter("LTpv", 0.032, "mL/h", "lymph flow of the tumour, portal", BODY, fixed=OWN),
    Parameter("JT", 126.9, "1/h", "transmigration in the tumour", BODY, fixed=OWN),
    Parameter("kg", 0.00385, "1/h", "growth of free tumour cells", FIT, assumed(0.2)),
    Parameter("kpro", 0.115, "1/h", "CAR T cells made per complex, at most", FIT, assumed(0.2)),
    Parameter("KI", 3.84e7, "cells", "tumour cells that halve kpro", FIT, assumed(0.3)),
    Parameter("kkill", 0.1466, "1/h", "killing, per complex: twice the pleural tumour's", TEXT,
              assumed(0.2)),
    Parameter("koff", 6.85e-8, "1/h", "dissociation of a complex", FIT,
              fixed="a million times slower than the killing that ends a complex"),
    Parameter("kon", 1e6, "1/M/s", "association with one copy of the antigen", BODY,
              fixed="the authors held it: it acts only by its product with RTAA"),
    Parameter("RTAA", 1e4, "copies/cell", "antigen on a tumour cell", BODY, fixed=OWN),
    Parameter("Vcell", 518.3e-12, "mL/cell", "volume of a tumour cell", TEXT, fixed=RATE),
    Parameter("fi", 0.2, "-", "interstitial share of the tumour's volume", TEXT, link="logit",
              fixed=RATE),
    Parameter("fv", 0.15, "-", "vascular share of the tumour's volume", TEXT, link="logit",
              fixed=RATE),
)
PER_H = 3600.0 * 1000.0 / 6.02214076e23  # 1/(M s) in mL/h per copy


def occupied(x):
    """A number of cells: a step that slips below 0 counts as 0, with the slope of above."""
    return jnp.where(x >= 0, x, 0.0)


def tumour_volume(T, p):
    return p.Vcell * T / (1.0 - p.fi - p.fv)


def rates(t, y, p):
    IT, X = occupied(y.IT), occupied(y.X)
    V = tumour_volume(y.F + X, p)
    cart, cven = y.Aart / p.Vart, y.Aven / p.Vven
    cVL, cVO, cVH, cVG, cVS, cVT = (y.VL / p.VvL, y.VO / p.Vvo, y.VH / p.VvH, y.VG / p.VvG,
                                    y.VS / p.VvS, y.VT / (p.fv * V))
    cIL, cIO, cLN, cIT = y.IL / p.ViL, y.IO / p.Vio, y.LN / p.VLN, IT / (p.fi * V)
    cIH, cIG, cIS = y.IH / (p.RH * p.ViH), y.IG / p.ViG, y.IS / (p.RS * p.ViS)
    LT = p.LTha + p.LTpv
    LHn, tumour_out = p.LH - LT, p.qTha + p.qTgi + p.qTs - LT
    artery, gut, spleen = p.Qha - p.qTha, p.Qg - p.Lg - p.qTgi, p.Qs - p.Ls - p.qTs
    liver_out = artery + gut + spleen - LHn
    from_tumour = LT * cIT / p.RH
    bind = p.kon * PER_H * p.RTAA * cIT * y.F
    prol = p.kpro / (1.0 + (y.F + X) / p.KI) * X
    return {
        "Aart": cVL * p.Q - cart * (p.Qha + p.Qg + p.Qs + p.Qo),
        "Aven": cVO * (p.Qo - p.Lo) + cLN * p.LLN + cVH * liver_out + cVT * tumour_out
                - cven * (p.Q + p.LL),
        "VL": cven * (p.Q + p.LL) - p.JL * y.VL - cVL * p.Q,
        "IL": p.JL * y.VL - cIL * p.LL - p.kel * y.IL,
        "VO": cart * p.Qo - p.Jo * y.VO - cVO * (p.Qo - p.Lo),
        "IO": p.Jo * y.VO - cIO * p.Lo,
        "VH": cart * artery + cVG * gut + cVS * spleen - p.JH * y.VH - cVH * liver_out,
        "IH": p.JH * y.VH - cIH * LHn,
        "VG": cart * p.Qg - p.JG * y.VG - cVG * (p.Qg - p.Lg),
        "IG": p.JG * y.VG - cIG * p.Lg,
        "VS": cart * p.Qs - p.JS * y.VS - cVS * (p.Qs - p.Ls),
        "IS": p.JS * y.VS - cIS * p.Ls,
        "LN": cIL * p.LL + cIG * p.Lg + cIS * p.Ls + cIH * LHn + from_tumour + cIO * p.Lo
              - cLN * p.LLN,
        "VT": cart * p.qTha + cVG * p.qTgi + cVS * p.qTs - p.JT * y.VT - cVT * tumour_out,
        "IT": p.JT * y.VT - from_tumour - bind + (p.koff + p.kkill) * X + prol,
        "F": p.kg * y.F - bind + p.koff * X,
        "X": bind - (p.koff + p.kkill) * X,
    }


def initial(p):
    empty = dict.fromkeys((s.name for s in STATES), 0.0)
    return {**empty, "F": p.TB0}


def observe(t, y, p):
    T = y.F + y.X
    return {
        "blood": y.Aven / p.Vven,
        "lung": (y.VL + y.IL) / (p.VvL + p.ViL),
        "liver": (y.VH + y.IH) / (p.VvH + p.ViH),
        "spleen": (y.VS + y.IS) / (p.VvS + p.ViS),
        "V": tumour_volume(T, p),
        "T": T,
    }


def derive(p):
    portal = p.Qg - p.Lg + p.Qs - p.Ls
    return {
        "doubling_time_T": jnp.log(2.0) / p.kg,
        "half_life_X": jnp.log(2.0) / p.kkill,
        "V0": tumour_volume(p.TB0, p),
        "fpv": (p.qTgi + p.qTs) / portal,
    }


STATES = (
    State("Aart", "cells", "in arterial blood"),
    State("Aven", "cells", "in venous blood; intravenous doses go here"),
    State("VL", "cells", "in vessels of the lung"),
    State("IL", "cells", "in the interstitium of the lung"),
    State("VO", "cells", "in vessels of other tissue"),
    State("IO", "cells", "in the interstitium of other tissue"),
    State("VH", "cells", "in vessels of the liver"),
    State("IH", "cells", "in the interstitium of the liver"),
    State("VG", "cells", "in vessels of the gut"),
    State("IG", "cells", "in the interstitium of the gut"),
    State("VS", "cells", "in vessels of the spleen"),
    State("IS", "cells", "in the interstitium of the spleen"),
    State("LN", "cells", "in lymph nodes"),
    State("VT", "cells", "in vessels of the tumour; doses into the hepatic artery go here"),
    State("IT", "cells", "free in the interstitium of the tumour"),
    State("F", "cells", "tumour cells without a CAR T cell", "log"),
    State("X", "cells", "complexes of a CAR T and a tumour cell"),
)
MODEL = StructuralModel(
    title="CAR T cells and a liver tumour in mice: minimal PBPK, intravenous or into its vessels",
    source=Source("Tsai CH et al. J Pharmacokinet Pharmacodyn 2022;49:525-538",
                  "10.1007/s10928-022-09818-8"),
    time_unit="h",
    parameters=PARAMETERS,
    inputs=(Input("TB0", "cells", "tumour cells at the dose", default=2.5e8, equals="T"),),
    states=STATES,
    doses=(Dose("Aven", 3e6),),
    outputs=(
        Output("blood", "cells/mL", "CAR T cells in venous blood", dvid=1),
        Output("lung", "cells/mL", "CAR T cells in the lung", dvid=2),
        Output("liver", "cells/mL", "CAR T cells in the liver outside the tumour", dvid=3),
        Output("spleen", "cells/mL", "CAR T cells in the spleen", dvid=4),
        Output("V", "mL", "volume of the tumour", dvid=5),
        Output("T", "cells", "tumour cells, free and bound", dvid=6),
    ),
    derived=(
        Derived("doubling_time_T", "h", "ln 2 / kg: without CAR T cells"),
        Derived("half_life_X", "h", "ln 2 / kkill: of a complex"),
        Derived("V0", "mL", "volume of the tumour at the dose"),
        Derived("fpv", "-", "share of a dose into the portal vein that enters the tumour"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    solver="rodas4",  # cells leave the vessels of the lung 1843 times an hour
    taxonomy=Taxonomy(
        "pbpk_pd", "mechanistic", ("car_t", "tumour"),
        layers=("multi_population", "receptor_or_antigen_density", "antigen_driven_expansion",
                "habitats_or_topology", "organ_distribution"),
        habitats=("blood", "lymph_node", "tumour_site", "tissue"), distribution="pbpk",
        laws={"growth": "exponential", "killing": "conjugates", "expansion": "conjugates"},
        parameters_from="mixed", fit_level="population_mean", setting=("mouse",),
        measured=("imaging_volume",), disease="liver tumour"),
    doubts=(
        "The article was not read: equations and values are a public transcription's. The table "
        "prints the pleural kkill, 0.0733, the text says twice as much, which stands here; Jo "
        "is 94.3 in an alternative.",
        "Expansion and killing are those fitted to pleural tumours, and no spread between mice is "
        "published: every spread here is assumed. Outputs other than V are named as in the "
        "pleural model; V is T in mL: use one of them.",
    ),
)
