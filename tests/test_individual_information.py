"""Contraction against closed forms: what draws are known to have, and a linear normal model."""

import dataclasses

import numpy as np
import pytest
from conftest import IDS

from carpk.individual_information import COLUMNS, conditional_variance, contraction, least_informed
from carpk.plots import information


def test_of_a_linear_normal_model_it_is_the_closed_form():
    """y = X phi + e, phi ~ N(mu, Omega): of phi given mu and y the covariance is
    (X'X / sigma^2 + Omega^-1)^-1 whatever mu, and its mean moves with mu."""
    random = np.random.default_rng(1)
    omega, sigma, draws = np.array([[0.5, 0.2], [0.2, 0.4]]), 0.3, 8000
    mu = np.array([1.0, -1.0]) + random.multivariate_normal([0, 0], 0.3 * omega, draws)
    times = (np.array([0.0, 1, 2, 5, 9]), np.array([0.0, 0.0]), np.array([6.0]))
    eta, left = [], []
    for t in times:
        x = np.stack([np.ones_like(t), t], axis=1)
        covariance = np.linalg.inv(x.T @ x / sigma**2 + np.linalg.inv(omega))
        y = x @ random.multivariate_normal([1, -1], omega) + sigma * random.normal(size=len(t))
        centre = (x.T @ y / sigma**2 + mu @ np.linalg.inv(omega)) @ covariance
        eta.append(centre - mu + random.multivariate_normal([0, 0], covariance, draws))
        left.append(np.diag(covariance))
    found = conditional_variance(np.stack(eta, axis=1), mu)
    assert found == pytest.approx(np.array(left), rel=5 * np.sqrt(2 / draws))
    # without the population's uncertainty taken out, it would count as the patient's
    assert np.stack(eta, axis=1).var(axis=0)[0, 0] > 2 * left[0][0]


def test_a_fit_has_one_row_for_each_patient_and_parameter(small_fit):
    table = contraction(small_fit)
    assert list(table.columns) == list(COLUMNS)
    assert table["ID"].drop_duplicates().tolist() == list(IDS)
    assert (table.groupby("ID")["parameter"].agg(tuple) == small_fit.model.spread).all()
    assert (table["contraction"] < 1).all()
    by = table.groupby("parameter")["contraction"].mean()
    assert by["Tmax"] > by["beta"]


def test_draws_that_say_nothing_have_none_and_exact_ones_all(small_fit):
    tree = small_fit.posterior.copy(deep=True)
    draws = tree["posterior"].dataset
    random = np.random.default_rng(2)
    shape = draws["eta_beta"].shape
    new = {"eta_beta": draws["eta_beta"].copy(data=random.normal(size=shape)
                                              * draws["omega_beta"].values[..., None]),
           "eta_Tmax": draws["eta_Tmax"] * 0.0 + 0.3 * draws["omega_Tmax"]}
    tree["posterior"] = tree["posterior"].assign(new)
    by = contraction(dataclasses.replace(small_fit, posterior=tree)).groupby("parameter")[
        "contraction"].mean()
    assert by["Tmax"] == pytest.approx(1.0)
    assert abs(by["beta"]) < 5 * np.sqrt(2 / 45 / len(IDS))
    heavy = dataclasses.replace(small_fit, posterior=tree, model=dataclasses.replace(
        small_fit.model, etas="student_t"))
    assert 1 - contraction(heavy).query("parameter == 'beta'")["contraction"].mean() == \
        pytest.approx((1 - by["beta"]) / 2)


def test_too_few_draws_give_no_number_and_no_figure(small_fit):
    few = dataclasses.replace(small_fit, posterior=small_fit.posterior.isel(draw=slice(0, 10)))
    assert contraction(few).empty
    assert information.draw(few) == []
    assert least_informed(contraction(few)) == ""


def test_every_patient_is_on_a_page_of_the_map(small_fit):
    (stem, figure), = information.draw(small_fit)
    assert stem == "information"
    labels = [t.get_text() for ax in figure.axes for t in ax.get_yticklabels()]
    assert sorted(labels) == sorted(["mean", *(information.plain(i) for i in IDS)])
