"""All models side by side: the typical patient of each, and the map of biology against design."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from carpk.drawings import draw_sets, level_axis, set_colours, time_named
from carpk.plots import ALARM, BLUE, GREY, INK, SEVERAL, SIZE, dress, plain, sheet, time_axis, write
from carpk.structure import Output, StructuralModel
from carpk.taxonomy import ALLOWED, LAYERS
from carpk.trajectories import Trajectories

PANELS = 3  # outputs of a row
_WIDTH, _ROW, _TEXT = 10.5, 1.62, 2.75  # inches: the page, a row, what is written beside it
_COLUMN, _LINE = 1.4, 0.26  # inches of the map: an index, and a model within it
_DESIGN = {"empirical": "empirical", "semi_mechanistic": "semi-mechanistic",
           "mechanistic": "mechanistic"}
_CLASS = {"classic_pk": "PK", "pk": "PK", "pkpd": "PK/PD", "qsp": "QSP", "pbpk": "PBPK",
          "pbpk_pd": "PBPK"}


def typical_patients(structures: Sequence[StructuralModel], paths: Mapping[str, Trajectories],
                     rows: int = 8) -> list[Any]:
    """Figures of a row for each model: who it is, and the typical patient of each parameter set.

    paths : by the model's name, see `carpk.trajectories.typical`; rows : of a figure at most

    >>> from carpk import registry
    >>> from carpk.trajectories import typical
    >>> stein = registry.find_model("stein_2019")
    >>> [len(page.axes) for page in typical_patients([stein], {"stein_2019": typical(stein)})]
    [1]
    """
    listed = list(structures)
    parts = [listed[k:k + rows] for k in range(0, len(listed), rows)]
    pages = []
    for n, part in enumerate(parts, 1):
        height = 0.42 + _ROW * len(part)
        title = "Typical patients" + (f" ({n} of {len(parts)})" if len(parts) > 1 else "")
        figure = sheet(_WIDTH, height, title)
        for k, structure in enumerate(part):
            _row(figure, structure, paths[structure.name], height, height - 0.42 - k * _ROW)
        pages.append(figure)
    return pages


def _row(figure: Any, structure: StructuralModel, paths: Trajectories, height: float,
         top: float) -> None:
    """One model, its upper edge `top` inches above the page's lower one."""
    colours = set_colours(paths.titles)
    lines = [(structure.name, INK, "bold", SIZE)]
    lines += [(said, INK, "normal", SIZE - 1.5)
              for said in textwrap.wrap(structure.title, 46)[:2]]
    if structure.source.citation != "textbook":
        lines += [(plain(structure.source.citation, 50), GREY, "normal", SIZE - 2)]
    untrue = "to be trusted" in paths.note.lower()
    lines += [(said, ALARM if untrue else GREY, "normal", SIZE - 2)
              for said in textwrap.wrap(paths.note, 50)[:3]]
    shown = _shown(structure.outputs)
    if len(structure.outputs) > PANELS:
        others = ", ".join(o.name for o in structure.outputs if o not in shown)
        lines += [(plain(f"not shown: {others}", 50), GREY, "normal", SIZE - 2)]
    if len(colours) > 1:
        lines += [(plain(label, 40), colour, "normal", SIZE - 1.5)
                  for label, colour in colours.items()]
    elif len(paths.titles) > 1:
        lines += [(f"{len(paths.titles)} parameter sets", BLUE, "normal", SIZE - 1.5)]
    step = min(0.125, (_ROW - 0.1) / len(lines))
    for k, (said, colour, weight, size) in enumerate(lines):
        write(figure.text, 0.1 / _WIDTH, (top - 0.1 - k * step) / height, said, fontsize=size,
              color=colour, fontweight=weight, va="top")
    room = (_WIDTH - _TEXT) / PANELS
    for k, output in enumerate(shown):
        ax = figure.add_axes((
            (_TEXT + k * room + 0.5) / _WIDTH, (top - _ROW + 0.45) / height,
            (room - 0.6) / _WIDTH, (_ROW - 0.72) / height))
        dress(ax)
        time_axis(ax, paths.time, structure.time_unit)
        level_axis(ax, output, [paths.values[output.name]])
        draw_sets(ax, paths, output, colours)
        ax.yaxis.get_offset_text().set_fontsize(SIZE - 1.5)
        meaning = plain(output.meaning, 40 - len(output.name))
        write(ax.set_title, f"{output.name}: {meaning}", fontsize=SIZE - 1.5, color=INK, pad=3,
              loc="left")
        write(ax.set_ylabel, output.unit, fontsize=SIZE - 1.5, color=INK, labelpad=2)
        if k == 0:
            write(ax.set_xlabel, time_named(structure, paths.time), fontsize=SIZE - 1.5,
                  color=INK, labelpad=1, loc="left")


