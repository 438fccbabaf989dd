"""CAR T cells that expand until Tmax on a tumour, persist, and kill it to a cure.

Until Tmax effectors CE expand on the tumour U at up to rho, less when many cells compete; after
it they die at kE and turn at kEP into persistent cells CP, lost at beta. The tumour grows as
Gompertz towards Umax and is killed at up to d, saturably in effectors and tumour; below Ucrit
its growth fades (a cure). What follows Tmax reads no tumour and stands in closed form: the state
E is CE until Tmax and stays there. Made for illustration, in arbitrary units of cells per
volume; time in days after the infusion.
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

CODE = "BIOMD0000001025"
STEIN = "BIOMD0000001025; that of Stein 2019"
LOW = "far from it only its ratio to the maximal rate acts"
CURE = "needs samples of a tumour about to vanish"
PARAMETERS = (
    Parameter("rho", 8.8, "1/day", "maximal expansion", CODE, assumed(0.5)),
    Parameter("EC50rho", 1, "unit", "cells at half of rho", CODE, fixed=LOW),
    Parameter("Tmax", 9.3, "day", "end of expansion", STEIN, assumed(0.3)),
    Parameter("kE", 0.16, "1/day", "death of effectors after Tmax", STEIN, assumed(0.5)),
    Parameter("kEP", 0.0012, "1/day", "effectors that turn persistent", STEIN, assumed(0.5)),
    Parameter("beta", 0.0032, "1/day", "loss of persistent cells", STEIN, assumed(0.5)),
    Parameter("g", 0.2, "1/day", "growth of the tumour from one unit on", CODE,
              fixed="a tumour that shrinks says little about its growth"),
    Parameter("Umax", 1000, "unit", "carrying capacity of the tumour", CODE,
              fixed="a tumour that shrinks says little about its growth"),
    Parameter("Ucrit", 0.1, "unit", "tumour at half of its growth: below it, cure", CODE,
              fixed=CURE),
    Parameter("h", 3, "-", "steepness of the cure", CODE, fixed=CURE),
    Parameter("d", 0.35, "1/day", "maximal killing", CODE, assumed(0.5)),
    Parameter("EC50d", 10, "unit", "cells at half of d", CODE, fixed=LOW),
)


def cart(t, E, p):
    """Effectors and persistent cells at t, of E effectors at the end of expansion."""
    since = jnp.maximum(t - p.Tmax, 0.0)
    lost = p.kE + p.kEP
    turned = jnp.exp(-p.beta * since) - jnp.exp(-lost * since)
    return E * jnp.exp(-lost * since), p.kEP * E / (lost - p.beta) * turned


def rates(t, y, p):
    CE, _ = cart(t, y.E, p)
    expansion = p.rho * CE * y.U / (p.EC50rho + CE + y.U)
    uncured = y.U**p.h / (y.U**p.h + p.Ucrit**p.h)
    growth = uncured * p.g * y.U * (1.0 - jnp.log(y.U) / jnp.log(p.Umax))
    return {
        "E": jnp.where(t <= p.Tmax, expansion, 0.0),
        "U": growth - p.d * CE * y.U / (p.EC50d + CE + y.U),
    }


def initial(p):
    return {"E": p.CE0, "U": p.U0}


def observe(t, y, p):
    CE, CP = cart(t, y.E, p)
    return {"C": CE + CP, "U": y.U, "CE": CE, "CP": CP}


def derive(p):
    return {
        "half_life_initial": jnp.log(2.0) / (p.kE + p.kEP),
        "half_life_terminal": jnp.log(2.0) / p.beta,
    }


MODEL = StructuralModel(
    title="CAR T expansion on tumour until Tmax, persistence, cure (review, model B)",
    source=Source("Chaudhury A et al. J Clin Pharmacol 2020;60(S1):S147-S159, Eqs 7-9",
                  "10.1002/jcph.1691"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("CE0", "unit", "effectors that engraft, at the infusion", default=10.0),
        Input("U0", "unit", "tumour at the infusion", default=900.0, equals="U"),
    ),
    states=(
        State("E", "unit", "effectors made by expansion", "log"),
        State("U", "unit", "tumour cells", "log"),
    ),
    outputs=(
        Output("C", "unit", "CAR T cells, effector and persistent", dvid=1),
        Output("U", "unit", "tumour cells", dvid=2),
        Output("CE", "unit", "effector CAR T cells", dvid=3),
        Output("CP", "unit", "persistent CAR T cells, none until Tmax", dvid=4),
    ),
    derived=(
        Derived("half_life_initial", "day", "ln 2 / (kE + kEP)"),
        Derived("half_life_terminal", "day", "ln 2 / beta"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    switches=("Tmax",),
    taxonomy=Taxonomy(
        "pkpd", "semi_mechanistic", ("car_t", "tumour"), ("effector", "memory"),
        ("multi_population", "car_phenotypes", "antigen_driven_expansion"), ("blood",),
        laws={"growth": "gompertz", "killing": "conjugates", "expansion": "conjugates",
              "memory": "first_order"},
        use="qualitative", parameters_from="literature", measured=("none",),
        product="not specific", antigen="not specific", disease="not specific"),
    doubts=(
        "The values illustrate and were fitted to nothing; the unit of cells is arbitrary and "
        "every spread here is assumed.",
        "Equations and values are read in BioModels (BIOMD0000001025), not in the article, which "
        "may switch smoothly at Tmax: a steepness of 3 is encoded there, unused.",
    ),
)
