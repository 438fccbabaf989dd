"""One compartment, first-order absorption and elimination. Amounts in mg, Cc in mg/L, time in h."""

from carpk.structure import Dose, Output, Parameter, Source, State, StructuralModel, assumed


def rates(t, y, p):
    absorbed = p.Ka * y.depot
    return {"depot": -absorbed, "central": absorbed - p.CL / p.V * y.central}


def initial(p):
    return {"depot": 0.0, "central": 0.0}


def observe(t, y, p):
    return {"Cc": y.central / p.V}


MODEL = StructuralModel(
    title="One compartment, oral",
    source=Source("textbook"),
    time_unit="h",
    parameters=(
        Parameter("Ka", 1.0, "1/h", "absorption rate constant", omega=assumed(0.5)),
        Parameter("CL", 3.0, "L/h", "clearance", omega=assumed(0.3)),
        Parameter("V", 30.0, "L", "volume of distribution", omega=assumed(0.3)),
    ),
    states=(
        State("depot", "mg", "dose not yet absorbed"),
        State("central", "mg", "drug in the body"),
    ),
    doses=(Dose("depot", 100.0),),
    outputs=(Output("Cc", "mg/L", "concentration in plasma", dvid=1, error="combined"),),
    rates=rates,
    initial=initial,
    observe=observe,
)
