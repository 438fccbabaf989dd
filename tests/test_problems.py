"""How a problem is printed, and that an error carries all of them."""

import pytest

from carpk.problems import CarpkError, DataError, ModelError, Problem, RequestError, errors

WARNING = Problem("warning", "a DV below its LLOQ is taken as measured")
ERROR = Problem("error", "not a number", "correct the value", "run7.csv", 214, "31", "DV", "x")


def test_a_problem_says_file_line_patient_column_found_wrong_and_remedy():
    assert str(ERROR) == ("run7.csv:214, patient 31, DV = x: not a number\n"
                          "    correct the value")


@pytest.mark.parametrize(("problem", "text"), [
    (Problem("error", "no output is declared"), "no output is declared"),
    (Problem("error", "empty", file="a.csv"), "a.csv: empty"),
    (Problem("error", "missing", column="WT"), "WT: missing"),
    (Problem("error", "unknown", found="nutz"), "found nutz: unknown"),
    (Problem("error", "no rows", patient="3", file="a.csv"), "a.csv, patient 3: no rows"),
])
def test_what_is_not_known_of_a_problem_is_left_out(problem, text):
    assert str(problem) == text


def test_only_errors_refuse():
    assert errors([WARNING, ERROR, WARNING]) == [ERROR]


@pytest.mark.parametrize("kind", [DataError, ModelError, RequestError])
def test_an_error_carries_every_problem_and_prints_them_all(kind):
    refused = kind(iter([ERROR, WARNING]))
    assert isinstance(refused, CarpkError)
    assert refused.problems == (ERROR, WARNING)
    assert str(refused) == f"{ERROR}\n{WARNING}"


def test_one_problem_alone_is_enough_for_an_error():
    assert DataError(ERROR).problems == (ERROR,)
