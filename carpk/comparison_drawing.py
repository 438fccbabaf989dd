"""The figure of `carpk compare`: how far each fit predicts worse than the best."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from carpk.outfiles import not_free
from carpk.plots import ALARM, BLUE, GREY, INK, SIZE, dress, headed, plain, png, sheet, svg, write
from carpk.problems import Problem, RequestError

_ROW, _AROUND = 0.26, 0.95  # inches of a fit, and of a panel's heading and axis
_TITLES = {"patient": "A new patient: whole patients left out",
           "observation": "Another level of a known patient: single observations left out"}


def comparison_figure(table: pd.DataFrame, not_converged: Collection[str] = ()) -> Any:
    """A panel for each unit of a table of `carpk.comparison.compare` or `kfold`, a row for each
    fit: its difference in elpd to the best with 2 SE at either side, its elpd and its weight.
    Hollow where Pareto k (or a few draws) say that the number is not to be trusted; the name of a
    fit that did not converge is red."""
    parts = list(table.groupby("unit", sort=False))
    height = 0.55 + sum(_AROUND + _ROW * len(rows) for _, rows in parts)
    figure, top = sheet(7.2, height, "Which fit predicts better"), height - 0.65
    for unit, rows in parts:
        inside = _ROW * len(rows)
        ax = figure.add_axes((0.33, (top - inside) / height, 0.42, inside / height))
        dress(ax)
        headed(ax, _TITLES.get(unit, f"A new patient: {unit}"))
        for k, row in enumerate(rows.itertuples()):
            away = 2 * row.difference_se
            ax.plot([row.difference - away, row.difference + away], [k, k], color=BLUE,
                    linewidth=1.2)
            ax.plot(row.difference, k, "o", color=BLUE, markersize=4,
                    markerfacecolor="white" if row.unreliable else BLUE)
            write(ax.text, 1.03, k, f"elpd {row.elpd:.1f}, weight {row.weight:.2f}", color=INK,
                  fontsize=SIZE - 1, va="center", transform=ax.get_yaxis_transform())
        ax.axvline(0.0, color=GREY, linewidth=0.8)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_yticks(range(len(rows)))
        for label, name in zip(ax.set_yticklabels([plain(n, 34) for n in rows["fit"]]),
                               rows["fit"], strict=True):
            label.set(parse_math=False, color=ALARM if name in not_converged else INK)
        write(ax.set_xlabel, "difference in elpd to the best, with 2 SE", fontsize=SIZE - 1,
              color=INK)
        top -= inside + _AROUND
    told = ["hollow: not to be trusted, see what is printed"] * bool(table["unreliable"].any()) \
        + ["red: NOT CONVERGED"] * bool(not_converged)
    write(figure.text, 0.02, 0.06 / height, "; ".join(told), fontsize=SIZE - 1, color=ALARM,
          va="bottom")
    return figure


def must_be_a_free_picture(file: str | None, overwrite: bool) -> None:
    """RequestError where the picture would be no .svg or .png, or another file would be lost."""
    if file is None:
        return
    found = not_free([Path(file)], overwrite)
    if Path(file).suffix not in (".svg", ".png"):
        found.append(Problem("error", "a picture is written as SVG or PNG",
                             "give it a name that ends in .svg or .png", file))
    if found:
        raise RequestError(found)


def draw_comparison(file: str, table: pd.DataFrame, not_converged: Collection[str]) -> None:
    """Writes the figure, as SVG or PNG by its name."""
    figure = comparison_figure(table, not_converged)
    Path(file).write_bytes((png if file.endswith(".png") else svg)(figure))
