"""Yiu 2012: its network as a matrix: eigenvalues, the exact solution, linearity, undershoot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm
from test_models import GOLDEN, assert_printed, ln_predicted, printed, solved

from carpk import registry
from carpk.structure import named

MODEL = registry.load("models", "yiu_2012")
GOLD = GOLDEN["yiu_2012"]
STATES = [s.name for s in MODEL.states]
OUTPUTS = [o.name for o in MODEL.outputs]


def matrix():
    p = named(MODEL.typical)

    def slopes(x):
        dy = MODEL.rates(0.0, named(dict(zip(STATES, x, strict=True))), p)
        return jnp.stack([dy[s] for s in STATES])

    return np.asarray(jax.jacfwd(slopes)(jnp.zeros(len(STATES))))


def exact(times):
    """The outputs, by the matrix exponential: (output, time)."""
    start = np.array([float(MODEL.initial(named(MODEL.typical))[s]) for s in STATES])
    return np.array([expm(t * matrix()) @ start for t in times]).T[:len(OUTPUTS)]


def test_the_network_is_stable_with_the_printed_eigenvalues():
    values = np.linalg.eigvals(matrix())
    upper = sorted((v for v in values if v.imag > -1e-9), key=lambda v: v.real)
    for value, (real, imaginary) in zip(upper, GOLD["network"]["eigenvalues"], strict=True):
        assert_printed(value.real, real)
        assert abs(value.imag - printed(imaginary)[0]) < max(printed(imaginary)[1], 1e-9)
    assert_printed(-1.0 / values.real.max(), GOLD["network"]["slowest"])


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_cytokine_induces_or_inhibits_the_others_by_the_printed_sum(output):
    among = matrix()[len(OUTPUTS):, OUTPUTS.index(output)]
    assert_printed(among.sum() - among[OUTPUTS.index(output)], GOLD["effect"][output])


def test_without_coupling_every_cytokine_is_a_damped_oscillator():
    times, p = np.array([0.2, 1.0, 3.0]), MODEL.typical
    seen = solved(MODEL, {"values": {"coupling": 0.0}}, 3.0)(times)
    for i in OUTPUTS:
        half = p[f"c_{i}"] / 2
        frequency = np.sqrt(-p[f"a_{i}"] - half**2 + 0j)  # imaginary where it is overdamped
        alone = p[f"v_{i}"] * np.exp(-half * times) * np.sin(frequency * times) / frequency
        np.testing.assert_allclose(seen[i], alone.real, rtol=1e-7)


def test_the_ode_is_its_matrix_exponential():
    times = np.array([0.1, 0.5, 1.0, 2.0, 5.0])
    seen = solved(MODEL, {}, 5.0)(times)
    np.testing.assert_allclose([seen[o] for o in OUTPUTS], exact(times), rtol=1e-8, atol=1e-6)


def test_carpks_solver_agrees_where_the_levels_are_above_zero():
    times = np.array([0.1, 0.25, 0.5, 1.0])
    at, x = ln_predicted(MODEL, {}, times, OUTPUTS, 150)
    np.testing.assert_allclose(jax.jit(at)(x), np.log(exact(times)), atol=1e-6)


@pytest.mark.parametrize("output", OUTPUTS)
def test_levels_fall_below_zero_by_as_much_as_printed(output):
    times = np.linspace(0.0, 5.0, 5001)
    assert_printed(solved(MODEL, {}, 5.0)(times)[output].min(), GOLD["lowest"][output])


def test_twice_the_initial_rates_double_every_level():
    doubled = {"values": {n: 2 * v for n, v in MODEL.typical.items() if n.startswith("v_")}}
    times = np.array([0.3, 1.0, 4.0])
    once, twice = solved(MODEL, {}, 4.0)(times), solved(MODEL, doubled, 4.0)(times)
    for output in OUTPUTS:
        np.testing.assert_allclose(twice[output], 2 * once[output], rtol=1e-8)
