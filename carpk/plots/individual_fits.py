"""Every patient's observations and individual curves, outputs above each other, on shared axes."""

from __future__ import annotations

import math
from itertools import cycle
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
    SEVERAL,
    SIZE,
    Pages,
    decade,
    dress,
    headed,
    limits,
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
    "the truth lies. Blue: the patient's own curve, its median with 50 and 90 % bands (not of new "
    "measurements). Grey: the typical patient with the same inputs. Dashed: limit of "
    "quantification. Triangles under a time axis are doses, later ones with their amount in the "
    "file's unit; dotted upright lines are inputs that are times, such as comedication. Outputs "
    "of one patient stand above each other; all panels of one output share their axes.")

ROWS, COLUMNS = 5, 4
_MARKS, _GREEN = (SEVERAL[3], SEVERAL[5], SEVERAL[6], SEVERAL[4]), SEVERAL[2]
_LABELLED = 3  # amounts of more doses than these would overlap
_ROOM, _GAP, _BETWEEN = 8.6, 0.32, 0.14  # inches of a page, and between patients;
# between a patient's outputs, as a share of a panel's height


def draw(fit: Fit) -> Pages:
    """Pages of 5 x 4 patients, or of fewer with the panels of several outputs below each other."""
    seen, paths = predictions(fit), curves(fit)
    sheets = _Sheets(fit, seen)
    by_panel = dict(list(seen.groupby(["ID", "output"])))
    curve = dict(list(paths.groupby(["ID", "output"])))
    ids = fit.design.ids
    each = per_page(len(ids), len(sheets.frames))
    pages: Pages = []
    for number, first in enumerate(range(0, len(ids), each), 1):
        shown = ids[first:first + each]
        figure, stacks = sheets.page(first, shown, [
            [f for f in sheets.frames if (i, f.output) in by_panel] for i in shown])
        for k, stack in enumerate(stacks):
            for frame, ax in stack:
                at = (shown[k], frame.output)
                frame.panel(ax, by_panel[at], curve[at])
                sheets.events(ax, first + k, last=ax is stack[-1][1])
            headed(stack[0][1], plain(shown[k]))
        pages.append((f"individual_fits_{number}" if len(ids) > each else "individual_fits",
                      figure))
    return pages


