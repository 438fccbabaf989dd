"""The laws: printed tables, composed trajectories, closed forms, limits, gradients.

Numbers given as text are compared to half a unit of their last digit. They were derived with
arbitrary parameters: they test the laws, they are no biology.
"""

import ast
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from carpk import laws


def assert_printed(value, text):
    digits = re.fullmatch(r"\d+(?:\.(\d*))?(?:e([+-]?\d+))?", text)
    half_unit = 0.501 * 10.0 ** (int(digits[2] or 0) - len(digits[1] or ""))
    assert abs(value - float(text)) <= half_unit, f"{value!r} is not {text}"


def paths(rates, start, times):
    """States (state, time) of dy/dt = rates(t, y), at a relative tolerance of 1e-11."""
    slopes = jax.jit(lambda t, y: jnp.stack(rates(t, y)))
    path = solve_ivp(lambda t, y: np.asarray(slopes(t, y)), (0.0, times[-1]), start, t_eval=times,
                     method="DOP853", rtol=1e-11, atol=1e-13)
    assert path.success
    return path.y


def assert_path(rates, start, text):
    """A printed table, the time in its first column."""
    rows = np.array([line.split() for line in text.strip().splitlines()])
    for column, seen in zip(rows.T[1:], paths(rates, start, rows[:, 0].astype(float)), strict=True):
        for expected, value in zip(column, seen, strict=True):
            assert_printed(value, expected)


# growth

GROWTH = {  # law, parameters, closed form from T0, and T at 5, 10, 20, 40 from T0 = 10
    "exponential": (
        (0.2,), lambda t, T0, r: T0 * np.exp(r * t),
        "27.1828 73.8906 545.982 29809.6"),
    "logistic": (
        (0.2, 1000.0),
        lambda t, T0, r, K: K * T0 * np.exp(r * t) / (K + T0 * (np.exp(r * t) - 1)),
        "26.7236 69.4532 355.461 967.857"),
    "richards": (
        (0.2, 1000.0, 2.0),
        lambda t, T0, r, K, v: K / (1 + ((K / T0) ** v - 1) * np.exp(-r * v * t)) ** (1 / v),
        "27.1741 73.6933 479.227 999.438"),
    "richards below 1": (
        (0.2, 1000.0, 0.5),
        lambda t, T0, r, K, v: K / (1 + ((K / T0) ** v - 1) * np.exp(-r * v * t)) ** (1 / v),
        "23.9717 53.8098 203.268 736.999"),
    "gompertz": (
        (0.2, 1000.0), lambda t, T0, r, K: K * np.exp(np.log(T0 / K) * np.exp(-r * t)),
        "183.756 536.203 919.113 998.456"),
    "bertalanffy": (
        (0.5, 0.05),
        lambda t, T0, a, b: (a / b + (T0 ** (1 / 3) - a / b) * np.exp(-b * t / 3)) ** 3,
        "21.5251 37.8949 83.936 212.985"),
    "power_law": (
        (0.5, 0.75), lambda t, T0, a, p: (T0 ** (1 - p) + a * (1 - p) * t) ** (1 / (1 - p)),
        "33.3593 84.0976 335.025 2110.95"),
}


@pytest.mark.parametrize("name", GROWTH)
def test_growth_gives_the_printed_sizes_and_its_closed_form(name):
    parameters, closed, texts = GROWTH[name]
    law, times = getattr(laws, name.split()[0]), np.array([5.0, 10.0, 20.0, 40.0])
    seen = paths(lambda t, y: [law(y[0], *parameters)], [10.0], times)[0]
    for value, text in zip(seen, texts.split(), strict=True):
        assert_printed(value, text)
    np.testing.assert_allclose(seen, closed(times, 10.0, *parameters), rtol=1e-9)


@pytest.mark.parametrize(("law", "parameters", "at"), [
    (laws.logistic, (0.2, 1000.0), 500.0),
    (laws.richards, (0.2, 1000.0, 2.0), 1000.0 * 3.0 ** -0.5),
    (laws.gompertz, (0.2, 1000.0), 1000.0 / np.e),
    (laws.bertalanffy, (0.5, 0.05), 8000.0 / 27.0)])
