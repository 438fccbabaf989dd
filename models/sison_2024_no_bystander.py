"""CAR T cells alone against a mixed solid tumour in mice: the antigen-negative part escapes.

sison_2024 without its bystander T cells. Antigen-positive tumour Ts and antigen-negative Tr
share one capacity; CAR T cells C lyse Ts as a function of C / Ts, multiply with the square of
what is lysed per day, die, and are lost to Ts. Without a dose it is the authors' model of
untreated mice. At time 0, day 3 of the experiment, the tumour has V0 mm3, a share sp of it
positive; doses go into C (0.1 each at times 1 and 3, days 4 and 6). Volumes and T cells in mm3,
time in days after day 3.
"""

import jax.numpy as jnp

from carpk.laws import lysis_driven, ratio_dependent
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

CODE = "baseline of the authors' code"
UNSEEN = "T cells were not counted, only the tumour was measured"
SENSITIVE = "no response depends on it (Kruskal-Wallis, virtual mice)"
PARAMETERS = (
    Parameter("r1", 0.18, "1/day", "growth of positive tumour", CODE, assumed(0.2)),
    Parameter("r2", 0.21, "1/day", "growth of negative tumour", CODE, assumed(0.2)),
    Parameter("K1", 5100.0, "mm3", "capacity of the tumour", CODE, fixed=SENSITIVE),
    Parameter("l", 1.56, "-", "exponent of the ratio in lysis", CODE, assumed(0.2)),
    Parameter("s", 0.305, "-", "half-saturation of lysis", CODE, fixed="trades against l"),
    Parameter("d_C", 0.41, "1/day", "maximal lysis by CAR T cells", CODE, assumed(0.2)),
    Parameter("mu_C", 0.6, "1/day", "recruitment of CAR T cells", CODE, assumed(0.2)),
    Parameter("gamma_C", 2.93e-2, "1/day", "death of CAR T cells", CODE, fixed=SENSITIVE),
    Parameter("k", 2.019e-7, "1/day^2", "squared lysis at half of mu_C", CODE, fixed=UNSEEN),
    Parameter("w_C", 3e-5, "1/(mm3 day)", "loss of CAR T cells to the tumour", CODE,
              fixed=SENSITIVE),
    Parameter("K2", 1650.0, "mm3", "capacity of T cells", CODE, fixed=UNSEEN),
    Parameter("b", 1.4e-3, "mm3/day", "stands for bystanders in the capacity", CODE,
              fixed=UNSEEN),
)


def rates(t, y, p):
    V = y.Ts + y.Tr
    lysed = ratio_dependent(y.C, y.Ts, p.d_C, p.s, p.l)
    niche = -jnp.log((p.b + jnp.maximum(y.C, 0.0)) / p.K2)  # b, a rate, as in the code
    return {
        "Ts": p.r1 * y.Ts * (1.0 - V / p.K1) - lysed,
        "Tr": p.r2 * y.Tr * (1.0 - V / p.K1),
        "C": niche * lysis_driven(y.C, lysed / y.Ts, p.mu_C, p.k) - p.gamma_C * y.C
        - p.w_C * y.C * y.Ts,
    }


def initial(p):
    return {"Ts": p.V0 * p.sp, "Tr": p.V0 * (1.0 - p.sp), "C": 0.0}


def observe(t, y, p):
    return {"V": y.Ts + y.Tr, "C": y.C}


def derive(p):
    return {
        "doubling_time_Ts": jnp.log(2.0) / p.r1,
        "doubling_time_Tr": jnp.log(2.0) / p.r2,
        "half_life_C": jnp.log(2.0) / p.gamma_C,
    }


TYPICAL = {"V0": 50.0, **{p.name: p.typical for p in PARAMETERS}}
MODEL = StructuralModel(
    title="CAR T cells and an antigen-mixed tumour in mice, no bystanders",
    source=Source("Kara E et al. npj Syst Biol Appl 2024;10:105; preprint Sison et al.",
                  "10.1038/s41540-024-00435-4"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("sp", "-", "antigen-positive share of the tumour at time 0, above 0"),
        Input("V0", "mm3", "tumour at time 0", default=50.0, equals="V"),
    ),
    states=(
        State("Ts", "mm3", "antigen-positive tumour", "log"),
        State("Tr", "mm3", "antigen-negative tumour"),
        State("C", "mm3", "CAR T cells, as volume"),
    ),
    doses=(Dose("C", 0.1, at=1.0), Dose("C", 0.1, at=3.0)),
    outputs=(
        Output("V", "mm3", "tumour volume", dvid=1),
        Output("C", "mm3", "CAR T cells, as volume", dvid=2),
    ),
    derived=(
        Derived("doubling_time_Ts", "day", "ln 2 / r1: small and untreated"),
        Derived("doubling_time_Tr", "day", "ln 2 / r2: small"),
        Derived("half_life_C", "day", "ln 2 / gamma_C: without tumour"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    parameter_sets={f"{percent} % positive": {**TYPICAL, "sp": percent / 100}
                    for percent in (75, 100, 90, 50)},
    taxonomy=Taxonomy(
        "pkpd", "mechanistic", ("car_t", "tumour"),
        layers=("multi_population", "receptor_or_antigen_density", "antigen_driven_expansion"),
        habitats=("tumour_site",),
        laws={"growth": "logistic", "killing": "ratio_dependent", "expansion": "lysis_driven",
              "exhaustion": "mass_action"},
        parameters_from="fitted", fit_level="population_mean", setting=("mouse",),
        measured=("imaging_volume",), disease="AE17 mouse tumour"),
    doubts=(
        "Equations and values are those of the authors' code, the paper's own block was not "
        "read. The capacity of T cells is ln((b + C) / K2) there, with the bystanders' source b "
        "in the place of their number.",
        "The code doses on days 4 and 6, its comments say 7 and 9. The published spread is "
        "uniform within 0.25 to 1.5 or 0.7 to 1.3 of the baseline; 0.2 is near the latter.",
    ),
)
