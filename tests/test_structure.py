"""The words of a model file, and that every way of misusing them is refused in a sentence."""

import dataclasses
import math
import pickle

import jax.numpy as jnp
import pytest

from carpk.problems import ModelError
from carpk.structure import (
    Derived,
    Dose,
    Input,
    Output,
    Parameter,
    Source,
    Spread,
    State,
    StructuralModel,
    assumed,
    cv,
    named,
    sd,
    variance,
)


def rates(t, y, p):
    return {"A": -p.CL / p.V * y.A}


def initial(p):
    return {"A": p.A0}


def observe(t, y, p):
    return {"C": y.A / p.V}


def derive(p):
    return {"half_life": jnp.log(2.0) * p.V / p.CL}


def solution(t, p):
    return {"C": p.A0 / p.V * jnp.exp(-p.CL / p.V * t)}


BOLUS = {
    "title": "One compartment", "source": Source("textbook"), "time_unit": "h",
    "parameters": (Parameter("CL", 3, "L/h", "clearance", omega=sd(0.3)),
                   Parameter("V", 30, "L", "volume")),
    "inputs": (Input("A0", "mg", "amount at time 0", equals="C"),),
    "outputs": (Output("C", "mg/L", "concentration"),),
    "derived": (Derived("half_life", "h", "ln 2 V / CL"),),
    "derive": derive,
}
ODE = {**BOLUS, "states": (State("A", "mg", "drug in the body"),),
       "rates": rates, "initial": initial, "observe": observe}
CLOSED = {**BOLUS, "solution": solution}


def refusals(declaration):
    """The sentences with which a declaration is refused."""
    with pytest.raises(ModelError) as refused:
        StructuralModel(**declaration)
    assert all(p.severity == "error" for p in refused.value.problems)
    return [p.wrong for p in refused.value.problems]


def test_a_good_model_passes_in_either_form():
    for declaration in (ODE, CLOSED):
        model = StructuralModel(**declaration)
        assert model.typical == {"CL": 3.0, "V": 30.0}
        assert model.parameter("V").unit == "L"
        assert model.output("C").dvid == 1


def test_a_spread_says_its_scale_and_is_always_an_sd():
    assert sd(0.65) == Spread(0.65, "SD 0.65")
    assert variance(0.42).omega == pytest.approx(math.sqrt(0.42))
    assert variance(0.42).printed == "variance 0.42"
    assert cv(72.5).omega == pytest.approx(math.sqrt(math.log(1 + 0.725**2)))
    assert assumed(0.3) == Spread(0.3, "SD 0.3, assumed", published=False)
    assert all(s.published for s in (sd(1), variance(1), cv(1)))


def test_the_words_and_the_model_are_frozen():
    model = StructuralModel(**ODE)
    for thing, field in ((model, "title"), (model.parameters[0], "typical"), (sd(1), "omega"),
                         (model.states[0], "unit"), (model.inputs[0], "default"),
                         (model.outputs[0], "dvid"), (model.source, "doi")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, field, getattr(thing, field))


def test_whole_numbers_become_floats_because_jax_does_not_differentiate_integers():
    assert isinstance(Parameter("CL", 3, "L/h", "clearance").typical, float)
    assert isinstance(Input("WT", "kg", "weight", default=70).default, float)


def test_a_model_can_be_pickled():
    model = StructuralModel(**ODE)
    assert pickle.loads(pickle.dumps(model)) == model


def test_a_dict_is_read_by_name_and_anything_else_passes_through():
    assert named({"CL": 3.0}).CL == 3.0
    assert named(2.0) == 2.0


