"""Spreads of 0, stated or found by maximum likelihood: every table and figure of such a fit."""

import importlib
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from models_for_tests import DECAY, cohort

from carpk import registry, tables
from carpk.fitting import fit
from carpk.individual_information import contraction
from carpk.paper_tables import for_paper
from carpk.population_model import population
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
