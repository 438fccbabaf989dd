"""Exposure by the model against the closed form of each draw."""

import math

import numpy as np
import pytest
from conftest import cohort_text
from scipy.integrate import quad
from scipy.optimize import brentq

from carpk.fit_exposure import exposure_draws, model_exposure
from carpk.nonmem import read_csv
from carpk.population_model import population
from carpk.prediction import some_draws


@pytest.fixture(scope="module")
def text():
    return cohort_text(("1", "2", "3"))


@pytest.fixture
def fit(near_typical, text, tmp_path):
    file = tmp_path / "c.csv"
    file.write_text(text)
    return near_typical(population("stein_2019"), read_csv(file))


def curve(fit, draw, patient=None):
    """C(t) of one draw, by stein_2019's equations: a patient's, or the typical one's."""
    draws = fit.posterior["posterior"].dataset
    p = {n: draws[n].values.reshape(-1, 3)[draw, patient] if patient is not None
         else draws[f"{n}_pop"].values.ravel()[draw]
         for n in ("foldx", "Tmax", "Cmax", "alpha", "FB", "beta")}

    def level(t):
        if t < p["Tmax"]:
            return p["Cmax"] * p["foldx"] ** (t / p["Tmax"] - 1)
        s = t - p["Tmax"]
        return p["Cmax"] * ((1 - p["FB"]) * math.exp(-p["alpha"] * s)
                            + p["FB"] * math.exp(-p["beta"] * s))
    return level, p


def test_every_draw_has_the_exposure_of_its_curve(fit):
    drawn = exposure_draws(fit)
    assert drawn["Cmax"].shape == (100, 4, 1)
    for k, patient in ((0, 1), (7, 2), (50, None)):
        level, p = curve(fit, some_draws(fit, 200)[k], patient)
        at = (k, 3 if patient is None else patient, 0)
        assert drawn["Cmax"][at] == pytest.approx(p["Cmax"], rel=0.01)
        assert drawn["Tmax"][at] == pytest.approx(p["Tmax"], abs=0.1)
        whole = quad(level, 0, 28, points=[p["Tmax"]], epsabs=0, epsrel=1e-9, limit=200)[0]
        assert drawn["AUC0_28"][at] == pytest.approx(whole, rel=2e-3)
        slope = math.log(level(162) / level(180)) / 18
        assert drawn["half_life"][at] == pytest.approx(math.log(2) / slope, rel=0.02)
        if level(180) < 50:
            crossing = brentq(lambda t, level=level: level(t) - 50, p["Tmax"], 180)
            assert drawn["Tbelow"][at] == pytest.approx(crossing, rel=2e-3)
        else:
            assert drawn["Tbelow"][at] == np.inf


def test_an_area_ends_where_it_is_asked_to(fit):
    drawn = exposure_draws(fit, 14.5)
    assert "AUC0_28" not in drawn
    level, p = curve(fit, some_draws(fit, 200)[7], 1)
    whole = quad(level, 0, 14.5, points=[p["Tmax"]], epsabs=0, epsrel=1e-9, limit=200)[0]
    assert drawn["AUC0_14.5"][7, 1, 0] == pytest.approx(whole, rel=2e-3)


def test_the_table_has_the_patients_and_the_typical_one(fit):
    table, drawn = model_exposure(fit), exposure_draws(fit)
    assert table["kind"].tolist() == ["patient"] * 3 + ["typical"]
    assert table["ID"].tolist() == ["1", "2", "3", ""]
    assert (table["limit"] == 50).all()
    low, middle, high = np.quantile(drawn["Cmax"][:, 3, 0], (0.025, 0.5, 0.975))
    assert table.loc[3, ["Cmax_lower95", "Cmax_median", "Cmax_upper95"]].tolist() == \
        pytest.approx([low, middle, high])
    share = np.isfinite(drawn["Tbelow"][:, :, 0]).mean(axis=0)
    assert table["below_share"].tolist() == pytest.approx(share.tolist())
    assert (table["Tbelow_median"].notna() == (share >= 0.5)).all()
    assert not np.isinf(table.select_dtypes("number")).any(axis=None)


def test_a_model_in_hours_has_no_area_to_day_28_and_without_a_limit_none_is_met(
        near_typical, shared_data):
    cohort = read_csv(shared_data / "theophylline" / "theo_sd.csv")
    fit = near_typical(population("one_compartment_oral"), cohort)
    table = model_exposure(fit)
    assert table[["AUC0_28_median", "Tbelow_median", "below_share", "limit"]].isna().all(axis=None)
    assert (table["Cmax_median"] > 0).all()
    typical = table.iloc[-1]  # dosed as one of the patients
    assert typical["kind"] == "typical"
    assert table["Cmax_median"].min() / 2 < typical["Cmax_median"] < 2 * table["Cmax_median"].max()