def test_growth_is_fastest_at_its_inflexion(law, parameters, at):
    slope, curvature = jax.grad(law), jax.grad(jax.grad(law))
    assert abs(slope(at, *parameters)) < 1e-13
    assert curvature(at, *parameters) < 0


def test_log_kill_on_gompertz_leaves_a_rest_and_norton_simon_leaves_none():
    def log_kill(t, y):
        return [laws.gompertz(y[0], 0.1, 1e4) - laws.exponential(y[0], 0.3)]

    assert_path(log_kill, [1e3], "2 881.245 \n 5 760.019 \n 10 643.489 \n 20 547.151 \n 40 504.271")
    assert_printed(brentq(lambda x: log_kill(0, [x])[0], 1.0, 1e4), "497.871")
    assert_path(lambda t, y: [laws.gompertz(y[0], 0.1, 1e4) * (1.0 - 2.0)], [1e3],
                "2 600.616 \n 5 224.532 \n 10 19.1301 \n 20 4.08267e-4")


# killing and expansion

@pytest.mark.parametrize(("law", "parameters", "text"), [
    (laws.mass_action, (1e-3,), "20.0000"),
    (laws.holling_2, (2.0, 100.0), "80.0000"),
    (laws.michaelis_menten, (2.0, 100.0), "80.0000"),
    (laws.holling_3, (2.0, 100.0, 2.0), "94.1176"),
    (laws.saturating_in_effectors, (2.0, 100.0), "266.667"),
    (laws.ratio_dependent, (2.0, 0.3, 1.4), "122.817"),
    (laws.beddington_deangelis, (1e-3, 0.01, 0.005), "3.80952"),
    (laws.beddington_deangelis, (2.0 / 100.0, 0.01, 0.01), "72.7273"),  # one to one, by Pade
    (laws.one_to_one, (2.0, 100.0), "78.3009")])
def test_fifty_effectors_kill_as_many_of_four_hundred_targets_as_printed(law, parameters, text):
    assert_printed(float(law(50.0, 400.0, *parameters)), text)


def same(value, expected, rtol=1e-12):
    np.testing.assert_allclose(float(value), expected, rtol=rtol)


def test_the_laws_of_a_pair_have_their_limits():
    e, t, k, h, n = 50.0, 400.0, 2.0, 100.0, 2.0
    same(laws.holling_2(e, 1e-9, k, h), k / h * e * 1e-9, 1e-10)
    same(laws.holling_2(e, t, k, 1e-30), k * e)
    same(laws.holling_3(e, 1e-3, k, h, n), k * e * 1e-10, 1e-9)
    same(laws.holling_3(e, t, k, h, 1.0), laws.holling_2(e, t, k, h))
    same(laws.holling_3(e, t, k, 1e-30, n), k * e)
    same(laws.saturating_in_effectors(1e15, t, k, h), k * t)
    same(laws.hill_in_effectors(e, t, k, h, n), k * t * e ** n / (h ** n + e ** n))
    same(laws.ratio_dependent(1e15, t, k, 0.3, 1.4), k * t)
    same(laws.ratio_dependent(1e-12, t, k, 0.3, 1.4), k / 0.3 * 1e-12 ** 1.4 * t ** -0.4)
    same(laws.ratio_dependent(e, 1e-30, k, 0.3, 1.4), k * 1e-30)  # no escape of a tiny tumour
    same(laws.beddington_deangelis(e, t, k / h, 1 / h, 0.0), laws.holling_2(e, t, k, h))
    same(laws.beddington_deangelis(e, t, k / h, 0.0, 1 / h),
         laws.saturating_in_effectors(e, t, k, h))
    same(laws.one_to_one(e, t, k, 0.0), k * e)
    same(laws.one_to_one(t, e, k, 0.0), k * e)
    same(laws.one_to_one(70.0, 70.0, k, 0.0), k * 70.0)
    same(laws.one_to_one(1e-9, t, k, h), laws.holling_2(1e-9, t, k, h), 1e-10)
    same(laws.one_to_one(e, 1e-9, k, h), laws.saturating_in_effectors(e, 1e-9, k, h), 1e-10)
    same(laws.one_to_one(e, t, k, 1e12), k / 1e12 * e * t, 1e-8)
    same(laws.lysis_driven(e, 1e9, 0.6, 400.0), 0.6 * e)


