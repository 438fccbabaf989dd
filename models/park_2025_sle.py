"""Anti-CD19 CAR T cells in lupus: B cells, lymphodepletion, interferon, antibodies, organ damage.

CD8+ and CD4+ CAR T cells (8, 4), each naive N, central memory C, effector memory M and effector
F, live in blood (cells/L of it) and in marrow (names that end in m). CARs and CD19 form complexes
X: per CAR T cell they drive the expansion of all but F, per B cell the killing of B in blood and
Bm in marrow, which are depleted for good. Naive R return to blood while there are fewer than Crev
CAR T cells per uL. The lymphodepletion drug D (mg at time 0) takes host T cells H (with
precursors P) and neutrophils G (G0 to G3 in maturation). B, with host CD4+ cells and interferon
I, makes the antibody A, until B falls to 1e6 per L: then A keeps its value. A consumes the
complement C3, Q; the urine's protein U follows Q, I, H8 and G. Time in days after the infusion.
"""

import jax.numpy as jnp

from carpk.structure import (
    Derived,
    Input,
    Output,
    Parameter,
    Source,
    Spread,
    State,
    StructuralModel,
    sd,
)
from carpk.taxonomy import Taxonomy

TABLE, CODE = "Table 1", "authors' code, public transcription"
HELD = "the authors held it"
PRODUCT = "counted in the product before the infusion"
UNSEEN = "sampled too rarely in the days of the drug"
SITE = "marrow is not sampled"
PARAMETERS = (
    Parameter("Kexp", 1.8, "1/day", "maximal expansion, CD8+ (CD4+: 1.12 times less)", TABLE,
              sd(0.05)),
    Parameter("EC50", 1.9e-5, "1/cell", "complexes per CAR T cell at half of it", TABLE,
              Spread(0.2, "SD 0.2, held", fixed=HELD), fixed=HELD),
    Parameter("rm1", 0.15, "1/day", "naive to central memory", TABLE),
    Parameter("rm2", 0.11, "1/day", "central to effector memory", TABLE),
    Parameter("rm3", 0.72, "1/day", "effector memory to effector", TABLE),
    Parameter("kelm", 0.69, "1/day", "death of N, C and M in blood", TABLE),
    Parameter("kele", 47.38, "1/day", "death of F in blood", TABLE),
    Parameter("K12", 1.41, "1/day", "blood to marrow", TABLE, fixed=SITE),
    Parameter("K21", 0.0017, "1/day", "marrow to blood", TABLE, fixed=SITE),
    Parameter("Kkill", 2.76, "1/day", "maximal killing of B cells", TABLE, sd(0.087)),
    Parameter("KC50", 7.71, "1/cell", "complexes per B cell at half of it", TABLE),
    Parameter("kon", 2.1e5, "1/M/s", "CAR and CD19, association", TABLE, fixed=HELD),
    Parameter("koff", 6.81e-5, "1/s", "CAR and CD19, dissociation", TABLE, fixed=HELD),
    Parameter("dCAR", 15000, "1/cell", "CARs per CAR T cell", TABLE, fixed=HELD),
    Parameter("dB", 14000, "1/cell", "CD19 per B cell", TABLE, fixed=HELD),
    Parameter("B0", 1.43e8, "cells/L", "B cells in blood at the infusion", TABLE, fixed=HELD),
    Parameter("Bm0", 1.5e9, "cells/L", "B cells in marrow at the infusion", TABLE, fixed=HELD),
    Parameter("kg", 0.0193, "1/day", "growth of these B cells", TABLE, fixed=HELD),
    Parameter("Crev", 2.38, "cells/uL", "CAR T cells below which naive B cells return", TABLE,
              sd(0.81)),
    Parameter("K0rev", 1.58e6, "cells/L/day", "return of naive B cells", TABLE, sd(1.04)),
    Parameter("Bmax", 4.49e8, "cells/L", "B cells at which it ends", TABLE, sd(0.81)),
    Parameter("kD", 1.39, "1/day", "elimination of the drug", TABLE, fixed=UNSEEN),
    Parameter("kp4", 0.0007, "1/day", "CD4+ precursors to cells", TABLE, fixed=HELD),
    Parameter("K04", 210.18, "cells/uL/day", "production of CD4+ precursors", TABLE, sd(0.68)),
    Parameter("ko4", 1.02, "1/day", "loss of CD4+ cells", TABLE, sd(0.15)),
    Parameter("Emax4", 0.85, "-", "maximal effect of the drug on CD4+", TABLE, link="logit",
              fixed=UNSEEN),
    Parameter("EC504", 0.15, "mg/L", "drug at half of it", TABLE, fixed=HELD),
    Parameter("kp8", 0.00045, "1/day", "CD8+ precursors to cells", TABLE, fixed=HELD),
    Parameter("K08", 525.59, "cells/uL/day", "production of CD8+ precursors", TABLE),
    Parameter("ko8", 1.49, "1/day", "loss of CD8+ cells", TABLE, sd(0.5)),
    Parameter("Emax8", 0.96, "-", "maximal effect of the drug on CD8+", TABLE, link="logit",
              fixed=UNSEEN),
    Parameter("EC508", 0.067, "mg/L", "drug at half of it", TABLE, fixed=HELD),
    Parameter("Gb", 5617.22, "cells/uL", "neutrophils at rest", TABLE, sd(0.29)),
    Parameter("MTT", 4.35, "day", "mean time of their maturation", TABLE,
              Spread(0.2, "SD 0.2, held", fixed=HELD), fixed=HELD),
    Parameter("gam", 0.14, "-", "power of their feedback", TABLE),
    Parameter("Emaxnt", 27.32, "-", "maximal effect of the drug on them", TABLE, sd(0.26)),
    Parameter("EC50nt", 1203.42, "mg/L", "drug at half of it", TABLE, fixed=HELD),
    Parameter("kI", 23.04, "1/day", "turnover of interferon-alpha", TABLE,
              Spread(0.2, "SD 0.2, held", fixed=HELD), fixed=HELD),
    Parameter("ksA", 15875.77, "IU/cell/day", "production of anti-dsDNA", TABLE,
              Spread(0.4, "SD 0.4", fixed="its loss is set by A0: only its size against a day "
                                          "matters"),
              fixed="its loss is set by A0: A follows B within seconds"),
    Parameter("g4", 0.09, "-", "power of interferon in it", TABLE),
    Parameter("gC", 0.1, "-", "power of anti-dsDNA in the loss of C3", TABLE),
    Parameter("ksU", 1000, "mg/day", "production of urine protein", CODE, fixed=HELD),
    Parameter("gU", 1.09, "-", "power of C3 in it", TABLE),
    Parameter("g8", 0.8, "-", "power of interferon in it", TABLE),
    Parameter("CD8", 23.0, "%", "CD8+ in the product", TABLE, fixed=PRODUCT),
    Parameter("CD4", 75.9, "%", "CD4+ in the product", TABLE, fixed=PRODUCT),
    Parameter("fN", 7.29, "%", "naive in the product", TABLE, fixed=PRODUCT),
    Parameter("fC", 22.1, "%", "central memory in the product", TABLE, fixed=PRODUCT),
    Parameter("fM", 60.9, "%", "effector memory in the product", TABLE, fixed=PRODUCT),
    Parameter("fF", 9.77, "%", "effectors in the product", TABLE, fixed=PRODUCT),
)
DAY, AVOGADRO = 86400.0, 6.023e23  # seconds; as the code has it
LEAST = 1e-12  # of what a ratio is divided by; also what is there before anything came
KINDS = (("8", 1.0), ("4", 1.12))  # and by how much slower than Kexp they expand
NAMES = tuple(f"{x}{s}" for s, _ in KINDS for x in "NCMF")


