"""Tisagenlecleucel in blood by qPCR: exponential growth to the peak, then two exponentials.

C rises as R0 exp(rho t) up to Tmax and falls after it as A exp(-alpha (t - Tmax)) +
B exp(-beta (t - Tmax)), where R0 exp(rho Tmax) = A + B = Cmax. That leaves six parameters,
here foldx = Cmax / R0, Tmax, Cmax, alpha, FB = B / Cmax and beta. The estimates of this paper
were not found: every value is that of Stein 2019, who fitted the same curve with random effects
to patients of the same trials. Transgene copies per microgram genomic DNA, time in days after
the infusion.
"""

import jax.numpy as jnp

from carpk.structure import Derived, Output, Parameter, Source, StructuralModel, sd
from carpk.taxonomy import Taxonomy

STEIN = "Stein 2019, Table 1; not this paper"
PARAMETERS = (
    Parameter("foldx", 3900, "-", "fold expansion from R0 to Cmax", STEIN, sd(2.4)),
    Parameter("Tmax", 9.3, "day", "time of the peak", STEIN, sd(0.38)),
    Parameter("Cmax", 24_000, "copies/ug", "level at the peak", STEIN, sd(0.65)),
    Parameter("alpha", 0.16, "1/day", "fast decline rate", STEIN, sd(0.91)),
    Parameter("FB", 0.0079, "-", "share of the peak that declines slowly", STEIN, sd(0.80)),
    Parameter("beta", 0.0032, "1/day", "slow decline rate", STEIN, sd(0.86)),
)


def solution(t, p):
    before = jnp.minimum(t, p.Tmax) - p.Tmax
    after = jnp.maximum(t - p.Tmax, 0.0)  # clamp first: the unused branch must not overflow
    rise = jnp.exp(jnp.log(p.foldx) / p.Tmax * before)
    fall = (1.0 - p.FB) * jnp.exp(-p.alpha * after) + p.FB * jnp.exp(-p.beta * after)
    return {"C": p.Cmax * rise * fall}


def derive(p):
    rho = jnp.log(p.foldx) / p.Tmax
    R0, B = p.Cmax / p.foldx, p.FB * p.Cmax
    A = p.Cmax - B
    early, late = jnp.minimum(28.0, p.Tmax), jnp.maximum(28.0 - p.Tmax, 0.0)
    return {
        "R0": R0,
        "rho": rho,
        "A": A,
        "B": B,
        "doubling_time": jnp.log(2.0) / rho,
        "half_life_initial": jnp.log(2.0) / p.alpha,
        "half_life_terminal": jnp.log(2.0) / p.beta,
        "AUC_28": R0 * jnp.expm1(rho * early) / rho - A * jnp.expm1(-p.alpha * late) / p.alpha
        - B * jnp.expm1(-p.beta * late) / p.beta,
    }


MODEL = StructuralModel(
    title="Tisagenlecleucel: growth to the peak, biexponential decline",
    source=Source("Mueller KT et al. Clin Cancer Res 2018;24:6175-6184",
                  "10.1158/1078-0432.CCR-18-0758"),
    time_unit="day",
    parameters=PARAMETERS,
    outputs=(Output("C", "copies/ug", "transgene level in blood", dvid=1),),
    derived=(
        Derived("R0", "copies/ug", "Cmax / foldx: level at the infusion"),
        Derived("rho", "1/day", "ln foldx / Tmax: growth rate"),
        Derived("A", "copies/ug", "(1 - FB) Cmax: what declines fast"),
        Derived("B", "copies/ug", "FB Cmax: what declines slowly"),
        Derived("doubling_time", "day", "ln 2 / rho"),
        Derived("half_life_initial", "day", "ln 2 / alpha"),
        Derived("half_life_terminal", "day", "ln 2 / beta"),
        Derived("AUC_28", "copies/ug day", "exposure from the infusion to day 28"),
    ),
    solution=solution,
    derive=derive,
    taxonomy=Taxonomy(
        "classic_pk", "empirical", habitats=("blood",), laws={"expansion": "on_off"},
        parameters_from="fitted", fit_level="individual", setting=("clinical",),
        measured=("blood_qpcr",), product="tisagenlecleucel", antigen="CD19", disease="B-ALL",
        in_review=True),
    doubts=(
        "Every value and spread is that of Stein 2019, fitted to overlapping patients; the "
        "estimates of this paper are probably in its supplement, which was not read.",
        "A level within the first day can be what is left in the catheter: the paper counts seven "
        "such peaks. Leave them out of a fit.",
    ),
)
