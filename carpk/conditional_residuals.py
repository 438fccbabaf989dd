"""Conditional weighted residuals: what is left of each level after the model made linear.

Definition: Hooker AC, Staatz CE, Karlsson MO. Pharm Res 2007;24:2187-2197.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import jax.numpy as jnp
import numpy as np

from carpk.cohort import Design
from carpk.conditional import Patients
from carpk.fitting import Fit
from carpk.likelihood import data_of, from_theta, population_location
from carpk.paired_errors import partners, rho_of
from carpk.population_model import PopulationModel
from carpk.posterior import phi_of
from carpk.prediction import medians, own_classes
from carpk.sensitivities import dense
from carpk.separate_errors import units_of
from carpk.solve import Arrays


@lru_cache(maxsize=2)
def cwres(fit: Fit) -> np.ndarray:
    """(rows,): of every row of `carpk.prediction.predictions`, at the posterior medians (or the
    estimates); see `linearised_residuals`."""
    model, draws = fit.model, fit.posterior["posterior"].dataset
    start = np.median(phi_of(model, draws), axis=(0, 1)) if model.sds else None
    return linearised_residuals(model, fit.design, medians(fit), start,
                                own_classes(fit))[fit.design.observed]


def linearised_residuals(model: PopulationModel, seen: Design, values: Mapping[str, float],
                         start: np.ndarray | None = None,
                         classes: Arrays | None = None) -> np.ndarray:
    """(P, N): of each observation; NaN on censored and binary rows, on padding and where a solve
    fails.

    values : every population parameter; start : (P, K), where to look for the modes;
    classes : of a mixture, "classes" (P, C), the class each patient is taken to be of

    The model is made linear around each patient's mode, the most likely eta given the population
    and all of the patient's rows, censored ones by their probability. There y is normal with

        E = f(eta) - (df/deta) eta,  Cov = (df/deta) Omega (df/deta)' + Sigma(eta)

    on the scale the residual error is added to (the logarithm of a log-normal one), of all
    outputs together. The residual SD follows the patient's own prediction: these are the CWRES
    that NONMEM prints of a fit by FOCEI. Of distributions with heavier tails than the normal,
    scales stand in for SDs.
    """
    data = {**data_of(model, seen), **(classes or {})}
    u = from_theta(model, values) if model.free else jnp.zeros(0)
    mu, low = population_location(model, data, values)
    modes = Patients(model, data).modes(u, None if start is None else jnp.asarray(start))
    eta = np.asarray(modes.phi - mu)
    slope = np.asarray(modes.look.jacobian)[..., :eta.shape[1]]
    factor = np.asarray(dense(low))
    predicted = np.asarray(modes.look.predicted)
    away, sd, out = (np.full(predicted.shape, np.nan) for _ in range(3))
    for k, (output, error) in enumerate(model.error_models().items()):
        here = seen.observed & (seen.lower == seen.upper) & (seen.output == k) & (not error.binary)
        f = jnp.asarray(predicted[here])
        away[here] = error.working(jnp.asarray(seen.upper[here])) - error.working(f)
        own = {o: v[here] for o, v in units_of(model.separate, seen).items()}
        sd[here] = error.sd(f, model.sigma(values, output, own))
    place = partners(model.error_pairs, list(model.errors), seen)
    away += np.einsum("pnk,pk->pn", slope, eta)
    for k in range(len(seen.ids)):
        used = np.isfinite(away[k])
        spread = slope[k, used] @ factor
        between = np.diag(sd[k] ** 2)
        for a, b in model.error_pairs:
            first = np.flatnonzero((seen.output[k] == list(model.errors).index(a))
                                   & (place[k] != np.arange(len(place[k]))))
            other = place[k, first]
            between[first, other] = between[other, first] = \
                values[rho_of((a, b))] * sd[k, first] * sd[k, other]
        out[k, used] = whitened(away[k, used], spread @ spread.T + between[used][:, used])
    return out


def whitened(away: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """(n,): Cov^(-1/2) (y - E) by the symmetric square root, as NONMEM has it by default.

    away : (n,), y - E; covariance : (n, n)
    It asks for no order of the rows, and moves each residual as little as can be.

    >>> whitened(np.array([2.0, -3.0]), np.diag([4.0, 9.0])).tolist()
    [1.0, -1.0]
    """
    value, vector = np.linalg.eigh(covariance)
    return np.asarray(vector @ ((vector.T @ away) / np.sqrt(value)))
