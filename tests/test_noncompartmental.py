"""Non-compartmental analysis against a published profile's known answers and cases by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpk import noncompartmental, registry
from carpk.noncompartmental import area, half_life, nca
from carpk.nonmem import read_csv
from carpk.problems import RequestError
from carpk.structure import named

DAYS = (0, 1, 2, 4, 7, 9, 11, 14, 17, 21, 28, 42, 60, 84, 120, 180, 365, 540)


@pytest.fixture
def read(tmp_path):
    """A cohort from the lines of a CSV file."""
    def of(*lines, header="ID,TIME,DV,CENS"):
        file = tmp_path / "run.csv"
        file.write_text("\n".join((header, *lines)) + "\n")
        return read_csv(file, units={1: "copies/ug"})
    return of


@pytest.fixture(scope="module")
def stein():
    """The typical curve of stein_2019, as {day: level}."""
    model = registry.load("models", "stein_2019")
    values = {p.name: p.typical for p in model.parameters} | {
        i.name: i.default for i in model.inputs}
    return {t: float(model.solution(float(t), named(values))["C"]) for t in DAYS}


@pytest.fixture
def profile(read, stein):
    """Sampled without error and censored below 50, as in the dossier of Mueller 2017."""
    return read(*(f"1,{t},{c if c >= 50 else 50!r},{int(c < 50)},50" for t, c in stein.items()),
                header="ID,TIME,DV,CENS,LLOQ")


# recomputed by hand from Stein 2019's closed form; tolerance: the last digit printed
KNOWN = {"Cmax": 18381.0556, "Tmax": 9, "Tlast": 365, "Clast": 60.7445028,
         "AUC0_28": 172584.673, "AUC0_84": 190333.996, "AUClast": 218006.486,
         "half_life": 216.60773, "lambda_z": 0.00320001133, "AUCinf": 236989.076}
LINEAR = {"AUC0_28": 176033.093, "AUC0_84": 195744.216, "AUClast": 223889.858}


def test_the_known_answers_of_a_published_profile_are_met(profile):
    row = nca(profile, terminal=3).iloc[0]
    assert {n: row[n] for n in KNOWN} == pytest.approx(KNOWN, rel=3e-8)
    linear = nca(profile, rule="linear").iloc[0]
    assert {n: linear[n] for n in LINEAR} == pytest.approx(LINEAR, rel=5e-9)
    assert nca(profile, terminal=(11.0, 21.0)).loc[0, "half_life"] == \
        pytest.approx(4.43874856, rel=5e-9)
    assert (row["Tbelow"], row["Tbql"], row["Tend"]) == (540, 540, 540)
    assert row[["half_life_points", "half_life_from"]].tolist() == [3, 120]


def test_without_censoring_the_area_is_that_of_all_samples(read, stein):
    whole = read(*(f"1,{t},{c!r},0" for t, c in stein.items()))
    assert nca(whole).loc[0, "AUC0_28"] == pytest.approx(172657.362, rel=5e-9)


def test_dense_samples_come_to_the_true_area_of_the_curve():
    model = registry.load("models", "stein_2019")
    values = {p.name: p.typical for p in model.parameters} | {
        i.name: i.default for i in model.inputs}
    t = np.unique(np.append(np.linspace(0, 28, 2001), 9.3))
    level = np.array([float(model.solution(x, named(values))["C"]) for x in t])
    assert float(area(t, level, 0, 28)) == pytest.approx(171774.285, rel=3e-6)


@pytest.fixture
def gap(read):
    """Below the limit before, between and after; half-lives of 2 days after the peak."""
    return read("1,1,10,1", "1,3,80,0", "1,5,40,0", "1,7,10,1", "1,9,10,0", "1,11,10,1",
                "1,20,10,1")


@pytest.mark.parametrize(("blq", "expected"), [
    # 0 at 0 and 1, then 80, 40, (7 left out) 10 by day: 80 + (40 + 30) / ln(2) * 2 + ...
    ("zero-then-missing", 80 + 80 / math.log(2) + 120 / math.log(4)),
    ("missing", 120 + 80 / math.log(2) + 120 / math.log(4)),
    ("half", 2.5 + 85 + 80 / math.log(2) + 70 / math.log(8) + 15)])
def test_levels_below_the_limit_are_taken_as_the_rule_says(gap, blq, expected):
    row = nca(gap, blq=blq).iloc[0]
    assert row["AUClast"] == pytest.approx(expected)
    assert row[["Cmax", "Tmax", "Clast", "Tlast", "Tbelow", "Tbql"]].tolist() == \
        [80, 3, 10, 9, 7, 11]


def test_an_area_beyond_tlast_ends_there_goes_to_zero_or_goes_on_as_asked(gap):
    plain, zero, beyond = (nca(gap, days=(14,), terminal=(5.0, 9.0), **how).iloc[0]
                           for how in ({}, {"to_zero": True}, {"extrapolate": True}))
    assert plain["AUC0_14"] == plain["AUClast"]
    assert zero["AUC0_14"] == pytest.approx(plain["AUClast"] + 10)
    # 40 to 10 in 4 days: a half-life of 2
    assert beyond["half_life"] == pytest.approx(2)
    assert beyond["AUC0_14"] == pytest.approx(
        plain["AUClast"] + 10 * (1 - 2**-2.5) / (math.log(2) / 2))
    assert plain["note"] == "AUC0_14: below the limit after day 9"
    assert beyond["note"] == "AUC0_14: extrapolated from day 9"


def test_an_area_nobody_sampled_is_blank_and_the_note_says_why(read):
    row = nca(read("1,3,80,0", "1,10,40,0"), days=(7, 28)).iloc[0]
    assert row["AUC0_7"] > 0
    assert math.isnan(row["AUC0_28"])
    assert row["note"] == "AUC0_28: last sample on day 10"


def test_a_partial_area_is_the_difference_of_two_from_the_infusion(profile):
    row = nca(profile, days=(28, 90), partial=[(28.0, 90.0)]).iloc[0]
    assert row["AUC28_90"] == pytest.approx(row["AUC0_90"] - row["AUC0_28"])


def test_a_sample_at_a_visit_is_the_nearest_within_its_window(read):
    row = nca(read("1,7,900,0", "1,26,90,0", "1,31,70,0", "1,100,50,1")).iloc[0]
    assert row[["C_M1", "detectable_M1", "detectable_M3"]].tolist() == [90, 1, 0]
    assert pd.isna(row[["C_M3", "C_M6", "detectable_M6", "detectable_M12"]]).all()


def test_an_early_sample_may_be_kept_from_being_the_peak(read):
    cohort = read("1,0.01,5000,0", "1,7,900,0", "1,14,90,0")
    assert nca(cohort)[["Cmax", "Tmax"]].values.tolist() == [[5000, 0.01]]
    assert nca(cohort, peak_from=1)[["Cmax", "Tmax"]].values.tolist() == [[900, 7]]


def test_replicates_are_averaged_and_a_patient_never_above_the_limit_has_no_exposure(read):
    table = nca(read("1,3,80,0", "1,3,120,0", "1,5,50,1", "1,5,60,0", "2,3,50,1", "2,9,50,1"))
    assert table.loc[0, ["observations", "Cmax", "Clast"]].tolist() == [2, 100, 60]
    blank = table.loc[1, ["Cmax", "Tmax", "AUC0_7", "AUClast", "half_life", "Tbql"]]
    assert blank.isna().all()
    assert table.loc[1, ["detectable_M1", "note"]].isna().tolist() == [True, False]
    assert table["note"].tolist()[1] == "never above the limit"


def test_the_terminal_points_are_those_with_the_best_adjusted_r2():
    t = np.array([5.0, 10, 20, 40, 60, 80])
    straight = np.where(t < 20, 1e5, 1e4 * np.exp(-0.05 * t))
    assert half_life(t, straight, 5.0, "best")[2:4] == (4, 20.0)
    bent = half_life(t, 1e4 * np.exp(-0.05 * t + [0, 0, 0, 0.3, -0.3, 0.3]), 5.0, 3)
    x, y = t[3:], -0.05 * t[3:] + [0.3, -0.3, 0.3]
    slope, start = np.polyfit(x, y, 1)
    r2 = 1 - ((y - slope * x - start) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert bent[1] == pytest.approx(-slope)
    assert bent[4] == pytest.approx(1 - (1 - r2) * 2 / 1)
    assert math.isnan(half_life(t, np.exp(0.1 * t), 5.0, "best")[0])


@given(st.lists(st.floats(0.1, 1e4), min_size=3, max_size=8), st.floats(0.5, 30.0),
       st.sampled_from(noncompartmental.RULES), st.floats(1e-3, 1e3))
def test_areas_add_up_and_scale_with_the_levels(levels, cut, rule, factor):
    t, level = np.arange(len(levels)) * 4.0, np.array(levels)
    whole = area(t, level, 0.0, t[-1], rule)
    parts = area(t, level, 0.0, cut, rule) + area(t, level, cut, t[-1], rule) \
        if cut < t[-1] else whole
    assert parts == pytest.approx(whole)
    assert area(t, factor * level, 0.0, t[-1], rule) == pytest.approx(factor * whole)
    assert area(np.stack([t, t]), np.stack([level, 2 * level]), 0.0, t[-1], rule) == \
        pytest.approx(np.array([whole, 2 * whole]))


def test_a_rule_that_is_not_known_is_refused_and_m3_says_what_it_needs(profile):
    with pytest.raises(RequestError) as refused:
        nca(profile, rule="spline", blq="zero", days=(0,), terminal="all", partial=[(9.0, 3.0)])
    assert len(refused.value.problems) == 5
    with pytest.raises(RequestError, match="M3 is a likelihood"):
        nca(profile, blq="m3")
    with pytest.raises(RequestError, match="no observation has this DVID"):
        nca(profile, dvid=[2])


def test_each_dvid_is_analysed_by_itself(read):
    table = nca(read("1,3,80,0,1", "1,5,40,0,2", "1,7,10,0,1", header="ID,TIME,DV,CENS,DVID"))
    assert table[["DVID", "Cmax", "unit"]].values.tolist() == [[1, 80, "copies/ug"], [2, 40, ""]]


def test_real_patients_are_analysed(shared_data):
    cohort = read_csv(shared_data / "cart_liu2022_ball" / "liu2022_ball.csv", dvid=[1])
    table = nca(cohort).set_index("ID")
    assert len(table) == 21
    rows = cohort.observations
    assert (table["Cmax"] == rows.groupby("ID")["DV"].max()[table.index]).all()
    # patient 1, linear up to day 14 and logarithmic from there, by hand
    own = rows[rows["ID"] == "1"]
    t, c = np.append(0, own["TIME"]), np.append(0, own["DV"])
    hand = sum((b - a) * ((x + y) / 2 if y >= x else (x - y) / math.log(x / y))
               for a, b, x, y in zip(t[:-1], t[1:], c[:-1], c[1:], strict=True))
    assert table.loc["1", "AUClast"] == pytest.approx(hand)
