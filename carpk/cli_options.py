"""Options that several commands take, and how problems are shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from carpk.problems import Problem, errors

Data = Annotated[str, typer.Argument(
    metavar="DATA", help="a CSV file, a run.toml that states everything, or example:NAME")]
Model = Annotated[str | None, typer.Option(
    help="a name that `carpk models` lists, or the path of a model file, ./mine.py")]
Dvid = Annotated[list[str] | None, typer.Option(
    help="read only observations with this DVID; may be repeated", metavar="1")]
Dose = Annotated[list[str] | None, typer.Option(
    help="a bolus, into the first state at time 0 where not said, in the unit of that state; may "
    "be repeated", metavar="AMT UNIT:STATE@TIME")]
Unit = Annotated[list[str] | None, typer.Option(
    help="unit of DV, by DVID, or of another column, AMT=1e6 cells; may be repeated",
    metavar="1=cells/uL")]
Column = Annotated[list[str] | None, typer.Option(
    help="our name = the file's column; may be repeated", metavar="DV=CONC")]

Workers = Annotated[int, typer.Option(
    help="processes on this machine that fit side by side, of one thread each")]
Scheduler = Annotated[str | None, typer.Option(
    help="address of a dask cluster that fits instead; its workers see the same folders",
    metavar="ADDRESS")]


def show(problems: Iterable[Problem], most: int | None) -> None:
    """Problems on stderr, errors first, the rest counted beyond `most`."""
    listed = sorted(problems, key=lambda p: p.severity)
    for problem in listed[:most]:
        typer.echo(f"{problem.severity}: {problem}", err=True)
    beyond = listed[most:] if most is not None else []
    if beyond:
        wrong = len(errors(beyond))
        kinds = ", ".join(f"{n} {kind}{'s' * (n > 1)}" for n, kind in
                          ((wrong, "error"), (len(beyond) - wrong, "warning")) if n)
        typer.echo(f"... and {kinds} more; `carpk check DATA --all` prints all", err=True)
