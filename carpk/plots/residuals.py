"""Residuals against time and prediction, and their quantiles: IWRES and npde."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from carpk.fitting import Fit
from carpk.normalised_errors import judged, npde
from carpk.plots import (
    BLUE,
    GREY,
    INK,
    POINTS,
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
from carpk.prediction import predictions
from carpk.predictive_check import adaptive_bins

TITLE = "Residuals"
CAPTION = (
    "Top: IWRES, what is left of each measured level after its patient's own curve, in SDs of the "
    "residual error (censored levels have none). Bottom: npde, where each level falls among "
    "those of new patients, decorrelated within the patient; censored levels (open triangles) "
    "are drawn from their predictive distribution. Both should scatter as a standard normal "
    "around 0 with no trend: dashed lines hold 95 %, the blue line is the running median, and "
    "quantiles should follow the line. SDs of IWRES well below 1 mean that individual curves "
    "follow the noise (epsilon shrinkage). p: the probability that npde lie as far from a standard "
    "normal by chance; the check uses the data the model was fitted to, and is lenient.")

_EDGE = 4.2


def draw(fit: Fit) -> Pages:
    """A page of six panels for each output."""
    table = predictions(fit)
    table["NPDE"] = npde(fit)
    outputs = [o.name for o in fit.model.structure.outputs if (table["output"] == o.name).any()]
    return [("residuals" if len(outputs) == 1 else f"residuals_{o}",
             _page(fit, o, table[table["output"] == o])) for o in outputs]


def _page(fit: Fit, output: str, rows: pd.DataFrame) -> Any:
    height = 5.2
    figure = page(fit, 7.0, height, f"{output_label(fit, output)}: residuals")
    grid = figure.add_gridspec(2, 3, left=0.08, right=0.985, top=1 - 0.62 / height,
                               bottom=0.46 / height, wspace=0.3, hspace=0.5)
    for k, kind in enumerate(("IWRES", "NPDE")):
        used = rows[np.isfinite(rows[kind])]
        word = kind if kind == "IWRES" else "npde"
        for column, x in enumerate(("TIME", "IPRED" if kind == "IWRES" else "PRED")):
            ax = figure.add_subplot(grid[k, column])
            dress(ax)
            if x == "TIME":
                seen = fit.design
                time_axis(ax, seen.time[seen.observed], fit.model.structure.time_unit)
                label = time_label(fit).replace(" (square-root scale)", ", square-root scale")
            else:
                _prediction_axis(ax, used[x].to_numpy(float))
                label = f"{x}: {output_label(fit, output)}"
            write(ax.set_xlabel, label, fontsize=SIZE, color=INK)
            write(ax.set_ylabel, word, fontsize=SIZE, color=INK, labelpad=1)
            _scatter(ax, used, x, kind)
        ax = figure.add_subplot(grid[k, 2])
        dress(ax)
        _quantiles(ax, used[kind].to_numpy(float), word)
        _said(figure.axes[-3], word, used[kind].to_numpy(float))
    return figure


def _prediction_axis(ax: Any, predicted: np.ndarray) -> None:
    finite = predicted[np.isfinite(predicted)]
    if finite.size and (finite > 0).all():
        # far below every level the model says nothing more
        low, high = max(finite.min(), np.quantile(finite, 0.01) / 10), finite.max()
        log_axis(ax, "x", low / 1.3, high * 1.3)
    elif finite.size and np.ptp(finite) > 0:
        ax.set_xlim(finite.min() - 0.03 * np.ptp(finite), finite.max() + 0.03 * np.ptp(finite))


def _scatter(ax: Any, rows: pd.DataFrame, x: str, kind: str) -> None:
    ax.set_ylim(-_EDGE, _EDGE)
    ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
    for level in (-1.96, 1.96):
        ax.axhline(level, color=GREY, linewidth=0.6, linestyle=(0, (4, 2)), zorder=1)
    at = np.clip(rows[x].to_numpy(float), *ax.get_xlim())
    value = np.clip(rows[kind].to_numpy(float), -_EDGE, _EDGE)
    many = len(rows) > POINTS
    hidden = (rows["censored"] != 0).to_numpy()
    ax.plot(at[~hidden], value[~hidden], "o", markersize=2.2, color=GREY, alpha=0.45,
            markeredgewidth=0, rasterized=many, zorder=2)
    ax.plot(at[hidden], value[hidden], "v", markersize=2.6, markerfacecolor="none",
            markeredgecolor=GREY, markeredgewidth=0.4, alpha=0.6, rasterized=many, zorder=2)
    if len(rows) >= 20:
        bins = adaptive_bins(np.log(at) - np.log(at).min() if ax.get_xscale() == "log" else at)
        middle = pd.DataFrame({"bin": bins, "x": at, "y": value}).groupby("bin").median()
        ax.plot(middle["x"], middle["y"], color=BLUE, linewidth=1.3, zorder=3)


def _quantiles(ax: Any, values: np.ndarray, word: str) -> None:
    z = np.sort(values)
    ax.set(xlim=(-_EDGE, _EDGE), ylim=(-_EDGE, _EDGE))
    ax.plot([-_EDGE, _EDGE], [-_EDGE, _EDGE], color=GREY, linewidth=0.8)
    if len(z):
        expected = ndtri((np.arange(len(z)) + 0.5) / len(z))
        ax.plot(expected, np.clip(z, -_EDGE, _EDGE), "o", markersize=2.0, color=BLUE,
                markeredgewidth=0, alpha=0.6, rasterized=len(z) > POINTS)
    write(ax.set_xlabel, "standard normal quantile", fontsize=SIZE, color=INK)
    write(ax.set_ylabel, word, fontsize=SIZE, color=INK, labelpad=1)


def _said(ax: Any, word: str, values: np.ndarray) -> None:
    """The numbers above a row of panels."""
    j = judged(values)
    if math.isnan(j["mean"]):
        text = f"{word}: too few"
    elif word == "IWRES":
        text = f"IWRES: n {j['n']:.0f}, mean {j['mean']:.2f}, SD {math.sqrt(j['variance']):.2f}"
    else:
        text = (f"npde: n {j['n']:.0f}, mean {j['mean']:.2f} (p {_p(j['p_mean'])}), variance "
                f"{j['variance']:.2f} (p {_p(j['p_variance'])}), normal p {_p(j['p_normal'])}, "
                f"together p {_p(j['p_all'])}")
    headed(ax, text.replace("-", "−"))


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
