"""The figures of what estimates are worth: bootstrap distributions, and likelihood profiles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from carpk.fitting import Fit
from carpk.plots import BLUE, GREY, INK, ORANGE, SIZE, dress, headed, page, plain
from carpk.profiling import RISE, Profile
from carpk.resampling import Bootstrap

_COLUMNS, _HEIGHT = 3, 1.75  # panels beside each other; inches of a panel
_DASHED = (0, (4, 2))


def bootstrap_figure(fit: Fit, found: Bootstrap) -> Any:
    """A panel for each parameter: replicates, the asymptotic normal, and the three intervals."""
    usable = found.replicates[found.replicates["failed"] == ""]
    kind = "Parametric bootstrap" if found.folder.name.startswith("parametric") else "Bootstrap"
    figure, panels = _panels(fit, f"{kind} over patients: {len(usable)} replicates",
                             list(found.table["parameter"]))
    for row, ax in zip(found.table.to_dict("records"), panels, strict=True):
        values = usable[row["parameter"]].to_numpy(float)
        low, high = np.quantile(values, [0.005, 0.995])
        se = row["asymptotic_se"]
        if se > 0:  # as much of the normal as does not hide the replicates
            low, high = (min(low, max(row["estimate"] - 3 * se, 2 * low - high)),
                         max(high, min(row["estimate"] + 3 * se, 2 * high - low)))
        inside = values[(values >= low) & (values <= high)]
        if high > low:
            heights, _, _ = ax.hist(inside, bins=max(8, int(len(values) ** 0.5)), density=True,
                                    color=BLUE, alpha=0.35, linewidth=0)
            top = float(heights.max())
            if se > 0:
                x = np.linspace(low, high, 120)
                y = np.exp(-0.5 * ((x - row["estimate"]) / se) ** 2) / (se * math.sqrt(2 * math.pi))
                ax.plot(x, y, color=GREY, linewidth=1.1, linestyle=_DASHED)
                top = max(top, float(y.max()))
            ax.set_ylim(-0.34 * top, 1.06 * top)
            for k, (which, colour) in enumerate(
                    (("", BLUE), ("bca_", ORANGE), ("asymptotic_", GREY))):
                ends = row[f"{which}lower95"], row[f"{which}upper95"]
                if all(map(math.isfinite, ends)):
                    ax.plot(np.clip(ends, low, high), [-(0.08 + 0.09 * k) * top] * 2, color=colour,
                            linewidth=2.0, solid_capstyle="butt")
        ax.axvline(row["estimate"], color=INK, linewidth=0.8)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    _legend(figure, [({"color": BLUE, "linewidth": 4, "alpha": 0.5},
                      "replicates, 95 % percentiles"),
                     ({"color": ORANGE, "linewidth": 2}, "BCa"),
                     ({"color": GREY, "linewidth": 1.1, "linestyle": _DASHED}, "asymptotic"),
                     ({"color": INK, "linewidth": 0.8}, "estimate")])
    return figure


def profile_figure(fit: Fit, found: Profile) -> Any:
    """A panel for each parameter: the rise of the OFV, its quadratic approximation, the limits."""
    figure, panels = _panels(fit, "Likelihood profiles", list(found.table["parameter"]))
    for row, ax in zip(found.table.to_dict("records"), panels, strict=True):
        points = found.points[found.points["parameter"] == row["parameter"]]
        value, rise, quadratic = (points[c].to_numpy(float) for c in ("value", "rise", "quadratic"))
        x = np.linspace(value.min(), value.max(), 200)
        for y, style in ((rise, {"color": BLUE, "linewidth": 1.1}), (
                quadratic, {"color": GREY, "linewidth": 1.0, "linestyle": _DASHED})):
            ax.plot(x, _between(value, y, row["estimate"], x), **style)
        ax.plot(value, rise, "o", color=BLUE, markersize=2.6)
        ax.axhline(RISE, color=ORANGE, linewidth=0.8)
        for end in ("lower95", "upper95"):
            if math.isfinite(row[end]):
                ax.axvline(row[end], color=ORANGE, linewidth=0.8, linestyle=_DASHED)
        ax.axvline(row["estimate"], color=INK, linewidth=0.8)
        ax.set_ylim(min(0.0, 1.1 * float(rise.min())), 2.0 * RISE)
    _legend(figure, [({"color": BLUE, "linewidth": 1.1, "marker": "o", "markersize": 2.6},
                      "rise of the OFV"),
                     ({"color": GREY, "linewidth": 1.0, "linestyle": _DASHED},
                      "quadratic, by the asymptotic SE"),
                     ({"color": ORANGE, "linewidth": 0.8}, "3.84 and the 95 % limits"),
                     ({"color": INK, "linewidth": 0.8}, "estimate")])
    return figure


def _between(value: np.ndarray, rise: np.ndarray, estimate: float, x: np.ndarray) -> np.ndarray:
    """The rise between refits: its root, negative below the estimate, is nearly straight."""
    root = np.sqrt(np.maximum(rise, 0.0)) * np.sign(value - estimate)
    return np.asarray(PchipInterpolator(value, root)(x) ** 2)


def _panels(fit: Fit, title: str, names: list[str]) -> tuple[Any, list[Any]]:
    columns = min(_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    height = 0.75 + _HEIGHT * rows
    figure = page(fit, 7.0 if columns == _COLUMNS else 5.0, height, title)
    grid = figure.add_gridspec(rows, columns, left=0.08, right=0.965, top=1 - 0.78 / height,
                               bottom=0.3 / height, wspace=0.22, hspace=0.5)
    panels = []
    for k, name in enumerate(names):
        ax = figure.add_subplot(grid[divmod(k, columns)])
        dress(ax)
        headed(ax, plain(name, 26))
        ax.locator_params(axis="x", nbins=4)
        panels.append(ax)
    return figure, panels


def _legend(figure: Any, marks: list[tuple[dict[str, Any], str]]) -> None:
    ax = figure.axes[0]
    handles = [ax.plot([], [], **style, label=label)[0] for style, label in marks]
    legend = figure.legend(handles=handles, loc="upper left", ncols=len(marks), frameon=False,
                           fontsize=SIZE - 1, bbox_to_anchor=(
                               0.075, 1 - 0.28 / figure.get_figheight()), handlelength=1.8)
    for text in legend.get_texts():
        text.set_parse_math(False)

