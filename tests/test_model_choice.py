"""Likelihood-ratio tests and information criteria against scipy, simulation and each other."""

import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest
import references
from models_for_tests import DECAY, decaying
from scipy import stats
from typer.testing import CliRunner

from carpk import cli_compare, tables
from carpk.cli import app
from carpk.fitting import Fit, fit
from carpk.information_criteria import criteria
from carpk.model_choice import added, choose, mixture_p
from carpk.paper_tables import for_paper
from carpk.population_model import population
from carpk.problems import RequestError

COHORT = decaying(8, limit=0.0)
ROWS = len(COHORT.observations)


def maximum(near_typical, ofv, method="laplace", **asked):
    """A fit that says of itself that its maximum has this OFV, at the priors' medians."""
    found = near_typical(population(DECAY, **asked), COHORT)
    model = found.model
    measures = criteria(model, ofv, ROWS * math.log(2 * math.pi), 8, ROWS)
    at = {n: {"estimate": model.priors[n].median, "se": 0.1, "lower95": 0.0, "upper95": 9.0}
          for n in model.free}
    return dataclasses.replace(
        found, convergence=dataclasses.replace(found.convergence, measures=measures),
        manifest={**found.manifest, "estimates": at, "request": {
            **found.manifest["request"], "estimator": method, "settings": {}}})


@pytest.fixture
def small(near_typical):
    """Only the start varies; the rate is one for all."""
    return maximum(near_typical, 310.0, spread=["C0"])


@pytest.fixture
def large(near_typical):
    return maximum(near_typical, 305.0)


def said(structure=DECAY, **asked) -> Fit:
    """A fit as far as nesting goes: its resolved model and its manifest."""
    from carpk.cohort import design
    from carpk.preparation import resolve

    model, _ = resolve(population(structure, **asked), design(COHORT, structure), {})
    return Fit(model, None, None, {"model": {"sha256": "x"}})


def test_bicc_counts_patients_for_what_varies_and_rows_for_the_rest():
    model = said(spread=["C0"], covariates={"C0 ~ WT": "power(70)", "k ~ WT": "linear(70)"}).model
    found = criteria(model, 10.0, 2.0, 8, 40)
    assert model.free == ("C0_pop", "k_pop", "beta_C0_WT", "beta_k_WT", "omega_C0", "sigma_C_log")
    assert found == pytest.approx({
        "ofv": 10.0, "minus_two_log_likelihood": 12.0, "aic": 24.0, "bic": 12 + 6 * math.log(40),
        "bicc": 12 + 3 * math.log(8) + 3 * math.log(40)})


def test_the_test_of_a_spread_is_the_fall_in_ofv_at_its_bound(small, large):
    found = choose({"small": small, "large": large})
    [row] = found.tests.to_dict("records")
    assert (row["smaller"], row["larger"], row["added"]) == ("small", "large", "omega_k")
    assert (row["dofv"], row["df"], row["boundary"]) == (5.0, 1, "omega_k")
    assert row["p"] == pytest.approx(stats.chi2(1).sf(5.0))
    assert row["p_mixture"] == pytest.approx(row["p"] / 2)
    table = found.fits.set_index("fit")
    assert list(table["parameters"]) == [5, 4]
    # k_pop counts the rows in the small model; in the large one it and omega_k the patients
    assert table.loc["small", "bicc"] - table.loc["large", "bicc"] == pytest.approx(
        5.0 + math.log(ROWS) - 2 * math.log(8))
    assert table.loc["small", "aic_difference"] == pytest.approx(3.0)


def test_a_larger_model_that_fits_worse_is_told(small, near_typical):
    found = choose({"small": small, "large": maximum(near_typical, 312.0)})
    [row] = found.tests.to_dict("records")
    assert row["note"] == "the larger model fits worse: its search stopped short"
    assert (row["p"], row["p_mixture"]) == (1.0, 1.0)


