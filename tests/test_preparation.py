"""What a cohort decides about a model: priors, what is held, units, the mesh."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from models_for_tests import FOLLOWING, cohort
from reference_models import LINE
from swinging import MODEL as SWINGING

from carpk import registry
from carpk.cohort import design
from carpk.fitting import fit, load_fit
from carpk.likelihood import data_of, predicted_rows
from carpk.population_model import population
from carpk.preparation import choose_steps, resolve, solve_error
from carpk.problems import DataError

ROWS = [(str(i), t, y) for i in (1, 2, 3) for t, y in ((2.0, 20.0), (9.0, 900.0), (30.0, 30.0))]


def ready(model, who, units=None):
    who = replace(who, units=units or {})
    return resolve(model, design(who, model.structure), who.units)[0]


def test_every_free_parameter_has_a_prior_and_every_parameter_a_reason():
    model = ready(population("stein_2019"), cohort(ROWS))
    assert set(model.priors) == set(model.free)
    assert set(model.reasons) == set(model.names)


def test_a_drug_nobody_was_given_is_held_and_says_so():
    model = ready(population("stein_2019"), cohort(ROWS))
    assert model.fixed["Ftoci_pop"] == 1.2
    assert "TTOCI" in model.reasons["Ftoci_pop"]
    given = ready(population("stein_2019"), cohort(ROWS, TTOCI=[5.0, np.nan, np.nan]))
    assert "Ftoci_pop" in given.free


def test_a_cohort_in_another_unit_moves_the_prior_of_the_parameter_in_that_unit():
    same = ready(population("stein_2019"), cohort(ROWS))
    other = ready(population("stein_2019"), cohort(ROWS), {1: "cells/uL"})
    assert same.priors["Cmax_pop"].median == 24_000
    # the typical curve passes 0.952 of its peak at day 9, where these patients' 900 was seen
    curve = np.exp(-np.log(3900) / 9.3 * 0.3)
    assert other.priors["Cmax_pop"].median == pytest.approx(900 / curve, rel=1e-6)
    assert "cells/uL" in other.reasons["Cmax_pop"]
    assert other.priors["foldx_pop"] == same.priors["foldx_pop"]


def test_another_unit_is_refused_where_the_equations_hold_it():
    with pytest.raises(DataError, match="cannot be re-scaled"):
        ready(population("liu_l_2022"), cohort(ROWS, NB0=[500.0, 90.0, 10.0]), {1: "copies/ug"})


def test_a_prior_that_was_asked_for_is_kept():
    model = ready(population("stein_2019", priors={"beta": "lognormal(0.01, 0.2)"}), cohort(ROWS))
    assert str(model.priors["beta_pop"]) == "lognormal(0.01, 0.2)"
    assert model.reasons["beta_pop"] == "asked for"


def test_the_prior_of_a_spread_is_in_the_unit_of_its_parameter():
    """LINE's intercept is 20, its slope 1; on other links a deviation has no unit."""
    line = ready(population(LINE), cohort(ROWS))
    assert str(line.priors["omega_a"]) == "halfnormal(20)"
    assert str(line.priors["omega_b"]) == "halfnormal(1)"
    assert str(ready(population("stein_2019"), cohort(ROWS)).priors["omega_Tmax"]) == \
        "halfnormal(1)"


def test_the_prior_of_an_additive_error_scales_with_the_data():
    model = ready(population("stein_2019", errors={"C": "additive"}), cohort(ROWS))
    assert model.priors["sigma_C_add"].numbers[0] == pytest.approx(np.std([20, 900, 30]))


@pytest.mark.slow  # passed, 26 s
def test_the_mesh_doubles_until_the_predictions_stand_still():
    structure = registry.find_model("liu_l_2022")
    who = cohort(ROWS, NB0=[500.0, 90.0, 1500.0])
    seen = design(who, structure)
    loose = choose_steps(ready(population(structure), who), seen, tolerance=0.1)
    tight = choose_steps(ready(population(structure), who), seen, tolerance=1e-12)
    assert 15 <= loose.steps < tight.steps


def test_stiff_equations_are_solved_by_the_implicit_method_and_others_by_the_explicit_one():
    who = cohort(ROWS)
    stiff = choose_steps(ready(population(FOLLOWING), who), design(who, FOLLOWING))
    assert (stiff.structure.solver, stiff.steps) == ("rodas4", 120)
    smooth = registry.find_model("liu_l_2022")
    treated = cohort(ROWS, NB0=[500.0, 90.0, 1500.0])
    assert choose_steps(ready(population(smooth), treated),
                        design(treated, smooth)).structure.solver == "tsit5"


def test_a_method_or_steps_that_were_asked_for_are_kept():
    who = cohort(ROWS)
    asked = ready(population(FOLLOWING, solver="rodas4", steps=33), who)
    chosen = choose_steps(asked, design(who, FOLLOWING))
    assert (chosen.structure.solver, chosen.steps) == ("rodas4", 33)
    few = choose_steps(ready(population(FOLLOWING, steps=33), who), design(who, FOLLOWING))
    assert (few.structure.solver, few.steps) == ("rodas4", 33)  # 33 explicit steps overflow


@pytest.fixture(scope="module")
def swinging():
    """A model and a design in which the fifth of twelve patients needs many steps."""
    rows = [(str(i), t, 100 * np.exp(-0.05 * t)) for i in range(12) for t in (1.0, 4.0, 11.0, 30.0)]
    who = cohort(rows, SPEED=[20.0 if i == 4 else 0.3 for i in range(12)])
    seen = design(who, SWINGING)
    return choose_steps(ready(population(SWINGING), who), seen), seen


