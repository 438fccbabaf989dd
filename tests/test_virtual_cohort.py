"""Virtual patients: who is enrolled, given what, sampled when, and what is measured."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from carpk import registry
from carpk.cohort import design
from carpk.nonmem import read_plan
from carpk.population_model import population
from carpk.problems import DataError, RequestError
from carpk.simulation import simulate
from carpk.virtual_cohort import (
    doses_written,
    enrolled,
    group,
    measured,
    planned,
    sets_named,
    usual_doses,
    usual_times,
)

LIU = registry.load("models", "liu_l_2022")
STEIN = registry.load("models", "stein_2019")
ORAL = registry.load("models", "one_compartment_oral")


@pytest.fixture
def plan(tmp_path):
    def read(text, outputs=(1, 2)):
        (tmp_path / "my.csv").write_text(text)
        return read_plan(tmp_path / "my.csv", outputs)
    return read


def rows(table):
    return table[["ID", "TIME", "DVID"]].to_numpy().tolist()


# sets


def test_a_set_is_named_by_its_title_or_its_group():
    two = dataclasses.replace(LIU, parameter_sets={
        "CR 1": {}, "CR 2": {}, "NR 1": {}, "typical CR": {}})
    assert sets_named(two, ["NR 1"]) == ["NR 1"]
    assert sets_named(two, ["archetype=CR"]) == sets_named(two, ["CR"]) == ["CR 1", "CR 2"]
    assert sets_named(two, ["CR 2", "CR"]) == ["CR 2", "CR 1"]
    assert group("set 1") == "set"


def test_every_unknown_set_is_named_with_the_known_ones():
    with pytest.raises(RequestError) as caught:
        sets_named(LIU, ["set 9", "set 1", "archetype=CR"])
    assert [p.found for p in caught.value.problems] == ["set 9", "archetype=CR"]
    assert "set 1, set 3" in caught.value.problems[0].remedy
    with pytest.raises(RequestError, match="only typical values"):
        sets_named(STEIN, ["set 1"])


# who is enrolled


def test_without_a_design_everyone_is_sampled_at_the_times_in_every_output():
    cohort, own = enrolled(LIU, 3, [7.0, 1.0])
    assert cohort.ids == ("1", "2", "3")
    assert rows(cohort.observations)[:4] == [["1", 1.0, 1], ["1", 1.0, 2], ["1", 7.0, 1],
                                             ["1", 7.0, 2]]
    assert (cohort.covariates["NB0"] == 2200.24).all()
    assert own == {}
    assert design(cohort, LIU).observed.sum() == 12


def test_patients_of_several_sets_are_dealt_out_evenly_with_the_sets_own_inputs():
    cohort, own = enrolled(LIU, 6, [7.0], ["set 1", "set 3"])
    table = cohort.covariates
    assert sorted(table["SET"]) == ["set 1"] * 3 + ["set 3"] * 3
    assert (table["NB0"] == table["SET"].map({"set 1": 2200.24, "set 3": 1874.144179})).all()
    assert set(own["ka"]) == {0.65, 0.395195924}
    assert own.keys() == set(LIU.typical)


def test_a_design_gives_samples_doses_and_inputs_and_its_levels_are_not_read(plan):
    like = plan("ID,TIME,DV,AMT,DVID,NB0,WT\na,0,.,5,.,500,70\na,3,<9,.,1,500,70\nb,4,0,.,2,.,\n")
    cohort, _ = enrolled(LIU, None, [], like=like)
    assert cohort.ids == ("a", "b")
    assert rows(cohort.observations) == [["a", 3.0, 1], ["b", 4.0, 2]]
    assert cohort.doses[["ID", "TIME", "AMT"]].to_numpy().tolist() == [["a", 0.0, 5.0]]
    assert cohort.covariates["NB0"].tolist() == [500.0, 2200.24]
    assert cohort.covariates["WT"].iloc[0] == 70


def test_more_patients_follow_those_of_the_design_in_turn(plan):
    like = plan("ID,TIME,NB0\na,3,500\nb,4,600\n")
    cohort, _ = enrolled(LIU, 5, [], like=like)
    assert cohort.ids == ("1", "2", "3", "4", "5")
    assert cohort.covariates["NB0"].tolist() == [500, 600, 500, 600, 500]
    assert cohort.observations.groupby("ID")["TIME"].first().tolist() == [3, 4, 3, 4, 3]
    assert set(cohort.observations["DVID"]) == {1, 2}, "a row without DVID samples every output"


def test_times_stand_above_the_designs_samples_and_its_doses_stay(plan):
    like = plan("ID,TIME,AMT\n1,0,5\n1,3,.\n")
    cohort, _ = enrolled(LIU, None, [7.0], like=like, dvid=[2])
    assert rows(cohort.observations) == [["1", 7.0, 2]]
    assert len(cohort.doses) == 1


def test_a_design_may_be_no_more_than_patients_and_their_inputs(plan):
    like = plan("ID,NB0\n1,500\n2,600\n")
    cohort, _ = enrolled(LIU, None, [7.0], like=like)
    assert cohort.covariates["NB0"].tolist() == [500, 600]
    nothing, _ = enrolled(LIU, None, [], like=like)
    with pytest.raises(DataError, match="no usable observation"):
        design(nothing, LIU)


def test_replicates_in_a_design_are_samples_too(plan):
    assert len(plan("ID,TIME,DV\n1,3,9\n1,3,9\n", [1]).observations) == 2


def test_a_wrong_design_is_refused_with_all_that_is_wrong_in_it(plan):
    with pytest.raises(DataError) as caught:
        plan("ID,TIME,AMT\n1,x,.\n1,2,-5\n1,1,.\n")
    assert len(caught.value.problems) >= 2
    assert {p.line for p in caught.value.problems} >= {2, 3}


def test_a_dose_comes_before_a_sample_at_its_time():
    cohort = planned(
        pd.DataFrame({"ID": ["1"], "TIME": [0.0], "DVID": [1]}),
        pd.DataFrame(index=pd.Index(["1"], name="ID", dtype=object)),
        pd.DataFrame({"line": [9], "ID": ["1"], "TIME": [0.0], "AMT": [5.0], "DURATION": [0.0],
                      "CMT": [1]}))
    assert cohort.doses["line"][0] < cohort.observations["line"][0]


# what is measured


def drawn_of(structure, times, **more):
    model = population(structure)
    cohort, own = enrolled(structure, 20, times, **more)
    seen = design(cohort, structure)
    sigma = {n: 0.3 for n in model.names if n.startswith("sigma")}
    return cohort, seen, simulate(model, seen, sigma, seed=1, own=own)


def test_levels_below_the_limit_are_censored_at_it_and_others_have_four_digits():
    cohort, seen, drawn = drawn_of(STEIN, [1.0, 14.0, 90.0])
    table, warnings = measured(cohort, STEIN, seen, drawn, {"C": 50.0})
    rows = table.observations
    true = drawn.dv[seen.observed]
    assert np.array_equal(rows["CENS"], (true < 50).astype(int))
    assert 0 < rows["CENS"].mean() < 1
    assert (rows.loc[rows["CENS"] == 1, ["DV", "UPPER"]] == 50.0).all(axis=None)
    assert (rows.loc[rows["CENS"] == 1, "LOWER"] == -np.inf).all()
    np.testing.assert_allclose(rows["DV"], np.maximum(true, 50), rtol=5.1e-4)
    assert warnings == ()


def test_a_level_of_zero_is_left_out_and_said():
    cohort, seen, drawn = drawn_of(LIU, [0.0, 7.0])
    table, warnings = measured(cohort, LIU, seen, drawn, {})
    assert not (table.observations["TIME"] == 0).any(), "T is 0 there, and B is the input NB0"
    assert any("20 levels of T are 0" in w.wrong for w in warnings)
    assert not [w for w in measured(cohort, LIU, seen, drawn, {"T": 1.0})[1]
                if "are 0" in w.wrong]


# when they are sampled


def test_samples_usually_begin_with_the_first_dose_and_last_as_long_as_such_data_do():
    def times(name):
        structure = registry.load("models", name)
        return usual_times(structure, usual_doses(structure))
    assert times("barros_2021_cartmath") == [43, 45, 49, 52, 56, 63, 70], "mice, infused on day 42"
    assert times("sahoo_2020_carrgo")[-1] == 5, "in a dish"
    given = doses_written(ORAL, ["5@3", "5@1"])
    assert usual_times(ORAL, given) == [1.5, 2, 3, 5, 9, 13, 25], "a drug, within its first day"
