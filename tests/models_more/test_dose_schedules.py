"""Golden trajectories under several doses: bolus and infusion, by scipy and by carpk's solver.

A [[schedule]] entry of tests/golden/<model>.toml is a [[trajectory]] with
`doses = [[time, state, amount, duration], ...]` (no duration: a bolus) and perhaps
`extremes = [{ output, between, max or min, at }, ...]` of the same solution. Rows at the time of
a dose are read after it; "-" is a number the paper does not print. `steps` are the mesh nodes
carpk needs for it, 1920 if not said.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from test_models import (
    LOG_FLOOR,
    assert_printed,
    cases,
    design_of,
    integrated,
    table,
    values_of,
)

from carpk import registry
from carpk.solve import arrays, predict

SOLVED = {}


def schedule(entry):
    """(time, state, amount, duration) of every dose."""
    return [(float(t), state, float(amount), float(rest[0]) if rest else 0.0)
            for t, state, amount, *rest in entry["doses"]]


def dosed(model, entry, until):
    """Times -> every output and state by name, under the doses of an entry."""
    key = (model.name, repr(entry), until)
    if key not in SOLVED:
        SOLVED[key] = integrated(model, values_of(model, entry), schedule(entry), until)
    return SOLVED[key]


def last(entry):
    return max([float(t) for t in table(entry["printed"])["t"]]
               + [e["between"][1] for e in entry.get("extremes", ())])


def scheduled(model, entry, times, columns):
    """carpk's predictions of outputs `columns` at `times`, (output, time)."""
    doses = schedule(entry)
    states, each = [s.name for s in model.states], np.ones((len(columns), 1))
    design = dataclasses.replace(
        design_of(model, entry, times, columns),
        dose_time=each * np.array([[t for t, *_ in doses]]),
        dose_amount=each * np.array([[amount for _, _, amount, _ in doses]]),
        dose_duration=each * np.array([[duration for *_, duration in doses]]),
        dose_state=np.tile(np.array([[states.index(s) for _, s, _, _ in doses]]),
                           (len(columns), 1)),
        dose_line=np.ones((len(columns), len(doses)), int))
    values, data = values_of(model, entry), arrays(design, model, entry.get("steps", 1920))
    ones = jnp.ones(len(columns))
    return np.asarray(jax.jit(lambda v: predict(model, data, v))(
        {n: ones * float(values[n]) for n in model.typical}))


@pytest.mark.parametrize(("name", "entry"), cases("schedule"))
def test_the_printed_trajectory_under_its_doses_is_reproduced_to_its_last_digit(name, entry):
    rows = table(entry["printed"])
    times = [float(t) for t in rows.pop("t")]
    seen = dosed(registry.load("models", name), entry, last(entry))(times)
    for column, texts in rows.items():
        for value, text in zip(seen[column], texts, strict=True):
            if text != "-":
                assert_printed(float(value), text)


@pytest.mark.parametrize(("name", "entry"), cases("schedule"))
def test_the_printed_peaks_and_troughs_under_doses_are_reproduced_with_their_times(name, entry):
    at = dosed(registry.load("models", name), entry, last(entry))
    for extreme in entry.get("extremes", ()):
        low, high = extreme["between"]
        sign, what = (-1.0, "max") if "max" in extreme else (1.0, "min")
        grid, output = np.linspace(low, high, 401), extreme["output"]
        k = int(np.argmin(sign * at(grid)[output]))
        best = minimize_scalar(lambda t, s=sign, o=output: s * float(at([t])[o][0]),
                               method="bounded", options={"xatol": 1e-9},
                               bounds=(grid[max(k - 1, 0)], grid[min(k + 1, 400)]))
        assert_printed(sign * best.fun, extreme[what])
        assert_printed(best.x, extreme["at"])


@pytest.mark.parametrize(("name", "entry"), cases("schedule"))
def test_the_solver_agrees_with_an_independent_one_under_doses(name, entry):
    model, rows = registry.load("models", name), table(entry["printed"])
    times = np.array([float(t) for t in rows.pop("t")])
    outputs = [o.name for o in model.outputs]
    reference = dosed(model, entry, last(entry))(times)
    for output, got in zip(outputs, scheduled(model, entry, times, outputs), strict=True):
        some = reference[output] > math.exp(LOG_FLOOR)  # what has not begun has no logarithm
        want = np.log(reference[output][some])
        assert np.all(np.abs(np.log(got[some]) - want) < 1e-4 * np.maximum(1.0, np.abs(want)))
