"""Whether several starts of a search agree: their OFV, and where their estimates lie."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import MaxNLocator

from carpk.fitting import Fit
from carpk.plots import BLUE, GREY, ORANGE, Pages, dress, headed, page, write
from carpk.tables import starts

TITLE = "Starts"
CAPTION = (
    "Left: the OFV that each start came to, above the best. Right: its estimates, in standard "
    "errors from those of the best; blue within 0.5 of all, orange further away, grey the starting "
    "values, at the edge where they lie beyond. Where the points lie on one line the starts agree.")

_EDGE = 6.0  # standard errors: beyond it a point is drawn at the edge


def draw(fit: Fit) -> Pages:
    """One page, or none where there was one start."""
    table = starts(fit)
    if not len(table):
        return []
    names, count = fit.model.free, len(table)
    height = 1.2 + 0.2 * max(len(names), count)
    figure = page(fit, 7.0, height, TITLE)
    grid = figure.add_gridspec(1, 2, left=0.08, right=0.98, top=1 - 0.62 / height,
                               bottom=0.5 / height, wspace=0.42, width_ratios=(1, 1.6))
    above, apart = (figure.add_subplot(grid[0, k]) for k in range(2))
    more = table["difference"].to_numpy(float)
    near = table["distance"].to_numpy() < 0.5
    for ax in (above, apart):
        dress(ax)
    place = np.arange(1, count + 1)
    above.scatter(np.maximum(more, 0.0), place, s=14, c=np.where(near, BLUE, ORANGE), zorder=3)
    above.set_xscale("symlog", linthresh=0.01)
    above.set_xlim(left=-0.002)
    above.set_ylim(count + 0.6, 0.4)
    above.yaxis.set_major_locator(MaxNLocator(integer=True))
    write(above.set_xlabel, "OFV above the best", fontsize=7.5)
    write(above.set_ylabel, "Start", fontsize=7.5)
    headed(above, "Objective")
    estimates = fit.manifest["estimates"]
    for k, name in enumerate(names):
        best, se = estimates[name]["estimate"], max(estimates[name]["se"], 1e-300)
        for record, own in zip(fit.manifest["starts"], near, strict=True):
            at, before = (np.clip((record[w][name] - best) / se, -_EDGE, _EDGE)
                          for w in ("estimates", "began"))
            shift = 0.5 * (record["start"] / (count + 1) - 0.5)
            apart.plot(before, k + shift, ".", color=GREY, markersize=2)
            apart.plot(at, k + shift, "o", color=BLUE if own else ORANGE, markersize=2.6)
    apart.axvline(0.0, color=GREY, linewidth=0.5)
    apart.set_xlim(-_EDGE - 0.4, _EDGE + 0.4)
    apart.set_ylim(len(names) - 0.4, -0.6)
    apart.set_yticks(range(len(names)))
    apart.set_yticklabels(names, fontsize=7)
    write(apart.set_xlabel, "Standard errors from the best", fontsize=7.5)
    headed(apart, "Estimates")
    return [("starts", figure)]
