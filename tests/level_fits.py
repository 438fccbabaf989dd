"""A fit whose bootstrap and profiles are known in closed form: one level per patient, seen thrice.

Balanced, linear and normal, so every approximation is exact: the likeliest level is the mean of
the patients' means, and the two variances follow from the mean squares within and between.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from conftest import PROGRAMS

from carpk import fitting, registry
from carpk.estimators import Convergence, Estimate, Estimator
from carpk.nonmem import read_csv
from carpk.population_model import population

PATIENTS, SEEN = 12, 3
FILE = '''"""A level of each patient."""
from carpk.structure import Output, Parameter, Source, StructuralModel, sd

MODEL = StructuralModel(
    title="a level", source=Source("textbook"), time_unit="day",
    parameters=(Parameter("a", 10.0, "mg/L", "level", omega=sd(2.0), link="identity"),),
    outputs=(Output("C", "mg/L", "level", error="additive"),),
    solution=lambda t, p: {"C": p.a + 0.0 * t})
'''


def levels():
    """(P, N): what is seen of each patient; the second half lies higher, by STUDY."""
    random = np.random.default_rng(3)
    own = 10 + 2 * random.normal(size=(PATIENTS, 1)) + 3 * (np.arange(PATIENTS) >= 6)[:, None]
    return np.round(own + random.normal(size=(PATIENTS, SEEN)), 3)


def likeliest(y):
    """The maximum in closed form, of (P, N) levels."""
    mean, (patients, seen) = y.mean(axis=1), y.shape
    within = ((y - mean[:, None]) ** 2).sum() / (patients * (seen - 1))
    between = ((mean - mean.mean()) ** 2).mean() - within / seen
    assert between > 0
    return {"a_pop": mean.mean(), "omega_a": between**0.5, "sigma_C_add": within**0.5}


def standard_errors(a_pop, omega_a, sigma_C_add):
    """From the expected information, which for these three is the observed one as well."""
    total, within = omega_a**2 + sigma_C_add**2 / SEEN, sigma_C_add**2
    of_within = 2 * within**2 / (PATIENTS * (SEEN - 1))
    of_between = 2 * total**2 / PATIENTS + of_within / SEEN**2
    return {"a_pop": (total / PATIENTS) ** 0.5, "omega_a": of_between**0.5 / (2 * omega_a),
            "sigma_C_add": of_within**0.5 / (2 * sigma_C_add)}


def minus_two(y, a, omega, sigma):
    """-2 log-likelihood without N log 2 pi."""
    seen = y.shape[1]
    mean, total = y.mean(axis=1), omega**2 + sigma**2 / seen
    return (((y - mean[:, None]) ** 2).sum() / sigma**2
            + len(y) * ((seen - 1) * np.log(sigma**2) + np.log(seen) + np.log(total))
            + ((mean - a) ** 2).sum() / total)


@dataclass(frozen=True)
class Known(Estimator):
    """The maximum in closed form, in place of the search for it, which has tests of its own."""

    method: str = "focei"

    def fit(self, model, data, ids, seed, progress):
        at = likeliest(levels())
        ses = standard_errors(**at)
        share = at["omega_a"] ** 2 / (at["omega_a"] ** 2 + at["sigma_C_add"] ** 2 / SEEN)
        phi = at["a_pop"] + share * (levels().mean(axis=1) - at["a_pop"])
        estimates = {n: {"estimate": v, "se": ses[n], "lower95": v - 1.96 * ses[n],
                         "upper95": v + 1.96 * ses[n], "se_sandwich": ses[n]}
                     for n, v in at.items()}
        return Estimate({n: np.full((1, 3), v) for n, v in at.items()},
                        np.broadcast_to(phi[:, None], (1, 3, PATIENTS, 1)), {}, "asymptotic",
                        Convergence(True, (), (), {}), {}, estimates)


@functools.cache
def level_fit():
    """The folder of the fit, made once; the tests leave in it what they make."""
    place = Path(PROGRAMS) / "level"
    place.mkdir(exist_ok=True)
    made = sorted((place / "fits").glob("2*"))
    if made:
        return made[0]
    (place / "level.py").write_text(FILE)
    pd.DataFrame([(i + 1, j + 1, y, "AB"[i >= 6]) for i, row in enumerate(levels())
                  for j, y in enumerate(row)], columns=["ID", "TIME", "DV", "STUDY"]).to_csv(
        place / "levels.csv", index=False)
    model, cohort = population(str(place / "level.py")), read_csv(place / "levels.csv")
    with mock.patch.object(registry, "load", lambda kind, name, load=registry.load: Known
                           if kind == "estimators" else load(kind, name)):
        return fitting.fit(model, cohort, "focei", seed=1).save(place / "fits")
