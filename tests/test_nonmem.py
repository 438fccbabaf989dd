"""CSV files in: what is read, and every way a file is refused."""

import math

import numpy as np
import pytest

from carpk import registry

INF = math.inf


def where(problems):
    return [(p.severity, p.line, p.patient, p.column, p.found) for p in problems]


def said(problems):
    return "\n".join(map(str, problems))


# --- what is read ---------------------------------------------------------------------------

def test_measured_left_right_and_interval_censored_rows_hold_the_truth_between_two_ends(read):
    cohort = read("ID,TIME,DV,CENS,LLOQ,LIMIT\n"
                  "1,1,70,0,50,.\n1,2,50,1,.,.\n1,3,0,1,50,.\n1,4,.,1,50,\n1,5,<50,1,50,.\n"
                  "1,6,50,1,50,10\n1,7,900,-1,50,.\n1,8,900,-1,50,2000\n1,9,70,0,50,10\n")
    rows = cohort.observations
    assert rows["line"].tolist() == [*range(2, 11)]
    assert rows["DV"].tolist() == [70, 50, 50, 50, 50, 50, 900, 900, 70]
    assert rows["LOWER"].tolist() == [70, -INF, -INF, -INF, -INF, 10, 900, 900, 70]
    assert rows["UPPER"].tolist() == [70, 50, 50, 50, 50, 50, INF, 2000, 70]
    assert rows["CENS"].tolist() == [0, 1, 1, 1, 1, 1, -1, -1, 0]
    assert where(cohort.warnings) == [("warning", 4, "1", "DV", "0")]  # DV is not the limit


def test_doses_have_an_amount_a_duration_and_a_compartment(read):
    cohort = read("ID,TIME,DV,AMT,RATE,CMT,EVID,MDV\n"
                  "1,0,.,100,.,.,1,1\n1,1,.,100,50,2,1,0\n1,2,3,.,.,1,0,0\n")
    assert cohort.doses.values.tolist() == [[2, "1", 0, 100, 0, 1], [3, "1", 1, 100, 2, 2]]
    assert cohort.observations["line"].tolist() == [4]


def test_without_evid_a_row_with_an_amount_is_a_dose(read):
    cohort = read("ID,TIME,DV,AMT\n1,0,.,100\n1,1,3,0\n1,2,4,.\n")
    assert cohort.doses["line"].tolist() == [2]
    assert cohort.observations["line"].tolist() == [3, 4]


def test_every_row_that_is_not_used_is_listed_with_its_reason(read):
    cohort = read("ID,TIME,DV,DVID,MDV\n1,-1,5,1,0\n1,0,BLQ,1,1\n1,1,high,2,0\n1,2,.,1,0\n"
                  "1,3,7,1,0\n1,4,NA,1,0\n", dvid=[1])
    assert cohort.excluded[["line", "TIME", "DVID", "reason"]].values.tolist() == [
        [2, -1, 1, "before the infusion (TIME < 0)"], [3, 0, 1, "MDV = 1"],
        [4, 1, 2, "DVID not asked for"], [5, 2, 1, "no DV"], [7, 4, 1, "no DV"]]
    assert cohort.observations["line"].tolist() == [6]
    assert where(cohort.warnings) == [("warning", 2, "1", "TIME", "-1"),
                                      ("warning", 5, "1", "DV", ".")]
    assert "2 such rows" in cohort.warnings[1].wrong


def test_covariates_are_one_value_per_patient_as_numbers_or_text(read):
    cohort = read("ID,TIME,DV,AGE,SEX,NOTE\n1,1,2,40,F,.\n1,2,2,.,F,.\n2,1,2,.,NA,.\n2,2,2,50,M,.\n"
                  "3,1,2,.,.,.\n")
    assert cohort.ids == tuple(cohort.covariates.index) == ("1", "2", "3")
    assert cohort.covariates["AGE"].dtype == float
    np.testing.assert_array_equal(cohort.covariates["AGE"], [40, 50, np.nan])
    assert cohort.covariates["SEX"].tolist()[:2] == ["F", "M"]
    assert cohort.covariates["SEX"].isna().tolist() == [False, False, True]
    assert cohort.covariates["NOTE"].isna().all()


def test_a_column_that_changes_within_a_patient_is_set_aside_with_the_first_change(read):
    cohort = read("ID,TIME,DV,CD4,ARM\n1,1,2,300,a\n1,2,2,310,b\n1,3,2,320,b\n2,1,2,1,a\n"
                  "2,2,2,1,a\n")
    assert list(cohort.covariates) == []
    assert where(cohort.varying["CD4"]) == [("error", 3, "1", "CD4", "310")]
    assert where(cohort.varying["ARM"]) == [("error", 3, "1", "ARM", "b")]
    assert "it was 300" in cohort.varying["CD4"][0].wrong
    assert not cohort.warnings


