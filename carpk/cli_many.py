"""The commands of many fits: their options."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Workers = Annotated[int, typer.Option(
    help="processes on this machine that fit side by side, of one thread each")]
Scheduler = Annotated[str | None, typer.Option(
    help="address of a dask cluster that fits instead; its workers see the same folders",
    metavar="ADDRESS")]
Fit = Annotated[Path, typer.Argument(
    metavar="FIT", help="the folder of a fit by maximum likelihood")]


def add(app: typer.Typer, refusing: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """The commands of this file, on the program."""
    app.command("screen")(refusing(_going_on(screen)))


def _going_on(command: Callable[..., None]) -> Callable[..., None]:
    """The command that says, where it is interrupted, that nothing is lost."""
    @functools.wraps(command)
    def guarded(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except KeyboardInterrupt:
            typer.echo("interrupted; what is done is kept: the same command goes on", err=True)
            raise typer.Exit(130) from None
    return guarded


def screen(
        requests: Annotated[list[Path], typer.Argument(
            metavar="RUN.toml ...", help="requests, as `carpk fit` reads them")],
        workers: Workers = 1, scheduler: Scheduler = None,
        seed: Annotated[int, typer.Option(help="of the requests that state none")] = 1,
        out: Annotated[Path | None, typer.Option(
            help="the folder in which each fit gets its own; default: that of the first request",
            metavar="FOLDER")] = None) -> None:
    """Fit many requests, each as `carpk fit` would, and print them by their BIC.

    Asked for again, it makes only the fits that are not there.
    """
    from carpk import cli_screen
    raise typer.Exit(cli_screen.run(requests, workers, scheduler, seed, out))
