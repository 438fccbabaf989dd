"""The tables of a fit: their columns, what stands in them, and how numbers are written."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from conftest import IDS
from models_for_tests import DECAY, decaying
from reference_models import MISNAMED
from scipy import stats

from carpk import digits, tables
from carpk.nonmem import read_csv
from carpk.population_model import population
from carpk.priors import Prior

LEADING = ["parameter", "unit", "mean", "median", "sd", "lower95", "upper95", "rse", "rhat",
           "ess_bulk", "ess_tail"]


@pytest.fixture(scope="module")
def table(small_fit):
    return tables.parameters(small_fit).set_index("parameter", drop=False)


def test_the_columns_scripts_rely_on_come_first(table):
    assert list(table.columns[:11]) == LEADING


def test_there_is_a_row_for_every_population_parameter_and_derived_quantity(table, small_fit):
    derived = [f"{d.name}_pop" for d in small_fit.model.structure.derived]
    assert list(table["parameter"]) == [*small_fit.model.names, *derived]
    assert set(table["kind"]) == {"typical", "spread", "residual", "derived"}
    assert (table["meaning"] != "").all()


def test_the_numbers_are_those_of_the_draws(table, small_fit):
    draws = small_fit.posterior["posterior"]["Cmax_pop"].values
    row = table.loc["Cmax_pop"]
    assert row["mean"] == pytest.approx(draws.mean())
    assert row["median"] == pytest.approx(np.median(draws))
    assert row["lower95"] == pytest.approx(np.quantile(draws, 0.025))
    assert row["rse"] == pytest.approx(100 * draws.std(ddof=1) / draws.mean())
    assert row["prior"] == "lognormal(24000, 1.5)"
    assert row["unit"] == "copies/ug"


def test_a_fixed_parameter_has_its_value_a_reason_and_no_interval(table):
    row = table.loc["Ftoci_pop"]
    assert row["mean"] == row["median"] == 1.2
    assert row[["sd", "lower95", "upper95", "rse", "rhat", "ess_bulk", "ess_tail"]].isna().all()
    assert row["note"] == "fixed: no patient has TTOCI: the data say nothing about it"


def test_a_spread_has_its_cv_and_shrinkage(table, small_fit):
    row = table.loc["omega_Cmax"]
    assert row["cv_percent"] == pytest.approx(100 * math.sqrt(math.exp(row["median"]**2) - 1))
    eta = small_fit.posterior["posterior"]["eta_Cmax"].values.mean(axis=(0, 1))
    assert row["shrinkage"] == pytest.approx(1 - eta.std(ddof=1) / row["median"])
    assert table.loc[table["kind"] != "spread", "cv_percent"].isna().all()
    assert table.loc[~table["kind"].isin(["spread", "residual"]), "shrinkage"].isna().all()


def test_a_residual_error_has_the_shrinkage_of_its_measured_levels(table, small_fit):
    rows = tables.predictions(small_fit)
    rows = rows[rows["censored"] == 0]
    z = np.log(rows["DV"] / rows["IPRED"]) / table.loc["sigma_C_log", "median"]
    assert table.loc["sigma_C_log", "shrinkage"] == pytest.approx(
        1 - np.sqrt(((z - z.mean())**2).sum() / (len(z) - 1)))


def test_the_spread_of_students_t_is_wider_than_its_scale(near_typical):
    """The CV is that of the log-normal whose logarithm has the SD of a million drawn etas; where
    every patient's is known and they lie at the quantiles of t, nothing is shrunken."""
    fit = near_typical(population(DECAY, etas="student_t"), decaying(patients=300))
    draws = fit.posterior["posterior"].dataset
    omega = float(np.median(draws["omega_C0"]))
    draws["eta_C0"].values[:] = omega * stats.t(4).ppf((np.arange(300) + 0.5) / 300)
    row = tables.parameters(fit).set_index("parameter").loc["omega_C0"]
    many = omega * stats.t(4).rvs(1_000_000, random_state=2)
    assert row["cv_percent"] == pytest.approx(100 * math.sqrt(math.expm1(many.var())), rel=0.03)
    assert row["shrinkage"] == pytest.approx(0.0, abs=0.08)


