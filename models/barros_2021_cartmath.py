"""CARTmath: effector and memory CAR T cells against a tumour grafted into immunodeficient mice.

Effectors CT kill the tumour T by mass action, are inhibited by it and turn into memory CM, which
a tumour that comes back calls to arms again. The tumour grows logistically. There is a rest
without escape only because memory waits: with rho - eps < phi < rho effectors alone die out,
and effectors with their memory outgrow their losses. Fewer than 1e-6 cells are extinct: such a
tumour grows no more, and such effectors fade out. Cells in the mouse, days after the tumour
is injected; CAR T cells are doses into CT, a challenge is a dose into T.
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

TABLE = "Table 2, HDLM-2"
BOUND = "phi must stay between rho - eps and rho; set by hand by the authors"
EXTINCT = 1e-6  # cells: the authors' simulator sets a state below it to 0
PARAMETERS = (
    Parameter("phi", 0.265, "1/day", "proliferation of effectors", TABLE, fixed=BOUND),
    Parameter("rho", 0.350, "1/day", "loss of effectors, death and conversion", TABLE,
              fixed=BOUND),
    Parameter("eps", 0.150, "1/day", "conversion of effectors into memory", TABLE, fixed=BOUND),
    Parameter("theta", 6.0e-6, "1/(cell day)", "call of memory by tumour cells", TABLE,
              assumed(0.35)),
    Parameter("alpha", 4.5e-8, "1/(cell day)", "inhibition of effectors by tumour cells", TABLE,
              assumed(0.35)),
    Parameter("mu", 5.0e-3, "1/day", "death of memory", TABLE,
              fixed="needs samples of CAR T cells over months"),
    Parameter("r", 5.650026e-2, "1/day", "growth of the tumour", TABLE, assumed(0.35)),
    Parameter("b", 1.404029e-12, "1/cell", "inverse carrying capacity", TABLE,
              fixed="a mouse dies long before"),
    Parameter("gamma", 3.715843e-6, "1/(cell day)", "killing per effector", TABLE,
              assumed(0.35)),
)
HDLM2 = {"T0": 2e6, **{p.name: p.typical for p in PARAMETERS}}
RAJI = {"T0": 3e6, "phi": 0.830, "rho": 0.8300536, "eps": 1.59795, "theta": 2.3e-4,
        "alpha": 1.248506e-8, "mu": 6.89e-7, "r": 0.5071721, "b": 0.0, "gamma": 3.365388e-8}


def present(x):
    """x, which fades as a square below the level of extinction; nothing below zero."""
    return x * jnp.clip(x / EXTINCT, 0.0, 1.0)


def rates(t, y, p):
    CT = present(y.CT)
    called = p.theta * y.T * y.CM
    growth = jnp.where(y.T >= EXTINCT, p.r * y.T * (1.0 - p.b * y.T), 0.0)
    return {
        "CT": (p.phi - p.rho) * CT + called - p.alpha * y.T * y.CT,
        "CM": p.eps * CT - called - p.mu * y.CM,
        "T": growth - p.gamma * CT * y.T,
    }


def initial(p):
    return {"CT": 0.0, "CM": 0.0, "T": p.T0}


def observe(t, y, p):
    return {"T": y.T, "CT": y.CT}


def derive(p):
    # at rest theta alpha T^2 - (theta v - alpha mu) T + (rho - phi) mu = 0
    loss = p.rho - p.phi
    middle = p.theta * (p.eps - loss) - p.alpha * p.mu
    half = 0.5 * (middle + jnp.sqrt(middle**2 - 4.0 * p.theta * p.alpha * loss * p.mu))
    residual = loss * p.mu / half
    return {
        "doubling_time_T": jnp.log(2.0) / p.r,
        "T_residual": residual,
        "T_escape": half / (p.theta * p.alpha),
        "CT_residual": p.r / p.gamma * (1.0 - p.b * residual),
    }


MODEL = StructuralModel(
    title="CARTmath: effector and memory CAR T cells against a xenograft",
    source=Source("Barros LRC et al. Cancers 2021;13:2941", "10.3390/cancers13122941"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(Input("T0", "cells", "tumour cells injected", default=2e6, equals="T"),),
    states=(
        State("CT", "cells", "effector CAR T cells"),
        State("CM", "cells", "memory CAR T cells"),
        State("T", "cells", "tumour cells", "log"),
    ),
    doses=(Dose("CT", 2e6, at=42.0),),
    outputs=(
        Output("T", "cells", "tumour by bioluminescence, one unit taken as a cell", dvid=1),
        Output("CT", "cells", "effector CAR T cells", dvid=2),
    ),
    derived=(
        Derived("doubling_time_T", "day", "ln 2 / r: far below 1 / b"),
        Derived("T_residual", "cells", "tumour held at rest by memory; NaN if there is no rest"),
        Derived("T_escape", "cells", "tumour at the other rest, a saddle: above it, it escapes"),
        Derived("CT_residual", "cells", "effectors beside T_residual"),
    ),
    solver="rodas4",  # memory turns over at theta T: many times a day, in RAJI 1e5 times
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    parameter_sets={
        "HDLM-2": HDLM2,
        "RAJI control": RAJI,
        "RAJI-IDO+": {**RAJI, "alpha": 1.461699e-8},
        "RAJI-IDO+ with 1-MT": {**RAJI, "alpha": 1.261662e-8},
    },
    taxonomy=Taxonomy(
        "pkpd", "mechanistic", ("car_t", "tumour"), ("effector", "memory"),
        ("multi_population", "car_phenotypes", "antigen_driven_expansion"),
        laws={"growth": "logistic", "killing": "mass_action", "memory": "call_by_antigen",
              "exhaustion": "rate_only"},
        parameters_from="mixed", fit_level="population_mean", setting=("in_vitro", "mouse"),
        measured=("imaging_volume", "blood_flow"), product="CAR-T 123 and CAR-T 19",
        antigen="CD123 or CD19", disease="HDLM-2 (Hodgkin) or RAJI (Burkitt)", in_review=True),
    doubts=(
        "Only r, gamma and b (HDLM-2) or r, gamma and alpha (RAJI) were calibrated; the authors "
        "set the others by hand. No spread was published: every one here is assumed.",
        "In the RAJI sets rho is below eps, so it cannot be the sum of death and conversion.",
        "The text gives about 7e5 memory cells at day 200 after a dose of 1.5e6; the equations "
        "give 1.1e6, and 7e5 at day 300.",
    ),
)