def _shown(outputs: Sequence[Output]) -> list[Output]:
    """At most PANELS outputs in their order: one of each unit before a second one of any."""
    units = [o.unit for o in outputs]
    dear = sorted(range(len(outputs)), key=lambda k: units[:k].count(units[k]))
    return [outputs[k] for k in sorted(dear[:PANELS])]


def complexity_map(structures: Sequence[StructuralModel]) -> Any:
    """The review's two axes: how much biology a model captures against how it computes.

    Across, the complexity index, counted from the layers of the model's taxonomy; upwards from
    empirical to mechanistic, within it closed forms below equations that are solved. Models
    without a taxonomy are left out.

    >>> from carpk import registry
    >>> figure = complexity_map([registry.find_model("stein_2019")])
    >>> figure.axes[0].get_xlabel()
    'Biological complexity: layers captured, of 13'
    """
    told = [m for m in structures if m.taxonomy]
    cells: dict[tuple[str, int], list[StructuralModel]] = {}
    for m in sorted(told, key=lambda m: (m.solution is None, m.name)):
        cells.setdefault((m.taxonomy.depth, m.taxonomy.index), []).append(m)  # type: ignore[union-attr]
    bands = {d: 1 + max((len(v) for (depth, _), v in cells.items() if depth == d), default=1)
             for d in ALLOWED["depth"]}
    most = max((i for _, i in cells), default=0)
    width, height = 1.3 + _COLUMN * (most + 1), 1.1 + _LINE * sum(bands.values())
    figure = sheet(width, height, "Models by biological complexity and computational design")
    ax = figure.add_axes((1.15 / width, 0.5 / height, 1 - 1.3 / width, 1 - 1.1 / height))
    dress(ax)
    classes = dict(zip(dict.fromkeys(_CLASS.values()), SEVERAL, strict=False))
    bottom, middles = 0.0, []
    for depth, size in bands.items():
        middles.append(bottom + size / 2)
        if bottom:
            ax.axhline(bottom, color=GREY, linewidth=0.4)
        for index in range(most + 1):
            for k, m in enumerate(cells.get((depth, index), [])):
                _mark(ax, m, index - 0.42, bottom + k + 1, classes)
        bottom += size
    for index in range(most):
        ax.axvline(index + 0.5, color=GREY, linewidth=0.3, alpha=0.4)
    ax.set(xlim=(-0.5, most + 0.5), ylim=(0.0, bottom), xticks=range(most + 1), yticks=middles)
    ax.set_yticklabels([_DESIGN[d].replace("-", "-\n") for d in bands], fontsize=SIZE)
    ax.tick_params(axis="y", length=0)
    write(ax.set_xlabel, f"Biological complexity: layers captured, of {len(LAYERS)}",
          fontsize=SIZE, color=INK)
    write(ax.set_ylabel, "Computational design", fontsize=SIZE, color=INK)
    present = {_CLASS[m.taxonomy.kinetics] for m in told if m.taxonomy}
    marks = [("o", c, c, name) for name, c in classes.items() if name in present]
    marks += [("s", INK, INK, "closed form"), ("o", INK, INK, "ODE"),
              ("o", INK, "white", "not fitted to data")]
    handles = [ax.plot([], [], linestyle="", markersize=5, marker=shape, color=edge,
                       markerfacecolor=face)[0] for shape, edge, face, _ in marks]
    figure.legend(handles, [name for *_, name in marks], loc="upper left", ncols=len(marks),
                  fontsize=SIZE - 1, bbox_to_anchor=(1.1 / width, 1 - 0.36 / height), frameon=False,
                  handletextpad=0.2, columnspacing=1.2, borderpad=0, borderaxespad=0)
    return figure


def _mark(ax: Any, m: StructuralModel, x: float, y: float, classes: Mapping[str, str]) -> None:
    """A model's mark and name at a place of the map."""
    assert m.taxonomy is not None
    colour = classes[_CLASS[m.taxonomy.kinetics]]
    fitted = m.taxonomy.parameters_from in ("fitted", "mixed")
    ax.plot([x], [y], marker="s" if m.solution else "o", markersize=5, color=colour,
            markerfacecolor=colour if fitted else "white")
    write(ax.text, x + 0.06, y, "\n".join(_folded(m.name)), fontsize=SIZE - 2, color=INK,
          va="center", linespacing=0.95)


def _folded(name: str, most: int = 25) -> list[str]:
    """A model's name on one line or two, parted where it has an underscore.

    >>> _folded("stein_2019"), _folded("liu_l_2022_negative_relapse")
    (['stein_2019'], ['liu_l_2022_negative', '_relapse'])
    """
    cut = name.rfind("_", 0, most)
    return [name] if len(name) <= most or cut < 1 else [name[:cut], name[cut:]]
