"""`carpk report`: its options."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """What a report can be written as."""

    html = "html"
    docx = "docx"


def command(
        fit: Annotated[Path, typer.Argument(metavar="FIT", help="the folder of a fit")],
        form: Annotated[Format, typer.Option(
            "--format", help="html: one page; docx: also a Word document of the same")]
        = Format.html,
        png: Annotated[bool, typer.Option(
            "--png", help="The plots as PNG too, beside the SVG.")] = False) -> None:
    """Make the tables, plots and page of a fit anew."""
    from carpk.fitting import load_fit
    from carpk.program_cache import keep_programs
    from carpk.reporting import report
    keep_programs()
    typer.echo(report(load_fit(fit), fit, png=png, docx=form is Format.docx))
