"""Every model file: what any of them must satisfy, and the numbers their papers give.

tests/golden/<model>.toml holds those numbers as printed; half a unit of the last printed digit
is the tolerance. They are compared with the model's own functions under scipy's integrator, and
again under carpk's solver.
"""

import functools
import itertools
import math
import pickle
import re
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import minimize_scalar

from carpk import registry
from carpk.cohort import Design
from carpk.solve import arrays, predict
from carpk.structure import named
from carpk.thresholds import rates_of

NAMES = registry.names("models")
GOLDEN = {f.stem: tomllib.loads(f.read_text(encoding="utf-8"))
          for f in sorted((Path(__file__).parent / "golden").glob("*.toml")) if f.stem in NAMES}
LOG_FLOOR = -600.0  # log states below it move at the rates they have there


def cases(kind):
    """Every golden entry of a kind, as (model, entry)."""
    return [pytest.param(name, entry, id=f"{name}-{kind}-{k}")
            for name, golden in GOLDEN.items() for k, entry in enumerate(golden.get(kind, ()))]


def printed(text):
    """A printed number and half a unit of its last digit; a printed 0 means exactly that."""
    value, digits = float(text), re.fullmatch(r"-?\d+(?:\.(\d*))?(?:e([+-]?\d+))?", text)
    decimals, power = len(digits[1] or ""), int(digits[2] or 0)
    return value, 0.0 if value == 0 else 0.501 * 10.0 ** (power - decimals)


def assert_printed(value, text):
    expected, half_unit = printed(text)
    assert abs(value - expected) <= half_unit, f"{value!r} is not {text}"


def values_of(model, entry):
    """Parameters and inputs by name, as a golden entry asks for them."""
    owner = registry.load("models", entry["set_of"]) if "set_of" in entry else model
    defaults = {i.name: i.default for i in model.inputs if i.default is not None}
    chosen = owner.parameter_sets[entry["set"]] if "set" in entry else {}
    return {**model.typical, **defaults, **chosen, **entry.get("values", {})}


def solved(model, entry, until):
    """Times -> every output and state by name, and the logarithm of each log state as ln_<name>."""
    values = values_of(model, entry)
    tolerances = {k: entry[k] for k in ("rtol", "atol") if k in entry}
    return closed_form(model, values) if model.solution else \
        integrated(model, values, entry.get("dose", {}), until, **tolerances)


@functools.cache
def program(solution):
    return jax.jit(jax.vmap(lambda t, p: dict(solution(t, named(p))), in_axes=(0, None)))


def closed_form(model, values):
    p = {n: float(v) for n, v in values.items()}
    return lambda times: {n: np.asarray(v) for n, v in program(model.solution)(
        jnp.asarray(times, dtype=float), p).items()}


@functools.cache
def rates(name):
    """A model's rates, each threshold on the side where the states are: one function per model."""
    return rates_of(registry.load("models", name))


@functools.cache
def compiled(rates, observe, states, names):
    """slopes(t, u, p, inflow) of a model's states, log ones as their logarithms, their Jacobian,
    and every output and state at (T,) times. p and inflow are arrays: a dict costs a call more
    than its equations do."""
    def natural(u):
        return {s.name: jnp.exp(jnp.maximum(x, LOG_FLOOR)) if s.scale == "log" else x
                for s, x in zip(states, u, strict=True)}

    def read(p):
        return named(dict(zip(names, p, strict=True)))

    def slopes(t, u, p, inflow):
        y = natural(u)
        dy = rates(t, named(y), read(p))
        return jnp.stack([(dy[s.name] + extra) / (y[s.name] if s.scale == "log" else 1.0)
                          for s, extra in zip(states, inflow, strict=True)])

    def everything(t, u, p):
        return {**natural(u), **observe(t, named(natural(u)), read(p)),
                **{f"ln_{s.name}": x for s, x in zip(states, u, strict=True) if s.scale == "log"}}

    return (jax.jit(slopes), jax.jit(jax.jacfwd(slopes, argnums=1)),
            jax.jit(jax.vmap(everything, in_axes=(0, 0, None))))