class _Sheets:
    """What all pages share: panels, axes' names, legend, and the times of doses and inputs."""

    def __init__(self, fit: Fit, seen: pd.DataFrame) -> None:
        self.fit, self.design = fit, fit.design
        self.times = self.design.time[self.design.observed]
        self.frames = [_Frame(o.name, seen[seen["output"] == o.name])
                       for o in fit.model.structure.outputs if (seen["output"] == o.name).any()]
        self.inputs = {n: self.design.inputs[n] for n in event_inputs(fit)
                       if (self.design.inputs[n] <= self.times.max()).any()}
        self.dosed = bool((self.design.dose_amount > 0).any())

    def page(self, first: int, shown: tuple[str, ...], wanted: list[list[_Frame]]) \
            -> tuple[Figure, list[list[tuple[_Frame, Any]]]]:
        """An empty page, and of each of its patients the frames and panels from the top down."""
        several, rows = len(self.frames), math.ceil(len(shown) / COLUMNS)
        of = output_label(self.fit, self.frames[0].output) if several == 1 else \
            plain(", ".join(f.output for f in self.frames), 60)
        legend = self._legend()
        above, stack = 0.48 + 0.16 * len(legend), _height(several)
        height = above + 0.45 - _GAP + rows * (stack + _GAP)
        figure = page(self.fit, 7.0, height, f"{of}: patients {first + 1} to "
                      f"{first + len(shown)} of {len(self.design.ids)}")
        left = 0.09 if several == 1 else 0.115
        grid = figure.add_gridspec(rows, COLUMNS, left=left, right=0.985, top=1 - above / height,
                                   bottom=0.45 / height, wspace=0.1, hspace=_GAP / stack)
        stacks = []
        for k, frames in enumerate(wanted):
            inner = grid[k // COLUMNS, k % COLUMNS].subgridspec(several, 1, hspace=_BETWEEN)
            panels = []
            for frame in frames:
                ax = figure.add_subplot(inner[self.frames.index(frame)])
                dress(ax)
                time_axis(ax, self.times, self.fit.model.structure.time_unit)
                frame.scale(ax)
                ax.tick_params(labelleft=k % COLUMNS == 0,
                               labelbottom=k + COLUMNS >= len(shown) and frame is frames[-1])
                panels.append((frame, ax))
            stacks.append(panels)
        write(figure.supxlabel, time_label(self.fit), fontsize=SIZE, color=INK,
              y=0.08 / height, va="bottom")
        for row in range(rows if several > 1 else 1):
            for k, frame in enumerate(self.frames):
                box = grid[row, 0].subgridspec(several, 1, hspace=_BETWEEN)[k].get_position(figure)
                at = (box.y0 + box.y1) / 2 if several > 1 else 0.5
                label = output_label(self.fit, frame.output)
                write(figure.text, 0.012, at, label if several == 1 else label.replace(
                    " (", "\n(", 1), rotation=90, ha="left", va="center",
                    multialignment="center", fontsize=SIZE if several == 1 else SIZE - 1,
                    color=INK)
        for row, marks in enumerate(legend):
            figure.legend(
                handles=marks, loc="upper left", ncols=len(marks), fontsize=SIZE - 1,
                bbox_to_anchor=(left - 0.005, 1 - (0.32 + 0.16 * row) / height), frameon=False,
                handlelength=1.4, columnspacing=1.3, handletextpad=0.4, borderpad=0,
                borderaxespad=0)
        return figure, stacks

    def events(self, ax: Any, patient: int, last: bool) -> None:
        """The times of a patient's inputs in a panel and, under its last one, the doses."""
        for color, values in zip(cycle(_MARKS), self.inputs.values(), strict=False):
            if values[patient] <= self.times.max():
                ax.axvline(values[patient], color=color, linewidth=1.0, linestyle=(0, (1, 1.5)))
        d = self.design
        given = (d.dose_amount[patient] > 0) & (d.dose_time[patient] <= self.times.max())
        if not last or not given.any():
            return
        time, amount = d.dose_time[patient][given], d.dose_amount[patient][given]
        foot = ax.get_xaxis_transform()
        ax.plot(time, np.full(len(time), -0.04), "^", transform=foot, color=_GREEN, markersize=3.6,
                markeredgewidth=0, clip_on=False, zorder=5)
        again = time > time.min()
        if again.sum() <= _LABELLED:
            across = foot + ax.transAxes.inverted()
            before, line = -1.0, 0
            for t, a in zip(time[again], amount[again], strict=True):
                place = across.transform((t, 0.0))[0]
                line = line + 1 if place - before < 0.25 else 0  # beside each other, or stairs
                write(ax.text, t, 0.02 + 0.11 * line, written_amount(a), transform=foot,
                      ha="center", va="bottom", fontsize=SIZE - 2, color=_GREEN)
                before = place

    def _legend(self) -> list[list[Any]]:
        """The marks and their names, in rows."""
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch
        of = self.fit.posterior["posterior"].dataset.attrs["draws_from"]
        rows: list[list[Any]] = [[
            Line2D([], [], marker="o", linestyle="", color=INK, markersize=2.6, label="measured"),
            Line2D([], [], marker="v", linestyle="", markerfacecolor="white", markersize=3.6,
                   markeredgecolor=INK, markeredgewidth=0.6, label="censored"),
            Line2D([], [], color=BLUE, linewidth=1.1, label="individual"),
            Patch(facecolor=BLUE, alpha=0.45, label="50 %"),
            Patch(facecolor=BLUE, alpha=0.2, label=f"90 % band ({of})"),
            Line2D([], [], color=GREY, linewidth=0.6, label="typical"),
            Line2D([], [], color=ORANGE, linewidth=0.7, linestyle=(0, (4, 2)), label="limit")]]
        more: list[Any] = [Line2D([], [], color=c, linewidth=1.0, linestyle=(0, (1, 1.5)), label=n)
                           for c, n in zip(cycle(_MARKS), self.inputs, strict=False)]
        if self.dosed:
            more = [Line2D([], [], marker="^", linestyle="", color=_GREEN, markersize=3.6,
                           markeredgewidth=0, label="dose"), *more]
        return [*rows, *([more] if more else [])]


class _Frame:
    """What the panels of one output share."""

    def __init__(self, output: str, points: pd.DataFrame) -> None:
        self.output = output
        dv = points["DV"].to_numpy()
        self.log = bool((dv > 0).all())
        self.low, self.high = limits(dv, self.log)
        hidden = points.loc[points["censored"] == 1, "upper"].unique()
        self.limit = float(hidden[0]) if len(hidden) == 1 else math.nan

    def scale(self, ax: Any) -> None:
        """The axis of levels."""
        if self.log:
            log_axis(ax, "y", self.low, self.high)
        else:
            ax.set_ylim(self.low, self.high)

    def panel(self, ax: Any, points: pd.DataFrame, line: pd.DataFrame) -> None:
        """One patient."""
        time = line["TIME"].to_numpy()
        # outside the panel a curve needs no points: they would only fill the file
        ends = (self.low / 3, self.high * 3) if self.log else (-np.inf, np.inf)
        low, lower, middle, upper, high, typical = np.clip(line[[
            "lower90", "lower50", "median", "upper50", "upper90", "typical"]].to_numpy().T, *ends)
        ax.fill_between(time, low, high, color=BLUE, alpha=0.2, linewidth=0)
        ax.fill_between(time, lower, upper, color=BLUE, alpha=0.3, linewidth=0)
        ax.plot(time, typical, color=GREY, linewidth=0.6)
        ax.plot(time, middle, color=BLUE, linewidth=1.1)
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


def event_inputs(fit: Fit) -> list[str]:
    """The inputs that are times at which something happens to a patient: those in the model's
    unit of time that are a switch of the model, or never unless the file says when."""
    structure = fit.model.structure
    return [i.name for i in structure.inputs if i.unit == structure.time_unit
            and (i.name in structure.switches or i.default == math.inf)]


def per_page(patients: int, outputs: int = 1) -> int:
    """How many patients a page holds: whole rows, no page left almost empty.

    >>> per_page(90), per_page(21), per_page(3), per_page(42, 3)
    (20, 12, 4, 8)
    """
    rows = ROWS if outputs == 1 else max(1, math.floor(_ROOM / (_height(outputs) + _GAP)))
    pages = -(-patients // (rows * COLUMNS))
    return COLUMNS * -(-patients // (pages * COLUMNS))


def _height(outputs: int) -> float:
    """Inches of one patient's panels."""
    gaps = _BETWEEN * (outputs - 1)
    return 1.13 if outputs == 1 else min(0.85, _ROOM / (outputs + gaps)) * (outputs + gaps)


def written_amount(amount: float) -> str:
    """A dose in few characters.

    >>> written_amount(150.0), written_amount(2.5e8), written_amount(1e8)
    ('150', '2.5×10⁸', '10⁸')
    """
    if 1e-3 <= amount < 1e4:
        return f"{amount:.3g}"
    power = 10.0 ** math.floor(math.log10(amount * (1 + 1e-12)))
    digits = f"{amount / power:.2g}"
    return decade(power) if digits == "1" else f"{digits}×{decade(power)}"
