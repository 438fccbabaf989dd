"""Observed against predicted, for the typical patient (PRED) and the individual one (IPRED)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from carpk.fitting import Fit
from carpk.plots import (
    BLUE,
    GREY,
    INK,
    POINTS,
    SIZE,
    Pages,
    dress,
    log_axis,
    output_label,
    page,
    write,
)
from carpk.prediction import predictions

TITLE = "Observed against predicted"
CAPTION = (
    "Left: the typical patient with each patient's inputs. Right: each patient's own curve, "
    "posterior median. Points should scatter evenly around the line of identity. Open triangles "
    "are censored and stand at their limit: one that lies right of the line was predicted above "
    "it. A prediction beyond the axis is drawn at its edge.")


def draw(fit: Fit) -> Pages:
    """One page; a row of two panels for each output but binary ones."""
    table = predictions(fit)
    outputs = [o.name for o in fit.model.structure.outputs
               if (table["output"] == o.name).any() and not o.binary]
    if not outputs:
        return []
    height = 0.35 + 3.45 * len(outputs)
    figure = page(fit, 7.0, height, TITLE)
    grid = figure.add_gridspec(len(outputs), 2, left=0.095, right=0.98, top=1 - 0.5 / height,
                               bottom=0.48 / height, wspace=0.22, hspace=0.3)
    for row, output in enumerate(outputs):
        points = table[table["output"] == output]
        for column, (kind, words) in enumerate((("PRED", "typical patient"),
                                                ("IPRED", "individual"))):
            ax = figure.add_subplot(grid[row, column])
            _panel(ax, points, kind, _range(points))
            write(ax.set_xlabel, f"{kind}, {words}: {output_label(fit, output)}", fontsize=SIZE,
                  color=INK)
            if column == 0:
                write(ax.set_ylabel, f"Observed {output_label(fit, output)}", fontsize=SIZE,
                      color=INK)
    return [("observed_predicted", figure)]


def _range(points: pd.DataFrame) -> tuple[float, float, bool]:
    """The ends of both axes of both panels, and whether they are logarithmic."""
    dv, predicted = points["DV"].to_numpy(), points[["PRED", "IPRED"]].to_numpy()
    finite = predicted[np.isfinite(predicted)]
    low, high = (float(f([f(dv), f(finite, initial=f(dv))])) for f in (np.min, np.max))
    if (dv > 0).all():
        # a decade beyond the data: the slope of the cloud counts, not its last outlier
        return 0.6 * max(low, dv.min() / 10), 1.7 * min(high, dv.max() * 10), True
    edge = 0.05 * (high - low) or 1.0
    return low - edge, high + edge, False


def _panel(ax: Any, points: pd.DataFrame, kind: str, ends: tuple[float, float, bool]) -> None:
    dress(ax)
    dv, predicted = points["DV"].to_numpy(), points[kind].to_numpy()
    low, high, log = ends
    if log:
        log_axis(ax, "x", low, high)
        log_axis(ax, "y", low, high)
    else:
        ax.set(xlim=(low, high), ylim=(low, high))
    ax.set_aspect("equal", adjustable="box")
    ax.plot([low, high], [low, high], color=GREY, linewidth=0.8, zorder=1)
    shown = np.clip(predicted, low, high)
    many = len(points) > POINTS
    for code, marker in ((1, "v"), (-1, "^")):
        rows = (points["censored"] == code).to_numpy()
        ax.plot(shown[rows], dv[rows], marker, markersize=3.4, markerfacecolor="none",
                markeredgecolor=GREY, markeredgewidth=0.5, alpha=0.5, rasterized=many,
                clip_on=False)
    rows = (points["censored"] == 0).to_numpy()
    ax.plot(shown[rows], dv[rows], "o", markersize=2.6, color=BLUE, alpha=0.45,
            markeredgewidth=0, rasterized=many, clip_on=False)
