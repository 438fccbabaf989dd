"""Tisagenlecleucel in blood by qPCR: exponential expansion to Tmax, then biexponential decline.

C rises as R0 exp(rho t) with rho = ln(foldx) / Tmax and R0 = Cmax / foldx, and after Tmax
falls as (1 - FB) Cmax exp(-alpha (t - Tmax)) + FB Cmax exp(-beta (t - Tmax)): effector cells
that contract at alpha, of which a part lives on as memory that declines at beta. From the
first dose of tocilizumab or corticosteroid on, and only before Tmax, rho is multiplied by
Ftoci or Fster. Cmax is the peak the patient would have reached without them. Levels in
transgene copies per microgram genomic DNA, time in days after the infusion.
"""

import jax.numpy as jnp

from carpk.structure import Derived, Input, Output, Parameter, Source, StructuralModel, sd
from carpk.taxonomy import Taxonomy

PARAMETERS = (
    Parameter("foldx", 3900, "-", "fold expansion from R0 to Cmax", "Table 1", sd(2.4)),
    Parameter("Tmax", 9.3, "day", "time of the peak", "Table 1", sd(0.38)),
    Parameter("Cmax", 24_000, "copies/ug", "peak without comedication", "Table 1", sd(0.65)),
    Parameter("Ftoci", 1.2, "-", "factor on rho after tocilizumab", "Table 1", requires="TTOCI"),
    Parameter("Fster", 1.0, "-", "factor on rho after corticosteroid", "Table 1",
              requires="TSTER"),
    Parameter("alpha", 0.16, "1/day", "fast contraction rate", "Table 1", sd(0.91)),
    Parameter("FB", 0.0079, "-", "share of the peak that declines slowly", "Table 1", sd(0.80)),
    Parameter("beta", 0.0032, "1/day", "slow decline rate", "Table 1", sd(0.86)),
)


def solution(t, p):
    rho = jnp.log(p.foldx) / p.Tmax
    t1 = jnp.minimum(jnp.minimum(p.TTOCI, p.TSTER), p.Tmax)
    t2 = jnp.minimum(jnp.maximum(p.TTOCI, p.TSTER), p.Tmax)
    first = jnp.where(p.TTOCI <= p.TSTER, p.Ftoci, p.Fster)
    both = p.Ftoci * p.Fster

    def log_fold(s):  # of the growth up to s, at most Tmax
        early = jnp.minimum(s, t1)
        between = jnp.clip(s, t1, t2) - t1
        late = jnp.clip(s, t2, p.Tmax) - t2
        return rho * (early + first * between + both * late)

    after = jnp.maximum(t - p.Tmax, 0.0)  # clamp first: the unused branch must not overflow
    decline = (1.0 - p.FB) * jnp.exp(-p.alpha * after) + p.FB * jnp.exp(-p.beta * after)
    return {"C": p.Cmax / p.foldx * jnp.exp(log_fold(t)) * decline}


def derive(p):
    rho = jnp.log(p.foldx) / p.Tmax
    return {
        "doubling_time": jnp.log(2.0) / rho,
        "half_life_initial": jnp.log(2.0) / p.alpha,
        "half_life_terminal": jnp.log(2.0) / p.beta,
    }


MODEL = StructuralModel(
    title="Tisagenlecleucel: expansion, contraction, persistence",
    source=Source("Stein AM et al. CPT Pharmacometrics Syst Pharmacol 2019;8:285-295",
                  "10.1002/psp4.12388"),
    time_unit="day",
    parameters=PARAMETERS,
    inputs=(
        Input("TTOCI", "day", "first dose of tocilizumab; empty if none", default=jnp.inf),
        Input("TSTER", "day", "first dose of corticosteroid; empty if none", default=jnp.inf),
    ),
    outputs=(Output("C", "copies/ug", "transgene level in blood", dvid=1),),
    derived=(
        Derived("doubling_time", "day", "ln 2 / rho"),
        Derived("half_life_initial", "day", "ln 2 / alpha"),
        Derived("half_life_terminal", "day", "ln 2 / beta"),
    ),
    solution=solution,
    derive=derive,
    taxonomy=Taxonomy(
        "pk", "semi_mechanistic", phenotypes=("effector", "memory"),
        layers=("car_phenotypes", "comedication_or_preconditioning"), habitats=("blood",),
        laws={"expansion": "on_off", "memory": "first_order"}, parameters_from="fitted",
        fit_level="nlme", setting=("clinical",), measured=("blood_qpcr",),
        product="tisagenlecleucel", antigen="CD19", disease="B-ALL", in_review=True),
    doubts=(
        "Table 1 was read in three public re-implementations that agree; one public library "
        "enters the printed spreads as variances, which their standard errors rule out.",
        "How the authors treated levels below the limit of quantification was not found.",
    ),
)
