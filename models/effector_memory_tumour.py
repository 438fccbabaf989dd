"""Effector and memory CAR T cells against a tumour, with a choice of growth, killing, expansion.

The tumour T grows and is killed by effectors E, which expand on it. Effectors are lost at lE and
turn into memory M at cM; memory is lost at lM and recalled by the tumour, at most at rM, half of
it at hM. E(0) = E0 engraft, M(0) = 0, T(0) = T0. Cells per uL, time in days after the infusion.

This file takes the first law of each line; for another, write a file my_model.py and name it
where a model is named (`carpk models my_model.py`):

    from carpk.models.effector_memory_tumour import build
    MODEL = build(growth="gompertz", killing="holling_2", expansion="hill")

growth     logistic, exponential, richards, gompertz, bertalanffy, power_law
killing    mass_action, holling_2, holling_3, saturating_in_effectors, hill_in_effectors,
           ratio_dependent, beddington_deangelis, one_to_one
expansion  michaelis_menten, mass_action, hill, saturating_in_effectors, one_to_one

Each is the law of that name in carpk.laws (hill: holling_3) and brings its own parameters.
"""

import jax.numpy as jnp

from carpk import laws
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

LATE = "only a tumour that is not controlled comes near it"
HALF = "cells are rarely counted often enough on both sides of it"
SHAPE = "a choice of shape, as the law itself"
RECALL = "a relapse with counts of both cells would be needed to see it"


def growth_rate(value):
    return Parameter("r", value, "1/day", "tumour growth")


def killing_rate(value, unit="1/day", meaning="maximal killing"):
    return Parameter("k", value, unit, meaning, omega=assumed(0.8))


def expansion_rate(value, unit="1/day", meaning="maximal expansion"):
    return Parameter("rho", value, unit, meaning, omega=assumed(0.3))


def half(name, value, meaning):
    return Parameter(name, value, "cells/uL", meaning, fixed=HALF)


def shape(name, value, meaning, unit="-"):
    return Parameter(name, value, unit, meaning, fixed=SHAPE)


K = Parameter("K", 1e4, "cells/uL", "carrying capacity of the tumour", fixed=LATE)
PER_CELL = "uL/(cells day)"

# option: (law, its parameters in the order in which the law takes them after the cells)
GROWTH = {
    "logistic": (laws.logistic, (growth_rate(0.1), K)),
    "exponential": (laws.exponential, (growth_rate(0.1),)),
    "richards": (laws.richards, (growth_rate(0.1), K, shape("v", 0.5, "exponent of T/K"))),
    "gompertz": (laws.gompertz, (growth_rate(0.02), K)),
    "bertalanffy": (laws.bertalanffy, (
        Parameter("a", 0.6, "(cells/uL)^(1/3)/day", "tumour growth at the surface"),
        Parameter("b", 0.03, "1/day", "tumour loss throughout"))),
    "power_law": (laws.power_law, (
        Parameter("a", 0.5, "(cells/uL)^(1-q)/day", "tumour growth"),
        shape("q", 0.75, "exponent of T"))),
}
KILLING = {
    "mass_action": (laws.mass_action, (killing_rate(1e-3, PER_CELL, "killing"),)),
    "holling_2": (laws.holling_2, (killing_rate(2.0), half("hk", 1000.0, "T at half of k"))),
    "holling_3": (laws.holling_3, (killing_rate(2.0), half("hk", 300.0, "T at half of k"),
                                   shape("nk", 1.5, "steepness in T"))),
    "saturating_in_effectors": (laws.saturating_in_effectors, (
        killing_rate(1.0), half("hk", 300.0, "E at half of k"))),
    "hill_in_effectors": (laws.hill_in_effectors, (
        killing_rate(1.0), half("hk", 300.0, "E at half of k"),
        shape("nk", 2.0, "steepness in E"))),
    "ratio_dependent": (laws.ratio_dependent, (
        killing_rate(1.0), Parameter("sk", 0.5, "-", "(E/T)^nk at half of k", fixed=HALF),
        shape("nk", 0.7, "steepness in E/T"))),
    "beddington_deangelis": (laws.beddington_deangelis, (
        killing_rate(2e-3, PER_CELL, "killing by few of few"),
        shape("ak", 1e-3, "saturation by targets", "uL/cells"),
        shape("bk", 1e-3, "saturation by effectors", "uL/cells"))),
    "one_to_one": (laws.one_to_one, (
        killing_rate(2.0), half("hk", 1000.0, "dissociation constant of E and T"))),
}
EXPANSION = {
    "michaelis_menten": (laws.michaelis_menten, (
        expansion_rate(1.0), half("hE", 100.0, "T at half of rho"))),
    "mass_action": (laws.mass_action, (expansion_rate(1e-3, PER_CELL, "expansion"),)),
    "hill": (laws.holling_3, (expansion_rate(1.0), half("hE", 100.0, "T at half of rho"),
                              shape("nE", 2.0, "steepness in T"))),
    "saturating_in_effectors": (laws.saturating_in_effectors, (
        expansion_rate(0.2, "1/day", "maximal expansion per tumour cell"),
        half("hE", 200.0, "E at half of rho"))),
    "one_to_one": (laws.one_to_one, (
        expansion_rate(1.0), half("hE", 100.0, "dissociation constant of E and T"))),
}
COMMON = (
    Parameter("E0", 1.0, "cells/uL", "effectors that engraft, E(0)", omega=assumed(1.0)),
    Parameter("lE", 0.3, "1/day", "loss of effectors", omega=assumed(0.3)),
    Parameter("cM", 0.02, "1/day", "effectors turning into memory", omega=assumed(0.5)),
    Parameter("lM", 0.005, "1/day", "loss of memory cells"),
    Parameter("rM", 0.1, "1/day", "maximal recall of memory cells", fixed=RECALL),
    Parameter("hM", 100.0, "cells/uL", "T at half of rM", fixed=RECALL),
)


