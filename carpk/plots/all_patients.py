"""All patients' own curves in one panel: how far they lie apart, and who is who."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from carpk.fitting import Fit
from carpk.plots import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SIZE,
    Pages,
    dress,
    limits,
    log_axis,
    output_label,
    page,
    time_axis,
    time_label,
    write,
)
from carpk.prediction import curves, predictions

TITLE = "All patients"
CAPTION = (
    "Grey: each patient's own curve, posterior median, with the levels measured (dots) and "
    "censored (open triangles, at their limit). Blue: the typical patient, with the inputs and "
    "covariates of the one who was followed longest. Dashed: limits of quantification.")
PATIENT = "patient-"  # what a patient's curve and dots are called inside the drawing, by number
MOST = 300  # patients; more are not told apart, and make a large file


def draw(fit: Fit) -> Pages:
    """A page for each output."""
    seen, paths = predictions(fit), curves(fit)
    outputs = [o.name for o in fit.model.structure.outputs if (seen["output"] == o.name).any()]
    return [("all_patients" if len(outputs) == 1 else f"all_patients_{k}",
             _page(fit, output, seen[seen["output"] == output], paths[paths["output"] == output]))
            for k, output in enumerate(outputs, 1)]


def _page(fit: Fit, output: str, seen: pd.DataFrame, paths: pd.DataFrame) -> Figure:
    ids = list(dict.fromkeys(seen["ID"]))
    shown = ids if len(ids) <= MOST else [ids[k] for k in np.linspace(
        0, len(ids) - 1, MOST).astype(int)]
    some = f", {len(shown)} of {len(ids)} patients" if len(shown) < len(ids) else ""
    figure = page(fit, 7.0, 4.2, f"{output_label(fit, output)}{some}")
    ax = figure.add_axes((0.09, 0.115, 0.895, 0.79))
    dress(ax)
    times, dv = seen["TIME"].to_numpy(), seen["DV"].to_numpy()
    time_axis(ax, times, fit.model.structure.time_unit)
    log = bool((dv > 0).all())
    low, high = limits(dv, log)
    if log:
        log_axis(ax, "y", low, high)
    else:
        ax.set_ylim(low, high)
    ends = (low / 3, high * 3) if log else (-np.inf, np.inf)
    lines, points = dict(list(paths.groupby("ID"))), dict(list(seen.groupby("ID")))
    numbers = {patient: k for k, patient in enumerate(fit.design.ids)}
    faint = max(0.2, min(0.6, 30 / len(shown)))
    for patient in shown:
        own, gid = points[patient], f"{PATIENT}{numbers[patient]}"
        line = lines[patient]
        ax.plot(line["TIME"], np.clip(line["median"], *ends), color=GREY, alpha=faint,
                linewidth=0.7, gid=f"{gid}-curve")
        for code, marker, face in ((0, "o", GREY), (1, "v", "white"), (-1, "^", "white")):
            rows = own[own["censored"] == code]
            if len(rows):
                ax.plot(rows["TIME"], rows["DV"], marker, color=GREY, alpha=faint, markersize=2.2,
                        markerfacecolor=face, markeredgewidth=0.0 if code == 0 else 0.4,
                        gid=f"{gid}-rows{code}")
    for limit in seen.loc[seen["censored"] == 1, "upper"].unique():
        ax.axhline(limit, color=ORANGE, linewidth=0.7, linestyle=(0, (4, 2)))
    longest = lines[shown[int(np.argmax([points[i]["TIME"].max() for i in shown]))]]
    ax.plot(longest["TIME"], np.clip(longest["typical"], *ends), color=BLUE, linewidth=1.6)
    write(ax.set_xlabel, time_label(fit), fontsize=SIZE, color=INK)
    write(ax.set_ylabel, output_label(fit, output), fontsize=SIZE, color=INK)
    return figure