def test_one_to_one_conjugates_keep_the_mass_balance_where_the_printed_root_cancels():
    for e, t, h in [(50.0, 400.0, 100.0), (1e-6, 1e9, 1.0), (3e8, 2.0, 1e-3), (1e5, 1e5, 1e-9)]:
        bound = float(laws.one_to_one(e, t, 1.0, h))
        np.testing.assert_allclose(min(e, t) - bound, h * bound / (max(e, t) - bound),
                                   atol=1e-15 * max(e, t), rtol=1e-6)


def test_richards_becomes_gompertz_and_logistic():
    for x in (1e-6, 10.0, 999.0):
        v = 1e-10
        same(laws.richards(x, 0.2 / v, 1000.0, v), laws.gompertz(x, 0.2, 1000.0), 1e-8)
        same(laws.richards(x, 0.2, 1000.0, 1.0), laws.logistic(x, 0.2, 1000.0), 1e-12)
    same(laws.richards(900.0, 0.2, 1000.0, 1e4), laws.exponential(900.0, 0.2))
    same(laws.power_law(7.0, 0.3, 1.0), laws.exponential(7.0, 0.3))


# competition, memory, exhaustion, antigen loss

@pytest.mark.parametrize(("law", "text"), [
    (laws.logistic, """
2   71.0138   2.01719
5   115.413   5.32802
10  220.272   19.4079
20  387.43    60.0407
50  427.005   72.9334"""),
    (laws.gompertz, """
2   105.741   4.47245
5   207.221   17.1762
10  337.431   45.5438
20  416.891   69.5192
50  427.04    72.9454""")])
def test_two_populations_share_a_niche_as_printed_and_end_where_they_must(law, text):
    def niche(t, y):
        return [law(y[0], 0.2, 500.0, rivals=y[1]), law(y[1], 0.4, 500.0, rivals=y[0])]

    assert_path(niche, [50.0, 1.0], text)
    N, E = paths(niche, [50.0, 1.0], [300.0])[:, 0]
    np.testing.assert_allclose(E, (N / 50.0) ** 2, rtol=1e-8)  # E/E0 = (N/N0)^(rE/rN)
    np.testing.assert_allclose(N, brentq(lambda n: n + (n / 50.0) ** 2 - 500.0, 1.0, 500.0),
                               rtol=1e-8)


def test_tumour_effector_memory_and_exhausted_cells_move_as_printed():
    def chain(t, y):
        T, E, M, X = y
        worn, recalled = laws.mass_action(E, T, 1e-4), laws.michaelis_menten(M, T, 0.1, 100.0)
        return [laws.exponential(T, 0.1) - laws.mass_action(E, T, 1e-3),
                laws.michaelis_menten(E, T, 1.0, 100.0) - 0.32 * E - worn + recalled,
                0.02 * E - 0.005 * M - recalled,
                worn - 0.2 * X]

    assert_path(chain, [1000.0, 1.0, 0.0, 0.0], """
2   1217.27    2.65152   0.0625868   0.325747
5   1614.27    11.0305   0.363927    2.27786
10  2169.73    99.3574   3.70814     32.2024
15  564.829    968.205   34.1176     176.5
20  1.19967    816.041   155.841     91.7882
30  0.272128   34.6229   195.509     12.4494
60  4.8036     2.0234    163.059     0.0333773""")


def test_antigen_is_lost_and_bystanders_die_as_printed():
    def relapse(t, y):
        P, N, E = y
        lysed, lost = laws.mass_action(E, P, 0.01), 0.001 * P
        return [laws.logistic(P, 0.1, 2000.0, rivals=N) - lysed - lost,
                laws.logistic(N, 0.08, 2000.0, rivals=P) + lost - laws.bystander(lysed, P, N, 0.1),
                laws.michaelis_menten(E, P, 0.8, 100.0) - 0.3 * E]

    assert_path(relapse, [1000.0, 10.0, 1.0], """
2   1063.7     12.9037   2.36061
5   1051.63    17.5647   8.62323
10  335.856    23.5267   63.873
15  8.25593    26.7111   63.7093
20  2.27741    38.7042   16.4669
30  3.43485    83.8894   0.998391
60  40.6946    641.163   0.00286565""")