def integrated(model, values, doses, until, rtol=1e-11, atol=1e-25, method=None):
    """Times -> every output and state, and ln_<name> of a log state: scipy, restarted at every
    dose and infusion end. Stiff models by LSODA, which agrees with Radau and is ten times as fast.
    doses : {state: amount} at time 0, or (time, state, amount, duration)s.
    """
    if isinstance(doses, dict):
        doses = [(0.0, state, amount, 0.0) for state, amount in doses.items()]
    moving = rates(model.name) if model.thresholds else model.rates
    slopes, jacobian, everything = compiled(moving, model.observe, model.states, tuple(values))
    logged = [s.scale == "log" for s in model.states]
    method = method or ("LSODA" if model.solver == "rodas4" else "DOP853")
    edges = sorted({0.0, until, *(t for t, *_ in doses if t < until),
                    *(t + d for t, _, _, d in doses if t + d < until)})
    p = np.array([float(v) for v in values.values()])
    start, paths = model.initial(named(values)), []
    now = {s.name: float(start[s.name]) for s in model.states}
    for begin, end in itertools.pairwise(edges):
        inflow = dict.fromkeys(now, 0.0)
        for t, state, amount, duration in doses:
            if duration == 0.0 and t == begin:
                now[state] += amount
            elif t <= begin < t + duration:
                inflow[state] += amount / duration
        first = [math.log(now[s.name]) if log else now[s.name]
                 for s, log in zip(model.states, logged, strict=True)]
        held = jax.device_put((p, np.array(list(inflow.values()))))
        path = solve_ivp(
            lambda t, u, held=held: np.asarray(slopes(t, u, *held)), (begin, end), first,
            method=method, rtol=rtol, atol=atol, dense_output=True,
            **({"jac": lambda t, u, held=held: np.asarray(jacobian(t, u, *held))}
               if method != "DOP853" else {}))
        assert path.success
        paths.append(path)
        now = {s.name: math.exp(max(x, LOG_FLOOR)) if log else float(x)
               for s, log, x in zip(model.states, logged, path.y[:, -1], strict=True)}

    def at(times):
        times = np.asarray(times, dtype=float)
        part = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(paths) - 1)
        u = np.empty((len(model.states), len(times)))
        for k in np.unique(part):
            u[:, part == k] = paths[k].sol(times[part == k])
        return {n: np.asarray(v) * np.ones(len(times))
                for n, v in everything(times, u.T, p).items()}

    return at


def table(text):
    """A printed table as {column: tuple of texts}."""
    head, *rows = [line.split() for line in text.strip().splitlines()]
    return dict(zip(head, zip(*rows, strict=True), strict=True))


# what any model must satisfy


@pytest.mark.parametrize("name", NAMES)
def test_a_published_model_says_where_it_is_from_and_has_golden_numbers(name):
    model = registry.load("models", name)
    if not model.source.doi:
        assert model.source.citation == "textbook"
        return
    assert re.fullmatch(r"[a-z_]+_(19|20)\d\d[a-z0-9_]*", name), "name it <author>_<year>_<topic>"
    assert all(p.where for p in model.parameters), "say where each value is printed"
    assert name in GOLDEN
    assert all(GOLDEN[name][key] for key in ("source", "checked"))


@pytest.mark.parametrize("name", NAMES)
def test_every_word_of_a_model_has_a_unit_and_a_meaning(name):
    model = registry.load("models", name)
    for word in (*model.parameters, *model.inputs, *model.states, *model.outputs, *model.derived):
        assert word.unit, f"{word.name} has no unit"
        assert word.meaning, f"{word.name} has no meaning"


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_set_is_whole(name):
    model = registry.load("models", name)
    needed = set(model.typical) | {i.name for i in model.inputs if i.default is None}
    for title, values in model.parameter_sets.items():
        assert set(values) >= needed, f"{title} lacks {needed - set(values)}"
    assert model.parameter_sets or not any(i.default is None for i in model.inputs)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_can_be_pickled_and_comes_back_the_same(name):
    model = registry.load("models", name)
    assert pickle.loads(pickle.dumps(model)) == model


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_finite_and_no_type_or_shape_is_mixed(name):
    model = registry.load("models", name)

    def everything(p):
        read = named(p)
        if model.solution:
            times = jnp.linspace(0.0, 400.0, 41)
            seen = [jax.vmap(lambda t: dict(model.solution(t, read)))(times)]
        else:
            y = {n: jnp.asarray(v) + 1.0 for n, v in model.initial(read).items()}
            seen = [rates_of(model)(1.0, named(y), read), model.observe(1.0, named(y), read)]
        return seen, model.derive(read) if model.derive else {}

    def total(p):  # a part that is not finite makes the sum so
        seen = everything(p)
        return sum(jnp.sum(jnp.asarray(leaf)) for leaf in jax.tree.leaves(seen)), seen

    both = jax.jit(jax.grad(total, has_aux=True))  # once for all sets
    for title in model.parameter_sets or ["typical"]:
        entry = {"set": title} if model.parameter_sets else {}
        values = {n: jnp.asarray(float(v)) for n, v in values_of(model, entry).items()}
        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            slopes, seen = both(values)
        free = {p.name for p in model.parameters if p.typical != 0}
        for leaf in jax.tree.leaves(seen):
            assert bool(jnp.isfinite(leaf).all())
        for parameter in free:
            assert bool(jnp.isfinite(slopes[parameter])), f"gradient in {parameter}"


