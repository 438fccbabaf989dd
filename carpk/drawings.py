"""Figures that need no fit: a model's typical trajectories, and a simulated cohort."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from carpk.cohort import Cohort, Design
from carpk.plots import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    POINTS,
    SEVERAL,
    SIZE,
    dress,
    headed,
    log_axis,
    plain,
    sheet,
    time_axis,
    time_name,
    write,
)
from carpk.prior_cohorts import PriorPrediction
from carpk.structure import Output, StructuralModel
from carpk.trajectories import Trajectories
from carpk.virtual_cohort import group

MOST = 6  # panels; a model of more outputs shows its first ones
_LINES = 60  # patients whose own curve is drawn; more hide one another
_DEPTH = 1e-8  # of the highest level; a count that falls further is gone to any reader


def typical_trajectories(structure: StructuralModel, paths: Trajectories) -> Any:
    """A panel for each output, a line for each parameter set."""
    colours = set_colours(paths.titles)
    sheet_of = _Sheet(structure, f"{structure.name}: typical trajectories", paths.time,
                      _note(structure, paths.note), len(colours), max(map(len, colours)))
    for output, ax in sheet_of.panels():
        level_axis(ax, output, [paths.values[output.name]])
        draw_sets(ax, paths, output, colours)
    return sheet_of.done([({"color": c, "linewidth": 1.2}, plain(label, 40))
                          for label, c in colours.items()])


def simulated_cohort(structure: StructuralModel, cohort: Cohort, seen: Design, time: np.ndarray,
                     paths: Mapping[str, np.ndarray], limits: Mapping[str, float],
                     note: str) -> Any:
    """A panel for each sampled output: simulated levels, patients' own curves and their median.

    time : (T,) and paths : {output: (P, T)}, the patients without residual error
    """
    rows = cohort.observations
    outputs = [o for o in structure.outputs if (rows["DVID"] == o.dvid).any()]
    title = f"{structure.name}: {len(cohort.ids)} simulated patients"
    sheet_of = _Sheet(structure, title, seen.time[seen.observed], _note(structure, note), 5, 20,
                      outputs)
    for output, ax in sheet_of.panels():
        mine = rows[rows["DVID"] == output.dvid]
        own = paths[output.name]
        own = own[np.isfinite(own).all(axis=1)]  # those that could be solved
        middle = np.median(own, axis=0) if len(own) else np.full(len(time), np.nan)
        level_axis(ax, output, [mine["DV"].to_numpy()], [middle])
        shade = min(0.6, max(0.12, 6.0 / max(len(own), 1)))
        for path in own[:_LINES]:
            ax.plot(time, on_axis(ax, path), color=BLUE, linewidth=0.5, alpha=shade)
        ax.plot(time, on_axis(ax, middle), color=BLUE, linewidth=1.6)
        if output.name in limits:
            ax.axhline(limits[output.name], color=ORANGE, linewidth=0.8, linestyle=(0, (4, 2)))
        many = len(mine) > POINTS
        for cens, style in ((0, _MEASURED), (1, _CENSORED)):
            dots = mine[mine["CENS"] == cens]
            ax.plot(dots["TIME"], on_axis(ax, dots["DV"].to_numpy()), rasterized=many, **style)
    marks: list[tuple[dict[str, Any], str]] = [
        (_MEASURED, "simulated level"), (_CENSORED, "censored at the limit"),
        ({"color": BLUE, "linewidth": 0.6, "alpha": 0.6}, "patient, no error"),
        ({"color": BLUE, "linewidth": 1.6}, "median"),
        ({"color": ORANGE, "linewidth": 0.8, "linestyle": (0, (4, 2))}, "limit")]
    return sheet_of.done(marks if limits else [marks[0], *marks[2:4]])


def prior_bands(expected: PriorPrediction, limits: Mapping[str, float], note: str) -> Any:
    """A panel for each sampled output: where the levels of patients lie whose population is drawn
    from the priors, and the levels that were measured."""
    structure, seen = expected.model.structure, expected.seen
    sampled = expected.cohort.observations["DVID"].unique()
    outputs = [o for o in structure.outputs if o.dvid in sampled]
    title = (f"{structure.name}: prior prediction, {len(expected.populations)} virtual cohorts of "
             f"{len(seen.ids) // len(expected.populations)} patients")
    rows = None if expected.observed is None else expected.observed.observations
    sheet_of = _Sheet(structure, title, seen.time[seen.observed], _note(structure, note), 5, 24,
                      outputs)
    for output, ax in sheet_of.panels():
        bands = expected.bands(output.name)
        mine = rows[rows["DVID"] == output.dvid] if rows is not None else None
        level_axis(ax, output, [bands], [] if mine is None else [mine["DV"].to_numpy()])
        lines = [on_axis(ax, b) for b in bands]
        for k, style in ((0, _WIDE), (1, _HALF)):
            ax.fill_between(expected.time, lines[k], lines[-1 - k], linewidth=0,
                            color=style["color"], alpha=style["alpha"])
        ax.plot(expected.time, lines[2], color=BLUE, linewidth=1.4)
        if output.name in limits:
            ax.axhline(limits[output.name], **_LIMIT)
        if mine is None:
            continue
        for cens, style in ((0, _MEASURED), (1, _CENSORED)):
            dots = mine[(mine["CENS"] != 0) == bool(cens)]
            ax.plot(dots["TIME"], on_axis(ax, dots["DV"].to_numpy()),
                    rasterized=len(mine) > POINTS, **style)
    marks: list[tuple[dict[str, Any], str]] = [
        (_WIDE, "90 % of levels"), (_HALF, "50 %"), ({"color": BLUE, "linewidth": 1.4}, "median")]
    if rows is not None:
        marks.append((_MEASURED, "measured level"))
        if (rows["CENS"] != 0).any():
            marks.append((_CENSORED, "censored at the limit"))
    return sheet_of.done([*marks, (_LIMIT, "limit")] if limits else marks)


_LIMIT = {"color": ORANGE, "linewidth": 0.8, "linestyle": (0, (4, 2))}
_WIDE = {"color": BLUE, "linewidth": 6.0, "alpha": 0.15}
_HALF = {"color": BLUE, "linewidth": 6.0, "alpha": 0.3}
_MANY = "parameter sets"


def draw_sets(ax: Any, paths: Trajectories, output: Output,
              colours: Mapping[str, str]) -> None:
    """A line for each parameter set on axes that `level_axis` made."""
    for k, title in enumerate(paths.titles):
        key = next(c for c in (title, group(title), _MANY) if c in colours)
        ax.plot(paths.time, on_axis(ax, paths.values[output.name][k]), color=colours[key],
                linewidth=1.2 if len(paths.titles) <= 8 else 0.7, zorder=2 + k / 100)


_MEASURED = {"marker": "o", "linestyle": "", "markersize": 2.2, "color": INK, "alpha": 0.45,
             "markeredgewidth": 0}
_CENSORED = {"marker": "v", "linestyle": "", "markersize": 3.0, "markerfacecolor": "none",
             "markeredgecolor": GREY, "markeredgewidth": 0.5}


class _Sheet:
    """A page of panels, one for each output, with the axes' names, a legend and a note."""

    def __init__(self, structure: StructuralModel, title: str, times: np.ndarray, note: str,
                 labels: int, longest: int, outputs: Sequence[Output] = ()) -> None:
        every = list(outputs or structure.outputs)
        self.outputs, self.unit, self.times = every[:MOST], structure.time_unit, times
        if len(every) > MOST:
            title += f" (first {MOST} of {len(every)} outputs)"
        columns = 1 if len(self.outputs) == 1 else 2
        rows = math.ceil(len(self.outputs) / columns)
        self.legend_columns = max(1, min(labels, 110 // (min(longest, 40) + 8)))
        legend = 0.15 * math.ceil(labels / self.legend_columns)
        lines = textwrap.wrap(note, 118)
        foot = 0.12 * len(lines) + 0.42
        self.height = 0.52 + legend + foot + (3.0 if columns == 1 else 2.25) * rows
        self.figure = sheet(7.0, self.height, plain(title, 90))
        self.grid = self.figure.add_gridspec(
            rows, columns, left=0.09, right=0.985, top=1 - (0.52 + legend) / self.height,
            bottom=foot / self.height, wspace=0.2, hspace=0.27)
        self.columns = columns
        write(self.figure.text, 0.09, 0.06 / self.height, "\n".join(lines), fontsize=SIZE - 1.5,
              color=GREY, va="bottom", linespacing=1.15)
        name = time_named(structure, times)
        write(self.figure.supxlabel, name, fontsize=SIZE, color=INK, va="bottom",
              y=(foot - 0.36) / self.height)

    def panels(self) -> Any:
        """Each output with its axes."""
        for k, output in enumerate(self.outputs):
            ax = self.figure.add_subplot(self.grid[k // self.columns, k % self.columns])
            dress(ax)
            time_axis(ax, self.times, self.unit)
            headed(ax, _heading(output, 84 if self.columns == 1 else 48))
            yield output, ax

    def done(self, marks: Sequence[tuple[dict[str, Any], str]]) -> Any:
        """The figure with its legend."""
        first = self.figure.axes[0]
        handles = [first.plot([], [], **style)[0] for style, _ in marks]
        legend = self.figure.legend(
            handles, [label for _, label in marks], loc="upper left", ncols=self.legend_columns,
            fontsize=SIZE - 1, bbox_to_anchor=(0.085, 1 - 0.33 / self.height), frameon=False,
            handlelength=1.4, columnspacing=1.3, handletextpad=0.4, borderpad=0, borderaxespad=0)
        for text in legend.get_texts():
            text.set_parse_math(False)
        return self.figure


def time_named(structure: StructuralModel, times: np.ndarray) -> str:
    """The name of a model's time axis; days are after infusion only where time 0 is when cells are
    first given: not where chemotherapy, or a tumour that grows for weeks, comes before, nor in a
    dish."""
    dish = structure.taxonomy is not None and structure.taxonomy.setting == ("in_vitro",)
    given = structure.doses
    first = not given or (min(d.at for d in given) == 0 and len({d.state for d in given}) == 1)
    name = time_name(structure.time_unit, times)
    return name if first and not dish else name.replace("Day after infusion", "Day")


def _heading(output: Output, most: int) -> str:
    """Name, meaning and unit; of a long meaning the end is left out, never the unit."""
    room = most - len(f"{output.name}:  ({output.unit})")
    return f"{output.name}: {plain(output.meaning, max(room, 8))} ({output.unit})"


def set_colours(titles: Sequence[str]) -> dict[str, str]:
    """A colour for each set, each group of sets, or one for all, as far as colours go."""
    groups = list(dict.fromkeys(map(group, titles)))
    for labels in (list(titles), groups):
        if len(labels) <= len(SEVERAL):
            return dict(zip(labels, SEVERAL, strict=False))
    return {_MANY: BLUE}


def level_axis(ax: Any, output: Output, levels: Sequence[np.ndarray],
                also: Sequence[np.ndarray] = ()) -> None:
    """Logarithmic for counts and for what moves over more than a factor of 30."""
    every = np.concatenate([np.ravel(v) for v in (*levels, *also)])
    every = every[np.isfinite(every)]
    above = every[every > 0]
    counted = any(word in output.unit.lower() for word in ("cell", "copies", "count"))
    if above.size and (every >= 0).all() and (counted or above.max() > 30 * above.min()):
        high = 2 * float(above.max())
        low = max(float(above.min()) / 2, _DEPTH * high)
        if output.unit in ("cells", "cell"):
            low = max(low, min(0.5, high / 100))  # less than one cell is none
        log_axis(ax, "y", min(low, high / 10), high)
        return
    top, bottom = float(every.max(initial=0.0)), float(every.min(initial=0.0))
    edge = 0.06 * (top - bottom) or 1.0
    ax.set_ylim(bottom - (edge if bottom < 0 else 0.0), top + edge)


def on_axis(ax: Any, levels: np.ndarray) -> np.ndarray:
    """Levels as they are drawn: what has left a log axis below is not there."""
    if ax.get_yscale() != "log":
        return levels
    low = ax.get_ylim()[0]
    return np.where(levels > low / 30, levels, np.where(levels > 0, low / 30, np.nan))


def _note(structure: StructuralModel, note: str) -> str:
    said = "" if structure.source.citation == "textbook" else structure.source.citation
    return ". ".join(part for part in (said, note[:1].upper() + note[1:]) if part)
