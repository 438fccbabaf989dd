"""Traces and rank plots of the population parameters: whether the chains agree."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from carpk.fitting import Fit
from carpk.plots import BLUE, GREY, INK, SEVERAL, SIZE, Pages, dress, headed, page, write

TITLE = "Chains"
CAPTION = (
    "Left of each pair: the draws of every chain in the order they were drawn; they should lie "
    "over each other and not drift. Right: how each chain's draws rank among all; even steps "
    "around the grey line mean that every chain saw the same posterior. "
    "One colour per chain; traces are thinned to 250 draws. Of nuts the energy, last: its changes "
    "from draw to draw (blue) should spread about as far as itself (grey), else nuts does not "
    "reach the tails; E-BFMI, the ratio of their squares, below 0.3 is too little.")

ROWS = 9  # pairs of panels below each other, two pairs a row
_SHOWN, _BINS = 250, 20
_ENERGY = "energy"


def draw(fit: Fit) -> Pages:
    """Pages of up to 18 parameters, a trace and a rank plot each; none where nothing was chained.
    """
    if fit.posterior["posterior"].dataset.attrs["draws_from"] != "posterior":
        return []
    energy = fit.posterior["sample_stats"].dataset.get("energy")
    names, each = [*fit.model.free, *([] if energy is None else [_ENERGY])], 2 * ROWS
    pages: Pages = []
    for number, first in enumerate(range(0, len(names), each), 1):
        shown = names[first:first + each]
        rows = -(-len(shown) // 2)
        height = 0.85 + 0.95 * rows
        draws = fit.posterior["posterior"].dataset
        figure = page(fit, 7.0, height, f"Chains: {draws.sizes['chain']} of "
                      f"{draws.sizes['draw']} draws")
        grid = figure.add_gridspec(rows, 5, left=0.09, right=0.97, top=1 - 0.58 / height,
                                   bottom=0.42 / height, wspace=0.12, hspace=0.62,
                                   width_ratios=(2, 1, 0.32, 2, 1))
        for k, name in enumerate(shown):
            row, side = divmod(k, 2)
            if energy is not None and name is _ENERGY:
                _energy(figure.add_subplot(grid[row, 3 * side]), energy.values)
                continue
            below, values = shown[k + 2:k + 3], draws[name].values
            last, pair = below in ([], [_ENERGY]), [
                figure.add_subplot(grid[row, 3 * side + right]) for right in (0, 1)]
            _trace(pair[0], name, values, last)
            _ranks(pair[1], values, last)
            for ax in pair if below else []:  # room for the heading of the energy
                ax.set_xlabel("")
        pages.append(("traces" if len(names) <= each else f"traces_{number}", figure))
    return pages


def _trace(ax: Any, name: str, values: np.ndarray, last: bool) -> None:
    dress(ax)
    headed(ax, name)
    some = np.unique(np.linspace(0, values.shape[1] - 1, _SHOWN).astype(int))
    for k, chain in enumerate(values):
        ax.plot(some, chain[some], color=SEVERAL[k % len(SEVERAL)], linewidth=0.5, alpha=0.7)
    ax.set_xlim(0, max(values.shape[1] - 1, 1))
    ax.yaxis.set_major_locator(MaxNLocator(3))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.5g}"))
    ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    ax.tick_params(labelbottom=last)
    if last:
        write(ax.set_xlabel, "draw", fontsize=SIZE - 1, color=INK, labelpad=1)


def _energy(ax: Any, energy: np.ndarray) -> None:
    dress(ax)
    apart = (energy - energy.mean(axis=1, keepdims=True)).ravel()
    steps = np.diff(energy, axis=1)
    ratio = (steps**2).mean(axis=1) / energy.var(axis=1)
    headed(ax, f"{_ENERGY}: E-BFMI {ratio.min():.2f} to {ratio.max():.2f}")
    far = max(np.abs(apart).max(), np.abs(steps).max())
    for values, color in ((apart, GREY), (steps.ravel(), BLUE)):
        counts, edges = np.histogram(values, 40, (-far, far), density=True)
        ax.stairs(counts, edges, color=color, linewidth=0.9, baseline=None)
    ax.set(yticks=[], xlim=(-far, far))
    ax.xaxis.set_major_locator(MaxNLocator(3))


def _ranks(ax: Any, values: np.ndarray, last: bool) -> None:
    dress(ax)
    counts = rank_counts(values, min(_BINS, values.shape[1]))
    bins = counts.shape[1]
    expected = values.shape[1] / bins
    ax.axhline(1.0, color=GREY, linewidth=0.7)
    for k, chain in enumerate(counts):
        ax.stairs(chain / expected, np.linspace(0, 1, bins + 1),
                  color=SEVERAL[k % len(SEVERAL)], linewidth=0.8, baseline=None)
    ax.set(xlim=(0, 1), yticks=[],
           ylim=(min(0.5, counts.min() / expected - 0.05),
                 max(1.5, counts.max() / expected + 0.05)))
    ax.spines["left"].set_visible(False)
    ax.set_xticks([0, 1], ["low", "high"] if last else ["", ""])
    if last:
        write(ax.set_xlabel, "rank", fontsize=SIZE - 1, color=INK, labelpad=1)


def rank_counts(values: np.ndarray, bins: int) -> np.ndarray:
    """(chain, bins): how many of each chain's draws fall into each bin of the pooled ranks.

    values : (chain, draw)

    >>> rank_counts(np.array([[1.0, 4.0], [3.0, 2.0]]), 2).tolist()
    [[1, 1], [1, 1]]
    """
    ranks = np.empty(values.size)
    ranks[np.argsort(values, axis=None, kind="stable")] = np.arange(values.size)
    place = (ranks.reshape(values.shape) * bins / values.size).astype(int)
    return np.stack([np.bincount(chain, minlength=bins) for chain in place])
