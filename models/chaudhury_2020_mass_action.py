"""Effector CAR T cells as predators of a tumour: expansion and killing by mass action.

Effectors CE expand on the tumour U at rho CE U and die at kE; the tumour grows exponentially at
g and is killed at d CE U. This is the predator-prey model of Lotka and Volterra: rho U -
kE ln U + d CE - g ln CE never changes, so the two go round for ever. Made for illustration, in
arbitrary units of cells per volume; time in days after the infusion.
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

CODE = "BIOMD0000001024"
PARAMETERS = (
    Parameter("rho", 0.0018, "1/(unit day)", "expansion per tumour unit", CODE, assumed(0.5)),
    Parameter("kE", 0.16, "1/day", "death of effectors", CODE, assumed(0.5)),
    Parameter("g", 0.15, "1/day", "growth of the tumour", CODE, assumed(0.5)),
    Parameter("d", 0.00015, "1/(unit day)", "killing per effector unit", CODE, assumed(0.5)),
)


def rates(t, y, p):
    return {
        "CE": p.rho * y.CE * y.U - p.kE * y.CE,
        "U": p.g * y.U - p.d * y.CE * y.U,
    }


def initial(p):
    return {"CE": p.CE0, "U": p.U0}


def observe(t, y, p):
    return {"CE": y.CE, "U": y.U}


def derive(p):
    return {
        "half_life_CE": jnp.log(2.0) / p.kE,
        "doubling_time_U": jnp.log(2.0) / p.g,
        "U_rest": p.kE / p.rho,
        "CE_rest": p.g / p.d,
    }


MODEL = StructuralModel(
    title="CAR T cells and tumour as predator and prey (review, model A)",
    source=Source("Chaudhury A et al. J Clin Pharmacol 2020;60(S1):S147-S159, Eqs 4-5",
                  "10.1002/jcph.1691"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("CE0", "unit", "effectors that engraft, at the infusion", default=10.0),
        Input("U0", "unit", "tumour at the infusion", default=900.0, equals="U"),
    ),
    states=(
        State("CE", "unit", "effector CAR T cells", "log"),
        State("U", "unit", "tumour cells", "log"),
    ),
    outputs=(
        Output("CE", "unit", "CAR T cells", dvid=1),
        Output("U", "unit", "tumour cells", dvid=2),
    ),
    derived=(
        Derived("half_life_CE", "day", "ln 2 / kE: without tumour"),
        Derived("doubling_time_U", "day", "ln 2 / g: without CAR T cells"),
        Derived("U_rest", "unit", "kE / rho: a larger tumour lets effectors expand"),
        Derived("CE_rest", "unit", "g / d: more effectors shrink the tumour"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    taxonomy=Taxonomy(
        "pkpd", "semi_mechanistic", ("car_t", "tumour"), ("undivided",),
        ("multi_population", "antigen_driven_expansion"), ("blood",),
        laws={"growth": "exponential", "killing": "mass_action", "expansion": "mass_action"},
        use="qualitative", parameters_from="literature", measured=("none",),
        product="not specific", antigen="not specific", disease="not specific"),
    doubts=(
        "The values illustrate and were fitted to nothing; the unit of cells is arbitrary and "
        "every spread here is assumed.",
        "Equations and values are read in BioModels (BIOMD0000001024), not in the article.",
    ),
)
