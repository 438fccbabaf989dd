"""The figures of a fit, one file each, and the visual language they share.

A figure's file exports TITLE, CAPTION (how it is read) and `draw(fit)`, which returns its pages
as [(name, Figure), ...], none where there is nothing to show. `remark(fit)`, where there is one,
says in a sentence what is to be seen. The report shows every file of this folder.
"""

from __future__ import annotations

import base64
import io
import math
import re
import warnings
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from carpk.fitting import Fit

Pages = list[tuple[str, Figure]]

# Okabe and Ito's colours: told apart by colour-blind readers, and in grey by their lightness
INK, GREY = "#222222", "#767676"
BLUE, ORANGE, ALARM = "#0072b2", "#e69f00", "#b3261e"
SEVERAL = (BLUE, ORANGE, "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000", "#f0e442")
SIZE = 8.0  # points; a page 7 inches wide is still read at half of that width
POINTS = 5000  # more marks than these are drawn as pixels inside the SVG, which would be huge

_GROUPS = 8  # more values than these tell patients apart, not groups
_PIXELS = 200  # per inch, of what is drawn as pixels
_DAYS = (28, 7, 90, 180, 360, 720, 1440, 3600, 14, 60, 3, 1, 540, 1080)  # the first are dearest
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SVG = {"svg.fonttype": "none", "svg.hashsalt": "carpk",
        "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"]}


def page(fit: Fit, width: float, height: float, title: str) -> Figure:
    """An empty figure in inches; a fit that did not converge says so on every page."""
    figure = sheet(width, height, title)
    if not fit.convergence.ok:
        write(figure.text, 0.985, 1 - 0.12 / height, "NOT CONVERGED", ha="right",
              va="top", fontsize=SIZE + 2, fontweight="bold", color=ALARM)
    return figure


def sheet(width: float, height: float, title: str) -> Figure:
    """An empty figure in inches that belongs to no fit."""
    figure = Figure(figsize=(width, height))
    write(figure.suptitle, title, x=0.09, y=1 - 0.12 / height, ha="left", va="top",
          fontsize=SIZE + 2, fontweight="bold", color=INK)
    return figure


def write(place: Any, *text: Any, **style: Any) -> Any:
    """Text as it stands: names and IDs come from files, and a $ in them is no formula."""
    return place(*text, parse_math=False, **style)


def headed(ax: Any, text: str, **style: Any) -> None:
    """A panel's title; its place is told, for to find one costs a third of the drawing."""
    write(ax.set_title, text, loc="left", y=1.0, pad=3, fontsize=SIZE, color=INK, **style)


def plain(text: str, most: int = 18) -> str:
    """A patient's ID or another name from a file, short and printable.

    >>> plain("site 04 / subject 000123 \\n"), plain("31")
    ('site 04 / subject…', '31')
    """
    seen = "".join(c if c.isprintable() else "?" for c in str(text))
    return seen if len(seen) <= most else seen[:most - 1] + "…"


def dress(ax: Any) -> None:
    """The look every panel shares."""
    ax.tick_params(labelsize=SIZE - 1, color=GREY, labelcolor=INK, width=0.5, length=2.5, pad=2)
    ax.tick_params(which="minor", length=1.5, color=GREY, width=0.4)
    for side, spine in ax.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=GREY, linewidth=0.5)


def log_axis(ax: Any, which: str, low: float, high: float) -> None:
    """A log axis from `low` to `high` (both above 0), ticked at decades."""
    getattr(ax, f"set_{which}scale")("log")
    getattr(ax, f"set_{which}lim")(low, high)
    axis = getattr(ax, f"{which}axis")
    if math.log10(high / low) < 2:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda v, _: number(v)))
        axis.set_minor_locator(FixedLocator([]))
        return
    axis.set_major_locator(LogLocator(numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda v, _: decade(v)))
    axis.set_minor_formatter(NullFormatter())
    decades = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    axis.set_minor_locator(FixedLocator([10.0**k for k in decades]))


def limits(dv: np.ndarray, log: bool) -> tuple[float, float]:
    """The range of an axis that shows every DV; on a log scale more below than above, where the
    curves of censored patients go."""
    low, high = float(dv.min()), float(dv.max())
    if log:
        return low / 4, high * 2
    edge = 0.06 * (high - low) or 1.0
    return low - edge, high + edge


def decade(value: float) -> str:
    """A power of ten as it is written.

    >>> decade(1000.0), decade(0.01)
    ('10³', '10⁻²')
    """
    return "10" + str(round(math.log10(value))).translate(_RAISED)


def number(value: float) -> str:
    """A number of few digits as it is written on an axis.

    >>> number(20000.0), number(2e6), number(1e-5)
    ('20000', '2×10⁶', '10⁻⁵')
    """
    digits, _, power = f"{value:g}".partition("e")
    if not power:
        return digits
    return ("" if digits == "1" else f"{digits}×") + decade(10.0 ** int(power))


def time_axis(ax: Any, times: np.ndarray, unit: str) -> None:
    """A time axis from 0 to the last time; by square roots where samples crowd at its start, as
    those of an expansion followed for a year do.

    times : every observation time of the fit, so that all panels share one axis
    """
    last = float(times.max()) if times.size else 1.0
    if crowded(times):
        ax.set_xscale("function", functions=(lambda t: np.sqrt(np.maximum(t, 0.0)), np.square))
    ax.set_xlim(0.0, 1.02 * last if last > 0 else 1.0)
    if unit == "day" and last >= 14:
        ax.xaxis.set_major_locator(FixedLocator(_spaced(last, crowded(times))))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5, min_n_ticks=2))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def crowded(times: np.ndarray) -> bool:
    """Whether half of the samples lie in the first fifth of the time axis."""
    return bool(times.size and np.median(times) < 0.2 * times.max())


