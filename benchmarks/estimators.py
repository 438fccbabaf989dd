"""How long a fit takes from a cold start: a new process per row, imports, compilation and tables.

    python benchmarks/estimators.py            every row, without a compile cache
    python benchmarks/estimators.py theophylline --warm

The public data sets are looked for in ../shared/data. Times are wall seconds and, because other
work on the machine does not move them, CPU seconds; `estimate` is the fit's own stage.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
ROWS = {  # name: (reference in tests/references.py, estimator, copies of the cohort)
    "theophylline": ("theophylline_nlmer", "focei", 1),
    "stein90-saem": ("stein90", "saem", 1), "stein90-laplace": ("stein90", "laplace", 1),
    "stein90-focei": ("stein90", "focei", 1),
    "pkpd40-saem": ("pkpd40", "saem", 1), "pkpd40-laplace": ("pkpd40", "laplace", 1),
    "tisacel-90": ("tisacel", "saem", 1), "tisacel-400": ("tisacel", "saem", 400 / 90),
    "tisacel-2000": ("tisacel", "saem", 2000 / 90),
}


def one(name: str) -> None:
    """Fits one row and prints its line; run in a process of its own."""
    begun = time.perf_counter()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import references

    from carpk import example, population, tables
    from carpk.fitting import fit

    reference, estimator, copies = ROWS[name]
    if reference == "tisacel":
        model, cohort = population("stein_2019"), replicated(example("tisacel_like"), copies)
    else:
        model, cohort, _ = getattr(references, reference)(DATA)
    result = fit(model, cohort, estimator, seed=1)
    tables.parameters(result)
    used = resource.getrusage(resource.RUSAGE_SELF)
    stages = ", ".join(f"{n} {s:.1f}" for n, s in result.manifest["seconds"].items())
    print(f"| {name} | {len(cohort.ids)} | {time.perf_counter() - begun:.1f} | "
          f"{used.ru_utime + used.ru_stime:.1f} | {used.ru_maxrss / 1e6:.2f} | "
          f"{result.convergence.measures['ofv']:.2f} | "
          f"{'yes' if result.convergence.ok else 'no'} | {stages} |")


def replicated(cohort, copies: float):
    """The same patients over and over, under new names, until there are enough."""
    import dataclasses

    import pandas as pd

    wanted = round(copies * len(cohort.ids))
    names = [f"{i}-{k}" for k in range(-(-wanted // len(cohort.ids))) for i in cohort.ids][:wanted]

    def rows(table):
        parts = [table.assign(ID=table["ID"] + f"-{k}")
                 for k in range(-(-wanted // len(cohort.ids)))]
        whole = pd.concat(parts, ignore_index=True)
        return whole[whole["ID"].isin(set(names))].reset_index(drop=True)

    who = cohort.covariates.loc[[n.rpartition("-")[0] for n in names]].set_axis(names)
    return dataclasses.replace(
        cohort, ids=tuple(names), observations=rows(cohort.observations), doses=rows(cohort.doses),
        covariates=who, excluded=rows(cohort.excluded), varying={})


def main() -> None:
    """The table."""
    asked = argparse.ArgumentParser()
    asked.add_argument("rows", nargs="*", choices=[*ROWS, []], default=[])
    asked.add_argument("--warm", action="store_true", help="a second run with the first's programs")
    asked.add_argument("--one", help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.one:
        one(given.one)
        return
    print("| fit | patients | wall s | CPU s | GB | OFV | converged | stages |\n"
          "|---|---|---|---|---|---|---|---|", flush=True)
    for name in given.rows or ROWS:
        with tempfile.TemporaryDirectory() as programs:
            for _ in range(2 if given.warm else 1):
                subprocess.run([sys.executable, __file__, "--one", name], check=True,
                               env={**os.environ, "JAX_COMPILATION_CACHE_DIR": programs})


if __name__ == "__main__":
    main()
