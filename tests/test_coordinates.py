"""carpk.coordinates: a state that is integrated as its ratio to another has the same levels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from test_solve import PASSING, cohort

from carpk.cli_models import card, written_card
from carpk.cohort import design
from carpk.likelihood import data_of, predicted_rows
from carpk.nonmem import read_csv
from carpk.population_model import population
from carpk.preparation import with_effects
from carpk.solve import arrays, predict
from carpk.structure import Output, Parameter, Source, State, StructuralModel


def solved(model, seen, steps, x):
    """Levels (P, N) and their Jacobian (P, N, K) by the parameters' logarithms; x : (P, K)."""
    data = arrays(seen, model, steps)

    def levels(x):
        return predict(model, data, dict(zip(model.typical, jnp.exp(x).T, strict=True)))

    def all_(x):
        return jax.vmap(lambda d: jax.jvp(levels, (x,), (jnp.broadcast_to(d, x.shape),)),
                        out_axes=(None, -1))(jnp.eye(x.shape[1]))

    return map(np.asarray, jax.jit(all_)(jnp.asarray(x)))


# memory, which effectors feed, slows their growth; more of them come all the time
HELD = StructuralModel(
    title="", source=Source("the test's own"), time_unit="day",
    parameters=tuple(Parameter(n, v, "-", "") for n, v in zip(
        ("s", "r", "K", "d", "k", "m"), (2.0, 0.4, 30.0, 0.7, 0.5, 0.3), strict=True)),
    states=(State("E", "cells", "effector", "log"), State("M", "cells", "memory", ratio_to="E")),
    outputs=(Output("E", "cells", ""), Output("M", "cells", "", dvid=2)),
    rates=lambda t, y, p: {"E": p.s + (p.r / (1.0 + y.M / p.K) - p.d) * y.E,
                           "M": p.k * y.E - p.m * y.M},
    initial=lambda p: {"E": p.s, "M": 0.1 * p.s},
    observe=lambda t, y, p: {"E": y.E, "M": y.M}, file=__file__)
EVENTS = {  # time, EVID, AMT, RATE, CMT, ADDL, II, SS
    "nothing": [],
    "boluses into the other": [(1, 1, 40, 0, 1, 2, 3, 0)],
    "into it and then into both at one time": [(1, 1, 40, 0, 2, 0, 0, 0), (4, 1, 9, 0, 1, 0, 0, 0),
                                           (4, 1, 7, 0, 2, 0, 0, 0)],
    "infusions": [(1, 1, 40, 10, 1, 0, 0, 0), (3, 1, 30, 15, 2, 0, 0, 0)],
    "resets": [(0, 1, 40, 0, 1, 0, 0, 0), (3, 3, 0, 0, 1, 0, 0, 0), (6, 4, 20, 0, 2, 0, 0, 0)],
    "steady states": [(0, 1, 40, 0, 1, 1, 5, 1), (8, 1, 20, 0, 2, 0, 6, 1)],
    "one on top": [(0, 1, 40, 0, 1, 0, 0, 0), (3, 1, 20, 0, 1, 0, 6, 2)],
}
TIMES = np.array([0.5, 2.0, 3.5, 5.5, 7.0, 9.5])
LINEAR = State("M", "cells", "memory")


def course(events, x):
    """(S, TIMES, 2): E and M by DOP853, of S parameter vectors at once; x : (S, 6), logarithms."""
    s, r, K, d, k, m = np.exp(x).T

    def flown(y, begin, end, pour=(0.0, 0.0)):
        if end <= begin:
            return y
        return solve_ivp(lambda _, u: np.concatenate([
            s + (r / (1 + u[len(r):] / K) - d) * u[:len(r)] + pour[0],
            k * u[:len(r)] - m * u[len(r):] + pour[1]]),
            (begin, end), y.ravel(), "DOP853", rtol=1e-11, atol=1e-11).y[:, -1].reshape(2, -1)

    def given(y, amount, state):
        return y + amount * (np.arange(1, 3) == state)[:, None]

    start, rows = np.stack([s, 0.1 * s]), []
    for at, evid, amount, rate, state, more, interval, steady in events:
        rows.append((at, evid, amount, rate, state, interval, steady))
        rows += [(at + n * interval, 1, amount, rate, state, 0, 0) for n in range(1, more + 1)]
    stops = sorted({*TIMES, *(row[0] for row in rows),
                    *(row[0] + row[2] / row[3] for row in rows if row[3])})
    y, now, seen = start, 0.0, []
    for stop in stops:
        pour = [sum(row[3] for row in rows if row[3] and row[4] == state
                    and row[0] <= now < row[0] + row[2] / row[3]) for state in (1, 2)]
        y, now = flown(y, now, stop, pour), stop
        for _, evid, amount, rate, state, interval, steady in (w for w in rows if w[0] == stop):
            if steady:
                cycle = start
                for _ in range(18):
                    cycle = flown(given(cycle, amount, state), 0.0, interval)
                y = cycle if steady == 1 else y + cycle - start
            y = start if evid > 2 else y
            y = y if rate or evid == 3 else given(y, amount, state)
        seen += [y] if stop in TIMES else []
    return np.array(seen).transpose(2, 0, 1)


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    """A patient for each kind of event: design, logarithms of the parameters, levels and their
    central differences, of E and then of M at TIMES."""
    path, lines = tmp_path_factory.mktemp("events") / "run.csv", []
    for name, events in EVENTS.items():
        rows = [(row[0], f"{row[0]},.,{','.join(map(str, row[1:]))},") for row in events]
        rows += [(t, f"{t},1,0,,,,,,,{dvid}") for t in TIMES for dvid in (1, 2)]
        lines += [f"{name},{row}" for _, row in sorted(rows, key=lambda row: row[0])]
    path.write_text("ID,TIME,DV,EVID,AMT,RATE,CMT,ADDL,II,SS,DVID\n" + "\n".join(lines))
    seen = design(read_csv(path, structure=HELD), HELD)
    typical, h = np.log([*HELD.typical.values()]), 1e-4
    x = np.concatenate([typical[None], typical + h * np.eye(6), typical - h * np.eye(6)])
    found = np.array([course(events, x) for events in EVENTS.values()]).reshape(len(EVENTS), 13, -1)
    return seen, typical, found[:, 0], ((found[:, 1:7] - found[:, 7:]) / (2 * h)).swapaxes(1, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "solver", "steps"), [
    ("log", "tsit5", 300), ("linear", "tsit5", 300), ("log", "rodas4", 600),
    ("linear", "rodas4", 600), ("log", "diffrax_tsit5", 1), ("linear", "diffrax_tsit5", 1)])
