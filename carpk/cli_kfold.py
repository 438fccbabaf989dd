"""`carpk compare FIT FIT --kfold 5`: the fits made again without a fold of the patients each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from carpk.cohort import Cohort
from carpk.comparison import must_be_comparable
from carpk.comparison_drawing import draw_comparison, must_be_a_free_picture
from carpk.cross_validation import folds_of, kfold, must_lack_nothing
from carpk.fitting import Fit, fit, load_fit
from carpk.problems import Problem, RequestError
from carpk.program_cache import keep_programs
from carpk.progress import Stages
from carpk.requests import Request, table

_PLACE = "kfold"  # in the folder of the fit that is made again


def run(folders: list[Path], count: int, out: str | None, overwrite: bool,
        plot: str | None = None) -> int:
    """Makes the refits that are not there yet, prints which model predicts left-out patients
    better; the exit code. Each refit is kept in FIT/kfold, and found there when asked again."""
    names = [f.name for f in folders]
    if len(set(names)) < len(names):
        raise RequestError(Problem("error", "the same fit is named twice", "name each once"))
    if out is not None and Path(out).exists() and not overwrite:
        raise RequestError(Problem("error", "there is such a file", "--overwrite replaces it", out))
    must_be_a_free_picture(plot, overwrite)
    fits = {f.name: load_fit(f) for f in folders}
    must_be_comparable(fits)
    must_lack_nothing(fits)
    folds = folds_of(next(iter(fits.values())).design.ids, count)
    keep_programs()
    refits = {name: _refits(folder, fits[name], folds)
              for name, folder in zip(names, folders, strict=True)}
    numbers = kfold(fits, refits, folds)
    console = Console(highlight=False, markup=False)
    console.print(f"\nA new patient (fitted {count} times without a fold of the patients)")
    console.print(_table(numbers), crop=False)
    for row in numbers.itertuples():
        if row.unreliable:
            console.print(f"{row.fit}: a few draws decide for {row.unreliable}")
        if row.differs:
            console.print(f"{row.fit} differs in {row.differs}")
    failed = [f"{n}, fold {k + 1}" for n, made in refits.items() for k, r in enumerate(made)
              if not r.convergence.ok]
    if failed:
        console.print(f"NOT CONVERGED: {'; '.join(failed)}")
    console.print("Differences are to the best, with their standard errors: one within two of "
                  "them is no finding.")
    if out is not None:
        numbers.to_csv(out, index=False, float_format="%.8g", lineterminator="\n")
        console.print(out)
    if plot is not None:
        draw_comparison(plot, numbers, [n for n, made in refits.items()
                                        if not all(r.convergence.ok for r in made)])
        console.print(plot)
    return 3 if failed else 0


def _refits(folder: Path, whole: Fit, folds: Iterable[tuple[str, ...]]) -> list[Fit]:
    """A fit without the patients of each fold: one that is there, or made and kept now."""
    request = table(folder / "manifest.json")
    asked = Request.of(request, str(folder / "manifest.json"))
    cohort = asked.cohort(asked.population().structure)
    if cohort.sha256 != whole.manifest["data"]["sha256"]:
        raise RequestError(Problem("error", "the data have changed since the fit was made",
                                   "fit anew first", cohort.source))
    made = []
    for left in folds:
        kept = [i for i in whole.design.ids if i not in left]
        made.append(_made({**request, "data": {**request["data"], "patients": kept}},
                          folder / _PLACE, cohort.select(kept)))
    return made


def _made(request: Mapping[str, Any], place: Path, cohort: Cohort) -> Fit:
    for known in sorted(place.glob("*/manifest.json")):
        manifest = json.loads(known.read_text("utf-8"))
        if manifest.get("request") == request and manifest["data"]["sha256"] == cohort.sha256:
            return load_fit(known.parent)
    asked = Request.of(request)
    assert asked.seed is not None
    with Stages() as progress:
        result = fit(asked.population(), cohort, asked.estimator, seed=asked.seed,
                     progress=progress, **asked.settings)
        result.save(place)
    return result


def _table(numbers: pd.DataFrame) -> Table:
    shown = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    shown.add_column("fit", overflow="fold")
    for heading in ("elpd", "SE", "difference", "SE", "weight"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for r in numbers.itertuples():
        shown.add_row(r.fit, f"{r.elpd:.1f}", f"{r.se:.1f}", f"{r.difference:.1f}",
                      f"{r.difference_se:.1f}", f"{r.weight:.2f}")
    return shown