CL, V = BOLUS["parameters"]
MISDECLARED = {
    "one entry without its comma": (
        ODE, {"outputs": Output("C", "mg/L", "level")},
        "outputs is one Output, not a tuple: put a comma after it"),
    "a group of another kind": (ODE, {"states": "A"}, "states is 'A', not a tuple of State"),
    "an entry of another kind": (
        ODE, {"parameters": (CL, "V")}, "parameters holds 'V', which is no Parameter"),
    "a function that is none": (ODE, {"rates": {}}, "rates is {}, not a function"),
    "a name twice": (ODE, {"parameters": (CL, V, V)}, "parameter 'V' is declared twice"),
    "a name that is no name": (
        CLOSED, {"derived": (Derived("half life", "h", ""),)},
        "derived name 'half life' is not a Python name"),
    "a name that Python keeps": (
        CLOSED, {"parameters": (CL, V, Parameter("lambda", 1, "1/h", "rate"))},
        "parameter name 'lambda' is not a Python name"),
    "a parameter that is an input": (
        CLOSED, {"parameters": (CL, V, Parameter("A0", 1, "mg", "amount"))},
        "'A0' is both a parameter and an input"),
    "a derived parameter": (
        CLOSED, {"derived": (Derived("V", "L", "volume"),), "derive": lambda p: {"V": p.V}},
        "'V' is both a derived quantity and a parameter or input"),
    "a dose into nothing": (
        ODE, {"doses": (Dose("depot", 100),)}, "a dose goes into 'depot', which is no state"),
    "a switch at nothing": (
        ODE, {"switches": ("Tmax",)}, "rates switch at 'Tmax', which is no parameter or input"),
    "a threshold that is a number": (
        ODE, {"thresholds": {"few": 2.0}}, "threshold few is 2.0, not a function"),
    "thresholds that have no name": (
        ODE, {"thresholds": 3.0}, "thresholds is 3.0, not a dict of functions"),
    "a threshold of a parameter's name": (
        ODE, {"thresholds": {"V": lambda t, y, p: y.A - 1.0}},
        "threshold 'V' is also a parameter or input"),
    "a threshold of a state that is not there": (
        ODE, {"thresholds": {"few": lambda t, y, p: y.B}},
        "threshold few reads y.B, which is no state"),
    "a threshold called with less": (
        ODE, {"thresholds": {"few": lambda y: y.A}},
        "threshold few is called as threshold few(t, y, p) but takes 1 arguments"),
    "a threshold of a closed form": (
        CLOSED, {"thresholds": {"few": lambda t, y, p: p.V}},
        "a threshold is of an ODE model's states, and there are none"),
    "a dose of nothing": (
        ODE, {"doses": (Dose("A", 0, at=-1.0),)},
        "a dose of 0 at -1.0 over 0.0: amounts are above 0, times not below"),
    "no output": (CLOSED, {"outputs": ()}, "no output is declared"),
    "a DVID twice": (
        CLOSED, {"outputs": (Output("C", "mg/L", ""), Output("E", "-", ""))},
        "DVID 1 belongs to two outputs"),
    "a DVID that is no number": (
        CLOSED, {"outputs": (Output("C", "mg/L", "", dvid="one"),)},
        "output C: DVID 'one' is not a whole number"),
    "a typical value that is text": (
        CLOSED, {"parameters": (CL, Parameter("V", "30", "L", "volume"))},
        "parameter V: typical value '30' is not a finite number"),
    "a typical value that is no number": (
        CLOSED, {"parameters": (CL, Parameter("V", math.nan, "L", "volume"))},
        "parameter V: typical value nan is not a finite number"),
    "an unknown link": (
        CLOSED, {"parameters": (CL, Parameter("V", 30, "L", "volume", link="sqrt"))},
        "parameter V: unknown link 'sqrt'"),
    "a log link at 0": (
        CLOSED, {"parameters": (CL, Parameter("V", 0, "L", "volume"))},
        "parameter V: a log link needs a typical value above 0"),
    "a logit link at 1": (
        CLOSED, {"parameters": (CL, Parameter("V", 1, "-", "share", link="logit"))},
        "parameter V: a logit link needs a typical value in (0, 1)"),
    "a spread of unsaid scale": (
        CLOSED, {"parameters": (CL, Parameter("V", 30, "L", "volume", omega=0.3))},
        "parameter V: say what the spread 0.3 is: sd(...), variance(...) or cv(...)"),
    "a spread of 0": (
        CLOSED, {"parameters": (CL, Parameter("V", 30, "L", "volume", omega=sd(0)))},
        "parameter V: a spread must be above 0 and finite, not SD 0"),
    "a negative variance": (
        CLOSED, {"parameters": (CL, Parameter("V", 30, "L", "volume", omega=variance(-0.1)))},
        "parameter V: a spread must be above 0 and finite, not variance -0.1"),
    "a negative CV": (
        CLOSED, {"parameters": (CL, Parameter("V", 30, "L", "volume", omega=cv(-30)))},
        "parameter V: a spread must be above 0 and finite, not CV -30 %"),
    "a requirement that is no input": (
        CLOSED, {"parameters": (CL, Parameter("V", 30, "L", "volume", requires="WT"))},
        "parameter V requires 'WT', which is no input"),
    "an input equal to no output": (
        CLOSED, {"inputs": (Input("A0", "mg", "amount", equals="A"),)},
        "input A0 equals 'A', which is no output"),
    "a default that is text": (
        CLOSED, {"inputs": (Input("A0", "mg", "amount", default="none"),)},
        "input A0: default 'none' is not a number"),
    "an unknown scale": (
        ODE, {"states": (State("A", "mg", "amount", "sqrt"),)},
        "state A: scale 'sqrt' is neither 'linear' nor 'log'"),
    "a ratio to nothing": (
        ODE, {"states": (State("A", "mg", "", ratio_to="B"),)},
        "state A: it is a ratio to 'B', which is no state"),
    "a ratio to itself": (
        ODE, {"states": (State("A", "mg", "", ratio_to="A"),)},
        "state A: it is a ratio to A, which is itself a ratio to A: ratios are to a linear or log "
        "state"),
    "a ratio to a ratio": (
        ODE, {"states": (State("A", "mg", "", ratio_to="B"), State("B", "mg", "", ratio_to="C"),
                         State("C", "mg", ""))},
        "state A: it is a ratio to B, which is itself a ratio to C: ratios are to a linear or log "
        "state"),
    "a ratio with a scale": (
        ODE, {"states": (State("A", "mg", "", "log", ratio_to="B"), State("B", "mg", ""))},
        "state A: a ratio to B has no scale of its own: leave out 'log'"),
    "a stranger in a parameter set": (
        CLOSED, {"parameter_sets": {"set 1": {"CL": 3, "Vd": 30}}},
        "parameter set 'set 1' has 'Vd', which is no parameter or input"),
    "both forms": (
        ODE, {"solution": solution},
        "give either solution, or states with rates, initial and observe, not both"),
    "neither form": (
        BOLUS, {}, "neither a solution nor a whole ODE model: no states, no rates, no initial, "
        "no observe"),
    "half an ODE": (
        ODE, {"observe": None}, "neither a solution nor a whole ODE model: no observe"),
    "derive without derived": (
        CLOSED, {"derived": ()},
        "derived quantities and the function derive go together: derived is missing"),
    "derived without derive": (
        CLOSED, {"derive": None},
        "derived quantities and the function derive go together: derive is missing"),
    "dosing without states": (
        CLOSED, {"dosing": lambda p: {}},
        "dosing is of doses into an ODE model's states, and there are none"),
    "dosing that is no function": (ODE, {"dosing": {}}, "dosing is {}, not a function"),
    "dosing of an unknown state": (
        ODE, {"dosing": lambda p: {"gut": {"lag": p.V}}}, "dosing returns 'lag of gut': it is of a "
        "state, and one of lag, bioavailability, rate, duration"),
    "dosing by an unknown word": (
        ODE, {"dosing": lambda p: {"A": {"delay": p.V}}}, "dosing returns 'delay of A': it is of "
        "a state, and one of lag, bioavailability, rate, duration"),
    "dosing without a word": (
        ODE, {"dosing": lambda p: {"A": p.V}}, "dosing raised TypeError: what it says of A is no "
        "dict of lag, bioavailability, rate, duration"),
    "dosing by an undeclared parameter": (
        ODE, {"dosing": lambda p: {"A": {"lag": p.tlag}}},
        "dosing reads p.tlag, which is no parameter or input"),
    "too few arguments": (
        ODE, {"rates": lambda y, p: {"A": y.A}},
        "rates is called as rates(t, y, p) but takes 2 arguments"),
    "an undeclared parameter": (
        ODE, {"rates": lambda t, y, p: {"A": -p.kx * y.A}},
        "rates reads p.kx, which is no parameter or input"),
    "an undeclared state": (
        ODE, {"observe": lambda t, y, p: {"C": y.B / p.V}},
        "observe reads y.B, which is no state"),
    "a missing state": (ODE, {"initial": lambda p: {}}, "initial does not return 'A'"),
    "a state too many": (
        ODE, {"initial": lambda p: {"A": p.A0, "B": 0.0}},
        "initial returns 'B', which is not declared"),
    "no dict": (
        CLOSED, {"solution": lambda t, p: p.A0 / p.V},
        "solution returns one value, not a dict by name"),
    "nothing returned": (
        CLOSED, {"solution": lambda t, p: None}, "solution returns NoneType, not a dict by name"),
    "a vector": (
        CLOSED, {"solution": lambda t, p: {"C": jnp.stack([p.V, p.CL])}},
        "solution returns 'C' as (2,), not as a scalar"),
    "an empty value": (
        CLOSED, {"solution": lambda t, p: {"C": None}},
        "solution returns 'C' as None, not as a scalar"),
    "a Python branch": (
        CLOSED, {"solution": lambda t, p: {"C": p.A0 if t < 1 else 0.0}},
        "solution needs a plain number where it has an unknown one (if, float(), math or numpy): "
        "use jnp.where and jax.numpy"),
    "a Python function": (
        CLOSED, {"derive": lambda p: {"half_life": math.log(p.V)}},
        "derive needs a plain number where it has an unknown one (if, float(), math or numpy): "
        "use jnp.where and jax.numpy"),
    "reading like a dict": (
        CLOSED, {"solution": lambda t, p: {"C": p["V"]}},
        "solution raised TypeError: 'p' object is not subscriptable"),
}


@pytest.mark.parametrize("case", MISDECLARED)
def test_a_misdeclared_model_is_refused_in_a_sentence(case):
    good, change, sentence = MISDECLARED[case]
    assert sentence in refusals({**good, **change})


def test_everything_wrong_is_said_at_once():
    found = refusals({
        **ODE, "parameters": (CL, V, V, Parameter("Q", -1, "L/h", "flow")),
        "rates": lambda t, y, p: {"A": p.ka * y.depot - p.kb * y.A},
        "observe": lambda y, p: {"C": y.A},
    })
    assert found == [
        "parameter 'V' is declared twice",
        "parameter Q: a log link needs a typical value above 0",
        "rates reads p.ka, which is no parameter or input",
        "rates reads y.depot, which is no state",
        "rates reads p.kb, which is no parameter or input",
        "observe is called as observe(t, y, p) but takes 2 arguments",
    ]


def test_a_fixed_parameter_may_sit_at_the_edge_of_its_link():
    model = StructuralModel(**{**CLOSED, "parameters": (
        CL, V, Parameter("km", 0, "1/h", "conversion", fixed="no conversion"))})
    assert model.parameter("km").typical == 0.0
