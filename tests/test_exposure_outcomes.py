"""Outcomes against the exposure of a fit's draws: known answers, who counts, and refusals."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import script

from carpk import examples, exposure_outcomes
from carpk.exposure_outcomes import exposure_response
from carpk.outcome_regression import regress
from carpk.population_model import population
from carpk.problems import RequestError

FOLDER = examples.FOLDER / "tisacel_like"
OWN = pd.read_csv(FOLDER / "individual_truth.csv", index_col="ID")
PATIENTS = pd.read_csv(FOLDER / "tisacel_like.csv").drop_duplicates("ID").set_index("ID")
LATER = (PATIENTS["PFS_DAYS"] > 28).to_numpy()


@pytest.fixture(scope="module")
def making():
    return script(FOLDER / "make.py")


@pytest.fixture
def fit(near_typical):
    return near_typical(population("stein_2019"), examples.example("tisacel_like"))


@pytest.fixture
def exposed(monkeypatch):
    """exposed(Cmax=(S, P), ...): what the curves of the draws are said to have."""
    def exposed(**metrics):
        shapes = next(iter(metrics.values())).shape
        every = {n: np.ones(shapes) for n in ("Cmax", "Tmax", "half_life", "AUC0_28")} | metrics
        # the typical patient comes last, and there is one output
        monkeypatch.setattr(exposure_outcomes, "exposure_draws", lambda fit, end=None: {
            n: np.concatenate([v, np.ones((len(v), 1))], axis=1)[..., None]
            for n, v in every.items()})
    return exposed


def test_without_uncertainty_of_exposure_it_is_maximum_likelihood(fit, exposed):
    exposed(Cmax=np.repeat(OWN[["Cmax"]].to_numpy().T, 2, axis=0))
    found = exposure_response(fit, "CRS_GRADE", "ordinal", "cmax", adjust=["TUMOUR_BURDEN"])
    x = np.stack([np.log2(OWN["Cmax"]), PATIENTS["TUMOUR_BURDEN"]], axis=1)[None]
    alone = regress("ordinal", x, PATIENTS["CRS_GRADE"].to_numpy())
    rows = found.table.iloc[:2]
    for edge, z in (("estimate", 0), ("lower95", -1.959964), ("upper95", 1.959964)):
        assert np.log(rows[edge]).to_numpy() == pytest.approx(
            alone.slopes[0] + z * alone.errors[0], rel=1e-6)
    assert (rows["from_exposure"] < 1e-12).all()
    # nor have the draws anything that the outcome could weigh
    weighed = found.table[found.table["model"].str.endswith(exposure_outcomes.WEIGHED)]
    assert weighed["estimate"].tolist() == pytest.approx([rows["estimate"].iloc[0]])
    assert found.table["n"].unique().tolist() == [90]
    assert found.left_out.empty


def test_the_truth_of_the_example_is_covered_with_the_true_exposures(fit, exposed, making):
    exposed(Cmax=OWN[["Cmax"]].to_numpy().T, AUC0_28=making.exposure(OWN, 28)[None])
    truth = making.CARD["outcomes"]
    crs = exposure_response(fit, "CRS_GRADE", "ordinal", adjust=["TUMOUR_BURDEN"]).table
    pfs = {kind: exposure_response(fit, "PFS_DAYS", kind, "auc0_28", event="PFS_EVENT",
                                   landmark=28, adjust=["RESPONSE"])
           for kind in ("survival", "cox")}
    wanted = [(crs.iloc[k], truth["CRS_GRADE"][n]) for k, n in enumerate(
        ("odds_ratio_per_doubling", "odds_ratio_per_percent_burden"))]
    wanted += [(found.table.iloc[k], truth["PFS"][n]) for found in pfs.values() for k, n in
               enumerate(("hazard_ratio_per_doubling", "hazard_ratio_NR"))]
    for row, value in wanted:
        assert row["lower95"] < value < row["upper95"], row["term"]
    assert set(pfs["cox"].left_out["ID"]) == {str(i) for i in PATIENTS.index[~LATER]}
    weibull = pfs["survival"].regression
    shape = weibull.estimate[0, weibull.names.index("shape")]
    assert shape == pytest.approx(truth["PFS"]["shape"], abs=0.25)


def test_intervals_cover_the_truth_of_outcomes_drawn_anew(making):
    truth = making.CARD["outcomes"]
    x = np.stack([np.log2(OWN["Cmax"]), PATIENTS["TUMOUR_BURDEN"]], axis=1)[None]
    wanted = np.log([truth["CRS_GRADE"][n] for n in (
        "odds_ratio_per_doubling", "odds_ratio_per_percent_burden")])
    away = []
    for stream in range(100, 160):
        drawn = making.outcomes(np.random.default_rng([1, stream]), PATIENTS, OWN)
        fit = regress("ordinal", x, drawn["CRS_GRADE"].to_numpy())
        away.append((fit.slopes[0] - wanted) / fit.errors[0])
    covered = (np.abs(away) < 1.96).mean()  # of 120: SD 0.02
    assert 0.89 <= covered <= 0.99
    assert np.abs(np.mean(away, axis=0)).max() < 3 / 60**0.5


def test_uncertain_exposure_widens_the_interval_and_says_how_much_is_of_it(fit, exposed):
    rng = np.random.default_rng(3)
    exposed(Cmax=OWN[["Cmax"]].to_numpy().T * np.exp(0.4 * rng.normal(size=(40, 90))))
    found = exposure_response(fit, "CRS_GRADE>=2", "binary")
    wide, slopes, errors = found.table.iloc[0], found.regression.slopes, found.regression.errors
    width = np.log(wide["upper95"] / wide["lower95"]) / (2 * 1.96)
    within = (errors[:, 0] ** 2).mean()
    assert width > 1.05 * within**0.5
    # Rubin's rules give the same interval
    assert width == pytest.approx((within + slopes[:, 0].var()) ** 0.5, rel=0.03)
    assert wide["from_exposure"] == pytest.approx(
        slopes[:, 0].var() / (within + slopes[:, 0].var()))
    assert wide["model"] == "logistic"
    assert wide["events"] == (PATIENTS["CRS_GRADE"] >= 2).sum()
    assert wide["direction"] == pytest.approx(1.0, abs=0.05)


def test_the_curves_of_the_draws_are_what_is_regressed_on(fit):
    found = exposure_response(fit, "RESPONSE=CR", "binary", "auc0_14")
    assert (found.metric, found.unit) == ("AUC0_14", "copies/ug*day")
    assert found.exposure.shape == (100, 90)
    assert found.table["events"].iloc[0] == (PATIENTS["RESPONSE"] == "CR").sum()
    assert any("two stages" in r for r in found.remarks)


def changed(near_typical, **columns):
    """A fit of the example with other columns of its patients."""
    cohort = examples.example("tisacel_like")
    return near_typical(population("stein_2019"), dataclasses.replace(
        cohort, covariates=cohort.covariates.assign(**columns)))


def test_who_is_missing_something_or_gone_by_the_landmark_is_named(near_typical, exposed):
    grade = PATIENTS["CRS_GRADE"].to_numpy(float).copy()
    grade[[2, 5]] = np.nan
    arm = np.where(np.arange(90) % 2, "A", "B").astype(object)
    arm[7] = np.nan
    fit = changed(near_typical, CRS_GRADE=grade, ARM=arm)
    cmax = np.repeat(OWN[["Cmax"]].to_numpy().T, 2, axis=0)
    cmax[1, 10] = np.nan
    exposed(Cmax=cmax)
    found = exposure_response(fit, "CRS_GRADE>=2", "binary", adjust=["ARM"])
    assert found.left_out.values.tolist() == [
        ["3", "CRS_GRADE is missing"], ["6", "CRS_GRADE is missing"], ["8", "ARM is missing"],
        ["11", "Cmax is not known in every draw"]]
    assert found.table["n"].iloc[0] == 86
    assert found.table["contrast"].tolist()[:2] == ["per doubling", "B against A"]
    gone = exposure_response(fit, "PFS_DAYS", "cox", event="PFS_EVENT", landmark=60)
    reasons = dict(zip(gone.left_out["ID"], gone.left_out["reason"], strict=True))
    for i, row in PATIENTS[PATIENTS["PFS_DAYS"] <= 60].iterrows():
        what = "event" if row["PFS_EVENT"] else "censored"
        assert reasons[str(i)] == f"{what} at {row['PFS_DAYS']}, not after the landmark"
    assert gone.read.outcome.min() > 0


def test_a_patient_of_whom_an_output_was_never_seen_has_no_exposure_of_it():
    model = SimpleNamespace(structure=SimpleNamespace(outputs=[
        SimpleNamespace(name="C"), SimpleNamespace(name="B")]))
    seen = SimpleNamespace(ids=("1", "2"), output=np.array([[0, 1], [0, 1]]),
                           observed=np.array([[True, True], [True, False]]))
    fit = SimpleNamespace(model=model, design=seen)
    for k, reasons in ((0, ["", ""]), (1, ["", "no observation of B"])):
        assert exposure_outcomes._unknown(fit, k, "Cmax", np.ones((3, 2))).tolist() == reasons


def test_perfect_prediction_is_refused_with_what_to_do_and_a_prior_answers(fit, exposed):
    order = PATIENTS["CRS_GRADE"].to_numpy() + 0.5 * np.random.default_rng(1).random(90)
    exposed(Cmax=np.exp2(order)[None] * 1000)
    with pytest.raises(RequestError, match=r"perfectly predicted by Cmax .*separation") as caught:
        exposure_response(fit, "CRS_GRADE>=2", "binary")
    assert "--prior 2.5" in caught.value.problems[0].remedy
    held = exposure_response(fit, "CRS_GRADE>=2", "binary", prior=2.5).table.iloc[0]
    assert 1 < held["lower95"] < held["upper95"] < 1e4
    assert held["prior"] == 2.5


def test_exposure_after_the_landmark_is_immortal_time(fit, exposed):
    ask = {"event": "PFS_EVENT", "landmark": 14}
    for metric, words in (("auc0_28", "ends after the landmark"), ("half_life", "after the land")):
        with pytest.raises(RequestError, match=words):
            exposure_response(fit, "PFS_DAYS", "survival", metric, **ask)
    late = np.where(np.arange(90) < 30, 20.0, 9.0)[None]
    exposed(Cmax=OWN[["Cmax"]].to_numpy().T, Tmax=late)
    with pytest.raises(RequestError, match="peak comes after the landmark in 30 of 88") as caught:
        exposure_response(fit, "PFS_DAYS", "cox", **ask)
    assert "a landmark from 20 on" in caught.value.problems[0].remedy
    few = np.where(np.arange(90) == 40, 20.0, 9.0)[None]
    exposed(Cmax=OWN[["Cmax"]].to_numpy().T, Tmax=few)
    found = exposure_response(fit, "PFS_DAYS", "cox", **ask)
    assert any("in 1 of 88 patients (41)" in r for r in found.remarks)


def test_an_outcome_that_shaped_the_exposure_is_told(near_typical, exposed):
    fit = near_typical(population("stein_2019", covariates={"Cmax ~ RESPONSE": "category"}),
                       examples.example("tisacel_like"))
    exposed(Cmax=OWN[["Cmax"]].to_numpy().T)
    found = exposure_response(fit, "RESPONSE=CR", "binary")
    assert any("RESPONSE is a covariate of the fit" in r for r in found.remarks)


@pytest.mark.parametrize(("ask", "words"), [
    ({"outcome": "ICANS"}, ["no such column", "CRS_GRADE"]),
    ({"outcome": "RESPONSE"}, ["holds words: CR, NR", "RESPONSE=CR"]),
    ({"outcome": "RESPONSE=PR"}, ["no patient has this value", "CR, NR"]),
    ({"outcome": "CRS_GRADE"}, ["neither 0 nor 1", "patient 89, CRS_GRADE = 2", "CRS_GRADE>=3"]),
    ({"outcome": "CRS_GRADE>=high"}, ["not a number after >="]),
    ({"outcome": "WT", "kind": "ordinal"}, ["no grade", "patient 1, WT = 43.6"]),
    ({"outcome": "CRS_GRADE>=5"}, ["all have the same outcome"]),
    ({"outcome": "CRS_GRADE>=4", "kind": "ordinal"}, ["makes an outcome binary"]),
    ({"kind": "count"}, ["no such type", "binary, ordinal, survival, cox"]),
    ({"metric": "tbelow"}, ["no such exposure", "no doubling"]),
    ({"output": "B"}, ["no observation of such an output", "known: C"]),
    ({"adjust": ["SEX", "AGE", "AGE"]}, ["SEX", "named twice"]),
    ({"landmark": 28}, ["no event and no landmark"]),
    ({"prior": -1}, ["an SD is above 0"]),
    ({"outcome": "PFS_DAYS", "kind": "cox"}, ["which patients had an event", "needs a landmark"]),
    ({"outcome": "PFS_DAYS", "kind": "cox", "event": "AGE", "landmark": 28}, ["neither 0 nor 1"]),
    ({"outcome": "PFS_DAYS", "kind": "cox", "event": "PFS_EVENT", "landmark": 850},
     ["events among"]),
    ({"outcome": "CRS_GRADE>=3", "metric": "peak", "output": "B", "adjust": ["SEX"]},
     ["no such exposure", "of such an output", "no such column"]),
])
def test_what_cannot_be_asked_is_refused_with_all_reasons_at_once(fit, exposed, ask, words):
    exposed(Cmax=OWN[["Cmax"]].to_numpy().T)
    with pytest.raises(RequestError) as caught:
        exposure_response(fit, **{"outcome": "CRS_GRADE>=2", "kind": "binary"} | ask)
    text = str(caught.value)
    assert all(w in text for w in words), text


def test_a_column_that_changes_within_a_patient_is_no_outcome(near_typical, read):
    rows = ["ID,TIME,DV,GRADE", *(f"{i},{t},{100 * i + t},{t // 10}" for i in range(1, 7)
                                  for t in (5, 10, 15))]
    fit = near_typical(population("stein_2019"), read("\n".join(rows)))
    with pytest.raises(RequestError, match="GRADE changes within a patient"):
        exposure_response(fit, "GRADE", "ordinal")


def test_fewer_events_than_coefficients_are_refused(near_typical, exposed):
    fit = changed(near_typical, RARE=(np.arange(90) == 3).astype(float))
    exposed(Cmax=OWN[["Cmax"]].to_numpy().T)
    with pytest.raises(RequestError, match="1 events among 90 patients who count cannot tell 2"):
        exposure_response(fit, "RARE", "binary", adjust=["AGE"])
