"""CAR T cells and bystander T cells against a mixed solid tumour in mice: antigen escape.

Antigen-positive tumour Ts and antigen-negative Tr share one capacity. CAR T cells C lyse Ts;
endogenous bystander T cells B, primed by the lysis, attack both: each as a function of the ratio
of effectors to targets (de Pillis). Both T cells multiply with the square of what is lysed per
day, the less the nearer B + C are to K2, die, and are lost to the tumour. At time 0, day 3 of
the experiment, the tumour has V0 mm3, a share sp of it positive; doses go into C (0.1 each at
times 1 and 3, days 4 and 6). Volumes and T cells in mm3, time in days after day 3.
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
    Parameter("d_B", 0.30, "1/day", "maximal lysis by bystanders", CODE, assumed(0.2)),
    Parameter("mu_C", 0.6, "1/day", "recruitment of CAR T cells", CODE, assumed(0.2)),
    Parameter("mu_B", 0.89, "1/day", "recruitment of bystanders", CODE, fixed=SENSITIVE),
    Parameter("gamma_C", 2.93e-2, "1/day", "death of CAR T cells", CODE, fixed=SENSITIVE),
    Parameter("gamma_B", 7e-3, "1/day", "death of bystanders", CODE, fixed=SENSITIVE),
    Parameter("k", 2.019e-7, "1/day^2", "squared lysis at half of mu", CODE, fixed=UNSEEN),
    Parameter("w_C", 3e-5, "1/(mm3 day)", "loss of CAR T cells to the tumour", CODE,
              fixed=SENSITIVE),
    Parameter("w_B", 3.42e-6, "1/day", "loss of bystanders per tumour", CODE, fixed=UNSEEN),
    Parameter("K2", 1650.0, "mm3", "capacity of T cells", CODE, fixed=UNSEEN),
    Parameter("b", 1.4e-3, "mm3/day", "source of bystanders", CODE, fixed=UNSEEN),
    Parameter("B0", 0.1, "mm3", "bystanders at time 0", CODE, fixed=UNSEEN),
)
LEAST = 1e-12  # of T cells, mm3, in the logarithm: an untreated tumour takes B below 0


def rates(t, y, p):
    V, B = y.Ts + y.Tr, jnp.maximum(y.B, 0.0)
    lysed = ratio_dependent(y.C, y.Ts, p.d_C, p.s, p.l)
    lysed_s = ratio_dependent(B, y.Ts, p.d_B, p.s, p.l)
    lysed_r = ratio_dependent(B, y.Tr, p.d_B, p.s, p.l)
    niche = -jnp.log(jnp.maximum(B + y.C, LEAST) / p.K2)
    return {
        "Ts": p.r1 * y.Ts * (1.0 - V / p.K1) - lysed - lysed_s,
        "Tr": p.r2 * y.Tr * (1.0 - V / p.K1) - lysed_r,
        "C": niche * lysis_driven(y.C, lysed / y.Ts, p.mu_C, p.k) - p.gamma_C * y.C
        - p.w_C * y.C * y.Ts,
        "B": p.b + niche * lysis_driven(y.C, lysed_s / y.Ts, p.mu_B, p.k) - p.gamma_B * y.B
        - p.w_B * V,
    }


def initial(p):
    return {"Ts": p.V0 * p.sp, "Tr": p.V0 * (1.0 - p.sp), "C": 0.0, "B": p.B0}


def observe(t, y, p):
    return {"V": y.Ts + y.Tr, "C": y.C, "B": y.B}


def derive(p):
    return {
        "doubling_time_Ts": jnp.log(2.0) / p.r1,
        "doubling_time_Tr": jnp.log(2.0) / p.r2,
        "half_life_C": jnp.log(2.0) / p.gamma_C,
        "half_life_B": jnp.log(2.0) / p.gamma_B,
    }


TYPICAL = {"V0": 50.0, **{p.name: p.typical for p in PARAMETERS}}
MODEL = StructuralModel(
    title="CAR T cells, bystander T cells and an antigen-mixed tumour in mice",
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
        State("B", "mm3", "bystander T cells, as volume"),
    ),
    doses=(Dose("C", 0.1, at=1.0), Dose("C", 0.1, at=3.0)),
    outputs=(
        Output("V", "mm3", "tumour volume", dvid=1),
        Output("C", "mm3", "CAR T cells, as volume", dvid=2),
        Output("B", "mm3", "bystander T cells, as volume", dvid=3),
    ),
    derived=(
        Derived("doubling_time_Ts", "day", "ln 2 / r1: small and untreated"),
        Derived("doubling_time_Tr", "day", "ln 2 / r2: small and untreated"),
        Derived("half_life_C", "day", "ln 2 / gamma_C: without tumour"),
        Derived("half_life_B", "day", "ln 2 / gamma_B: without tumour and source"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    parameter_sets={f"{percent} % positive": {**TYPICAL, "sp": percent / 100}
                    for percent in (75, 90, 50)},
    taxonomy=Taxonomy(
        "pkpd", "mechanistic", ("car_t", "other", "tumour"),
        layers=("multi_population", "receptor_or_antigen_density", "antigen_driven_expansion",
                "t_cell_competition"),
        habitats=("tumour_site",),
        laws={"growth": "logistic", "killing": "ratio_dependent", "expansion": "lysis_driven",
              "competition": "gompertz", "exhaustion": "mass_action",
              "bystander": "ratio_dependent"},
        parameters_from="fitted", fit_level="population_mean", setting=("mouse",),
        measured=("imaging_volume",), disease="AE17 mouse tumour"),
    doubts=(
        "Equations and values are those of the authors' code, the paper's own block was not "
        "read: recruitment of bystanders is proportional to C, and their loss w_B does not "
        "depend on B, so that a large untreated tumour takes B below 0 (then they kill nothing).",
        "The code doses on days 4 and 6, its comments say 7 and 9. The published spread is "
        "uniform within 0.25 to 1.5 or 0.7 to 1.3 of the baseline; 0.2 is near the latter.",
        "Bystanders ignite within hours once about 0.7 % of Ts; in a mouse where that comes "
        "late, its moment is found only by many mesh steps.",
    ),
)
