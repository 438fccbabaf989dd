"""The commands: parse, call one function, print. Nothing heavy is imported before it is needed.

Exit 0 fine, 1 input refused, 2 wrong usage, 3 fitted but not converged, 130 interrupted.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import carpk
from carpk import (
    cli_exposure_response,
    cli_fit_options,
    cli_many,
    cli_objective_options,
    cli_report,
    cli_tables,
)
from carpk.cli_options import Column, Data, Dose, Dvid, Model, Unit, show
from carpk.problems import CarpkError, Problem, RequestError

if TYPE_CHECKING:
    from carpk.structure import StructuralModel

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Population PK/PD models of CAR T-cell therapy.")

def main() -> None:
    """The entry point of the command carpk."""
    app()


def refusing(command: Callable[..., None]) -> Callable[..., None]:
    """The command with every refused input as one message and exit code 1."""
    @functools.wraps(command)
    def guarded(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except CarpkError as refused:
            show(refused.problems, 30)
            raise typer.Exit(1) from None
    return guarded


@app.callback(invoke_without_command=True)
def carpk_itself(version: Annotated[bool, typer.Option(
        "--version", help="Print the version and leave.")] = False) -> None:
    """Population PK/PD models of CAR T-cell therapy."""
    if version:
        typer.echo(carpk.__version__)
        raise typer.Exit


app.command("fit")(refusing(cli_fit_options.command))
app.command("objective")(refusing(cli_objective_options.command))


@app.command()
@refusing
def check(data: Data, model: Model = None, dvid: Dvid = None, unit: Unit = None,
          column: Column = None, every: Annotated[bool, typer.Option(
              "--all", help="Print every problem, however many.")] = False) -> None:
    """Say what is wrong with a cohort, or that nothing is."""
    from carpk import cli_request
    from carpk.problems import DataError
    options = cli_request.options(
        model=model, data={"dvid": dvid, "units": unit, "columns": column})
    try:
        warnings, sentence = cli_request.checked(data, options)
    except DataError as refused:
        show(refused.problems, None if every else 30)
        raise typer.Exit(1) from None
    show(warnings, None if every else 30)
    typer.echo(sentence)


@app.command()
@refusing
def models(name: Annotated[str | None, typer.Argument(
        help="print the card of this one; also the path of a model file")] = None,
        file: Annotated[str | None, typer.Argument(
            metavar="[FILE.svg]", help="where --plot draws; default: NAME.svg")] = None,
        disease: Annotated[str | None, typer.Option(
            help="list only models of this disease, or part of its name", metavar="B-ALL")] = None,
        formalism: Annotated[str | None, typer.Option(
            help="list only these: pk, pkpd, pbpk, qsp, mechanistic, ode, closed-form ...",
            metavar="pkpd")] = None,
        holding: Annotated[list[str] | None, typer.Option(
            "--with", help="list only models with this population, phenotype or layer; may be "
            "repeated", metavar="tumour")] = None,
        plot: Annotated[bool, typer.Option(
            "--plot", help="Draw the typical trajectory of each parameter set of NAME.")] = False,
        until: Annotated[float | None, typer.Option(
            help="end of the plot's time axis, in the model's unit of time")] = None,
        dose: Dose = None,
        overwrite: Annotated[bool, typer.Option(
            "--overwrite", help="Replace a file that is there.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """List the models, print the card of one, or plot it: carpk models NAME --plot [FILE.svg]"""
    from carpk import cli_models, registry
    if name is not None:
        if disease or formalism or holding:
            raise typer.BadParameter("--disease, --formalism and --with choose from the list, "
                                     "and take no NAME")
        if not plot and (file is not None or until is not None or dose):
            raise typer.BadParameter("a FILE, --until and --dose belong to --plot")
        structure = registry.find_model(name)
        if plot:
            from carpk import cli_simulate
            drawn, note = cli_simulate.plotted(structure, file, until, overwrite, dose or ())
            if note:
                typer.echo(note, err=True)
            typer.echo(drawn)
            return
        typer.echo(json.dumps(cli_models.card(structure), indent=1) if as_json
                   else cli_models.written_card(structure))
        return
    if plot:
        raise typer.BadParameter("say which model to plot: carpk models NAME --plot")
    found: list[StructuralModel] = []
    broken: list[Problem] = []
    for known in registry.names("models"):
        try:
            found.append(registry.load("models", known))
        except CarpkError as refused:  # one broken file does not hide the others
            broken += refused.problems
    shown = cli_models.chosen(found, disease, formalism, holding or ())
    if as_json:
        typer.echo(json.dumps([cli_models.card(m) for m in shown], indent=1))
    else:
        typer.echo(cli_models.catalogue(shown) if shown else "no model is all of this")
    if broken:
        raise RequestError(broken)


@app.command()
@refusing
def simulate(
        model: Annotated[str, typer.Argument(
            metavar="NAME", help="a name that `carpk models` lists, or the path of a model file; "
            "with --prior also a run.toml or a fit's manifest.json")],
        prior: Annotated[bool, typer.Option(
            "--prior", help="Draw each of many virtual cohorts from the priors of a fit and plot "
            "where its levels lie, with the data of a --design or of a run.toml.")] = False,
        cohorts: Annotated[int | None, typer.Option(
            help="virtual cohorts with --prior; default: 100")] = None,
        patients: Annotated[int | None, typer.Option(
            help="default: 100, or those of the design; with --prior 20 of each cohort")] = None,
        times: Annotated[str | None, typer.Option(
            help="when each patient is sampled, in the model's unit of time; default: "
            "the samples of the design, or 1,3,7,14,28,60,90 days after the first dose (to 28 in "
            "mice, 0.25 to 5 in a dish)", metavar="1,3,7,...")] = None,
        seed: Annotated[int, typer.Option(help="the same seed gives the same file")] = 1,
        sets: Annotated[list[str] | None, typer.Option(
            "--set", help="typical values from this parameter set, or from all of a group (CR) "
            "in equal parts; may be repeated; without it, those of the model file",
            metavar='"CR 1"')] = None,
        like: Annotated[str | None, typer.Option(
            "--design", help="a CSV with ID, and as needed TIME of samples, AMT of doses, and "
            "columns of inputs; DV is not read but with --prior", metavar="my.csv")] = None,
        covariates_from: Annotated[str | None, typer.Option(
            help="draw each patient's covariates from the patients of this file, whole rows with "
            "replacement", metavar="my_cohort.csv")] = None,
        covariate: Annotated[list[str] | None, typer.Option(
            help="a covariate of a parameter, as in carpk fit; needs a --value of its beta",
            metavar='"Cmax ~ WT=power(70)"')] = None,
        time_varying: Annotated[list[str] | None, typer.Option(
            help="how a covariate changes in a patient, as in carpk fit",
            metavar="STEROID=window")] = None,
        occasions: Annotated[list[str] | None, typer.Option(
            help="the parameters that differ between the occasions that column OCC of the design "
            "numbers; needs a --value of their gamma", metavar="Cmax")] = None,
        value: Annotated[list[str] | None, typer.Option(
            help="a population value in place of the model file's, or of a parameter it does not "
            "have; may be repeated", metavar="beta_Cmax_WT=0.75")] = None,
        dose: Dose = None, unit: Unit = None,
        sigma: Annotated[list[str] | None, typer.Option(
            help="residual error in proportion to the level (SD of ln DV of a lognormal error), "
            "of all outputs or of one; default: 0.3, assumed, for models publish none; 0: none",
            metavar="C=0.3")] = None,
        lloq: Annotated[list[str] | None, typer.Option(
            help="limit of quantification of all outputs or of one; lower levels are written as "
            "CENS=1 with DV the limit; default: none", metavar="C=50")] = None,
        dvid: Dvid = None,
        solver: Annotated[str | None, typer.Option(
            help="tsit5, or rodas4 for stiff equations; chosen by its accuracy; diffrax_tsit5 and "
            "diffrax_kvaerno5 check them")] = None,
        out: Annotated[str | None, typer.Option(
            help="the cohort's file, its plot beside it; default: NAME_simulated.csv",
            metavar="FILE.csv")] = None,
        overwrite: Annotated[bool, typer.Option(
            "--overwrite", help="Replace files that are there.")] = False) -> None:
    """Simulate patients of a model: a cohort that every command reads, and its plot.

    Parameters vary between patients as published, or as the model file assumes. Inputs (a
    patient's tumour burden, say) come from the design, the parameter set, or their defaults, and
    are columns of the file.
    """
    from carpk import cli_request, cli_simulate
    from carpk.nonmem import by_dvid
    from carpk.simulation_request import Asked
    read = cli_request.options(dvid=dvid, units=unit, covariates=covariate, fixed=value,
                               time_varying=time_varying, occasions=occasions)
    asked = Asked(
        model, patients, times, seed, sets or (), like, sigma or (), lloq or (),
        read.get("dvid", ()), dose or (), by_dvid(read.get("units", {})), out, overwrite,
        read.get("covariates", {}), read.get("time_varying", {}), read.get("occasions", ()),
        read.get("fixed", {}), covariates_from, solver)
    if prior:
        from carpk import cli_prior_predictive
        file, picture, said, warnings = cli_prior_predictive.run(
            asked, 100 if cohorts is None else cohorts)
    elif cohorts is not None:
        raise typer.BadParameter("--cohorts belongs to --prior")
    else:
        file, picture, said, warnings = cli_simulate.run(asked)
    show(warnings, 12)
    typer.echo(f"{said}\nplot: {picture}", err=True)
    typer.echo(file)  # alone, for scripts


@app.command()
@refusing
def nca(data: Annotated[str, typer.Argument(
        metavar="DATA", help="a CSV file or example:NAME; or the folder of a fit, whose "
        "model-based exposure is printed")],
        by: Annotated[str | None, typer.Option(
            help="summarise the groups of this column", metavar="RESPONSE")] = None,
        blq: Annotated[str | None, typer.Option(
            help="levels below the limit: zero-then-missing (default: 0 before the first "
            "quantified level, left out after it), half of the limit, missing, or m3, which "
            "needs a fit", metavar="RULE")] = None,
        rule: Annotated[str | None, typer.Option(
            help="trapezoids: linear-up-log-down (default), linear or log",
            metavar="RULE")] = None,
        auc: Annotated[list[str] | None, typer.Option(
            help="another area, from day to day; may be repeated", metavar="28:90")] = None,
        terminal: Annotated[str | None, typer.Option(
            help="points of the half-life: best (default: highest adjusted R2), the last so "
            "many, or those from day to day", metavar="best|3|28:180")] = None,
        peak_from: Annotated[float, typer.Option(
            help="samples before this day are no peak", metavar="DAY")] = 0.0,
        to_zero: Annotated[bool, typer.Option(
            "--to-zero", help="In areas to a day, the first sample below the limit after Tlast "
            "is 0.")] = False,
        extrapolate: Annotated[bool, typer.Option(
            "--extrapolate", help="Areas to a day that Tlast does not reach go on by the "
            "terminal half-life.")] = False,
        dvid: Dvid = None, unit: Unit = None, column: Column = None,
        out: Annotated[str | None, typer.Option(
            help="the table of the patients; the summary and what the rules decide are written "
            "beside it; default: NAME_nca.csv", metavar="FILE.csv")] = None,
        overwrite: Annotated[bool, typer.Option(
            "--overwrite", help="Replace files that are there.")] = False) -> None:
    """Cmax, Tmax, areas, half-life and persistence from the samples alone, by group."""
    from carpk import cli_nca, cli_request
    reading = cli_request.options(dvid=dvid, units=unit, columns=column)
    written = cli_nca.run(
        data, reading, by=by, blq=blq, rule=rule,
        auc=auc or (), terminal=terminal, peak_from=peak_from, to_zero=to_zero,
        extrapolate=extrapolate, out=out, overwrite=overwrite, show=lambda found: show(found, 12))
    for file in written:
        typer.echo(file)


@app.command()
@refusing
def vpc(fit: Annotated[Path, typer.Argument(metavar="FIT", help="the folder of a fit")],
        output: Annotated[str | None, typer.Option(
            help="which to check; default: the first", metavar="C")] = None,
        by: Annotated[str | None, typer.Option(
            help="covariates whose groups (or halves) are checked apart",
            metavar="RESPONSE,PRODUCT")] = None,
        corrected: Annotated[bool, typer.Option(
            "--corrected", help="Prediction-corrected.")] = False,
        bins: Annotated[str, typer.Option(
            help="of time: adaptive; none (quantile regression); or the nominal days",
            metavar="1,7,14,...")] = "adaptive",
        scale: Annotated[str, typer.Option(
            help="of the time axis: auto, linear, log, or split at day 28")] = "auto",
        replicates: Annotated[int, typer.Option(help="simulated data sets")] = 1000,
        out: Annotated[str | None, typer.Option(
            help="the picture, .svg or .png; its numbers are written beside it as .csv",
            metavar="FILE.svg")] = None,
        overwrite: Annotated[bool, typer.Option(
            "--overwrite", help="Replace files that are there.")] = False) -> None:
    """A visual predictive check of a fit: percentiles, and the share below the limit."""
    from carpk import cli_vpc
    for file in cli_vpc.run(fit, output, by=by, corrected=corrected, bins=bins, scale=scale,
                            count=replicates, out=out, overwrite=overwrite):
        typer.echo(file)


@app.command()
@refusing
def compare(
        fits: Annotated[list[Path], typer.Argument(metavar="FIT FIT ...", help="folders of fits")],
        blq: Annotated[str | None, typer.Option(
            help="make the one fit that is named again under these rules for levels below the "
            "limit, and show how the estimates move", metavar="M1,M3,M7")] = None,
        kfold: Annotated[int | None, typer.Option(
            help="leave patients out in so many folds, each predicted by a fit without them: "
            "where leave-one-out is not to be trusted", metavar="5")] = None,
        method: Annotated[str | None, typer.Option(
            help="put fits by maximum likelihood on one scale, whatever they were fitted by",
            metavar="importance_sampling")] = None,
        plot: Annotated[str | None, typer.Option(
            help="draw the differences between posteriors, .svg or .png",
            metavar="FILE.svg")] = None,
        out: Annotated[str | None, typer.Option(
            help="write the table here as well", metavar="FILE.csv")] = None,
        overwrite: Annotated[bool, typer.Option(
            "--overwrite", help="Replace a file that is there.")] = False) -> None:
    """Say which of several fits to the same data is better.

    Of posteriors by leave-one-out; of fits by maximum likelihood by likelihood-ratio tests, AIC,
    BIC and BICc.
    """
    if blq is not None and kfold is not None:
        raise typer.BadParameter("--blq makes one fit again, --kfold several: take one of them")
    if blq is not None and plot is not None:
        raise typer.BadParameter("--blq has a table, and no plot")
    if blq is not None:
        from carpk import cli_blq
        raise typer.Exit(cli_blq.run(fits, blq, out, overwrite, lambda found: show(found, 12)))
    if kfold is not None:
        from carpk import cli_kfold
        raise typer.Exit(cli_kfold.run(fits, kfold, out, overwrite, plot))
    from carpk import cli_compare
    cli_compare.run(fits, method, out, overwrite, plot)


app.command("report")(refusing(cli_report.command))
app.command("tables")(refusing(cli_tables.command))
app.command("exposure-response")(refusing(cli_exposure_response.command))
cli_many.add(app, refusing)
