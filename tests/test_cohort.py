"""From the tables of a cohort to the arrays of a design."""

import time
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carpk import registry
from carpk.cohort import Cohort, Design, design, quantification_limits
from carpk.nonmem import read_csv, to_csv
from carpk.problems import DataError, Problem

STEIN = registry.find_model("stein_2019")
LIU = registry.find_model("liu_l_2022")
ORAL = registry.find_model("one_compartment_oral")


def cohort_of(*rows, doses=(), covariates=None, ids=None, **more):
    """A cohort from rows (ID, TIME, DVID, LOWER, UPPER) and doses (ID, TIME, AMT)."""
    seen = pd.DataFrame(rows, columns=["ID", "TIME", "DVID", "LOWER", "UPPER"]).astype(
        {"TIME": float, "DVID": int, "LOWER": float, "UPPER": float})
    seen["line"] = np.arange(len(seen)) + 2
    seen["CENS"] = np.where(seen["UPPER"] == np.inf, -1, seen["LOWER"] < seen["UPPER"]).astype(int)
    seen["DV"] = seen["UPPER"].where(seen["CENS"] >= 0, seen["LOWER"])
    given = pd.DataFrame(doses, columns=["ID", "TIME", "AMT"]).astype({"TIME": float, "AMT": float})
    given = given.assign(DURATION=0.0, CMT=1, line=np.arange(len(given)) + 200)
    ids = ids or tuple(dict.fromkeys(seen["ID"]))
    empty = pd.DataFrame(columns=["line", "ID", "TIME", "DVID", "DV", "reason"])
    return Cohort(ids=ids, observations=seen, doses=given, excluded=more.pop("excluded", empty),
                  covariates=pd.DataFrame(covariates or {}, index=pd.Index(ids, name="ID")),
                  source="run.csv", sha256="", **more)


def measured(patient, when, dv, dvid=1):
    return patient, when, dvid, dv, dv


def refusals(cohort, model):
    with pytest.raises(DataError) as caught:
        design(cohort, model)
    return [(p.line, p.patient, p.column, p.wrong) for p in caught.value.problems
            if p.severity == "error"]


def patient_rows(seen: Design):
    """What each patient's part of a design says, padding apart."""
    return {i: (seen.line[k, :n].tolist(), seen.time[k, :n].tolist(), seen.lower[k, :n].tolist(),
                seen.upper[k, :n].tolist(), seen.output[k, :n].tolist(),
                {name: v[k].tolist() for name, v in seen.inputs.items()},
                [*zip(seen.dose_line[k], seen.dose_time[k], seen.dose_amount[k],
                      seen.dose_state[k], strict=True)][:int((seen.dose_line[k] > 0).sum())])
            for k, i in enumerate(seen.ids) for n in [int(seen.observed[k].sum())]}


def test_a_design_is_padded_with_the_last_time_and_points_back_to_the_lines():
    seen = design(cohort_of(measured("b", 1, 5), measured("b", 7, 9), measured("a", 2, 3)), STEIN)
    assert seen.ids == ("b", "a")
    assert seen.time.tolist() == [[1, 7], [2, 2]]
    assert seen.observed.tolist() == [[True, True], [True, False]]
    assert seen.line.tolist() == [[2, 3], [4, 0]]
    assert seen.lower.tolist() == seen.upper.tolist() == [[5, 9], [3, 1]]
    assert not seen.censored.any()
    assert seen.dose_time.shape == (2, 0)


def test_censored_is_where_the_truth_lies_between_two_ends():
    seen = design(cohort_of(("1", 1, 1, -np.inf, 50), ("1", 2, 1, 9, 9), ("1", 3, 1, 900, np.inf),
                            ("2", 3, 1, 10, 50)), STEIN)
    assert seen.censored.tolist() == [[True, False, True], [True, False, False]]


def test_outputs_and_states_are_counted_as_the_model_lists_them():
    seen = design(cohort_of(measured("1", 1, 5, 2), measured("1", 1, 9, 1),
                            covariates={"NB0": [700.0]}), LIU)
    assert seen.output.tolist() == [[1, 0]]
    assert seen.inputs["NB0"].tolist() == [700]
    dosed = design(cohort_of(measured("1", 1, 5), measured("2", 1, 5), doses=[("2", 0, 100)]), ORAL)
    assert dosed.dose_amount.tolist() == [[0], [100]]
    assert dosed.dose_state.tolist() == [[0], [0]]
    assert dosed.dose_line.tolist() == [[0], [200]]


LEVELS = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.tuples(st.floats(0, 300), st.floats(0.1, 1e5)),
                                        min_size=1, max_size=5), min_size=1)


@settings(deadline=None)
@given(levels=LEVELS, dosed=st.sets(st.sampled_from("abcdef")), shuffle=st.randoms())
def test_the_order_of_patients_changes_no_patients_rows(levels, dosed, shuffle):
    rows = [measured(i, t, dv) for i, pairs in levels.items() for t, dv in sorted(pairs)]
    cohort = cohort_of(*rows, doses=[(i, 0, 5) for i in levels if i in dosed])
    order = list(cohort.ids)
    shuffle.shuffle(order)
    turned = cohort.select(order)
    assert turned.ids == tuple(turned.covariates.index) == tuple(order)
    assert patient_rows(design(turned, ORAL)) == patient_rows(design(cohort, ORAL))
    assert cohort.select(cohort.ids).observations.equals(cohort.observations)


