"""Columns of a text table as numbers, with every wrong cell told."""

import pytest

from carpk.csvfile import read_table
from carpk.records import Records


@pytest.fixture
def records(tmp_path):
    def read(text, **columns):
        path = tmp_path / "run.csv"
        path.write_text(text)
        return Records(read_table(path), columns)
    return read


def told(rows):
    return [(p.severity, p.line, p.column, p.wrong) for p in rows.problems]


def test_reserved_names_are_found_in_small_letters_and_others_kept_as_written(records):
    rows = records("id,Time,dv,Sex\n1,2,3,F\n")
    assert set(rows.texts) == {"ID", "TIME", "DV", "Sex"}
    assert not rows.problems


def test_a_column_is_read_under_our_name_and_the_one_it_replaces_is_not(records):
    rows = records("ID,TIME,DV,LNDV,BURDEN\n1,2,3,1.1,9\n", dv="LNDV", NB0="BURDEN")
    assert rows.numbers("DV").tolist() == [1.1]
    assert rows.numbers("NB0").tolist() == [9]
    assert told(rows) == [("warning", 1, "DV", "not read, since LNDV is read as DV")]


def test_a_missing_column_is_named_with_the_one_that_may_be_meant(records):
    rows = records("Patient,DAY,VALUEX\n1,2,3\n", TIME="DAYS")
    text = "\n".join(map(str, rows.problems))
    assert "did you mean DAY?" in text
    assert "--column ID=Patient" in text
    assert "--column DV=YOURS; the file has Patient, DAY, VALUEX" in text
    assert rows.bad.all()


def test_names_given_twice_or_in_doubt_are_refused(records):
    rows = records("ID,time,Time,DV,DV\n1,2,2,3,3\n")
    assert [(c, w) for _, _, c, w in told(rows)] == [
        ("DV", "two columns have this name"), ("TIME", "time and Time may both be meant")]


def test_a_file_without_a_header_is_told_so(records):
    assert "the first line holds numbers" in str(records("1,0.5,3\n1,2,4\n").problems[0])


@pytest.mark.parametrize(("line", "said"), [
    ("#1,2,3", "comment"), ("C,2,3", "comment"), ("C1,2,3", "comment"),
    ("ID,TIME,DV", "the header again"), ("-,day,copies/ug", "units"),
    ("1,2", "2 fields, but the header has 3"), ("1,2,3,5", "4 fields, but the header has 3")])
def test_a_line_that_is_no_row_of_data_gives_one_problem(records, line, said):
    rows = records(f"ID,TIME,DV\n{line}\n1,7,3\n")
    rows.numbers("TIME")
    rows.numbers("DV")
    assert [p.line for p in rows.problems] == [2]
    assert said in rows.problems[0].wrong
    assert rows.unread.tolist() == [True, False]


def test_patients_may_be_called_by_a_letter_and_a_number(records):
    assert not records("ID,TIME,DV\nC1,2,3\nC2,7,3\n").problems
    assert not records("ID,TIME,DV\nA,2,3\nC,7,3\n").problems


def test_a_patient_number_written_as_a_float_is_the_same_patient(records):
    rows = records("ID,TIME,DV\n1.0,2,3\n1,7,3\n01,7,3\n1.5,7,3\n")
    assert rows.ids.tolist() == ["1", "1", "01", "1.5"]


def test_a_row_without_a_patient_and_a_file_without_rows_are_refused(records):
    assert told(records("ID,TIME,DV\n.,2,3\n"))[0][1:] == (2, "ID", "no patient is named")
    assert "no rows" in records("ID,TIME,DV\n").problems[0].wrong


def test_what_is_refused_is_cut_to_a_readable_length(records):
    rows = records("ID,TIME,DV\n1,2," + "x" * 5000 + "\n")
    rows.numbers("DV")
    assert len(rows.problems[0].found) == 40
