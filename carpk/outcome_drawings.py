"""The figure of an exposure-response analysis: fitted curves over binned observations."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from carpk.exposure_outcomes import ExposureResponse
from carpk.fitting import Fit
from carpk.outcome_curves import binned, kaplan_meier, probability, survival
from carpk.outcome_data import SURVIVAL
from carpk.plots import (
    BLUE,
    GREY,
    INK,
    SEVERAL,
    SIZE,
    dress,
    headed,
    log_axis,
    page,
    plain,
    time_axis,
    write,
)

_GROUPS = {2: ("lower half", "upper half"), 3: ("lowest third", "middle third", "highest third")}
_COLOURS = (SEVERAL[1], SEVERAL[2], SEVERAL[0])  # low to high, apart in grey too
_DASHES = ((0, (1, 1.2)), (0, (4, 1.5)), "solid")


def outcome_figure(fit: Fit, found: ExposureResponse) -> Any:
    """The page of an analysis: probabilities over exposure, or Kaplan and Meier's curves."""
    return _times(fit, found) if found.kind in SURVIVAL else _probabilities(fit, found)


def _probabilities(fit: Fit, found: ExposureResponse) -> Any:
    """A panel for the outcome, or for each grade or more of it."""
    grades = np.unique(found.read.outcome)[1:]
    rows, columns = -(-len(grades) // 2), min(len(grades), 2)
    height = 1.35 + 2.3 * rows
    figure = page(fit, 7.0 if columns == 2 else 4.6, height, _title(found))
    grid = figure.add_gridspec(
        rows, columns, left=0.09 if columns == 2 else 0.14, right=0.985, top=1 - 0.9 / height,
        bottom=0.92 / height, wspace=0.08, hspace=0.28)
    middle = np.median(found.exposure, axis=0)
    ends = middle.min() / 1.3, middle.max() * 1.3
    x = np.geomspace(*ends, 60)
    ratios = found.table[found.table["contrast"] == "per doubling"].set_index("model")
    for k, grade in enumerate(grades):
        ax = figure.add_subplot(grid[divmod(k, 2)])
        dress(ax)
        log_axis(ax, "x", *ends)
        happened = found.read.outcome >= grade
        centre, low, high = probability(found, x, k + 1)
        ax.fill_between(x, low, high, color=BLUE, alpha=0.28, linewidth=0)
        ax.plot(x, centre, color=BLUE, linewidth=1.3)
        for b in binned(found, happened).itertuples():
            ax.plot([b.low, b.high], [b.share] * 2, color=INK, linewidth=0.6, alpha=0.5)
            ax.plot([b.middle] * 2, [b.lower95, b.upper95], color=INK, linewidth=0.9)
            ax.plot([b.middle], [b.share], "o", color=INK, markersize=3.6)
        for at, who in ((1.045, happened), (-0.045, ~happened)):
            ax.plot(middle[who], np.full(who.sum(), at), "|", color=GREY, markersize=5,
                    markeredgewidth=0.6)
        ax.set_ylim(-0.08, 1.08)
        ax.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0],
                      ["0 %", "25 %", "50 %", "75 %", "100 %"])
        ax.tick_params(labelleft=k % 2 == 0)
        if found.kind == "ordinal":
            alone = f"logistic, {found.outcome} >= {grade:g}"
            own = f", alone {_ratio(ratios.loc[alone])}" if alone in ratios.index else ""
            headed(ax, f"Grade {'≥ ' * (k < len(grades) - 1)}{grade:g}: {happened.sum()} of "
                   f"{len(happened)}{own}")
        if k >= len(grades) - columns:
            write(ax.set_xlabel, _axis(found), fontsize=SIZE, color=INK)
        if k % 2 == 0:
            write(ax.set_ylabel, "Patients of this grade" if found.kind == "ordinal" else
                  f"Patients with {plain(found.outcome, 24)}", fontsize=SIZE, color=INK,
                  labelpad=1)
    return _noted(figure, found, height, "Line and band: the model, median and 95 %"
                  + (", averaged over the covariates of the patients" if found.adjust else "")
                  + ". Dots: observed in quarters of the patients (thin line: from lowest to "
                  "highest exposure) with Wilson's 95 % interval. Ticks: patients with (top) and "
                  "without, at the median of their exposure."
                  + (" Alone: the odds ratio of this panel by itself, alike in all panels but for "
                     "chance if odds are proportional." if found.kind == "ordinal" else ""))


