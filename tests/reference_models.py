"""The models behind the published objective values, and their data as carpk reads them."""

import dataclasses

import jax
import jax.numpy as jnp
import pandas as pd
from models_for_tests import cohort

from carpk.nonmem import read_csv
from carpk.structure import Input, Output, Parameter, Source, State, StructuralModel, sd

TEXTBOOK = Source("textbook")
DOSE = Input("DOSE", "mg", "the one dose")


# where a fit begins: round numbers a reader of the data would guess, not estimates
ROUND = {"ka": 1.0, "Ka": 1.0, "KA": 1.0, "Ke": 0.1, "K": 0.1, "ke": 0.5, "lag": 0.5, "Cl": 0.05,
         "a": 20.0, "b": 1.0, "CIRC0": 5.0, "MTT": 5000.0, "SLOPU": 500.0}


def parameters(*values, **links):
    """Names that vary, each with a round typical value; or name=value."""
    return tuple(Parameter(n, float(v), "-", n, omega=sd(0.3), link=links.get(n, "log"))
                 for n, v in ((x if isinstance(x, tuple) else (x, ROUND[x])) for x in values))


def model(title, names, solution=None, inputs=(), error="proportional", **more):
    """A model with one output C; names of parameters, or the parameters themselves."""
    given = names if isinstance(names[0], Parameter) else parameters(*names)
    return StructuralModel(
        title=title, source=TEXTBOOK, time_unit="h", parameters=given, inputs=inputs,
        outputs=(Output("C", "mg/L", "level", error=error),), solution=solution,
        file=__file__, **more)


def absorbed(t, dose, ka, ke, v):
    """One compartment after an oral dose, from an empty depot at time 0."""
    return dose * ka / v / (ka - ke) * (jnp.exp(-ke * t) - jnp.exp(-ka * t))


WANG = model("one rate", (Parameter("ke", 0.5, "1/h", "rate", omega=sd(0.2)),),
             lambda t, p: {"C": 10.0 * jnp.exp(-p.ke * t)})

ORAL = model("oral, ka CL V", ("ka", ("CL", 1.0), ("V", 10.0)),
             lambda t, p: {"C": absorbed(t, p.DOSE, p.ka, p.CL / p.V, p.V)}, (DOSE,), "combined")

LAGGED = model(
    "oral with a lag", ("lag", "ka", ("CL", 0.1), ("V", 10.0)),
    lambda t, p: {"C": jnp.where(t > p.lag, absorbed(
        jnp.maximum(t - p.lag, 0.0), p.DOSE, p.ka, p.CL / p.V, p.V), 0.0)}, (DOSE,), "combined")

ORAL_ODE = model(
    "oral, as an ODE", ("ka", ("CL", 1.0), ("V", 10.0)), error="combined",
    states=(State("depot", "mg", "depot"), State("central", "mg", "central")),
    rates=lambda t, y, p: {"depot": -p.ka * y.depot,
                           "central": p.ka * y.depot - p.CL / p.V * y.central},
    initial=lambda p: {"depot": 0.0, "central": 0.0},
    observe=lambda t, y, p: {"C": y.central / p.V})

THEO_FO = model(
    "theophylline, normal effects", parameters("KA", "K", ("CL", 3.0), KA="identity", K="identity",
                                               CL="identity"),
    lambda t, p: {"C": absorbed(t, p.DOSE, p.KA, p.K, p.CL / p.K / p.WT)},
    (DOSE, Input("WT", "kg", "weight")), "additive")

THEO_NLME = model(
    "theophylline of nlme", ("Ke", "Ka", "Cl"),
    lambda t, p: {"C": absorbed(t, p.DOSE, p.Ka, p.Ke, p.Cl / p.Ke)}, (DOSE,), "additive")

BOLUS = model(
    "bolus doses, one compartment", (("CL", 0.01), ("V", 1.0)),
    states=(State("A", "mg", "amount"),),
    rates=lambda t, y, p: {"A": -p.CL / p.V * y.A}, initial=lambda p: {"A": 0.0},
    observe=lambda t, y, p: {"C": y.A / p.V})

INFUSED = model(
    "infusion of 5 h, one compartment", (("CL", 3.0), ("V", 30.0)),
    lambda t, p: {"C": p.DOSE / 5.0 / p.CL * (1.0 - jnp.exp(-p.CL / p.V * jnp.minimum(t, 5.0)))
                  * jnp.exp(-p.CL / p.V * jnp.maximum(t - 5.0, 0.0))}, (DOSE,))


def biexponential(t, dose, cl, v1, q, v2):
    """Two compartments after a bolus."""
    k10, k12, k21 = cl / v1, q / v1, q / v2
    total = k10 + k12 + k21
    fast = 0.5 * (total + jnp.sqrt(total**2 - 4.0 * k10 * k21))
    slow = k10 * k21 / fast
    return dose / v1 * ((fast - k21) * jnp.exp(-fast * t) + (k21 - slow) * jnp.exp(-slow * t)) \
        / (fast - slow)


TWO = model("two compartments, bolus", (("CL", 5.0), ("V1", 50.0), ("Q", 5.0), ("V2", 50.0)),
            lambda t, p: {"C": biexponential(t, p.DOSE, p.CL, p.V1, p.Q, p.V2)}, (DOSE,))

