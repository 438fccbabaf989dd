"""Doses and resets in a CSV: what is repeated, what ends it, what is refused, and the way back."""

import numpy as np
import pandas as pd
import pytest

from carpk import registry
from carpk.cohort import DOSE_COLUMNS, EVENT_COLUMNS, design
from carpk.nonmem import read_csv, to_csv
from carpk.problems import DataError
from carpk.virtual_cohort import enrolled

ORAL = registry.find_model("one_compartment_oral")
HEAD = "ID,TIME,DV,EVID,AMT,RATE,CMT,ADDL,II,SS\n"
SEEN = "1,99,3,0,,,,,,\n"


def doses(cohort, *columns):
    return cohort.doses[list(columns)].values.tolist()


def test_further_doses_stand_in_the_order_of_time_with_the_line_of_the_row_that_adds_them(read):
    cohort = read(HEAD + "1,0,.,1,100,50,2,2,24,0\n1,30,.,1,10,,,,,\n" + SEEN)
    assert list(cohort.doses) == list(DOSE_COLUMNS)
    assert doses(cohort, "line", "TIME", "AMT", "DURATION", "CMT") == [
        [2, 0, 100, 2, 2], [2, 24, 100, 2, 2], [3, 30, 10, 0, 1], [2, 48, 100, 2, 2]]


def test_a_reset_ends_what_is_repeated_and_a_steady_state_is_of_the_first_dose_only(read):
    cohort = read(HEAD + "1,0,.,1,100,,,3,24,2\n1,48,.,3,,,7,,,\n1,50,.,4,20,-2,2,1,12,\n"
                  "1,70,.,1,0,9,1,,,1\n" + SEEN + "2,0,.,1,5,,,1,60,0\n2,99,3,0,,,,,,\n")
    assert list(cohort.doses) == [*DOSE_COLUMNS, *EVENT_COLUMNS]
    assert doses(cohort, "ID", "TIME", "AMT", "DURATION", "EVID", "SS", "II", "RATE") == [
        ["1", 0, 100, 0, 1, 2, 24, 0], ["1", 24, 100, 0, 1, 0, 0, 0], ["1", 48, 0, 0, 3, 0, 0, 0],
        ["1", 50, 20, 0, 4, 0, 0, -2], ["1", 62, 20, 0, 1, 0, 0, -2], ["1", 70, 0, 0, 1, 1, 0, 9],
        ["2", 0, 5, 0, 1, 0, 0, 0], ["2", 60, 5, 0, 1, 0, 0, 0]]


def test_another_event_is_a_row_that_is_not_used(read):
    cohort = read("ID,TIME,DV,EVID,MDV\n1,0,.,2,1\n1,2,7,0,0\n")
    assert cohort.excluded[["line", "reason"]].values.tolist() == [[2, "another event (EVID=2)"]]
    assert not cohort.warnings


@pytest.mark.parametrize(("row", "column", "sentence"), [
    ("1,5,.,1,100,,,2,,", "II", "need the time between doses"),
    ("1,5,.,1,100,,,,,1", "II", "need the time between doses"),
    ("1,5,.,1,100,,,2,-3,", "II", "cannot be negative"),
    ("1,5,.,1,100,,,-2,3,", "ADDL", "cannot be negative"),
    ("1,5,.,1,100,,,1.5,3,", "ADDL", "whole number"),
    ("1,5,.,1,100,,,1e8,3,", "ADDL", "more than 10000"),
    ("1,5,.,1,100,,,,3,3", "SS", "0, 1 or 2"),
    ("1,5,.,1,100,-3,,,,", "RATE", "cannot be negative"),
    ("1,5,.,1,0,5,,,,2", "AMT", "above 0"),
    ("1,5,.,1,0,5,,,12,1", "II", "no II and no ADDL"),
    ("1,5,.,1,0,-2,,,,1", "AMT", "above 0"),
    ("1,5,.,3,9,,,,,", "AMT", "set EVID=4"),
    ("1,5,.,4,,,,,,", "AMT", "without an amount"),
    ("1,5,.,2,9,,,,,", "AMT", "holds no dose"),
    ("1,-5,.,3,,,,,,", "TIME", "before time zero"),
    ("1,5,3,0,,,,1,,", "ADDL", "only a dose is repeated"),
    ("1,5,3,0,,,,,12,", "II", "only a dose is repeated"),
    ("1,5,3,0,,,,,,1", "SS", "only a dose is repeated")])
def test_a_doubtful_event_is_refused_with_its_line_and_column(refused, row, column, sentence):
    rows = ["1,-9,3,0,,,,,,", row] if ",-5," in row else [row]
    problems = [p for p in refused(HEAD + "\n".join([*rows, SEEN])) if p.severity == "error"]
    assert [(p.line, p.column) for p in problems] == [(1 + len(rows), column)]
    assert sentence in problems[0].wrong + problems[0].remedy
    assert problems[0].remedy


def test_an_interval_that_repeats_nothing_is_said(read):
    warning, = read(HEAD + "1,0,.,1,5,,,,24,\n" + SEEN).warnings
    assert (warning.line, warning.column) == (2, "II")


def test_a_model_without_its_own_duration_refuses_to_be_asked_for_it(read):
    cohort = read(HEAD + "1,0,.,1,5,-2,2,,,\n1,9,.,1,5,-1,,,,\n" + SEEN)
    with pytest.raises(DataError) as caught:
        design(cohort, ORAL)
    assert [(p.line, p.column, p.found) for p in caught.value.problems] == [
        (3, "RATE", "-1"), (2, "RATE", "-2")]
    assert "duration of infusions into central" in caught.value.problems[1].wrong


def test_every_event_comes_back_from_its_file_and_in_a_simulation_that_follows_it(read, tmp_path):
    cohort = read(HEAD + "1,0,.,1,100,,,3,24,2\n1,48,.,3,,,,,,\n1,50,.,4,20,-2,2,1,12,\n"
                  "1,60,.,2,,,,,,\n1,70,.,1,0,9,1,,,1\n1,80,.,1,30,4,1,1,6,1\n" + SEEN
                  + "2,0,.,1,5,-1,,1,12,0\n2,99,3,0,,,,,,\n")
    to_csv(cohort, tmp_path / "again.csv")
    again = read_csv(tmp_path / "again.csv")
    for name in ("observations", "doses", "excluded"):
        pd.testing.assert_frame_equal(getattr(cohort, name).drop(columns="line"),
                                      getattr(again, name).drop(columns="line"))
    assert (np.diff(again.doses["line"]) != 0).all()
    followed, _ = enrolled(ORAL, 2, [], like=cohort)
    columns = ["ID", "TIME", "AMT", "DURATION", "CMT", *EVENT_COLUMNS]
    pd.testing.assert_frame_equal(followed.doses[columns], cohort.doses[columns],
                                  check_dtype=False)
