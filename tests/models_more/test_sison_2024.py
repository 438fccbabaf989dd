"""Sison 2024: doses on days 4 and 6 of an experiment whose day 3 is the model's time 0."""

import functools
import tomllib
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from test_models import assert_printed, design_of, integrated, ln_predicted, table, values_of

from carpk import registry
from carpk.solve import arrays, predict
from carpk.structure import named

NAMES = ("sison_2024", "sison_2024_no_bystander")
GOLDEN = {name: tomllib.loads((Path(__file__).parents[1] / "golden" / f"{name}.toml").read_text(
    encoding="utf-8")) for name in NAMES}
DOSES = ((1.0, 0.1), (3.0, 0.1))
CASES = [pytest.param(name, entry, id=f"{name}-{k}")
         for name in NAMES for k, entry in enumerate(GOLDEN[name]["dosed"])]


@functools.cache
def slopes(model_name):
    """(ln Ts, other states), p -> their rates, compiled: scipy asks for them often."""
    model = registry.load("models", model_name)
    others = [s.name for s in model.states[1:]]

    def at(u, p):
        y = {"Ts": jnp.exp(u[0]), **dict(zip(others, u[1:], strict=True))}
        dy = model.rates(0.0, named(y), named(p))
        return jnp.stack([dy["Ts"] / y["Ts"], *(dy[n] for n in others)])

    return jax.jit(at)


def dosed(model, values, doses=DOSES):
    """Time -> every output and state; a dose counts from its own time on."""
    p, begins, pieces = {n: float(v) for n, v in values.items()}, [0.0, *(t for t, _ in doses)], []
    u = np.array([*model.initial(named(p)).values()], float)
    u[0] = np.log(u[0])
    for begin, end, amount in zip(begins, [*begins[1:], 40.0], [*(a for _, a in doses), 0.0],
                                  strict=True):
        path = solve_ivp(lambda t, u: np.asarray(slopes(model.name)(u, p)), (begin, end), u,
                         method="DOP853", rtol=1e-11, atol=1e-20, dense_output=True)
        pieces.append(path.sol)
        u = path.y[:, -1].copy()
        u[2] += amount

    def at(t):
        u = pieces[np.searchsorted(begins, t, side="right") - 1](t)
        y = dict(zip([s.name for s in model.states], [np.exp(u[0]), *u[1:]], strict=True))
        return {**y, **model.observe(t, named(y), named(p))}

    return at


def with_doses(design, doses=DOSES):
    """The design with every patient dosed into C."""
    patients = len(design.ids)
    rows = [np.tile(np.array(column, float), (patients, 1)) for column in zip(*doses, strict=True)]
    into = np.full((patients, len(doses)), 2)  # C, the third state
    return replace(design, dose_time=rows[0], dose_amount=rows[1], dose_duration=0 * rows[0],
                   dose_state=into, dose_line=np.ones_like(into))


@pytest.mark.parametrize(("name", "entry"), CASES)
def test_the_printed_mice_are_reproduced_to_the_last_digit(name, entry):
    model, rows = registry.load("models", name), table(entry["printed"])
    at = dosed(model, values_of(model, entry))
    for k, day in enumerate(rows["day"]):
        seen = at(float(day) - 3.0)
        for column in set(rows) - {"day"}:
            assert_printed(seen[column], rows[column][k])


@pytest.mark.parametrize(("name", "title"), [(n, t) for n in NAMES for t in
                                             registry.load("models", n).parameter_sets])
def test_the_solver_agrees_with_an_independent_one(name, title):
    model, times = registry.load("models", name), np.array([0.5, 2.0, 6.0, 9.0, 13.0, 17.0, 27.0])
    values, columns = values_of(model, {"set": title}), [o.name for o in model.outputs]
    data = arrays(with_doses(design_of(model, {"set": title}, times, columns)), model, 240)
    got = jax.jit(lambda v: predict(model, data, v))(
        {n: jnp.full(len(columns), float(values[n])) for n in model.typical})
    at = dosed(model, values)
    want = np.array([[at(t)[c] for t in times] for c in columns])
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-9)


@pytest.mark.slow  # passed, 23 s
@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_central_differences(name):
    model, times = registry.load("models", name), np.array([2.0, 6.0, 9.0, 17.0, 27.0])
    entry, columns = {"set": "75 % positive"}, [o.name for o in model.outputs]
    values = {n: float(v) for n, v in values_of(model, entry).items()}
    data = arrays(with_doses(design_of(model, entry, times, columns)), model, 480)
    names = list(model.typical)

    def ln(x):
        ones = jnp.ones(len(columns))
        return jnp.log(predict(model, data, {n: ones * values[n] * jnp.exp(v) for n, v in
                                             zip(names, x, strict=True)}))

    jacobian = np.asarray(jax.jit(jax.jacrev(ln))(jnp.zeros(len(names))))
    for k, parameter in enumerate(names):
        sides = []
        for factor in (np.exp(1e-4), np.exp(-1e-4)):
            at = dosed(model, {**values, parameter: values[parameter] * factor})
            sides.append(np.log([[at(t)[c] for t in times] for c in columns]))
        np.testing.assert_allclose(jacobian[:, :, k], (sides[0] - sides[1]) / 2e-4, rtol=1e-3,
                                   atol=1e-4, err_msg=parameter)


def test_without_a_dose_a_wholly_positive_tumour_grows_logistically():
    model = registry.load("models", "sison_2024_no_bystander")
    values = values_of(model, {"set": "100 % positive"})
    times = np.array([1.0, 10.0, 40.0])
    grown = 50.0 * np.exp(0.18 * times)
    np.testing.assert_allclose(integrated(model, values, {}, 40.0)(times)["V"],
                               grown / (1 + (grown - 50.0) / 5100.0), rtol=1e-9)


def test_untreated_with_bystanders_nothing_becomes_unreal():
    model = registry.load("models", "sison_2024")
    at, x = ln_predicted(model, {"set": "75 % positive"}, np.array([1.0, 40.0, 200.0]), ["V"], 150)
    assert np.isfinite(np.asarray(jax.jit(at)(x))).all()
    values = values_of(model, {"set": "75 % positive"})
    seen = integrated(model, values, {}, 200.0)([200.0])
    assert seen["B"][0] < 0
    assert abs(seen["V"][0] / 5100.0 - 1) < 1e-3


@pytest.mark.parametrize("percent", [50, 75, 90])
def test_without_bystanders_the_negative_tumour_escapes_and_more_car_t_cells_do_not_help(percent):
    model = registry.load("models", "sison_2024_no_bystander")
    values = values_of(model, {"set": f"{percent} % positive"})
    usual, tenfold = (dosed(model, values, tuple((t, m * a) for t, a in DOSES))(27.0)
                      for m in (1, 10))
    assert usual["Tr"] > 100 * usual["Ts"]
    assert tenfold["Tr"] >= usual["Tr"]


def test_a_wholly_positive_tumour_rises_and_is_then_nearly_gone():
    model = registry.load("models", "sison_2024_no_bystander")
    at = dosed(model, values_of(model, {"set": "100 % positive"}))
    assert max(range(28), key=lambda t: at(float(t))["V"]) in (5, 6)  # days 8 and 9
    assert at(27.0)["V"] < 2