def time_label(fit: Fit) -> str:
    """The name of the time axis, with its unit and scale."""
    seen = fit.design
    return time_name(fit.model.structure.time_unit, seen.time[seen.observed])


def time_name(unit: str, times: np.ndarray) -> str:
    """The name of the axis that `time_axis` makes for these times.

    >>> time_name("h", np.array([1.0, 2.0, 3.0]))
    'Time (h)'
    """
    first = "Day after infusion" if unit == "day" else f"Time ({unit})"
    return first + (" (square-root scale)" if crowded(times) else "")


def output_label(fit: Fit, output: str) -> str:
    """An output's name and its unit in the cohort."""
    dvid = fit.model.structure.output(output).dvid
    return f"{output} ({fit.manifest['data']['units'][str(dvid)]})"


def tells(column: pd.Series) -> bool:
    """Whether a covariate differs between patients, and is not a name of each."""
    known = column[column.notna() & (column != "")]
    number = pd.api.types.is_numeric_dtype(column)
    return known.nunique() > 1 and (number or known.nunique() <= _GROUPS)


def against(ax: Any, column: pd.Series, values: np.ndarray, *, rasterized: bool = False) -> None:
    """Values against a covariate: dots, and the straight line through a number's with their
    correlation, or the median of each group."""
    dots: dict[str, Any] = {"markersize": 2.4, "color": GREY, "alpha": 0.6, "markeredgewidth": 0,
                            "rasterized": rasterized}
    if pd.api.types.is_numeric_dtype(column) and column.nunique() > 4:
        x = column.to_numpy(float)
        known = np.isfinite(x)
        x, y = x[known], values[known]
        ax.plot(x, y, "o", **dots)
        slope, start = np.polyfit(x - x.mean(), y, 1)
        ends = np.array([x.min(), x.max()])
        ax.plot(ends, start + slope * (ends - x.mean()), color=BLUE, linewidth=1.3)
        if y.std() > 0:
            corner(ax, correlation(np.corrcoef(x, y)[0, 1]))
        return
    groups = [v for v in column.unique() if not pd.isna(v) and v != ""]
    groups = sorted(groups, key=lambda v: (not isinstance(v, float), v))
    for k, value in enumerate(groups):
        y = values[(column == value).to_numpy()]
        # side by side in the order of rank: no random numbers in a figure
        x = k + 0.5 * (np.argsort(np.argsort(y)) % 7 - 3) / 7
        ax.plot(x, y, "o", **dots)
        ax.plot([k - 0.35, k + 0.35], [np.median(y)] * 2, color=BLUE, linewidth=1.6)
    ax.set_xlim(-0.6, len(groups) - 0.4)
    ax.set_xticks(range(len(groups)), [
        plain(v if isinstance(v, str) else f"{v:g}", 8) for v in groups])
    for label in ax.get_xticklabels():
        label.set_parse_math(False)


def correlation(r: float) -> str:
    """A correlation as it is written.

    >>> correlation(-0.254)
    'r −0.25'
    """
    return f"r {round(float(r), 2) + 0.0:.2f}".replace("-", "−")  # + 0: no negative zero


def corner(ax: Any, text: str) -> None:
    """Small text in the upper right corner of a panel."""
    write(ax.text, 0.98, 0.99, text, fontsize=SIZE - 1, color=INK, ha="right",
          va="top", transform=ax.transAxes)


def svg(figure: Figure) -> bytes:
    """The figure as SVG: text stays text, and the same figure gives the same bytes."""
    picture = _saved(figure, format="svg", dpi=_PIXELS, metadata={"Date": None, "Creator": None})
    return re.sub(rb"(?<=data:image/png;base64,)[^\"]+", lambda found: base64.b64encode(
        _by_palette(base64.b64decode(found.group()))), picture)


def _by_palette(picture: bytes) -> bytes:
    """A PNG of few colours by their numbers, in a third of the bytes; opaque in steps of 1/15."""
    pixels = np.array(Image.open(io.BytesIO(picture)).convert("RGBA"))
    pixels[..., 3] = 17 * np.round(pixels[..., 3] / 17)
    colours, place = np.unique(pixels.reshape(-1, 4), axis=0, return_inverse=True)
    if len(colours) > 256:
        return picture
    numbered = Image.fromarray(place.reshape(pixels.shape[:2]).astype(np.uint8)).convert("P")
    numbered.putpalette(colours[:, :3].ravel().tolist())
    target = io.BytesIO()
    numbered.save(target, "PNG", optimize=True, transparency=bytes(colours[:, 3].tolist()))
    return target.getvalue()


def png(figure: Figure) -> bytes:
    """The figure as PNG, 200 dots per inch."""
    return _saved(figure, format="png", dpi=_PIXELS, metadata={"Software": None})


def _saved(figure: Figure, **form: Any) -> bytes:
    target = io.BytesIO()
    with mpl.rc_context(_SVG), warnings.catch_warnings():
        # an ID in another script: the reader's browser has the letters even if this machine has not
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(target, facecolor="white", **form)
    return target.getvalue()


def _spaced(last: float, root: bool) -> list[float]:
    """Days a clinic counts in, those that stand far enough apart to be read."""
    def place(t: float) -> float:
        return math.sqrt(t / last) if root else t / last

    kept = [0.0]
    for day in (float(d) for d in _DAYS if d <= 1.02 * last):
        if min(abs(place(day) - place(k)) for k in kept) > 0.11:
            kept.append(day)
    return sorted(kept)