def over(above, below):
    return above / jnp.maximum(below, LEAST)


def share(X, cells, half):
    """r / (half + r) of the complexes per cell r = X / cells; none where rounding left X below 0,
    beside the pole at -half."""
    X = jnp.maximum(X, 0.0)
    return X / (half * jnp.maximum(cells, LEAST) + X)


def counts(y, site=""):
    """CAR T cells of each kind, cells/L."""
    return {s: sum(getattr(y, f"{x}{s}{site}") for x in "NCMF") for s, _ in KINDS}


def rates(t, y, p):
    Vb, Vm, Vu = 5.0 * p.WT / 70.0, 1.6 * p.WT / 70.0, 0.24 * p.WT
    dy = {}
    here = {"": counts(y), "m": counts(y, "m")}
    for site, B in (("", y.B), ("m", y.Bm)):
        X = {s: getattr(y, f"X{s}{site}") for s, _ in KINDS}
        free = jnp.maximum(B * p.dB - X["8"] - X["4"], 0.0)
        dy[f"B{site}"] = p.kg * B - p.Kkill * share(X["8"] + X["4"], B, p.KC50) * B
        for s, slower in KINDS:
            N, C, M, F = (getattr(y, f"{x}{s}{site}") for x in "NCMF")
            cars = jnp.maximum(here[site][s] * p.dCAR - X[s], 0.0)
            dy[f"X{s}{site}"] = p.kon * DAY / AVOGADRO * cars * free - p.koff * DAY * X[s]
            grow = p.Kexp / slower * share(X[s], here[site][s], p.EC50)
            lost = (p.kelm, p.kelm, p.kelm, p.kele) if site == "" else (0.0,) * 4
            own = (grow * N - p.rm1 * N, grow * C + p.rm1 * N - p.rm2 * C,
                   grow * M + p.rm2 * C - p.rm3 * M, p.rm3 * M)
            for x, cells, made, loss in zip("NCMF", (N, C, M, F), own, lost, strict=True):
                blood, marrow = getattr(y, f"{x}{s}"), getattr(y, f"{x}{s}m")
                into_marrow = p.K12 * Vb * blood - p.K21 * Vm * marrow
                moved = into_marrow / Vm if site else -into_marrow / Vb
                dy[f"{x}{s}{site}"] = moved + made - loss * cells
    dy["R"] = p.few * p.K0rev * (1.0 - (y.B + y.R) / p.Bmax)
    drug = y.D / Vb
    dy["D"] = -p.kD * y.D
    for s, P, H, Emax, EC50, K0, kp, ko in (
            ("8", y.P8, y.H8, p.Emax8, p.EC508, p.K08, p.kp8, p.ko8),
            ("4", y.P4, y.H4, p.Emax4, p.EC504, p.K04, p.kp4, p.ko4)):
        matured = P * kp * (1.0 - Emax * drug / (EC50 + drug))
        dy[f"P{s}"], dy[f"H{s}"] = K0 - matured, matured - ko * H
    ktr = 4.0 / p.MTT
    left = 1.0 - p.Emaxnt * drug / (p.EC50nt + drug)
    feedback = over(p.Gb, y.G) ** p.gam
    dy["G0"] = ktr * y.G0 * (left * feedback - 1.0)
    dy["G1"], dy["G2"] = ktr * (y.G0 - y.G1), ktr * (y.G1 - y.G2)
    dy["G3"], dy["G"] = ktr * (y.G2 - y.G3), ktr * (y.G3 - y.G)
    antibody, interferon, neutrophils = over(y.A, p.A0), over(y.I, p.I0), over(y.G, p.Gb)
    H4b, H8b = p.K04 / p.ko4, p.K08 / p.ko8
    dy["I"] = p.kI * (p.I0 * antibody * neutrophils - y.I)
    dy["A"] = p.enough * p.ksA * (y.B * over(y.H4, H4b) * interferon**p.g4 - p.B0 * antibody)
    made = 1.5 * 24.0 * p.WT
    dy["Q"] = made / Vb * (1.0 - over(y.Q, p.Q0) * antibody**p.gC)
    damage = over(p.Q0, y.Q) ** p.gU * interferon**p.g8
    dy["U"] = p.ksU / Vu * (damage * jnp.exp(over(y.H8, H8b) + neutrophils) - over(y.U, p.U0))
    return dy


