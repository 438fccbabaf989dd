"""Residuals against time, prediction and covariates, and their quantiles: IWRES, CWRES, npde."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from carpk.conditional_residuals import cwres
from carpk.fitting import Fit
from carpk.normalised_errors import judged, npde
from carpk.plots import (
    BLUE,
    GREY,
    INK,
    SIZE,
    Pages,
    against,
    dress,
    headed,
    log_axis,
    output_label,
    page,
    plain,
    tells,
    time_axis,
    time_label,
    write,
)
from carpk.prediction import predictions
from carpk.predictive_check import adaptive_bins

TITLE = "Residuals"
CAPTION = (
    "Top: IWRES, what is left of each measured level after its patient's own curve, in SDs of the "
    "residual error. Middle: CWRES, what is left of it after the population, with the model made "
    "linear at each patient's mode and the levels of a patient decorrelated. Censored levels have "
    "neither. Bottom: npde, where each level falls among those of new patients, decorrelated "
    "within the patient; censored levels (open triangles) are drawn from their predictive "
    "distribution. All should scatter as a standard normal around 0 with no trend: dashed lines "
    "hold 95 %, the blue line is the running median, and quantiles should follow the line. Where "
    "low levels are censored, the measured ones of that time are the high ones: IWRES and CWRES "
    "then lie above 0 under a right model too, npde do not. SDs of IWRES well below 1 mean that "
    "individual curves follow the noise (epsilon shrinkage). p: the probability that npde lie as "
    "far from a standard normal by chance; the check uses the data the model was fitted to, and "
    "is lenient. On the page of covariates npde should not move with what a patient is: blue is "
    "the straight line through a number's, and the median of a group's.")

_EDGE = 4.2
_MOST = 12  # covariates on a page
_DOTS = 300  # more are drawn as pixels: there are nine panels of them
_WORDS = {"IWRES": "IWRES", "CWRES": "CWRES", "NPDE": "npde"}


def draw(fit: Fit) -> Pages:
    """A page of nine panels for each output, and one of npde against the covariates; none of a
    binary output, whose residuals take two values."""
    table = predictions(fit).assign(CWRES=cwres(fit), NPDE=npde(fit))
    outputs = [o.name for o in fit.model.structure.outputs
               if (table["output"] == o.name).any() and not o.binary]
    told = [c for c in fit.design.covariates if tells(fit.design.covariates[c])]
    pages: Pages = []
    for output in outputs:
        stem = "residuals" if len(outputs) == 1 else f"residuals_{output}"
        rows = table[table["output"] == output]
        pages.append((stem, _page(fit, output, rows)))
        if told:
            pages.append((f"{stem}_covariates", _covariates(fit, output, rows, told[:_MOST])))
    return pages


def _page(fit: Fit, output: str, rows: pd.DataFrame) -> Any:
    height = 7.4
    figure = page(fit, 7.0, height, f"{output_label(fit, output)}: residuals")
    grid = figure.add_gridspec(3, 3, left=0.08, right=0.985, top=1 - 0.62 / height,
                               bottom=0.46 / height, wspace=0.3, hspace=0.5)
    for k, kind in enumerate(("IWRES", "CWRES", "NPDE")):
        used = rows[np.isfinite(rows[kind])]
        word = _WORDS[kind]
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
    _frame(ax)
    at = np.clip(rows[x].to_numpy(float), *ax.get_xlim())
    value = np.clip(rows[kind].to_numpy(float), -_EDGE, _EDGE)
    many = len(rows) > _DOTS
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
                markeredgewidth=0, alpha=0.6, rasterized=len(z) > _DOTS)
    write(ax.set_xlabel, "standard normal quantile", fontsize=SIZE, color=INK)
    write(ax.set_ylabel, word, fontsize=SIZE, color=INK, labelpad=1)


def _said(ax: Any, word: str, values: np.ndarray) -> None:
    """The numbers above a row of panels."""
    j = judged(values)
    if math.isnan(j["mean"]):
        text = f"{word}: too few"
    elif word != "npde":
        text = f"{word}: n {j['n']:.0f}, mean {j['mean']:.2f}, SD {math.sqrt(j['variance']):.2f}"
    else:
        text = (f"npde: n {j['n']:.0f}, mean {j['mean']:.2f} (p {_p(j['p_mean'])}), variance "
                f"{j['variance']:.2f} (p {_p(j['p_variance'])}), normal p {_p(j['p_normal'])}, "
                f"together p {_p(j['p_all'])}")
    headed(ax, text.replace("-", "−"))


def _covariates(fit: Fit, output: str, rows: pd.DataFrame, names: list[str]) -> Any:
    bands = -(-len(names) // 4)
    height = 0.8 + 1.75 * bands
    figure = page(fit, 7.0, height, f"{output_label(fit, output)}: npde against covariates")
    grid = figure.add_gridspec(bands, max(min(len(names), 4), 3), left=0.08, right=0.985,
                               top=1 - 0.42 / height, bottom=0.44 / height, wspace=0.14,
                               hspace=0.5)
    used = rows[np.isfinite(rows["NPDE"])]
    for k, name in enumerate(names):
        ax = figure.add_subplot(grid[divmod(k, 4)])
        dress(ax)
        _frame(ax)
        column = fit.design.covariates[name].reindex(used["ID"]).reset_index(drop=True)
        values = np.clip(used["NPDE"].to_numpy(float), -_EDGE, _EDGE)
        against(ax, column, values, rasterized=len(used) > _DOTS)
        ax.tick_params(labelleft=k % 4 == 0)
        write(ax.set_xlabel, plain(name), fontsize=SIZE, color=INK)
        if k % 4 == 0:
            write(ax.set_ylabel, "npde", fontsize=SIZE, color=INK, labelpad=1)
    return figure


def _frame(ax: Any) -> None:
    """From -4.2 to 4.2, with 0 and what holds 95 % of a standard normal."""
    ax.set_ylim(-_EDGE, _EDGE)
    ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
    for level in (-1.96, 1.96):
        ax.axhline(level, color=GREY, linewidth=0.6, linestyle=(0, (4, 2)), zorder=1)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
