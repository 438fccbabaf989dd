"""Predictive checks of what matters in the clinic: peak, exposure, persistence, detectability.

Every endpoint is computed from the samples of each replicate as from those observed, by the
rules of `carpk.nca`: what is compared is what a study would report.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from carpk.fitting import Fit
from carpk.noncompartmental import MONTHS, Profiles, area, from_zero, substituted
from carpk.persistence import still_above
from carpk.predictive_check import COUNT, replicates

PER_PATIENT = ("Cmax", "Tmax", "AUC0_28", "Clast", "Tlast")
_DAY = 28.0


class Endpoints(NamedTuple):
    """Endpoints of one output by name, each (R + 1, P): the observed first, then the replicates.

    NaN where a patient has none: never above the limit, or not sampled.
    next_sample : (R + 1, P), after Tlast; inf where there is none
    """

    values: dict[str, np.ndarray]
    next_sample: np.ndarray

    def observed(self, name: str) -> np.ndarray:
        """(n,): of the patients who have it."""
        row = self.values[name][0]
        return row[np.isfinite(row)]

    def still_above(self, times: np.ndarray, count: int = 200) -> np.ndarray:
        """(1 + `count` at most, T): of the patients who were ever above the limit, the share that
        is not lost yet, observed and in replicates; a patient's loss comes after Tlast. Replicates
        where nobody was above it say nothing and are left out."""
        rows = []
        for after, by in zip(self.values["Tlast"][:count + 1], self.next_sample, strict=False):
            ever = np.isfinite(after)
            if ever.any():
                rows.append(still_above(after[ever], by[ever], times))
        return np.stack(rows)


def endpoints_of(fit: Fit, output: str, count: int = COUNT) -> Endpoints:
    """The endpoints of the fitted data and of its replicates."""
    seen, simulated = fit.design, replicates(fit, count)
    here = seen.observed
    k = [o.name for o in fit.model.structure.outputs].index(output)
    mine = seen.output[here] == k
    patient = np.nonzero(here)[0][mine]
    ids, code = np.unique(patient, return_inverse=True)
    place = pd.Series(code).groupby(code).cumcount().to_numpy()
    shape = (len(ids), int(place.max()) + 1)
    lower, upper, time = (v[here][mine] for v in (seen.lower, seen.upper, seen.time))
    limit = simulated.limit[mine]
    y = simulated.y[np.isfinite(simulated.y).all(axis=1)][:, mine]
    above = np.isposinf(upper) & (lower < upper)
    dv = np.where(above, lower, upper)
    levels = np.concatenate([dv[None], np.where(above, np.minimum(y, lower), y)])
    hidden = np.concatenate([(((lower < upper) & ~above) | (dv < limit))[None], y < limit])
    level = np.full((len(levels), *shape), np.nan)
    below = np.zeros(level.shape, bool)
    when = np.full(shape, np.nan)
    level[:, code, place] = np.where(hidden, 0.0, levels)
    below[:, code, place] = hidden
    when[code, place] = time
    last = np.nanmax(when, axis=1, keepdims=True)
    profiles = Profiles(tuple(seen.ids[i] for i in ids), np.where(np.isnan(when), last, when),
                        level, below)
    values = _endpoints(profiles, fit.model.structure.time_unit == "day")
    later = np.stack([np.where(when > tlast[:, None], when, np.inf).min(axis=1)
                      for tlast in values["Tlast"]])
    return Endpoints(values, later)


def _endpoints(p: Profiles, in_days: bool) -> dict[str, np.ndarray]:
    quantified = p.quantified
    some = quantified.any(axis=-1)
    time = np.broadcast_to(p.time, quantified.shape)
    high = np.where(quantified, p.level, -np.inf)
    at_peak, at_last = high.argmax(axis=-1), time.shape[-1] - 1 - np.argmax(
        quantified[..., ::-1], axis=-1)

    def of(values: np.ndarray, place: np.ndarray) -> np.ndarray:
        found = np.take_along_axis(values, place[..., None], axis=-1)[..., 0]
        return np.where(some, found, np.nan)

    found = {"Cmax": of(p.level, at_peak), "Tmax": of(time, at_peak),
             "Clast": of(p.level, at_last), "Tlast": of(time, at_last)}
    if not in_days:
        return found
    tlast, last = found["Tlast"], p.time[:, -1]
    from_start, filled = from_zero(p.time, substituted(p, "zero-then-missing"))
    with np.errstate(invalid="ignore"):
        reached = (tlast >= _DAY) | (last > tlast)
    found["AUC0_28"] = np.where(reached, area(from_start, filled, 0.0, _DAY), np.nan)
    sampled_at = np.isfinite(p.level[0])
    for month, (day, away) in MONTHS.items():
        distance = np.where(sampled_at, np.abs(p.time - day), np.inf)
        at = distance.argmin(axis=-1)
        rows = np.arange(len(at))
        found[f"detectable_{month}"] = np.where(distance[rows, at] <= away,
                                                quantified[:, rows, at], np.nan)
    return found


def checked(fit: Fit, count: int = COUNT) -> pd.DataFrame:
    """Each endpoint's median, and share detectable, as observed and as predicted.

    returns : output, endpoint, statistic (median or share), n (patients observed to have it),
        observed; median, lower95, upper95 over replicates; p, twice the smaller share of
        replicates at least as far to one side as the observed (half of those that equal it)
    """
    rows = []
    seen = fit.design
    present = set(np.unique(seen.output[seen.observed]))
    for k, output in enumerate(fit.model.structure.outputs):
        if k not in present or output.binary:
            continue
        found = endpoints_of(fit, output.name, count)
        for name, values in found.values.items():
            share = name.startswith("detectable")
            known = np.isfinite(values)
            n = int(known[0].sum())
            if n == 0:
                continue
            told = values[known.any(axis=1)]  # replicates of which nobody has it say nothing
            statistic = np.nanmean(told, axis=1) if share else np.nanmedian(told, axis=1)
            observed, simulated = statistic[0], statistic[1:]
            if not len(simulated):
                continue
            low, middle, high = np.quantile(simulated, [0.025, 0.5, 0.975])
            side = ((simulated < observed).mean() + 0.5 * (simulated == observed).mean())
            rows.append({"output": output.name, "endpoint": name,
                         "statistic": "share" if share else "median", "n": n,
                         "observed": observed, "median": middle, "lower95": low, "upper95": high,
                         "p": 2 * min(side, 1 - side)})
    columns = ["output", "endpoint", "statistic", "n", "observed", "median", "lower95", "upper95",
               "p"]
    return pd.DataFrame(rows, columns=columns)