def _infused(t, p, last=1.0):
    """Two compartments after an infusion of `last`: the integral of the bolus over it."""
    k10, k12, k21 = p.CL / p.V, p.Q / p.V, p.Q / p.V2
    total = k10 + k12 + k21
    fast = 0.5 * (total + jnp.sqrt(total**2 - 4.0 * k10 * k21))
    slow = k10 * k21 / fast
    during, after = jnp.minimum(t, last), jnp.maximum(t - last, 0.0)
    return p.DOSE / last / p.V / (fast - slow) * sum(
        share / rate * (1.0 - jnp.exp(-rate * during)) * jnp.exp(-rate * after)
        for share, rate in ((fast - k21, fast), (k21 - slow, slow)))


TWO_INFUSED = model(
    "two compartments, infusion of 1 h", (("CL", 5.0), ("V", 50.0), ("Q", 5.0), ("V2", 50.0)),
    lambda t, p: {"C": _infused(t, p)}, (DOSE,))

SATURABLE = model(
    "bolus, Michaelis-Menten elimination", (("V", 50.0), ("VM", 500.0), ("KM", 300.0)),
    inputs=(DOSE,), states=(State("A", "mg", "amount"),),
    rates=lambda t, y, p: {"A": -p.VM * y.A / (p.KM * p.V + y.A)},
    initial=lambda p: {"A": p.DOSE}, observe=lambda t, y, p: {"C": y.A / p.V})

TWO_LOG = model(
    "two compartments, ln C", (("CL", 5.0), ("V1", 5.0), ("Q", 2.0), ("V2", 10.0)),
    lambda t, p: {"C": jnp.log(biexponential(t, 100.0, p.CL, p.V1, p.Q, p.V2))},
    error="additive")

LINE = model("a line", parameters("a", "b", a="identity", b="identity"),
             lambda t, p: {"C": p.a + p.b * t}, error="additive")

MISNAMED = model("parameters named like errors and spreads", parameters(
    ("sigma", 90.0), ("rho", 0.2), ("gamma", 0.1), gamma="identity"),
    lambda t, p: {"C": p.sigma * jnp.exp(-(p.rho + p.gamma) * t)}, error="lognormal")


def _level_and_answer(level, p):
    return {"C": level, "R": jax.nn.sigmoid(p.base + p.slope * level)}


MIXED = StructuralModel(
    title="a level and an answer", source=TEXTBOOK, time_unit="h",
    parameters=(*parameters(("KA", 1.0), ("V", 30.0), ("CL", 10.0)),
                Parameter("base", -0.5, "-", "logit at 0", link="identity"),
                Parameter("slope", 0.1, "-", "logit per level", link="identity")),
    inputs=(DOSE,), file=__file__, outputs=(
        Output("C", "mg/L", "level", error="proportional"),
        Output("R", "-", "answer", dvid=2, error="bernoulli")),
    solution=lambda t, p: _level_and_answer(
        1000.0 * absorbed(t, p.DOSE, p.KA, p.CL / p.V, p.V), p))

_CHAIN = ("prol", "tr1", "tr2", "tr3", "circ")


def _marrow(t, y, p):
    k12, k21 = 204.0 / p.V1I, 204.0 / p.V2I
    ktr = 4.0 / p.MTT
    kill = 1.0 - p.SLOPU * y.c1 / p.V1I
    chain = [y.prol, y.tr1, y.tr2, y.tr3, y.circ]
    feedback = (p.CIRC0 / y.circ) ** p.GAMMA
    return {"c1": k21 * y.c2 - (k12 + p.CLI / p.V1I) * y.c1, "c2": k12 * y.c1 - k21 * y.c2,
            "prol": ktr * y.prol * (kill * feedback - 1.0),
            **{n: ktr * (a - b) for n, a, b in zip(_CHAIN[1:], chain, chain[1:], strict=False)}}


MARROW = model(
    "Friberg", (*parameters("CIRC0", "MTT", "SLOPU"), Parameter("GAMMA", 0.1, "-", "feedback")),
    inputs=tuple(Input(n, "-", "known") for n in ("CLI", "V1I", "V2I")),
    states=tuple(State(n, "-", n) for n in ("c1", "c2", *_CHAIN)), rates=_marrow,
    initial=lambda p: {"c1": 0.0, "c2": 0.0, **dict.fromkeys(_CHAIN, p.CIRC0)},
    observe=lambda t, y, p: {"C": y.circ})


def single_dose(file, **columns):
    """A file whose patients had one dose each, as an input DOSE for closed forms; columns: more
    inputs, or covariates, by their names in the file."""
    table = pd.read_csv(file)
    first = table.groupby("ID", sort=False).first()
    dose = table.groupby("ID", sort=False)["AMT"].max() if "AMT" in table else first.get("DOSE")
    rows = table[table["EVID"] == 0] if "EVID" in table else table
    if "DVID" in rows:
        rows = rows[rows["DVID"] == 1]
    inputs = {n: first[c].to_numpy() for n, c in columns.items()}
    if dose is not None:
        inputs["DOSE"] = dose.to_numpy(float)
    if "CENS" in rows and (rows["CENS"] == 1).any():
        return cohort([(str(r.ID), r.TIME, r.DV, *((-float("inf"), r.LLOQ) if r.CENS else ()))
                       for r in rows.itertuples()], **inputs)
    return cohort([(str(r.ID), r.TIME, r.DV) for r in rows.itertuples()], **inputs)


def phenobarbital(file):
    """With LOW: whether the Apgar score is below 5."""
    read = read_csv(file)
    return dataclasses.replace(read, covariates=read.covariates.assign(
        LOW=(read.covariates["APGR"] < 5).astype(float)))
