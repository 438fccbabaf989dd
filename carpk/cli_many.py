"""The commands that fit many times, screen, bootstrap and profile: options, and what they print."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carpk.cli_options import Scheduler, Workers

if TYPE_CHECKING:
    from rich.console import Console

Fit = Annotated[Path, typer.Argument(
    metavar="FIT", help="the folder of a fit by maximum likelihood")]


def add(app: typer.Typer, refusing: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """The commands of this file, on the program."""
    for name, command in (("screen", screen), ("bootstrap", bootstrap), ("profile", profile)):
        app.command(name)(refusing(_going_on(command)))


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
    """Fit many requests, each as `carpk fit` would, and print them by their BIC, those of one
    method on the same observations together.

    Asked for again, it makes only the fits that are not there.
    """
    from carpk.progress import Stages
    from carpk.screening import MEASURES, ranked, screened
    with Stages() as progress:
        made = screened(requests, seed=seed, out=out, workers=workers, scheduler=scheduler,
                        told=lambda done, total: progress("fits", done, total))
    console, groups = _console(140), ranked(made)
    for group in groups:
        first = next(iter(group.values()))
        if len(groups) > 1 and "method" in first:
            console.print(f"{first['method']}, {first['rows']} observations")
        _print(console, ["request", "parameters", "OFV", "AIC", "BIC", "seconds", "fit"], [[
            name, str(r.get("parameters", "")),
            *(f"{r[n]:.2f}" if n in r else "" for n in MEASURES),
            f"{r['seconds']:.1f}" if "seconds" in r else "",
            (Path(r["fit"]).name if "fit" in r else "refused")
            + ("" if r["ok"] or "fit" not in r else " NOT CONVERGED")]
            for name, r in group.items()], ("request", "fit"))
    for name, r in made.items():
        for reason in r["reasons"]:
            console.print(f"{name}: {reason}")
    if not all(r["ok"] for r in made.values()):
        raise typer.Exit(3)


def bootstrap(
        fit: Fit,
        replicates: Annotated[int, typer.Option(
            help="200 give a standard error, 1000 an interval")] = 200,
        parametric: Annotated[bool, typer.Option(
            "--parametric", help="New patients simulated from the fit, in place of those of the "
            "cohort drawn again.")] = False,
        stratify: Annotated[str | None, typer.Option(
            help="a covariate within whose values patients are drawn", metavar="STUDY")] = None,
        seed: Annotated[int, typer.Option(help="the same seed draws the same replicates")] = 1,
        workers: Workers = 1, scheduler: Scheduler = None) -> None:
    """Refit replicates of the cohort: bias, standard errors and intervals without asymptotics.

    All of it is kept in bootstrap/ of the fit's folder; asked for again, or for more, only the
    replicates that are not there are made.
    """
    from carpk import resampling
    from carpk.fitting import load_fit
    from carpk.plots import svg
    from carpk.progress import Stages
    from carpk.uncertainty_drawings import bootstrap_figure
    with Stages() as progress:
        found = resampling.bootstrap(
            fit, replicates=replicates, parametric=parametric, stratify=stratify, seed=seed,
            workers=workers, scheduler=scheduler,
            told=lambda done, total: progress("refits", done, total))
    (found.folder / "bootstrap.svg").write_bytes(svg(bootstrap_figure(load_fit(fit), found)))
    console = _console(120)
    _print_numbers(console, found.table.to_dict("records"), {
        "parameter": "parameter", "estimate": "estimate", "mean": "mean", "bias": "bias",
        "se": "SE", "asymptotic_se": "asymptotic", "95": "95 % percentiles", "bca_95": "BCa",
        "asymptotic_95": "asymptotic"})
    lost = found.failures
    console.print(f"{len(found.replicates) - sum(lost.values())} of {len(found.replicates)} "
                  "replicates are used"
                  + "".join(f"; {n}: {why}" for why, n in lost.items()))
    _end(console, found.remarks, found.folder)


def profile(
        fit: Fit,
        parameter: Annotated[list[str] | None, typer.Option(
            help="a population parameter; may be repeated; default: all that are free",
            metavar="Cmax_pop")] = None,
        workers: Workers = 1, scheduler: Scheduler = None) -> None:
    """Hold a parameter at values around its estimate: the interval where the OFV rises by 3.84.

    All of it is kept in profile/ of the fit's folder; what is there is not made again.
    """
    from carpk import profiling
    from carpk.fitting import load_fit
    from carpk.plots import svg
    from carpk.progress import Stages
    from carpk.uncertainty_drawings import profile_figure
    with Stages() as progress:
        found = profiling.profile(fit, parameter or (), workers=workers, scheduler=scheduler,
                                  told=lambda done, total: progress("sides", done, total))
    (found.folder / "profile.svg").write_bytes(svg(profile_figure(load_fit(fit), found)))
    console, rows = _console(120), found.table.to_dict("records")
    for row in rows:
        row["se"] = (row["asymptotic_upper95"] - row["asymptotic_lower95"]) / 3.92
    _print_numbers(console, rows, {"parameter": "parameter", "estimate": "estimate",
                                   "95": "95 % profile", "asymptotic_95": "asymptotic"})
    remarks = [f"{row['parameter']}: {row['remark']}" for row in rows if row["remark"]]
    _end(console, (*found.remarks, *remarks), found.folder)


def _console(width: int) -> Console:
    from rich.console import Console
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=width)


def _end(console: Console, remarks: Sequence[str], folder: Path) -> None:
    for remark in remarks:
        console.print(remark)
    typer.echo(folder)  # alone on its line, for scripts


def _print_numbers(console: Console, rows: Sequence[Mapping[Any, Any]],
                   shown: Mapping[str, str]) -> None:
    """Numbers to the second digit of their SE; a column `x_95` is an interval."""
    _print(console, list(shown.values()), [[_cell(row, c) for c in shown] for row in rows],
           ("parameter",))


def _print(console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]],
           texts: Sequence[str]) -> None:
    from rich.table import Table
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in texts else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # wider than the window rather than a number cut short
    needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.width = max(console.width, needed)
    console.print(table, crop=False)


def _cell(row: Mapping[Any, Any], column: str) -> str:
    if column.endswith("95"):
        low, high = (_number(row[f"{column[:-2]}{end}95"], row["se"]) for end in ("lower", "upper"))
        return f"{low or '?'} to {high or '?'}" if low or high else ""
    value = row[column]
    return value if isinstance(value, str) else _number(
        value, value / 10 if column.endswith("se") else row["se"])


def _number(value: float, uncertainty: float) -> str:
    from carpk.digits import rounded
    return "" if math.isnan(value) else rounded(value, uncertainty if uncertainty > 0 else math.nan)