def few(t, y, p):
    """CAR T cells that let naive B cells return."""
    blood = counts(y)
    return jnp.log(p.Crev) - jnp.log(1e-6 * jnp.maximum(blood["8"] + blood["4"], LEAST))


def enough(t, y, p):
    """B cells that make the antibody."""
    return jnp.log(jnp.maximum(y.B, LEAST)) - jnp.log(1e6)


def initial(p):
    infused = p.dose * p.WT / (5.0 * p.WT / 70.0 * 1e4)  # per L and (percent of percent)
    kinds = {"N": p.fN, "C": p.fC, "M": p.fM, "F": p.fF}
    cells = {f"{x}{s}": infused * subset * share
             for s, subset in (("8", p.CD8), ("4", p.CD4)) for x, share in kinds.items()}
    P8, P4 = p.K08 / p.kp8, p.K04 / p.kp4
    return {
        **cells, **{f"{n}m": LEAST for n in cells},
        "X8": LEAST, "X4": LEAST, "X8m": LEAST, "X4m": LEAST,
        "B": p.B0, "R": 0.0, "Bm": p.Bm0, "D": p.Ddose,
        "P8": P8, "H8": p.K08 / p.ko8, "P4": P4, "H4": p.K04 / p.ko4,
        "G0": p.Gb, "G1": p.Gb, "G2": p.Gb, "G3": p.Gb, "G": p.Gb,
        "I": p.I0, "A": p.A0, "Q": p.Q0, "U": p.U0,
    }


