"""What is wrong with a model file: every word and function of its declaration, checked at once."""

from __future__ import annotations

import inspect
import keyword
import math
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, get_args

from carpk.words import (
    Classes,
    Derived,
    Dose,
    Function,
    Input,
    Output,
    Parameter,
    Solver,
    Spread,
    State,
)

_NAMED = {"parameters": Parameter, "inputs": Input, "states": State, "outputs": Output,
          "derived": Derived}
_WORDS = {**_NAMED, "doses": Dose}
_DOSING = ("lag", "bioavailability", "rate", "duration")  # what `dosing` may say of a state
_CALLS = {  # what each function is called with, and the declared names it must return
    "solution": ("t, p", "outputs"), "rates": ("t, y, p", "states"), "initial": ("p", "states"),
    "observe": ("t, y, p", "outputs"), "derive": ("p", "derived"),
}


def wrong_declarations(m: Any) -> list[str]:
    """What is wrong with a structural model, a sentence each; empty if nothing is."""
    return _type_problems(m) or [*_declaration_problems(m), *_function_problems(m)]


def _type_problems(m: Any) -> list[str]:
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
    found += [f"{name} is {f!r}, not a function" for name in (*_CALLS, "dosing")
              if (f := getattr(m, name)) is not None and not callable(f)]
    if isinstance(m.thresholds, Mapping):
        found += [f"threshold {name} is {f!r}, not a function" for name, f in m.thresholds.items()
                  if not callable(f)]
    else:
        found.append(f"thresholds is {m.thresholds!r}, not a dict of functions")
    return found


def _declaration_problems(m: Any) -> list[str]:
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
    states = {s.name: s for s in m.states}
    found += [f"state {s.name}: {wrong}" for s in m.states if (wrong := _ratio_problem(s, states))]
    found += [f"a dose goes into {d.state!r}, which is no state" for d in m.doses
              if d.state not in states]
    found += [f"a dose of {d.amount!r} at {d.at!r} over {d.over!r}: amounts are above 0, times "
              "not below" for d in m.doses
              if not (0 < d.amount < math.inf and 0 <= d.at < math.inf and 0 <= d.over < math.inf)]
    found += [f"threshold {n!r} is also a parameter or input" for n in m.thresholds
              if n in parameters | inputs]
    if m.thresholds and not m.states:
        found.append("a threshold is of an ODE model's states, and there are none")
    if m.dosing and not m.states:
        found.append("dosing is of doses into an ODE model's states, and there are none")
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
    found += _class_problems(m)
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


def _class_problems(m: Any) -> list[str]:
    own = m.classes
    if own is None:
        return []
    if not isinstance(own, Classes) or not isinstance(own.values, Mapping) or not own.values:
        return [f"classes is {own!r}, not Classes(values={{parameter: one for each class}}, ...)"]
    count, parameters = len(own.shares), {p.name: p for p in m.parameters}
    found = [] if count > 1 and all(s > 0 for s in own.shares) \
        and math.isclose(sum(own.shares), 1.0, abs_tol=1e-6) else [
            f"the classes have the shares {own.shares!r}: two or more above 0, in sum 1"]
    if own.names and len(own.names) != count:
        found.append(f"{count} classes have {len(own.names)} names")
    for name, values in own.values.items():
        if name not in parameters:
            found.append(f"the classes differ in {name!r}, which is no parameter")
        elif len(values) != count:
            found.append(f"{count} classes have {len(values)} values of {name}")
        elif parameters[name].omega is None:
            found.append(f"the classes differ in {name}, which has no spread between patients")
        elif parameters[name].link == "log" and not min(values) > 0:
            found.append(f"a log link needs values of {name} above 0 in every class")
    first = next(iter(own.values.values()))
    if sorted(set(first)) != list(first):
        found.append("classes are numbered in rising order of their first parameter's values")
    return found


def _ratio_problem(s: State, states: Mapping[str, State]) -> str:
    other = states.get(s.ratio_to)
    if not s.ratio_to:
        return ""
    if other is None:
        return f"it is a ratio to {s.ratio_to!r}, which is no state"
    if other.ratio_to:
        return (f"it is a ratio to {s.ratio_to}, which is itself a ratio to {other.ratio_to}: "
                "ratios are to a linear or log state")
    if s.scale != "linear":
        return f"a ratio to {s.ratio_to} has no scale of its own: leave out {s.scale!r}"
    return ""


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


def _function_problems(m: Any) -> list[str]:
    """Calls every function once on abstract float64 scalars: names read and names returned."""
    given = [p.name for p in m.parameters] + [i.name for i in m.inputs]
    calls: list[tuple[str, Any, str, set[str] | None]] = [
        (name, getattr(m, name), called_with, {item.name for item in getattr(m, group)})
        for name, (called_with, group) in _CALLS.items()]
    calls += [(f"threshold {n}", f, "t, y, p", None) for n, f in m.thresholds.items()]
    calls += [("dosing", m.dosing, "p", {f"{word} of {s.name}" for s in m.states
                                         for word in _DOSING})]
    found: list[str] = []
    for name, function, called_with, expected in calls:
        if function is None:
            continue
        letters = called_with.split(", ")
        takes = len(inspect.signature(function).parameters)
        if takes != len(letters):
            found.append(f"{name} is called as {name}({called_with}) but takes {takes} arguments")
            continue
        declared = {"p": [*given, *m.thresholds] if name == "rates" else given,
                    "y": [s.name for s in m.states]}
        by_name = function if expected is not None else \
            lambda *values, f=function: {"it": f(*values)}
        if name == "dosing":
            by_name = _by_word(function)
        found += [f"{name} {wrong}" for wrong in _call_problems(
            by_name, {letter: declared.get(letter) for letter in letters}, expected or {"it"},
            every=name != "dosing")]
    return found


def _by_word(dosing: Function) -> Function:
    """{state: {word: value}} as {"word of state": value}."""
    def flat(p: Any) -> Any:
        said = dosing(p)
        if not isinstance(said, Mapping):
            return said
        wrong = [state for state, words in said.items() if not isinstance(words, Mapping)]
        if wrong:
            raise TypeError(f"what it says of {', '.join(map(str, wrong))} is no dict of "
                            + ", ".join(_DOSING))
        return {f"{word} of {state}": v for state, words in said.items()
                for word, v in words.items()}

    return flat


def _call_problems(function: Function, arguments: Mapping[str, list[str] | None],
                   expected: set[str], every: bool = True) -> list[str]:
    """every : whether all expected names must be returned."""
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
    found += [f"does not return {n!r}" for n in sorted(expected - set(returned)) if every]
    found += [f"returns {n!r}, which is not declared" if every else
              f"returns {n!r}: it is of a state, and one of {', '.join(_DOSING)}"
              for n in sorted(set(returned) - expected)]
    found += [f"returns {n!r} as {getattr(v, 'shape', v)!r}, not as a scalar"
              for n, v in returned.items() if getattr(v, "shape", None) != ()]
    return [*dict.fromkeys(found)]