def test_every_event_and_its_derivatives_are_those_of_scipy(every, scale, solver, steps):
    """On each scale of what the ratio is to. Passed, 10 to 20 s each."""
    seen, typical, want, slopes = every
    model = dataclasses.replace(HELD, solver=solver, states=(
        dataclasses.replace(HELD.states[0], scale=scale), HELD.states[1]))
    found = [*solved(model, seen, steps, np.tile(typical, (len(EVENTS), 1)))]
    for i, name in enumerate(EVENTS):
        np.testing.assert_allclose(found[0][i], want[i], rtol=2e-6, atol=1e-7, err_msg=name)
        np.testing.assert_allclose(found[1][i], slopes[i], rtol=1e-4, atol=1e-5, err_msg=name)


# effectors grow until T and fall from then on, and nothing but them feeds M
FED = StructuralModel(
    title="", source=Source("the test's own"), time_unit="day",
    parameters=tuple(Parameter(n, v, "1/day", "") for n, v in zip(
        "Tabkm", (46.05, 1.0, 0.3, 0.02, 0.005), strict=True)),
    states=HELD.states, outputs=(Output("M", "cells", ""),), switches=("T",),
    rates=lambda t, y, p: {"E": jnp.where(t <= p.T, p.a, -p.b) * y.E, "M": p.k * y.E - p.m * y.M},
    initial=lambda p: {"E": 1e-8, "M": 0.0}, observe=lambda t, y, p: {"M": y.M}, file=__file__)
BESIDE = dataclasses.replace(FED, states=(FED.states[0], LINEAR))


def fed(x, t, effectors=((0.0, 1e-8),), own=()):
    """M at t by its closed form; x : (5,), logarithms; effectors, own : (time, amount) given."""
    T, a, b, k, m = jnp.exp(x)

    def made(begin, end, E, rate):
        return k * E * (jnp.exp(rate * (end - begin)) - jnp.exp(-m * (end - begin))) / (rate + m)

    total = sum(jnp.where(t > s, amount * jnp.exp(-m * (t - s)), 0.0) for s, amount in own)
    for s, amount in effectors:
        turn, end = jnp.maximum(T, s), jnp.maximum(t, s)
        grown = jnp.minimum(end, turn)
        total += made(s, grown, amount, a) * jnp.exp(-m * (end - grown)) + made(
            turn, jnp.maximum(end, turn), amount * jnp.exp(a * (turn - s)), -b)
    return total


@pytest.mark.parametrize(("solver", "steps"), [
    ("tsit5", 300), *(pytest.param(*other, marks=pytest.mark.slow)  # passed, 6 s each
                      for other in (("rodas4", 1000), ("diffrax_tsit5", 1)))])
def test_a_switch_and_doses_into_either_by_every_solver(solver, steps):
    """Against the closed form, value and Jacobian."""
    days = np.array([0.7, 1.5, 3.0, 4.0, 6.0, 20.0])
    who = cohort(days, [(1, 1.0, 5.0, 0.0), (2, 2.0, 6.0, 0.0)], patients=2)
    who = dataclasses.replace(who, doses=who.doses.assign(CMT=[1, 2, 1, 2]))
    model = dataclasses.replace(FED, solver=solver, initial=lambda p: {"E": 2.0, "M": 0.0})
    x = np.log([[3.4, 0.8, 0.3, 0.2, 0.05], [2.0, 1.1, 0.2, 0.1, 0.6]])
    level, slope = solved(model, design(who, model), steps, x)
    if solver == "tsit5":
        plain = dataclasses.replace(model, states=BESIDE.states)
        for ours, theirs in zip((level, slope), solved(plain, design(who, plain), steps, x),
                                strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    for got, way in ((level, fed), (slope, jax.jacfwd(fed))):
        want = [way(jnp.asarray(v), days, ((0.0, 2.0), (1.0, 5.0)), ((2.0, 6.0),)) for v in x]
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)


