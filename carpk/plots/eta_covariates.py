"""Each patient's eta against the covariates, and against the other etas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from carpk.fitting import Fit
from carpk.plots import BLUE, GREY, INK, SIZE, Pages, dress, headed, page, plain, write

TITLE = "Etas and covariates"
CAPTION = (
    "Each dot is a patient: posterior mean of eta, the patient's deviation from the typical value "
    "on the link scale. Against a number: its correlation r and the straight line through the "
    "patients; against a group: the groups' medians. With a shrinkage above 0.3 the etas lean on "
    "0, and a missing trend says little. What a covariate of the model explains is no longer in "
    "eta. On the last page etas are paired: a correlation the model does not have should not "
    "show.")

ROWS, COLUMNS = 6, 6
_GROUPS = 8  # more values than these tell patients apart, not groups


def draw(fit: Fit) -> Pages:
    """Pages of covariates by parameters, and one of etas against each other."""
    names = list(fit.model.spread)
    draws = fit.posterior["posterior"].dataset
    eta = {n: draws[f"eta_{n}"].values.mean(axis=(0, 1)) for n in names}
    if not names or len(fit.design.ids) < 3:
        return []
    titles = {n: f"eta {n} ({_shrinkage(fit, n, eta[n])})" for n in names}
    columns = [c for c in fit.design.covariates if _tells(fit.design.covariates[c])]
    pages: Pages = []
    parts = [(names[a:a + ROWS], columns[b:b + COLUMNS]) for a in range(0, len(names), ROWS)
             for b in range(0, len(columns), COLUMNS)]
    for k, (rows, shown) in enumerate(parts, 1):
        stem = "eta_covariates" if len(parts) == 1 else f"eta_covariates_{k}"
        pages.append((stem, _covariates(fit, eta, titles, rows, shown)))
    if len(names) > 1:
        pages.append(("eta_covariates_pairs", _pairs(fit, eta, titles, names[:8])))
    return pages


def _tells(column: pd.Series) -> bool:
    """Whether a covariate differs between patients, and is not a name of each."""
    known = column[column.notna() & (column != "")]
    number = pd.api.types.is_numeric_dtype(column)
    return known.nunique() > 1 and (number or known.nunique() <= _GROUPS)


def _shrinkage(fit: Fit, name: str, eta: np.ndarray) -> str:
    omega = f"omega_{name}"
    value = float(np.median(fit.posterior["posterior"].dataset[omega].values)) \
        if omega in fit.model.free else float(fit.model.fixed[omega])
    return f"shrinkage {1 - eta.std(ddof=1) / value:.2f}"


def _covariates(fit: Fit, eta: dict[str, np.ndarray], titles: dict[str, str], rows: list[str],
                shown: list[str]) -> Any:
    height = 0.95 + 1.35 * len(rows)
    figure = page(fit, 7.0, height, "Etas against covariates")
    grid = figure.add_gridspec(len(rows), max(len(shown), 3), left=0.085, right=0.985,
                               top=1 - 0.66 / height, bottom=0.46 / height, wspace=0.14,
                               hspace=0.42)
    for i, name in enumerate(rows):
        edge = 1.3 * float(np.abs(eta[name]).max()) or 1.0
        for j, column in enumerate(shown):
            ax = figure.add_subplot(grid[i, j])
            dress(ax)
            ax.set_ylim(-edge, edge)
            ax.axhline(0.0, color=GREY, linewidth=0.7)
            _panel(ax, fit.design.covariates[column], eta[name])
            ax.tick_params(labelleft=j == 0, labelbottom=i == len(rows) - 1)
            if j == 0:
                headed(ax, titles[name])
            if i == len(rows) - 1:
                write(ax.set_xlabel, plain(column), fontsize=SIZE, color=INK)
    return figure


def _panel(ax: Any, column: pd.Series, eta: np.ndarray) -> None:
    if pd.api.types.is_numeric_dtype(column) and column.nunique() > 4:
        x = column.to_numpy(float)
        known = np.isfinite(x)
        x, y = x[known], eta[known]
        ax.plot(x, y, "o", markersize=2.4, color=GREY, alpha=0.6, markeredgewidth=0)
        slope, start = np.polyfit(x - x.mean(), y, 1)
        ends = np.array([x.min(), x.max()])
        ax.plot(ends, start + slope * (ends - x.mean()), color=BLUE, linewidth=1.3)
        if y.std() > 0:
            _corner(ax, _written(np.corrcoef(x, y)[0, 1]))
        return
    groups = [v for v in column.unique() if not pd.isna(v) and v != ""]
    groups = sorted(groups, key=lambda v: (not isinstance(v, float), v))
    for k, value in enumerate(groups):
        y = eta[(column == value).to_numpy()]
        # side by side in the order of rank: no random numbers in a figure
        x = k + 0.5 * (np.argsort(np.argsort(y)) % 7 - 3) / 7
        ax.plot(x, y, "o", markersize=2.4, color=GREY, alpha=0.6, markeredgewidth=0)
        ax.plot([k - 0.35, k + 0.35], [np.median(y)] * 2, color=BLUE, linewidth=1.6)
    ax.set_xlim(-0.6, len(groups) - 0.4)
    ax.set_xticks(range(len(groups)), [
        plain(v if isinstance(v, str) else f"{v:g}", 8) for v in groups])
    for label in ax.get_xticklabels():
        label.set_parse_math(False)


def _written(r: float) -> str:
    return f"r {round(float(r), 2) + 0.0:.2f}".replace("-", "−")  # + 0: no negative zero


def _corner(ax: Any, text: str) -> None:
    write(ax.text, 0.98, 0.99, text, fontsize=SIZE - 1, color=INK, ha="right",
          va="top", transform=ax.transAxes)


def _pairs(fit: Fit, eta: dict[str, np.ndarray], titles: dict[str, str], names: list[str]) -> Any:
    size = len(names) - 1
    height = 0.9 + 6.2 * size / max(size, 4)
    figure = page(fit, 7.0, height, "Etas against each other")
    grid = figure.add_gridspec(size, max(size, 4), left=0.085, right=0.985, top=1 - 0.6 / height,
                               bottom=0.42 / height, wspace=0.14, hspace=0.14)
    held = {frozenset(p) for b in fit.model.blocks for k, q in enumerate(b)
            for p in ((q, r) for r in b[:k])}
    for i, below in enumerate(names[1:]):
        for j, left in enumerate(names[:i + 1]):
            ax = figure.add_subplot(grid[i, j])
            dress(ax)
            ax.axhline(0.0, color=GREY, linewidth=0.6)
            ax.axvline(0.0, color=GREY, linewidth=0.6)
            ax.plot(eta[left], eta[below], "o", markersize=2.2, color=BLUE, alpha=0.55,
                    markeredgewidth=0)
            if min(eta[left].std(), eta[below].std()) > 0:
                r = np.corrcoef(eta[left], eta[below])[0, 1]
                _corner(ax, _written(r) + (", in the model" if {left, below} in held else ""))
            ax.tick_params(labelleft=j == 0, labelbottom=i == size - 1)
            if j == 0:
                write(ax.set_ylabel, f"eta {below}", fontsize=SIZE, color=INK, labelpad=2)
            if i == size - 1:
                write(ax.set_xlabel, f"eta {left}", fontsize=SIZE, color=INK)
    return figure
