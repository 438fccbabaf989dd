"""The model behind the simulated cohort sim_stein90, and the cohort."""

import dataclasses

import jax.numpy as jnp

from carpk.nonmem import read_csv
from carpk.population_model import population
from carpk.registry import find_model
from carpk.structure import Output, Parameter, StructuralModel, assumed


def _curve(t, p):
    rho = jnp.log(p.foldx) / p.Tmax
    after = jnp.maximum(t - p.Tmax, 0.0)
    return {"C": p.Cmax * jnp.exp(rho * jnp.minimum(t - p.Tmax, 0.0)) * (
        (1.0 - p.FB) * jnp.exp(-p.alpha * after) + p.FB * jnp.exp(-p.beta * after))}


MODEL = StructuralModel(
    title="Stein's curve", source=find_model("stein_2019").source, time_unit="day",
    parameters=(
        Parameter("Cmax", 20000.0, "copies/ug", "peak", omega=assumed(1.0)),
        Parameter("Tmax", 10.0, "day", "time of the peak", omega=assumed(0.3)),
        Parameter("foldx", 1000.0, "-", "fold expansion", omega=assumed(1.0)),
        Parameter("alpha", 0.1, "1/day", "fast decline", omega=assumed(0.5)),
        Parameter("beta", 0.005, "1/day", "slow decline", omega=assumed(0.5)),
        Parameter("FB", 0.01, "-", "fraction", omega=assumed(1.0), link="logit")),
    outputs=(Output("C", "copies/ug", "transgene level"),), solution=_curve, file=__file__)


def both(data):
    """The population model and the cohort."""
    cohort = read_csv(data / "sim_stein90" / "stein90.csv")
    return population(MODEL), dataclasses.replace(cohort, units={})
