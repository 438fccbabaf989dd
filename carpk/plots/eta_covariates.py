"""Each patient's eta against the covariates, and against the other etas."""

from __future__ import annotations

from typing import Any

import numpy as np

from carpk.fitting import Fit
from carpk.plots import (
    BLUE,
    GREY,
    INK,
    SIZE,
    Pages,
    against,
    corner,
    correlation,
    dress,
    headed,
    page,
    plain,
    tells,
    write,
)
from carpk.tails import TAILS

TITLE = "Etas and covariates"
CAPTION = (
    "Each dot is a patient: posterior mean of eta, the patient's deviation from the typical value "
    "on the link scale. Against a number: its correlation r and the straight line through the "
    "patients; against a group: the groups' medians. With a shrinkage above 0.3 the etas lean on "
    "0, and a missing trend says little. What a covariate of the model explains is no longer in "
    "eta. On the last page etas are paired: a correlation the model does not have should not "
    "show.")

ROWS, COLUMNS = 6, 6


def draw(fit: Fit) -> Pages:
    """Pages of covariates by parameters, and one of etas against each other."""
    names = list(fit.model.spread)
    draws = fit.posterior["posterior"].dataset
    eta = {n: draws[f"eta_{n}"].values.mean(axis=(0, 1)) for n in names}
    if not names or len(fit.design.ids) < 3:
        return []
    titles = {n: f"eta {n} ({_shrinkage(fit, n, eta[n])})" for n in names}
    columns = [c for c in fit.design.covariates if tells(fit.design.covariates[c])]
    pages: Pages = []
    parts = [(names[a:a + ROWS], columns[b:b + COLUMNS]) for a in range(0, len(names), ROWS)
             for b in range(0, len(columns), COLUMNS)]
    for k, (rows, shown) in enumerate(parts, 1):
        stem = "eta_covariates" if len(parts) == 1 else f"eta_covariates_{k}"
        pages.append((stem, _covariates(fit, eta, titles, rows, shown)))
    if len(names) > 1:
        pages.append(("eta_covariates_pairs", _pairs(fit, eta, titles, names[:8])))
    return pages


def _shrinkage(fit: Fit, name: str, eta: np.ndarray) -> str:
    omega = f"omega_{name}"
    value = float(np.median(fit.posterior["posterior"].dataset[omega].values)) \
        if omega in fit.model.free else float(fit.model.fixed[omega])
    value *= TAILS[fit.model.etas].variance ** 0.5
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
            against(ax, fit.design.covariates[column], eta[name])
            ax.tick_params(labelleft=j == 0, labelbottom=i == len(rows) - 1)
            if j == 0:
                headed(ax, titles[name])
            if i == len(rows) - 1:
                write(ax.set_xlabel, plain(column), fontsize=SIZE, color=INK)
    return figure


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
                corner(ax, correlation(r) + (", in the model" if {left, below} in held else ""))
            ax.tick_params(labelleft=j == 0, labelbottom=i == size - 1)
            if j == 0:
                write(ax.set_ylabel, f"eta {below}", fontsize=SIZE, color=INK, labelpad=2)
            if i == size - 1:
                write(ax.set_xlabel, f"eta {left}", fontsize=SIZE, color=INK)
    return figure