@settings(deadline=None)
@given(levels=LEVELS, dosed=st.booleans(), more=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_padding_keeps_what_was_observed_and_given(levels, dosed, more):
    rows = [measured(i, t, dv) for i, pairs in levels.items() for t, dv in sorted(pairs)]
    plain = design(cohort_of(*rows, doses=[(i, 0, 5) for i in levels if dosed]), ORAL)
    wide = plain.padded(*more)
    assert patient_rows(wide) == patient_rows(plain)
    assert wide.time.shape == wide.observed.shape == (len(levels), plain.time.shape[1] + more[0])
    assert wide.dose_time.shape == (len(levels), int(dosed) + more[1])
    assert wide.observed.sum() == plain.observed.sum()
    assert wide.dose_amount.sum() == plain.dose_amount.sum()
    assert (np.diff(wide.time, axis=1) >= 0).all()
    for f in fields(Design):
        before, after = getattr(plain, f.name), getattr(wide, f.name)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype
            assert before.shape[1] + more[f.name.startswith("dose")] == after.shape[1]


def test_selecting_keeps_everything_of_the_chosen_patients_in_the_asked_order():
    excluded = pd.DataFrame({"line": [9], "ID": ["c"], "TIME": [0.0], "DVID": [1], "DV": [1.0],
                             "reason": ["MDV = 1"]})
    cohort = cohort_of(measured("a", 1, 2), measured("b", 1, 3), measured("c", 1, 4),
                       doses=[("b", 0, 5), ("c", 0, 6)], covariates={"AGE": [1.0, 2.0, 3.0]},
                       excluded=excluded)
    part = cohort.select(["c", "a"])
    assert part.observations["ID"].tolist() == ["c", "a"]
    assert part.doses["AMT"].tolist() == [6]
    assert part.covariates["AGE"].tolist() == [3, 1]
    assert part.excluded["line"].tolist() == [9]
    assert cohort.select([]).ids == ()
    with pytest.raises(KeyError, match="no patient d, e"):
        cohort.select(["d", "a", "e"])


def test_a_patient_without_an_input_takes_its_default_and_without_default_is_refused():
    rows = measured("1", 1, 5), measured("2", 1, 5)
    seen = design(cohort_of(*rows, covariates={"TTOCI": [3.0, np.nan]}), STEIN)
    assert seen.inputs["TTOCI"].tolist() == [3, np.inf]
    assert seen.inputs["TSTER"].tolist() == [np.inf, np.inf]
    assert [(p, c) for _, p, c, _ in refusals(cohort_of(*rows, covariates={
        "NB0": [700.0, np.nan]}), LIU)] == [("2", "NB0")]
    assert [(p, c) for _, p, c, _ in refusals(cohort_of(*rows), LIU)] == [(None, "NB0")]


def test_an_input_in_words_or_with_several_values_is_refused():
    rows = measured("1", 1, 5), measured("2", 1, 5)
    assert refusals(cohort_of(*rows, covariates={"NB0": ["700", "many"]}), LIU) == [
        (None, "2", "NB0", "not a number")]
    change = Problem("error", "not one value", line=7, patient="2", column="NB0")
    assert refusals(cohort_of(*rows, varying={"NB0": (change,)}), LIU) == [
        (7, "2", "NB0", "not one value")]
    design(cohort_of(*rows, varying={"NB0": (change,)}), STEIN)  # nobody asked for it


def test_a_row_at_time_zero_that_is_an_input_is_not_fitted_and_is_listed():
    cohort = cohort_of(measured("1", 0, 700, 2), measured("1", 0, 3, 1), measured("1", 5, 600, 2),
                       covariates={"NB0": [700.0]})
    seen = design(cohort, LIU)
    assert seen.line.tolist() == [[3, 4]]
    assert seen.excluded[["line", "reason"]].values.tolist() == [
        [2, "B at time 0 is the model's input NB0"]]
    assert [w.severity for w in seen.warnings] == ["warning"]


def test_a_patient_of_whom_only_inputs_are_left_is_refused_with_the_reason():
    cohort = cohort_of(measured("1", 0, 700, 2), measured("2", 5, 600, 2),
                       covariates={"NB0": [700.0, 9.0]})
    (line, patient, column, wrong), = refusals(cohort, LIU)
    assert (line, patient, column) == (None, "1", None)
    assert wrong == ("no usable observation (1 rows: B at time 0 is the model's input NB0)")


def test_an_unknown_dvid_is_one_problem_for_all_its_rows():
    cohort = cohort_of(measured("1", 1, 5, 3), measured("1", 2, 5, 1), measured("2", 1, 5, 3))
    (line, _, column, wrong), = refusals(cohort, STEIN)
    assert (line, column) == (2, "DVID")
    assert "2 rows" in wrong


@pytest.mark.parametrize("row", [
    ("1", 1, 1, 0, 0), ("1", 1, 1, -3, -3), ("1", 1, 1, -np.inf, 0)])
def test_a_value_or_a_limit_of_zero_is_refused_on_the_log_scale_only(row):
    (line, patient, column, wrong), = refusals(cohort_of(row), STEIN)
    assert (line, patient, column) == (2, "1", "DV")
    assert "log scale" in wrong
    assert design(cohort_of(row), ORAL).observed.all()


def test_doses_of_a_model_without_states_are_not_used_and_said_so():
    seen = design(cohort_of(measured("1", 1, 5), doses=[("1", 0, 100)]), STEIN)
    assert seen.dose_time.shape == (1, 0)
    assert "takes no dose: 1 dose rows" in seen.warnings[0].wrong


def test_a_dose_into_a_state_that_is_not_there_is_refused():
    cohort = cohort_of(measured("1", 1, 5), doses=[("1", 0, 100)])
    wrong = replace(cohort, doses=cohort.doses.assign(CMT=3))
    (line, patient, column, sentence), = refusals(wrong, ORAL)
    assert (line, patient, column) == (200, "1", "CMT")
    assert "1 = depot, 2 = central" in sentence


def test_another_unit_is_refused_where_the_equations_hold_the_models():
    liu = cohort_of(measured("1", 1, 5), covariates={"NB0": [700.0]}, units={1: "copies/ug"})
    assert "cannot be re-scaled" in refusals(liu, LIU)[0][3]
    design(cohort_of(measured("1", 1, 5), units={1: "cells/uL"}), STEIN)


def test_a_dose_in_another_unit_is_refused_and_one_far_from_the_usual_is_doubted():
    rows, doses = measured("1", 1, 5), [("1", 0, 100)]
    for units in ({"AMT": "ug"}, {"AMT:depot": "ug", "AMT": "mg"}):
        (line, _, column, sentence), = refusals(cohort_of(rows, doses=doses, units=units), ORAL)
        assert (line, column) == (200, "unit of AMT:depot")
        assert "a dose into depot of one_compartment_oral is in mg" in sentence
    assert not design(cohort_of(rows, doses=doses, units={"AMT": "mg"}), ORAL).warnings
    assert "has no state gut" in refusals(
        cohort_of(rows, doses=doses, units={"AMT:gut": "mg"}), ORAL)[0][3]
    far = [("1", 0, 1e8)]
    doubt, = design(cohort_of(rows, doses=far), ORAL).warnings
    assert (doubt.line, doubt.column, doubt.found) == (200, "AMT", "1e+08 (median)")
    assert not design(cohort_of(rows, doses=far, units={"AMT": "mg"}), ORAL).warnings


def test_a_time_or_an_input_in_another_unit_is_refused():
    liu = cohort_of(measured("1", 1, 5), covariates={"NB0": [700.0]},
                    units={"TIME": "h", "NB0": "cells/mL", 1: "cells/µL"})
    assert [(column, sentence.partition(":")[0]) for *_, column, sentence in refusals(liu, LIU)] \
        == [("unit of TIME", "liu_l_2022 takes TIME in day"),
            ("unit of NB0", "liu_l_2022 takes NB0 in cells/uL")]


@pytest.mark.slow  # passed on a quiet machine, the only place where a time means something
def test_a_large_cohort_becomes_a_design_in_a_second():
    patients, each = 8000, 13
    ids = np.repeat(np.arange(patients).astype(str), each)
    rows = zip(ids, np.tile(np.arange(each), patients), np.ones(len(ids)), np.ones(len(ids)),
               np.ones(len(ids)), strict=True)
    cohort = cohort_of(*rows)
    begin = time.process_time()
    seen = design(cohort, STEIN)
    cohort.select(cohort.ids[::-1])
    assert time.process_time() - begin < 1
    assert seen.observed.all()
    assert seen.time.shape == (patients, each)


def test_the_limit_of_a_measured_row_is_its_own_or_that_of_the_nearest_censored_row(tmp_path):
    file = tmp_path / "run.csv"
    file.write_text("ID,TIME,DV,CENS,LLOQ\n1,1,50,1,50\n1,7,900,0,.\n1,90,20,1,20\n"
                    "2,7,900,0,10\n3,7,900,0,.\n4,1,50,1,50\n")
    cohort = read_csv(file)
    rows = cohort.observations
    limits = quantification_limits(
        rows["ID"].to_numpy(), rows["DVID"].to_numpy(), rows["TIME"].to_numpy(),
        rows["LOWER"].to_numpy(), rows["UPPER"].to_numpy(), rows["LLOQ"].to_numpy())
    assert limits.tolist() == [50, 50, 20, 10, 50, 50]
    seen = design(cohort, STEIN)
    np.testing.assert_array_equal(seen.lloq[0], [50, np.nan, 20])
    assert np.isnan(seen.padded(observations=2).lloq[0, -1])
    to_csv(cohort, tmp_path / "again.csv")
    again = read_csv(tmp_path / "again.csv").observations
    pd.testing.assert_series_equal(again["LLOQ"], rows["LLOQ"])
