"""Makes tisacel_like.csv and individual_truth.csv from card.toml.

Run: python data/tisacel_like/make.py
"""

import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))  # carpk of this checkout, installed or not

from carpk.cohort import DOSE_COLUMNS, EXCLUDED_COLUMNS, Cohort, design
from carpk.population_model import population
from carpk.simulation import simulate

CARD = tomllib.loads((HERE / "card.toml").read_text("utf-8"))


def covariates(rng):
    """One row per patient: who they are and what they were given."""
    n = CARD["patients"]
    age = rng.uniform(3, 25, n)
    return pd.DataFrame({
        "RESPONSE": np.where(rng.random(n) < 0.78, "CR", "NR"),
        "PRODUCT": np.where(rng.random(n) < 0.5, "A", "B"),
        # marrow blasts range from a few to nearly all cells: logit-normal, median 40 %
        "TUMOUR_BURDEN": (100 / (1 + np.exp(0.405 - 1.8 * rng.standard_normal(n)))).round(1),
        "DOSE": (3.1 * np.exp(0.4 * rng.standard_normal(n))).round(2),
        "AGE": age.round().astype(int),
        "WT": ((8 + 2.7 * age) * np.exp(0.2 * rng.standard_normal(n))).round(1),
    }, index=pd.Index([str(k + 1) for k in range(n)], name="ID", dtype=object))


def visits(rng, ids):
    """One row per sample: the nominal days with jitter, without the missed ones."""
    plan = CARD["design"]
    nominal = np.array(plan["nominal_days"], float)
    rows = []
    for patient in ids:
        days = nominal + rng.standard_normal(len(nominal)) * np.maximum(0.03 * nominal, 0.1)
        leaves = rng.uniform(28, 270) if rng.random() < plan["left_early"] else np.inf
        kept = (rng.random(len(nominal)) >= plan["missed"]) & (days <= leaves)
        rows += [(patient, day) for day in np.sort(days[kept]).round(2)]
    return pd.DataFrame(rows, columns=["ID", "TIME"])


def effects():
    """The covariates of the card as a model is asked for them, and their coefficients."""
    forms, beta = {}, {}
    for pair, effect in CARD["truth"]["effects"].items():
        forms[pair] = f"{effect['form']}({effect['reference']})"
        stem = "beta_" + pair.replace(" ~ ", "_")
        for name, value in effect.items():
            if name not in ("form", "reference"):
                beta[stem if name == "coefficient" else f"{stem}_{name}"] = value
    return forms, beta


def planned(table, samples):
    """The cohort before anything was measured: every level is still unknown."""
    seen = samples.assign(line=range(2, len(samples) + 2), DVID=1, DV=1.0, LOWER=1.0, UPPER=1.0,
                          CENS=0)
    return Cohort(tuple(table.index), seen, pd.DataFrame(columns=list(DOSE_COLUMNS)), table,
                  pd.DataFrame(columns=list(EXCLUDED_COLUMNS)), "tisacel_like.csv", "")


def outcomes(rng, table, own):
    """What came of the exposure of each patient's true curve: CRS and progression.

    rng : a stream of its own, so that the levels do not depend on what is drawn here
    """
    crs, pfs = CARD["outcomes"]["CRS_GRADE"], CARD["outcomes"]["PFS"]
    n, burden = len(table), table["TUMOUR_BURDEN"].to_numpy(float)
    logit = np.log(crs["odds_ratio_per_doubling"]) * np.log2(own["Cmax"] / crs["reference_Cmax"]) \
        + np.log(crs["odds_ratio_per_percent_burden"]) * (burden - crs["reference_burden"])
    at_least = 1 / (1 + np.exp(-(np.array(crs["intercepts"])[:, None] + logit.to_numpy())))
    u = rng.random(n)
    log_hazard = np.log(pfs["hazard_ratio_per_doubling"]) * np.log2(
        exposure(own, pfs["landmark"]) / pfs["reference_AUC0_28"]) \
        + np.log(pfs["hazard_ratio_NR"]) * (table["RESPONSE"] == "NR").to_numpy()
    late = pfs["landmark"] + pfs["scale"] * (
        -np.log(rng.random(n)) / np.exp(log_hazard)) ** (1 / pfs["shape"])
    early = np.where(rng.random(n) < pfs["before_landmark"],
                     rng.uniform(7, pfs["landmark"], n), np.inf)
    event, followed = np.minimum(early, late), rng.uniform(*pfs["followed"], n)
    return pd.DataFrame({
        "CRS_GRADE": (u < at_least).sum(axis=0),
        "PFS_DAYS": np.ceil(np.minimum(event, followed)).astype(int),
        "PFS_EVENT": (event <= followed).astype(int)}, index=table.index)


def exposure(own, end):
    """Area under each patient's true curve to this day, by the equations of stein_2019."""
    p = {n: own[n].to_numpy()[:, None] for n in own}
    t = np.linspace(0, end, 2801)[None]
    after = np.maximum(t - p["Tmax"], 0)
    level = np.where(t < p["Tmax"], p["foldx"] ** (np.minimum(t / p["Tmax"], 1) - 1),
                     (1 - p["FB"]) * np.exp(-p["alpha"] * after)
                     + p["FB"] * np.exp(-p["beta"] * after))
    return np.trapezoid(p["Cmax"] * level, t, axis=1)


def make():
    """The text of the two files."""
    rng = np.random.default_rng(CARD["seed"])
    table = covariates(rng)
    samples = visits(rng, table.index)
    truth = CARD["truth"]
    forms, beta = effects()
    model = population(truth["model"], covariates=forms)
    seen = design(planned(table, samples), model.structure)
    theta = {f"{n}_pop": v for n, v in truth["typical"].items()} | beta
    theta |= {f"omega_{n}": v for n, v in truth["omega"].items()}
    theta["sigma_C_log"] = truth["sigma_C_log"]
    drawn = simulate(model, seen, theta, seed=CARD["seed"])
    level, limit = drawn.dv[seen.observed], CARD["lloq"]
    # four digits: no more than an assay gives, and the same on every machine
    written = [np.format_float_positional(v, precision=4, fractional=False, trim="-")
               for v in np.maximum(level, limit)]
    rows = samples.assign(DV=written, CENS=(level < limit).astype(int), LLOQ=limit)
    own = drawn.parameters[list(truth["typical"])].map(lambda v: f"{v:.5g}")
    came = outcomes(np.random.default_rng([CARD["seed"], CARD["outcomes"]["stream"]]), table,
                    own.astype(float))
    return (rows.join(table, on="ID").join(came, on="ID").to_csv(index=False, lineterminator="\n"),
            own.to_csv(lineterminator="\n"))


if __name__ == "__main__":
    for name, text in zip(("tisacel_like.csv", "individual_truth.csv"), make(), strict=True):
        (HERE / name).write_text(text, encoding="utf-8", newline="\n")
