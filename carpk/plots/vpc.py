"""Visual predictive check: observed percentiles and share below the limit over simulated bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from carpk.fitting import Fit
from carpk.plots import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    POINTS,
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
from carpk.prediction import predictions
from carpk.predictive_check import COUNT, left_out, strata, vpc

TITLE = "Visual predictive check"
CAPTION = (
    "Lines: observed 5th, 50th and 95th percentile in each bin of time (ticks at the bottom "
    "bound the bins; a page without ticks has no bins but quantile regression on time). Bands: "
    "95 % of what the same design gives in new patients simulated from draws of the posterior, "
    "their own variability and residual error included, censored as the data are. A level below "
    "its limit counts as lowest, so a percentile that lies among them is not drawn. Below: the "
    "share of levels under the limit, observed (line) and simulated (band). Of a binary output "
    "the line is the share that is 1. Lines should stay within the bands. On pages that are "
    "prediction-corrected levels are scaled by the bin's median PRED over their own.")

_PAIR = {"p5": 0.28, "p50": 0.5, "p95": 0.28, "below": 0.35, "share": 0.5}  # how dark each band is
_DASH = {"p5": (0, (4, 2)), "p50": "-", "p95": (0, (4, 2)), "below": "-", "share": "-"}
SCALES = ("auto", "linear", "log", "split")
_TURN = 28.0  # a split axis gives half of its width to the days up to here


def remark(fit: Fit) -> str:
    """What the method for levels below the limit does to the check, where it left some out."""
    return left_out(fit)


def draw(fit: Fit) -> Pages:
    """For each output a page of all patients, and one for each covariate of the model.

    Where dose, inputs or covariates move the typical patient, a prediction-corrected page too.
    """
    rows = predictions(fit)
    held = fit.design.covariates
    by = [c for c in dict.fromkeys(e.column for e in fit.model.effects) if c in held]
    outputs = [o.name for o in fit.model.structure.outputs if (rows["output"] == o.name).any()]
    pages: Pages = []
    for output in outputs:
        suffix = f"_{output}" if len(outputs) > 1 else ""
        pages.append((f"vpc{suffix}", figure(fit, output)))
        if (by or _differ(fit)) and not fit.model.structure.output(output).binary:
            pages.append((f"vpc{suffix}_corrected", figure(fit, output, corrected=True)))
        pages += [(f"vpc{suffix}_{plain(c)}", figure(fit, output, by=c)) for c in by]
    return pages


def _differ(fit: Fit) -> bool:
    """Whether typical patients differ by input or dose: only then is a correction one."""
    seen = fit.design
    return any(len(np.unique(v)) > 1 for v in seen.inputs.values()) or any(
        len(np.unique(v, axis=0)) > 1 for v in (seen.dose_amount, seen.dose_time,
                                                     *seen.dose_events.values()))


def figure(fit: Fit, output: str, *, corrected: bool = False, by: str | None = None,
           bins: str | Sequence[float] = "adaptive", scale: str = "auto",
           count: int = COUNT) -> Figure:
    """One page: a column of two panels for each stratum, see `carpk.predictive_check.vpc`.

    scale : of time: linear; log; split (half of the width for days 0 to 28); auto, by square
        roots where samples crowd at the start
    """
    table = vpc(fit, output, corrected=corrected, by=by, bins=bins, count=count)
    rows = predictions(fit)
    rows = rows[rows["output"] == output]
    groups = strata(fit, rows, by)
    columns = min(len(groups), 3)
    bands = -(-len(groups) // columns)
    limited = bool(table.loc[table["statistic"] == "below", ["observed", "upper95"]].gt(0)
                   .any(axis=None))
    height = 1.0 + ((3.6 if columns == 1 else 3.0) if limited else 2.6) * bands
    words = ", prediction-corrected" if corrected else ""
    page_of = page(fit, 7.0, height, f"{output_label(fit, output)}: visual predictive check"
                   f"{words}")
    grid = page_of.add_gridspec(
        3 * bands - 1, columns, left=0.105, right=0.985, bottom=0.46 / height,
        top=1 - (0.74 if by else 0.54) / height, wspace=0.12, hspace=0.1,
        height_ratios=[*(3, 1.15 if limited else 0.01, 0.75) * bands][:-1])
    ends = _ends(rows, table)
    for k, (name, inside) in enumerate(groups):
        band, column = divmod(k, columns)
        panels = [page_of.add_subplot(grid[3 * band + j, column]) for j in range(1 + limited)]
        part = table[table["stratum"] == name]
        for ax in panels:
            dress(ax)
            _time(ax, fit, scale, k + columns >= len(groups) and ax is panels[-1])
            ax.tick_params(labelleft=column == 0)
        _levels(panels[0], rows[inside], part, ends, corrected)
        if limited:
            _share(panels[1], part)
        if name:
            patients = rows.loc[inside, "ID"].nunique()
            headed(panels[0], f"{plain(name, 30)}: {patients} patients")
        if column == 0:
            names = (output_label(fit, output), "Below limit")
            for ax, words in zip(panels, names, strict=False):
                write(ax.set_ylabel, words, fontsize=SIZE, color=INK)
    write(page_of.supxlabel, _time_name(fit, scale), fontsize=SIZE, color=INK, y=0.08 / height,
          va="bottom")
    _legend(page_of, fit, height, bool((rows["censored"] == 1).any()) and not corrected, corrected,
            "" if _overlap(table) else "o", "share" in set(table["statistic"]))
    return page_of


def _ends(rows: pd.DataFrame, table: pd.DataFrame) -> tuple[float, float, bool]:
    """The level axis of all panels, and whether it is logarithmic."""
    dv = rows["DV"].to_numpy(float)
    shown = table.loc[table["statistic"] != "below", ["observed", "lower95", "upper95"]]
    finite = shown.to_numpy()[np.isfinite(shown.to_numpy())]
    finite = finite if finite.size else dv
    low, high = min(dv.min(), finite.min()), max(dv.max(), finite.max())
    if (dv > 0).all():
        return max(low, dv.min() / 10) / 2, min(high, 30 * dv.max()) * 1.5, True
    edge = 0.05 * (high - low) or 1.0
    return low - edge, high + edge, False


def _levels(ax: Any, rows: pd.DataFrame, part: pd.DataFrame, ends: tuple[float, float, bool],
            corrected: bool) -> None:
    low, high, log = ends
    if log:
        log_axis(ax, "y", low, high)
    else:
        ax.set_ylim(low, high)
    many = len(rows) > POINTS
    if not corrected:  # the points of a corrected page are no measurements
        for code, marker in ((0, "o"), (1, "v"), (-1, "^")):
            dots = rows[rows["censored"] == code]
            face = GREY if code == 0 else "none"
            ax.plot(dots["TIME"], dots["DV"], marker, markersize=2.0 if code == 0 else 2.6,
                    markerfacecolor=face, markeredgecolor=GREY, markeredgewidth=0.0 if code == 0
                    else 0.4, alpha=0.35, rasterized=many, zorder=1)
        for limit in rows.loc[rows["censored"] == 1, "upper"].unique():
            ax.axhline(limit, color=ORANGE, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1)
    for statistic in ("p5", "p95", "p50", "share"):
        if (part["statistic"] == statistic).any():
            _band(ax, part[part["statistic"] == statistic], statistic, (low, high))
    edges = np.unique(part[["first", "last"]].to_numpy())
    if not _overlap(part):
        ax.plot(edges, np.full(len(edges), 0.0), "|", color=GREY, markersize=3.5,
                markeredgewidth=0.5, transform=ax.get_xaxis_transform(), clip_on=False)


def _overlap(part: pd.DataFrame) -> bool:
    """Whether rows count in several bins, whose ends then mean nothing."""
    first, last = part["first"].unique(), part["last"].unique()
    return len(first) > 1 and bool(np.sort(first)[1] < np.sort(last)[0])


def _share(ax: Any, part: pd.DataFrame) -> None:
    mine = part[part["statistic"] == "below"]
    ax.set_ylim(-0.02, 1.02)
    ax.yaxis.set_major_locator(FixedLocator([0.0, 0.5, 1.0]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
    _band(ax, mine, "below", (0.0, 1.0))


def _band(ax: Any, rows: pd.DataFrame, statistic: str, ends: tuple[float, float]) -> None:
    """The band of one statistic and its observed line; -inf is off the panel, not in it."""
    time = rows["time"].to_numpy(float)
    # a band that reaches below every limit ends at the edge of the panel
    low, high = (np.clip(rows[c].to_numpy(float), *ends) for c in ("lower95", "upper95"))
    colour = BLUE
    whole = np.isfinite(rows["upper95"].to_numpy(float))
    if len(time) == 1:
        ax.errorbar(time, 0.5 * (low + high), 0.5 * (high - low), color=colour, alpha=0.5,
                    linewidth=4)
    ax.fill_between(time, low, high, where=whole, color=colour, alpha=_PAIR[statistic],
                    linewidth=0, zorder=2)
    seen = rows["observed"].to_numpy(float)
    seen = np.where(np.isfinite(seen), seen, np.nan)
    ax.plot(time, seen, marker="" if _overlap(rows) else "o", markersize=2.2, color=INK,
            linewidth=1.0, zorder=4, linestyle=_DASH[statistic])


def _time(ax: Any, fit: Fit, scale: str, labelled: bool) -> None:
    seen = fit.design
    times, unit = seen.time[seen.observed], fit.model.structure.time_unit
    time_axis(ax, times, unit)
    last = float(times.max())
    if scale == "linear":
        ax.set_xscale("linear")
        ax.set_xlim(0.0, 1.02 * last)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    elif scale == "log":
        first = float(times[times > 0].min())
        log_axis(ax, "x", first / 1.2, 1.2 * last)
    elif scale == "split" and last > _TURN:
        ax.set_xscale("function", functions=(
            lambda t: np.where(t <= _TURN, t / _TURN, 1 + (t - _TURN) / (last - _TURN)),
            lambda s: np.where(s <= 1, s * _TURN, _TURN + (s - 1) * (last - _TURN))))
        ax.set_xlim(0.0, 1.02 * last)
        later = [d for d in (90, 180, 365, 730, 1095, 1825, 3650) if d <= 1.02 * last]
        ax.xaxis.set_major_locator(FixedLocator([0, 7, 14, 21, 28, *later]))
        ax.axvline(_TURN, color=GREY, linewidth=0.5, linestyle=":")
    ax.tick_params(labelbottom=labelled)


def _time_name(fit: Fit, scale: str) -> str:
    if scale == "auto":
        return time_label(fit)
    unit = fit.model.structure.time_unit
    first = "Day after infusion" if unit == "day" else f"Time ({unit})"
    return first + {"log": " (log scale)", "split": " (wider up to day 28)"}.get(scale, "")


def _legend(page_of: Figure, fit: Fit, height: float, censored: bool, corrected: bool,
            marker: str, binary: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    of = fit.posterior["posterior"].dataset.attrs["draws_from"]
    marks: list[Any] = [
        Line2D([], [], color=INK, linewidth=1.0, marker=marker, markersize=2.2,
               label="observed median"),
        Line2D([], [], color=INK, linewidth=1.0, linestyle=(0, (4, 2)),
               label="observed 5th, 95th"),
        Patch(facecolor=BLUE, alpha=_PAIR["p50"], label=f"95 % bands ({of}) of the median"),
        Patch(facecolor=BLUE, alpha=_PAIR["p5"], label="of 5th, 95th")]
    if binary:
        marks = [marks[0], marks[2]]
        marks[0].set_label("observed share of 1")
        marks[1].set_label(f"95 % band ({of}) of the share")
    if not corrected:
        marks.append(Line2D([], [], marker="o", linestyle="", color=GREY, alpha=0.5,
                            markersize=2.4, label="answers" if binary else "levels"))
    if censored:
        marks.append(Line2D([], [], color=ORANGE, linewidth=0.7, linestyle=(0, (4, 2)),
                            label="limit"))
    page_of.legend(handles=marks, loc="upper left", ncols=len(marks), fontsize=SIZE - 1,
                   bbox_to_anchor=(0.085, 1 - 0.32 / height), frameon=False, handlelength=1.6,
                   columnspacing=0.9, handletextpad=0.4, borderpad=0, borderaxespad=0)