def test_what_is_nested_goes_by_the_parameters_that_are_held():
    plain, full = said(), said(correlated="full", covariates={"k ~ WT": "linear(70)"})
    assert added(plain, full) == ("beta_k_WT", "corr_C0_k")
    assert added(full, plain) is None
    assert added(said(spread=["C0"]), full) == ("beta_k_WT", "omega_k", "corr_C0_k")
    assert added(said(fixed={"k_pop": 0.2}), plain) == ("k_pop",)
    assert added(said(spread=["C0"]), said(spread=["k"])) is None
    # a spread that is held at 0.3 is no spread of 0
    assert added(said(spread=["C0"]), said(fixed={"omega_k": 0.3})) is None
    assert added(plain, said(covariates={"k ~ WT": "power(70)"}, fixed={"beta_k_WT": 1.0})) is None
    assert added(said(errors={"C": "proportional"}), said(errors={"C": "combined"})) == (
        "sigma_C_add",)
    for one, other in (("combined", "combined_sum"), ("lognormal", "combined")):
        assert added(said(errors={"C": one}), said(errors={"C": other})) is None
    assert added(said(covariates={"k ~ WT": "power(70)"}),
                 said(covariates={"k ~ WT": "linear(70)", "C0 ~ WT": "power(70)"})) is None


def test_the_mixture_is_that_of_simulated_spreads():
    """One mean of n(0, 1) that may not be negative, and an unbounded one: -2 ln of the ratio."""
    z = np.random.default_rng(1).normal(size=(2, 200_000))
    fall = np.maximum(z[0], 0.0) ** 2 + z[1] ** 2
    for at in (0.5, 2.0, 5.0):
        assert mixture_p(at, 1, 1) == pytest.approx(np.mean(fall >= at), abs=0.004)
    both = np.maximum(z, 0.0) ** 2
    assert mixture_p(2.0, 0, 2) == pytest.approx(np.mean(both.sum(axis=0) >= 2.0), abs=0.004)


def test_a_spread_that_is_not_there_is_found_by_chance_as_often_as_the_mixture_says():
    """4,000 balanced one-way tables without a spread, whose maxima are in closed form."""
    y = np.random.default_rng(5).normal(size=(4000, 300, 4))
    between, within = 4 * y.mean(axis=2).var(axis=1), y.var(axis=2).mean(axis=1) * 4 / 3
    without = 1200 * np.log(y.reshape(4000, -1).var(axis=1))
    fall = np.where(between > within,
                    without - 900 * np.log(within) - 300 * np.log(between), 0.0)
    p = np.array([mixture_p(f, 0, 1) for f in fall])
    for level in (0.01, 0.05, 0.2):
        assert np.mean(p < level) == pytest.approx(level, abs=3 * (level / 4000) ** 0.5)


def test_fits_of_different_methods_are_refused_unless_put_on_one_scale(small, near_typical):
    other = maximum(near_typical, 305.0, "focei")
    with pytest.raises(RequestError, match="importance_sampling puts all on one scale"):
        choose({"small": small, "large": other})


def test_on_one_scale_the_objective_is_the_integral(near_typical):
    """With ln C0 alone varying and a log-normal error ln y is normal: the integral is known."""
    one, two = (maximum(near_typical, 310.0, m, spread=["C0"]) for m in ("focei", "laplace"))
    found = choose({"one": one, "two": two}, method="importance_sampling", draws=1000).fits
    assert set(found["method"]) == {"importance_sampling"}
    at, exact = {n: v["estimate"] for n, v in one.manifest["estimates"].items()}, 0.0
    for _, rows in COHORT.observations.groupby("ID"):
        z, t = np.log(rows["DV"].to_numpy()), rows["TIME"].to_numpy()
        exact += stats.multivariate_normal(
            np.log(at["C0_pop"]) - at["k_pop"] * t,
            at["omega_C0"] ** 2 + at["sigma_C_log"] ** 2 * np.eye(len(t))).logpdf(z) - z.sum()
    assert found["minus_two_log_likelihood"].to_numpy() == pytest.approx(
        -2 * exact, abs=4 * found["ofv_se"].max())
    assert found["ofv_se"].between(1e-6, 0.1).all()