def test_exposure_wears_a_rate_out_and_low_antigen_makes_memory():
    s = paths(lambda t, y: [laws.exposure(y[0], 300.0, 100.0, 0.05)], [0.0], [10.0, 500.0])[0]
    np.testing.assert_allclose(s, 15.0 * (1 - np.exp([-0.5, -25.0])), rtol=1e-9)
    same(laws.exhausted(2.0, 0.0, 3.0), 2.0)
    same(laws.exhausted(2.0, 3.0, 2.0), 0.2)
    same(laws.low_antigen(50.0, 0.0, 0.02, 100.0), 1.0)
    same(laws.low_antigen(50.0, 300.0, 0.02, 100.0),
         0.02 * 50.0 - laws.michaelis_menten(50.0, 300.0, 0.02, 100.0))


def test_expansion_switched_on_and_off_gives_the_printed_activated_and_memory_cells():
    def activated(t):
        return jnp.exp(1.0 * laws.phase(t, 0.0, 8.0) - 0.42 * laws.phase(t, 8.0))

    # memory from the switch at day 8 on, in the time since
    later = np.array([2.0, 7.0, 22.0, 52.0, 192.0])
    memory = paths(lambda s, y: [0.02 * activated(s + 8.0) - 0.003 * y[0]], [0.0], later)[0]
    for day, text in {4: "54.5982", 8: "2980.96", 10: "1286.91", 15: "157.591",
                      30: "0.289384"}.items():
        assert_printed(float(activated(float(day))), text)
    texts = ["80.394", "132.442", "133.826", "122.321", "80.3704"]
    for value, text in zip(memory, texts, strict=True):
        assert_printed(value, text)
    assert float(activated(60.0)) < 1e-5


@pytest.mark.parametrize(("converted", "share"), [(0.02, "0.04"), (0.025, "0.05")])
def test_of_the_peak_of_activated_cells_the_printed_share_lives_on_as_memory(converted, share):
    def memory(delta):
        return paths(lambda t, y: [converted * jnp.exp(-0.5 * laws.phase(t, 0.0)) - delta * y[0]],
                     [0.0], [100.0])[0, 0]

    assert_printed(memory(0.0), share)
    same(memory(0.01) * np.exp(1.0), converted / (0.5 - 0.01), 1e-8)  # r / (alpha + r - delta)


# extinction

@pytest.mark.parametrize(("birth", "death", "texts"), [
    (0.1, 0.2, {5: "0.00329940", 20: "0.470728", 50: "0.966706"}),
    (0.2, 0.1, {20: "4.59695e-4", 50: "9.44049e-4", 10_000: "9.765625e-4"})])
def test_ten_cells_die_out_with_the_printed_probability(birth, death, texts):
    for t, text in texts.items():
        assert_printed(float(laws.extinction(float(t), 10.0, birth, death)), text)


def test_extinction_starts_at_0_ends_certain_and_is_smooth_where_birth_equals_death():
    assert float(laws.extinction(0.0, 10.0, 0.1, 0.2)) == 0.0
    same(laws.extinction(1e5, 10.0, 0.1, 0.2), 1.0)
    same(laws.extinction(20.0, 3.0, 0.15, 0.15), (3.0 / 4.0) ** 3)
    slope = jax.grad(laws.extinction, argnums=2)
    for difference in (0.0, 1e-9, 4.9e-7, 5.1e-7, 1e-6):  # the series meets the quotient at 5e-7
        same(slope(20.0, 1.0, 0.15 + difference, 0.15), -0.15 * 200.0 / 16.0, 1e-4)


# gradients

