"""What the engine must reach, beside what was measured: the last table of benchmarks/engine.py.

The parts that need a process of their own are here: fits from a cold start and with the first's
programs, and the tests that compare with reference draws.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from typing import Any

from estimators import DATA, ROOT, fresh

FITS = ("stein90-nuts", "stein90-gibbs", "pkpd40-gibbs")
LARGE = ("nuts-2000", "gibbs-2000")  # minutes each
Found = dict[str, Any]


def fits(large: bool = False) -> list[Found]:
    """A row of each fit, cold and then warm; none without the public data sets."""
    rows = []
    for name in (*FITS, *(LARGE if large else ())) if DATA.is_dir() else ():
        with tempfile.TemporaryDirectory() as programs:
            for start in ("cold", "warm"):
                if start == "cold" or name not in LARGE:
                    row = fresh(name, programs)
                    rows.append({"fit": name, "start": start, "wall s": row["wall_seconds"],
                                 "cpu s": row["cpu_seconds"], "GB": row["gigabytes"],
                                 "ESS": round(row["ess_bulk_min"]), "R-hat": row["rhat_max"],
                                 "load": row["load"]})
    return rows


def references() -> list[Found]:
    """Whether means and SDs are within 3 MCSE of reference draws, by the tests that say so; none
    without the public data sets."""
    if not DATA.is_dir():
        return []
    file = "tests/estimators/test_nuts.py"
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "slow or not slow",
         "-k", "reference_posterior", file],
        cwd=ROOT, text=True, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)})
    last = said.stdout.strip().splitlines()[-1]
    passed, failed = (sum(map(int, re.findall(rf"(\d+) {word}", last)))
                      for word in ("passed", "(?:failed|error)"))
    return [{"tests": file, "passed": passed, "failed": failed, "ran": said.returncode in (0, 1)}]


def compared(found: dict[str, list[Found]]) -> list[Found]:
    """A row for each target whose part was measured: the target, an upper bound, what was
    measured, and their ratio.

    found : rows by part, as benchmarks/engine.py keeps them
    """
    rows: list[Found] = []

    def row(what: str, target: float, measured: Any, besides: str = "") -> None:
        rows.append({"what": what, "at most": target, "measured": measured,
                     "ratio": round(float(measured) / target, 2) if target else None,
                     "besides": besides})

    def share(rows: list[Found], column: str, **which: str) -> float:
        (one,) = (r for r in rows if all(r[k] == v for k, v in which.items()))
        return float(one[column].split()[0])

    if solvers := found.get("solver"):
        row("solve and Jacobian, of diffrax's time", 0.45, share(
            solvers, "carpk is", solver="diffrax Tsit5", what="solve and Jacobian"))
        if any(r["solver"] == "C by hand" for r in solvers):
            row("solve, of the time of C by hand", 2.5,
                share(solvers, "carpk is", solver="C by hand"), "as many steps")
    if ways := found.get("closed form"):
        row("the example as an ODE, of the closed form's time", 3.0,
            share(ways, "of the closed form's", how="ODE"), "a gradient")
    for r in found.get("sampler", []):
        if r["problem"] == "stein90":
            row(f"gradients per effective sample, sim_stein90, {r['sampler']}", 60,
                r["gradients per effective sample"], f"median {r['median']}")
    if sizes := found.get("patients"):
        row("a patient's share of a gradient at 2,000, of 90's", 1.0,
            sizes[-1]["per patient, of 90's"])
    if unsolvable := found.get("unsolvable"):
        row("one patient without a solution costs, %", 5.0,
            max(float(r["costs"].split()[0]) for r in unsolvable), "the most of three")
    for r in found.get("references", []):
        row("reference posteriors missed by over 3 MCSE", 0, r["failed"], f"{r['passed']} tests")
    seconds = {("stein90", "cold"): 35, ("stein90", "warm"): 18, ("pkpd40", "cold"): 180}
    for r in found.get("fits", []):
        problem, _, sampler = r["fit"].partition("-")
        besides = f"ESS {r['ESS']}, R-hat {r['R-hat']:.3f}"
        if r["fit"] in LARGE:
            row(f"2,000 patients by {problem}, minutes", 15, round(r["wall s"] / 60, 1), besides)
            row(f"2,000 patients by {problem}, GB", 6.0, r["GB"])
        elif (problem, r["start"]) in seconds:
            row(f"sim_{problem} by {sampler}, {r['start']}, s", seconds[problem, r["start"]],
                r["wall s"], besides)
    return rows
