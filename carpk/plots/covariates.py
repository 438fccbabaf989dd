"""Forest plot: what each covariate does to the parameters it moves and to the exposure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter

from carpk.covariate_effects import covariates, relevant
from carpk.fitting import Fit
from carpk.plots import (
    BLUE,
    GREY,
    INK,
    SIZE,
    Pages,
    dress,
    headed,
    log_axis,
    number,
    page,
    plain,
    write,
)

TITLE = "Covariate effects"
CAPTION = (
    "The typical patient at each covariate's 5th and 95th percentile, or of each level, against "
    "the typical patient at the reference: posterior median and 95 % interval of the ratio (of "
    "the difference, where a parameter is not on a log scale). The shaded band holds what "
    "counts as no relevant change, 0.8 to 1.25 unless another was asked for; a filled mark has its "
    "interval beyond 1. Other covariates are at their references. Covariates that are related "
    "share their effects: read them together.")
_ROW = 0.2  # inches


def draw(fit: Fit) -> Pages:
    """A page with a panel for each quantity that a covariate moves; none without covariates."""
    table = covariates(fit)
    if table.empty:
        return []
    order = [q for kind in ("parameter", "exposure", "derived")
             for q in dict.fromkeys(table.loc[table["kind"] == kind, "quantity"])]
    panels = [table[table["quantity"] == q] for q in order]
    heights = [_ROW * (len(p) + 1.1) for p in panels]
    height = 0.45 + sum(heights) + 0.42 * len(panels)
    band = relevant(fit)
    figure = page(fit, 7.0, height, f"{TITLE}; shaded: {band[0]:g} to {band[1]:g}")
    top = height - 0.45
    shared = _ends(table[table["scale"] == "ratio"])
    for panel, tall in zip(panels, heights, strict=True):
        ax = figure.add_axes((0.30, (top - tall) / height, 0.42, tall / height))
        top -= tall + 0.42
        _panel(ax, panel, shared, band)
    return [("covariates", figure)]


def _panel(ax: Any, rows: pd.DataFrame, shared: tuple[float, float],
           band: tuple[float, float]) -> None:
    """One quantity: a row for each value of each covariate."""
    dress(ax)
    ratio = (rows["scale"] == "ratio").all()
    at = np.arange(len(rows))[::-1]
    none = 1.0 if ratio else 0.0
    if ratio:
        log_axis(ax, "x", *shared)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: number(v)))  # ratios, not powers
        ax.axvspan(*band, color="#eeeeee", linewidth=0, zorder=0)
    ax.axvline(none, color=GREY, linewidth=0.7, zorder=1)
    for y, row in zip(at, rows.itertuples(), strict=True):
        beyond = row.lower95 > none or row.upper95 < none
        ax.plot([row.lower95, row.upper95], [y, y], color=BLUE, linewidth=1.2, zorder=2,
                solid_capstyle="butt", clip_on=True)
        ax.plot([row.median], [y], marker="o", markersize=4.2, color=BLUE, zorder=3,
                markerfacecolor=BLUE if beyond else "white", markeredgewidth=0.9)
        write(ax.text, 1.02, y, f"{row.median:.2f} ({row.lower95:.2f} to {row.upper95:.2f})",
              transform=ax.get_yaxis_transform(), va="center", fontsize=SIZE - 1, color=INK)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.set_yticks(at)
    write(ax.set_yticklabels, [f"{plain(r.covariate, 22)} {_written(r.value)} "
                               f"against {_written(r.reference)}" for r in rows.itertuples()])
    ax.tick_params(axis="y", length=0)
    quantity = rows["quantity"].iloc[0]
    headed(ax, f"{quantity}, {'ratio' if ratio else 'difference'}", fontweight="bold")


def _ends(rows: pd.DataFrame) -> tuple[float, float]:
    """The ends of the shared axis of ratios: every median, and intervals within 30-fold."""
    if rows.empty:
        return 0.5, 2.0
    low, high = rows["lower95"].to_numpy(), rows["upper95"].to_numpy()
    low = min(0.6, max(low.min(), rows["median"].min() / 30.0))
    high = max(1.6, min(high.max(), rows["median"].max() * 30.0))
    return 0.92 * low, 1.08 * high


def _written(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else plain(str(value), 12)