def test_compare_prints_the_tests_and_writes_both_tables(small, large, tmp_path, monkeypatch):
    kept = {"small": small, "large": large}
    monkeypatch.setattr(cli_compare, "load_fit", lambda folder: kept[folder.name])
    asked = ["compare", *kept, "--out", str(tmp_path / "choice.csv")]
    done = CliRunner().invoke(app, asked, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert re.search(r"omega_k +5\.000 +1 +0\.0253 +0\.0127", done.output)
    assert "OFV by laplace, without N log 2π; AIC, BIC and BICc with it" in done.output
    assert "tested at its bound of 0" in done.output
    assert "dBICc" in done.output
    assert len(pd.read_csv(tmp_path / "choice.csv")) == 2
    assert pd.read_csv(tmp_path / "choice_tests.csv")["df"].tolist() == [1]
    again = CliRunner().invoke(app, asked)
    assert again.exit_code == 1
    assert "--overwrite" in again.output


@pytest.mark.slow  # passed
def test_the_test_of_five_coefficients_is_nonmems(shared_data):
    """bauer501 with all covariates, OFV 1058.30371, and with five of them held, 1065.36237."""
    model, cohort, _ = references.bauer501(shared_data)
    held = {"beta_CL_WT": 0.75, "beta_V_WT": 1.0, "beta_V_AGE": 0.0, "beta_CL_SEX": 0.0,
            "beta_V_SEX": 0.0}
    reduced = dataclasses.replace(model, fixed={**model.fixed, **held})
    found = choose({n: fit(m, cohort, "focei", seed=1, draws=3) for n, m in (
        ("full", model), ("reduced", reduced))}).tests
    [row] = found.to_dict("records")
    assert (row["smaller"], row["larger"], row["df"], row["boundary"]) == (
        "reduced", "full", 5, "")
    assert row["dofv"] == pytest.approx(1065.36236713 - 1058.30371159, abs=0.02)
    assert row["p"] == pytest.approx(stats.chi2(5).sf(7.0587), abs=1e-3)


@pytest.mark.slow  # passed, 97 s on a busy machine
def test_real_maxima_are_told_apart(near_typical):
    """Rates that vary are found: the smaller model loses by test and by BICc."""
    cohort = decaying(40, limit=0.0)
    fits = {n: fit(population(DECAY, spread=s), cohort, "laplace", seed=1, draws=3)
            for n, s in (("one rate", ["C0"]), ("rates", ["C0", "k"]))}
    found = choose(fits)
    assert found.fits["fit"].iloc[0] == "rates"
    assert found.tests["p_mixture"].iloc[0] < 0.001


def test_posteriors_and_other_data_are_refused_by_name(small, large, near_typical):
    draws = near_typical(population(DECAY), COHORT)
    with pytest.raises(RequestError, match="no fit by maximum likelihood"):
        choose({"small": small, "draws": draws})
    data = {**large.manifest["data"], "sha256": "other"}
    with pytest.raises(RequestError, match="other data than small"):
        choose({"small": small, "large": dataclasses.replace(
            large, manifest={**large.manifest, "data": data})})
    with pytest.raises(RequestError, match="the one scale is importance_sampling"):
        choose({"small": small, "large": large}, method="laplace")


def test_the_conventions_are_named_wherever_the_objective_stands(large):
    table = tables.likelihood_measures(large).set_index("measure")
    assert table.loc["−2 log-likelihood", "value"] - table.loc["OFV", "value"] == pytest.approx(
        ROWS * math.log(2 * math.pi))
    assert "without N ln 2π" in table.loc["OFV", "convention"]
    assert "Delattre" in table.loc["BICc", "convention"]
    assert "likelihood" in [t.name for t in for_paper(large)]
