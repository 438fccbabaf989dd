"""CAR T cells that expand until Tmax whatever the tumour, persist, and kill it to a cure.

Effectors CE grow exponentially at rho until Tmax; after it they die at kE and turn at kEP into
persistent cells CP, lost at beta. Neither reads the tumour, so both stand in closed form and
only the tumour U is integrated: it grows as Gompertz towards Umax, is killed at d CE U, and
below Ucrit its growth fades (a cure). Made for illustration, in arbitrary units of cells per
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

CODE = "MODEL2109110005"
STEIN = "MODEL2109110005; that of Stein 2019"
CURE = "needs samples of a tumour about to vanish"
PARAMETERS = (
    Parameter("rho", 1.0, "1/day", "expansion", CODE, assumed(0.3)),
    Parameter("Tmax", 9.3, "day", "end of expansion", STEIN, assumed(0.3)),
    Parameter("kE", 0.16, "1/day", "death of effectors after Tmax", STEIN, assumed(0.5)),
    Parameter("kEP", 0.0012, "1/day", "effectors that turn persistent", STEIN, assumed(0.5)),
    Parameter("beta", 0.0032, "1/day", "loss of persistent cells", STEIN, assumed(0.5)),
    Parameter("g", 0.3, "1/day", "growth of the tumour from one unit on", CODE,
              fixed="a tumour that shrinks says little about its growth"),
    Parameter("Umax", 100, "unit", "carrying capacity of the tumour", CODE,
              fixed="a tumour that shrinks says little about its growth"),
    Parameter("Ucrit", 0.1, "unit", "tumour at half of its growth: below it, cure", CODE,
              fixed=CURE),
    Parameter("h", 3, "-", "steepness of the cure", CODE, fixed=CURE),
    Parameter("d", 0.0007, "1/(unit day)", "killing per effector unit", CODE, assumed(0.5)),
)
ENCODED = {"CE0": 10.0, "U0": 900.0, **{p.name: p.typical for p in PARAMETERS}}


def cart(t, p):
    """Effectors and persistent cells at t."""
    since = jnp.maximum(t - p.Tmax, 0.0)
    lost = p.kE + p.kEP
    peak = p.CE0 * jnp.exp(p.rho * jnp.minimum(t, p.Tmax))
    effectors = peak * jnp.exp(-lost * since)
    turned = jnp.exp(-p.beta * since) - jnp.exp(-lost * since)
    return effectors, p.kEP * peak / (lost - p.beta) * turned


def rates(t, y, p):
    CE, _ = cart(t, p)
    uncured = y.U**p.h / (y.U**p.h + p.Ucrit**p.h)
    growth = uncured * p.g * y.U * (1.0 - jnp.log(y.U) / jnp.log(p.Umax))
    return {"U": growth - p.d * CE * y.U}


def initial(p):
    return {"U": p.U0}


def observe(t, y, p):
    CE, CP = cart(t, p)
    return {"C": CE + CP, "U": y.U, "CE": CE, "CP": CP}


def derive(p):
    return {
        "doubling_time": jnp.log(2.0) / p.rho,
        "half_life_initial": jnp.log(2.0) / (p.kE + p.kEP),
        "half_life_terminal": jnp.log(2.0) / p.beta,
        "CE_peak": p.CE0 * jnp.exp(p.rho * p.Tmax),
    }


MODEL = StructuralModel(
    title="CAR T expansion until Tmax, persistence, mass-action cure (review, model C)",
    source=Source("Chaudhury A et al. J Clin Pharmacol 2020;60(S1):S147-S159, Eqs S1-S3",
                  "10.1002/jcph.1691"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("CE0", "unit", "effectors that engraft, at the infusion", default=10.0),
        Input("U0", "unit", "tumour at the infusion", default=900.0, equals="U"),
    ),
    states=(State("U", "unit", "tumour cells", "log"),),
    outputs=(
        Output("C", "unit", "CAR T cells, effector and persistent", dvid=1),
        Output("U", "unit", "tumour cells", dvid=2),
        Output("CE", "unit", "effector CAR T cells", dvid=3),
        Output("CP", "unit", "persistent CAR T cells, none until Tmax", dvid=4),
    ),
    derived=(
        Derived("doubling_time", "day", "ln 2 / rho"),
        Derived("half_life_initial", "day", "ln 2 / (kE + kEP)"),
        Derived("half_life_terminal", "day", "ln 2 / beta"),
        Derived("CE_peak", "unit", "CE0 exp(rho Tmax): effectors at Tmax"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    switches=("Tmax",),
    parameter_sets={"as encoded": ENCODED, "Umax 1000": {**ENCODED, "Umax": 1000.0}},
    taxonomy=Taxonomy(
        "pkpd", "semi_mechanistic", ("car_t", "tumour"), ("effector", "memory"),
        ("multi_population", "car_phenotypes"), ("blood",),
        laws={"growth": "gompertz", "killing": "mass_action", "expansion": "on_off",
              "memory": "first_order"},
        use="qualitative", parameters_from="literature", measured=("none",),
        product="not specific", antigen="not specific", disease="not specific"),
    doubts=(
        "The values illustrate and were fitted to nothing; the unit of cells is arbitrary and "
        "every spread here is assumed.",
        "Equations and values are read in an uncurated BioModels entry (MODEL2109110005), not in "
        "the article. Its Umax of 100 lies below the tumour it starts from and may be a slip for "
        "1000: both are parameter sets.",
        "With the encoded values the tumour falls to exp(-545) units: only its first week can be "
        "compared with anything measured.",
    ),
)
