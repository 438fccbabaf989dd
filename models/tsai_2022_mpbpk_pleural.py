"""CAR T cells in a mouse with a pleural tumour: blood, lung, lymph, other tissue, pleural space.

Cells flow with blood and lymph (Q and L, mL/h, times a concentration), leave vessels for the
interstitium at J (1/h, of an amount) and are lost in that of the lung at kel. In the pleural
space, which the tumour enlarges, free CAR T cells PS bind free tumour cells F through the copies
of their antigen; a complex X ends with the tumour cell dead and the CAR T cell free (kkill), and
while it lasts makes CAR T cells at kpro, less the more tumour cells there are (half at KI).
Free and bound, the tumour has T = F + X cells, TB0 at the start; the article writes T and X, and
F = T - X, which becomes small beside both once the tumour is overrun, is integrated here.

The usual dose is 1e6 cells into Aven, intravenous. An intrapleural one goes into PS. Cells, mL,
time in hours after the dose.
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

FIT, BODY, LIGHT, TEXT = "Table 1", "Table S2", "Table S4", "supplement, model equations"
PHYSIOLOGY = "physiology of a mouse of 28 g, from the literature"
RATE = "the authors took or derived it from the literature"
ASSAY = "of the assay"
PARAMETERS = (
    Parameter("Q", 678, "mL/h", "blood flow through the lung", BODY, fixed=PHYSIOLOGY),
    Parameter("Vart", 0.8585, "mL", "arterial blood", BODY, fixed=PHYSIOLOGY),
    Parameter("Vven", 0.8585, "mL", "venous blood", BODY, fixed=PHYSIOLOGY),
    Parameter("LL", 0.746, "mL/h", "lymph flow of the lung", BODY, fixed=PHYSIOLOGY),
    Parameter("VvL", 0.0536, "mL", "vessels of the lung", BODY, fixed=PHYSIOLOGY),
    Parameter("ViL", 0.0384, "mL", "interstitium of the lung", BODY, fixed=PHYSIOLOGY),
    Parameter("JL", 1843, "1/h", "transmigration in the lung", BODY, fixed=RATE),
    Parameter("kel", 0.84, "1/h", "loss in the interstitium of the lung", BODY, fixed=RATE),
    Parameter("Qo", 678, "mL/h", "blood flow through other tissue", BODY, fixed=PHYSIOLOGY),
    Parameter("Lo", 0.904, "mL/h", "lymph flow of other tissue", BODY, fixed=PHYSIOLOGY),
    Parameter("Vvo", 1.432, "mL", "vessels of other tissue", BODY, fixed=PHYSIOLOGY),
    Parameter("Vio", 4.870, "mL", "interstitium of other tissue", BODY, fixed=PHYSIOLOGY),
    Parameter("Jo", 41.4, "1/h", "transmigration in other tissue", BODY, fixed=RATE),
    Parameter("LLN", 1.65, "mL/h", "lymph flow through the nodes", BODY, fixed=PHYSIOLOGY),
    Parameter("VLN", 0.113, "mL", "lymph nodes", BODY, fixed=PHYSIOLOGY),
    Parameter("LPS", 0.033, "mL/h", "lymph flow of the pleural space", BODY, fixed=PHYSIOLOGY),
    Parameter("ViPS", 0.00728, "mL", "pleural space without a tumour", BODY, fixed=PHYSIOLOGY),
    Parameter("JPS", 0.119, "1/h", "from the lung into the pleural space", FIT, assumed(0.5)),
    Parameter("RPS", 2.88, "-", "retention in the pleural space", FIT,
              fixed="acts with JPS, and expansion outweighs what lymph carries away"),
    Parameter("kg", 0.00385, "1/h", "growth of free tumour cells", FIT, assumed(0.2)),
    Parameter("kpro", 0.115, "1/h", "CAR T cells made per complex, at most", FIT, assumed(0.2)),
    Parameter("KI", 3.84e7, "cells", "tumour cells that halve kpro", FIT, assumed(0.3)),
    Parameter("kkill", 0.0733, "1/h", "killing, per complex", FIT, assumed(0.2)),
    Parameter("koff", 6.85e-8, "1/h", "dissociation of a complex", FIT,
              fixed="a million times slower than the killing that ends a complex"),
    Parameter("kon", 1e6, "1/M/s", "association with one copy of the antigen", BODY,
              fixed="the authors held it: it acts only by its product with RTAA"),
    Parameter("RTAA", 1e4, "copies/cell", "antigen on a tumour cell", BODY,
              fixed="assumed by the authors"),
    Parameter("Vcell", 518.3e-12, "mL/cell", "volume of a tumour cell", TEXT, fixed=RATE),
    Parameter("fi", 0.2, "-", "interstitial share of the tumour's volume", TEXT, link="logit",
              fixed=RATE),
    Parameter("S1", 0.311398, "photons/s/cell", "light of a CAR T cell", LIGHT, fixed=ASSAY),
    Parameter("S2", 1, "photons/s/cell", "light of a tumour cell", LIGHT, fixed=ASSAY),
    Parameter("B2", 754_800, "photons/s", "light without a tumour", LIGHT, fixed=ASSAY),
)
PER_H = 3600.0 * 1000.0 / 6.02214076e23  # 1/(M s) in mL/h per copy


def occupied(x):
    """A number of cells: a step that slips below 0 counts as 0, with the slope of above."""
    return jnp.where(x >= 0, x, 0.0)


def pleural_volume(T, p):
    return p.ViPS + p.Vcell * T / (1.0 - p.fi)


def rates(t, y, p):
    PS, X = occupied(y.PS), occupied(y.X)
    T = y.F + X
    VPS = pleural_volume(T, p)
    cart, cven, cVL, cIL = y.Aart / p.Vart, y.Aven / p.Vven, y.VL / p.VvL, y.IL / p.ViL
    cVO, cIO, cLN, cPS = y.VO / p.Vvo, y.IO / p.Vio, y.LN / p.VLN, PS / VPS
    bind = p.kon * PER_H * p.RTAA * cPS * y.F
    prol = p.kpro / (1.0 + T / p.KI) * X
    return {
        "Aart": cVL * p.Q - cart * p.Qo,
        "Aven": cVO * (p.Qo - p.Lo) + cLN * p.LLN - cven * (p.Q + p.LL),
        "VL": cven * (p.Q + p.LL) - p.JL * y.VL - cVL * p.Q,
        "IL": p.JL * y.VL - cIL * (p.LL - p.LPS) - p.kel * y.IL - p.JPS * y.IL,
        "VO": cart * p.Qo - p.Jo * y.VO - cVO * (p.Qo - p.Lo),
        "IO": p.Jo * y.VO - cIO * p.Lo,
        "LN": cIL * (p.LL - p.LPS) + p.LPS / p.RPS * cPS + cIO * p.Lo - cLN * p.LLN,
        "PS": p.JPS * y.IL - p.LPS / p.RPS * cPS - bind + (p.koff + p.kkill) * X + prol,
        "F": p.kg * y.F - bind + p.koff * X,
        "X": bind - (p.koff + p.kkill) * X,
    }


def initial(p):
    empty = dict.fromkeys(("Aart", "Aven", "VL", "IL", "VO", "IO", "LN", "PS", "X"), 0.0)
    return {**empty, "F": p.TB0}


def observe(t, y, p):
    T, bound = y.F + y.X, y.PS + y.X
    return {
        "blood": y.Aven / p.Vven,
        "lung": (y.VL + y.IL) / (p.VvL + p.ViL),
        "pleural": bound / pleural_volume(T, p),
        "BLI_C": p.S1 * (y.Aart + y.Aven + y.VL + y.IL + y.VO + y.IO + y.LN + bound),
        "BLI_T": p.S2 * T + p.B2,
        "T": T,
    }


def derive(p):
    return {
        "doubling_time_T": jnp.log(2.0) / p.kg,
        "half_life_X": jnp.log(2.0) / p.kkill,
        "VPS0": pleural_volume(p.TB0, p),
    }


MODEL = StructuralModel(
    title="CAR T cells and a pleural tumour in mice: minimal PBPK, intravenous or intrapleural",
    source=Source("Tsai CH et al. J Pharmacokinet Pharmacodyn 2022;49:525-538",
                  "10.1007/s10928-022-09818-8"),
    time_unit="h",
    parameters=PARAMETERS,
    inputs=(Input("TB0", "cells", "tumour cells at the dose; 5.9e7 to 3e8 in the arms fitted",
                  default=1e8, equals="T"),),
    states=(
        State("Aart", "cells", "in arterial blood"),
        State("Aven", "cells", "in venous blood; intravenous doses go here"),
        State("VL", "cells", "in vessels of the lung"),
        State("IL", "cells", "in the interstitium of the lung"),
        State("VO", "cells", "in vessels of other tissue"),
        State("IO", "cells", "in the interstitium of other tissue"),
        State("LN", "cells", "in lymph nodes"),
        State("PS", "cells", "free in the pleural space; intrapleural doses go here"),
        State("F", "cells", "tumour cells without a CAR T cell", "log"),
        State("X", "cells", "complexes of a CAR T and a tumour cell"),
    ),
    doses=(Dose("Aven", 1e6),),
    outputs=(
        Output("blood", "cells/mL", "CAR T cells in venous blood", dvid=1),
        Output("lung", "cells/mL", "CAR T cells in the lung", dvid=2),
        Output("pleural", "cells/mL", "CAR T cells in the pleural space, free and bound", dvid=3),
        Output("BLI_C", "photons/s", "bioluminescence of all CAR T cells", dvid=4),
        Output("BLI_T", "photons/s", "bioluminescence of the tumour and its background", dvid=5),
        Output("T", "cells", "tumour cells, free and bound", dvid=6),
    ),
    derived=(
        Derived("doubling_time_T", "h", "ln 2 / kg: without CAR T cells"),
        Derived("half_life_X", "h", "ln 2 / kkill: of a complex"),
        Derived("VPS0", "mL", "volume of the pleural space at the dose"),
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
        measured=("imaging_volume",), antigen="mesothelin", disease="pleural mesothelioma"),
    doubts=(
        "The article was not read: equations and values are a public transcription's. One naive "
        "pooled fit without spread between mice, so every spread here is assumed.",
        "S1 is printed as 311398 photons/s, taken here per 1e6 cells. T is what was counted in "
        "light: use BLI_T or T, not both. No equation stops a tumour that is not controlled.",
        "In the first hours cells pass the lung faster than any sampling follows, and the AUC of "
        "blood depends on the first samples: the printed ratio of routes does.",
    ),
)
