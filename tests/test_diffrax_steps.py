"""diffrax in the place of the solver: the same levels, derivatives, events and failures."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models_for_tests import FOLLOWING
from test_solve import ORAL, cohort

from carpk.cohort import design
from carpk.population_model import population
from carpk.preparation import choose_steps, resolve
from carpk.problems import RequestError
from carpk.simulation import simulate
from carpk.solve import arrays, predict

DOSED = cohort([0.5, 2, 11, 13, 30.0], [(1, 0, 100, 0), (2, 12, 50, 3)], patients=3)


def solved(structure, seen, solver, steps, spread=0.2):
    """Levels (P, N) and their Jacobians (P, N, K) of patients who differ."""
    structure = dataclasses.replace(structure, solver=solver)
    data, names = arrays(seen, structure, steps), [*structure.typical]
    typical = np.array([structure.typical[n] for n in names])
    x = typical * np.exp(spread * np.random.default_rng(1).normal(
        size=(len(seen.ids), len(names))))

    def levels(x):
        return predict(structure, data, dict(zip(names, x.T, strict=True)))

    return map(np.asarray, jax.jit(lambda x: jax.vmap(
        lambda d: jax.jvp(levels, (x,), (jnp.broadcast_to(d, x.shape),)),
        out_axes=(None, -1))(jnp.diag(typical)))(x))


@pytest.mark.parametrize(("model", "who", "ours", "theirs"), [
    (ORAL, DOSED, ("tsit5", 400), "diffrax_tsit5"),
    (FOLLOWING, cohort([0.001, 1, 5, 30.0, 180], patients=3), ("rodas4", 800),
     "diffrax_kvaerno5")])
def test_levels_and_their_jacobians_are_ours(model, who, ours, theirs):
    seen = design(who, model)
    (level, slope), (other, others) = solved(model, seen, *ours), solved(model, seen, theirs, 1)
    np.testing.assert_allclose(other, level, rtol=1e-6)
    np.testing.assert_allclose(others, slope, rtol=1e-5, atol=1e-6 * np.abs(slope).max())


def test_a_patient_who_takes_too_many_steps_fails_alone():
    seen = design(cohort([1.0, 30.0], patients=2), FOLLOWING)
    structure = dataclasses.replace(FOLLOWING, solver="diffrax_tsit5")
    values = {n: jnp.full(2, v) for n, v in structure.typical.items()} | {
        "fast": jnp.array([2.0, 1e7])}
    level = np.asarray(predict(structure, arrays(seen, structure, 1), values))
    assert np.isfinite(level[0]).all()
    assert np.isnan(level[1]).all()


def test_it_is_chosen_by_its_name_for_a_fit_and_for_a_simulation():
    seen = design(DOSED, ORAL)
    asked = population(ORAL, solver="diffrax_tsit5")
    model, _ = resolve(asked, seen, {})
    chosen = choose_steps(model, seen)
    assert (chosen.structure.solver, chosen.steps) == ("diffrax_tsit5", 1)
    drawn = simulate(asked, seen, dict.fromkeys(asked.names, 0.1), seed=1)
    assert {m[0] for m in drawn.mesh} == {"diffrax_tsit5"}
    assert drawn.moved < 1e-6


def test_it_is_imported_by_nobody_who_does_not_ask_for_it(monkeypatch):
    code = "import sys, carpk.fitting, carpk.simulation; print('diffrax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True,
                          text=True).stdout == "False\n"
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(RequestError, match=r"carpk\[diffrax\]"):
        next(iter(solved(ORAL, design(DOSED, ORAL), "diffrax_tsit5", 1)))
