"""From a request to a fit and what is printed of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from carpk.cohort import contents, design
from carpk.digits import format_table
from carpk.fitting import Fit, fit
from carpk.preparation import with_effects
from carpk.problems import Problem, RequestError
from carpk.progress import Stages
from carpk.reporting import report, verdict
from carpk.requests import Request
from carpk.tables import parameters, starts

Show = Callable[[Iterable[Problem]], None]

_SHOWN = {"parameter": "parameter", "unit": "unit", "median": "median", "lower95": "2.5 %",
          "upper95": "97.5 %", "rse": "RSE %", "shrinkage": "shrink", "rhat": "R-hat",
          "ess_bulk": "bulk ESS", "ess_tail": "tail ESS"}  # within 100 columns
_DEAREST_LAST = ("shrinkage", "ess_tail", "rse", "unit")  # what 80 columns do without


def run(asked: Request, show: Show, resumed: str | None = None, workers: int = 1,
        scheduler: str | None = None) -> int:
    """Fits, or goes on in the folder of an unfinished fit; saves, reports, prints; the exit code.
    """
    model = asked.population()
    cohort = asked.cohort(model.structure)
    seen = design(cohort, model.structure)
    show([*seen.warnings, *with_effects(model, seen)[1]])
    held = contents(cohort, model.structure, model.columns)
    typer.echo(f"{held}\nseed {asked.seed}", err=True)
    _must_be_writable(Path(asked.out))
    folder = None
    try:
        with Stages() as progress:
            assert asked.seed is not None
            result = fit(model, cohort, asked.estimator, seed=asked.seed, progress=progress,
                         unfinished=resumed or asked.out, workers=workers,
                         scheduler=scheduler, band=asked.band, **asked.settings)
            folder = result.save(asked.out)
            progress("report", 0, 1)
            report(result, folder)
    except KeyboardInterrupt as interrupt:
        typer.echo(f"interrupted; the fit is whole, its report is not: carpk report {folder}"
                   if folder else f"interrupted; carpk fit --resume {interrupt.args[0]} goes on"
                   if interrupt.args else "interrupted, nothing was written", err=True)
        return 130
    _print(result, folder)
    return 0 if result.convergence.ok else 3


def _must_be_writable(out: Path) -> None:
    """Said before the sampling, not after it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise RequestError(Problem("error", f"fits cannot be written here: {failure.strerror}",
                                   "give another folder: --out", str(out))) from None
    if not os.access(out, os.W_OK):
        raise RequestError(Problem("error", "fits cannot be written here: not writable",
                                   "give another folder: --out", str(out)))


def parameter_table(every: pd.DataFrame, console: Console) -> Table:
    """The table of `carpk.tables.parameters`; on a narrow console with fewer columns, but with
    every number whole."""
    chained = every["rhat"].notna().any()
    for k in range(len(_DEAREST_LAST) + 1):
        hidden = (*_DEAREST_LAST[:k], *(() if chained else ("rhat", "ess_bulk", "ess_tail")))
        table = _table(every, hidden)
        if console.measure(table, options=console.options.update(max_width=1000)).maximum \
                <= console.width:
            break
    return table


def _table(every: pd.DataFrame, hidden: Sequence[str]) -> Table:
    """The parameter table without some of its columns."""
    shown = {column: heading for column, heading in _SHOWN.items() if column not in hidden}
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for column, heading in shown.items():
        text = column in ("parameter", "unit")
        table.add_column(heading, justify="left" if text else "right", no_wrap=True)
    for row, fixed in zip(format_table(every).to_dict("records"),
                          every["note"].str.startswith("fixed"), strict=True):
        cells = {column: str(row[column]) for column in shown}
        table.add_row(*({**cells, "lower95": "fixed"} if fixed else cells).values())
    return table


def starts_table(result: Fit) -> Table:
    """Where each start ended; a blank OFV is that of a start without a solution."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for heading in ("start", "OFV", "above best", "steps", "SEs from best", "furthest in"):
        table.add_column(heading, justify="left" if heading == "furthest in" else "right",
                         no_wrap=True)
    for r in starts(result).itertuples():
        table.add_row(str(r.start), "" if pd.isna(r.ofv) else f"{r.ofv:.3f}",
                      "" if pd.isna(r.ofv) else f"{r.difference:.3f}", str(r.steps),
                      f"{r.distance:.2g}", r.furthest)
    return table


def _print(result: Fit, folder: Path) -> None:
    """The verdict, the parameter table, why values were held, and the folder."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=100)
    console.print(f"\n{verdict(result)}\n", style=None if result.convergence.ok else "bold red")
    every = parameters(result)
    console.print(parameter_table(every, console), crop=False)
    if "starts" in result.manifest:
        console.print(starts_table(result), crop=False)
    notes = [f"{n}: {note}" for n, note in zip(every["parameter"], every["note"], strict=True)
             if note.startswith("fixed") or "cohort is in" in note or "say little" in note]
    for note in notes:
        console.print(note)
    sizes = result.posterior["posterior"].sizes
    of = result.posterior["posterior"].dataset.attrs["draws_from"]
    said = "intervals are asymptotic" if "estimates" in result.manifest else \
        "intervals are of the guide, an approximation of the posterior" if of == "guide" else \
        f"{sizes['chain']} chains of {sizes['draw']} draws"
    console.print(f"\n{said}; the report is report.html in")
    sys.stdout.write(f"{folder}\n")  # alone on its line and never wrapped, for scripts
