"""Residual errors that are separate by a column of the file: by assay, laboratory or study.

"lognormal by ASSAY" gives every level of the column residual parameters of its own, which are named
after it: sigma_C_log_qPCR. Where the column changes in a patient it is read row by row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd

from carpk.cohort import Design
from carpk.error_models import ErrorModel, error_model, without_column
from carpk.levels import unit
from carpk.problems import Problem, RequestError

_FEW = 10  # measured rows of a level: of fewer, the relative SE of an SD is above 0.22


@dataclass(frozen=True, slots=True)
class Separate:
    """The column whose levels have residual errors of their own; `units` are the cohort's."""

    column: str
    units: tuple[str, ...] = ()


class Residual(NamedTuple):
    """What a residual parameter is of: output, sigma, and level of the column, "" without one."""

    output: str
    sigma: str
    unit: str


def residuals(errors: Mapping[str, ErrorModel], separate: Mapping[str, Separate]) \
        -> dict[str, Residual]:
    """Every residual parameter by its name.

    >>> list(residuals({"C": error_model("lognormal")}, {"C": Separate("ASSAY", ("flow", "qPCR"))}))
    ['sigma_C_log_flow', 'sigma_C_log_qPCR']
    """
    return {stem(o, s) + (f"_{u}" if u else ""): Residual(o, s, u)
            for o, e in errors.items() for s in e.sigmas
            for u in (separate[o].units if o in separate else ("",))}


def stem(output: str, sigma: str) -> str:
    """What the names of a residual parameter begin with; its name where there is one of it."""
    return f"sigma_{output}_{sigma}"


def sigma_of(theta: Mapping[str, Any], error: ErrorModel, output: str, separate: Separate | None,
             units: Mapping[str, Any] | None) -> SimpleNamespace:
    """The residual parameters of an output, each a scalar or, where they are separate, of the
    shape of `units[output]`, by which level each row is of; see `units_of`."""
    if separate is None:
        return SimpleNamespace(**{s: theta[stem(output, s)] for s in error.sigmas})
    assert units is not None
    found: dict[str, Any] = {}
    for s in error.sigmas:
        first, *others = (theta[f"{stem(output, s)}_{u}"] for u in separate.units)
        found[s] = first + jnp.zeros(jnp.shape(units[output]))
        for k, value in enumerate(others, 1):
            found[s] = jnp.where(units[output] == k, value, found[s])
    return SimpleNamespace(**found)


def asked_separate(errors: Mapping[str, str]) -> tuple[dict[str, Separate], list[Problem]]:
    """By output, by which column its errors are separate, and what of the errors is not
    understood."""
    separate: dict[str, Separate] = {}
    found: list[Problem] = []
    for output, written in errors.items():
        try:
            error = error_model(written)
        except RequestError as refused:
            found += refused.problems
            continue
        _, column = without_column(written)
        if column and error.binary:
            found.append(Problem("error", "a binary DV has no residual error to be separate",
                                 "bernoulli", column=f"errors.{output}", found=written))
        elif column:
            separate[output] = Separate(column)
    return separate, found


def written_by_row(design: Design, column: str) -> np.ndarray:
    """(P, N), object: a column of the file at each row, None where there is none. Where it is the
    same on all rows of a patient that have it, it is the patient's."""
    out = np.full(design.time.shape, None, dtype=object)
    if column in design.covariates:
        out[:] = design.covariates[column].to_numpy(object)[:, None]
    elif column in design.changing:
        patient = np.nonzero(design.observed)[0]
        kinds = {"ID": object, "TIME": float, "line": float}
        rows = pd.DataFrame({"ID": np.array(design.ids)[patient], "TIME": design.time[
            design.observed], "line": design.line[design.observed]}).astype(kinds)
        said = design.changing[[*kinds, column]].astype(kinds)
        # of a plan the row that says it stands before the sample's, else it is that row
        own = pd.merge_asof(rows.reset_index().sort_values("line"), said.sort_values("line"),
                            on="line", by=["ID", "TIME"]).set_index("index")[column]
        out[design.observed] = own.sort_index().to_numpy(object)
    out[pd.isna(out)] = None
    return out


def units_of(separate: Mapping[str, Separate], design: Design) -> dict[str, np.ndarray]:
    """{output: (P, N)}: the place of each row's level among those of its output's column; 0 where
    the row has none of them, as rows of other outputs may."""
    found = {}
    for output, by in separate.items():
        place = {u: k for k, u in enumerate(by.units)}
        found[output] = np.array([[place.get(unit(v), 0) for v in row] for row in written_by_row(
            design, by.column)], dtype=np.int64).reshape(design.time.shape)
    return found


def resolved_separate(separate: Mapping[str, Separate], outputs: list[str], design: Design,
                      source: str) -> tuple[dict[str, Separate], list[Problem]]:
    """The columns with their levels, those of a fit and then those of these rows, and what is
    wrong with them or to be known of them.

    outputs : the model's, in order
    """
    made, found = {}, []
    there = [*design.covariates, *(c for c in design.changing.columns[3:]
                                   if c not in design.covariates)]
    for output, by in separate.items():
        made[output] = by
        if by.column not in there:
            found.append(Problem(
                "error", f"the residual errors of {output} are separate by this column, and the "
                "file has none", f"it has {', '.join(map(str, there)) or 'no other column'}",
                source, column=by.column))
            continue
        rows = design.observed & (design.output == outputs.index(output))
        written = written_by_row(design, by.column)
        missing = rows & (written == None)  # noqa: E711 (element by element)
        found += [Problem("error", f"missing: whose error has this row of {output}?",
                          "fill it in, or set MDV=1", source, int(design.line[i, k]),
                          design.ids[i], by.column) for i, k in np.argwhere(missing)]
        here = np.array([unit(v) for v in written[rows & ~missing]], dtype=object)
        measured = np.asarray((design.lower == design.upper)[rows & ~missing])
        levels = sorted(set(here))
        if not by.units and len(levels) == 1 and not missing.any():
            found.append(Problem("error", f"all rows of {output} are of one level",
                                 f'leave "by {by.column}" out', source, column=by.column,
                                 found=levels[0]))
        found += [Problem("warning", f"{n} measured rows of {output}: their residual error is "
                          "mostly its prior's", "join levels, or let them share one error", source,
                          column=by.column, found=u) for u in levels if u not in by.units
                  and (n := int((measured & (here == u)).sum())) < _FEW]
        made[output] = dataclasses.replace(by, units=(
            *by.units, *(u for u in levels if u not in by.units)))
    return made, found
