"""The tables of a fit as a paper prints them: rounded, with captions, for Word, LaTeX, the web."""

from __future__ import annotations

import html
import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd
from tabulate import tabulate

from carpk.covariate_effects import relevant
from carpk.digits import format_table, rounded
from carpk.fit_exposure import model_exposure
from carpk.fitting import Fit
from carpk.tables import (
    correlations_of_estimates,
    covariates,
    individuals,
    likelihood_measures,
    parameters,
)

Form = Literal["md", "html", "latex", "docx"]
FORMS = get_args(Form)
_STYLE = {"md": "github", "html": "html", "latex": "latex_booktabs"}
ENDINGS = {"md": ".md", "html": ".html", "latex": ".tex", "docx": ".docx"}
_SHOWN = {"parameter": "Parameter", "unit": "Unit", "median": "Estimate",
          "interval": "95 % interval", "rse": "RSE %", "cv_percent": "CV %",
          "shrinkage": "Shrinkage", "rhat": "R-hat", "ess_bulk": "ESS bulk",
          "ess_tail": "ESS tail"}


@dataclass(frozen=True, eq=False)
class PaperTable:
    """A table of text, and what is written above it."""

    name: str
    caption: str
    cells: pd.DataFrame


def for_paper(fit: Fit) -> list[PaperTable]:
    """Population values, derived quantities, likelihood, correlations, individuals, covariates.

    Estimates have the digits that their uncertainty supports.
    """
    every = parameters(fit)
    text = format_table(every)
    text["interval"] = [f"{a} to {b}" if a else note.partition(":")[0] for a, b, note in zip(
        text["lower95"], text["upper95"], every["note"], strict=True)]
    shown = text[list(_SHOWN)].rename(columns=_SHOWN)
    shown = shown.loc[:, [c for c in shown if c in ("Unit", "Parameter") or shown[c].any()]]
    derived = (every["kind"] == "derived").to_numpy()
    of = fit.posterior["posterior"].dataset.attrs["draws_from"]
    model = f"{fit.model.structure.name}, {len(fit.design.ids)} patients"
    found = [PaperTable("population", f"Population parameters of {model}. Intervals: {of}. "
                        "Spreads (omega) are SDs on the link scale.", shown[~derived])]
    quantities = pd.concat([shown[derived], _exposure(fit)], ignore_index=True).fillna("")
    if len(quantities):
        found.append(PaperTable("derived", f"Derived quantities of the typical patient, {model}.",
                                quantities.loc[:, [c for c in quantities if quantities[c].any()]]))
    if "ofv" in fit.convergence.measures:
        numbers = likelihood_measures(fit).rename(columns=str.capitalize)
        found.append(PaperTable("likelihood", f"Likelihood of {model}.", numbers.assign(
            Value=numbers["Value"].map("{:.3f}".format))))
    matrix = correlations_of_estimates(fit)
    numbers = matrix.select_dtypes("number").map(lambda v: "" if pd.isna(v) else f"{v:.2f}")
    found.append(PaperTable("correlations", f"Correlation of the estimates, {model}.", pd.concat(
        [matrix.select_dtypes(exclude="number"), numbers], axis=1)))
    found.append(PaperTable("individuals", f"Individual parameters of {model}: median and 95 % "
                            "interval.", _individuals(individuals(fit))))
    if fit.model.effects:
        low, high = relevant(fit)
        found.append(PaperTable(
            "covariates", f"Covariate effects of {model}: the typical patient with the value "
            "against one with the reference, other covariates at theirs. Ratios from "
            f"{low:g} to {high:g} count as no relevant change. Explained: of the variance between "
            "patients.", _covariates(covariates(fit), every.set_index("parameter")["unit"])))
    return found


def _exposure(fit: Fit) -> pd.DataFrame:
    """Rows for the curve of the typical patient: peak, area, half-life, time to the limit."""
    names = {"Cmax": "Cmax", "Tmax": "Tmax", "AUC0_28": "AUC0-28", "half_life": "last half-life",
             "Tbelow": "time to LLOQ"}
    time, rows = fit.model.structure.time_unit, []
    for r in model_exposure(fit).query("kind == 'typical'").to_dict("records"):
        units = {"Cmax": r["unit"], "AUC0_28": f"{r['unit']}*{time}"}
        for name, said in names.items():
            middle, low, high = (r[f"{name}_{k}"] for k in ("median", "lower95", "upper95"))
            if pd.isna(middle):
                continue  # never below the limit, or no limit
            # a peak at the start has no spread, a level that stays above the limit no end
            scale = (high - low) / 3.92 if high > low else 0.01 * abs(middle) or math.nan
            ends = [rounded(v, scale) for v in (low, high) if not pd.isna(v)]
            rows.append({"Parameter": f"{said} of {r['output']}", "Unit": units.get(name, time),
                         "Estimate": rounded(middle, scale), "95 % interval": " to ".join(ends)
                         if len(ends) == 2 else f"above {ends[0]}" if ends else ""})
    return pd.DataFrame(rows, columns=["Parameter", "Unit", "Estimate", "95 % interval"])


