"""A structural model: what moves in a patient, with which parameters, and what is observed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from carpk.declarations import wrong_declarations
from carpk.problems import ModelError, Problem
from carpk.taxonomy import Taxonomy
from carpk.words import (
    Classes,
    Derived,
    Dose,
    Function,
    Input,
    Link,
    Output,
    Parameter,
    Solver,
    Source,
    Spread,
    State,
    assumed,
    cv,
    sd,
    variance,
)

__all__ = ["Classes", "Derived", "Dose", "Function", "Input", "Link", "Output", "Parameter",
           "Solver", "Source", "Spread", "State", "StructuralModel", "assumed", "cv", "named", "sd",
           "variance"]


@dataclass(frozen=True)
class StructuralModel:
    """How one patient's cells, drug and markers move.

    Either `solution(t, p)` gives the outputs in closed form, or `rates(t, y, p)`,
    `initial(p)` and `observe(t, y, p)` give an ODE. `t` is a scalar; `p` (parameters and
    inputs) and `y` (states) are read by name; every function returns a dict by name.
    `solver` is chosen by what the equations need where it is "auto": tsit5, or rodas4 for stiff
    ones. `switches` names the parameters and inputs that are times at which rates jump: no step
    crosses them. Where rates jump as the states pass a threshold, `thresholds` gives it a name
    and a function (t, y, p) that changes sign there; `rates` reads `p.<that name>`, 1 while the
    function is above 0 and 0 otherwise, and steps end at the threshold. `dosing(p)` gives, by
    state, what doses into it are: a dict with `lag` (time until a dose comes), `bioavailability`
    (share of an amount that does), and for RATE=-1 and -2 the model's own `rate` and `duration`
    of an infusion. `classes` are latent classes of patients. A wrong declaration raises
    ModelError here, with all that is wrong.
    """

    title: str
    source: Source
    time_unit: str
    parameters: tuple[Parameter, ...]
    outputs: tuple[Output, ...]
    states: tuple[State, ...] = ()
    inputs: tuple[Input, ...] = ()
    doses: tuple[Dose, ...] = ()
    derived: tuple[Derived, ...] = ()
    solution: Function | None = None
    rates: Function | None = None
    initial: Function | None = None
    observe: Function | None = None
    derive: Function | None = None
    dosing: Function | None = None
    thresholds: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    parameter_sets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    classes: Classes | None = None
    doubts: tuple[str, ...] = ()
    taxonomy: Taxonomy | None = None
    solver: Solver = "auto"
    switches: tuple[str, ...] = ()
    name: str = ""
    file: str = ""

    def __post_init__(self) -> None:
        found = wrong_declarations(self)
        if found:
            raise ModelError(Problem("error", wrong, file=self.file) for wrong in found)

    def parameter(self, name: str) -> Parameter:
        """The parameter of that name."""
        return next(p for p in self.parameters if p.name == name)

    def output(self, name: str) -> Output:
        """The output of that name."""
        return next(o for o in self.outputs if o.name == name)

    @property
    def typical(self) -> dict[str, float]:
        """Typical values by parameter name."""
        return {p.name: p.typical for p in self.parameters}

    @property
    def dosed(self) -> dict[str, set[str]]:
        """By state, the words that `dosing` has for it."""
        if self.dosing is None:
            return {}
        ones = dict.fromkeys([*self.typical, *(i.name for i in self.inputs)], 1.0)
        return {state: set(words) for state, words in self.dosing(named(ones)).items()}

    @property
    def held(self) -> dict[str, tuple[float, str]]:
        """Value and reason of every population parameter that stays fixed unless freed."""
        return {f"{p.name}_pop": (p.typical, p.fixed) for p in self.parameters if p.fixed} | {
            f"omega_{p.name}": (p.omega.omega, p.omega.fixed)
            for p in self.parameters if p.omega and p.omega.fixed}


def named(values: Any) -> Any:
    """A dict becomes something read by name (`p.CL`); anything else passes through."""
    return SimpleNamespace(**values) if isinstance(values, dict) else values
