"""The words a model file is written in: what moves, with which parameters, and what is observed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

from carpk.problems import ModelError, Problem

Link = Literal["log", "logit", "identity"]
Function = Callable[..., Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model was published."""

    citation: str
    doi: str = ""


@dataclass(frozen=True, slots=True)
class Spread:
    """Between-patient spread: `omega` is always the SD of eta on the link scale."""

    omega: float
    printed: str
    published: bool = True


def sd(value: float) -> Spread:
    """A spread printed as a standard deviation of eta.

    >>> sd(0.65).omega
    0.65
    """
    return Spread(float(value), f"SD {value:g}")


def variance(value: float) -> Spread:
    """A spread printed as a variance of eta (NONMEM's OMEGA)."""
    return Spread(math.sqrt(value), f"variance {value:g}")


def cv(percent: float) -> Spread:
    """A spread printed as the CV % of a log-normal parameter: omega^2 = ln(1 + CV^2).

    >>> round(cv(72.5).omega, 3)
    0.65
    """
    return Spread(math.sqrt(math.log1p((percent / 100.0) ** 2)), f"CV {percent:g} %")


def assumed(value: float) -> Spread:
    """A spread no paper gives: the parameter varies between patients, its size is a guess."""
    return Spread(float(value), f"SD {value:g}, assumed", published=False)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its typical value on the natural scale and how patients spread around it.

    `fixed` parameters stay at their value unless a request frees them. `requires` names an
    input without which the data hold nothing about the parameter (a drug nobody was given).
    """

    name: str
    typical: float
    unit: str
    meaning: str
    where: str = ""
    omega: Spread | None = None
    link: Link = "log"
    fixed: bool = False
    requires: str = ""

    def __post_init__(self) -> None:
        # 24_000 would reach JAX as int64, which forward differentiation refuses
        object.__setattr__(self, "typical", float(self.typical))


@dataclass(frozen=True, slots=True)
class State:
    """One state of an ODE model. A `log` state is integrated as its logarithm: it must start
    above zero and stays positive down to 1e-260."""

    name: str
    unit: str
    meaning: str
    scale: Literal["linear", "log"] = "linear"


@dataclass(frozen=True, slots=True)
class Input:
    """A CSV column the equations need, one value per patient, read as `p.<name>`.

    A patient without a value takes `default`; with no default the column is required.
    `equals` names an output whose value at time 0 this is: such rows are not fitted.
    """

    name: str
    unit: str
    meaning: str
    default: float | None = None
    equals: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """Something observed, picked by DVID; `error` is the default residual error model."""

    name: str
    unit: str
    meaning: str
    dvid: int = 1
    error: str = "lognormal"


@dataclass(frozen=True, slots=True)
class Derived:
    """A quantity computed from a patient's parameters by `derive(p)`: a half-life, a rate."""

    name: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class StructuralModel:
    """How one patient's cells, drug and markers move.

    Either `solution(t, p)` gives the outputs in closed form, or `rates(t, y, p)`,
    `initial(p)` and `observe(t, y, p)` give an ODE. `t` is a scalar; `p` (parameters and
    inputs) and `y` (states) are read by name; every function returns a dict by name.
    A wrong declaration raises ModelError here, with all that is wrong.
    """

    title: str
    source: Source
    time_unit: str
    parameters: tuple[Parameter, ...]
    outputs: tuple[Output, ...]
    states: tuple[State, ...] = ()
    inputs: tuple[Input, ...] = ()
    derived: tuple[Derived, ...] = ()
    solution: Function | None = None
    rates: Function | None = None
    initial: Function | None = None
    observe: Function | None = None
    derive: Function | None = None
    parameter_sets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    name: str = ""
    file: str = ""

    def __post_init__(self) -> None:
        problems = [*_declaration_problems(self)]
        problems = problems or [*_function_problems(self)]
        if problems:
            raise ModelError(Problem("error", p, file=self.file) for p in problems)

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