@pytest.mark.slow  # passed, 20 s
def test_parameters_that_change_resets_and_steady_states_are_those_of_a_linear_state(read):
    """A reset sets M to a tenth of what E starts with at its record's weight."""
    text = "ID,TIME,DV,AMT,EVID,CMT,SS,II,WT,DVID\n1,0,.,40,1,1,0,0,70,1\n1,1,5,0,0,1,0,0,70,2\n" \
        "1,3,.,20,4,2,0,0,140,1\n1,4,5,0,0,1,0,0,140,2\n1,6,.,20,1,1,2,4,90,1\n" \
        "1,7,5,0,0,1,0,0,90,2\n"
    found = []
    for states in (HELD.states, (HELD.states[0], LINEAR)):
        model = population(dataclasses.replace(HELD, states=states), spread=[], time_varying={
            "WT": "locf"}, covariates={"k ~ WT": "power(70)", "s ~ WT": "power(70)"})
        seen = design(read(text), model.structure)
        model, _ = with_effects(dataclasses.replace(model, steps=400), seen)
        theta = {**{f"{n}_pop": v for n, v in HELD.typical.items()},
                 "beta_k_WT": 0.75, "beta_s_WT": 1.0}
        found.append(predicted_rows(model, data_of(model, seen), theta, jnp.zeros((1, 0))))
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert np.ptp(np.asarray(found[0])[seen.observed]) > 1.0


@pytest.mark.parametrize(("loss", "gains"), [(0.6, (100, 500)), (0.005, (300, 1 / 60))])
def test_cells_over_20_decades_and_where_a_ratio_is_the_better_coordinate(loss, gains):
    """E grows from 1e-8 to 1e12 cells and falls to 1e-21. Largest error of ln M with 120 steps, as
    a linear state and as a ratio, while E grows and afterwards: where M is lost faster than E
    falls 5e-3 and 3e-5, 8e-3 and 8e-6; where M outlives E 2e-4 and 6e-7, 6e-5 and 2e-3."""
    days = np.array([5, 15, 30, 45, 46.5, 50, 60, 80, 120, 180, 300.0])
    x, seen = np.log([[46.05, 1.0, 0.3, 0.02, loss]]), design(cohort(days), FED)
    want, slopes = (np.asarray(f(jnp.asarray(x[0]), days)) for f in (fed, jax.jacfwd(fed)))
    errors = []
    for model in (BESIDE, FED):
        level, slope = (v[0] for v in solved(model, seen, 120, x))
        errors.append(np.abs(np.log(level / want)))
    # of the last, the ratio, by the logarithm of T too, of which E has the 46th power
    assert loss < 0.01 or (np.abs(slope - slopes).max(axis=1) / want).max() < 5e-3
    for phase, gain in zip((slice(4), slice(4, None)), gains, strict=True):
        linear, ratio = (e[phase].max() for e in errors)
        assert linear < 1e-2
        assert gain < linear / ratio < 5 * gain


def test_what_a_vanished_state_left_behind_keeps_its_own_course():
    """E falls by 1000 orders of magnitude, far below the least level that a logarithm tells."""
    days = np.array([1.0, 200.0, 350.0])
    x = np.log([[1e-9, 1.0, 6.6, 0.02, 0.005]])
    model = dataclasses.replace(FED, initial=lambda p: {"E": 1e12, "M": 0.0})
    level, slope = solved(model, design(cohort(days), FED), 8000, x)
    want, by = (np.asarray(f(jnp.asarray(x[0]), days, ((0.0, 1e12),)))
                for f in (fed, jax.jacfwd(fed)))
    np.testing.assert_allclose(level[0], want, rtol=1e-3)
    np.testing.assert_allclose(slope[0][:, 2:], by[:, 2:], rtol=1e-2)


def test_a_threshold_is_met_by_a_ratio():
    """Of a state that follows x and stops where x has fallen to L."""
    days = np.array([0.5, 1.0, 3.0, 4.1, 9.0])
    model = dataclasses.replace(PASSING, states=(
        PASSING.states[0], State("y", "u", "-", ratio_to="x")))
    level, slope = solved(model, design(cohort(days), model), 600, np.log([[2.0, 0.4, 3000.0]]))
    behind, x = 3000.0 / (3000.0 - 0.4), 10.0 * np.exp(-0.4 * days)
    np.testing.assert_allclose(level[0], np.maximum(x, 2.0) * behind, rtol=1e-6)
    np.testing.assert_allclose(slope[0, :, 0], np.where(x < 2.0, 2.0 * behind, 0.0), atol=1e-5)


def test_a_ratio_is_shown_as_one():
    assert "ratio to E" in written_card(HELD)
    assert [s["ratio_to"] for s in card(HELD)["states"]] == ["", "E"]
