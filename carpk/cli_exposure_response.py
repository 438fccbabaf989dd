"""`carpk exposure-response`: its options, its files and what is printed of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd

    from carpk.exposure_outcomes import ExposureResponse


def command(
        fit: Annotated[Path, typer.Argument(metavar="FIT", help="the folder of a fit")],
        kind: Annotated[str, typer.Option(
            "--type", help="binary (logistic), ordinal (proportional odds), survival (Weibull) or "
            "cox", metavar="ordinal")],
        outcome: Annotated[str | None, typer.Option(
            help="a column of the fitted file; of a binary outcome also a condition, "
            "RESPONSE=CR or CRS_GRADE>=3", metavar="CRS_GRADE")] = None,
        metric: Annotated[str, typer.Option(
            help="cmax, tmax, half_life, or an area from 0 to a day: auc0_28",
            metavar="cmax")] = "cmax",
        adjust: Annotated[str | None, typer.Option(
            help="covariates that enter as well", metavar="AGE,SEX")] = None,
        time: Annotated[str | None, typer.Option(
            help="column of the time of event or censoring, from the infusion (of a response the "
            "day it ended)", metavar="PFS_DAYS")] = None,
        event: Annotated[str | None, typer.Option(
            help="column with 1 = event, 0 = censored", metavar="PFS_EVENT")] = None,
        landmark: Annotated[float | None, typer.Option(
            help="day from which survival counts; the exposure must be complete by then",
            metavar="28")] = None,
        output: Annotated[str | None, typer.Option(
            help="whose exposure; default: the first", metavar="C")] = None,
        prior: Annotated[float | None, typer.Option(
            help="SD of a normal prior of the coefficients, per SD of a column or between groups; "
            "default: none, maximum likelihood", metavar="2.5")] = None,
        out: Annotated[str | None, typer.Option(
            help="the table, its figure beside it; default: exposure_response/OUTCOME_METRIC.csv "
            "in the fit's folder", metavar="FILE.csv")] = None,
        overwrite: Annotated[bool, typer.Option(
            "--overwrite", help="Replace files that are there.")] = False) -> None:
    """Outcomes against posterior exposure: odds or hazard ratio per doubling, and curves."""
    if (outcome is None) == (time is None):
        raise typer.BadParameter("name the column: --outcome, or --time of a time to event")
    import numpy as np
    from rich.console import Console

    from carpk.exposure_outcomes import exposure_response
    from carpk.fitting import load_fit
    from carpk.outcome_drawings import outcome_figure
    from carpk.outfiles import not_free
    from carpk.plots import svg
    from carpk.problems import RequestError
    from carpk.program_cache import keep_programs
    keep_programs()
    named, columns = outcome or time or "", tuple(c for c in (adjust or "").split(",") if c)
    loaded = load_fit(fit)
    stem = _stem(named, metric, columns)
    target = Path(out) if out else fit / "exposure_response" / f"{stem}.csv"
    picture = target.with_suffix(".svg")
    taken = not_free((target, picture), overwrite) if out or target.parent.is_dir() else []
    if taken:
        raise RequestError(taken)
    found = exposure_response(loaded, named, kind, metric, adjust=columns, event=event,
                              landmark=landmark, output=output, prior=prior)
    if not out:
        target.parent.mkdir(exist_ok=True)
    found.table.to_csv(target, index=False, float_format="%.8g", lineterminator="\n")
    picture.write_bytes(svg(outcome_figure(loaded, found)))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=120)
    said = f"{found.outcome}, {found.table['model'][0]} on log2 {found.metric} ({found.unit}): " \
        f"{len(found.ids)} patients"
    events = found.table["events"][0]
    said += {"ordinal": f", {events} above grade 0"}.get(kind, f", {events} events")
    if landmark is not None:
        said += f", from the landmark on {loaded.model.structure.time_unit} {landmark:g}"
    console.print(said + (f"; prior SD {prior:g}" if prior is not None else "; maximum likelihood"))
    console.print(_printed(found.table), crop=False)
    console.print(_left_out(found))
    for remark in found.remarks:
        console.print(f"Note: {remark}")
    draws, share = found.table["draws"][0], 100 * float(np.nan_to_num(
        found.table["from_exposure"][0]))
    console.print(f"Over {draws} draws of the posterior; {share:.0f} % of the variance of the "
                  "first coefficient is of the exposure's uncertainty.")
    for file in (target, picture):
        typer.echo(file)


def _stem(outcome: str, metric: str, adjust: tuple[str, ...]) -> str:
    """A file's name of what is analysed: letters, digits, - and _.

    >>> _stem("CRS_GRADE>=3", "AUC0_28", ("AGE",))
    'CRS_GRADE_ge_3_auc0_28_AGE'
    """
    text = "_".join((outcome.replace(">=", "_ge_"), metric.lower(), *adjust))
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in text)


def _printed(table: pd.DataFrame) -> object:
    from rich.table import Table
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    shown.add_column("", overflow="fold")
    for name in ("", str(table["measure"][0]), "95 %", "P(direction)"):
        shown.add_column(name, justify="left" if not name else "right", no_wrap=True)
    main = table["model"][0]
    for row in table.itertuples():
        other = str(row.model).partition(", ")[2]
        cut = "" if row.model == main else f" ({other}{' alone' * (' >= ' in other)})"
        digits = 3 if row.contrast == "per 1" else 2  # of years or percent a ratio is near 1
        middle, low, high = (f"{v:.{digits}f}" if 0.1 < v < 100 else f"{v:.3g}"
                             for v in (row.estimate, row.lower95, row.upper95))
        shown.add_row(f"{row.term}{cut}", row.contrast, middle, f"{low} to {high}",
                      f"{row.direction:.3f}")
    return shown


def _left_out(found: ExposureResponse) -> str:
    """Who does not count, by reason."""
    lost = found.left_out
    if lost.empty:
        return "All patients of the fit count."
    listed = []
    for reason, rows in lost.groupby("reason", sort=False):
        listed.append(f"{', '.join(rows['ID'])}: {reason}")
    return f"{len(lost)} patients do not count: " + "; ".join(listed)
