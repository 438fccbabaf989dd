"""What `carpk compare` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from carpk.comparison import compare
from carpk.comparison_drawing import draw_comparison, must_be_a_free_picture
from carpk.fitting import Fit, load_fit
from carpk.model_choice import choose
from carpk.problems import Problem, RequestError

_ASKS = {"patient": "A new patient (whole patients left out, random effects integrated out)",
         "observation": "Another level of a known patient (single observations left out)"}


def run(folders: Sequence[Path], method: str | None, out: str | None, overwrite: bool,
        plot: str | None = None) -> None:
    """Compares fits by their folders; prints, and writes a CSV where `out` is given (of fits by
    maximum likelihood, the tests beside it) and a picture where `plot` is."""
    names = [f.name for f in folders]
    files = [] if out is None else [Path(out)]
    if len(set(names)) < len(names):
        raise RequestError(Problem("error", "the same fit is named twice", "name each once"))
    fits = {f.name: load_fit(f) for f in folders}
    likeliest = method is not None or all("estimates" in f.manifest for f in fits.values())
    if likeliest and plot is not None:
        raise RequestError(Problem("error", "the plot is of leave-one-out, and these are compared "
                                   "by their likelihood", "drop it", column="--plot", found=plot))
    must_be_a_free_picture(plot, overwrite)
    if files and likeliest:
        files.append(files[0].with_name(f"{files[0].stem}_tests{files[0].suffix}"))
    if not overwrite and (there := [f for f in files if f.exists()]):
        raise RequestError(Problem("error", "there is such a file", "--overwrite replaces it",
                                   str(f)) for f in there)
    console = Console(highlight=False, markup=False)
    tables = _by_likelihood(fits, method, console) if likeliest else _by_prediction(fits, console)
    for name, differs in dict(zip(tables[0]["fit"], tables[0]["differs"], strict=True)).items():
        if differs:
            console.print(f"{name} differs in {differs}")
    for file, table in zip(files, tables, strict=False):
        table.to_csv(file, index=False, float_format="%.8g", lineterminator="\n")
        console.print(str(file))
    if plot is not None:
        draw_comparison(plot, tables[0], [n for n, f in fits.items() if not f.convergence.ok])
        console.print(plot)


def _by_likelihood(fits: Mapping[str, Fit], method: str | None, console: Console) \
        -> tuple[pd.DataFrame, ...]:
    """Prints the measures of fits by maximum likelihood, and the tests of those that are nested."""
    found = choose(fits, method=method)
    of = found.fits["method"].iloc[0]
    rows = found.fits.rename(columns={
        "parameters": "par.", "ofv": "OFV", "ofv_se": "SE", "aic": "AIC", "bic": "BIC",
        "bicc": "BICc", "aic_difference": "dAIC", "bic_difference": "dBIC",
        "bicc_difference": "dBICc"}).drop(
            columns=["method", "minus_two_log_likelihood", "converged", "differs"])
    console.print(f"\nOFV by {of}, without N log 2π; AIC, BIC and BICc with it")
    console.print(_likelihoods(rows if rows["SE"].any() else rows.drop(columns="SE")), crop=False)
    if len(found.tests):
        console.print("\nLikelihood-ratio tests: the larger model is the smaller one with "
                      "parameters added")
        console.print(_tests(found.tests), crop=False)
    else:
        console.print("\nNone of these models is another with parameters added: no test.")
    for r in found.tests.itertuples():
        if r.note:
            console.print(f"{r.smaller} in {r.larger}: {r.note}")
    if found.tests["boundary"].any():
        console.print("A spread or residual SD is tested at its bound of 0, where p by chi-square "
                      "is too large; the mixture of chi-squares is the one to read.")
    if method is not None:
        console.print("Each fit is measured at its own estimates, which need not be the maximum "
                      "on this scale.")
    for name in found.fits.loc[~found.fits["converged"], "fit"]:
        console.print(f"{name}: NOT CONVERGED, its numbers cannot be compared")
    return found.fits, found.tests


def _likelihoods(rows: pd.DataFrame) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for heading in rows.columns:
        table.add_column(heading, justify="left" if heading == "fit" else "right",
                         overflow="fold", no_wrap=heading != "fit")
    forms = {"par.": "{:d}", "SE": "{:.2g}", "OFV": "{:.3f}"}
    for row in rows.to_dict("records"):
        table.add_row(*(v if n == "fit" else forms.get(str(n), "{:.2f}").format(v)
                        for n, v in row.items()))
    return table


def _tests(rows: pd.DataFrame) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for heading in ("smaller", "larger", "added"):
        table.add_column(heading, overflow="fold")
    for heading in ("dOFV", "df", "p", "p mixture"):
        table.add_column(heading, justify="right", no_wrap=True)
    for r in rows.itertuples():
        table.add_row(r.smaller, r.larger, r.added, f"{r.dofv:.3f}", str(r.df), f"{r.p:.3g}",
                      "" if pd.isna(r.p_mixture) else f"{r.p_mixture:.3g}")
    return table


def _by_prediction(fits: Mapping[str, Fit], console: Console) -> tuple[pd.DataFrame, ...]:
    """Prints what leaving out patients and observations says of posteriors."""
    table = compare(fits)
    for unit, asks in _ASKS.items():
        console.print(f"\n{asks}")
        rows = table[table["unit"] == unit]
        console.print(_table(rows), crop=False)
        for name, bad in zip(rows["fit"], rows["unreliable"], strict=True):
            if bad:
                listed = bad.split(", ")
                more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
                console.print(f"{name}: Pareto k above 0.7, so not to be trusted, for "
                              f"{', '.join(listed[:8])}{more}"
                              + (": --kfold 5 refits instead" if unit == "patient" else ""))
    console.print("\nDifferences are to the best, with their standard errors: one within two of "
                  "them is no finding.")
    return (table,)


def _table(rows: pd.DataFrame) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("fit", overflow="fold")
    for heading in ("elpd", "SE", "p_loo", "difference", "SE", "weight", "largest k"):
        table.add_column(heading, justify="right", no_wrap=True)
    for r in rows.itertuples():
        table.add_row(r.fit, f"{r.elpd:.1f}", f"{r.se:.1f}", f"{r.p_loo:.1f}",
                      f"{r.difference:.1f}", f"{r.difference_se:.1f}", f"{r.weight:.2f}",
                      f"{r.pareto_k:.2f}")
    return table