def _times(fit: Fit, found: ExposureResponse) -> Any:
    """Kaplan and Meier's curves of groups of exposure, and the model's of the same patients."""
    time, event = found.read.outcome, found.read.event
    assert event is not None
    names = _GROUPS[3 if len(time) >= 60 else 2]
    middle = np.median(found.exposure, axis=0)
    parts = np.array_split(np.argsort(middle, kind="stable"), len(names))
    height = 4.4 + 0.17 * len(names)
    figure = page(fit, 7.0, height, _title(found))
    ax = figure.add_axes((0.09, (1.13 + 0.17 * len(names)) / height, 0.9, 2.4 / height))
    dress(ax)
    unit = fit.model.structure.time_unit
    # a step at 0: no axis by square roots, for times to an event do not crowd as samples do
    time_axis(ax, np.array([time.max()]), unit)
    grid = np.linspace(0.0, time.max(), 361)[1:]
    marks = []
    for k, (part, name) in enumerate(zip(parts, names, strict=True)):
        colour, dash = _COLOURS[-len(names):][k], _DASHES[-len(names):][k]
        centre, low, high = survival(found, part, grid)
        ax.fill_between(grid, low, high, color=colour, alpha=0.16, linewidth=0)
        ax.plot(grid, centre, color=colour, linewidth=0.9, linestyle=dash)
        at, share = kaplan_meier(time[part], event[part])
        last = time[part].max()
        line, = ax.step(np.append(at, last), np.append(share, share[-1]), where="post",
                        color=colour, linewidth=1.6, linestyle=dash)
        gone = part[event[part] == 0]
        ax.plot(time[gone], share[np.searchsorted(at, time[gone], side="right") - 1], "|",
                color=colour, markersize=5, markeredgewidth=0.9)
        marks.append((line, f"{name}: {_digits(middle[part].min())} to "
                      f"{_digits(middle[part].max())} {found.unit}"))
    ax.set_ylim(0.0, 1.03)
    ax.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    write(ax.set_ylabel, "Without event", fontsize=SIZE, color=INK, labelpad=1)
    counted = "Days" if unit == "day" else f"Time ({unit})"
    write(ax.set_xlabel, f"{counted} after the landmark ({unit} {found.landmark:g})",
          fontsize=SIZE, color=INK)
    legend = ax.legend([m for m, _ in marks], [t for _, t in marks], fontsize=SIZE - 1,
                       frameon=False, loc="upper right", handlelength=2.6)
    for text in legend.get_texts():
        text.set_parse_math(False)
    ticks = [t for t in ax.get_xticks() if 0 <= t <= ax.get_xlim()[1]]
    write(ax.text, -0.012, -0.225, "at risk", transform=ax.transAxes, fontsize=SIZE - 1,
          color=GREY)
    for k, part in enumerate(parts):
        for t in ticks:
            write(ax.text, t, -0.29 - 0.07 * k, f"{(time[part] >= t).sum()}", ha="center",
                  transform=ax.get_xaxis_transform(), fontsize=SIZE - 1,
                  color=_COLOURS[-len(names):][k], fontweight="bold")
    return _noted(figure, found, height, f"Patients in {'thirds' if len(names) == 3 else 'halves'} "
                  f"of their {plain(found.metric)} (median of the posterior). Steps: Kaplan and "
                  "Meier's curve, with ticks where patients were censored. Thin lines and bands: "
                  "the model for the same patients, median and 95 %.")


def _title(found: ExposureResponse) -> str:
    return f"{plain(found.outcome, 30)} and {plain(found.metric)}"


def _axis(found: ExposureResponse) -> str:
    return f"{found.metric} ({found.unit})"


def _ratio(row: Any) -> str:
    return f"{row.estimate:.2f} ({row.lower95:.2f} to {row.upper95:.2f})"


def _noted(figure: Any, found: ExposureResponse, height: float, note: str) -> Any:
    """The page with its result below the title, and how it is read below its panels."""
    row, wide = found.table.iloc[0], figure.get_figwidth()
    said = [f"{found.measure.capitalize()} per doubling of {found.metric}: {_ratio(row)}",
            f"{row['model'][0].upper()}{row['model'][1:]}, {row['n']} patients" + (
                f", adjusted for {', '.join(map(plain, found.adjust))}" if found.adjust else "")]
    write(figure.text, 0.09, 1 - 0.35 / height, "\n".join(
        line for part in said for line in textwrap.wrap(part, int(wide * 16))[:1]),
        ha="left", va="top", fontsize=SIZE, color=INK, linespacing=1.3)
    write(figure.text, 0.09, 0.09 / height, "\n".join(textwrap.wrap(note, int(wide * 18.5))),
          ha="left", va="bottom", fontsize=SIZE - 1.5, color=GREY, linespacing=1.3)
    return figure


def _digits(value: float) -> str:
    """Three digits, without an exponent where that is short."""
    short = float(f"{value:.3g}")
    return f"{short:.0f}" if 1000 <= short < 1e7 else f"{short:g}"
