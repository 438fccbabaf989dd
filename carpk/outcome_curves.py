"""What a regression of an outcome on exposure predicts, and what was observed beside it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import expit

from carpk.exposure_outcomes import ExposureResponse

_SAMPLES = 1000
_Z = 1.959964


def probability(found: ExposureResponse, exposure: np.ndarray, grade: int = 1) -> np.ndarray:
    """(3, G): probability of the outcome, or of at least the grade-th of the grades that occur but
    the lowest, were every patient's exposure this: median, lower and upper end of 95 %.

    Averaged over the patients' covariates, as the observed proportions are.
    """
    q, _ = _coefficients(found)
    own = len(found.regression.names)
    others = found.read.covariates @ q[:, own + 1:].T - q[:, grade - 1]  # (n, B)
    drawn = np.array([expit(others + np.log2(x) * q[:, own]).mean(axis=0) for x in exposure])
    return np.quantile(drawn, [0.5, 0.025, 0.975], axis=1)


def survival(found: ExposureResponse, group: np.ndarray, time: np.ndarray) -> np.ndarray:
    """(3, T): share of a group of patients (n,) without event that long after the landmark."""
    q, draw = _coefficients(found)
    own = len(found.regression.names)
    logs = np.log2(found.exposure)[draw]  # (B, n)
    eta = logs * q[:, [own]] + q[:, own + 1:] @ found.read.covariates.T
    if found.kind == "survival":
        cumulated = uncertain = np.exp(q[:, 0])[:, None] * time ** q[:, [1]]
    else:  # Breslow 1972: each event adds one over the sum of those at risk
        at = np.sort(found.read.outcome[found.read.event == 1])
        risk = (found.read.outcome >= at[:, None]).astype(float)
        jumps = 1.0 / (np.exp(eta) @ risk.T)
        passed = (at[:, None] <= time).astype(float)
        cumulated = jumps @ passed
        # what each adds is known as well as one event is (Kalbfleisch 1978, J R Stat Soc B 40:214)
        uncertain = (jumps * np.random.default_rng(2).standard_exponential(jumps.shape)) @ passed
    mine = np.exp(eta[:, group])
    middle, low, high = (np.quantile([np.exp(-mine * h[:, None]).mean(axis=1) for h in hazard.T],
                                     share, axis=1) for hazard, share in (
        (cumulated, 0.5), (uncertain, 0.025), (uncertain, 0.975)))
    return np.stack([middle, low, high])


def binned(found: ExposureResponse, happened: np.ndarray) -> pd.DataFrame:
    """The share of patients in whom it happened (n,), in quarters of the exposure's medians.

    returns : low, middle, high (of the exposure in the bin), n, share, lower95, upper95 (Wilson
        1927, J Am Stat Assoc 22:209)
    """
    middle = np.median(found.exposure, axis=0)
    rows = []
    for part in np.array_split(np.argsort(middle, kind="stable"), max(2, min(4, len(middle) // 5))):
        n, share = len(part), float(happened[part].mean())
        centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
        rows.append({"low": middle[part].min(), "middle": np.median(middle[part]),
                     "high": middle[part].max(), "n": n, "share": share,
                     "lower95": max(centre - half, 0.0), "upper95": min(centre + half, 1.0)})
    return pd.DataFrame(rows)


def kaplan_meier(time: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times (from 0) and the share without event from each on (Kaplan and Meier 1958).

    >>> times, share = kaplan_meier(np.array([2.0, 3.0, 3.0, 5.0]), np.array([1, 1, 0, 0]))
    >>> times.tolist(), share.tolist()
    ([0.0, 2.0, 3.0], [1.0, 0.75, 0.5])
    """
    at = np.unique(time[event == 1])
    left = np.array([1.0 - ((time == t) & (event == 1)).sum() / (time >= t).sum() for t in at])
    return np.append(0.0, at), np.append(1.0, np.cumprod(left))


def _coefficients(found: ExposureResponse) -> tuple[np.ndarray, np.ndarray]:
    """(B, N + C) drawn from each draw's normal, and (B,) which draw that was."""
    fitted, rng = found.regression, np.random.default_rng(1)
    draw = np.repeat(np.arange(len(fitted.estimate)), -(-_SAMPLES // len(fitted.estimate)))
    values, vectors = np.linalg.eigh(fitted.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None]
    normal = rng.standard_normal((len(draw), fitted.estimate.shape[1]))
    return fitted.estimate[draw] + np.einsum("bij,bj->bi", root[draw], normal), draw