def _declaration_problems(m: StructuralModel) -> list[str]:
    found = []
    groups = (m.parameters, m.inputs, m.states, m.outputs, m.derived)
    for kind, group in zip(("parameter", "input", "state", "output", "derived"), groups,
                           strict=True):
        listed = [item.name for item in group]
        found += [f"{kind} {n!r} is declared twice" for n in {n for n in listed
                                                              if listed.count(n) > 1}]
        found += [f"{kind} name {n!r} is not a Python name" for n in listed
                  if not n.isidentifier()]
    clash = {p.name for p in m.parameters} & {i.name for i in m.inputs}
    found += [f"{n!r} is both a parameter and an input" for n in clash]
    if not m.outputs:
        found.append("no output is declared")
    dvids = [o.dvid for o in m.outputs]
    found += [f"DVID {d} belongs to two outputs" for d in {d for d in dvids if dvids.count(d) > 1}]
    for p in m.parameters:
        if p.link not in ("log", "logit", "identity"):
            found.append(f"parameter {p.name}: unknown link {p.link!r}")
        elif p.fixed:
            continue
        elif p.link == "log" and not p.typical > 0:
            found.append(f"parameter {p.name}: a log link needs a typical value above 0")
        elif p.link == "logit" and not 0 < p.typical < 1:
            found.append(f"parameter {p.name}: a logit link needs a typical value in (0, 1)")
    known = {i.name for i in m.inputs}
    found += [f"parameter {p.name} requires {p.requires!r}, which is no input"
              for p in m.parameters if p.requires and p.requires not in known]
    outputs = {o.name for o in m.outputs}
    found += [f"input {i.name} equals {i.equals!r}, which is no output"
              for i in m.inputs if i.equals and i.equals not in outputs]
    parameters = {p.name for p in m.parameters}
    found += [f"parameter set {title!r} has {n!r}, which is no parameter or input"
              for title, values in m.parameter_sets.items()
              for n in values if n not in parameters | known]
    ode = [m.rates, m.initial, m.observe]
    if m.solution is not None and (any(ode) or m.states):
        found.append("give either solution, or states with rates, initial and observe, not both")
    if m.solution is None and not (all(ode) and m.states):
        found.append("an ODE model needs states, rates, initial and observe")
    if bool(m.derived) != (m.derive is not None):
        found.append("derived quantities and the function derive go together")
    return found


def _function_problems(m: StructuralModel) -> list[str]:
    """Calls every function once on abstract float64 scalars: names read and names returned."""
    import jax

    scalar = jax.ShapeDtypeStruct((), float)
    p = {n.name: scalar for n in (*m.parameters, *m.inputs)}
    y = {s.name: scalar for s in m.states}
    calls: list[tuple[str, Function | None, list[Any], tuple[Any, ...]]] = [
        ("solution", m.solution, [scalar, p], m.outputs),
        ("rates", m.rates, [scalar, y, p], m.states),
        ("initial", m.initial, [p], m.states),
        ("observe", m.observe, [scalar, y, p], m.outputs),
        ("derive", m.derive, [p], m.derived),
    ]
    found = []
    for name, function, arguments, expected in calls:
        if function is None:
            continue
        if len(inspect.signature(function).parameters) != len(arguments):
            found.append(f"{name} takes {len(arguments)} arguments: "
                         f"({', '.join('typ'[3 - len(arguments):]) if name != 'solution' else 't, p'})")
            continue
        try:
            returned = jax.eval_shape(lambda *a, f=function: dict(f(*map(named, a))), *arguments)
        except Exception as failure:
            found.append(f"{name} raised {type(failure).__name__}: {failure}")
            continue
        names = {e.name for e in expected}
        found += [f"{name} does not return {n!r}" for n in sorted(names - set(returned))]
        found += [f"{name} returns {n!r}, which is not declared"
                  for n in sorted(set(returned) - names)]
        found += [f"{name} returns {n!r} with shape {v.shape}, not a scalar"
                  for n, v in returned.items() if v.shape != ()]
    return found


def named(values: Any) -> Any:
    """A dict becomes something read by name (`p.CL`); anything else passes through."""
    return SimpleNamespace(**values) if isinstance(values, dict) else values
