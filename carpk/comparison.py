"""Which of several fits to the same data predicts better: patients left out, and observations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from carpk import posterior
from carpk.conditional import Patients
from carpk.fitting import Fit
from carpk.integrated import log_marginals
from carpk.likelihood import data_of, from_theta
from carpk.posterior import Left
from carpk.prediction import some_draws
from carpk.problems import Problem, RequestError
from carpk.tables import parameters

COLUMNS = ("fit", "unit", "elpd", "se", "p_loo", "difference", "difference_se", "weight",
           "pareto_k", "unreliable", "differs")
_DRAWS = 400  # of the posterior
_BAD = 0.7  # a Pareto k above it: leaving the patient out cannot be read off these draws


def compare(fits: Mapping[str, Fit], seed: int = 1) -> pd.DataFrame:
    """Leave-one-out predictions of fits to the same data, best first, in two blocks by `unit`.

    patient: a whole patient is left out and predicted as a new one, the random effects integrated
    out by importance sampling; observation: one level is left out of a patient who is known from
    the others. They answer different questions. elpd: expected log density of what was left out,
    higher is better; se; p_loo: effective parameters; difference and difference_se to the best;
    weight: stacking; pareto_k: the largest; unreliable: patients (or rows' lines) whose k is above
    0.7; differs: how the request of the fit differs from the first's.

    Raises RequestError where the fits are not draws of posteriors on the same observations.
    """
    must_be_comparable(fits)
    differs = differences(fits)
    rows = []
    for unit in ("patient", "observation"):
        seen = next(iter(fits.values()))
        if unit == "patient":
            likelihoods = {n: patient_log_likelihoods(f, seed) for n, f in fits.items()}
            names = list(seen.design.ids)
        else:
            likelihoods = {n: f.posterior["log_likelihood"].dataset["y"].values
                           for n, f in fits.items()}
            names = [f"line {k}" for k in seen.posterior["constant_data"].dataset["line"].values]
        for name, left in posterior.left_out(likelihoods).items():
            rows.append(_row(name, unit, left, names, differs[name]))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def blq_sensitivity(fits: Mapping[str, Fit]) -> pd.DataFrame:
    """The estimates of fits that differ in what is done with censored levels, side by side.

    parameter, unit; of each fit by its name: _median, _sd, _lower95, _upper95, and _moved, how far
    the median lies from the first fit's in SDs of that. Only what the first fit estimated.
    """
    each = {n: parameters(f).set_index("parameter") for n, f in fits.items()}
    first = next(iter(each.values()))
    free = first["sd"].gt(0)
    columns: dict[str, Any] = {"parameter": first.index[free], "unit": first.loc[free, "unit"]}
    for name, table in each.items():
        own = table.reindex(first.index[free])
        columns |= {f"{name}_{c}": own[c] for c in ("median", "sd", "lower95", "upper95")}
        columns[f"{name}_moved"] = (own["median"] - first.loc[free, "median"]) \
            / first.loc[free, "sd"]
    return pd.DataFrame(columns).reset_index(drop=True)


def patient_log_likelihoods(fit: Fit, seed: int = 1, of: Fit | None = None,
                            places: np.ndarray | None = None) -> np.ndarray:
    """(chain, draw, patient): log p(y_i | population) of some draws, phi integrated out.

    of : another fit, whose patients are looked at instead of this one's; places : which of them
    """
    model, stored, of = fit.model, fit.posterior["posterior"].dataset, of or fit
    data = data_of(model, of.design)
    some = some_draws(fit, _DRAWS)
    some = some[:len(some) - len(some) % stored.sizes["chain"]]
    theta = {n: jnp.asarray(stored[n].values.reshape(-1)[some]) for n in model.free}
    centre, covariance = _own_posterior(of)
    if places is not None:
        data, centre, covariance = jax.tree.map(lambda x: x[places], (data, centre, covariance))
    us = np.asarray(jax.jit(jax.vmap(lambda values: from_theta(
        model, {**model.fixed, **values})))(theta))
    found = log_marginals(Patients(model, data), us, centre, covariance, seed)
    return found.reshape(stored.sizes["chain"], -1, found.shape[1])


def _own_posterior(fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Each patient's posterior mean of phi (P, K), and its covariance (P, K, K)."""
    stored, model = fit.posterior["posterior"].dataset, fit.model
    phi = posterior.phi_of(model, stored)
    phi = phi.reshape(phi.shape[0] * phi.shape[1], *phi.shape[2:])
    away = phi - phi.mean(axis=0)
    covariance = np.einsum("spk,spl->pkl", away, away) / len(phi)
    return phi.mean(axis=0), covariance + 1e-10 * np.eye(phi.shape[-1])


def _row(name: str, unit: str, left: Left, names: Sequence[str], differs: str) -> dict[str, Any]:
    bad = [n for n, k in zip(names, left.pareto_k, strict=True) if k > _BAD]
    return {"fit": name, "unit": unit, "elpd": left.elpd, "se": left.se, "p_loo": left.p,
            "difference": left.difference, "difference_se": left.difference_se,
            "weight": left.weight, "pareto_k": float(left.pareto_k.max()),
            "unreliable": ", ".join(bad), "differs": differs}


def must_be_comparable(fits: Mapping[str, Fit]) -> None:
    """The same patients, rows and values in every fit, and draws of a posterior."""
    found = unlike_data(fits)
    for name, fit in fits.items():
        of = fit.posterior["posterior"].dataset.attrs["draws_from"]
        if of != "posterior":
            found.append(Problem("error", f"its draws are from the {of}, not from a posterior",
                                 "fits by maximum likelihood are compared with each other", name))
    if found:
        raise RequestError(found)


def unlike_data(fits: Mapping[str, Fit]) -> list[Problem]:
    """Why fits cannot be compared whatever they are: there is one, or not the same observations.
    """
    found = []
    if len(fits) < 2:
        found.append(Problem("error", "one fit has nothing to be compared with",
                             "name two folders or more"))
    first, *others = fits.items()
    for name, fit in others:
        if fit.manifest["data"]["sha256"] != first[1].manifest["data"]["sha256"]:
            found.append(Problem("error", f"it is a fit to other data than {first[0]}",
                                 "only fits to the same file can be compared", name))
        elif not _same_rows(first[1], fit):
            found.append(Problem("error", f"it has not the same observations as {first[0]}",
                                 "fit both with the same --dvid, patients and --censoring", name))
    return found


def _same_rows(a: Fit, b: Fit) -> bool:
    """Whether two fits have the same lines with the same values."""
    def rows(fit: Fit) -> pd.DataFrame:
        seen = fit.posterior["observed_data"].dataset
        return pd.DataFrame({"line": fit.posterior["constant_data"].dataset["line"].values,
                             "lower": seen["lower"].values, "upper": seen["upper"].values})
    return rows(a).equals(rows(b))


def differences(fits: Mapping[str, Fit]) -> dict[str, str]:
    """What of each fit's request is not as in the first."""
    requests = {n: {k: v for k, v in f.manifest["request"].items()
                    if k not in ("seed", "settings", "band")}
                for n, f in fits.items()}
    base = next(iter(requests.values()))

    def written(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    return {n: "; ".join(f"{k}: {written(r.get(k))}" for k in sorted({*base, *r})
                         if r.get(k) != base.get(k)) for n, r in requests.items()}
