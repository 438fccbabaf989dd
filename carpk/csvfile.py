"""The bytes of a CSV file become columns of text: encoding, separator, quotes, decimal commas."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
import pandas as pd

from carpk.problems import DataError, Problem

SEPARATORS = (",", ";", "\t")
MISSING = ("", ".", "NA", "NaN", "nan")

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?[Ii]nf(inity)?", re.ASCII)
_POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?", re.ASCII)
_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)


@dataclass(frozen=True, eq=False)
class TextTable:
    """The named columns of a file, as text without surrounding blanks.

    names : the header; columns : one (row,) array of str each, "" where a row is too short
    line : (row,) the file's line on which the row begins, the header's being 1
    fields : (row,) how many fields the row really has; `width` is what the header has
    """

    file: str
    sha256: str
    names: tuple[str, ...]
    columns: tuple[np.ndarray, ...]
    line: np.ndarray
    fields: np.ndarray
    width: int
    warnings: tuple[Problem, ...] = ()


def read_table(path: str | Path) -> TextTable:
    """The file as text. A file that is no table of text raises DataError with the reason.

    UTF-8 with or without a byte order mark; comma, semicolon or tab, whichever the header
    holds most of. Rows of the wrong length are kept for the caller to refuse.
    """
    file = str(path)
    content = _content(path, file)
    text = _decoded(content, file)
    first = next(row for row in io.StringIO(text, newline="") if row.strip())
    bare = re.sub(r'"[^"]*"', "", first)
    separator = max(SEPARATORS, key=bare.count)
    if separator not in bare:
        raise _refusal(file, "the header holds no comma, semicolon or tab, so it is one column",
                       "separate the columns by one of these, not by blanks", 1, first.strip())
    numbered = _records(text, separator, file)
    header, records = numbered[0][1], numbered[1:]
    values = [(k, row) for k, row in records if any(map(str.strip, row))]
    width = len(header)
    fields = np.array([len(row) for _, row in values], dtype=np.int64)
    line = np.array([k for k, _ in values], dtype=np.int64)
    across = zip_longest(*(row for _, row in values), fillvalue="")
    columns = [_stripped(c) for c in islice(across, width)]
    columns += [np.full(len(values), "", dtype=object)] * (width - len(columns))
    warnings = []
    if len(values) < len(records):
        blank = next(k for k, row in records if not any(map(str.strip, row)))
        warnings.append(Problem("warning", f"{len(records) - len(values)} lines hold separators "
                                "and no value: skipped", "", file, blank))
    if separator != ",":
        columns, found = _decimal_points(columns, line, file)
        warnings += found
    names = [name.strip() for name in header]
    nameless = [k for k, name in enumerate(names) if not name]
    warnings += [Problem("warning", f"column {k + 1} has no name and is not read",
                         "give it one in the header if it matters", file, 1)
                 for k in nameless if any(columns[k])]
    named = [k for k in range(width) if k not in nameless]
    if not named:
        raise _refusal(file, "the header names no column", "write the names above the values", 1)
    return TextTable(file, hashlib.sha256(content).hexdigest(), tuple(names[k] for k in named),
                     tuple(columns[k] for k in named), line, fields, width, tuple(warnings))


def to_numbers(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Text (row,) as float, and which of it is present without being a number.

    Missing text and text that is no number are NaN; "inf" is a number here.

    >>> to_numbers(np.array(["3.5", "NA", "<50"], dtype=object))
    (array([3.5, nan, nan]), array([False, False,  True]))
    """
    codes, distinct = pd.factorize(texts)
    # exact, where pandas may miss the last digit; and without Python's own "1_000"
    values = np.array([float(t) if _NUMBER.fullmatch(t) else np.nan for t in distinct], dtype=float)
    wrong = np.array([t not in MISSING for t in distinct], dtype=bool) & np.isnan(values)
    return values[codes], wrong[codes]


def matching(texts: np.ndarray, test: Callable[[str], object]) -> np.ndarray:
    """Which of the texts (row,) pass a test, asked once for each distinct text."""
    codes, distinct = pd.factorize(texts)
    return np.array([bool(test(t)) for t in distinct], dtype=bool)[codes]