def test_columns_may_have_other_names_in_the_file(read):
    cohort = read("SUBJ;DAY;CONC;BURDEN\n7;1,5;3;9\n",
                  columns={"ID": "SUBJ", "TIME": "DAY", "DV": "CONC", "NB0": "BURDEN"})
    assert cohort.ids == ("7",)
    assert cohort.observations[["TIME", "DV"]].values.tolist() == [[1.5, 3.0]]
    assert cohort.covariates["NB0"].tolist() == [9.0]


def test_units_come_from_the_call_or_else_from_the_card_beside_the_file(read, tmp_path):
    text = "ID,TIME,DV\n1,1,2\n"
    assert read(text).units == {}
    (tmp_path / "card.toml").write_text('[units]\n1 = "copies/ug"\nTIME = "day"\n')
    assert read(text).units == {1: "copies/ug", "TIME": "day"}
    assert read(text, units={1: "cells/uL"}).units == {1: "cells/uL", "TIME": "day"}


def test_a_unit_of_a_column_that_is_not_there_is_refused(refused):
    found, = refused("ID,TIME,DV\n1,1,2\n", units={"AMT": "mg", "TIME": "day"})
    assert (found.column, found.found) == ("unit of AMT", "mg")


def test_a_card_that_cannot_be_read_is_refused(refused, tmp_path):
    (tmp_path / "card.toml").write_text("units = 3 4")
    assert refused("ID,TIME,DV\n1,1,2\n")[0].file == str(tmp_path / "card.toml")
    (tmp_path / "card.toml").write_text("units = 3")
    assert "cannot be read" in said(refused("ID,TIME,DV\n1,1,2\n"))


# --- what is refused ------------------------------------------------------------------------

MEASURED = dict(ID="1", TIME="1", DV="3", EVID="0", AMT="", RATE="", CMT="", MDV="0", CENS="0",
                LLOQ="", LIMIT="", DVID="1", ADDL="0", II="0", SS="0")
DOSE = dict(EVID="1", AMT="5", DV=".")


@pytest.mark.parametrize(("cells", "column", "sentence"), [
    (dict(TIME="x"), "TIME", "days after the infusion"),
    (dict(TIME="."), "TIME", "no time"),
    (dict(TIME="inf"), "TIME", "infinite"),
    (dict(DV="high"), "DV", "not a number"),
    (dict(DV='"3,5"'), "DV", "decimal point"),
    (dict(DV="<50"), "DV", "set CENS=1"),
    (dict(DV="BLQ"), "DV", "set CENS=1"),
    (dict(DV="1e999"), "DV", "infinite"),
    (dict(CENS="2"), "CENS", "-1, 0 or 1"),
    (dict(CENS="0.5"), "CENS", "-1, 0 or 1"),
    (dict(CENS="1", DV="."), "CENS", "neither LLOQ nor DV"),
    (dict(CENS="-1", DV="."), "CENS", "DV does not give"),
    (dict(CENS="1", DV="70", LLOQ="50"), "DV", "DV is above it"),
    (dict(LLOQ="x"), "LLOQ", "not a number"),
    (dict(CENS="1", DV="50", LIMIT="50"), "LIMIT", "lower end"),
    (dict(CENS="-1", DV="50", LIMIT="50"), "LIMIT", "upper end"),
    (dict(EVID="7"), "EVID", "0, 1, 2, 3 or 4"),
    (dict(AMT="5"), "AMT", "an observation holds no dose"),
    (dict(AMT="-5", EVID=""), "AMT", "an observation holds no dose"),
    (dict(AMT="5", EVID=""), "DV", "write two rows"),
    (DOSE | dict(AMT=""), "AMT", "without an amount"),
    (DOSE | dict(AMT="0"), "AMT", "above 0"),
    (DOSE | dict(TIME="-1"), "TIME", "before time zero"),
    (DOSE | dict(RATE="-7"), "RATE", "negative"),
    (DOSE | dict(AMT="1e300", RATE="1e-300"), "RATE", "infinite"),
    (DOSE | dict(CMT="1.5"), "CMT", "whole number"),
    (dict(MDV="5"), "MDV", "0 or 1"),
    (dict(DVID="1.5"), "DVID", "whole number"),
    (dict(DVID="1e30"), "DVID", "whole number"),
    (dict(DVID="."), "DVID", "which output"),
    (dict(ID="."), "ID", "no patient"),
])
def test_a_wrong_value_is_one_problem_with_its_place_and_a_remedy(
        refused, cells, column, sentence):
    fine, wrong = MEASURED | dict(ID="fine"), MEASURED | cells
    problems = refused("\n".join(map(",".join, (MEASURED, fine.values(), wrong.values()))))
    assert where(problems) == [("error", 3, None if column == "ID" else "1", column,
                                wrong[column].strip('"') or None)]
    assert sentence in said(problems)
    assert problems[0].remedy


