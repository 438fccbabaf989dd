"""Anti-BCMA CAR T cells and tumour cells in one well: CAR-antigen complexes per cell drive killing.

CAR T cells E and tumour cells T grow at their doubling times; their CARs and antigens form
complexes X in the volume Vc in which the cells meet, and the complexes per tumour cell set the
rate at which these are killed. Cells and complexes are numbers in the well, time in hours after
the cells were put together.
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

TABLE = "Table 1, in vitro, by a public re-implementation"
MEASURED = "measured apart from the assay"
PARAMETERS = (
    Parameter("Kkillmax", 0.353, "1/h", "maximal killing", TABLE, assumed(0.14)),
    Parameter("KC50", 2.24, "1/cell", "complexes per tumour cell at half of it", TABLE,
              assumed(0.3)),
    Parameter("kon", 7.103e4, "1/M/s", "association of CAR and antigen", TABLE, fixed=MEASURED),
    Parameter("koff", 2.385e-3, "1/s", "dissociation of CAR and antigen", TABLE, fixed=MEASURED),
    Parameter("AgCAR", 15000, "1/cell", "CARs per CAR T cell", TABLE, fixed=MEASURED),
    Parameter("AgT", 12590, "1/cell", "BCMA per tumour cell: RPMI-8226", TABLE, fixed=MEASURED),
    Parameter("DTt", 26, "h", "doubling time of tumour cells", TABLE, fixed=MEASURED),
    Parameter("DTc", 24, "h", "doubling time of CAR T cells", TABLE, fixed=MEASURED),
)
PER_H = 3600.0 * 1000.0 / 6.02214076e23  # 1/(M s) in mL/h per molecule
HOUR = 3600.0
NONE = 1e-30  # complexes: keeps a share finite where there is no cell left


def rates(t, y, p):
    X = jnp.maximum(y.X, 0.0)
    cars = jnp.maximum(y.E * p.AgCAR - X, 0.0)
    antigens = jnp.maximum(y.T * p.AgT - X, 0.0)
    killed = p.Kkillmax * X / (p.KC50 * y.T + X + NONE) * y.T
    return {
        "T": jnp.log(2.0) / p.DTt * y.T - killed,
        "E": jnp.log(2.0) / p.DTc * y.E,
        "X": p.kon * PER_H * cars * antigens / p.Vc - p.koff * HOUR * y.X,
    }


def initial(p):
    return {"T": p.T0, "E": p.E0, "X": 0.0}


def observe(t, y, p):
    return {"T": y.T, "alive": 100.0 * y.T / (p.T0 * jnp.exp(jnp.log(2.0) / p.DTt * t)),
            "E": y.E}


def derive(p):
    grow = jnp.log(2.0) / p.DTt
    return {
        "KD": 1e9 * p.koff / p.kon,
        "killing_half_life": jnp.log(2.0) / p.Kkillmax,
        # of a maximal rate at or below the growth no number is enough
        "X_control": p.KC50 * grow / jnp.maximum(p.Kkillmax - grow, NONE),
    }


TYPICAL = {p.name: p.typical for p in PARAMETERS}
WELL = {"T0": 1e4, "E0": 1e4, "Vc": 0.1}
MODEL = StructuralModel(
    title="Killing assay of anti-BCMA CAR T cells: complexes per tumour cell, two cell lines",
    source=Source("Singh AP et al. CPT Pharmacometrics Syst Pharmacol 2021;10:362-376",
                  "10.1002/psp4.12598"),
    time_unit="h",
    parameters=PARAMETERS,
    inputs=(
        Input("T0", "cells", "tumour cells in the well at the start", equals="T"),
        Input("E0", "cells", "CAR T cells in the well at the start", equals="E"),
        Input("Vc", "mL", "volume in which the cells meet"),
    ),
    states=(
        State("T", "cells", "tumour cells", "log"),
        State("E", "cells", "CAR T cells", "log"),
        State("X", "complexes", "CAR-antigen complexes"),
    ),
    outputs=(
        Output("T", "cells", "tumour cells in the well", dvid=1),
        Output("alive", "%", "tumour cells of those in a well without CAR T cells", dvid=2),
        Output("E", "cells", "CAR T cells in the well", dvid=3),
    ),
    derived=(
        Derived("KD", "nM", "koff / kon"),
        Derived("killing_half_life", "h", "ln 2 / Kkillmax: the shortest, growth left out"),
        Derived("X_control", "1/cell", "complexes per tumour cell at which T neither grows nor "
                "falls"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    solver="rodas4",  # complexes settle within minutes, cells within days
    parameter_sets={
        "RPMI-8226": {**TYPICAL, **WELL},
        "JeKo-1": {**TYPICAL, **WELL, "AgT": 222.0},
    },
    taxonomy=Taxonomy(
        "pkpd", "mechanistic", ("car_t", "tumour"),
        layers=("multi_population", "receptor_or_antigen_density"), habitats=("dish",),
        laws={"growth": "exponential", "killing": "bound_complexes", "expansion": "exponential"},
        parameters_from="mixed", fit_level="population_mean", setting=("in_vitro",),
        measured=("none",), antigen="BCMA", disease="multiple myeloma"),
    doubts=(
        "Equations and values are a public re-implementation's that cites Table 1, not the "
        "article's text. The volume in which the cells meet was not found and decides the "
        "killing: give Vc. The sets assume 1e4 cells of each in 0.1 mL, where JeKo-1 cells bear "
        "0.02 complexes and are hardly killed; the authors must have meant less.",
        "Whether CAR T cells grow by their complexes in the article was not verified. Kkillmax "
        "is known to 14 %, taken as its spread; that of KC50 is assumed. T and alive are the "
        "same count: use one of them.",
    ),
)
