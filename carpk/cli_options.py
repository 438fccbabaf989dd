"""Options that several commands take, and how problems are shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from carpk.problems import Problem, errors

Data = Annotated[str, typer.Argument(
    metavar="DATA", help="a CSV file, a run.toml that states everything, or example:NAME")]
Model = Annotated[str | None, typer.Option(
    help="a name that `carpk models` lists, or the path of a model file, ./mine.py")]
Dvid = Annotated[list[str] | None, typer.Option(
    help="read only observations with this DVID; may be repeated", metavar="1")]
Dose = Annotated[list[str] | None, typer.Option(
    help="a bolus, into the first state at time 0 where not said, in the unit of that state; may "
    "be repeated", metavar="AMT UNIT:STATE@TIME")]
Unit = Annotated[list[str] | None, typer.Option(
    help="unit of DV, by DVID, or of another column, AMT=1e6 cells; may be repeated",
    metavar="1=cells/uL")]
Column = Annotated[list[str] | None, typer.Option(
    help="our name = the file's column; may be repeated", metavar="DV=CONC")]
Error = Annotated[list[str] | None, typer.Option(
    help="residual error model of an output, its tails, and the column whose levels have "
    "errors of their own", metavar='"C=lognormal by ASSAY"')]
CorrelateErrors = Annotated[list[str] | None, typer.Option(
    help="two outputs whose errors are correlated where both are measured at the same "
    "time, as two assays of one sample; may be repeated", metavar="C,B")]
Spread = Annotated[list[str] | None, typer.Option(
    help="the parameters that vary between patients", metavar="Cmax,beta")]
Covariate = Annotated[list[str] | None, typer.Option(
    help="a covariate of a parameter: power, exponential, linear, category, hockey_stick "
    "or spline, with a reference or without; or a formula; may be repeated",
    metavar='"Cmax ~ DOSE=power(3.1)"')]
Band = Annotated[str | None, typer.Option(
    help="ratios that count as no relevant change by a covariate; default: 0.8,1.25",
    metavar="0.7,1.43")]
TimeVarying = Annotated[list[str] | None, typer.Option(
    help="how a covariate changes in a patient: locf, nocb, linear or window; may be "
    "repeated", metavar="STEROID=window")]
Occasions = Annotated[list[str] | None, typer.Option(
    help="the parameters that differ between the occasions of a patient (column OCC), "
    "such as a re-infusion", metavar="Cmax,alpha")]
Correlate = Annotated[list[str] | None, typer.Option(
    help="parameters whose etas are correlated, or full; may be repeated",
    metavar="Cmax,alpha")]
Classes = Annotated[str | None, typer.Option(
    help="latent classes of patients: how many, and whose typical values differ; numbered "
    "in rising order of the first", metavar='"2: Cmax,alpha"')]
Censoring = Annotated[str | None, typer.Option(
    help="what levels below a limit count as: M3 (default, their probability), or M1, "
    "M4, M6, M7 to see what those do", metavar="M3")]
Fix = Annotated[list[str] | None, typer.Option(
    help="hold a population parameter, at the model file's value if none is given",
    metavar="beta=0.003")]
Free = Annotated[list[str] | None, typer.Option(
    help="estimate what the model file holds fixed", metavar="Ftoci")]
Steps = Annotated[int | None, typer.Option(
    help="mesh of an ODE model; chosen by its accuracy where not given")]
Solver = Annotated[str | None, typer.Option(
    help="tsit5, or rodas4 for stiff equations; chosen like the steps; "
    "diffrax_tsit5 and diffrax_kvaerno5 check them")]

Workers = Annotated[int, typer.Option(
    help="processes on this machine that fit side by side, of one thread each")]
Scheduler = Annotated[str | None, typer.Option(
    help="address of a dask cluster that fits instead; its workers see the same folders",
    metavar="ADDRESS")]


def show(problems: Iterable[Problem], most: int | None) -> None:
    """Problems on stderr, errors first, the rest counted beyond `most`."""
    listed = sorted(problems, key=lambda p: p.severity)
    for problem in listed[:most]:
        typer.echo(f"{problem.severity}: {problem}", err=True)
    beyond = listed[most:] if most is not None else []
    if beyond:
        wrong = len(errors(beyond))
        kinds = ", ".join(f"{n} {kind}{'s' * (n > 1)}" for n, kind in
                          ((wrong, "error"), (len(beyond) - wrong, "warning")) if n)
        typer.echo(f"... and {kinds} more; `carpk check DATA --all` prints all", err=True)
