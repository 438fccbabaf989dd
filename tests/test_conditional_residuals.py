"""CWRES against NONMEM's, and of a linear model by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import references
from scipy.linalg import sqrtm

from carpk.cohort import design
from carpk.conditional_residuals import cwres, linearised_residuals
from carpk.prediction import predictions
from carpk.preparation import resolve

# run 504 of nonmem2rx (Bauer RJ. CPT Pharmacometrics Syst Pharmacol 2019;8:525-537, supplement):
# FOCEI, NONMEM 7.4.3, its estimates to six digits and patients 1-3, 8-10, 16 and 17 of its table
PRINTED = Path(__file__).parent / "golden" / "bauer501_cwres.csv"
RUN_504 = {"CL_pop": 3.03133, "V_pop": 32.3836, "beta_CL_WT": 0.659784, "beta_V_WT": 1.32152,
           "beta_CL_AGE": -0.534065, "beta_V_AGE": 0.0522963, "beta_CL_SEX": np.log(0.903881),
           "beta_V_SEX": np.log(0.946765), "sigma_C_prop": 0.0502577**0.5,
           **references.block(("CL", "V"), 0.0307203, 0.001479, 0.0466091)}


def of(reference, data, patients=None, **values):
    """(CWRES (P, N), design) of a published model at its estimates."""
    asked, whole, theta = getattr(references, reference)(data)
    few = whole.select(patients) if patients else whole
    seen = design(few, asked.structure)
    model, _ = resolve(asked, seen, {})
    return linearised_residuals(model, seen, {**model.fixed, **theta, **values}), seen


def test_cwres_are_those_nonmem_prints_of_the_same_fit(shared_data):
    printed = pd.read_csv(PRINTED, dtype={"ID": str})
    ids = printed["ID"].unique().tolist()
    found, seen = of("bauer501", shared_data, ids, **RUN_504)
    assert seen.ids == tuple(ids)
    np.testing.assert_allclose(found[seen.observed], printed["CWRES"], atol=2e-4)


def test_of_a_linear_model_they_are_the_marginal_residuals_without_their_correlation(shared_data):
    found, seen = of("orthodont", shared_data)
    _, cohort, theta = references.orthodont(shared_data)
    female = (cohort.covariates["SEX"] == "Female").to_numpy(float)
    omega = np.diag([theta["omega_a"], theta["omega_b"]])
    omega = omega @ np.array([[1, theta["corr_a_b"]], [theta["corr_a_b"], 1]]) @ omega
    for k in range(len(seen.ids)):
        line = np.stack([np.ones(4), seen.time[k]], axis=1)
        centre = line @ [theta["a_pop"] + theta["beta_a_SEX_Female"] * female[k],
                         theta["b_pop"] + theta["beta_b_SEX_Female"] * female[k]]
        covariance = line @ omega @ line.T + theta["sigma_C_add"] ** 2 * np.eye(4)
        by_hand = np.linalg.solve(np.real(sqrtm(covariance)), seen.upper[k] - centre)
        np.testing.assert_allclose(found[k], by_hand, atol=1e-8)


def test_censored_rows_have_none_and_measured_ones_all(small_fit):
    rows, found = predictions(small_fit), cwres(small_fit)
    assert (np.isfinite(found) == (rows["censored"] == 0).to_numpy()).all()
    assert (rows["censored"] == 1).any()
