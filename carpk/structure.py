"""The words a model file is written in: what moves, with which parameters, and what is observed."""

from __future__ import annotations

import inspect
import keyword
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, get_args

from carpk.problems import ModelError, Problem
from carpk.taxonomy import Taxonomy

Link = Literal["log", "logit", "identity"]
Solver = Literal["auto", "tsit5", "rodas4"]
Function = Callable[..., Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model was published."""

    citation: str
    doi: str = ""


@dataclass(frozen=True, slots=True)
class Spread:
    """Between-patient spread: `omega` is always the SD of eta on the link scale.

    `fixed` says why it stays at its value unless a request frees it.
    """

    omega: float
    printed: str
    published: bool = True
    fixed: str = ""


def sd(value: float) -> Spread:
    """A spread printed as a standard deviation of eta.

    >>> sd(0.65).omega
    0.65
    """
    return Spread(float(value), f"SD {value:g}")


def variance(value: float) -> Spread:
    """A spread printed as a variance of eta (NONMEM's OMEGA).

    >>> variance(0.25).omega
    0.5
    """
    return Spread(math.sqrt(max(value, 0.0)), f"variance {value:g}")  # 0 is refused with its model


def cv(percent: float) -> Spread:
    """A spread printed as the CV % of a log-normal parameter: omega^2 = ln(1 + CV^2).

    >>> round(cv(72.5).omega, 3)
    0.65
    """
    return Spread(math.sqrt(math.log1p((max(percent, 0.0) / 100.0) ** 2)), f"CV {percent:g} %")


def assumed(value: float, fixed: str = "") -> Spread:
    """A spread no paper gives, its size a guess; its default prior is a half-normal of twice that.

    >>> assumed(0.3, fixed="too few samples before the peak").omega
    0.3
    """
    return Spread(float(value), f"SD {value:g}, assumed", published=False, fixed=fixed)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its typical value on the natural scale and how patients spread around it.

    `fixed` says why the parameter stays at its value unless a request frees it. `requires` names an
    input without which the data hold nothing about the parameter (a drug nobody was given).
    """

    name: str
    typical: float
    unit: str
    meaning: str
    where: str = ""
    omega: Spread | None = None
    link: Link = "log"
    fixed: str = ""
    requires: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "typical", _as_float(self.typical))


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "default", _as_float(self.default))


@dataclass(frozen=True, slots=True)
class Output:
    """Something observed, picked by DVID; `error` is the default residual error model."""

    name: str
    unit: str
    meaning: str
    dvid: int = 1
    error: str = "lognormal"

    @property
    def positive(self) -> bool:
        """Whether it is fitted on the log scale."""
        return self.error.partition(" ")[0] == "lognormal"


@dataclass(frozen=True, slots=True)
class Derived:
    """A quantity computed from a patient's parameters by `derive(p)`: a half-life, a rate."""

    name: str
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Dose:
    """What a patient usually gets: `amount` (unit of the state) into `state` at the time `at`,
    within `over` (0: at once). Simulations and plots take it where nobody says otherwise; data
    state their own doses."""

    state: str
    amount: float
    at: float = 0.0
    over: float = 0.0


