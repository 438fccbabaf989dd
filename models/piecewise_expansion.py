"""CAR T cells in blood by qPCR: a lag, exponential expansion to Tmax, then biexponential decline.

The level stays at C0 = Cmax 2^(-(Tmax - Tlag) / DT) until Tlag, doubles every DT until Tmax, where
it is Cmax, and after Tmax falls as (1 - FB) Cmax with the half-life t_half_a and FB Cmax with the
half-life t_half_b. A generic shape, not a paper's model: it has the phases of the lisocabtagene
maraleucel population analysis and the five typical values its abstract prints; Cmax, FB and every
spread are assumed. Levels in transgene copies per microgram genomic DNA, time in days after the
infusion.
"""

import jax.numpy as jnp

from carpk.laws import phase
from carpk.structure import Derived, Output, Parameter, Source, StructuralModel, assumed
from carpk.taxonomy import Taxonomy

ABSTRACT = "Ogasawara 2021, abstract"
ASSUMED = "assumed"
PARAMETERS = (
    Parameter("Tlag", 3.27, "day", "lag before the expansion", ABSTRACT),
    Parameter("DT", 0.755, "day", "doubling time of the expansion", ABSTRACT, assumed(0.25)),
    Parameter("Tmax", 9.29, "day", "time of the peak", ABSTRACT, assumed(0.3)),
    Parameter("Cmax", 24_000, "copies/ug", "peak", ASSUMED, assumed(0.8)),
    Parameter("t_half_a", 5.00, "day", "half-life of the first decline", ABSTRACT, assumed(0.6)),
    Parameter("FB", 0.01, "-", "share of the peak that declines slowly", ASSUMED, assumed(0.8),
              "logit"),
    Parameter("t_half_b", 352, "day", "terminal half-life", ABSTRACT, assumed(0.6)),
)


def solution(t, p):
    peak = jnp.maximum(p.Tlag, p.Tmax)  # a patient with the longer lag has no growth
    to_come = (peak - p.Tlag - phase(t, p.Tlag, peak)) / p.DT  # doublings
    after = phase(t, peak)
    decline = (1.0 - p.FB) * 2.0 ** (-after / p.t_half_a) + p.FB * 2.0 ** (-after / p.t_half_b)
    return {"C": p.Cmax * 2.0 ** -to_come * decline}


def derive(p):
    fold = 2.0 ** (jnp.maximum(p.Tmax - p.Tlag, 0.0) / p.DT)
    return {
        "growth_rate": jnp.log(2.0) / p.DT,
        "fold": fold,
        "C0": p.Cmax / fold,
        "alpha": jnp.log(2.0) / p.t_half_a,
        "beta": jnp.log(2.0) / p.t_half_b,
    }


MODEL = StructuralModel(
    title="Generic CAR T-cell kinetics: lag, expansion, biexponential decline",
    source=Source("textbook"),
    time_unit="day",
    parameters=PARAMETERS,
    outputs=(Output("C", "copies/ug", "transgene level in blood", dvid=1),),
    derived=(
        Derived("growth_rate", "1/day", "ln 2 / DT"),
        Derived("fold", "-", "Cmax / C0"),
        Derived("C0", "copies/ug", "level during the lag"),
        Derived("alpha", "1/day", "ln 2 / t_half_a"),
        Derived("beta", "1/day", "ln 2 / t_half_b"),
    ),
    solution=solution,
    derive=derive,
    taxonomy=Taxonomy(
        "pk", "empirical", habitats=("blood",), laws={"expansion": "phase"},
        parameters_from="mixed", fit_level="none", setting=("clinical",),
        measured=("blood_qpcr",), product="lisocabtagene maraleucel", antigen="CD19",
        disease="large B-cell lymphoma"),
    doubts=(
        "Tlag, DT, Tmax and both half-lives are those of Ogasawara K et al. Clin Pharmacokinet "
        "2021;60:1621-1633 (doi 10.1007/s40262-021-01039-5), of which only the abstract was read; "
        "its peak, slow share, spreads and residual error were not, so ours are assumed.",
        "That the level is constant during the lag is assumed; there, samples tell Tlag only as "
        "far as they lie above the limit of quantification.",
    ),
)
