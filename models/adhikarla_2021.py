"""A radionuclide and CAR T cells against myeloma in mice: which first, and how far apart.

Tumour cells NT grow exponentially; radiation turns them into damaged cells NR, which are cleared
at k_cl. CAR T cells NC kill both in proportion to their number, multiply in proportion to the
tumour, die at theta and are lost to radiation. The radionuclide A is a dose in uCi that decays
at lambda; its dose rate eta A damages at alpha_T eta A and alpha_C eta A (the linear part of the
linear-quadratic law: the paper sets beta = 0 for an alpha emitter). Both therapies are doses, A
and NC, so that their order and interval are free. Cells in the mouse, days after engraftment.
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

TABLE = "Table 1"
PARAMETERS = (
    Parameter("lam", 0.07, "1/day", "effective decay of the radionuclide", TABLE,
              fixed="the physical half-life of actinium-225"),
    Parameter("rho", 0.27, "1/day", "growth of the tumour", TABLE, assumed(0.2)),
    Parameter("k_cl", 0.5, "1/day", "clearance of damaged cells", TABLE,
              fixed="the authors held it"),
    Parameter("k1", 4.49e-7, "1/(cell day)", "killing by CAR T cells", TABLE, assumed(0.5)),
    Parameter("k2", 3.6e-13, "1/(cell day)", "proliferation of CAR T cells", TABLE,
              fixed="without effect on a tumour far below theta / k2 cells"),
    Parameter("theta", 0.042, "1/day", "death of CAR T cells", TABLE, assumed(0.3)),
    Parameter("alpha_T", 1.5, "1/Gy", "radiosensitivity of tumour cells", TABLE, assumed(0.3)),
    Parameter("alpha_C", 1.5, "1/Gy", "radiosensitivity of CAR T cells", TABLE,
              fixed="the authors assumed that of tumour cells"),
    Parameter("eta", 3.48, "Gy/day/uCi", "activity to dose rate", TABLE,
              fixed="acts only with alpha_T and alpha_C"),
)


def rates(t, y, p):
    dose_rate = p.eta * y.A
    damaged, lysis = p.alpha_T * dose_rate * y.NT, p.k1 * y.NC
    return {
        "NT": p.rho * y.NT - damaged - lysis * y.NT,
        "NR": damaged - lysis * y.NR - p.k_cl * y.NR,
        "NC": (p.k2 * (y.NT + y.NR) - p.alpha_C * dose_rate - p.theta) * y.NC,
        "A": -p.lam * y.A,
    }


def initial(p):
    return {"NT": p.N0, "NR": 0.0, "NC": 0.0, "A": 0.0}


def observe(t, y, p):
    return {"tumour": y.NT + y.NR, "CART": y.NC}


def derive(p):
    return {
        "doubling_time_NT": jnp.log(2.0) / p.rho,
        "half_life_A": jnp.log(2.0) / p.lam,
        "half_life_NC": jnp.log(2.0) / p.theta,
        "NC_control": p.rho / p.k1,
        "A_control": p.rho / (p.alpha_T * p.eta),
        "tumour_that_feeds": p.theta / p.k2,
    }


MODEL = StructuralModel(
    title="Radionuclide and CAR T cells in myeloma-bearing mice",
    source=Source("Adhikarla V et al. Cancers 2021;13:5171", "10.3390/cancers13205171"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(Input("N0", "cells", "tumour cells engrafted at time 0", default=1e6,
                  equals="tumour"),),
    states=(
        State("NT", "cells", "tumour cells without radiation damage", "log"),
        State("NR", "cells", "tumour cells damaged by radiation"),
        State("NC", "cells", "CAR T cells; doses go here (1e6)"),
        State("A", "uCi", "radionuclide in the body; doses go here (0.1)"),
    ),
    doses=(Dose("NC", 1e6, at=7.0), Dose("A", 0.1, at=14.0)),
    outputs=(
        Output("tumour", "cells", "all tumour cells, from bioluminescence", dvid=1),
        Output("CART", "cells", "CAR T cells", dvid=2),
    ),
    derived=(
        Derived("doubling_time_NT", "day", "ln 2 / rho: untreated"),
        Derived("half_life_A", "day", "ln 2 / lam"),
        Derived("half_life_NC", "day", "ln 2 / theta: without radiation"),
        Derived("NC_control", "cells", "rho / k1: more CAR T cells than this shrink the tumour"),
        Derived("A_control", "uCi", "rho / (alpha_T eta): more activity than this shrinks NT"),
        Derived("tumour_that_feeds", "cells", "theta / k2: with more, CAR T cells multiply"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    taxonomy=Taxonomy(
        "pkpd", "mechanistic", ("car_t", "tumour"),
        layers=("multi_population", "antigen_driven_expansion",
                "comedication_or_preconditioning"),
        laws={"growth": "exponential", "killing": "mass_action", "expansion": "mass_action"},
        parameters_from="fitted", fit_level="population_mean", setting=("mouse",),
        measured=("imaging_volume",), antigen="CS1", disease="multiple myeloma"),
    doubts=(
        "The text starts from 5e6 tumour cells, but the survival of the control and a caption "
        "need 1e6, the default here. The decay is counted from the injection of the radionuclide, "
        "as the published results need; the printed formula counts from time 0.",
        "Mean curves of a few mice: no spread between animals was published, every one here is "
        "assumed. Beyond 1.2e11 tumour cells CAR T cells multiply without limit: stop before.",
    ),
)
