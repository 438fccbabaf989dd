"""Nine cytokines after TGN1412 in six volunteers: a network of damped oscillators, no drug.

Each concentration x_i moves as x_i'' = -c_i x_i' + sum over j of a_ij x_j: a_ii is minus the
square of its own frequency, c_i its damping, and a_ij above 0 means that cytokine j induces i.
All start at 0; the infusion is in the initial rates v_i(0). `coupling` is 1, or 0 for nine
cytokines that ignore each other. A block for a cytokine storm, found from data without a
mechanism and without CAR T cells. pg/mL, time in days after the infusion.
"""

import jax.numpy as jnp

from carpk.structure import (
    Derived,
    Output,
    Parameter,
    Source,
    State,
    StructuralModel,
    assumed,
)
from carpk.taxonomy import Taxonomy

TABLE = "Table 2, coupled model"
NETWORK = "the network is that of the medians of six volunteers"
TITLES = {"TNF": "TNF-alpha", "IFN": "IFN-gamma", "IL10": "IL-10", "IL8": "IL-8", "IL6": "IL-6",
          "IL4": "IL-4", "IL2": "IL-2", "IL1": "IL-1", "IL12": "IL-12"}
NAMES = tuple(TITLES)
COUPLED = {  # a_ij of row i and column j in the order of NAMES, 1/day^2; c_i, 1/day; v_i(0)
    "TNF": (-6.413, 0.345, -0.383, -0.186, -0.632, -0.680, -0.206, 0.672, -0.818, 5.2, 32831),
    "IFN": (-0.554, -18.641, 0.078, 1.576, 1.542, 0.128, 0.184, 0.696, -0.903, 8.6, 55328),
    "IL10": (-0.487, 0.846, -3.320, 0.145, -0.727, -0.111, -0.030, -0.017, 0.617, 4.4, 12047),
    "IL8": (0.992, -0.207, 1.566, -13.571, 0.058, -0.823, -0.316, 0.046, -3.356, 8.0, 50804),
    "IL6": (0.412, -1.688, -0.303, 0.042, -2.784, 0.640, 0.769, 0.955, 0.065, 3.3, 16437),
    "IL4": (-1.129, -1.072, -0.278, 0.271, 0.101, -16.305, 0.776, 0.778, -0.237, 8.1, 29489),
    "IL2": (-0.503, -0.775, 0.422, 0.506, -0.242, -0.022, -15.226, -0.181, -0.957, 8.0, 42780),
    "IL1": (0.053, -0.090, -0.376, 0.891, -0.575, 0.227, 0.289, -7.571, 0.604, 5.5, 35535),
    "IL12": (-0.877, -0.075, 0.275, -0.228, 0.320, 0.343, 1.554, -0.271, -19.448, 8.8, 4947),
}
VARYING = ("TNF", "IFN", "IL10", "IL8", "IL6", "IL2")
PARAMETERS = (
    *(Parameter(f"v_{i}", COUPLED[i][10], "pg/mL/day", f"initial rate of {TITLES[i]}", TABLE,
                assumed(0.5) if i in VARYING else None) for i in NAMES),
    *(Parameter(f"c_{i}", COUPLED[i][9], "1/day", f"damping of {TITLES[i]}", TABLE, fixed=NETWORK)
      for i in NAMES),
    *(Parameter(f"a_{i}", COUPLED[i][k], "1/day^2", f"{TITLES[i]}: minus its squared frequency",
                TABLE, link="identity", fixed=NETWORK) for k, i in enumerate(NAMES)),
    Parameter("coupling", 1, "-", "factor on every a_ij between two cytokines",
              "1: the published network", fixed="1 is the published network"),
)


def rates(t, y, p):
    level = {i: getattr(y, i) for i in NAMES}
    speed = {i: getattr(y, f"d{i}") for i in NAMES}
    others = {i: sum(COUPLED[i][k] * level[j] for k, j in enumerate(NAMES) if i != j)
              for i in NAMES}
    return speed | {f"d{i}": getattr(p, f"a_{i}") * level[i] + p.coupling * others[i]
                    - getattr(p, f"c_{i}") * speed[i] for i in NAMES}


def initial(p):
    return dict.fromkeys(NAMES, 0.0) | {f"d{i}": getattr(p, f"v_{i}") for i in NAMES}


def observe(t, y, p):
    return {i: getattr(y, i) for i in NAMES}


def derive(p):
    return {f"zeta_{i}": getattr(p, f"c_{i}")
            / (2.0 * jnp.sqrt(jnp.maximum(-getattr(p, f"a_{i}"), 1e-12))) for i in NAMES}


MODEL = StructuralModel(
    title="A cytokine storm: nine coupled cytokines after TGN1412",
    source=Source("Yiu HH, Graham AL, Stengel RF. PLoS One 2012;7:e45027",
                  "10.1371/journal.pone.0045027"),
    time_unit="day",
    parameters=PARAMETERS,
    states=(
        *(State(i, "pg/mL", TITLES[i]) for i in NAMES),
        *(State(f"d{i}", "pg/mL/day", f"rate of change of {TITLES[i]}") for i in NAMES),
    ),
    outputs=tuple(Output(i, "pg/mL", f"{TITLES[i]} in serum", dvid=k, error="additive")
                  for k, i in enumerate(NAMES, 1)),
    derived=tuple(Derived(f"zeta_{i}", "-", f"damping ratio of {TITLES[i]} alone; below 1 it rings")
                  for i in NAMES),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    taxonomy=Taxonomy(
        "pkpd", "empirical", populations=(), layers=("cytokines",), habitats=("blood",),
        parameters_from="fitted", fit_level="population_mean", setting=("clinical",),
        measured=("serum_marker",), product="TGN1412 (antibody)", disease="healthy volunteers"),
    doubts=(
        "The table was read in a public transcription, not in the article: other slips of sign "
        "or digit cannot be excluded. a_IL6 is -0.2784 there, with one digit more than any "
        "other entry; -2.784 is inferred, for then IL-6 is damped like the rest.",
        "Medians of six volunteers given an antibody: no spread was published, every one here is "
        "assumed. Levels fall a little below 0 after day 1, hence the additive error.",
    ),
)
