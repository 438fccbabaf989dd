"""IL13Ra2 CAR T cells against glioma in a dish: growth, killing, proliferation or exhaustion.

Cancer cells X grow logistically and are killed in proportion to the CAR T cells Y, which
multiply (k2 above 0) or exhaust (k2 below 0) in proportion to X and die at theta. CAR T cells
are added at time 0, a day after seeding, at the ratio ET to the X0 cancer cells then there; a
well without them has ET = 0. Both populations in units of the cell index (CI) of the impedance
assay, time in days. The same equations for lesions: sahoo_2020_carrgo_lesion.
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

BARS = "Fig. 4, read off the bars"
SLOW = "a loss over years: killing assays last days"
PARAMETERS = (
    Parameter("rho", 0.72, "1/day", "growth of cancer cells", "Fig. 3, PBT138", assumed(0.2)),
    Parameter("K", 4.0, "CI", "carrying capacity", "assumed; Fig. 3 levels off at 3 to 6",
              assumed(0.2)),
    Parameter("k1", 4.1, "1/(CI day)", "killing", BARS, assumed(0.5)),
    Parameter("k2", 0.32, "1/(CI day)", "proliferation, or exhaustion below 0", BARS,
              assumed(0.5), link="identity"),
    Parameter("theta", 2.2e-4, "1/day", "death of CAR T cells", BARS, fixed=SLOW),
)


def rates(t, y, p):
    return {
        "X": p.rho * y.X * (1.0 - y.X / p.K) - p.k1 * y.X * y.Y,
        "Y": p.k2 * y.X * y.Y - p.theta * y.Y,
    }


def initial(p):
    return {"X": p.X0, "Y": p.ET * p.X0}


def observe(t, y, p):
    return {"X": y.X, "Y": y.Y}


def derive(p):
    return {
        "doubling_time_X": jnp.log(2.0) / p.rho,
        "Y_control": p.rho / p.k1,
        "A": p.theta / p.rho,
        "B": p.k2 * p.K / p.rho,
    }


def well(rho, ET, k1, k2, theta):
    return {"rho": rho, "K": 4.0, "k1": k1, "k2": k2, "theta": theta, "X0": 1.0, "ET": ET}


MODEL = StructuralModel(
    title="CARRGO: CAR T cells and glioma in killing assays",
    source=Source("Sahoo P et al. J R Soc Interface 2020;17:20190734", "10.1098/rsif.2019.0734"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("X0", "CI", "cancer cells when CAR T cells are added", equals="X"),
        Input("ET", "-", "CAR T cells per cancer cell at time 0; 0 if untreated"),
    ),
    states=(
        State("X", "CI", "cancer cells", "log"),
        State("Y", "CI", "CAR T cells"),
    ),
    outputs=(
        Output("X", "CI", "cancer cells, by impedance", dvid=1),
        Output("Y", "CI", "CAR T cells, by flow cytometry at the end", dvid=2),
    ),
    derived=(
        Derived("doubling_time_X", "day", "ln 2 / rho: far below K"),
        Derived("Y_control", "CI", "rho / k1: more Y than this shrink a small X"),
        Derived("A", "-", "theta / rho: loss of CAR T cells in units of growth"),
        Derived("B", "-", "k2 K / rho: CAR T cells and cancer cells coexist if B > A"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    parameter_sets={
        "PBT138 1:20": well(0.72, 0.05, 5.3, 0.05, 2.3e-4),
        "PBT138 1:10": well(0.72, 0.1, 4.1, 0.32, 2.2e-4),
        "PBT138 1:5": well(0.72, 0.2, 2.9, 1.05, 1.2e-4),
        "PBT030 1:20": well(1.07, 0.05, 25.6, 1.35, 0.0),
        "PBT030 1:10": well(1.07, 0.1, 13.7, 1.85, 2.3e-4),
        "PBT030 1:5": well(1.07, 0.2, 5.3, 2.5, 0.4e-4),
        "HT1080 1:20": well(2.1, 0.05, 6.0, 0.05, 0.8e-3),
        "HT1080 1:10": well(2.1, 0.1, 3.3, 0.06, 0.8e-3),
        "HT1080 1:5": well(2.1, 0.2, 1.9, 0.05, 0.8e-3),
    },
    taxonomy=Taxonomy(
        "pkpd", "mechanistic", ("car_t", "tumour"),
        layers=("multi_population", "antigen_driven_expansion"), habitats=("dish",),
        laws={"growth": "logistic", "killing": "mass_action", "expansion": "mass_action"},
        parameters_from="fitted", fit_level="individual", setting=("in_vitro",),
        measured=("cell_index",), antigen="IL13Ra2", disease="glioblastoma", in_review=True),
    doubts=(
        "k1, k2 and theta are read off bars (within about 5 %); K and X0 are assumed, their "
        "values being in a supplement that was not found; every spread is assumed.",
        "k1 and k2 change with the E:T ratio they were fitted at: the equations do not hold "
        "across ratios. The text has k2 below 0 for HT1080, its figure slightly above.",
    ),
)