def test_rows_entered_twice_are_refused_and_replicates_are_kept(read, refused):
    problems = refused("ID,TIME,DV\n1,1,2\n1,1,3\n1,1,2\n")
    assert where(problems)[1:] == [("error", 4, "1", "DV", "2")]
    assert "on line 2" in problems[1].wrong
    cohort = read("ID,TIME,DV,DVID\n1,1,2,1\n1,1,3,1\n1,1,2,2\n")
    assert len(cohort.observations) == 3
    assert [(w.line, w.severity) for w in cohort.warnings] == [(3, "warning")]


def test_the_same_dose_again_is_given_twice_with_a_warning(read):
    cohort = read("ID,TIME,DV,AMT\n1,0,.,5\n1,0,.,5\n1,1,2,.\n")
    assert len(cohort.doses) == 2
    assert "both are given" in cohort.warnings[0].wrong


def test_a_dose_row_with_a_dv_keeps_the_dose_and_says_that_the_dv_is_not_read(read):
    cohort = read("ID,TIME,DV,AMT,EVID,MDV\n1,0,9,5,1,0\n1,1,2,.,0,0\n2,0,9,5,1,1\n2,1,2,.,0,0\n")
    assert where(cohort.warnings) == [("warning", 2, "1", "DV", "9")]


def test_rows_out_of_order_are_refused_where_the_order_breaks(refused):
    problems = refused("ID,TIME,DV\n1,1,2\n1,3,2\n1,2,2\n2,5,2\n1,4,2\n2,6,2\n1,5,2\n")
    assert where(problems) == [("error", 4, "1", "TIME", "2"), ("error", 6, "1", "ID", "1"),
                               ("error", 7, "2", "ID", "2")]


def test_an_uncensored_value_below_its_limit_is_kept_with_a_warning_for_each(read):
    cohort = read("ID,TIME,DV,CENS,LLOQ\n1,1,20,0,50\n1,2,30,,50\n1,3,50,0,50\n")
    assert cohort.observations["CENS"].tolist() == [0, 0, 0]
    assert [w.line for w in cohort.warnings] == [2, 3]


def test_a_patient_without_a_usable_observation_is_refused_with_the_reasons(refused):
    text = "ID,TIME,DV,MDV\n1,1,2,0\n2,-1,2,0\n2,1,2,1\n2,2,2,1\n"
    problems = [p for p in refused(text) if p.severity == "error"]
    assert where(problems) == [("error", None, "2", None, None)]
    assert "1 rows: before the infusion (TIME < 0); 2 rows: MDV = 1" in problems[0].wrong


def test_a_dvid_that_is_not_in_the_file_is_refused(refused):
    assert "the file has 1, 2" in said(refused(
        "ID,TIME,DV,DVID\n1,1,2,1\n1,2,2,2\n", dvid=[1, 3]))


def test_all_problems_of_file_and_model_are_told_at_once_in_the_order_of_lines(refused):
    liu = registry.find_model("liu_l_2022")
    problems = refused("ID,TIME,DV,DVID,NB0\n1,1,BLQ,1,700\n1,2,0,1,700\n1,3,4,7,700\n2,1,x,1,\n"
                       "3,y,z,1,9\n3,1,5,1,8\n", structure=liu)
    assert [(p.line, p.column) for p in problems] == [
        (2, "DV"), (3, "DV"), (4, "DVID"), (5, "DV"), (6, "TIME"), (6, "DV"), (7, "NB0")]


def test_a_patient_who_lost_the_only_row_is_not_also_told_to_have_none(refused):
    stein = registry.find_model("stein_2019")
    for options in ({}, {"structure": stein}):
        problems = refused("ID,TIME,DV\n1,1,BLQ\n2,1,5\n", **options)
        assert [(p.line, p.column) for p in problems] == [(2, "DV")]


def test_a_missing_column_gives_no_problem_for_each_row(refused):
    problems = refused("ID,TIME,CONC,EVID\n1,1,2,0\n2,1,x,9\n",
                       structure=registry.find_model("stein_2019"))
    assert [(p.line, p.column) for p in problems] == [(1, "DV"), (3, "EVID")]


def test_a_model_input_without_a_column_is_told_beside_the_files_own_errors(refused):
    problems = refused("ID,TIME,DV\n1,1,x\n", structure=registry.find_model("liu_l_2022"))
    assert {p.column for p in problems} == {"DV", "NB0"}
