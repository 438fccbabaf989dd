"""Spreads of 0, stated or found by maximum likelihood: every table and figure of such a fit."""

import importlib
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from models_for_tests import DECAY, cohort

from carpk import registry, tables
from carpk.asymptotics import inside, uncertainty
from carpk.cohort import design
from carpk.fitting import fit
from carpk.individual_information import contraction
from carpk.likelihood import from_theta
from carpk.marginal import objective
from carpk.paper_tables import for_paper
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.problems import RequestError
from carpk.reporting import report


def alike_in_k(patients=10):
    """A cohort of DECAY in which patients differ in C0 and not in k."""
    rng = np.random.default_rng(9)
    start = 100 * np.exp(0.5 * rng.normal(size=patients))
    return cohort([(str(i + 1), t, start[i] * np.exp(-0.2 * t + 0.2 * rng.normal()))
                   for i in range(patients) for t in (0.5, 2, 5, 9, 14.0)])


@pytest.fixture(scope="module")
def at_bound():
    """By focei, which moves omega_k down until nothing is to be gained: the draws of its
    asymptotic normal underflow to 0 and overflow."""
    return fit(population(DECAY), alike_in_k(), "focei", seed=1)


def test_a_spread_at_its_bound_is_said_to_be_there_and_has_no_standard_error(at_bound):
    table = tables.parameters(at_bound).set_index("parameter")
    assert table.loc["omega_k", "median"] < 1e-3
    assert np.isnan(table.loc["omega_k", ["sd", "lower95", "upper95", "rse"]].astype(float)).all()
    assert table.loc["omega_k", "note"] == "at its bound of 0: there is no standard error"
    assert table.drop("omega_k")[["sd", "lower95", "upper95"]].notna().all(axis=None)
    printed = for_paper(at_bound)[0].cells.set_index("Parameter")
    assert printed.loc["omega_k", "95 % interval"] == "at its bound of 0"


@pytest.mark.parametrize("estimator", ["focei", "laplace"])
def test_the_others_are_those_of_a_fit_without_the_spread(at_bound, estimator):
    """The scores of a spread at 0 vanish faster than its curvature: in its unit by the scores it
    was the best known of all, and k_pop had no information beside it."""
    found = at_bound if estimator == "focei" else fit(
        population(DECAY), alike_in_k(), estimator, seed=1, draws=51)
    assert found.convergence.ok
    assert found.convergence.remarks == (
        "omega_k is at its bound of 0: its standard error is not defined, and those of the others "
        "are given that it is 0",)
    without = fit(population(DECAY, fixed={"omega_k": 0}), alike_in_k(), estimator, seed=1,
                  draws=51).manifest["estimates"]
    for name, known in without.items():
        assert found.manifest["estimates"][name] == pytest.approx(known, rel=5e-3)


@pytest.mark.parametrize("estimator", ["focei", "laplace"])
def test_standard_errors_of_a_spread_held_near_0_are_those_of_none(estimator):
    """A mode within a millionth of its SD leaves a slope of 1e-6 / omega, which would enter a score
    in whole where phi stood still: at 1e-5 the SE of k_pop came out a third of what it is."""
    seen, settings = alike_in_k(), {"seed": 1, "draws": 51}
    near, none = (fit(population(DECAY, fixed={"omega_k": v}), seen, estimator, **settings)
                  .manifest["estimates"] for v in (1e-5, 0))
    for name, known in none.items():
        assert near[name] == pytest.approx(known, rel=2e-3)


def test_a_correlation_of_a_spread_at_its_bound_has_no_standard_error_either():
    model, seen = population(DECAY, correlated="full"), alike_in_k()
    model, _ = resolve(model, design(seen, model.structure), {})
    u = np.asarray(from_theta(model, {"C0_pop": 100.0, "k_pop": 0.2, "omega_C0": 0.4,
                                      "omega_k": 1e-5, "corr_C0_k": 0.3, "sigma_C_log": 0.2}))
    there = inside(model, u)
    assert [n for n, x in zip(model.free, there, strict=True) if not x] == ["omega_k", "corr_C0_k"]
    scores = np.random.default_rng(1).normal(size=(10, len(u))) * np.where(there, 1.0, 1e-9)
    known = uncertainty(model, u, 0.5 * scores.T @ scores * np.outer(1.0 * there, 1.0 * there)
                        + 1e-6 * np.diag(~there), scores)
    assert not known.flat
    assert known.condition < 1000
    assert not known.covariance[~there].any()


@pytest.mark.parametrize("name", ["omega_k", "gamma_k"])
def test_a_spread_held_so_near_0_that_it_drowns_in_rounding_is_refused(name):
    with pytest.raises(RequestError, match=f"(?s){name}.*hold it at 0") as refused:
        population(DECAY, fixed={name: 1e-12}, occasions=["k"])
    assert "1e-12" in str(refused.value)
    assert population(DECAY, fixed={"omega_k": 1e-6}).fixed["omega_k"] == 1e-6


@pytest.mark.parametrize("value", [0.0, 1e-12])
def test_an_objective_refuses_it_too(value):
    theta = {"C0_pop": 100, "k_pop": 0.2, "omega_C0": 0.4, "sigma_C_log": 0.2, "omega_k": value}
    with pytest.raises(RequestError, match=r"omega_k.*hold it at 0"):
        objective(population(DECAY), alike_in_k(), theta)


def test_the_objective_of_a_small_spread_is_that_of_none():
    theta = {"C0_pop": 100, "k_pop": 0.2, "omega_C0": 0.4, "sigma_C_log": 0.2}
    for method in ("focei", "laplace", "importance_sampling"):
        one, other = (objective(population(DECAY, fixed={"omega_k": v}), alike_in_k(), theta,
                                method) for v in (0, 1e-6))
        assert other.total == pytest.approx(one.total, abs=1e-3 + 4 * other.se)


def test_the_other_parameters_keep_their_correlations_and_patients_their_information(at_bound):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        matrix = tables.correlations_of_estimates(at_bound).set_index("parameter")
        known = contraction(at_bound).groupby("parameter")["contraction"].mean()
    others = [n for n in at_bound.model.free if n != "omega_k"]
    assert matrix["omega_k"].isna().all()
    assert np.isfinite(matrix.loc[others, others]).all(axis=None)
    assert np.diagonal(matrix.loc[others, others]) == pytest.approx(1.0)
    # five levels of SD 0.2 against a spread of 0.4 tell most of C0; of k there is nothing to tell
    assert known["C0"] > 0.9
    assert known["k"] == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("name", registry.names("plots"))
def test_every_figure_is_drawn(at_bound, name):
    for _, figure in importlib.import_module(f"carpk.plots.{name}").draw(at_bound):
        assert "nan" not in " ".join(t.get_text() for t in figure.findobj(plt.Text)).lower()


def test_maximum_likelihood_has_no_prior_to_be_drawn(at_bound):
    assert importlib.import_module("carpk.plots.priors").draw(at_bound) == []


@pytest.mark.parametrize("more", [{}, {"C0": 100, "k": 0.2, "sigma_C_log": 0.2}])
def test_a_model_in_which_nothing_varies_is_reported(near_typical, short_reports, tmp_path, more):
    nothing = {"omega_C0": 0, "omega_k": 0}
    page = report(near_typical(population(DECAY, fixed={**nothing, **more}), alike_in_k()),
                  tmp_path)
    assert page.is_file()
    predictions = (tmp_path / "tables" / "predictions.csv").read_text()
    assert len(predictions.splitlines()) == 51
    assert "nan" not in predictions.lower()
