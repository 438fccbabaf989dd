"""`carpk report`: its options."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from carpk.cli_options import Band


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
            "--png", help="The plots as PNG too, beside the SVG.")] = False,
        band: Band = None) -> None:
    """Make the tables, plots and page of a fit anew."""
    from carpk.covariate_effects import with_band
    from carpk.fitting import load_fit
    from carpk.program_cache import keep_programs
    from carpk.reporting import report
    keep_programs()
    typer.echo(report(with_band(load_fit(fit), band), fit, png=png, docx=form is Format.docx))
