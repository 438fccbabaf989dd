"""Simulated patients and measurements: by seed, and distributed as the model says."""

import dataclasses

import numpy as np
import pytest

from carpk import examples, registry
from carpk.cohort import design
from carpk.nonmem import read_csv
from carpk.population_model import population
from carpk.problems import RequestError
from carpk.simulation import published, simulate

STEIN = population("stein_2019")
SIGMA = {"sigma_C_log": 0.56}


@pytest.fixture(scope="module")
def seen():
    return design(examples.example("tisacel_like"), STEIN.structure)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """2000 patients seen on days 1 and 60."""
    file = tmp_path_factory.mktemp("crowd") / "crowd.csv"
    file.write_text("ID,TIME,DV\n" + "".join(f"{i},1,9\n{i},60,9\n" for i in range(2000)))
    return design(read_csv(file), STEIN.structure)


def test_the_same_seed_gives_the_same_patients_and_another_seed_others(seen):
    first, again, other = (simulate(STEIN, seen, SIGMA, seed=s) for s in (1, 1, 2))
    assert first.parameters.equals(again.parameters)
    assert np.array_equal(first.dv, again.dv, equal_nan=True)
    assert not (first.parameters["Cmax"] == other.parameters["Cmax"]).any()


def test_what_is_not_observed_is_not_simulated(seen):
    assert np.array_equal(np.isfinite(simulate(STEIN, seen, SIGMA, seed=1).dv), seen.observed)


def test_patients_spread_around_the_typical_values_as_omega_says(crowd):
    drawn = simulate(STEIN, crowd, SIGMA, seed=3)
    for p in STEIN.varying:
        logs = np.log(drawn.parameters[p.name] / p.typical)
        assert abs(logs.mean()) < 4 * p.omega.omega / 2000**0.5
        assert abs(logs.std() / p.omega.omega - 1) < 4 / 4000**0.5
    assert (drawn.parameters["Ftoci"] == 1.2).all()


def test_the_residual_is_the_error_models(crowd):
    drawn = simulate(STEIN, crowd, SIGMA, seed=3)
    residual = np.log(drawn.dv / drawn.predicted)
    assert abs(residual.mean()) < 4 * 0.56 / 4000**0.5
    assert abs(residual.std() / 0.56 - 1) < 4 / 8000**0.5


def test_what_is_given_or_fixed_stands_above_what_is_published(seen):
    held = population("stein_2019", fixed={"Tmax": 7.0, "omega_Tmax": 0})
    drawn = simulate(held, seen, {**SIGMA, "Cmax_pop": 100.0, "omega_Cmax": 1e-9}, seed=1)
    assert (drawn.parameters["Tmax"] == 7.0).all()
    np.testing.assert_allclose(drawn.parameters["Cmax"], 100.0, rtol=1e-7)


def test_covariates_move_their_parameters_on_the_link_scale_and_no_other(seen):
    effects = {"beta ~ RESPONSE": "category(CR)", "Ftoci ~ DOSE": "power(3.1)"}
    plain = simulate(STEIN, seen, SIGMA, seed=1).parameters
    moved = simulate(population("stein_2019", covariates=effects), seen,
                     {**SIGMA, "beta_beta_RESPONSE_NR": 1.1, "beta_Ftoci_DOSE": 0.5},
                     seed=1).parameters
    who = seen.covariates
    np.testing.assert_allclose(moved["beta"] / plain["beta"],
                               np.where(who["RESPONSE"] == "NR", np.exp(1.1), 1.0))
    np.testing.assert_allclose(moved["Ftoci"], 1.2 * np.sqrt(who["DOSE"] / 3.1))
    assert moved.drop(columns=["beta", "Ftoci"]).equals(plain.drop(columns=["beta", "Ftoci"]))


def test_correlated_etas_are_drawn_with_their_correlation(crowd):
    model = population("stein_2019", correlated=[["Cmax", "alpha"]])
    drawn = simulate(model, crowd, {**SIGMA, "corr_Cmax_alpha": -0.7}, seed=1).parameters
    r = np.corrcoef(np.log(drawn[["Cmax", "alpha", "Tmax"]]).T)
    assert abs(r[0, 1] + 0.7) < 4 * 0.51 / 2000**0.5
    assert abs(r[0, 2]) < 4 / 2000**0.5


def test_doses_are_given_to_an_ode_model(tmp_path):
    (tmp_path / "run.csv").write_text("ID,TIME,DV,AMT\n1,0,.,100\n1,2,1,.\n1,8,1,.\n")
    model = population("one_compartment_oral", errors={"Cc": "additive"}, spread=[])
    seen = design(read_csv(tmp_path / "run.csv"), model.structure)
    drawn = simulate(dataclasses.replace(model, steps=400), seen, {"sigma_Cc_add": 1e-9}, seed=1)
    ka, k, v, t = 1.0, 3.0 / 30.0, 30.0, np.array([2.0, 8.0])
    expected = 100 / v * ka / (ka - k) * (np.exp(-k * t) - np.exp(-ka * t))
    np.testing.assert_allclose(drawn.dv[0], expected, rtol=1e-6)


def test_every_name_that_is_not_understood_and_every_missing_value_is_said_at_once(seen):
    with pytest.raises(RequestError) as caught:
        simulate(STEIN, seen, {"Cmx_pop": 1.0}, seed=1)
    wrong = [(p.wrong, p.found or p.column) for p in caught.value.problems]
    assert wrong == [("no such population parameter", "Cmx_pop"),
                     ("the model file gives no value", "sigma_C_log")]


@pytest.mark.parametrize("name", registry.names("models"))
def test_what_is_published_are_population_parameters(name):
    model = population(name)
    assert published(model).keys() <= set(model.names)


def test_patients_own_typical_values_stand_in_place_of_the_populations(seen):
    own = {"Cmax": np.linspace(100.0, 1000.0, len(seen.ids)),
           "Ftoci": np.full(len(seen.ids), 2.0)}
    plain = simulate(STEIN, seen, SIGMA, seed=1).parameters
    moved = simulate(STEIN, seen, SIGMA, seed=1, own=own).parameters
    np.testing.assert_allclose(moved["Cmax"], plain["Cmax"] / 24_000 * own["Cmax"])
    assert (moved["Ftoci"] == 2.0).all()
    assert moved.drop(columns=["Cmax", "Ftoci"]).equals(plain.drop(columns=["Cmax", "Ftoci"]))
    with pytest.raises(RequestError, match="no such parameter"):
        simulate(STEIN, seen, SIGMA, seed=1, own={"Cmx": np.ones(len(seen.ids))})
