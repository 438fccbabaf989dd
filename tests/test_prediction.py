"""What a fit predicts, at the observations and between them."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import IDS, cohort_text

from carpk import prediction
from carpk.nonmem import read_csv
from carpk.population_model import population
from carpk.prediction import curves, medians, predictions, quantiles, some_draws

COLUMNS = ["line", "ID", "TIME", "DVID", "output", "DV", "censored", "lower", "upper", "PRED",
           "IPRED", "ipred_lower95", "ipred_upper95", "y_lower95", "y_upper95", "IWRES", "loglik"]


@pytest.fixture(scope="module")
def seen(small_fit):
    return predictions(small_fit)


def closed_form(day, foldx, Tmax, Cmax, alpha, FB, beta):
    after = np.maximum(day - Tmax, 0)
    return Cmax / foldx * foldx ** (np.minimum(day, Tmax) / Tmax) * (
        (1 - FB) * np.exp(-alpha * after) + FB * np.exp(-beta * after))


def test_every_fitted_row_is_predicted_once_and_points_back_to_its_line(seen, small_fit):
    assert list(seen.columns) == COLUMNS
    assert len(seen) == small_fit.manifest["data"]["observations"] == 10 * len(IDS)
    lines = cohort_text().splitlines()
    for row in seen.itertuples():
        patient, day, dv, cens, *_ = lines[row.line - 1].split(",")
        assert (patient, float(day), float(dv), int(cens)) == \
            (row.ID, row.TIME, row.DV, row.censored)


def test_a_censored_row_is_open_below_has_no_residual_and_stands_at_its_limit(seen):
    hidden, measured = seen[seen["censored"] == 1], seen[seen["censored"] == 0]
    assert len(hidden) > 5
    assert (hidden["DV"] == 50).all()
    assert (hidden["upper"] == 50).all()
    assert hidden[["lower", "IWRES"]].isna().all(axis=None)
    assert measured.notna().all(axis=None)
    assert (measured["lower"] == measured["DV"]).all()


def test_the_typical_prediction_is_the_model_at_the_posterior_medians(seen, small_fit):
    m = medians(small_fit)
    expected = closed_form(seen["TIME"].to_numpy(), *(m[f"{n}_pop"] for n in (
        "foldx", "Tmax", "Cmax", "alpha", "FB", "beta")))
    np.testing.assert_allclose(seen["PRED"], expected, rtol=1e-9)


def test_bands_hold_their_medians_and_new_measurements_scatter_more(seen):
    assert ((seen["ipred_lower95"] <= seen["IPRED"]) & (seen["IPRED"] <= seen["ipred_upper95"])
            ).all()
    width = np.log(seen["ipred_upper95"] / seen["ipred_lower95"]).mean()
    assert np.log(seen["y_upper95"] / seen["y_lower95"]).mean() > width


def test_residuals_are_on_the_scale_of_the_error_model(seen, small_fit):
    sigma = medians(small_fit)["sigma_C_log"]
    rows = seen[seen["censored"] == 0]
    np.testing.assert_allclose(rows["IWRES"], np.log(rows["DV"] / rows["IPRED"]) / sigma,
                               rtol=1e-9)


def test_curves_run_from_the_infusion_to_the_last_sample_and_are_dense_early(small_fit):
    paths = curves(small_fit, points=60)
    assert len(paths) == 60 * len(IDS)
    for _, path in paths.groupby("ID", sort=False):
        assert path["TIME"].iloc[0] == 0
        assert path["TIME"].iloc[-1] == pytest.approx(180)
        assert (path["TIME"].diff().dropna() > 0).all()
        assert (path["TIME"] < 28).mean() > 0.4
    edges = paths[["lower90", "lower50", "median", "upper50", "upper90"]].to_numpy()
    assert (np.diff(edges, axis=1) >= 0).all()


def test_a_second_course_is_as_dense_as_the_first_of_its_length():
    seen = SimpleNamespace(time=np.array([[1.0, 7.0, 60.0, 67.0, 120.0]]),
                           observed=np.ones((1, 5), bool), dose_time=np.array([[0.0, 60.0]]))
    first, second = np.split(prediction._grid(seen, 101)[0], [52])
    np.testing.assert_allclose(second, 60 + first[1:], rtol=1e-12)  # 0 is a dose and a point
    assert first[0] == 0.0
    assert first[-1] == second[0] == 60.0


def test_a_curve_meets_the_prediction_at_an_observation(small_fit, seen):
    paths = curves(small_fit)
    for patient in IDS:
        path, rows = paths[paths["ID"] == patient], seen[seen["ID"] == patient]
        for of, column in (("IPRED", "median"), ("PRED", "typical")):
            at = np.interp(rows["TIME"], path["TIME"], np.log(path[column]))
            # few draws are kept of so short a chain, and the grid is not at the observations
            np.testing.assert_allclose(at, np.log(rows[of]), atol=0.25)


def test_an_ode_with_two_outputs_is_predicted_in_the_order_of_its_rows(near_typical, shared_data):
    cohort = read_csv(shared_data / "cart_liu2022_ball" / "liu2022_ball.csv", dvid=[1, 2],
                      units={1: "cells/uL", 2: "cells/uL"})
    fit = near_typical(population("liu_l_2022"), cohort.select(cohort.ids[:3]))
    table, paths = predictions(fit), curves(fit, points=30)
    assert set(table["output"]) == set(paths["output"]) == {"T", "B"}
    assert (table["line"].groupby(table["ID"]).diff().dropna() > 0).all()
    assert len(paths) == 3 * 2 * 30
    start = paths[(paths["output"] == "B") & (paths["TIME"] == 0)]
    np.testing.assert_allclose(start["median"], fit.design.inputs["NB0"], rtol=1e-6)


def test_rows_above_a_limit_and_between_two_say_so(near_typical, tmp_path):
    file = tmp_path / "limits.csv"
    file.write_text("ID,TIME,DV,CENS,LIMIT\n1,7,900,0,\n1,9,90000,-1,\n1,90,50,1,10\n")
    fit = near_typical(population("stein_2019"), read_csv(file))
    table = predictions(fit)
    assert table["censored"].tolist() == [0, -1, 1]
    assert table["DV"].tolist() == [900, 90000, 50]
    np.testing.assert_array_equal(table["lower"], [900, 90000, 10])
    np.testing.assert_array_equal(table["upper"], [900, np.nan, 50])


def test_a_fit_without_spread_predicts_the_typical_patient_for_all(near_typical, tmp_path):
    file = tmp_path / "pooled.csv"
    file.write_text("ID,TIME,DV\n1,7,900\n1,28,90\n2,7,800\n")
    fit = near_typical(population("stein_2019", spread=[]), read_csv(file))
    table = predictions(fit)
    np.testing.assert_allclose(table["IPRED"], table["PRED"], rtol=0.1)
    assert len(curves(fit, points=20)) == 40


def test_a_draw_that_did_not_solve_takes_no_part_in_a_quantile():
    draws = np.array([[1.0, np.nan], [2.0, np.inf], [3.0, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(quantiles(draws, (0.5,)), [[2.0, np.nan]])


def test_thinning_keeps_every_draw_of_a_short_fit_and_spreads_over_the_chains(small_fit):
    assert len(some_draws(small_fit, 1000)) == 60
    some = some_draws(small_fit, 10)
    assert len(some) == 10
    assert (some < 30).sum() == 5


def test_fixed_values_are_their_own_median(small_fit):
    held = dataclasses.replace(small_fit.model, fixed={**small_fit.model.fixed, "beta_pop": 0.1})
    assert medians(dataclasses.replace(small_fit, model=held))["beta_pop"] == 0.1