SIZES = (50.0, 400.0)
CALLS = {  # every law once: states, parameters
    "exponential": (400.0, 0.2), "logistic": (400.0, 0.2, 1000.0, 30.0),
    "richards": (400.0, 0.2, 1000.0, 0.7), "gompertz": (400.0, 0.2, 1000.0, 30.0),
    "bertalanffy": (400.0, 0.5, 0.05), "power_law": (400.0, 0.5, 0.75),
    "hill": (400.0, 100.0, 2.5), "mass_action": (*SIZES, 1e-3), "holling_2": (*SIZES, 2.0, 100.0),
    "holling_3": (*SIZES, 2.0, 100.0, 2.5), "saturating_in_effectors": (*SIZES, 2.0, 100.0),
    "hill_in_effectors": (*SIZES, 2.0, 100.0, 2.5), "ratio_dependent": (*SIZES, 2.0, 0.3, 1.4),
    "beddington_deangelis": (*SIZES, 1e-3, 0.01, 0.005), "one_to_one": (*SIZES, 2.0, 100.0),
    "lysis_driven": (50.0, 20.0, 0.6, 400.0), "low_antigen": (*SIZES, 0.02, 100.0),
    "exposure": (1.0, 300.0, 100.0, 0.05), "exhausted": (2.0, 0.7, 3.0),
    "bystander": (20.0, 300.0, 100.0, 0.1), "phase": (5.0, 2.0, 9.0),
    "extinction": (20.0, 10.0, 0.2, 0.1),
}
STATES = {"exponential": 1, "logistic": 1, "richards": 1, "gompertz": 1, "bertalanffy": 1,
          "power_law": 1, "hill": 1, "bystander": 3, "phase": 1,
          "extinction": 1}  # how many of them are states; 2 in the rest


@pytest.mark.parametrize("name", CALLS)
def test_a_gradient_equals_central_differences(name):
    law, at = getattr(laws, name), np.array(CALLS[name])
    gradient = jax.jit(jax.grad(lambda x: law(*x)))(jnp.asarray(at))
    for k, value in enumerate(at):
        h = 1e-5 * value
        sides = [float(law(*[*at[:k], value + sign * h, *at[k + 1:]])) for sign in (1, -1)]
        np.testing.assert_allclose(float(gradient[k]), (sides[0] - sides[1]) / (2 * h),
                                   rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", CALLS)
def test_values_and_derivatives_are_finite_wherever_there_are_no_or_very_many_cells(name):
    law, call = getattr(laws, name), CALLS[name]
    states, parameters = STATES.get(name, 2), call[STATES.get(name, 2):]
    sizes = (0.0, -1e-12, 1e-300, 1e-260, 1e-160, 1.0, 1e13)
    grid = np.array(np.meshgrid(*[sizes] * states)).reshape(states, -1).T
    at = jnp.asarray([[*row, *parameters] for row in grid])
    for what in (lambda x: law(*x)[None], jax.grad(lambda x: law(*x)),
                 jax.jacfwd(lambda x: law(*x)),
                 lambda x: jax.jacfwd(jax.jacfwd(lambda x: law(*x)))(x).ravel(),
                 lambda x: jax.jacrev(jax.jacfwd(lambda x: law(*x)))(x).ravel()):
        wrong = at[~jnp.isfinite(jax.jit(jax.vmap(what))(at)).all(axis=1)]
        assert not len(wrong), wrong


@pytest.mark.parametrize("name", [n for n in CALLS if n not in (
    "hill", "exposure", "exhausted", "phase", "extinction")])
def test_without_cells_nothing_happens(name):
    law, call = getattr(laws, name), CALLS[name]
    states = STATES.get(name, 2)
    assert abs(float(law(*[0.0] * states, *call[states:]))) < 1e-150


@pytest.mark.parametrize("name", CALLS)
def test_a_law_is_float64_and_scalar_and_mixes_no_types(name):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        value = jax.jit(getattr(laws, name))(*(jnp.asarray(x) for x in CALLS[name]))
    assert value.dtype == jnp.float64
    assert value.shape == ()


def test_every_public_law_is_tried_here_and_ends_its_docstring_by_an_example():
    tree = ast.parse(inspect.getsource(laws))
    public = {node.name: ast.get_docstring(node) for node in tree.body
              if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}
    assert public.keys() == CALLS.keys()
    for name, text in public.items():
        assert text.splitlines()[-2].startswith(">>> "), name
