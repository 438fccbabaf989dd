"""Numerical predictive check: shares of levels outside of prediction intervals over chance's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from carpk.fitting import Fit
from carpk.numerical_check import npc
from carpk.plots import (
    ALARM,
    BLUE,
    GREY,
    INK,
    SIZE,
    Pages,
    dress,
    headed,
    output_label,
    page,
    write,
)
from carpk.predictive_check import left_out

TITLE = "Numerical predictive check"
CAPTION = (
    "Each level is compared with the prediction intervals of its own row, from the replicates of "
    "the visual predictive check: dots are the share of levels below (left) and above (right) an "
    "interval over the share expected there, bands 95 % of what the replicates themselves give. "
    "Dots should lie around 1, within the bands; red squares do not. Ratios above 1 on both sides "
    "mean that levels vary more than the model has it, below 1 that they vary less. n: the levels "
    "that tell; where a limit of the interval lies among censored levels nobody knows on which "
    "side of it they are.")


def remark(fit: Fit) -> str:
    """What the method for levels below the limit does to the check, where it left some out."""
    return left_out(fit)


def draw(fit: Fit) -> Pages:
    """A page of two panels for each output."""
    table = npc(fit)
    outputs = table["output"].unique()
    return [("numerical_check" if len(outputs) == 1 else f"numerical_check_{o}",
             _page(fit, o, table[table["output"] == o])) for o in outputs]


def _page(fit: Fit, output: str, table: pd.DataFrame) -> Figure:
    height = 2.8
    figure = page(fit, 7.0, height, f"{output_label(fit, output)}: numerical predictive check")
    grid = figure.add_gridspec(1, 2, left=0.085, right=0.985, top=1 - 0.68 / height,
                               bottom=0.58 / height, wspace=0.16)
    shown = table[["observed", "upper95"]].div(table["expected"], axis=0).to_numpy()
    top = max(1.8, 1.08 * float(np.nanmax(shown, initial=0.0)))
    for k, side in enumerate(("below", "above")):
        ax = figure.add_subplot(grid[0, k])
        dress(ax)
        ax.set_ylim(0.0, top)
        _panel(ax, table[table["side"] == side])
        headed(ax, f"Levels {side} the interval")
        write(ax.set_xlabel, "Prediction interval", fontsize=SIZE, color=INK)
        if k == 0:
            write(ax.set_ylabel, "Observed / expected share", fontsize=SIZE, color=INK)
    marks = [Line2D([], [], color=INK, linewidth=1.0, marker="o", markersize=3.0,
                    label="observed"),
             Patch(facecolor=BLUE, alpha=0.35, label="95 % of the replicates"),
             Line2D([], [], color=ALARM, linestyle="", marker="s", markersize=4.0,
                    label="outside")]
    figure.legend(handles=marks, loc="upper left", ncols=len(marks), fontsize=SIZE - 1,
                  bbox_to_anchor=(0.075, 1 - 0.32 / height), frameon=False, handlelength=1.6,
                  columnspacing=0.9, handletextpad=0.4, borderpad=0, borderaxespad=0)
    return figure


def _panel(ax: Any, rows: pd.DataFrame) -> None:
    x = np.arange(len(rows))  # the intervals, evenly: the wide ones would crowd
    ratio, low, high = (rows[c].to_numpy(float) / rows["expected"].to_numpy(float)
                        for c in ("observed", "lower95", "upper95"))
    ax.axhline(1.0, color=GREY, linewidth=0.8, zorder=1)
    ax.fill_between(x, low, high, color=BLUE, alpha=0.35, linewidth=0, zorder=2)
    ax.plot(x, ratio, "o-", color=INK, markersize=3.0, linewidth=1.0, zorder=3)
    out = rows["outside"].to_numpy() == 1
    ax.plot(x[out], ratio[out], "s", color=ALARM, markersize=4.4, zorder=4)
    ax.set_xlim(-0.35, len(rows) - 0.65)
    ax.set_xticks(x, [f"{p:g} %\nn {n}" for p, n in zip(rows["interval"], rows["n"],
                                                        strict=True)])
