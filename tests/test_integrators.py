"""One step: the order of either method, stiff decay, Robertson's problem, exact elimination."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from carpk.integrators import STEP, _apart, _reads, linear_solver


def driven(t, u):
    """A van der Pol oscillator pushed in time, so that a wrong d f / d t shows."""
    return u[1] + 0.3 * jnp.sin(t), 2.0 * (1.0 - u[0] ** 2) * u[1] - u[0]


def walked(step, slopes, first, nodes):
    nodes = jnp.asarray(nodes)

    def one(i, u):
        return step(slopes, nodes[i], nodes[i + 1] - nodes[i], u)
    start = tuple(jnp.asarray(x, float) for x in first)
    return np.array(jax.jit(lambda u: jax.lax.fori_loop(0, len(nodes) - 1, one, u))(start))


@pytest.mark.parametrize(("method", "order"), [("tsit5", 5), ("rodas4", 4)])
def test_the_error_falls_with_the_order_of_the_method(method, order):
    reference = solve_ivp(lambda t, u: np.array(driven(t, u)), (0, 5), [2.0, 0.0],
                          method="DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
    errors = [np.abs(walked(STEP[method], driven, (2, 0), np.linspace(0, 5, n + 1))
                     - reference).max() for n in (200, 400, 800)]
    # Tsit5 does better than its order on this problem; neither may do worse
    assert np.log2(errors[0] / errors[1]) > order - 0.5
    assert np.log2(errors[1] / errors[2]) > order - 0.5


def test_the_implicit_method_passes_robertson_with_steps_the_explicit_one_cannot_take():
    def robertson(t, u):
        a, b, c = u
        dc = 3e7 * b**2
        da = -0.04 * a + 1e4 * b * c
        return da, -da - dc, dc

    nodes = np.concatenate([[0.0], np.geomspace(1e-6, 40.0, 200)])
    seen = walked(STEP["rodas4"], robertson, (1, 0, 0), nodes)
    reference = solve_ivp(lambda t, u: np.array(robertson(t, u)), (0, 40), [1.0, 0.0, 0.0],
                          method="Radau", rtol=1e-11, atol=1e-16).y[:, -1]
    np.testing.assert_allclose(seen, reference, rtol=1e-6)
    assert not np.isfinite(walked(STEP["tsit5"], robertson, (1, 0, 0), nodes)).all()


def test_a_step_of_no_length_changes_nothing():
    for step in STEP.values():
        assert np.array_equal(np.array(step(driven, 1.0, 0.0, (2.0, 0.5))), [2.0, 0.5])


@pytest.mark.parametrize("filled", [0.15, 0.4, 1.0])
def test_elimination_without_pivots_solves_a_dominated_system(filled):
    rng = np.random.default_rng(1)
    there = (rng.random((9, 9)) < filled) | np.eye(9, dtype=bool)
    a = there * (rng.normal(size=(9, 9)) + 12 * np.eye(9))
    b = rng.normal(size=9)
    rows = [{j: a[i, j] for j in range(9) if there[i, j]} for i in range(9)]
    np.testing.assert_allclose(linear_solver(rows)(list(b)), np.linalg.solve(a, b), rtol=1e-12)


def test_the_pattern_of_the_jacobian_is_read_from_the_equations():
    def rates(t, u):
        a, b, _, d = u
        return jnp.where(a > 0, a * b, 0.0), jnp.sin(t) * d, 0.0 * t + 1.0, jnp.asarray(2.0)

    four = (jnp.ones(()),) * 4
    reads = _reads(rates, jnp.zeros(()), four)
    assert reads == [{0, 1}, {-1, 3}, {-1}, set()]
    groups = _apart([row - {-1} for row in reads])
    assert sorted(map(sorted, groups)) == [[0, 2, 3], [1]]


def test_an_implicit_step_of_a_loosely_coupled_system_is_that_of_a_dense_one():
    def chain(t, u):
        return tuple(-(10.0 ** k) * u[k] + (u[k - 1] ** 2 if k else jnp.cos(t))
                     for k in range(5))

    def dense(t, u):  # the same, but every rate reads every state as far as the pattern knows
        return tuple(x + 0.0 * sum(u) for x in chain(t, u))

    u = (1.0, 0.5, 2.0, 0.1, 0.3)
    np.testing.assert_allclose(STEP["rodas4"](chain, 0.3, 0.2, u),
                               STEP["rodas4"](dense, 0.3, 0.2, u), rtol=1e-12)