def _covariates(table: pd.DataFrame, units: pd.Series) -> pd.DataFrame:
    """A row for each effect: 1.23 (1.01 to 1.50), of a ratio or in the parameter's unit.

    units : by the name of a population value
    """
    def short(value: float | str) -> str:
        return value if isinstance(value, str) else "" if pd.isna(value) else f"{value:.4g}"

    cells = pd.DataFrame({
        "Covariate": table["covariate"], "Value": table["value"].map(short),
        "Reference": table["reference"].map(short), "Quantity": table["quantity"],
        "Unit": ["ratio" if r.scale == "ratio" else units[f"{r.quantity}_pop"]
                 for r in table.itertuples()],
        "Effect (95 % interval)": [_interval(r.median, r.lower95, r.upper95)
                                   for r in table.itertuples()],
        "Probability of direction": table["direction"].map("{:.3f}".format),
        "No relevant change": table["band"],
        "Explained % (95 % interval)": ["" if pd.isna(r.explained) else f"{100 * r.explained:.0f} ("
                        f"{100 * r.explained_lower95:.0f} to {100 * r.explained_upper95:.0f})"
                        for r in table.itertuples()],
        "Coefficient": table["coefficient"], "Kappa": table["kappa"].map(short),
        "Missing": [str(n) if n else "" for n in table["missing"]]})
    return cells.loc[:, [c for c in cells if c not in ("Kappa", "Missing") or cells[c].any()]]


def _individuals(table: pd.DataFrame) -> pd.DataFrame:
    """A column for each parameter: 12.3 (10.1 to 15.0)."""
    cells = table[["ID", "observations", "censored"]].astype(str)
    for column in table:
        name, _, which = str(column).rpartition("_")
        if which != "median":
            continue
        rows = zip(table[column], *(table.get(f"{name}_{side}95", table[column] * float("nan"))
                                    for side in ("lower", "upper")), strict=True)
        cells[name] = [_interval(*row) for row in rows]
    for column in (c for c in table if re.fullmatch(r"class_\d+_probability", str(c))):
        cells[column] = table[column].map("{:.2f}".format)
    return cells


def _interval(median: float, low: float, high: float) -> str:
    if pd.isna(median):
        return ""
    if pd.isna(low) or pd.isna(high):
        return f"{median:.4g}"
    a, b, c = (rounded(v, (high - low) / 3.92) for v in (median, low, high))
    return f"{a} ({b} to {c})"


def written(tables: list[PaperTable], form: Form) -> dict[str, bytes]:
    """What is to be written, by file name: a file for each table, or one Word document of all.

    >>> table = PaperTable("doses", "Doses.", pd.DataFrame({"ID": ["1"], "AMT": ["2e6"]}))
    >>> print(written([table], "md")["doses.md"].decode())
    Doses.
    <BLANKLINE>
    | ID   | AMT   |
    |------|-------|
    | 1    | 2e6   |
    <BLANKLINE>
    """
    if form == "docx":
        from carpk.word import document
        page = "".join(f"<h2>{html.escape(t.name.capitalize())}</h2>{_html(t)}" for t in tables)
        return {"tables.docx": document("<html><body><header><h1>Tables</h1></header><main>"
                                        f"{page}</main></body></html>", {})}
    return {f"{t.name}{ENDINGS[form]}": _text(t, form).encode() for t in tables}


def _text(table: PaperTable, form: Form) -> str:
    if form == "html":
        return _html(table) + "\n"
    cells = table.cells
    if form == "md":  # names from files are text
        cells = cells.map(lambda v: html.escape(v, quote=False).replace("|", "\\|"))
    body = tabulate(cells, headers="keys", tablefmt=_STYLE[form], disable_numparse=True,
                    showindex=False)
    if form == "md":
        return f"{table.caption}\n\n{body}\n"
    caption = table.caption.replace("%", "\\%").replace("_", "\\_")
    return ("\\begin{table}\n\\caption{" + caption + "}\n\\label{tab:" + table.name + "}\n"
            f"{body}\n\\end{{table}}\n")


def _html(table: PaperTable) -> str:
    body = tabulate(table.cells, headers="keys", tablefmt="html", disable_numparse=True,
                    showindex=False)
    return body.replace("<table>", f"<table>\n<caption>{html.escape(table.caption)}</caption>", 1)
