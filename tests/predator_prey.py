"""CAR T cells against a tumour: the model behind the simulated cohort sim_pkpd40."""

from carpk.structure import Output, Parameter, Source, State, StructuralModel, assumed


def rates(t, y, p):
    return {
        "E": (p.rho * y.B / (100.0 + y.B) - p.alpha - p.kem) * y.E,
        "M": p.kem * y.E - p.beta * y.M,
        "B": (p.g - p.kkill * y.E / (5000.0 + y.E)) * y.B,
    }


MODEL = StructuralModel(
    title="predator and prey", source=Source("simulated cohort sim_pkpd40"), time_unit="day",
    parameters=(
        Parameter("E0", 10.0, "copies/ug", "effectors at the start"),
        Parameter("rho", 1.0, "1/day", "expansion", omega=assumed(0.3)),
        Parameter("alpha", 0.2, "1/day", "contraction", omega=assumed(0.3)),
        Parameter("kem", 0.005, "1/day", "conversion to memory", omega=assumed(0.3)),
        Parameter("beta", 0.005, "1/day", "loss of memory"),
        Parameter("B0", 80.0, "-", "tumour at the start", omega=assumed(0.3)),
        Parameter("g", 0.03, "1/day", "growth of the tumour"),
        Parameter("kkill", 0.3, "1/day", "killing", omega=assumed(0.3)),
    ),
    states=(State("E", "copies/ug", "effector", "log"), State("M", "copies/ug", "memory"),
            State("B", "-", "tumour", "log")),
    outputs=(Output("C", "copies/ug", "CAR T level", dvid=1),
             Output("B", "-", "tumour burden", dvid=2)),
    rates=rates,
    initial=lambda p: {"E": p.E0, "M": 0.0, "B": p.B0},
    observe=lambda t, y, p: {"C": y.E + y.M, "B": y.B},
    file=__file__,
)
