"""Simulation-based calibration of the whole default path: prior, data, resolve, start, NUTS.

    python tests/calibration.py [REPLICATES [FIRST]]  (0 only draws docs/calibration.svg anew)

Every replicate draws the population from the prior, simulates a small cohort with covariates,
correlated etas and censoring, fits it, and notes at which place among the posterior draws the true
value of each parameter stands. If all is right every place is equally likely (Talts et al. 2018,
arXiv:1804.06788). Ranks are added to golden/calibration.csv, which tests/test_calibration.py reads.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from carpk.cohort import DOSE_COLUMNS, EXCLUDED_COLUMNS, OBSERVATION_COLUMNS, Cohort, design
from carpk.fitting import fit
from carpk.plots import BLUE, GREY, INK, SIZE, dress, headed, sheet, svg, write
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.simulation import drawn_from_prior, simulate
from carpk.structure import Output, Parameter, Source, StructuralModel, sd

RANKS = Path(__file__).parent / "golden" / "calibration.csv"
PATIENTS, TIMES, LLOQ = 16, (0.5, 2.0, 5.0, 9.0, 14.0, 28.0), 3.0
KEPT = 99  # draws the truth is ranked among: a hundred places


def _solution(t, p):
    return {"C": p.C0 * ((1.0 - p.F) * 2.718281828459045 ** (-p.k * t) + p.F)}


STRUCTURE = StructuralModel(
    title="decline to a share that stays", source=Source("textbook"), time_unit="day",
    parameters=(Parameter("C0", 100.0, "mg/L", "start", omega=sd(0.5)),
                Parameter("k", 0.3, "1/day", "rate", omega=sd(0.4)),
                Parameter("F", 0.05, "-", "share", omega=sd(0.5), link="logit")),
    outputs=(Output("C", "mg/L", "level"),), solution=_solution, file=__file__)
# narrower than the defaults, so that every replicate is a cohort somebody could have measured
MODEL = population(
    STRUCTURE, covariates={"C0 ~ WT": "power(70)", "k ~ SEX": "category(F)"}, correlated="full",
    priors={"C0_pop": "lognormal(100, 0.3)", "k_pop": "lognormal(0.3, 0.3)",
            "F_pop": "logitnormal(0.05, 0.4)", "beta_C0_WT": "normal(0, 1)",
            "beta_k_SEX_M": "normal(0, 0.5)", "omega_C0": "halfnormal(0.5)",
            "omega_k": "halfnormal(0.4)", "omega_F": "halfnormal(0.6)",
            "sigma_C_log": "halfnormal(0.4)"})


def planned() -> Cohort:
    """The patients of every replicate, before anything is measured."""
    ids = tuple(str(i + 1) for i in range(PATIENTS))
    rows = [(2 + k, i, t, 1, 1.0, 1.0, 1.0, 0)
            for k, (i, t) in enumerate((i, t) for i in ids for t in TIMES)]
    who = pd.DataFrame({"WT": np.linspace(45.0, 105.0, PATIENTS).round(1),
                        "SEX": ["F", "M", "M", "F"] * (PATIENTS // 4)},
                       index=pd.Index(ids, name="ID", dtype=object))
    return Cohort(ids, pd.DataFrame(rows, columns=list(OBSERVATION_COLUMNS)),
                  pd.DataFrame(columns=list(DOSE_COLUMNS)), who,
                  pd.DataFrame(columns=list(EXCLUDED_COLUMNS)), "simulated", "")


def replicate(seed: int) -> dict[str, float]:
    """The rank (0 to KEPT) of each true value among the draws, with what the sampler said."""
    cohort = planned()
    seen = design(cohort, STRUCTURE)
    whole, _ = resolve(MODEL, seen, {})
    truth = drawn_from_prior(whole, seed)
    dv = simulate(whole, seen, truth, seed=seed + 1_000_000).dv
    rows = cohort.observations
    level = dv[seen.observed]
    below = level < LLOQ
    limit = np.where(below, LLOQ, level)
    measured = rows.assign(DV=limit, UPPER=limit, LOWER=np.where(below, -np.inf, limit),
                           CENS=below.astype(int))
    result = fit(MODEL, replace(cohort, observations=measured), seed=seed, chains=2, draws=500,
                 warmup=300)
    draws = result.posterior["posterior"].dataset
    kept = np.linspace(0, 999, KEPT).astype(int)  # thinned, so that they are nearly independent
    ranks = {n: float((draws[n].values.ravel()[kept] < truth[n]).sum()) for n in whole.free}
    measures = result.convergence.measures
    return {"seed": seed, **ranks, "censored": float(below.mean()),
            "rhat_max": round(measures["rhat_max"], 4),
            "divergences": measures["divergences"], "ess_min": round(measures["ess_bulk_min"])}


def uniformity(ranks: pd.DataFrame) -> pd.DataFrame:
    """Of each parameter: p of a chi-square test over ten bins of its ranks, and of their mean."""
    rows = {}
    for name in ranks.columns:
        u = (ranks[name].to_numpy() + 0.5) / (KEPT + 1)
        counts, _ = np.histogram(u, bins=10, range=(0.0, 1.0))
        z = (u.mean() - 0.5) * np.sqrt(12 * len(u))
        rows[name] = {"chi_square_p": stats.chisquare(counts).pvalue,
                      "mean_p": 2 * stats.norm.sf(abs(z))}
    return pd.DataFrame.from_dict(rows, orient="index")


def parameters(table: pd.DataFrame) -> pd.DataFrame:
    """Only the ranks of a table of replicates."""
    return table.drop(columns=["seed", "censored", "rhat_max", "divergences", "ess_min"])


def band(count: int, most: float = 0.95, trials: int = 4000) -> np.ndarray:
    """(KEPT + 1,): how far the ECDF of `count` uniform ranks strays from the diagonal at each
    rank, so scaled that `most` of all whole curves lie within (Säilynoja et al. 2022)."""
    ranks = np.random.default_rng(0).integers(0, KEPT + 1, (trials, count))
    curves = np.stack([(ranks <= k).mean(axis=1) for k in range(KEPT + 1)], axis=1)
    expected = np.arange(1, KEPT + 2) / (KEPT + 1)
    width = np.sqrt(expected * (1 - expected) / count)
    away = np.abs(curves - expected)[:, :-1] / width[:-1]
    return width * np.quantile(away.max(axis=1), most)


def plot(table: pd.DataFrame, file: Path) -> None:
    """ECDF of each parameter's ranks less the diagonal, with the band uniform ranks stay in."""
    ranks = parameters(table)
    allowed, x = band(len(ranks)), np.arange(1, KEPT + 2) / (KEPT + 1)
    figure = sheet(7.0, 5.0, f"Calibration: {len(ranks)} simulated cohorts fitted, 95 % band of "
                   "uniform ranks")
    for k, name in enumerate(ranks):
        ax = figure.add_subplot(3, 4, k + 1)
        dress(ax)
        headed(ax, str(name))
        ax.fill_between(x, -allowed, allowed, color="#dddddd", linewidth=0)
        curve = [(ranks[name] <= r).mean() for r in range(KEPT + 1)] - x
        ax.step(x, curve, where="post", color=BLUE, linewidth=1.0)
        ax.axhline(0.0, color=GREY, linewidth=0.5)
        ax.set(xlim=(0, 1), ylim=(-0.17, 0.17), xticks=(0.2, 0.5, 0.8))
        ax.tick_params(labelbottom=k >= 8, labelleft=k % 4 == 0)
    write(figure.supxlabel, "Place of the true value among the posterior draws", y=0.015,
          fontsize=SIZE, color=INK)
    write(figure.supylabel, "Share at or below, less what is expected", x=0.012, fontsize=SIZE,
          color=INK)
    figure.subplots_adjust(left=0.09, right=0.985, top=0.88, bottom=0.1, wspace=0.15, hspace=0.35)
    file.write_bytes(svg(figure))


def main(replicates: int, first: int) -> None:
    """Replicates with seeds from `first` on, each written as it comes."""
    for seed in range(first, first + replicates):
        row = replicate(seed)
        new = not RANKS.exists()
        with RANKS.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(seed, row["ess_min"], row["divergences"], row["rhat_max"], flush=True)
    table = pd.read_csv(RANKS)
    plot(table, RANKS.parents[2] / "docs" / "calibration.svg")
    print(uniformity(parameters(table)).round(3).to_string())


if __name__ == "__main__":
    main(*(int(a) for a in (*sys.argv[1:], *("200", "1")[len(sys.argv) - 1:])))
