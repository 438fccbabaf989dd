"""`carpk tables`: its options."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from carpk.cli_options import Band


class Format(StrEnum):
    """What tables can be written as, beside CSV."""

    md = "md"
    html = "html"
    latex = "latex"
    docx = "docx"


def command(
        fit: Annotated[Path, typer.Argument(metavar="FIT", help="the folder of a fit")],
        form: Annotated[Format, typer.Option(
            "--format", help="of the files; docx is one document with all tables")] = Format.md,
        out: Annotated[Path | None, typer.Option(
            help="the folder they are written into; default: tables of the fit's folder",
            metavar="FOLDER")] = None,
        overwrite: Annotated[bool, typer.Option(
            "--overwrite", help="Replace files that are there.")] = False,
        band: Band = None) -> None:
    """Population, derived, correlation, individual and covariate tables to print in a paper."""
    from carpk.covariate_effects import with_band
    from carpk.fitting import load_fit
    from carpk.outfiles import not_free
    from carpk.paper_tables import for_paper, written
    from carpk.problems import RequestError
    files = written(for_paper(with_band(load_fit(fit), band)), form.value)
    folder = out or fit / "tables"
    if out is None:
        folder.mkdir(exist_ok=True)
    found = not_free([folder / name for name in files], overwrite)
    if found:
        raise RequestError(found)
    for name, content in files.items():
        (folder / name).write_bytes(content)
        typer.echo(folder / name)