def _refusal(file: str, wrong: str, remedy: str, line: int | None = None,
             found: str | None = None) -> DataError:
    return DataError(Problem("error", wrong, remedy, file, line, found=found and found[:60]))


def _content(path: str | Path, file: str) -> bytes:
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise _refusal(file, "no such file", "check the path") from None
    except IsADirectoryError:
        raise _refusal(file, "this is a folder", "name a CSV file in it") from None
    except (OSError, ValueError) as failure:  # ValueError: a path with a null character
        raise _refusal(file, f"cannot be read: {failure}", "check the path") from None
    if not content.strip():
        raise _refusal(file, "the file is empty", "it needs a header and rows")
    return content


def _decoded(content: bytes, file: str) -> str:
    as_utf8 = "save it as CSV in UTF-8"
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _refusal(file, "the file is in UTF-16", as_utf8)
    if content[:4] == b"PK\x03\x04" or content[:4] == b"\xd0\xcf\x11\xe0":
        raise _refusal(file, "this is a workbook or an archive, not text", as_utf8)
    if b"\0" in content:
        raise _refusal(file, "the file holds null bytes: it is binary or in UTF-16", as_utf8,
                       content[:content.index(b"\0")].count(b"\n") + 1)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise _refusal(file, "this line is not in UTF-8 (perhaps in Latin-1)", as_utf8,
                       content[:failure.start].count(b"\n") + 1,
                       repr(content[failure.start:failure.end])) from None
    if not text.strip():
        raise _refusal(file, "the file is empty", "it needs a header and rows")
    return text


def _records(text: str, separator: str, file: str) -> list[tuple[int, list[str]]]:
    """Every record with the line it begins on; blank lines are left out."""
    # strict: a stray quote must be an error, or it would swallow the rows up to the next one
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True,
                        skipinitialspace=True)
    begin, records = 1, []
    try:
        for row in reader:
            if len(row) > 1 or (row and row[0].strip()):
                records.append((begin, row))
            begin = reader.line_num + 1
    except csv.Error as failure:
        raise _refusal(file, f"the row that begins here cannot be read: {failure}",
                       "a quotation mark that is not closed, or not doubled inside quotes?",
                       begin) from None
    return records


def _stripped(texts: tuple[str, ...]) -> np.ndarray:
    codes, distinct = pd.factorize(np.array(texts, dtype=object))
    return np.array([t.strip() for t in distinct], dtype=object)[codes]


def _decimal_points(columns: list[np.ndarray], line: np.ndarray, file: str) \
        -> tuple[list[np.ndarray], list[Problem]]:
    """Numbers with a decimal comma get a point, if the file leaves no doubt that this is meant."""
    def cells(pattern: re.Pattern[str]) -> list[tuple[int, str]]:
        """The first row on which each distinct text of that pattern stands."""
        return [(row, t) for column in columns
                for row, t in zip(*_first_rows(column), strict=True) if pattern.fullmatch(t)]

    commas, points = cells(_COMMA), cells(_POINT)
    if not commas:
        return columns, []
    row, text = min(commas)
    if points:
        other, mixed = min(points)
        raise _refusal(file, f"decimal commas here and decimal points ({mixed} on line "
                       f"{line[other]}) in one file", "write every number with a decimal point",
                       int(line[row]), text)
    if all(_THOUSANDS.fullmatch(t) for _, t in commas):
        raise _refusal(file, "is this comma for decimals or for thousands? no number of the "
                       "file tells", "write numbers with a decimal point and no other mark",
                       int(line[row]), text)
    read = [np.array([t.replace(",", ".") if _COMMA.fullmatch(t) else t for t in distinct],
                     dtype=object)[codes] for codes, distinct in map(pd.factorize, columns)]
    return read, [Problem("warning", "decimal commas are read as decimal points", "", file,
                          int(line[row]), found=text)]


def _first_rows(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes, distinct = pd.factorize(column)
    return np.unique(codes, return_index=True)[1], distinct