def test_derived_quantities_are_those_of_each_draw(table, small_fit):
    beta = small_fit.posterior["posterior"]["beta_pop"].values
    row = table.loc["half_life_terminal_pop"]
    assert row["median"] == pytest.approx(np.median(np.log(2) / beta))
    assert row["unit"] == "day"


def test_a_parameter_in_the_unit_of_the_output_is_in_the_unit_of_the_cohort(
        near_typical, tmp_path):
    file = tmp_path / "cells.csv"
    file.write_text("ID,TIME,DV\n1,7,900\n1,28,90\n2,7,800\n2,10,1800\n")
    fit = near_typical(population("stein_2019"), read_csv(file, units={1: "cells/uL"}))
    rows = tables.parameters(fit).set_index("parameter")
    assert rows.loc["Cmax_pop", "unit"] == "cells/uL"
    assert "centred where" in rows.loc["Cmax_pop", "note"]
    assert rows.loc["Tmax_pop", "unit"] == "day"


def test_individuals_are_one_row_each_with_their_own_derived_quantities(small_fit):
    rows = tables.individuals(small_fit)
    assert rows["ID"].tolist() == list(IDS)
    assert (rows["observations"] == 10).all()
    assert rows["censored"].sum() == small_fit.manifest["data"]["censored"]
    draws = small_fit.posterior["posterior"]["alpha"].values.reshape(-1, len(IDS))
    np.testing.assert_allclose(rows["alpha_median"], np.median(draws, axis=0))
    np.testing.assert_allclose(rows["half_life_initial_median"],
                               np.median(np.log(2) / draws, axis=0))
    assert {"eta_alpha_mean", "alpha_sd", "half_life_initial_upper95"} <= set(rows.columns)


def test_excluded_rows_come_with_their_reason(small_fit):
    rows = tables.excluded(small_fit)
    assert rows["ID"].tolist() == [IDS[1]]
    assert "MDV" in rows["reason"].iloc[0]


@pytest.mark.parametrize(("prior", "sd"), [
    ("normal(24000, 48000)", 48000), ("lognormal(0.003, 1.5)", 1.5), ("logitnormal(0.2, 1)", 1),
    ("halfcauchy(2)", math.pi / 2), ("exponential(5)", math.pi / 6**0.5)])
def test_the_width_of_a_prior_is_that_of_its_formula(prior, sd):
    assert tables.prior_on_real_line(Prior.parse(prior))[1] == pytest.approx(sd, rel=1e-4)


def test_the_width_of_a_halfnormal_prior_is_that_of_its_draws():
    draws = np.abs(np.random.default_rng(1).normal(size=200_000))
    u = np.log(np.expm1(draws))
    mean, sd = tables.prior_on_real_line(Prior.parse("halfnormal(1)"))
    assert (mean, sd) == (pytest.approx(u.mean(), abs=0.01), pytest.approx(u.std(), rel=0.01))


def with_draws(fit, name, values):
    """The same fit with other draws of one population parameter."""
    tree = fit.posterior.copy()
    posterior = tree["posterior"].dataset.copy()
    posterior[name] = (("chain", "draw"), values)
    tree["posterior"].dataset = posterior
    return dataclasses.replace(fit, posterior=tree)


def test_a_parameter_as_wide_as_its_prior_is_named(small_fit):
    noise = np.random.default_rng(1).normal(size=(2, 30))
    wide = with_draws(small_fit, "beta_pop", 0.0032 * np.exp(1.4 * noise))
    narrow = with_draws(small_fit, "beta_pop", 0.0032 * np.exp(0.5 * noise))
    sentence = "the data say little about beta_pop: its interval is mostly the prior's"
    assert tables.prior_dominated(wide)["beta_pop"] == sentence
    assert "beta_pop" not in tables.prior_dominated(narrow)
    rows = tables.parameters(wide).set_index("parameter")
    assert sentence in rows.loc["beta_pop", "note"]


