"""`carpk fit`: its options."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from carpk.cli_options import (
    Band,
    Censoring,
    Classes,
    Column,
    Correlate,
    CorrelateErrors,
    Covariate,
    Dvid,
    Error,
    Fix,
    Free,
    Model,
    Occasions,
    Scheduler,
    Solver,
    Spread,
    Steps,
    TimeVarying,
    Unit,
    Workers,
    show,
)


def command(
        data: Annotated[str, typer.Argument(
            metavar="DATA", help="a CSV file, a run.toml that states everything, or example:NAME; "
            "none with --resume")] = "", model: Model = None,
        resume: Annotated[str | None, typer.Option(
            help="the folder of a fit that was interrupted: goes on where it stood",
            metavar="fits/NAME.unfinished")] = None,
        estimator: Annotated[str | None, typer.Option(help="default: nuts")] = None,
        seed: Annotated[int | None, typer.Option(
            help="of every random number; without one it is drawn, and recorded")] = None,
        chains: Annotated[int | None, typer.Option(help="default: 4")] = None,
        draws: Annotated[int | None, typer.Option(
            help="per chain; without it, as many as it takes to converge, at most 5000")] = None,
        warmup: Annotated[int | None, typer.Option(help="iterations before the draws")] = None,
        inits: Annotated[str | None, typer.Option(
            help="where the fit begins: data (the patients' peaks, areas and slopes), typical "
            "(the model file's values) or another fit; without it a quick Laplace fit is made",
            metavar="data|typical|fits/NAME")] = None,
        starts: Annotated[int | None, typer.Option(
            help="searches by maximum likelihood, from dispersed starts; the fit is the best, and "
            "says whether they agree; --workers make them side by side")] = None,
        workers: Workers = 1, scheduler: Scheduler = None,
        setting: Annotated[list[str] | None, typer.Option(
            help="another setting of the estimator", metavar="target_accept=0.9")] = None,
        out: Annotated[str | None, typer.Option(
            help="the folder in which the fit gets its own; default: fits")] = None,
        dvid: Dvid = None, unit: Unit = None, column: Column = None,
        error: Error = None,
        correlate_errors: CorrelateErrors = None,
        spread: Spread = None,
        covariate: Covariate = None,
        time_varying: TimeVarying = None,
        missing: Annotated[list[str] | None, typer.Option(
            help="covariates that some patients lack, whose values are modelled (nuts, gibbs, "
            "svi); refused otherwise", metavar="WT,SEX")] = None,
        occasions: Occasions = None,
        correlate: Correlate = None,
        etas: Annotated[str | None, typer.Option(
            help="shape of the spread: normal (default), or student_t where single patients lie "
            "far out", metavar="normal")] = None,
        classes: Classes = None,
        level: Annotated[list[str] | None, typer.Option(
            help="a column of studies, products or sites, and the parameters that differ between "
            "them; may be repeated", metavar='"STUDY: Cmax,alpha"')] = None,
        censoring: Censoring = None,
        fix: Fix = None,
        free: Free = None,
        prior: Annotated[list[str] | None, typer.Option(
            help="prior of a population parameter",
            metavar='"Cmax_pop=lognormal(24000, 1.5)"')] = None,
        prior_from: Annotated[str | None, typer.Option(
            help="the posterior of a fit as the prior of what both estimate; with a discount, "
            "its covariance is divided by it", metavar="fits/RUN:0.5")] = None,
        steps: Steps = None,
        solver: Solver = None, band: Band = None) -> None:
    """Fit a model to a cohort; print the parameters and the folder of the fit.

    Options override what a run.toml states. In a fit's own manifest.json its request can be
    read again: carpk fit fits/NAME/manifest.json
    """
    from carpk import cli_fit, cli_request
    options = cli_request.options(
        model=model, estimator=estimator, seed=seed, out=out, spread=spread, free=free,
        covariates=covariate, time_varying=time_varying, occasions=occasions,
        missing=missing, correlated=correlate, correlated_errors=correlate_errors, etas=etas,
        classes=classes, levels=level, censoring=censoring, errors=error, fixed=fix, priors=prior,
        prior_from=prior_from, steps=steps, solver=solver, band=band,
        data={"dvid": dvid, "units": unit, "columns": column},
        settings={"chains": chains, "draws": draws, "warmup": warmup, "inits": inits,
                  "starts": starts},
        setting=setting)
    with cli_request.resumed(resume, data, options) if resume else contextlib.nullcontext(
            (cli_request.request(data, options), None)) as (asked, unfinished):
        raise typer.Exit(cli_fit.run(asked, lambda problems: show(problems, 12), unfinished,
                                     workers, scheduler))