@dataclass(frozen=True)
class StructuralModel:
    """How one patient's cells, drug and markers move.

    Either `solution(t, p)` gives the outputs in closed form, or `rates(t, y, p)`,
    `initial(p)` and `observe(t, y, p)` give an ODE. `t` is a scalar; `p` (parameters and
    inputs) and `y` (states) are read by name; every function returns a dict by name.
    `solver` is chosen by what the equations need where it is "auto": tsit5, or rodas4 for stiff
    ones. `switches` names the parameters and inputs that are times at which rates jump: no step
    crosses them. A wrong declaration raises ModelError here, with all that is wrong.
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
    parameter_sets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    taxonomy: Taxonomy | None = None
    solver: Solver = "auto"
    switches: tuple[str, ...] = ()
    name: str = ""
    file: str = ""

    def __post_init__(self) -> None:
        found = _type_problems(self) or [*_declaration_problems(self), *_function_problems(self)]
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
    def held(self) -> dict[str, tuple[float, str]]:
        """Value and reason of every population parameter that stays fixed unless freed."""
        return {f"{p.name}_pop": (p.typical, p.fixed) for p in self.parameters if p.fixed} | {
            f"omega_{p.name}": (p.omega.omega, p.omega.fixed)
            for p in self.parameters if p.omega and p.omega.fixed}


_NAMED = {"parameters": Parameter, "inputs": Input, "states": State, "outputs": Output,
          "derived": Derived}
_WORDS = {**_NAMED, "doses": Dose}
_CALLS = {  # what each function is called with, and the declared names it must return
    "solution": ("t, p", "outputs"), "rates": ("t, y, p", "states"), "initial": ("p", "states"),
    "observe": ("t, y, p", "outputs"), "derive": ("p", "derived"),
}


def _as_float(value: Any) -> Any:
    """24_000 would reach JAX as int64, which forward differentiation refuses."""
    try:
        return value if isinstance(value, str) else float(value)
    except (TypeError, ValueError):  # refused with its model, in a sentence
        return value


def _type_problems(m: StructuralModel) -> list[str]:
    """What would make every further check stumble: a group or function of another kind."""
    found = []
    for field_name, word in _WORDS.items():
        group = getattr(m, field_name)
        if isinstance(group, word):
            found.append(f"{field_name} is one {word.__name__}, not a tuple: put a comma after it")
        elif not isinstance(group, tuple | list):
            found.append(f"{field_name} is {group!r}, not a tuple of {word.__name__}")
        else:
            found += [f"{field_name} holds {item!r}, which is no {word.__name__}"
                      for item in group if not isinstance(item, word)]
    found += [f"{name} is {f!r}, not a function" for name in _CALLS
              if (f := getattr(m, name)) is not None and not callable(f)]
    return found


def _declaration_problems(m: StructuralModel) -> list[str]:
    found = []
    for field_name, word in _NAMED.items():
        kind, listed = word.__name__.lower(), [item.name for item in getattr(m, field_name)]
        found += [f"{kind} {n!r} is declared twice" for n in _repeated(listed)]
        found += [f"{kind} name {n!r} is not a Python name" for n in listed
                  if not n.isidentifier() or keyword.iskeyword(n)]
    parameters, inputs = {p.name for p in m.parameters}, {i.name for i in m.inputs}
    outputs = {o.name for o in m.outputs}
    found += [f"{n!r} is both a parameter and an input" for n in sorted(parameters & inputs)]
    found += [f"{d.name!r} is both a derived quantity and a parameter or input"
              for d in m.derived if d.name in parameters | inputs]
    for p in m.parameters:
        found += [f"parameter {p.name}: {wrong}" for wrong in _parameter_problems(p)]
    found += [f"parameter {p.name} requires {p.requires!r}, which is no input"
              for p in m.parameters if p.requires and p.requires not in inputs]
    found += [f"input {i.name} equals {i.equals!r}, which is no output"
              for i in m.inputs if i.equals and i.equals not in outputs]
    found += [f"input {i.name}: default {i.default!r} is not a number" for i in m.inputs
              if i.default is not None
              and (not isinstance(i.default, float) or math.isnan(i.default))]
    found += [f"state {s.name}: scale {s.scale!r} is neither 'linear' nor 'log'"
              for s in m.states if s.scale not in ("linear", "log")]
    states = {s.name for s in m.states}
    found += [f"a dose goes into {d.state!r}, which is no state" for d in m.doses
              if d.state not in states]
    found += [f"a dose of {d.amount!r} at {d.at!r} over {d.over!r}: amounts are above 0, times "
              "not below" for d in m.doses
              if not (0 < d.amount < math.inf and 0 <= d.at < math.inf and 0 <= d.over < math.inf)]
    found += [f"rates switch at {n!r}, which is no parameter or input"
              for n in m.switches if n not in parameters | inputs]
    if m.solver not in get_args(Solver):
        found.append(f"solver {m.solver!r} is none of {', '.join(get_args(Solver))}")
    found += [f"output {o.name}: DVID {o.dvid!r} is not a whole number" for o in m.outputs
              if not isinstance(o.dvid, int)]
    found += [f"DVID {d} belongs to two outputs" for d in _repeated(o.dvid for o in m.outputs)]
    for title, values in m.parameter_sets.items():
        found += [f"parameter set {title!r} has {n!r}, which is no parameter or input"
                  for n in values if n not in parameters | inputs]
    found += m.taxonomy.problems() if m.taxonomy else []
    if not m.outputs:
        found.append("no output is declared")
    parts = {n: bool(getattr(m, n)) for n in ("states", "rates", "initial", "observe")}
    missing = [n for n, given in parts.items() if not given]
    if m.solution is not None and len(missing) < len(parts):
        found.append("give either solution, or states with rates, initial and observe, not both")
    if m.solution is None and missing:
        found.append(f"neither a solution nor a whole ODE model: no {', no '.join(missing)}")
    if bool(m.derived) != (m.derive is not None):
        found.append("derived quantities and the function derive go together: "
                     f"{'derived' if m.derive else 'derive'} is missing")
    return found


def _parameter_problems(p: Parameter) -> list[str]:
    found = []
    if not isinstance(p.typical, float) or not math.isfinite(p.typical):
        found.append(f"typical value {p.typical!r} is not a finite number")
    elif p.link not in ("log", "logit", "identity"):
        found.append(f"unknown link {p.link!r}")
    elif p.link == "log" and not p.typical > 0 and not p.fixed:
        found.append("a log link needs a typical value above 0")
    elif p.link == "logit" and not 0 < p.typical < 1 and not p.fixed:
        found.append("a logit link needs a typical value in (0, 1)")
    if p.omega is not None and not isinstance(p.omega, Spread):
        found.append(f"say what the spread {p.omega!r} is: sd(...), variance(...) or cv(...)")
    elif p.omega is not None and not 0 < p.omega.omega < math.inf:
        found.append(f"a spread must be above 0 and finite, not {p.omega.printed}")
    return found


def _repeated(values: Iterable[Any]) -> list[Any]:
    listed = list(values)
    return [v for v in dict.fromkeys(listed) if listed.count(v) > 1]


def _function_problems(m: StructuralModel) -> list[str]:
    """Calls every function once on abstract float64 scalars: names read and names returned."""
    declared = {"p": [p.name for p in m.parameters] + [i.name for i in m.inputs],
                "y": [s.name for s in m.states]}
    found: list[str] = []
    for name, (called_with, group) in _CALLS.items():
        function = getattr(m, name)
        if function is None:
            continue
        letters = called_with.split(", ")
        takes = len(inspect.signature(function).parameters)
        if takes != len(letters):
            found.append(f"{name} is called as {name}({called_with}) but takes {takes} arguments")
            continue
        expected = {item.name for item in getattr(m, group)}
        found += [f"{name} {wrong}" for wrong in _call_problems(
            function, {letter: declared.get(letter) for letter in letters}, expected)]
    return found


def _call_problems(function: Function, arguments: Mapping[str, list[str] | None],
                   expected: set[str]) -> list[str]:
    import jax

    found: list[str] = []

    def reader(letter: str, values: dict[str, Any]) -> Any:
        def undeclared(_: Any, name: str) -> float:  # noted, and 1.0 stands in: find them all
            if name.startswith("__"):
                raise AttributeError(name)
            kind = "parameter or input" if letter == "p" else "state"
            found.append(f"reads {letter}.{name}, which is no {kind}")
            return 1.0

        return type(letter, (SimpleNamespace,), {"__getattr__": undeclared})(**values)

    def call(*values: Any) -> dict[str, Any]:
        returned = function(*(reader(letter, v) if isinstance(v, dict) else v
                              for letter, v in zip(arguments, values, strict=True)))
        if isinstance(returned, Mapping):
            return dict(returned)
        what = "one value" if isinstance(returned, jax.Array) else type(returned).__name__
        found.append(f"returns {what}, not a dict by name")
        return dict.fromkeys(expected, 0.0)

    scalar = jax.ShapeDtypeStruct((), float)
    try:
        returned = jax.eval_shape(call, *(scalar if names is None else dict.fromkeys(names, scalar)
                                          for names in arguments.values()))
    except jax.errors.JAXTypeError:  # jax's own text is a page on tracers
        return [*dict.fromkeys(found), "needs a plain number where it has an unknown one (if, "
                "float(), math or numpy): use jnp.where and jax.numpy"]
    except Exception as failure:
        first_line = str(failure).partition("\n")[0]
        return [*dict.fromkeys(found), f"raised {type(failure).__name__}: {first_line}"]
    found += [f"does not return {n!r}" for n in sorted(expected - set(returned))]
    found += [f"returns {n!r}, which is not declared" for n in sorted(set(returned) - expected)]
    found += [f"returns {n!r} as {getattr(v, 'shape', v)!r}, not as a scalar"
              for n, v in returned.items() if getattr(v, "shape", None) != ()]
    return [*dict.fromkeys(found)]


def named(values: Any) -> Any:
    """A dict becomes something read by name (`p.CL`); anything else passes through."""
    return SimpleNamespace(**values) if isinstance(values, dict) else values
