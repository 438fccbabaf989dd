"""Predictive checks of clinical endpoints: their distribution over patients, and detectability."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter

from carpk.endpoint_check import PER_PATIENT, Endpoints, endpoints_of
from carpk.exposure_summary import unit_of
from carpk.fitting import Fit
from carpk.noncompartmental import MONTHS
from carpk.plots import (
    BLUE,
    INK,
    SIZE,
    Pages,
    dress,
    headed,
    log_axis,
    output_label,
    page,
    time_axis,
    time_label,
    write,
)

TITLE = "Predictive checks of clinical endpoints"
CAPTION = (
    "Lines: the share of patients observed to have a peak (and so on) up to this value, from "
    "their samples as in a non-compartmental analysis. Bands: 95 % of what the same samples give "
    "in new patients simulated from draws of the posterior. Last panels: share of sampled patients "
    "above the limit at months 1, 3, 6 and 12, observed (dots) and predicted (median and 95 %); "
    "and the share not yet lost of those who were ever above it, by Kaplan and Meier's estimate "
    "for losses that two samples bracket, of the data and (band) of 200 replicates. "
    "Clast depends on who stayed under observation and how long, which the replicates share. "
    "Numbers: tables/endpoints.csv.")

_SHARES = np.linspace(0.02, 0.98, 49)


def draw(fit: Fit) -> Pages:
    """A page of up to six panels for each output that is observed."""
    seen = fit.design
    present = set(np.unique(seen.output[seen.observed]))
    outputs = [o.name for k, o in enumerate(fit.model.structure.outputs)
               if k in present and not o.binary]
    return [("endpoints" if len(outputs) == 1 else f"endpoints_{o}", _page(fit, o))
            for o in outputs]


def _page(fit: Fit, output: str) -> Any:
    found = endpoints_of(fit, output)
    # how Tlast is spread shows in who is not yet lost
    shown = [n for n in PER_PATIENT if n in found.values and n != "Tlast"]
    months = [m for m in MONTHS if np.isfinite(found.values.get(
        f"detectable_{m}", np.full((1, 1), np.nan))[0]).any()]
    lost = len(found.observed("Tlast")) > 0 and bool(np.isfinite(found.next_sample).any())
    panels = len(shown) + bool(months) + lost
    rows = -(-panels // 3)
    height = 0.8 + 2.1 * rows
    figure = page(fit, 7.0, height, f"{output_label(fit, output)}: clinical endpoints")
    grid = figure.add_gridspec(rows, 3, left=0.085, right=0.985, top=1 - 0.5 / height,
                               bottom=0.52 / height, wspace=0.12, hspace=0.42)
    dvid = str(fit.model.structure.output(output).dvid)
    level, time = fit.manifest["data"]["units"][dvid], fit.model.structure.time_unit
    for k, name in enumerate(shown):
        ax = figure.add_subplot(grid[divmod(k, 3)])
        dress(ax)
        unit = unit_of(name, level).replace("day", time)
        _distribution(ax, found, name)
        write(ax.set_xlabel, f"{name.replace('_', '-')}" + (f" ({unit})" if unit else ""),
              fontsize=SIZE, color=INK)
        _percent(ax, k % 3 == 0, "Patients up to this value")
    if months:
        ax = figure.add_subplot(grid[divmod(len(shown), 3)])
        dress(ax)
        _detectable(ax, found, months)
        _percent(ax, len(shown) % 3 == 0, "")
        headed(ax, "Patients above the limit")
    if lost:
        ax = figure.add_subplot(grid[divmod(panels - 1, 3)])
        dress(ax)
        _lost(ax, fit, found)
        _percent(ax, panels % 3 == 1, "")
        headed(ax, "Not yet lost")
    return figure


def _percent(ax: Any, named: bool, words: str) -> None:
    ax.set_ylim(-0.02, 1.02)
    ax.yaxis.set_major_locator(FixedLocator([0.0, 0.25, 0.5, 0.75, 1.0]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
    ax.tick_params(labelleft=named)
    if named:
        write(ax.set_ylabel, words, fontsize=SIZE, color=INK, labelpad=1)


def _distribution(ax: Any, found: Endpoints, name: str) -> None:
    """Observed and simulated cumulative distribution over patients."""
    seen = np.sort(found.observed(name))
    simulated = found.values[name][1:]
    simulated = simulated[np.isfinite(simulated).any(axis=1)]
    if not len(seen) or not len(simulated):
        return
    each = np.nanquantile(simulated, _SHARES, axis=1)
    low, middle, high = np.quantile(each, [0.025, 0.5, 0.975], axis=1)
    ends = (min(seen[0], middle[0]), max(seen[-1], middle[-1]))
    if ends[0] > 0 and name not in ("Tmax", "Tlast"):
        log_axis(ax, "x", ends[0] / 1.6, ends[1] * 1.6)
    elif ends[1] > ends[0]:
        edge = 0.04 * (ends[1] - ends[0])
        ax.set_xlim(ends[0] - edge, ends[1] + edge)
    ax.fill_betweenx(_SHARES, low, high, color=BLUE, alpha=0.28, linewidth=0)
    ax.plot(middle, _SHARES, color=BLUE, linewidth=1.0)
    ax.step(np.append(seen[:1], seen), np.arange(len(seen) + 1) / len(seen), where="post",
            color=INK, linewidth=1.0)


def _lost(ax: Any, fit: Fit, found: Endpoints) -> None:
    """Kaplan and Meier's curve of the data, and where those of replicates lie."""
    seen = fit.design
    time_axis(ax, seen.time[seen.observed], fit.model.structure.time_unit)
    time = ax.get_xlim()[1] * np.linspace(0.0, 1.0, 120) ** 2
    observed, *simulated = found.still_above(time)
    if simulated:
        low, middle, high = np.quantile(simulated, [0.025, 0.5, 0.975], axis=0)
        ax.fill_between(time, low, high, color=BLUE, alpha=0.28, linewidth=0)
        ax.plot(time, middle, color=BLUE, linewidth=1.0)
    ax.plot(time, observed, color=INK, linewidth=1.0)
    write(ax.set_xlabel, time_label(fit), fontsize=SIZE, color=INK)


def _detectable(ax: Any, found: Endpoints, months: list[str]) -> None:
    for k, month in enumerate(months):
        share = np.nanmean(found.values[f"detectable_{month}"], axis=1)
        low, middle, high = np.quantile(share[1:], [0.025, 0.5, 0.975])
        ax.plot([k, k], [low, high], color=BLUE, alpha=0.35, linewidth=7,
                solid_capstyle="butt")
        ax.plot([k - 0.16, k + 0.16], [middle, middle], color=BLUE, linewidth=1.2)
        ax.plot([k], share[:1], "o", color=INK, markersize=4)
    n = [int(np.isfinite(found.values[f"detectable_{m}"][0]).sum()) for m in months]
    ax.set_xlim(-0.6, len(months) - 0.4)
    ax.set_xticks(range(len(months)), [f"{m[1:]}\n(n {c})" for m, c in zip(months, n, strict=True)])
    write(ax.set_xlabel, "Month", fontsize=SIZE, color=INK)
