"""The page of a fit as a Word document: the same words, tables and figures, to paste from."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import docx
import lxml.html
from docx.enum.table import WD_TABLE_ALIGNMENT
from docx.enum.text import WD_ALIGN_PARAGRAPH
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.shared import Cm, Pt, RGBColor

_PAGE, _MARGIN = (Cm(21.0), Cm(29.7)), Cm(1.8)
_ROOM = _PAGE[0] - 2 * _MARGIN
_SMALL, _SOFT = Pt(7), RGBColor(0x5F, 0x5F, 0x5F)
_HEADINGS = {"h1": 0, "h2": 1}
_LEFT_OUT = ("nav", "script", "style", "details", "summary")  # long lists stay in the page


def document(page: str, figures: Mapping[str, bytes]) -> bytes:
    """A .docx with what the page of a fit shows, but for what its folded parts hold.

    page : the HTML of a report; figures : PNG by the name of the figure's file
    """
    made = docx.Document()
    section = made.sections[0]
    section.page_width, section.page_height = _PAGE
    section.left_margin = section.right_margin = _MARGIN
    section.top_margin = section.bottom_margin = _MARGIN
    made.styles["Normal"].font.name, made.styles["Normal"].font.size = "Arial", Pt(9.5)
    body = lxml.html.fromstring(page).find("body")
    for part in ("header", "main"):
        _children(made, body.find(part), figures)
    title = body.find("header").find("h1")
    made.core_properties.title = _text(title)
    made.core_properties.author, made.core_properties.comments = "", ""
    file = io.BytesIO()
    made.save(file)
    return file.getvalue()


def _children(made: Any, parent: Any, figures: Mapping[str, bytes]) -> None:
    for part in parent.iterchildren():
        kind = part.tag
        if kind in _LEFT_OUT or "screen" in (part.get("class") or "").split():
            continue
        if kind in _HEADINGS:
            made.add_heading(_text(part), _HEADINGS[kind])
        elif kind == "p":
            _paragraph(made.add_paragraph(), part)
        elif kind == "ul":
            for item in part.iterfind("li"):
                _paragraph(made.add_paragraph(style="List Bullet"), item)
        elif kind == "dl":
            _definitions(made, part)
        elif kind == "table":
            _table(made, part)
        elif kind == "figure":
            picture = made.add_paragraph().add_run().add_picture(
                io.BytesIO(figures[part.get("data-file")]), width=_ROOM)
            said = part.get("aria-label") or part.find("img").get("alt")
            picture._inline.docPr.set("descr", said)
        else:  # a section or a box around others
            _children(made, part, figures)


def _text(part: Any) -> str:
    return " ".join(" ".join(part.itertext()).split())  # a line that breaks is two words


def _paragraph(paragraph: Any, part: Any) -> None:
    """The words of an element, with those in <strong> bold."""
    def add(text: str | None, bold: bool) -> None:
        words = " ".join((text or "").split())
        if words:
            before = " " if text and text[0].isspace() else ""
            after = " " if text and text[-1].isspace() else ""
            paragraph.add_run(before + words + after).bold = bold

    add(part.text, False)
    for inner in part.iterchildren():
        add(inner.text_content(), inner.tag == "strong")
        add(inner.tail, False)


def _definitions(made: Any, part: Any) -> None:
    terms = list(part.iterfind("dt"))
    table = made.add_table(len(terms), 2)
    for row, term, said in zip(table.rows, terms, part.iterfind("dd"), strict=True):
        _fill(row.cells[0], _text(term), Pt(9)).font.color.rgb = _SOFT
        _fill(row.cells[1], _text(said), Pt(9))
    _set_widths(table, [Cm(4.2), _ROOM - Cm(4.2)])


def _table(made: Any, part: Any) -> None:
    """A table with its caption above and its head repeated on every page."""
    caption = part.find("caption")
    if caption is not None:
        words = made.add_paragraph().add_run(_text(caption))
        words.font.size, words.font.color.rgb = Pt(8.5), _SOFT
    heads = part.findall("thead/tr")
    lines = [*heads, *part.findall("tbody/tr")]
    table = made.add_table(len(lines), len(heads[0]))
    table.alignment = WD_TABLE_ALIGNMENT.LEFT
    _set_widths(table, _widths(lines))
    margins = _within(table._tbl.tblPr, "w:tblCellMar")
    for side in ("w:left", "w:right"):
        _within(margins, side, w="45", type="dxa")  # twentieths of a point
    for k, (row, line) in enumerate(zip(table.rows, lines, strict=True)):
        cells = row.cells  # python-docx finds them anew at each call
        for cell, given in zip(cells, line, strict=False):
            small = given.find("small")
            name = _text(given) if small is None else " ".join((given.text or "").split())
            _fill(cell, name, _SMALL).bold = k < len(heads) or given.tag == "th"
            if small is not None:
                below = cell.add_paragraph()
                below.paragraph_format.space_after = Pt(2)
                about = below.add_run(_text(small))
                about.font.size, about.font.color.rgb, about.bold = _SMALL, _SOFT, False
            if given.tag == "td" and "text" not in (given.get("class") or ""):
                cell.paragraphs[0].alignment = WD_ALIGN_PARAGRAPH.RIGHT
        if line.get("class") == "group":
            cells[0].merge(cells[-1])
    for k, row in enumerate(table.rows):
        if k < len(heads):
            _within(row._tr.get_or_add_trPr(), "w:tblHeader", val="true")
        _within(row._tr.get_or_add_trPr(), "w:cantSplit", val="true")
        if k in (len(heads) - 1, len(lines) - 1):
            for cell in row.cells:
                borders = _within(cell._tc.get_or_add_tcPr(), "w:tcBorders")
                _within(borders, "w:bottom", val="single", sz="6", color="222222")


def _within(parent: Any, tag: str, **values: str) -> Any:
    """A new element of WordprocessingML that python-docx has no word for."""
    made = OxmlElement(tag)
    for name, value in values.items():
        made.set(qn(f"w:{name}"), value)
    parent.append(made)
    return made


def _widths(lines: list[Any]) -> list[Any]:
    """The width of each column, by its longest entry; a head, and long entries, may break."""
    longest = [7] * len(lines[0])
    for line in lines:
        if line.get("class") == "group":
            continue
        for k, given in enumerate(line):
            words = given.text_content() if given.find("small") is None else given.text
            size = max(map(len, words.split()), default=0) if line is lines[0] else len(words)
            longest[k] = max(longest[k], min(size + 2, 24))
    return [min(int(_ROOM * n / sum(longest)), int(n * Pt(5))) for n in longest]


def _set_widths(table: Any, widths: list[Any]) -> None:
    table.autofit = False
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width


def _fill(cell: Any, text: str, size: Any) -> Any:
    run = cell.paragraphs[0].add_run(text)
    run.font.size = size
    cell.paragraphs[0].paragraph_format.space_after = Pt(0)
    return run
