"""What a cohort decides about a model: priors, what is held, units, the mesh."""

import numpy as np
import pytest
from models_for_tests import FOLLOWING, cohort

from carpk import registry
from carpk.cohort import design
from carpk.population_model import population
from carpk.preparation import choose_steps, resolve
from carpk.problems import DataError

ROWS = [(str(i), t, y) for i in (1, 2, 3) for t, y in ((2.0, 20.0), (9.0, 900.0), (30.0, 30.0))]


def ready(model, who, units=None):
    from dataclasses import replace
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
    assert 120 <= loose.steps < tight.steps


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
