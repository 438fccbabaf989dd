"""From the options of `carpk vpc` to a figure of a fit, and its numbers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import typer

from carpk.fitting import Fit, load_fit
from carpk.outfiles import not_free
from carpk.plots import png, svg
from carpk.plots.vpc import SCALES, figure
from carpk.predictive_check import left_out, no_such_covariate, vpc
from carpk.problems import Problem, RequestError
from carpk.program_cache import keep_programs


def run(folder: Path, output: str | None, *, by: str | None, corrected: bool, bins: str,
        scale: str, count: int, out: str | None, overwrite: bool) -> list[Path]:
    """Draws one visual predictive check; the picture and the table that were written."""
    keep_programs()
    fit, how = load_fit(folder), _bins(bins)
    found: list[Problem] = []
    named = _output(fit, output, found)
    if by is not None:
        found += no_such_covariate(fit, by)
    if scale not in SCALES:
        found.append(Problem("error", "no such scale", f"known: {', '.join(SCALES)}",
                             column="--scale", found=scale))
    if count < 20:
        found.append(Problem("error", "95 % of so few is nothing", "1000 are usual",
                             column="--replicates", found=str(count)))
    picture = Path(out or f"vpc_{'_'.join([named, *(by or '').split(',')]).rstrip('_')}.svg")
    if picture.suffix not in (".svg", ".png"):
        found.append(Problem("error", "a picture is written as SVG or PNG",
                             "give it a name that ends in .svg or .png", str(picture)))
    table = picture.with_suffix(".csv")
    found += not_free((picture, table), overwrite)
    if found:
        raise RequestError(found)
    numbers = vpc(fit, named, corrected=corrected, by=by, bins=how, count=count)
    drawn = figure(fit, named, corrected=corrected, by=by, bins=how, scale=scale, count=count)
    picture.write_bytes((png if picture.suffix == ".png" else svg)(drawn))
    numbers = numbers.replace([-np.inf, np.inf], np.nan)  # a percentile among censored levels
    numbers.to_csv(table, index=False, float_format="%.8g", lineterminator="\n")
    if said := left_out(fit):
        typer.echo(said, err=True)
    return [picture, table]


def _output(fit: Fit, asked: str | None, found: list[Problem]) -> str:
    """The output that is checked: the one asked for, or the first that was observed."""
    seen = fit.design
    present = set(seen.output[seen.observed].tolist())
    names = [o.name for k, o in enumerate(fit.model.structure.outputs) if k in present]
    if asked is not None and asked not in names:
        found.append(Problem("error", "no observation of such an output",
                             f"known: {', '.join(names)}", column="--output", found=asked))
    return asked or names[0]


def _bins(text: str) -> str | Sequence[float]:
    if text in ("adaptive", "none"):
        return text
    try:
        return tuple(float(day) for day in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither adaptive, none, nor days: 1,7,14") \
            from None