def observe(t, y, p):
    blood = counts(y)
    return {
        "Ctot": 1e-6 * (blood["8"] + blood["4"]),
        **{x: getattr(y, f"{x}8") + getattr(y, f"{x}4") for x in "NCMF"},
        "Ball": 1e-6 * (y.B + y.R), "I": y.I, "A": y.A, "Q": y.Q, "U": y.U,
        "H4": y.H4, "H8": y.H8, "G": y.G,
        "SLEDAI_Q": 16.99 - 0.01 * y.Q, "SLEDAI_I": 4.21 + 0.08 * y.I,
        "SLEDAI_A": 6.96 + 0.05e-3 * y.A,
    }


def derive(p):
    return {
        "H4b": p.K04 / p.ko4,
        "H8b": p.K08 / p.ko8,
        "half_life_D": jnp.log(2.0) / p.kD,
        "half_life_A": jnp.log(2.0) * p.A0 / (p.B0 * p.ksA),
        "doubling_time_C": jnp.log(2.0) / p.Kexp,
        "doubling_time_B": jnp.log(2.0) / p.kg,
        "X_control": p.KC50 * p.kg / (p.Kkill - p.kg),
    }


PHENOTYPES = {"N": "naive", "C": "central memory", "M": "effector memory", "F": "effector"}
CELLS = tuple(State(f"{x}{s}{site}", "cells/L", f"CD{s}+ {kind} CAR T cells in {where}")
              for site, where in (("", "blood"), ("m", "marrow")) for s, _ in KINDS
              for x, kind in PHENOTYPES.items())
COMPLEXES = tuple(State(f"X{s}{site}", "1/L", f"complexes with CD{s}+ CAR T cells in {where}")
                  for site, where in (("", "blood"), ("m", "marrow")) for s, _ in KINDS)