def test_a_spread_the_data_press_against_zero_is_not_called_the_priors(small_fit):
    noise = np.random.default_rng(1).normal(size=(2, 30))
    near_zero = with_draws(small_fit, "omega_Tmax", np.abs(0.05 * noise))
    as_prior = with_draws(small_fit, "omega_Tmax", np.abs(noise))
    assert "omega_Tmax" not in tables.prior_dominated(near_zero)
    assert "omega_Tmax" in tables.prior_dominated(as_prior)


def test_written_numbers_have_the_digits_their_uncertainty_supports(table):
    written = digits.format_table(table)
    assert not written.map(lambda v: "nan" in str(v).lower()).any(axis=None)
    assert written.loc["Ftoci_pop", "median"] == "1.2"
    assert written.loc["Ftoci_pop", "sd"] == ""
    row = pd.DataFrame([{"parameter": "t", "mean": 72.0, "median": 32.567, "sd": 238.0,
                         "lower95": 9.615, "upper95": 345.86, "rhat": 1.0061, "ess_bulk": 546.8,
                         "cv_percent": 832119.0}])
    assert digits.format_table(row).iloc[0].tolist() == [
        "t", "72", "33", "238", "10", "346", "1.006", "547", "> 1000"]


def test_a_parameter_named_like_a_spread_or_an_error_is_a_typical_value(near_typical):
    fit = near_typical(population(MISNAMED, spread=["sigma", "rho"], fixed={"gamma": 0.0}),
                       decaying(4))
    kinds = tables.parameters(fit).set_index("parameter")["kind"]
    assert dict(kinds) == {
        **dict.fromkeys(("sigma_pop", "rho_pop", "gamma_pop"), "typical"),
        **dict.fromkeys(("omega_sigma", "omega_rho"), "spread"), "sigma_C_log": "residual"}


def test_the_prior_is_told_where_the_answer_leans_on_it():
    """A normal mean of known SD: a wide prior moves nothing, one as narrow as the data moves it."""
    from carpk.posterior import sensitivity
    rng = np.random.default_rng(1)
    y, n = rng.normal(1.0, 1.0, 20), 20
    for width, leans in ((50.0, False), (0.2, True)):
        precision = n + width**-2
        draws = (y.sum() / precision + rng.normal(size=(4, 1000)) / precision**0.5)
        likelihood = -0.5 * (y - draws[..., None]) ** 2
        table = sensitivity({"mu": draws}, {"mu": -0.5 * (draws / width) ** 2}, likelihood)
        assert (table.loc["mu", "prior"] > 0.05) == leans
        assert table.loc["mu", "likelihood"] > 0.05


def test_the_priors_are_scaled_together_and_no_sentence_blames_ones_own_alone(
        small_fit, monkeypatch):
    """Two nearly equal parameters: a prior on one moves the other, whose own prior is flat."""
    from carpk import posterior
    rng = np.random.default_rng(1)
    a = 0.3 + 0.1 * rng.normal(size=(4, 1000))
    b = a + 0.01 * rng.normal(size=a.shape)
    found = posterior.sensitivity({"a": a, "b": b}, {
        "a": -0.5 * (a / 0.15) ** 2, "b": np.zeros_like(a)}, -0.5 * (1 - b[..., None] / 0.1) ** 2)
    assert found.loc["b", "prior"] > 0.05
    monkeypatch.setattr(posterior, "sensitivity", lambda *_: pd.DataFrame(
        {"prior": [0.3, 0.3], "likelihood": [0.2, 0.0]}, index=["Cmax_pop", "beta_pop"]))
    one, two = tables.prior_sensitivity(small_fit)["remark"]
    assert one.startswith("Cmax_pop moves with the priors as well as with the data: look whether "
                          "they, its own lognormal(")
    assert two == "beta_pop moves with the priors and hardly with the data: it is mostly theirs"
