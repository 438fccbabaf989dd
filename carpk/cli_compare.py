"""What `carpk compare` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from carpk.comparison import compare
from carpk.fitting import load_fit
from carpk.problems import Problem, RequestError

_ASKS = {"patient": "A new patient (whole patients left out, random effects integrated out)",
         "observation": "Another level of a known patient (single observations left out)"}


def run(folders: Sequence[Path], out: str | None, overwrite: bool) -> None:
    """Compares fits by their folders; prints, and writes a CSV where `out` is given."""
    names = [f.name for f in folders]
    if len(set(names)) < len(names):
        raise RequestError(Problem("error", "the same fit is named twice", "name each once"))
    if out is not None and Path(out).exists() and not overwrite:
        raise RequestError(Problem("error", "there is such a file", "--overwrite replaces it", out))
    table = compare({f.name: load_fit(f) for f in folders})
    console = Console(highlight=False, markup=False)
    for unit, asks in _ASKS.items():
        console.print(f"\n{asks}")
        rows = table[table["unit"] == unit]
        console.print(_table(rows), crop=False)
        for name, bad in zip(rows["fit"], rows["unreliable"], strict=True):
            if bad:
                listed = bad.split(", ")
                more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
                console.print(f"{name}: Pareto k above 0.7, so not to be trusted, for "
                              f"{', '.join(listed[:8])}{more}"
                              + (": --kfold 5 refits instead" if unit == "patient" else ""))
    console.print("\nDifferences are to the best, with their standard errors: one within two of "
                  "them is no finding.")
    for name, differs in dict(zip(table["fit"], table["differs"], strict=True)).items():
        if differs:
            console.print(f"{name} differs in {differs}")
    if out is not None:
        table.to_csv(out, index=False, float_format="%.8g", lineterminator="\n")
        console.print(out)


def _table(rows: pd.DataFrame) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("fit", overflow="fold")
    for heading in ("elpd", "SE", "p_loo", "difference", "SE", "weight", "largest k"):
        table.add_column(heading, justify="right", no_wrap=True)
    for r in rows.itertuples():
        table.add_row(r.fit, f"{r.elpd:.1f}", f"{r.se:.1f}", f"{r.p_loo:.1f}",
                      f"{r.difference:.1f}", f"{r.difference_se:.1f}", f"{r.weight:.2f}",
                      f"{r.pareto_k:.2f}")
    return table
