"""The solver: against diffrax and closed forms, doses, order of the method, gradients, failures."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models_for_tests import FOLLOWING

from carpk import registry
from carpk.cohort import DOSE_COLUMNS, EXCLUDED_COLUMNS, OBSERVATION_COLUMNS, Cohort, design
from carpk.solve import arrays, predict
from carpk.structure import Output, Parameter, Source, State, StructuralModel
from carpk.virtual_cohort import enrolled


def cohort(times, doses=(), dvid=1, patients=1, **covariates):
    """`patients` alike: 1.0 observed at `times`; doses are (line, time, amount, duration)."""
    rows = [(100 + k, str(i), float(t), dvid, 1.0, 1.0, 1.0, 0)
            for i in range(patients) for k, t in enumerate(times)]
    given_ = [(line, str(i), float(t), float(a), float(d), 1)
              for i in range(patients) for line, t, a, d in doses]
    ids = tuple(str(i) for i in range(patients))
    return Cohort(ids, pd.DataFrame(rows, columns=list(OBSERVATION_COLUMNS)),
                  pd.DataFrame(given_, columns=list(DOSE_COLUMNS)),
                  pd.DataFrame({n: [v] * patients for n, v in covariates.items()}, index=ids),
                  pd.DataFrame(columns=list(EXCLUDED_COLUMNS)), "made here", "")


def solved(structure, who, steps=150, **values):
    seen = design(who, structure)
    p = {n: jnp.full(len(seen.ids), v) for n, v in {**structure.typical, **values}.items()}
    return np.asarray(predict(structure, arrays(seen, structure, steps), p))[0]


ORAL = registry.find_model("one_compartment_oral")


def oral(t, dose=100.0, Ka=1.0, CL=3.0, V=30.0):
    t = np.maximum(np.asarray(t, float), 0.0)
    k = CL / V
    return dose * Ka / (V * (Ka - k)) * (np.exp(-k * t) - np.exp(-Ka * t))


# of two log states: growth to a limit, and what it kills
LOGISTIC = StructuralModel(
    title="", source=Source("the test's own"), time_unit="day",
    parameters=(Parameter("r", 1.0, "1/day", ""), Parameter("kill", 1.0, "1/day", "")),
    states=(State("E", "cells", "", "log"), State("B", "cells", "", "log")),
    outputs=(Output("E", "cells", ""), Output("B", "cells", "", dvid=2)),
    rates=lambda t, y, p: {"E": p.r * y.E * (1.0 - y.E / 1e12), "B": -p.kill * y.E / 1e12 * y.B},
    initial=lambda p: {"E": 1e-8, "B": 1e12}, observe=lambda t, y, p: {"E": y.E, "B": y.B},
    file=__file__)


def test_log_states_from_1e_minus_8_to_1e12_are_right_in_value_and_gradient():
    """E goes up and B comes down by 20 decades: closed forms of the logistic equation."""
    t = np.array([0.0, 10.0, 30.0, 46.0, 50.0, 60.0, 92.0, 100.0])
    who = cohort(t, patients=2)
    seen = dataclasses.replace(design(who, LOGISTIC), output=np.array([[0] * 8, [1] * 8]))
    data = arrays(seen, LOGISTIC, 240)

    def logs(p):
        return jnp.log(predict(LOGISTIC, data, {"r": p[:, 0], "kill": p[:, 1]}))

    def exact(p):
        grown = jnp.exp(p[:, :1] * t[None])  # int of E / K dt = ln(1 + E0 / K (exp(r t) - 1)) / r
        full = jnp.log1p(1e-20 * (grown - 1.0))
        return jnp.where(np.array([[True], [False]]), np.log(1e-8) + jnp.log(grown) - full,
                         np.log(1e12) - p[:, 1:] / p[:, :1] * full)

    at = jnp.array([[1.0, 1.0], [1.0, 0.86]])
    truth = np.asarray(exact(at))
    assert (truth.min(axis=1) < np.log(1.01e-8)).all()
    assert (truth.max(axis=1) > np.log(0.99e12)).all()
    np.testing.assert_allclose(logs(at), truth, atol=1e-4)
    np.testing.assert_allclose(jax.jacfwd(logs)(at), jax.jacfwd(exact)(at), rtol=1e-3, atol=1e-3)


def test_a_rate_costs_one_exponential_of_a_log_state():
    """In each of six stages of a step, and of what is observed; B is not, so it is left out."""
    data = arrays(design(cohort([1.0, 9.0]), LOGISTIC), LOGISTIC, 30)
    program = jax.jit(lambda r: predict(LOGISTIC, data, {"r": r, "kill": r})).lower(
        jnp.ones(1)).compile().as_text()
    assert 6 <= program.count("exponential(") <= 7


def test_a_bolus_gives_the_closed_form():
    t = [0.25, 1, 2, 4, 8, 12, 24]
    assert np.allclose(solved(ORAL, cohort(t, [(1, 0, 100, 0)])), oral(t), rtol=2e-6)


def test_several_doses_add_up():
    t = np.array([1, 5, 12.5, 13, 24, 30.0])
    both = solved(ORAL, cohort(t, [(1, 0, 100, 0), (2, 12, 50, 0)]))
    assert np.allclose(both, oral(t) + np.where(t > 12, 0.5 * oral(t - 12), 0.0), rtol=2e-6)


def test_an_infusion_gives_the_closed_form():
    structure = StructuralModel(
        title="one compartment", source=Source("textbook"), time_unit="h",
        parameters=(Parameter("CL", 3, "L/h", ""), Parameter("V", 30, "L", "")),
        states=(State("A", "mg", ""),), outputs=(Output("C", "mg/L", ""),),
        rates=lambda t, y, p: {"A": -p.CL / p.V * y.A}, initial=lambda p: {"A": 0.0},
        observe=lambda t, y, p: {"C": y.A / p.V})
    t = np.array([0.5, 2, 4, 9, 20.0])
    k, rate, end = 0.1, 100 / 4, 4.0
    during = rate / 3 * (1 - np.exp(-k * np.minimum(t, end)))
    expected = during * np.exp(-k * np.maximum(t - end, 0))
    assert np.allclose(solved(structure, cohort(t, [(1, 0, 100, 4)])), expected, rtol=1e-7)


def test_an_observation_at_the_time_of_a_dose_follows_the_order_of_the_rows():
    structure = StructuralModel(
        title="bolus", source=Source("textbook"), time_unit="h",
        parameters=(Parameter("k", 0.1, "1/h", ""),), states=(State("A", "mg", ""),),
        outputs=(Output("A", "mg", ""),), rates=lambda t, y, p: {"A": -p.k * y.A},
        initial=lambda p: {"A": 0.0}, observe=lambda t, y, p: {"A": y.A})
    before = solved(structure, cohort([5.0, 6.0], [(200, 5, 100, 0)]))
    after = solved(structure, cohort([5.0, 6.0], [(1, 5, 100, 0)]))
    assert before[0] == 0.0
    assert after[0] == pytest.approx(100.0)
    assert before[1] == pytest.approx(after[1]) == pytest.approx(100 * np.exp(-0.1))


def test_the_method_is_of_fifth_order():
    t, doses = [3.0, 10.0], [(1, 0, 100, 0)]
    errors = [np.abs(solved(ORAL, cohort(t, doses), steps=s, Ka=2.0) - oral(t, Ka=2.0)).max()
              for s in (20, 40, 80)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders.min() > 4.5


def test_a_stiff_model_agrees_with_its_closed_form_and_so_does_its_gradient():
    structure = dataclasses.replace(FOLLOWING, solver="rodas4")
    times = np.array([1.0, 5.0, 30.0, 180.0])
    seen = design(cohort(times), structure)
    data = arrays(seen, structure, 200)  # a third of them in the first hour

    def closed(A0, k):
        return A0 * 5000.0 / (5000.0 - k) * np.exp(-k * times)

    def ours(A0, k):
        values = {"A0": A0, "k": k, "fast": 5000.0}
        return predict(structure, data, {n: jnp.full(1, v) for n, v in values.items()})[0]

    np.testing.assert_allclose(ours(90.0, 0.04), closed(90.0, 0.04), rtol=1e-6)
    slope = jax.jacrev(ours, argnums=1)(90.0, 0.04)
    np.testing.assert_allclose(slope, closed(90.0, 0.04) * (1 / (5000.0 - 0.04) - times),
                               rtol=1e-5)


@pytest.mark.parametrize("name", [
    "liu_l_2022", pytest.param("liu_l_2022_negative_relapse", marks=pytest.mark.slow)])
def test_an_ode_model_agrees_with_diffrax(name):
    import diffrax

    structure = registry.find_model(name)
    logged = np.array([s.scale == "log" for s in structure.states])
    states = [s.name for s in structure.states]
    times = np.array([0.5, 1, 3, 5, 7, 10, 14, 28, 60, 100.0])
    p = {**structure.typical, "NB0": 2200.24}

    def slope(t, u, _):
        from carpk.structure import named
        y = {n: jnp.where(lg, jnp.exp(jnp.maximum(x, -600.0)), x)
             for n, lg, x in zip(states, logged, u, strict=True)}
        dy = structure.rates(t, named(y), named(p))
        return jnp.stack([dy[n] / y[n] if lg else dy[n]
                          for n, lg in zip(states, logged, strict=True)])

    from carpk.structure import named
    first = structure.initial(named(p))
    u0 = jnp.stack([jnp.log(first[n]) if lg else jnp.asarray(first[n], float)
                    for n, lg in zip(states, logged, strict=True)])
    true = diffrax.diffeqsolve(
        diffrax.ODETerm(slope), diffrax.Dopri8(), 0.0, times[-1], 1e-3, u0,
        saveat=diffrax.SaveAt(ts=jnp.asarray(times)), max_steps=100_000,
        stepsize_controller=diffrax.PIDController(rtol=1e-10, atol=1e-10)).ys
    for k, state in enumerate(states):
        output = next((o for o in structure.outputs if o.name == state), None)
        if output is None:
            continue
        ours = solved(structure, cohort(times, dvid=output.dvid, NB0=2200.24), steps=600)
        expected = np.asarray(true[:, k] if logged[k] else jnp.log(true[:, k]))
        # relative too: 1e-80 cells are no measurement, but their logarithm should still be right
        assert np.allclose(np.log(ours), expected, atol=1e-4, rtol=2e-5)


SWITCHING = StructuralModel(
    title="grows until T, falls from then on", source=Source("-", "-"), time_unit="day",
    parameters=(Parameter("T", 4.2, "day", "-"), Parameter("a", 0.9, "1/day", "-"),
                Parameter("b", 0.4, "1/day", "-")),
    states=(State("x", "u", "-"),), outputs=(Output("x", "u", "-"),), switches=("T",),
    rates=lambda t, y, p: {"x": jnp.where(t <= p.T, p.a, -p.b) * y.x},
    initial=lambda p: {"x": 1.0}, observe=lambda t, y, p: {"x": y.x})


def switched(t, when, r=0.0, a=0.9, b=0.4):
    """x with 5 added on day 2 and `r` a day from day 3 to 6, by its closed form."""
    t = np.asarray(t, float)[:, None]
    added = np.array([0.0, 2.0, *np.linspace(3, 6, 30001)])
    weight = np.array([1.0, 5.0, *np.full(30001, r * 3 / 30000)])
    weight[[2, -1]] /= 2  # trapezoids
    grown = a * (np.minimum(t, when) - np.minimum(added, when)) \
        - b * (np.maximum(t, when) - np.maximum(added, when))
    return (np.where(added < t, weight * np.exp(grown), 0.0)).sum(axis=1)


@pytest.mark.parametrize("when", [4.2, 2.0, 7.0, 0.0, 60.0])
def test_a_switch_in_time_is_met_to_the_solvers_accuracy_with_its_derivative(when):
    """Between nodes, on a dose, on a sample, at the start, after the end."""
    days = [1.0, 2.5, 6.5, 7.0, 20.0]
    who = cohort(days, [(1, 2, 5, 0), (2, 3, 6, 3)])
    np.testing.assert_allclose(solved(SWITCHING, who, T=when), switched(days, when, 2.0), rtol=1e-6)
    seen = design(who, SWITCHING)
    data = arrays(seen, SWITCHING, 150)

    def levels(t):
        return predict(SWITCHING, data, {"T": t[None], "a": jnp.array([0.9]),
                                         "b": jnp.array([0.4])})[0]

    if when == 4.2:
        slope = (switched(days, when + 1e-5, 2.0) - switched(days, when - 1e-5, 2.0)) / 2e-5
        for derivative in (jax.jacfwd, jax.jacrev):
            np.testing.assert_allclose(derivative(levels)(jnp.asarray(when)), slope, rtol=1e-5,
                                       atol=1e-8)


PASSING = StructuralModel(
    title="y grows while x is above L, falls below", source=Source("-", "-"), time_unit="day",
    parameters=(Parameter("L", 2.0, "u", "-"), Parameter("b", 0.4, "1/day", "-"),
                Parameter("d", 3000.0, "1/day", "-")),
    states=(State("x", "u", "-", "log"), State("y", "u", "-")), outputs=(Output("y", "u", "-"),),
    thresholds={"high": lambda t, y, p: y.x - p.L},
    rates=lambda t, y, p: {"x": -p.b * y.x, "y": p.d * (p.high * (y.x - y.y))},
    initial=lambda p: {"x": 10.0, "y": 10.0}, observe=lambda t, y, p: {"y": y.y}, solver="rodas4")


@pytest.mark.parametrize("derivative", [
    jax.jacfwd, pytest.param(jax.jacrev, marks=pytest.mark.slow)])  # passed, 6 s
def test_a_threshold_of_the_states_is_met_where_it_is_passed_with_its_derivative(derivative):
    """y follows x within seconds and keeps, from then on, the level at which x fell below L."""
    days = np.array([0.5, 1.0, 3.0, 4.1, 9.0, 20.0])
    levels = np.array([2.0, 9.7, 1e-9, 11.0])  # the third is never passed, the fourth at once
    data = arrays(design(cohort(days, patients=4), PASSING), PASSING, 600)
    behind = 3000.0 / (3000.0 - 0.4)

    def solve(lnL, lnb):
        return predict(PASSING, data, {"L": jnp.exp(lnL), "b": jnp.exp(lnb),
                                       "d": jnp.full(4, 3000.0)})

    lnL, lnb = jnp.log(levels), jnp.full(4, jnp.log(0.4))
    x = 10.0 * np.exp(-0.4 * days)
    held = x[None] < levels[:, None]
    want = np.where(held, np.minimum(levels[:, None] * behind, 10.0), x * behind)
    np.testing.assert_allclose(solve(lnL, lnb), want, rtol=1e-6)
    by_L, by_b = (np.einsum("pnp->pn", d) for d in derivative(solve, argnums=(0, 1))(lnL, lnb))
    np.testing.assert_allclose(by_L, np.where(held & (want < 10.0), want, 0.0), atol=1e-5)
    further = behind * 0.4 / (3000.0 - 0.4)
    np.testing.assert_allclose(by_b[:3], np.where(
        held, levels[:, None] * further, x * (further - 0.4 * days * behind))[:3], atol=1e-5)
    assert not by_b[3].any()


def test_a_threshold_that_is_passed_and_passed_back_within_a_step_is_not_missed():
    dipping = StructuralModel(
        title="x = (t - 4)^2, y counts the time below L", source=Source("-", "-"),
        time_unit="day", parameters=(Parameter("L", 1e-4, "u", "-"),),
        states=(State("x", "u", "-"), State("y", "day", "-")), outputs=(Output("y", "day", "-"),),
        thresholds={"outside": lambda t, y, p: y.x - p.L},
        rates=lambda t, y, p: {"x": 2.0 * (t - 4.0), "y": 1.0 - p.outside},
        initial=lambda p: {"x": 16.0, "y": 0.0}, observe=lambda t, y, p: {"y": y.y})
    data = arrays(design(cohort([3.0, 9.0]), dipping), dipping, 20)
    assert np.diff(data["mesh"]["t"][0]).max() > 0.3

    def below(L):
        return predict(dipping, data, {"L": L[None]})[0]

    for L in (1e-4, 1e-8, 0.5):
        np.testing.assert_allclose(below(jnp.asarray(L)), [0.0, 2.0 * L**0.5], atol=1e-9)
        np.testing.assert_allclose(jax.jacfwd(below)(jnp.asarray(L)), [0.0, L**-0.5], rtol=1e-5)


# the rest is solved well enough by 120 steps of its own method
FINER = {"owens_bozic_2021": ("rodas4", 2000), "park_2025_sle": ("rodas4", 4000),
         "yiu_2012": ("tsit5", 480)}


# all of them take minutes to compile: these three stand for closed form, log states and doses
@pytest.mark.parametrize("name", [
    n if n in ("stein_2019", "liu_l_2022", "one_compartment_oral")
    else pytest.param(n, marks=pytest.mark.slow) for n in registry.names("models")])
def test_gradients_are_those_of_central_differences(name):
    structure = registry.find_model(name)
    inputs = {i.name: i.default for i in structure.inputs}
    every = {**structure.typical, **inputs, **next(iter(structure.parameter_sets.values()), {})}
    who = cohort([2.0, 6.0, 12.0, 40.0] * len(structure.outputs),
                 [(1, 0, 100, 0)] if "oral" in name else (), dvid=structure.outputs[0].dvid,
                 **{n: every[n] for n in inputs})
    seen = design(who, structure)
    seen = dataclasses.replace(seen, output=np.repeat(np.arange(len(structure.outputs)), 4)[None])
    solver, steps = FINER.get(name, (structure.solver, 120))
    structure = dataclasses.replace(structure, solver=solver)
    data = arrays(seen, structure, steps)
    moved = [n for n in structure.typical if every[n] != 0 and math.isfinite(every[n])]

    @jax.jit
    def levels(u):
        values = {n: jnp.full(1, every[n]) for n in structure.typical}
        values |= {n: (every[n] * jnp.exp(u[k]))[None] for k, n in enumerate(moved)}
        return predict(structure, data, values)[0].reshape(len(structure.outputs), 4)

    u, h = np.zeros(len(moved)), 1e-5
    level = np.asarray(levels(u))
    assert np.isfinite(level).all()
    forward = np.asarray(jax.jit(jax.jacfwd(levels))(u))
    central = np.stack([(levels(u + h * e) - levels(u - h * e)) / (2 * h)
                        for e in np.eye(len(u))], axis=-1)
    size = np.abs(level).max(axis=1)[:, None, None] + 1e-200
    np.testing.assert_allclose(forward / size, central / size, rtol=1e-4, atol=1e-6)


def test_a_compartment_that_a_dose_will_fill_has_derivatives_by_the_implicit_method():
    """No CAR T cells before day 6: the law's own second derivatives are asked for at 0 cells."""
    structure = dataclasses.replace(registry.find_model("owens_bozic_2021"), solver="rodas4")
    who, _ = enrolled(structure, 1, [2.0, 8.0])
    data = arrays(design(who, structure), structure, 120)

    def levels(scale):
        return predict(structure, data, {n: v * scale[None] for n, v in structure.typical.items()})

    here = jnp.asarray(1.0)
    central = (levels(here + 1e-5) - levels(here - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.jit(jax.jacfwd(levels))(here), central, rtol=1e-5, atol=1e-8)


def test_reverse_mode_is_forward_mode():
    structure = registry.find_model("liu_l_2022")
    data = arrays(design(cohort([2.0, 6.0, 12.0, 40.0], NB0=1500.0), structure), structure, 120)

    def logs(values):
        return jnp.log(predict(structure, data, values)[0])

    typical = {n: jnp.full(1, v) for n, v in structure.typical.items()}
    reverse, forward = jax.jit(jax.jacrev(logs))(typical), jax.jit(jax.jacfwd(logs))(typical)
    for name in typical:
        np.testing.assert_allclose(reverse[name], forward[name], rtol=1e-9, atol=1e-10)


def test_one_patient_that_cannot_be_solved_leaves_the_others_bit_for_bit_alone():
    structure = registry.find_model("liu_l_2022")
    seen = design(cohort([2.0, 9.0, 30.0], patients=3, NB0=900.0), structure)
    data = arrays(seen, structure, 120)
    good = {n: jnp.full(3, v) for n, v in structure.typical.items()}
    bad = {**good, "rTA0": good["rTA0"].at[1].set(1e8)}
    fine, hurt = (np.asarray(predict(structure, data, v)) for v in (good, bad))
    assert not np.isfinite(hurt[1]).all()
    assert np.array_equal(fine[[0, 2]], hurt[[0, 2]])


@settings(max_examples=10, deadline=None)
@given(observations=st.integers(0, 5), doses=st.integers(0, 3))
def test_padding_changes_no_prediction(observations, doses):
    seen = design(cohort([1.0, 7.0, 20.0], [(1, 0, 100, 0)], patients=2), ORAL)
    p = {n: jnp.full(2, v) for n, v in ORAL.typical.items()}
    plain = predict(ORAL, arrays(seen, ORAL, 60), p)
    padded = predict(ORAL, arrays(seen.padded(observations, doses), ORAL, 60), p)
    assert np.allclose(np.asarray(padded)[:, :3], plain, rtol=1e-12)
