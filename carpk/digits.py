"""Numbers as text: to the digits that their uncertainty supports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd


def format_table(table: pd.DataFrame) -> pd.DataFrame:
    """The parameter table as text, estimates to the second digit of their uncertainty.

    That is the SD or, where the interval is lopsided, its shorter side over 1.96.

    >>> table = pd.DataFrame({"parameter": ["CL_pop", "V_pop"], "mean": [3.21789, 30.0],
    ...                       "sd": [0.2345, math.nan], "rhat": [1.00321, math.nan]})
    >>> format_table(table).values.tolist()
    [['CL_pop', '3.22', '0.23', '1.003'], ['V_pop', '30', '', '']]
    """
    forms = {"rse": "{:.3g}", "rhat": "{:.3f}", "ess_bulk": "{:.0f}", "ess_tail": "{:.0f}",
             "shrinkage": "{:.2f}"}

    def written(row: Mapping[Any, Any], column: Any) -> str:
        value = row[column]
        if isinstance(value, str) or math.isnan(value):
            return "" if not isinstance(value, str) else value
        if column == "cv_percent":
            return f"{value:.0f}" if value <= 1000 else "> 1000"
        return forms[column].format(value) if column in forms else rounded(value, _scale(row))

    rows = [{c: written(row, c) for c in table.columns} for row in table.to_dict("records")]
    return pd.DataFrame(rows, columns=table.columns, index=table.index)


def _scale(row: Mapping[Any, Any]) -> float:
    """The uncertainty that decides a row's digits."""
    sides = [(row["median"] - row["lower95"]) / 1.96, (row["upper95"] - row["median"]) / 1.96] \
        if {"median", "lower95", "upper95"} <= row.keys() else []
    return min([s for s in (row["sd"], *sides) if s > 0], default=math.nan)


def rounded(value: float, uncertainty: float) -> str:
    """A number to the place of the second digit of its uncertainty; six digits if that is NaN.

    >>> rounded(24310.7, 2310.0), rounded(0.0032123, 0.0004), rounded(3.2e-6, 4e-7)
    ('24300', '0.00321', '3.20e-06')
    """
    if not math.isfinite(uncertainty) or not math.isfinite(value):
        return f"{value:.6g}"
    places = 1 - math.floor(math.log10(uncertainty))
    shown = round(value, places)
    if shown == 0 or 1e-4 <= abs(shown) < 1e7:
        return f"{shown:.{max(places, 0)}f}"
    return f"{shown:.{max(math.floor(math.log10(abs(shown))) + places, 0)}e}"
