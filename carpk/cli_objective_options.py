"""`carpk objective`: its options."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from carpk.cli_options import (
    Censoring,
    Classes,
    Column,
    Correlate,
    CorrelateErrors,
    Covariate,
    Data,
    Dvid,
    Error,
    Fix,
    Free,
    Model,
    Occasions,
    Solver,
    Spread,
    Steps,
    TimeVarying,
    Unit,
)


def command(
        data: Data,
        theta: Annotated[str, typer.Option(
            help="a TOML of population values, CL_pop = 3.2, or the manifest.json of a fit by "
            "maximum likelihood", metavar="values.toml")],
        model: Model = None,
        method: Annotated[str, typer.Option(
            help="fo, foce, focei, laplace or importance_sampling")] = "focei",
        draws: Annotated[int, typer.Option(help="per patient, of importance_sampling")] = 3000,
        seed: Annotated[int, typer.Option(help="of importance_sampling")] = 1,
        patients: Annotated[bool, typer.Option(
            "--patients", help="Print each patient's part as well.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
        dvid: Dvid = None, unit: Unit = None, column: Column = None, error: Error = None,
        correlate_errors: CorrelateErrors = None, spread: Spread = None,
        covariate: Covariate = None, time_varying: TimeVarying = None,
        occasions: Occasions = None, correlate: Correlate = None, classes: Classes = None,
        censoring: Censoring = None, fix: Fix = None, free: Free = None, steps: Steps = None,
        solver: Solver = None) -> None:
    """Print the likelihood of given population values, on NONMEM's scale.

    The model is stated as for `carpk fit`, by options or by a run.toml.
    """
    from carpk import cli_objective, cli_request
    asked = cli_request.request(data, cli_request.options(
        model=model, seed=seed, spread=spread, free=free, covariates=covariate,
        time_varying=time_varying, occasions=occasions, correlated=correlate,
        correlated_errors=correlate_errors, classes=classes, censoring=censoring, errors=error,
        fixed=fix, steps=steps, solver=solver,
        data={"dvid": dvid, "units": unit, "columns": column}))
    found = cli_objective.run(asked, theta, method, draws)
    typer.echo(json.dumps(cli_objective.as_json(found), indent=1) if as_json
               else cli_objective.written(found, patients))
