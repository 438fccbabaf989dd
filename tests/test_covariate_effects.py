"""What covariates do, against closed forms at every draw."""

import numpy as np
import pytest
from models_for_tests import DECAY, decaying

from carpk import tables
from carpk.covariate_effects import covariates
from carpk.examples import example
from carpk.fitting import load_fit
from carpk.plots import covariates as forest
from carpk.population_model import population


@pytest.fixture(scope="module")
def request_():
    return population(DECAY, covariates={"C0 ~ WT": "power(70)", "k ~ SEX": "category(F)"},
                      correlated="full")


@pytest.fixture
def fit(near_typical, request_):
    return near_typical(request_, decaying(12))


def test_ratios_are_those_of_the_equation_at_every_draw(fit):
    table = covariates(fit).set_index(["covariate", "value", "quantity"])
    draws = fit.posterior["posterior"].dataset
    beta = draws["beta_C0_WT"].values.ravel()
    weight = fit.design.covariates["WT"]
    for at in np.quantile(weight, [0.05, 0.95]):
        row = table.loc[("WT", float(f"{at:.4g}"), "C0")]
        ratio = (float(f"{at:.4g}") / 70) ** beta
        assert row["median"] == pytest.approx(np.median(ratio))
        assert row["lower95"] == pytest.approx(np.quantile(ratio, 0.025))
        assert row["direction"] == pytest.approx(max((ratio > 1).mean(), (ratio <= 1).mean()))
        # the peak of a decline from C0 is C0
        assert table.loc[("WT", float(f"{at:.4g}"), "Cmax of C"), "median"] == \
            pytest.approx(row["median"], rel=1e-9)
    assert ("SEX", "M", "Cmax of C") not in table.index
    k, b = draws["k_pop"].values.ravel(), draws["beta_k_SEX_M"].values.ravel()
    area = (1 - np.exp(-28 * k * np.exp(b))) / np.exp(b) / (1 - np.exp(-28 * k))
    assert table.loc[("SEX", "M", "AUC0_28 of C"), "median"] == \
        pytest.approx(np.median(area), rel=1e-3)


def test_the_share_explained_is_of_the_variance_between_these_patients(fit):
    row = covariates(fit).query("quantity == 'C0'").iloc[0]
    draws = fit.posterior["posterior"].dataset
    moved = draws["beta_C0_WT"].values.ravel()[:, None] * np.log(
        fit.design.covariates["WT"].to_numpy() / 70)[None]
    share = moved.var(axis=1) / (moved.var(axis=1) + draws["omega_C0"].values.ravel() ** 2)
    assert row["explained"] == pytest.approx(np.median(share))


def test_patients_etas_are_what_covariates_leave(fit):
    draws = fit.posterior["posterior"].dataset
    weight = fit.design.covariates["WT"].to_numpy()
    left = np.log(draws["C0"].values) - np.log(draws["C0_pop"].values)[..., None] \
        - draws["beta_C0_WT"].values[..., None] * np.log(weight / 70)
    np.testing.assert_allclose(draws["eta_C0"].values, left, atol=1e-12)


def test_the_tables_say_what_a_coefficient_is_of(fit):
    table = tables.parameters(fit).set_index("parameter")
    assert table.loc["beta_C0_WT", "kind"] == "covariate"
    assert table.loc["beta_C0_WT", "meaning"] == "power of WT / 70, on C0"
    assert table.loc["beta_k_SEX_M", "meaning"] == "ln k of SEX M against F"
    assert table.loc["corr_C0_k", "kind"] == "correlation"
    assert {"WT", "SEX"} <= set(tables.individuals(fit).columns)
    matrix = tables.correlations_of_estimates(fit).set_index("parameter")
    assert np.diag(matrix) == pytest.approx(1.0)
    assert list(matrix.columns) == list(matrix.index)


def test_a_fit_with_covariates_comes_back_from_disk_the_same(near_typical, tmp_path):
    few = example("tisacel_like").select([str(i) for i in range(1, 13)])
    fit = near_typical(population(
        "stein_2019", correlated=[["alpha", "Cmax"]],
        covariates=["Cmax ~ log(DOSE) + RESPONSE", "beta ~ AGE:WT"]), few)
    again = load_fit(fit.save(tmp_path))
    assert again.model.effects == fit.model.effects
    assert again.model.blocks == fit.model.blocks
    assert covariates(again).equals(covariates(fit))
    assert tables.predictions(again).equals(tables.predictions(fit))


def test_the_forest_plot_has_a_panel_for_each_quantity_that_moves(fit, small_fit):
    (stem, figure), = forest.draw(fit)
    assert stem == "covariates"
    assert {ax.get_title("left") for ax in figure.axes} >= {"C0, ratio", "k, ratio"}
    assert forest.draw(small_fit) == []
