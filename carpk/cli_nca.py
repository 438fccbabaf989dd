"""From the options of `carpk nca` to its files and what is printed of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from carpk import requests
from carpk.cohort import Cohort, contents
from carpk.exposure_summary import by_group, sensitivity
from carpk.noncompartmental import BLQ, RULES
from carpk.noncompartmental import nca as analysed
from carpk.outfiles import not_free
from carpk.problems import Problem, RequestError

_BY_MODEL = ("Cmax", "Tmax", "AUC0_28", "half_life")
_SAID = {
    "zero-then-missing": "0 before the first quantified level, left out after it",
    "half": "half of the limit", "missing": "left out"}


def run(data: str, reading: Mapping[str, Any], *, by: str | None, blq: str | None,
        rule: str | None, auc: Sequence[str], terminal: str | None, peak_from: float,
        to_zero: bool, extrapolate: bool, out: str | None, overwrite: bool,
        show: Callable[[Iterable[Problem]], None]) -> list[Path]:
    """Analyses, writes and prints; the files that were written."""
    if (Path(data) / "manifest.json").is_file():
        return _of_fit(Path(data), blq)
    settings: dict[str, Any] = {
        "blq": blq or BLQ[0], "rule": rule or RULES[0], "partial": [_window(w) for w in auc],
        "terminal": _points(terminal or "best"), "peak_from": peak_from, "to_zero": to_zero,
        "extrapolate": extrapolate}
    asked = requests.Request.of({"model": "", "data": {"file": data, **reading}}).data
    stem = data.removeprefix("example:") if data.startswith("example:") else Path(data).stem
    target = Path(out or f"{stem}_nca.csv")
    beside = [target.with_name(f"{target.stem}_{n}.csv") for n in ("summary", "rules")]
    taken = not_free([target, *beside], overwrite)
    if taken:
        raise RequestError(taken)
    cohort = requests.cohort_of(asked)
    show(cohort.warnings)
    table = analysed(cohort, **settings)
    groups, rules = by_group(table, cohort, by), sensitivity(cohort, **settings)
    typer.echo(contents(cohort), err=True)
    for file, content in zip([target, *beside], (table, groups, rules), strict=True):
        content.to_csv(file, index=False, float_format="%.8g", lineterminator="\n")
    _print(cohort, table, groups, rules, settings)
    return [target, *beside]


def _of_fit(folder: Path, blq: str | None) -> list[Path]:
    """The exposure that a fit's report wrote."""
    file = folder / "tables" / "exposure.csv"
    if blq not in (None, "m3"):
        raise RequestError(Problem("error", "a fit's exposure takes censored levels by M3",
                                   "analyse the samples: carpk nca DATA", column="--blq",
                                   found=str(blq)))
    if not file.is_file():
        raise RequestError(Problem("error", "the report of this fit has no exposure",
                                   f"make it anew: carpk report {folder}", str(folder)))
    judged = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["convergence"]
    if not judged["ok"]:
        typer.echo("NOT CONVERGED: do not use these numbers", err=True)
    table = pd.read_csv(file, dtype={"ID": str})
    shown = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name in ("patient", "output", "unit", *_BY_MODEL):
        shown.add_column(name, justify="right" if name in _BY_MODEL else "left")
    for row in table.to_dict("records"):
        shown.add_row("typical" if row["kind"] == "typical" else row["ID"], row["output"],
                      row["unit"], *(
            f"{written(row[f'{n}_median'])} ({written(row[f'{n}_lower95'])} to "
            f"{written(row[f'{n}_upper95'])})" if not math.isnan(row[f"{n}_median"]) else ""
            for n in _BY_MODEL))
    _console().print(shown, crop=False)
    return [file]


def _print(cohort: Cohort, table: pd.DataFrame, groups: pd.DataFrame, rules: pd.DataFrame,
           settings: Mapping[str, Any]) -> None:
    """The rules in words, a table for each DVID, groups beside each other, and what rules do."""
    console, several = _console(), table["DVID"].nunique() > 1
    after = ", the first after Tlast 0 in areas to a day" if settings["to_zero"] else ""
    console.print(f"Areas by {settings['rule']} trapezoids; levels below the limit "
                  f"{_SAID[settings['blq']]}{after}. Of levels and areas: geometric mean "
                  "(geometric CV %), lowest to highest; of times: median, lowest to highest.")
    for dvid, part in groups.groupby("DVID"):
        ends = part[part["endpoint"] == "Tend"]
        names = dict(zip(ends["group"], ends["n"].astype(int), strict=True))
        shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold",
                      title=f"DVID {dvid}" if several else None, title_justify="left")
        shown.add_column("")
        shown.add_column("unit")
        for name, patients in names.items():
            shown.add_column(f"{name} (N = {patients})")
        for endpoint, rows in part.groupby("endpoint", sort=False):
            cells = rows.set_index("group")
            shown.add_row(str(endpoint), cells["unit"].iloc[0], *(
                _cell(cells.loc[name], patients) for name, patients in names.items()))
        console.print(shown, crop=False)
    moved = rules[(rules["ratio"] - 1).abs() > 0.01]
    said = [f"{r['endpoint']}{f' (DVID {dvid})' if several else ''} x {r['ratio']:.2f} "
            f"({r['lowest_ratio']:.2f} to {r['highest_ratio']:.2f}) with {_other(r, settings)}"
            for dvid, part in moved.groupby("DVID") for r in part.to_dict("records")]
    console.print("\nWhat other rules would change, geometric mean of the patients' ratios "
                  "(lowest to highest):" if said else
                  "\nNo other rule would move an area by more than 1 % (geometric mean).")
    for line in said:
        console.print(f"  {line}")


def _other(row: Mapping[Any, Any], settings: Mapping[str, Any]) -> str:
    return f"{row['rule']} trapezoids" if row["rule"] != settings["rule"] \
        else f"--blq {row['blq'].replace(', then to zero', ' --to-zero')}"


def _cell(row: pd.Series, patients: int) -> str:
    """One endpoint of one group as it is printed."""
    n = int(row["n"])
    if n == 0:
        return "-"
    if not pd.isna(row["share_percent"]):
        return f"{row['share_percent']:.0f}, n\u00a0{n}"
    known = (f", n\u00a0{n}" if n < patients else "") \
        + (f", {row['zeros']:.0f} at 0" if row["zeros"] > 0 else "")
    spread = "" if n == 1 else f" [{written(row['lowest'])} to {written(row['highest'])}]"
    if pd.isna(row["geometric_mean"]):
        return f"{written(row['median'])}{spread}{known}"
    cv = row["geometric_cv_percent"]
    cv = "" if pd.isna(cv) else f" ({cv:.0f} %)" if cv <= 1000 else " (> 1000 %)"
    return f"{written(row['geometric_mean'])}{cv}{spread}{known}"


def written(value: float) -> str:
    """Three digits, without an exponent where that is short.

    >>> written(14501.3), written(0.0399), written(3.2e9)
    ('14500', '0.0399', '3.2e+09')
    """
    short = float(f"{value:.3g}")
    return f"{short:.0f}" if 1000 <= abs(short) < 1e7 else f"{short:g}"


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else \
        Console(highlight=False, markup=False, width=160)


def _window(text: str) -> tuple[float, float]:
    try:
        first, last = (float(part) for part in text.split(":"))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not FROM:TO in days, such as 28:90") from None
    return first, last


def _points(text: str) -> str | int | tuple[float, float]:
    if ":" in text:
        return _window(text)
    return int(text) if text.isdecimal() else text

