"""carpk.epochs: rules that fill a column between its rows, and where a patient's epochs begin."""

import numpy as np
import pandas as pd
import pytest

from carpk.epochs import RULES, epochs_between

TIMES = np.array([0.0, 2.0, 2.0, 5.0, 9.0])
WT = np.array([np.nan, 60.0, 66.0, np.nan, 80.0])


def rows(**columns):
    return pd.DataFrame({"line": np.arange(2, 7), "ID": "1", "TIME": TIMES, **columns})


def value(epochs, column, time, line):
    """The column at a time, read as a row of that line would read it."""
    k = int(epochs.at(np.array([[time]]), np.array([[line]]))[0, 0])
    first, last = epochs.first[column][k], epochs.last[column][k]
    begin, end = epochs.start[0, k], [*epochs.start[0, 1:], np.inf][k]
    if not (np.isfinite(begin) and np.isfinite(end)) or first == last:
        return first
    return first + (last - first) * (time - begin) / (end - begin)


@pytest.mark.parametrize(("rule", "expected"), [
    # at the rows (the second and third at one time), and between them at 1, 3.5, 7, and at 12
    ("locf", [60, 60, 66, 66, 80, 60, 66, 66, 80]),
    ("nocb", [60, 60, 66, 80, 80, 60, 80, 80, 80]),
    ("linear", [60, 60, 66, 72, 80, 60, 69, 76, 80]),
    ("window", [0, 60, 66, 66, 80, 0, 66, 66, 0]),
])
def test_a_rule_says_what_a_column_is_at_its_rows_and_between_them(rule, expected):
    found = epochs_between(rows(WT=WT), ["1"], {"WT": rule})
    at = [*zip(TIMES, range(2, 7), strict=True), (1, 99), (3.5, 99), (7, 99), (12, 99)]
    assert [value(found, "WT", float(t), line) for t, line in at] == pytest.approx(expected)


def test_linear_goes_straight_as_numpy_interpolates():
    found = epochs_between(rows(WT=WT), ["1"], {"WT": "linear"})
    t = np.linspace(2.01, 8.99, 50)
    assert [value(found, "WT", x, 99) for x in t] == pytest.approx(
        np.interp(t, [2.0, 9.0], [66.0, 80.0]))


def test_an_epoch_begins_only_where_something_changes():
    still = epochs_between(rows(A=[1.0, 1, 1, 1, 1], B=[2.0, 2, 2, 3, 3]), ["1"],
                           {"A": "locf", "B": "locf"})
    assert still.start.tolist() == [[-np.inf, 5.0]]
    assert still.first.to_numpy().tolist() == [[1.0, 2.0], [1.0, 3.0]]


def test_a_patient_without_rows_is_padded_and_has_no_value_but_is_off():
    found = epochs_between(rows(A=[1.0, 2, 3, 4, 5], ARM=["a", "b", "b", "b", "b"]), ["1", "9"],
                           {"A": "locf", "ARM": "window"})
    assert found.lasting().sum(axis=1).tolist() == [found.start.shape[1], 1]
    none = found.first.iloc[found.start.shape[1]]
    assert np.isnan(none["A"])
    assert none["ARM"] == "off"


@pytest.mark.parametrize("rule", RULES)
def test_a_row_reads_its_own_value_under_every_rule(rule):
    found = epochs_between(rows(WT=WT), ["1"], {"WT": rule})
    for t, line, own in zip(TIMES, range(2, 7), WT, strict=True):
        assert np.isnan(own) or value(found, "WT", float(t), line) == own
