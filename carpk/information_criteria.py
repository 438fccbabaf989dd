"""-2 log-likelihood, AIC, BIC and the mixed-model BICc of a maximum, each with its convention."""

from __future__ import annotations

import math

from carpk.population_model import PopulationModel
from carpk.sensitivities import residual_places, shared_places

CONVENTIONS = {  # of the measures of a fit by maximum likelihood
    "ofv": "OFV", "ofv_se": "SE of OFV", "minus_two_log_likelihood": "−2 log-likelihood",
    "aic": "AIC", "bic": "BIC", "bicc": "BICc"}
MEANINGS = {
    "ofv": "NONMEM's: −2 log-likelihood without N ln 2π, N the measured rows",
    "ofv_se": "by Monte Carlo",
    "minus_two_log_likelihood": "with N ln 2π, as Monolix, saemix and nlme print it",
    "aic": "−2 log-likelihood + 2 for each parameter",
    "bic": "−2 log-likelihood + ln(rows) for each parameter",
    "bicc": "−2 log-likelihood + ln(patients) for each parameter of what varies between patients "
            "+ ln(rows) for each other (Delattre, Lavielle and Poursat 2014)"}


def criteria(model: PopulationModel, ofv: float, constant: float, patients: int, rows: int) \
        -> dict[str, float]:
    """The measures by which models are chosen, by the keys of `CONVENTIONS`.

    BICc counts ln(patients) for typical values, coefficients, spreads and correlations of the
    parameters that vary, and ln(rows) for residual errors and for what all patients share:
    Delattre, Lavielle and Poursat 2014, Electron J Stat 8:456.

    ofv : -2 log-likelihood without constant = N ln 2 pi; rows : observations, censored ones too

    >>> from carpk import design, example, population
    >>> from carpk.preparation import resolve
    >>> asked = population("stein_2019", spread=["Cmax", "alpha"])
    >>> model, _ = resolve(asked, design(example("tisacel_like"), asked.structure), {})
    >>> found = criteria(model, 100.0, 20.0, 90, 1000)
    >>> found["aic"] - found["minus_two_log_likelihood"], len(model.free)
    (18.0, 9)
    >>> round((found["bic"] - found["bicc"]) / math.log(1000 / 90))  # 2 typical values, 2 spreads
    4
    """
    count = len(model.free)
    shared = len(shared_places(model)) + len(residual_places(model))
    total = ofv + constant
    return {"ofv": ofv, "minus_two_log_likelihood": total, "aic": total + 2.0 * count,
            "bic": total + count * math.log(rows),
            "bicc": total + (count - shared) * math.log(patients) + shared * math.log(rows)}
