"""What covariates do, against closed forms at every draw."""

from dataclasses import replace

import numpy as np
import pytest
from models_for_tests import DECAY, decaying

from carpk import tables
from carpk.covariate_effects import covariates, with_band
from carpk.examples import example
from carpk.fitting import load_fit
from carpk.plots import covariates as forest
from carpk.population_model import population
from carpk.problems import RequestError


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
    assert row["explained"] == pytest.approx(share.mean())
    assert row[["explained_lower95", "explained_upper95"]].tolist() == pytest.approx(
        np.quantile(share, [0.025, 0.975]))


def test_shares_of_related_covariates_add_up_to_what_they_explain_together(near_typical):
    """AGE is nearly WT, with the opposite effect: of each alone the variance is above the whole."""
    who = decaying(12)
    weight = who.covariates["WT"].to_numpy()
    age = weight + np.tile([0.5, -0.5], 6)
    who = replace(who, covariates=who.covariates.assign(AGE=age))
    result = near_typical(population(
        DECAY, covariates={"C0 ~ WT": "power(70)", "C0 ~ AGE": "power(70)"},
        priors={"beta_C0_WT": "normal(3, 0.01)", "beta_C0_AGE": "normal(-2.9, 0.01)"}), who)
    table = covariates(result).query("quantity == 'C0'").groupby("covariate")["explained"].first()
    draws = result.posterior["posterior"].dataset
    moved = sum(draws[f"beta_C0_{n}"].values.ravel()[:, None] * np.log(x / 70)
                for n, x in (("WT", weight), ("AGE", age)))
    share = moved.var(axis=1) / (moved.var(axis=1) + draws["omega_C0"].values.ravel() ** 2)
    assert table.sum() == pytest.approx(share.mean())
    assert table.max() < 1.5


def test_a_row_is_against_the_reference_it_names(near_typical):
    """Of a parameter its own effect's, of an exposure that of the column's first."""
    result = near_typical(population(
        DECAY, covariates={"C0 ~ WT": "power(70)", "k ~ WT": "power(50)"}), decaying(12))
    table = covariates(result).set_index(["value", "quantity"])
    draws = {n: result.posterior["posterior"].dataset[n].values.ravel()
             for n in ("k_pop", "beta_C0_WT", "beta_k_WT")}
    at = table.index[0][0]
    one = table.loc[(at, "k")]
    assert one["reference"] == 50
    assert one["median"] == pytest.approx(np.median((at / 50) ** draws["beta_k_WT"]))
    area = table.loc[(at, "AUC0_28 of C")]
    assert area["reference"] == 70

    def exposure(weight):
        k = draws["k_pop"] * (weight / 50) ** draws["beta_k_WT"]
        return (weight / 70) ** draws["beta_C0_WT"] * (1 - np.exp(-28 * k)) / k
    assert area["median"] == pytest.approx(np.median(exposure(at) / exposure(70)), rel=1e-3)


def test_levels_are_against_each_effect_s_reference(near_typical):
    result = near_typical(population(
        DECAY, covariates={"C0 ~ SEX": "category(M)", "k ~ SEX": "category(F)"}), decaying(12))
    table = covariates(result)
    assert set(map(tuple, table.query("kind == 'parameter'")[["quantity", "value", "reference"]]
                   .to_numpy())) == {("C0", "F", "M"), ("k", "M", "F")}
    assert set(table.query("kind == 'exposure'")["reference"]) == {"M"}


def test_a_number_that_is_also_a_category_is_seen_at_its_levels(near_typical):
    """Each row against its own effect's reference, in closed form; a term of a formula by itself.
    """
    who = decaying(12)
    site = np.tile([1.0, 2.0, 3.0], 4)
    who = replace(who, covariates=who.covariates.assign(SITE=site))
    result = near_typical(population(DECAY, covariates={
        "C0 ~ SITE": "category(2)", "k ~ SITE": "exponential(3)", "k ~ I(SITE**2)": "formula"}),
        who)
    table = covariates(result)
    draws = result.posterior["posterior"].dataset
    beta = {n: draws[n].values.ravel() for n in result.model.free if n.startswith("beta")}
    square = beta["beta_k_I(SITE ** 2)"]
    rows = {(r.covariate, r.quantity, r.value): (r.reference, r.median)
            for r in table[table["kind"] == "parameter"].itertuples()}
    assert rows == {k: (ref, pytest.approx(np.median(np.exp(v)))) for k, (ref, v) in {
        ("SITE", "C0", "1"): ("2", beta["beta_C0_SITE_1"]),
        ("SITE", "C0", "3"): ("2", beta["beta_C0_SITE_3"]),
        ("SITE", "k", "1"): (3.0, -2 * beta["beta_k_SITE"]),
        ("SITE", "k", "2"): (3.0, -beta["beta_k_SITE"]),
        ("I(SITE ** 2)", "k", 1.0): (4.0, -3 * square),
        ("I(SITE ** 2)", "k", 9.0): (4.0, 5 * square)}.items()}
    peak = table[(table["quantity"] == "Cmax of C")].set_index("value")
    assert peak.loc["1", "reference"] == "2"
    assert peak.loc["1", "median"] == pytest.approx(np.median(np.exp(beta["beta_C0_SITE_1"])))


def test_the_table_says_where_an_interval_lies_by_the_band(fit):
    table = covariates(with_band(fit, "0.9,1.1"))
    for r in table[table["scale"] == "ratio"].itertuples():
        said = {"within": r.lower95 > 0.9 and r.upper95 < 1.1,
                "outside": r.upper95 < 0.9 or r.lower95 > 1.1,
                "across": any(r.lower95 <= b <= r.upper95 for b in (0.9, 1.1))}
        assert [k for k, v in said.items() if v] == [r.band]
    assert set(covariates(with_band(fit, "0.0001,10000"))["band"]) <= {"within", ""}


def test_a_fit_records_its_band_and_refuses_what_is_none(near_typical):
    asked = population(DECAY, covariates={"C0 ~ WT": "power(70)"})
    kept = near_typical(asked, decaying(6), band=(0.7, 1.43))
    assert kept.manifest["request"]["band"] == [0.7, 1.43]
    with pytest.raises(RequestError, match="0 < low < 1 < high"):
        near_typical(asked, decaying(6), band=(1.1, 1.43))


def test_another_band_of_no_relevant_change(fit):
    narrow, wide = (covariates(with_band(fit, b)) for b in ("0.99,1.01", [1e-6, 1e6]))
    ratios = narrow["scale"] == "ratio"
    assert (wide.loc[ratios, "within"] == 1).all()
    assert (narrow.loc[ratios, "within"] < covariates(fit).loc[ratios, "within"] + 1e-12).all()
    (_, figure), = forest.draw(with_band(fit, "0.5,2"))
    assert any(p.get_x() == 0.5 and p.get_width() == 1.5 for ax in figure.axes for p in ax.patches)
    for wrong in ("", "0.8", "1.1,1.2", "a,b", "0,2", "nan,2"):
        with pytest.raises(RequestError, match="0 < low < 1 < high"):
            with_band(fit, wrong)


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