@pytest.mark.parametrize("name", [n for n in NAMES if registry.load("models", n).states])
def test_a_log_state_starts_above_zero(name):
    model = registry.load("models", name)
    for title in model.parameter_sets or [None]:
        start = model.initial(named(values_of(model, {"set": title} if title else {})))
        assert all(start[s.name] > 0 for s in model.states if s.scale == "log")


# what the papers print


@pytest.mark.parametrize(("name", "entry"), cases("trajectory"))
def test_the_printed_trajectory_is_reproduced_to_its_last_digit(name, entry):
    rows = table(entry["printed"])
    times = [float(t) for t in rows.pop("t")]
    seen = solved(registry.load("models", name), entry, times[-1])(times)
    for column, texts in rows.items():
        for k, text in enumerate(texts):
            if text.startswith("exp("):
                assert_printed(seen[f"ln_{column}"][k], text[4:-1])
            else:
                assert_printed(seen[column][k], text)


@pytest.mark.parametrize(("name", "entry"), cases("extreme"))
def test_the_printed_peak_or_trough_is_reproduced_with_its_time(name, entry):
    low, high = entry["between"]
    at = solved(registry.load("models", name), entry, high)
    sign = -1.0 if "max" in entry["printed"] else 1.0
    grid = np.linspace(low, high, 401)
    nearest = grid[np.argmin(sign * at(grid)[entry["output"]])]
    step = grid[1] - grid[0]
    best = minimize_scalar(lambda t: sign * float(at([t])[entry["output"]][0]), method="bounded",
                           bounds=(nearest - step, nearest + step), options={"xatol": 1e-9})
    assert_printed(sign * best.fun, entry["printed"].get("max") or entry["printed"]["min"])
    assert_printed(best.x, entry["printed"]["at"])


@pytest.mark.parametrize(("name", "entry"), cases("area"))
def test_the_printed_exposure_is_reproduced_by_quadrature(name, entry):
    nodes, weights = np.polynomial.legendre.leggauss(5)
    longest = max(float(until) for until in entry["printed"])
    at = solved(registry.load("models", name), entry, longest)
    for until, text in entry["printed"].items():
        panels = np.linspace(0.0, float(until), 10 * int(until) + 1)  # of 0.1, so Tmax is an edge
        half, middle = np.diff(panels)[:, None] / 2, (panels[1:] + panels[:-1])[:, None] / 2
        level = at((middle + half * nodes).ravel())[entry["output"]]
        assert_printed(float((half * weights).ravel() @ level), text)


@pytest.mark.parametrize(("name", "entry"), cases("derived"))
def test_the_printed_derived_quantities_are_reproduced(name, entry):
    model = registry.load("models", name)
    derived = model.derive(named(values_of(model, entry)))
    for quantity, text in entry["printed"].items():
        assert_printed(float(derived[quantity]), text)


@pytest.mark.parametrize(("name", "entry"), cases("equilibrium"))
def test_the_printed_equilibrium_rests_with_the_printed_eigenvalues(name, entry):
    model = registry.load("models", name)
    p = named(values_of(model, entry))
    at = {n: printed(text) for n, text in entry["state"].items()}
    absent = {s.name: 0.0 for s in model.states if s.name not in at}

    def slopes(x):
        dy = model.rates(0.0, named({**absent, **dict(zip(at, x, strict=True))}), p)
        return jnp.stack([jnp.asarray(dy[n]) for n in at])

    x = jnp.array([value for value, _ in at.values()])
    jacobian = np.asarray(jax.jacfwd(slopes)(x))
    # the printed point is off by its rounding: one Newton step must stay within it
    correction = np.linalg.solve(jacobian, -np.asarray(slopes(x)))
    assert np.all(np.abs(correction) <= [half_unit for _, half_unit in at.values()])
    values = np.linalg.eigvals(np.asarray(jax.jacfwd(slopes)(x + correction)))
    assert_printed(float(values[0].real), entry["eigenvalue"][0])
    assert_printed(abs(float(values[0].imag)), entry["eigenvalue"][1])


# carpk's own solver


