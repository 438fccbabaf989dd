"""What maximum likelihood has no place for, refused by name."""

from __future__ import annotations

from carpk.population_model import PopulationModel
from carpk.problems import Problem, RequestError
from carpk.tails import TAILS


def refuse_priors(model: PopulationModel) -> None:
    """Maximum likelihood has no place for a prior that was asked for; defaults are not used. Its
    approximations take etas and residuals to be normal."""
    heavy = [o for o, e in model.error_models().items() if e.tails is not TAILS["normal"]]
    if heavy:
        raise RequestError(Problem("error", "maximum likelihood takes normal residuals",
                                   "drop the tails, or take the estimator nuts", column=heavy[0],
                                   found=model.errors[heavy[0]]))
    if model.etas != "normal":
        raise RequestError(Problem("error", "maximum likelihood takes normal etas",
                                   "drop it, or take the estimator nuts", column="etas",
                                   found=model.etas))
    if model.mixture:
        raise RequestError(Problem("error", "maximum likelihood takes patients of one class",
                                   'classes = "1", or take the estimator nuts', column="classes",
                                   found=model.mixture.written))
    if model.levels:
        raise RequestError(Problem("error", "maximum likelihood has no level above the patients",
                                   "take it as a covariate, or the estimator nuts",
                                   column="levels", found=level.column) for level in model.levels)
    if model.missing:
        raise RequestError(Problem(
            "error", "maximum likelihood takes covariates that no patient lacks",
            "fill them in, or take the estimator nuts", column=gap.column,
            found=f"missing in {len(gap.patients)} patients") for gap in model.missing)
    asked = [n for n in model.free if model.reasons.get(n) == "asked for"
             or (model.earlier is not None and n in model.earlier.priors)
             or (model.horseshoe is not None and n in model.horseshoe.sizes)]
    if asked:
        raise RequestError(Problem("error", "maximum likelihood has no place for a prior",
                                   "drop it, or take the estimator nuts", column=n,
                                   found=str(model.priors[n])) for n in asked)