MODEL = StructuralModel(
    title="Anti-CD19 CAR T cells in lupus: B cells, lymphodepletion, disease markers",
    source=Source("Park H et al. Clin Transl Sci 2025;18:e70146", "10.1111/cts.70146"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("WT", "kg", "body weight", default=70.0),
        Input("dose", "cells/kg", "infused CAR T cells", default=1e6),
        Input("Ddose", "mg", "lymphodepletion drug", default=1935.0),
        Input("A0", "IU/L", "anti-dsDNA at the infusion", default=470_000.0, equals="A"),
        Input("I0", "pg/mL", "interferon-alpha at the infusion", default=21.0, equals="I"),
        Input("Q0", "mg/L", "C3 at the infusion", default=555.0, equals="Q"),
        Input("U0", "mg/g", "urine protein at the infusion", default=3060.0, equals="U"),
    ),
    states=(
        *CELLS, *COMPLEXES,
        State("B", "cells/L", "autoreactive B cells in blood", "log"),
        State("Bm", "cells/L", "B cells in marrow", "log"),
        State("R", "cells/L", "naive B cells that returned to blood"),
        State("D", "mg", "lymphodepletion drug"),
        State("P8", "cells/uL", "host CD8+ precursors"),
        State("H8", "cells/uL", "host CD8+ cells"),
        State("P4", "cells/uL", "host CD4+ precursors"),
        State("H4", "cells/uL", "host CD4+ cells"),
        *(State(f"G{k}", "cells/uL", f"neutrophils, maturation stage {k}") for k in range(4)),
        State("G", "cells/uL", "neutrophils"),
        State("I", "pg/mL", "interferon-alpha"),
        State("A", "IU/L", "anti-dsDNA"),
        State("Q", "mg/L", "complement C3"),
        State("U", "mg/g", "protein in urine per creatinine"),
    ),
    outputs=(
        Output("Ctot", "cells/uL", "all CAR T cells in blood", dvid=1),
        *(Output(x, "cells/L", f"{kind} CAR T cells in blood", dvid=2 + k)
          for k, (x, kind) in enumerate(PHENOTYPES.items())),
        Output("Ball", "cells/uL", "B cells in blood", dvid=6),
        Output("I", "pg/mL", "interferon-alpha in serum", dvid=7),
        Output("A", "IU/L", "anti-dsDNA in serum", dvid=8),
        Output("Q", "mg/L", "complement C3 in serum", dvid=9),
        Output("U", "mg/g", "protein in urine per creatinine", dvid=10),
        Output("H4", "cells/uL", "host CD4+ T cells in blood", dvid=11),
        Output("H8", "cells/uL", "host CD8+ T cells in blood", dvid=12),
        Output("G", "cells/uL", "neutrophils in blood", dvid=13),
        Output("SLEDAI_Q", "points", "SLE-DAI by C3", dvid=14, error="additive"),
        Output("SLEDAI_I", "points", "SLE-DAI by interferon-alpha", dvid=15, error="additive"),
        Output("SLEDAI_A", "points", "SLE-DAI by anti-dsDNA", dvid=16, error="additive"),
    ),
    derived=(
        Derived("H4b", "cells/uL", "K04 / ko4: host CD4+ cells at rest"),
        Derived("H8b", "cells/uL", "K08 / ko8: host CD8+ cells at rest"),
        Derived("half_life_D", "day", "ln 2 / kD"),
        Derived("half_life_A", "day", "ln 2 A0 / (B0 ksA): while there are B cells"),
        Derived("doubling_time_C", "day", "ln 2 / Kexp: the shortest of CAR T cells"),
        Derived("doubling_time_B", "day", "ln 2 / kg: of B cells nobody kills"),
        Derived("X_control", "1/cell", "complexes per B cell at which B neither grows nor falls"),
    ),
    rates=rates,
    initial=initial,
    observe=observe,
    derive=derive,
    thresholds={"few": few, "enough": enough},
    solver="rodas4",  # A follows B within seconds, F dies within half an hour
    taxonomy=Taxonomy(
        "qsp", "mechanistic", ("car_t", "normal_t", "healthy_target", "other"),
        ("naive", "central_memory", "effector_memory", "effector", "cd4", "cd8"),
        ("multi_population", "car_phenotypes", "receptor_or_antigen_density",
         "antigen_driven_expansion", "habitats_or_topology", "cytokines",
         "comedication_or_preconditioning", "other_molecular", "organism_covariates"),
        ("blood", "bone_marrow"), "compartments",
        laws={"growth": "exponential", "killing": "per_cell_complexes",
              "expansion": "per_effector_complexes", "memory": "first_order"},
        parameters_from="mixed", fit_level="nlme", setting=("clinical",),
        measured=("blood_flow", "serum_marker"), product="CD19 CAR T cells", antigen="CD19",
        disease="SLE"),
    doubts=(
        "Read in a public transcription of the authors' code, whose dose of the drug and whose "
        "A0, I0, Q0, U0 are read off figures or reconstructed; 5 patients, no residual error.",
        "The return of B cells and the antibody are switches. The first opens for a day or two "
        "before the expansion, when CAR T cells are fewest; the second leaves A where B passed "
        "1e6 per L.",
        "U is not at rest at the infusion: at baseline it rises towards e^2 U0. ksU is 100 in "
        "Table 1, Crev in cells/L there; the code has what stands here.",
    ),
)
