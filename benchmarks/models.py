"""How long each ODE model takes to simulate 1,000 patients at 60 times: benchmarks/models.py

Patients vary as `carpk simulate` lets them, get the usual doses, and are seen in every output at
60 times within the usual follow-up. A row tells the method and the mesh steps that the most
extreme of them need, how long that program takes to compile (nothing is cached) and then to run.
Times are the best of three runs, by the clock and, "cpu", as the processor's own seconds, which
hardly depend on what else runs: two idle cores take about half of it by the clock. "load" is how
many processes wanted a core meanwhile. Counts (steps, failed) are the same on every machine.

With names of models only their rows are made anew. The result is kept in models.json and as the
table of README.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import jax
import numpy as np

from carpk import registry
from carpk.accuracy import on_each, runner
from carpk.cohort import design
from carpk.population_model import population
from carpk.simulation import simulate
from carpk.virtual_cohort import enrolled, usual_doses, usual_times

PATIENTS, TIMES, SIGMA = 1000, 60, 0.3
TARGETS = {"tsit5": 2.0, "rodas4": 20.0}  # seconds to run, after compilation
BEGIN, END = "<!-- models -->", "<!-- end of models -->"
COLUMNS = ("model", "states", "solver", "steps", "others", "found in s", "compile cpu s", "run s",
           "run cpu s", "target s", "moved", "failed", "load")


def measured(name: str, patients: int = PATIENTS, repeats: int = 3) -> dict[str, Any]:
    """One model's row."""
    model = population(name)
    structure = model.structure
    last = usual_times(structure, usual_doses(structure))[-1]
    times = [float(t) for t in np.linspace(0.0, last, TIMES + 1)[1:]]
    cohort, own = enrolled(structure, patients, times)
    seen = design(cohort, structure)
    sigma = {n: SIGMA for n in model.names if n.startswith("sigma_")}
    began = time.perf_counter()
    drawn = simulate(model, seen, sigma, seed=1, own=own)
    found = time.perf_counter() - began
    values = {n: drawn.parameters[n].to_numpy() for n in drawn.parameters}
    run, shape = runner(structure, seen, values), seen.output.shape
    began = time.process_time()
    on_each(run, drawn.mesh, shape)
    compiled = time.process_time() - began  # and the first run, which is taken off below
    runs, worked = [], []
    for _ in range(repeats):
        began, at_work = time.perf_counter(), time.process_time()
        predicted = on_each(run, drawn.mesh, shape)
        runs.append(time.perf_counter() - began)
        worked.append(time.process_time() - at_work)
    meshes = sorted(set(drawn.mesh))
    usual = max(meshes, key=drawn.mesh.count)
    failed = ~np.isfinite(np.where(seen.observed, predicted, 0.0)).all(axis=1)
    return {"states": len(structure.states), "outputs": len(structure.outputs),
            "solver": usual[0], "steps": usual[1],
            "others": {f"{m} {n}": drawn.mesh.count((m, n)) for m, n in meshes if (m, n) != usual},
            "patients": patients, "found_seconds": round(found, 2),
            "compile_cpu_seconds": round(max(compiled - min(worked), 0.0), 2),
            "run_seconds": round(min(runs), 3), "run_cpu_seconds": round(min(worked), 3),
            "moved": float(f"{drawn.moved:.2g}")
            if np.isfinite(drawn.moved) else None,
            "failed": int(failed.sum()), "load": round(os.getloadavg()[0], 1)}


def versions() -> dict[str, str]:
    """What the numbers depend on."""
    return {**{n: importlib.metadata.version(n) for n in ("jax", "jaxlib", "numpy")},
            "python": platform.python_version(), "machine": platform.machine(),
            "cores": str(os.cpu_count())}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS)]
    for name, r in sorted(rows.items()):
        target = TARGETS[r["solver"]]
        run = f"{r['run_seconds']:.2f}"
        others = ", ".join(f"{count} of {mesh}" for mesh, count in r.get("others", {}).items())
        lines.append((name, r["states"], r["solver"], r["steps"], others,
                      f"{r['found_seconds']:.1f}",
                      f"{r['compile_cpu_seconds']:.1f}",
                      run if r["run_seconds"] <= target else f"**{run}**",
                      f"{r['run_cpu_seconds']:.2f}", f"{target:g}",
                      "-" if r["moved"] is None else f"{r['moved']:.1g}", r["failed"], r["load"]))
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def keep(rows: dict[str, dict[str, Any]]) -> None:
    """Writes models.json and the table of README.md."""
    (HERE / "models.json").write_text(json.dumps(
        {"versions": versions(), "models": dict(sorted(rows.items()))}, indent=1) + "\n", "utf-8")
    page = (HERE / "README.md").read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    said = ", ".join(f"{n} {v}" for n, v in versions().items())
    (HERE / "README.md").write_text(
        f"{before}{BEGIN}\n{table(rows)}\n\n{said}\n{END}{after}", "utf-8")


def main() -> None:
    """Measures, prints and keeps."""
    about, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(description=about, epilog=more)
    parser.add_argument("names", nargs="*", help="only these models")
    parser.add_argument("--patients", type=int, default=PATIENTS,
                        help="another number is printed, and not kept")
    asked = parser.parse_args()
    ode = [n for n in registry.names("models") if registry.load("models", n).states]
    kept = HERE / "models.json"
    before = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    rows = {n: r for n, r in before.get("models", {}).items() if n in ode} \
        if asked.names and before.get("versions") == versions() else {}
    print(table({}), flush=True)
    for name in asked.names or ode:
        row = measured(name, asked.patients)
        print(table({name: row}).splitlines()[-1], flush=True)
        rows[name] = row
        jax.clear_caches()
        if asked.patients == PATIENTS:
            keep(rows)


if __name__ == "__main__":
    main()
