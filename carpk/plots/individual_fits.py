"""Every patient's observations and individual curve, pages of small panels on shared axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from carpk.fitting import Fit
from carpk.plots import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SIZE,
    Pages,
    dress,
    headed,
    log_axis,
    output_label,
    page,
    plain,
    time_axis,
    time_label,
    write,
)
from carpk.prediction import curves, predictions

TITLE = "Individual fits"
CAPTION = (
    "Dots are measured; open triangles are censored and stand at their limit, pointing to where "
    "the truth lies. Blue: median and 95 % credible band of the patient's own curve (not of new "
    "measurements). Grey: the typical patient with the same inputs. Dashed: limit of "
    "quantification. All panels of one output share their axes.")

ROWS, COLUMNS = 5, 4


def draw(fit: Fit) -> Pages:
    """Pages of 5 x 4 patients, output by output."""
    seen, paths = predictions(fit), curves(fit)
    outputs = [o.name for o in fit.model.structure.outputs]
    ids = fit.design.ids
    each = per_page(len(ids))
    pages: Pages = []
    for output in outputs:
        points, lines = (t[t["output"] == output] for t in (seen, paths))
        if points.empty:
            continue
        frame = _Frame(fit, output, points)
        by_id, curve = dict(list(points.groupby("ID"))), dict(list(lines.groupby("ID")))
        for number, first in enumerate(range(0, len(ids), each), 1):
            shown = ids[first:first + each]
            figure = frame.figure(shown, first, len(ids))
            for k, patient in enumerate(shown):
                frame.panel(figure.axes[k], patient, by_id.get(patient, points.iloc[:0]),
                            curve[patient])
            name = "_".join(["individual_fits", *([output] if len(outputs) > 1 else []),
                             *([str(number)] if len(ids) > each else [])])
            pages.append((name, figure))
    return pages


class _Frame:
    """What the panels of one output share."""

    def __init__(self, fit: Fit, output: str, points: pd.DataFrame) -> None:
        self.fit, self.output = fit, output
        self.times = fit.design.time[fit.design.observed]
        dv = points["DV"].to_numpy()
        self.log = bool((dv > 0).all())
        self.low, self.high = limits(dv, self.log)
        hidden = points.loc[points["censored"] == 1, "upper"].unique()
        self.limit = float(hidden[0]) if len(hidden) == 1 else math.nan

    def figure(self, shown: tuple[str, ...], first: int, total: int) -> Figure:
        """A page's empty panels, with the axes' names and the legend."""
        rows = math.ceil(len(shown) / COLUMNS)
        height = 1.02 + 1.45 * rows
        title = f"{output_label(self.fit, self.output)}: patients {first + 1} to " \
            f"{first + len(shown)} of {total}"
        figure = page(self.fit, 7.0, height, title)
        grid = figure.add_gridspec(
            rows, COLUMNS, left=0.09, right=0.985, top=1 - 0.64 / height, bottom=0.45 / height,
            wspace=0.1, hspace=0.28)
        for k in range(len(shown)):
            ax = figure.add_subplot(grid[k // COLUMNS, k % COLUMNS])
            dress(ax)
            time_axis(ax, self.times, self.fit.model.structure.time_unit)
            if self.log:
                log_axis(ax, "y", self.low, self.high)
            else:
                ax.set_ylim(self.low, self.high)
            ax.tick_params(labelleft=k % COLUMNS == 0,
                           labelbottom=k + COLUMNS >= len(shown))
        write(figure.supxlabel, time_label(self.fit), fontsize=SIZE, color=INK,
              y=0.08 / height, va="bottom")
        write(figure.supylabel, output_label(self.fit, self.output), fontsize=SIZE, color=INK,
              x=0.012)
        self._legend(figure, height)
        return figure

    def panel(self, ax: Any, patient: str, points: pd.DataFrame, line: pd.DataFrame) -> None:
        """One patient."""
        headed(ax, plain(patient))
        time = line["TIME"].to_numpy()
        # outside the panel a curve needs no points: they would only fill the file
        band = np.clip(line[["lower95", "median", "upper95", "typical"]].to_numpy().T,
                       *((self.low / 3, self.high * 3) if self.log else (-np.inf, np.inf)))
        ax.fill_between(time, band[0], band[2], color=BLUE, alpha=0.22, linewidth=0)
        ax.plot(time, band[3], color=GREY, linewidth=0.6)
        ax.plot(time, band[1], color=BLUE, linewidth=1.1)
        hidden = points[points["censored"] == 1]
        limits_here = hidden["upper"].unique() if len(hidden) else np.array([self.limit])
        for limit in limits_here[np.isfinite(limits_here)]:
            ax.axhline(limit, color=ORANGE, linewidth=0.7, linestyle=(0, (4, 2)))
        for code, marker in ((1, "v"), (-1, "^")):
            rows = points[points["censored"] == code]
            ax.plot(rows["TIME"], rows["DV"], marker, markersize=3.2, markerfacecolor="white",
                    markeredgecolor=INK, markeredgewidth=0.6, clip_on=False)
        rows = points[points["censored"] == 0]
        ax.plot(rows["TIME"], rows["DV"], "o", markersize=2.6, color=INK, markeredgewidth=0,
                clip_on=False)

    def _legend(self, figure: Figure, height: float) -> None:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch
        of = self.fit.posterior["posterior"].dataset.attrs["draws_from"]
        marks: list[Any] = [
            Line2D([], [], marker="o", linestyle="", color=INK, markersize=2.6, label="measured"),
            Line2D([], [], marker="v", linestyle="", markerfacecolor="white", markersize=3.6,
                   markeredgecolor=INK, markeredgewidth=0.6, label="censored"),
            Line2D([], [], color=BLUE, linewidth=1.1, label="individual"),
            Patch(facecolor=BLUE, alpha=0.22, label=f"95 % band ({of})"),
            Line2D([], [], color=GREY, linewidth=0.6, label="typical"),
            Line2D([], [], color=ORANGE, linewidth=0.7, linestyle=(0, (4, 2)), label="limit")]
        figure.legend(handles=marks, loc="upper left", ncols=len(marks), fontsize=SIZE - 1,
                      bbox_to_anchor=(0.085, 1 - 0.32 / height), frameon=False, handlelength=1.4,
                      columnspacing=1.3, handletextpad=0.4, borderpad=0, borderaxespad=0)


def per_page(patients: int) -> int:
    """How many patients a page holds: whole rows, no page left almost empty.

    >>> per_page(90), per_page(21), per_page(3)
    (20, 12, 4)
    """
    pages = -(-patients // (ROWS * COLUMNS))
    return COLUMNS * -(-patients // (pages * COLUMNS))


def limits(dv: np.ndarray, log: bool) -> tuple[float, float]:
    """The range of an axis that shows every DV; on a log scale more below than above, where the
    curves of censored patients go."""
    low, high = float(dv.min()), float(dv.max())
    if log:
        return low / 4, high * 2
    edge = 0.06 * (high - low) or 1.0
    return low - edge, high + edge
