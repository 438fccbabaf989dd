"""Bytes of a CSV to a table of text: encodings, separators, decimal commas, quotes."""

import numpy as np
import pytest

from carpk.csvfile import read_table, to_numbers
from carpk.problems import DataError

PLAIN = "ID,TIME,DV\n1,0.5,3.25\n1,2,1e3\n"


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "run.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path
    return write


def refusal(path):
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert all(p.severity == "error" and p.file == str(path) for p in caught.value.problems)
    return caught.value.problems[0]


def cells(table):
    return [list(row) for row in zip(*table.columns, strict=True)]


@pytest.mark.parametrize("content", [
    PLAIN, "\ufeff" + PLAIN, PLAIN.replace(",", ";"), PLAIN.replace(",", "\t"),
    PLAIN.replace("\n", "\r\n"), PLAIN.replace("\n", "\r"), PLAIN.replace(",", " , "),
    PLAIN.removesuffix("\n"), PLAIN.replace("ID,TIME", '"ID","TIME"'), PLAIN + "\n\n  \n"])
def test_every_usual_way_to_write_a_table_gives_the_same_text(written, content):
    table = read_table(written(content))
    assert table.names == ("ID", "TIME", "DV")
    assert cells(table) == [["1", "0.5", "3.25"], ["1", "2", "1e3"]]
    assert table.line.tolist() == [2, 3]
    assert not table.warnings


def test_a_row_keeps_the_line_on_which_it_begins(written):
    table = read_table(written('\nID,NOTE\n\n1,"two\nlines"\n2,x\n'))
    assert table.line.tolist() == [4, 6]
    assert cells(table)[0] == ["1", "two\nlines"]


def test_lines_of_separators_are_skipped_with_a_warning(written):
    table = read_table(written(PLAIN + ",,\n,,\n"))
    assert len(table.line) == 2
    assert [(w.line, w.wrong[:7]) for w in table.warnings] == [(4, "2 lines")]


def test_rows_of_another_length_are_kept_for_the_reader_to_refuse(written):
    table = read_table(written("ID,TIME,DV\n1,2\n1,2,3,4\n1,2,3\n"))
    assert table.fields.tolist() == [2, 4, 3]
    assert cells(table) == [["1", "2", ""], ["1", "2", "3"], ["1", "2", "3"]]


def test_a_column_without_a_name_is_not_read_and_said_so_if_it_holds_something(written):
    table = read_table(written("ID,TIME,DV,,\n1,2,3,,x\n"))
    assert table.names == ("ID", "TIME", "DV")
    assert [w.wrong for w in table.warnings] == ["column 5 has no name and is not read"]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_commas_are_read_and_said_so(written, separator):
    text = PLAIN.replace(",", separator).replace(".", ",")
    table = read_table(written(text))
    assert cells(table) == [["1", "0.5", "3.25"], ["1", "2", "1e3"]]
    assert [(w.line, w.found) for w in table.warnings] == [(2, "0,5")]


def test_decimal_commas_beside_decimal_points_are_refused_with_both_lines(written):
    problem = refusal(written("ID;TIME;DV\n1;0,5;3\n1;2;3.5\n"))
    assert (problem.line, problem.found) == (2, "0,5")
    assert "3.5 on line 3" in problem.wrong


def test_a_comma_that_may_mark_thousands_is_refused(written):
    assert "thousands" in refusal(written("ID\tTIME\tDV\n1\t7\t24,000\n")).wrong
    assert cells(read_table(written("ID;TIME;DV\n1;0,125;24,000\n")))[0][2] == "24.000"


@pytest.mark.parametrize(("content", "said"), [
    (b"", "empty"), (b" \n \r\n", "empty"), (b"\xef\xbb\xbf", "empty"),
    (PLAIN.encode("utf-16"), "UTF-16"), (PLAIN.encode("utf-16-le"), "null bytes"),
    (b"PK\x03\x04rest", "workbook"), (b"\x89PNG\r\n\x1a\n\0\0", "null bytes"),
    ("ID,TIME,DV,ORT\n1,2,3,Köln\n".encode("latin-1"), "Latin-1"),
    (b"ID TIME DV\n1 2 3\n", "not by blanks"), (b",,\n1,2,3\n", "names no column"),
    (b'ID,TIME,DV\n1,2,"3\n1,3,4\n', "quotation mark"),
    (b'ID,TIME,DV\n1,2,"3"4\n', "quotation mark"),
    (b"ID,TIME,DV\n1,2," + b"9" * 200_000, "field limit"),
])
def test_what_is_no_table_of_text_is_refused_in_a_sentence(written, content, said):
    assert said in str(refusal(written(content)))


def test_the_first_byte_that_is_not_utf8_is_located(written):
    problem = refusal(written("ID,TIME,DV,ORT\n1,2,3,Bonn\n1,2,3,Köln\n".encode("latin-1")))
    assert (problem.line, problem.found) == (3, r"b'\xf6'")


def test_a_missing_file_a_folder_and_an_impossible_path_are_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.csv").wrong
    assert "folder" in refusal(tmp_path).wrong
    assert "cannot be read" in refusal("a\0b.csv").wrong


def test_only_plain_numbers_are_numbers():
    texts = ["1", "-.5", "+2.", "1e-3", "inf", "", ".", "NA", "NaN", "1_000", "0x1F", "1,5", "٣"]
    values, wrong = to_numbers(np.array(texts, dtype=object))
    np.testing.assert_array_equal(values, [1, -0.5, 2, 1e-3, np.inf] + [np.nan] * 8)
    assert wrong.tolist() == [False] * 9 + [True] * 4


def test_numbers_come_back_to_the_last_digit():
    exact = np.random.default_rng(1).lognormal(0, 20, 2000)
    values, _ = to_numbers(np.array([repr(float(v)) for v in exact], dtype=object))
    assert (values == exact).all()
