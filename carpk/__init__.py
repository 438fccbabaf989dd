"""carpk: population PK/PD models of CAR T-cell therapy."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # for type checkers and editors; `_PLACES` says the same to Python
    from carpk.cohort import Cohort, Design, design
    from carpk.examples import example
    from carpk.exposure_outcomes import exposure_response
    from carpk.fitting import Fit, fit, load_fit
    from carpk.marginal import objective
    from carpk.noncompartmental import nca
    from carpk.nonmem import read_csv, to_csv
    from carpk.population_model import PopulationModel, population
    from carpk.prior_cohorts import prior_predictive
    from carpk.priors import Prior
    from carpk.problems import CarpkError, DataError, ModelError, Problem, RequestError
    from carpk.reporting import report
    from carpk.simulation import simulate

_PLACES = {
    "cohort": ("Cohort", "Design", "design"),
    "examples": ("example",),
    "exposure_outcomes": ("exposure_response",),
    "fitting": ("Fit", "fit", "load_fit"),
    "marginal": ("objective",),
    "noncompartmental": ("nca",),
    "nonmem": ("read_csv", "to_csv"),
    "population_model": ("PopulationModel", "population"),
    "prior_cohorts": ("prior_predictive",),
    "priors": ("Prior",),
    "problems": ("CarpkError", "DataError", "ModelError", "Problem", "RequestError"),
    "reporting": ("report",),
    "simulation": ("simulate",),
}
_HOME = {name: module for module, names in _PLACES.items() for name in names}
__all__ = [
    "CarpkError", "Cohort", "DataError", "Design", "Fit", "ModelError", "PopulationModel", "Prior",
    "Problem", "RequestError", "__version__", "design", "example", "exposure_response",
    "fit", "load_fit", "nca", "objective", "population", "prior_predictive", "read_csv",
    "report", "simulate", "to_csv"]

# JAX reads this when it is first imported, which is late: `carpk --help` does without it
os.environ["JAX_ENABLE_X64"] = "1"
if "jax" in sys.modules:
    sys.modules["jax"].config.update("jax_enable_x64", True)


def __getattr__(name: str) -> Any:
    """A public name is imported from its module when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'carpk' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"carpk.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
