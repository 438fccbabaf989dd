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
_SMALL, _SOFT = Pt(7.5), RGBColor(0x5F, 0x5F, 0x5F)
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
    made.styles["Normal"].font.name, made.styles["Normal"].font.size = "Calibri", Pt(10)
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
                io.BytesIO(figures[part.get("data-file")]), width=_PAGE[0] - 2 * _MARGIN)
            said = part.get("aria-label") or part.find("img").get("alt")
            picture._inline.docPr.set("descr", said)
        else:  # a section or a box around others
            _children(made, part, figures)


def _text(part: Any) -> str:
    return " ".join(part.text_content().split())


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
        row.cells[0].width, row.cells[1].width = Cm(4.2), _PAGE[0] - 2 * _MARGIN - Cm(4.2)


def _table(made: Any, part: Any) -> None:
    """A table with its caption above and its head repeated on every page."""
    caption = part.find("caption")
    if caption is not None:
        words = made.add_paragraph().add_run(_text(caption))
        words.font.size, words.font.color.rgb = Pt(8.5), _SOFT
    heads = part.findall("thead/tr")
    lines = [*heads, *part.findall("tbody/tr")]
    table = made.add_table(len(lines), len(heads[0]))
    table.style, table.alignment = "Light List", WD_TABLE_ALIGNMENT.LEFT
    for k, (row, line) in enumerate(zip(table.rows, lines, strict=True)):
        cells = row.cells  # python-docx finds them anew at each call
        for cell, given in zip(cells, line, strict=False):
            small = given.find("small")
            name = _text(given) if small is None else " ".join((given.text or "").split())
            run = _fill(cell, name, _SMALL)
            run.bold = k < len(heads) or given.tag == "th"
            if small is not None:
                about = cell.add_paragraph().add_run(_text(small))
                about.font.size, about.font.color.rgb, about.bold = _SMALL, _SOFT, False
            if given.tag == "td" and "text" not in (given.get("class") or ""):
                cell.paragraphs[0].alignment = WD_ALIGN_PARAGRAPH.RIGHT
        if line.get("class") == "group":
            cells[0].merge(cells[-1])
    for row in table.rows[:len(heads)]:
        repeated = OxmlElement("w:tblHeader")
        repeated.set(qn("w:val"), "true")
        row._tr.get_or_add_trPr().append(repeated)


def _fill(cell: Any, text: str, size: Any) -> Any:
    run = cell.paragraphs[0].add_run(text)
    run.font.size = size
    cell.paragraphs[0].paragraph_format.space_after = Pt(0)
    return run
