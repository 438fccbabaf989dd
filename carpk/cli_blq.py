"""`carpk compare FIT --blq M1,M3`: the fit made again under other rules for censored levels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from carpk.censoring import METHODS, censored_as
from carpk.cohort import Cohort
from carpk.comparison import blq_sensitivity
from carpk.digits import rounded
from carpk.fitting import Fit, fit, load_fit
from carpk.problems import Problem, RequestError
from carpk.program_cache import keep_programs
from carpk.progress import Stages
from carpk.reporting import report
from carpk.requests import Request, table

Show = Callable[[Iterable[Problem]], None]


def run(folders: list[Path], methods: str, out: str | None, overwrite: bool, show: Show) -> int:
    """Makes the fits that are not there yet, prints how the estimates move; the exit code.

    Each fit is kept in the folder that holds the first, and found there when asked for again.
    """
    names = list(dict.fromkeys(methods.split(",")))
    found = [Problem("error", "no such method", f"known: {', '.join(METHODS)}", column="--blq",
                     found=n) for n in names if n not in METHODS]
    if len(folders) != 1:
        found.append(Problem("error", "one fit is made again at a time", "name one", column="FIT"))
    if out is not None and Path(out).exists() and not overwrite:
        found.append(Problem("error", "there is such a file", "--overwrite replaces it", out))
    if found:
        raise RequestError(found)
    folder = folders[0].resolve()
    first = load_fit(folder)
    if first.manifest["data"]["censored"] == 0:
        raise RequestError(Problem("error", "no level of this fit is censored: all methods agree",
                                   file=str(folders[0])))
    keep_programs()
    request = table(folder / "manifest.json")
    asked = Request.of(request, str(folder / "manifest.json"))
    model = asked.population()
    cohort = asked.cohort(model.structure)
    for name in names:  # before any of them is fitted
        censored_as(cohort, name, model.structure)
    made = {name: _made({**request, "censoring": name}, folder, cohort, show) for name in names}
    console = Console(highlight=False, markup=False)
    numbers = blq_sensitivity(made)
    console.print(_table(numbers, names), crop=False)
    for name in names:
        verdict = "" if made[name].convergence.ok else "; NOT CONVERGED"
        console.print(f"{name}: {METHODS[name]}{verdict}")
    console.print("In brackets how far an estimate lies from the first column's, in its SDs.")
    if out is not None:
        numbers.to_csv(out, index=False, float_format="%.8g", lineterminator="\n")
        console.print(out)
    return 0 if all(f.convergence.ok for f in made.values()) else 3


def _made(request: Mapping[str, Any], folder: Path, cohort: Cohort, show: Show) -> Fit:
    """The fit that is asked for: one that is there, or made and kept now."""
    sha256 = json.loads((folder / "manifest.json").read_text("utf-8"))["data"]["sha256"]
    for known in [folder / "manifest.json", *sorted(folder.parent.glob("*/manifest.json"))]:
        manifest = json.loads(known.read_text("utf-8"))
        if manifest.get("request") == request and manifest["data"]["sha256"] == sha256:
            return load_fit(known.parent)
    if cohort.sha256 != sha256:
        show([Problem("warning", "the data have changed since the fit was made", "fit anew first",
                      cohort.source)])
    asked = Request.of(request, str(folder / "manifest.json"))
    assert asked.seed is not None
    with Stages() as progress:
        result = fit(asked.population(), cohort, asked.estimator, seed=asked.seed,
                     progress=progress, **asked.settings)
        report(result, result.save(folder.parent))
    return result


def _table(numbers: pd.DataFrame, methods: list[str]) -> Table:
    shown = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for heading in ("parameter", "unit"):  # numbers stay whole on a narrow screen, names are folded
        shown.add_column(heading, overflow="fold")
    for name in methods:
        shown.add_column(name, justify="right", no_wrap=True)
    for _, row in numbers.iterrows():
        cells = []
        for k, name in enumerate(methods):
            value, sd = row[f"{name}_median"], row[f"{name}_sd"]
            text = "" if pd.isna(value) else f"{value:.2g}" if pd.isna(sd) else rounded(value, sd)
            away = row[f"{name}_moved"]
            cells.append(f"{text} ({away:+.1f})" if k and text and not pd.isna(away) else text)
        shown.add_row(row["parameter"], row["unit"], *cells)
    return shown