def design_of(model, entry, times, columns):
    """One patient for each output in `columns`, observed at `times`, dosed at time 0."""
    outputs, states = [o.name for o in model.outputs], [s.name for s in model.states]
    dose, values = entry.get("dose", {}), values_of(model, entry)
    each = np.ones((len(columns), 1))
    row, doses = np.ones((1, len(times))), np.array([list(dose.values())], dtype=float)
    return Design(
        ids=tuple(columns), time=each * times, lower=each * row, upper=each * row,
        output=np.array([[outputs.index(c)] * len(times) for c in columns]),
        observed=each * row > 0, line=np.tile(np.arange(len(times)) + 2, (len(columns), 1)),
        inputs={i.name: np.full(len(columns), float(values[i.name])) for i in model.inputs},
        dose_time=each * doses * 0, dose_amount=each * doses, dose_duration=each * doses * 0,
        dose_state=np.tile(np.array([[states.index(n) for n in dose]], int), (len(columns), 1)),
        dose_line=np.ones((len(columns), len(dose)), int), excluded=pd.DataFrame(), warnings=())


def ln_predicted(model, entry, times, columns, steps):
    """ln of a factor on each parameter -> ln of each output at each time, by carpk's solver."""
    data = arrays(design_of(model, entry, times, columns), model, steps)
    values, names = values_of(model, entry), list(model.typical)  # some values are 0 or negative

    def at(x):
        ones = jnp.ones(len(columns))
        return jnp.log(predict(model, data, {n: ones * float(values[n]) * jnp.exp(v) for n, v in
                                             zip(names, x, strict=True)}))

    return at, np.zeros(len(names))


def largest_error(model, entry, steps):
    """Of ln predictions, relative to their size, over a golden trajectory's outputs."""
    rows = table(entry["printed"])
    times = np.array([float(t) for t in rows.pop("t")])
    outputs = [o.name for o in model.outputs if o.name in rows]
    at, x = ln_predicted(model, entry, times, outputs, steps)
    reference = solved(model, entry, times[-1])(times)
    error = 0.0
    for output, got in zip(outputs, np.asarray(jax.jit(at)(x)), strict=True):
        some = reference[output] > math.exp(LOG_FLOOR)  # what has not begun has no logarithm
        want = np.log(reference[output][some])
        error = max(error, np.max(np.abs(got[some] - want) / np.maximum(1.0, np.abs(want))))
    return error


# each set is a program of its own to compile, a large model's takes a minute
@pytest.mark.parametrize(("name", "entry"), [
    case if case.id.endswith("-0") and len(registry.load("models", case.values[0]).states) < 11
    else pytest.param(*case.values, id=case.id, marks=pytest.mark.slow)
    for case in cases("trajectory")])
def test_the_solver_agrees_with_an_independent_one_on_a_fine_mesh(name, entry):
    model = registry.load("models", name)
    assert largest_error(model, entry, entry.get("steps", 1920) if model.states else 1) < 1e-4


@pytest.mark.parametrize("title", ["set 1", "set 3"])
def test_the_solver_agrees_with_an_independent_one_on_its_usual_mesh(title):
    model = registry.load("models", "liu_l_2022")
    entry = next(e for e in GOLDEN["liu_l_2022"]["trajectory"] if e["set"] == title)
    assert largest_error(model, entry, 150) < 1e-4


@pytest.mark.parametrize(("name", "entry", "times"), [
    ("stein_2019", {"values": {"TTOCI": 5.7, "TSTER": 7.5}}, [1.0, 7.0, 9.0, 14.0, 90.0, 365.0]),
    ("liu_l_2022", {"set": "set 1"}, [1.0, 3.0, 5.0, 7.0, 14.0, 28.0]),
    pytest.param("liu_l_2022_negative_relapse", {"set": "set 2", "values": {"km": 1e-6}},
                 [1.0, 3.0, 5.0, 7.0, 14.0], marks=pytest.mark.slow),
    ("one_compartment_oral", {"dose": {"depot": 100.0}}, [0.5, 2.0, 8.0, 24.0]),
])
def test_gradients_agree_with_central_differences_of_an_independent_solver(name, entry, times):
    model = registry.load("models", name)
    times, outputs = np.array(times), [o.name for o in model.outputs]
    at, x = ln_predicted(model, entry, times, outputs, 480)
    jacobian = np.asarray(jax.jit(jax.jacrev(at))(x))
    step, values, names = 1e-4, values_of(model, entry), list(model.typical)
    for k, parameter in enumerate(names):
        sides = []
        for sign in (1.0, -1.0):
            moved = {**entry.get("values", {}), parameter: values[parameter] * np.exp(sign * step)}
            seen = solved(model, {**entry, "values": moved}, times[-1])(times)
            sides.append(np.log(np.stack([seen[o] for o in outputs])))
        differences = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(jacobian[:, :, k], differences, rtol=1e-4, atol=1e-5,
                                   err_msg=parameter)