class Rates(tuple):
    """The rates under (growth, killing, expansion): a tuple, so that two of a choice are equal."""

    __slots__ = ()

    def __call__(self, t, y, p):
        growth, killing, expansion = self
        return balance(y, p, law(GROWTH[growth], p, y.T), law(KILLING[killing], p, y.E, y.T),
                       law(EXPANSION[expansion], p, y.E, y.T))


def law(option, p, *cells):
    function, parameters = option
    return function(*cells, *(getattr(p, parameter.name) for parameter in parameters))


def balance(y, p, grown, killed, expanded):
    converted, recalled = p.cM * y.E, laws.michaelis_menten(y.M, y.T, p.rM, p.hM)
    return {
        "T": grown - killed,
        "E": expanded - p.lE * y.E - converted + recalled,
        "M": converted - p.lM * y.M - recalled,
    }


def initial(p):
    return {"T": p.T0, "E": p.E0, "M": 0.0}


def observe(t, y, p):
    return {"CART": y.E + y.M, "T": y.T}


def derive(p):
    return {
        "half_life_E": jnp.log(2.0) / (p.lE + p.cM),
        "half_life_M": jnp.log(2.0) / p.lM,
        "memory_share": p.cM / (p.lE + p.cM),
    }


def build(growth="logistic", killing="mass_action", expansion="michaelis_menten"):
    """The model under these laws; ValueError names the options where there is no such law."""
    for kind, name, options in (("growth", growth, GROWTH), ("killing", killing, KILLING),
                                ("expansion", expansion, EXPANSION)):
        if name not in options:
            raise ValueError(f"{kind} {name!r} is none of {', '.join(options)}")
    return StructuralModel(
        title="Generic effector, memory and tumour cells",
        source=Source("textbook"),
        time_unit="day",
        parameters=(*GROWTH[growth][1], *KILLING[killing][1], *EXPANSION[expansion][1], *COMMON),
        inputs=(Input("T0", "cells/uL", "tumour cells at the infusion", 1000.0, equals="T"),),
        states=(
            State("T", "cells/uL", "tumour cells", "log"),
            State("E", "cells/uL", "effector CAR T cells", "log"),
            State("M", "cells/uL", "memory CAR T cells"),
        ),
        outputs=(
            Output("CART", "cells/uL", "CAR T cells in blood, E + M", dvid=1),
            Output("T", "cells/uL", "tumour cells", dvid=2),
        ),
        derived=(
            Derived("half_life_E", "day", "ln 2 / (lE + cM): without a tumour"),
            Derived("half_life_M", "day", "ln 2 / lM: without a tumour"),
            Derived("memory_share", "-", "cM / (lE + cM): of the effectors, when they contract"),
        ),
        rates=Rates((growth, killing, expansion)),
        initial=initial,
        observe=observe,
        derive=derive,
        taxonomy=Taxonomy(
            "pkpd", "mechanistic", ("car_t", "tumour"), ("effector", "memory"),
            ("multi_population", "car_phenotypes", "antigen_driven_expansion"),
            laws={"growth": growth, "killing": killing, "expansion": expansion,
                  "memory": "first_order"}),
        doubts=(
            "No paper's model: every value and spread is assumed, chosen so that a curve has the "
            "shape seen in patients; fit them, or give your own.",
            "CAR T cells are observed as E + M, so that effectors and memory are told apart only "
            "by the two slopes of the decline.",
        ),
    )


MODEL = build()
