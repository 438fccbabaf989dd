"""Which patients inform which parameter: a heat map of contraction."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from carpk.fitting import Fit
from carpk.individual_information import contraction, least_informed
from carpk.plots import INK, SIZE, Pages, dress, page, plain, write

TITLE = "Information per patient"
CAPTION = (
    "How much a patient's own data say about each of the patient's parameters: contraction, "
    "1 − Var(eta | data) / omega², the share of the variance between patients that the data take "
    "away. Dark: known from the patient's own samples; white: the value is the population's. "
    "Above the patients their mean, which is low where shrinkage is high. Patients are sorted by "
    "their mean over the parameters. All values: tables/information.csv.")

ROWS = 50  # patients below each other
_ROW, _LETTER, _WIDTH = 0.125, 0.05, 6.65  # inches: a row, a letter of an ID, a page's blocks
_CELL = (0.3, 0.62)  # of a column: at least, so that its name is read; at most


def draw(fit: Fit) -> Pages:
    """Pages of blocks of up to 50 patients, as many side by side as there is room for."""
    table = contraction(fit)
    if table.empty:
        return []
    values = table.pivot(index="ID", columns="parameter", values="contraction")[
        list(fit.model.spread)].loc[list(fit.design.ids)]
    values = values.iloc[np.argsort(-values.mean(axis=1).to_numpy(), kind="stable")]
    values.index = pd.Index([plain(str(i)) for i in values.index])
    label = 0.2 + _LETTER * max(map(len, [*values.index, "mean"]))
    room = max(1, int(_WIDTH / (label + _CELL[0] * values.shape[1])))
    sheets = math.ceil(len(values) / (room * ROWS))
    each = math.ceil(len(values) / sheets)
    return [(f"information_{k + 1}" if sheets > 1 else "information",
             _page(fit, values, k * each, min((k + 1) * each, len(values)), room, label))
            for k in range(sheets)]


def remark(fit: Fit) -> str:
    """Which parameter is known least."""
    return least_informed(contraction(fit))


def _page(fit: Fit, values: pd.DataFrame, first: int, end: int, room: int, label: float) \
        -> Figure:
    """One page of the sorted patients; label: inches of the longest ID."""
    shown, k = values.iloc[first:end], values.shape[1]
    blocks = min(room, math.ceil(len(shown) / 10))  # a block of a few patients only wastes width
    rows = math.ceil(len(shown) / blocks)
    cell = min(_CELL[1], (_WIDTH / blocks - label) / k)
    names = _ROW * 0.55 * max(map(len, values.columns)) + 0.1
    height = 0.8 + names + _ROW * (rows + 1.5)
    figure = page(fit, 7.0, height, f"Information per patient: {first + 1} to {end} of "
                  f"{len(values)}, most informed first")
    for b in range(blocks):
        part = shown.iloc[b * rows:(b + 1) * rows]
        if part.empty:
            break
        left, top = 0.15 + b * (label + cell * k) + label, height - 0.62 - names
        ax = figure.add_axes((left / 7.0, (top - _ROW) / height, cell * k / 7.0, _ROW / height))
        mean = values.mean().to_numpy()
        _map(ax, mean[None], ["mean"])
        for j, m in enumerate(mean):
            write(ax.text, j + 0.5, 0.5, f"{m:.2f}", ha="center", va="center", fontsize=SIZE - 2,
                  color="white" if m > 0.55 else INK)
        ax.tick_params(labeltop=True)
        ax.set_xticks(np.arange(k) + 0.5, [plain(n, 14) for n in values.columns], rotation=90)
        low = top - _ROW * (1.5 + len(part))
        _map(figure.add_axes((left / 7.0, low / height, cell * k / 7.0,
                              _ROW * len(part) / height)),
             part.to_numpy(), list(part.index))
    _bar(figure, height)
    return figure


def _map(ax: Any, values: np.ndarray, labels: list[str]) -> None:
    """Cells from the top down, with their rows' names."""
    dress(ax)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.pcolormesh(np.clip(values, 0.0, 1.0), cmap=mpl.colormaps["Blues"], vmin=0.0, vmax=1.0,
                  edgecolors="#d9d9d9", linewidth=0.3)
    ax.invert_yaxis()
    ax.tick_params(length=0, labelbottom=False)
    ax.set_xticks([])
    ax.set_yticks(np.arange(len(labels)) + 0.5, labels)
    ax.tick_params(axis="y", labelsize=SIZE - 2)
    for label in ax.get_yticklabels():
        label.set_parse_math(False)


def _bar(figure: Figure, height: float) -> None:
    """The scale of colours, under the title."""
    ax = figure.add_axes((0.09, 1 - 0.45 / height, 0.3, 0.09 / height))
    dress(ax)
    ax.pcolormesh(np.linspace(0.0, 1.0, 65), [0.0, 1.0], np.linspace(0.0, 1.0, 64)[None],
                  cmap=mpl.colormaps["Blues"], vmin=0.0, vmax=1.0)
    ax.set_yticks([])
    ax.set_xticks([0.0, 0.5, 1.0])
    for spine in ax.spines.values():
        spine.set(visible=True)
    write(figure.text, 0.41, 1 - 0.405 / height,
          "contraction: 0 nothing known of the patient, 1 all", fontsize=SIZE - 1, color=INK,
          va="center")