def test_a_few_patients_who_need_many_steps_have_a_mesh_of_their_own(swinging):
    model, _ = swinging
    steps, who = model.finer
    assert who == ("4",)
    assert model.steps <= 60
    assert steps >= 4 * model.steps


def test_it_is_as_good_as_if_all_had_it_and_costs_the_others_nothing(swinging):
    model, seen = swinging
    random = np.random.default_rng(1)
    phi = np.log([100.0, 0.05]) + 0.3 * random.normal(size=(12, 2))
    theta = {n: model.priors[n].median for n in model.free}
    fine = replace(model, steps=model.finer[0], finer=(0, ()))
    coarse = replace(model, finer=(0, ()))
    found = {}
    for name, m in (("mixed", model), ("fine", fine), ("coarse", coarse)):
        def solved(phi, m=m):
            return predicted_rows(m, data_of(m, seen), theta, phi)
        level, slopes = solved(phi), jax.jacrev(lambda phi, f=solved: f(phi).sum(axis=1))(phi)
        found[name] = np.asarray(level), np.asarray(slopes)[np.arange(12), np.arange(12)]
    exact = np.exp(phi[:, :1] + np.sin(seen.inputs["SPEED"][:, None] * seen.time)
                   - np.exp(phi[:, 1:]) * seen.time)
    assert found["mixed"][0] == pytest.approx(exact, rel=5e-3)
    others = np.arange(12) != 4
    for k in (0, 1):
        np.testing.assert_array_equal(found["mixed"][k][others], found["coarse"][k][others])
        np.testing.assert_allclose(found["mixed"][k][4], found["fine"][k][4], rtol=1e-9)
    assert not np.allclose(found["coarse"][0][4], exact[4], rtol=5e-2)


def test_a_fit_keeps_who_has_it_and_looks_at_both_meshes_where_it_has_gone(swinging, tmp_path):
    rows = [(str(i), t, 100 * np.exp(-0.05 * t + np.sin((20.0 if i == 4 else 0.3) * t) + 0.1 * e))
            for i in range(12) for t, e in ((1.0, 1), (4.0, -1), (11.0, 1), (30.0, -1))]
    who = cohort(rows, SPEED=[20.0 if i == 4 else 0.3 for i in range(12)])
    found = fit(population(SWINGING), who, "focei", seed=1, draws=11)
    again = load_fit(found.save(tmp_path))
    assert again.model.finer == found.model.finer == swinging[0].finer
    assert found.convergence.measures["solve_error"] < 0.02
    assert not any("mesh" in r for r in found.convergence.remarks)


@pytest.mark.parametrize("speed", [1e5, 1e200])  # swings no mesh follows; numbers overflow
def test_one_patient_without_a_solution_does_not_choose_the_mesh_of_a_cohort(speed):
    rows = [(str(i), t, 100 * np.exp(-0.05 * t)) for i in range(6) for t in (1.0, 4.0, 11.0, 30.0)]
    chosen = []
    for odd in (0.3, speed):
        who = cohort(rows, SPEED=[odd if i == 4 else 0.3 for i in range(6)])
        model = ready(population(SWINGING, solver="tsit5"), who)
        chosen.append(choose_steps(model, design(who, SWINGING)))
    assert chosen[0].steps == chosen[1].steps <= 60
    assert chosen[1].finer == (0, ())


@pytest.mark.parametrize("speed", [1e5, 1e200])
def test_a_fit_names_the_patient_whom_no_mesh_solves_and_no_other(near_typical, speed):
    rows = [(str(i), t, 100 * np.exp(-0.05 * t)) for i in range(6) for t in (1.0, 4.0, 11.0, 30.0)]
    who = cohort(rows, SPEED=[speed if i == 4 else 0.3 for i in range(6)])
    found = near_typical(population(SWINGING, solver="tsit5"), who)
    (reason,) = found.convergence.reasons
    assert reason == ("no mesh solves patients 4 at the estimate: look at their doses, times and "
                      "units, take the solver rodas4, or leave them out")
    assert not found.convergence.ok


def test_what_a_mesh_leaves_out_is_said_on_the_log_scale_and_in_residual_sds():
    rows = [("1", t, 100 * np.exp(-0.05 * t)) for t in (1.0, 4.0, 11.0, 30.0)]
    who = cohort([*rows, *(("2", *r[1:]) for r in rows)], SPEED=[0.3, 3.0])
    seen, phi = design(who, SWINGING), np.log([[100.0, 0.05]] * 2)
    for written, sd in (("lognormal", 0.2), ("proportional", 0.2), ("additive", 7.0)):
        model = ready(population(SWINGING, solver="tsit5", steps=20, errors={"C": written}), who)
        model = choose_steps(model, seen)
        theta = {n: sd if n.startswith("sigma") else p.median for n, p in model.priors.items()}
        found = solve_error(model, seen, theta, phi)
        twice = replace(model, steps=40)
        level, finer = (np.asarray(predicted_rows(m, data_of(m, seen), theta, phi))
                        for m in (model, twice))
        moved = {"lognormal": np.abs(np.log(finer / level)), "additive": np.abs(finer - level),
                 "proportional": np.abs(finer - level) / finer}[written] / sd
        # a tenth of the smallest level is added, against noise of what is far below it
        assert found.logs == pytest.approx(np.abs(np.log(finer / level)).max(axis=1), rel=0.1)
        assert found.sds == pytest.approx(moved.max(axis=1), rel=0.1)
        assert found.sds[0] < 0.1 < found.sds[1]
