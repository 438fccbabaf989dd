"""Solver, sampler and compilation against what else there is, in one run: benchmarks/engine.py

    python benchmarks/engine.py                 every part; kept in engine.json and README.md
    python benchmarks/engine.py solver sampler  only these parts
    python benchmarks/engine.py counts          what does not depend on the machine

Times are processor seconds (other work on the machine hardly moves them), medians of repeats that
take turns, so that ratios within a table can be trusted. The solver's problem is 90 patients of
four states and eight parameters: effector, memory and exhausted cells against a tumour, seen at
14 times within a year; every solver is as coarse as an error of 4e-4 on the log scale lets it be.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import jax
import jax.numpy as jnp
import numpy as np

from carpk import registry
from carpk.cohort import design
from carpk.estimators import nuts
from carpk.examples import example
from carpk.likelihood import data_of
from carpk.population_model import population
from carpk.preparation import choose_steps, resolve
from carpk.solve import arrays, predict
from carpk.structure import Output, Parameter, Source, State, StructuralModel, assumed, named
from carpk.virtual_cohort import enrolled, usual_doses, usual_times
from models import versions

BEGIN, END = "<!-- engine -->", "<!-- end of engine -->"
TIMES = np.array([1, 3, 5, 7, 10, 14, 21, 28, 42, 60, 90, 150, 240, 360], float)
PATIENTS, TOLERANCE = 90, 4e-4
NAMES = ("rho", "alpha", "kem", "kex", "beta", "g", "kkill", "B0")
TYPICAL = (1.2, 0.15, 0.01, 0.05, 0.006, 0.02, 0.3, 500.0)


def rates(t: Any, y: Any, p: Any) -> dict[str, Any]:
    """Antigen-driven expansion, conversion to memory, exhaustion; saturable killing."""
    return {"E": (p.rho * y.B / (100.0 + y.B) - p.alpha - p.kem - p.kex) * y.E,
            "M": p.kem * y.E - p.beta * y.M,
            "X": p.kex * y.E - 0.1 * y.X,
            "B": (p.g - p.kkill * y.E / (5000.0 + y.E)) * y.B}


FOUR = StructuralModel(
    title="four states", source=Source("the benchmark's own"), time_unit="day",
    parameters=tuple(Parameter(n, v, "1/day" if n != "B0" else "cells", n, omega=assumed(0.3))
                     for n, v in zip(NAMES, TYPICAL, strict=True)),
    states=(State("E", "cells", "effector", "log"), State("M", "cells", "memory"),
            State("X", "cells", "exhausted"), State("B", "cells", "tumour", "log")),
    outputs=(Output("C", "cells", "CAR T cells"),), rates=rates,
    initial=lambda p: {"E": 10.0, "M": 0.0, "X": 0.0, "B": p.B0},
    observe=lambda t, y, p: {"C": y.E + y.M + y.X}, file=__file__)


def seconds(programs: dict[str, Callable[[], Any]], repeats: int = 9) -> dict[str, float]:
    """Processor seconds of each, the median of repeats that take turns; the first is not timed."""
    taken: dict[str, list[float]] = {n: [] for n in programs}
    for k in range(repeats + 1):
        for name, program in programs.items():
            began = time.process_time()
            jax.block_until_ready(program())
            if k:
                taken[name].append(time.process_time() - began)
    return {n: float(np.median(t)) for n, t in taken.items()}


def solver() -> list[dict[str, Any]]:
    """Each way to solve the cohort: its steps or tolerance, error, time, and the ratio to ours."""
    import diffrax
    from scipy.integrate import solve_ivp

    random = np.random.default_rng(1)
    phi = np.log(TYPICAL) + 0.3 * random.normal(size=(PATIENTS, len(NAMES)))
    cohort, _ = enrolled(FOUR, PATIENTS, list(TIMES))
    seen = design(cohort, FOUR)

    def slopes(t: Any, u: Any, phi: Any) -> Any:
        p = dict(zip(NAMES, jnp.exp(phi), strict=True))
        y = {"E": jnp.exp(u[0]), "M": u[1], "X": u[2], "B": jnp.exp(u[3])}
        dy = rates(t, named(y), named(p))
        return jnp.stack([dy["E"] / y["E"], dy["M"], dy["X"], dy["B"] / y["B"]])

    def by_diffrax(method: Any, tolerance: float) -> Callable[[Any], Any]:
        def one(phi: Any) -> Any:
            begin = jnp.stack([jnp.log(10.0), 0.0, 0.0, phi[-1]])
            u = diffrax.diffeqsolve(
                diffrax.ODETerm(slopes), method, 0.0, TIMES[-1], 0.1, begin, phi,
                saveat=diffrax.SaveAt(ts=jnp.asarray(TIMES)), max_steps=20_000,
                stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
                adjoint=diffrax.DirectAdjoint()).ys
            return jnp.log(jnp.exp(u[:, 0]) + u[:, 1] + u[:, 2])
        return jax.vmap(one)

    true = np.asarray(jax.jit(by_diffrax(diffrax.Dopri8(), 1e-11))(phi))

    def ours(steps: int) -> Callable[[Any], Any]:
        data = arrays(seen, FOUR, steps)
        return lambda phi: jnp.log(predict(FOUR, data, {
            n: jnp.exp(phi[:, k]) for k, n in enumerate(NAMES)}))

    def coarsest(made: Callable[[Any], Any], grades: tuple[Any, ...]) -> tuple[Any, Any, float]:
        for grade in grades:
            program = jax.jit(made(grade))
            error = float(np.abs(np.asarray(program(phi)) - true).max())
            if error <= TOLERANCE:
                return grade, made(grade), error
        return grade, made(grade), error

    def with_jacobian(program: Any) -> Any:
        """Values and (P, N, 8): one forward sweep carries all eight directions."""
        def both(phi: Any) -> Any:
            value, push = jax.linearize(program, phi)
            return value, jax.vmap(lambda d: push(jnp.broadcast_to(d, phi.shape)))(
                jnp.eye(len(NAMES)))
        return jax.jit(both)

    steps, own, error = coarsest(ours, (60, 80, 100, 120, 150, 200, 240, 300, 480))
    tolerance, other, others = coarsest(
        lambda x: by_diffrax(diffrax.Tsit5(), x), (1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6, 1e-7))

    def lsoda() -> None:
        for row in phi:
            p = np.exp(row)

            def flow(t: float, u: np.ndarray, p: np.ndarray = p) -> list[float]:
                e, b = np.exp(u[0]), np.exp(u[3])
                return [p[0] * b / (100 + b) - p[1] - p[2] - p[3], p[2] * e - p[4] * u[1],
                        p[3] * e - 0.1 * u[2], p[5] - p[6] * e / (5000 + e)]
            solve_ivp(flow, (0, TIMES[-1]), [np.log(10), 0, 0, row[-1]], "LSODA", TIMES,
                      rtol=1e-6, atol=1e-6)

    solves = {"carpk": jax.jit(own), "diffrax Tsit5": jax.jit(other)}
    jacobians = {n: with_jacobian(p) for n, p in (("carpk", own), ("diffrax Tsit5", other))}
    programs: dict[str, Callable[[], Any]] = {
        f"{n}, solve": lambda f=f: f(phi) for n, f in solves.items()}  # type: ignore[misc]
    programs |= {f"{n}, solve and Jacobian": lambda f=f: f(phi)  # type: ignore[misc]
                 for n, f in jacobians.items()}
    floor = by_hand(phi, steps)
    if floor is not None:
        programs["C by hand, solve"] = floor
    took = seconds(programs) | {"LSODA, one by one, solve": seconds({"": lsoda}, 1)[""]}
    grade = {"carpk": (f"{steps} steps", error), "diffrax Tsit5": (f"rtol {tolerance:g}", others)}
    rows = []
    for name, t in took.items():
        which, _, what = name.rpartition(", ")
        ours_too = took[f"carpk, {what}"]
        how, err = grade.get(which, (f"{steps} steps" if "hand" in which else "rtol 1e-06", None))
        rows.append({"solver": which, "what": what, "how": how,
                     "error": None if err is None else float(f"{err:.1g}"),
                     "ms": round(1e3 * t, 2), "carpk is": f"{ours_too / t:.2f} x"})
    return rows


_C = r"""
#include <math.h>
#define L 8
static const double A[7][6] = {{0}, {0.161}, {-0.008480655492356989, 0.335480655492357},
 {2.8971530571054935, -6.359448489975075, 4.3622954328695815},
 {5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525},
 {5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401,
  -0.02826905039406838},
 {0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081,
  2.324710524099774}};
void solve(const double *p, const double *h, int patients, int steps, double *out) {
  for (int at = 0; at < patients; at += L) {
    double q[8][L], u[4][L], k[6][4][L], w[4][L];
    for (int j = 0; j < 8; j++) for (int l = 0; l < L; l++) q[j][l] = p[j * patients + at + l];
    for (int l = 0; l < L; l++) {
      u[0][l] = log(10.0); u[1][l] = u[2][l] = 0; u[3][l] = log(q[7][l]); }
    for (int s = 0; s < steps; s++) {
      for (int g = 0; g < 7; g++) {
        for (int i = 0; i < 4; i++) for (int l = 0; l < L; l++) {
          double sum = 0; for (int m = 0; m < g; m++) sum += A[g][m] * k[m][i][l];
          w[i][l] = u[i][l] + h[s] * sum; }
        if (g == 6) break;
        for (int l = 0; l < L; l++) {
          double e = exp(w[0][l]), b = exp(w[3][l]);
          k[g][0][l] = q[0][l] * b / (100 + b) - q[1][l] - q[2][l] - q[3][l];
          k[g][1][l] = q[2][l] * e - q[4][l] * w[1][l];
          k[g][2][l] = q[3][l] * e - 0.1 * w[2][l];
          k[g][3][l] = q[5][l] - q[6][l] * e / (5000 + e); } }
      for (int i = 0; i < 4; i++) for (int l = 0; l < L; l++) u[i][l] = w[i][l]; }
    for (int i = 0; i < 4; i++) for (int l = 0; l < L; l++) out[i * patients + at + l] = u[i][l];
  }
}
"""


def by_hand(phi: np.ndarray, steps: int) -> Callable[[], Any] | None:
    """The same method and number of steps in C, compiled here; None without a compiler.

    It stops at the last time instead of reading 14, and takes equal steps in log time: work, not
    accuracy, is what it measures."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return None
    folder = Path(tempfile.mkdtemp())
    (folder / "floor.c").write_text(_C)
    subprocess.run([compiler, "-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", "-o",
                    folder / "floor.so", folder / "floor.c", "-lm"], check=True)
    library = ctypes.CDLL(str(folder / "floor.so"))
    padded = np.concatenate([phi, phi[:-len(phi) % 8]])
    p = np.ascontiguousarray(np.exp(padded).T)
    nodes = steps + len(TIMES)
    h = np.diff(np.expm1(np.linspace(0.0, np.log1p(TIMES[-1]), nodes + 1)))
    out = np.empty((4, len(padded)))
    pointer = ctypes.POINTER(ctypes.c_double)
    given = [a.ctypes.data_as(pointer) for a in (p, h, out)]

    def run() -> None:
        library.solve(given[0], given[1], len(padded), nodes, given[2])
    run()
    return run if np.isfinite(out).all() else None


def problem(name: str) -> tuple[Any, Any]:
    """A resolved model and its data: `example`, or one of the simulated public cohorts."""
    if name == "example":
        model, cohort = population("stein_2019"), example("tisacel_like")
    else:
        sys.path.insert(0, str(HERE.parent / "tests"))
        import references
        model, cohort, _ = getattr(references, name)(HERE.parents[1] / "shared" / "data")
    seen = design(cohort, model.structure)
    resolved, _ = resolve(model, seen, cohort.units)
    chosen = choose_steps(resolved, seen)
    return chosen, data_of(chosen, seen)


def sampled(name: str, parametrisation: str = "informed", chains: int = 4, warmup: int = 300,
            draws: int = 500) -> dict[str, Any]:
    """A short run of the sampler: gradients per effective sample, by the worst parameter."""
    model, data = problem(name)
    programs = counted()
    settings = nuts.Nuts(chains=chains, draws=draws, warmup=warmup,
                         parametrisation=parametrisation)  # type: ignore[arg-type]
    ids = tuple(map(str, range(data["time"].shape[0])))
    found = settings.fit(model, data, ids, 1, lambda *said: None)
    measures = found.convergence.measures
    kept = draws * chains
    return {"problem": name, "parametrisation": parametrisation,
            "gradients per draw": round(measures["gradients"] / kept, 1),
            "bulk ESS": round(measures["ess_bulk_min"]), "of": kept,
            "gradients per effective sample": round(measures["gradients_per_effective_sample"]),
            "ESS per s": round(measures["ess_bulk_min"] / found.seconds["sample"], 1),
            "divergences": int(measures["divergences"]),
            "start s": round(found.seconds["start"], 1),
            "compile s": round(found.seconds["compile"], 1), "programs": programs()}


def counted() -> Callable[[], int]:
    """How many programs have been compiled since."""
    total = [0]

    def heard(event: str, duration: float, **more: Any) -> None:
        total[0] += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(heard)
    return lambda: total[0]


def sampler() -> list[dict[str, Any]]:
    """Both parametrisations on the example, and on sim_stein90 where it is."""
    there = (HERE.parents[1] / "shared" / "data" / "sim_stein90").is_dir()
    return [sampled(name, p) for name in ("example", *(["stein90"] if there else []))
            for p in ("informed", "noncentred")]


def patients() -> list[dict[str, Any]]:
    """Processor time of a gradient of the log density by the number of patients, closed form."""
    from carpk.empirical_bayes import laplace_start
    from carpk.geometry import frozen, log_density

    model, data = problem("example")
    start = laplace_start(model, data, 1)
    slope = jax.jit(jax.grad(lambda u, z, many, frame: log_density(
        model, many, frame, u, z, "informed"), (0, 1)))

    def gradient(n: int) -> float:
        take = np.arange(n) % 90
        many = jax.tree.map(lambda v: jnp.asarray(v)[take] if jnp.ndim(v) else v, data)
        frame = {k: v[take] if k != "theta" else v for k, v in frozen(model, start).items()}
        z = jnp.zeros((n, len(model.spread)))
        return seconds({"": lambda: slope(start.u, z, many, frame)})[""]

    rows, first = [], 0.0
    for n in (90, 400, 2000):
        took = gradient(n)
        first = first or took / n
        rows.append({"patients": n, "gradient ms": round(1e3 * took, 2),
                     "per patient, of 90's": round(took / n / first, 2)})
    return rows


def unsolvable() -> list[dict[str, Any]]:
    """What one patient without a solution costs the other 89: value and Jacobian of all."""
    rows = []
    for structure, method in ((FOUR, "tsit5"), (FOUR, "rodas4"),
                              (registry.find_model("liu_l_2022"), "tsit5")):
        cohort, _ = enrolled(structure, PATIENTS, list(TIMES))
        own = dataclasses.replace(structure, solver=method)
        data = arrays(design(cohort, own), own, 120)
        names = list(own.typical)
        sound = np.tile([own.typical[n] for n in names], (PATIENTS, 1))
        bad = sound.copy()
        bad[PATIENTS // 2] *= np.exp(np.random.default_rng(1).choice([-30.0, 30.0], len(names)))

        def both(p: Any, own: Any = own, data: Any = data, names: Any = names) -> Any:
            value, push = jax.linearize(
                lambda p: predict(own, data, {n: p[:, k] for k, n in enumerate(names)}), p)
            return value, jax.vmap(lambda d: push(jnp.broadcast_to(d, p.shape)))(
                jnp.eye(len(names)))

        program = jax.jit(both)
        failed = ~np.isfinite(program(bad)[0]).all(axis=1)
        alike = np.array_equal(np.delete(program(bad)[0], PATIENTS // 2, 0),
                               np.delete(program(sound)[0], PATIENTS // 2, 0))
        took = seconds({"none": lambda f=program, p=sound: f(p),  # type: ignore[misc]
                        "one": lambda f=program, p=bad: f(p)}, 41)  # type: ignore[misc]
        rows.append({"model": own.name or "four states", "solver": method,
                     "without a solution": int(failed.sum()), "others to the last digit": alike,
                     "ms": round(1e3 * took["none"], 2), "ms with it": round(1e3 * took["one"], 2),
                     "costs": f"{100 * (took['one'] / took['none'] - 1):.1f} %"})
    return rows


def counts() -> dict[str, Any]:
    """What is the same on every machine, or nearly: for a test that may fail on it."""
    few = example("tisacel_like")
    few = few.select(few.ids[:12])
    from carpk import fit

    programs = counted()
    model = population("stein_2019")
    result = fit(model, few, seed=1, chains=2, warmup=200, draws=300)
    made = programs()
    fit(model, few, seed=2, chains=2, warmup=200, draws=300)
    steps = {}
    for name in ("kirouac_2023", "liu_l_2022", "hardiansyah_2019"):
        structure = registry.find_model(name)
        cohort, _ = enrolled(structure, 12, usual_times(structure, usual_doses(structure)))
        seen = design(cohort, structure)
        resolved, _ = resolve(population(name), seen, {})
        chosen = choose_steps(resolved, seen)
        steps[name] = [chosen.structure.solver, chosen.steps]
    return {"gradients per effective sample, 12 patients":
            round(result.convergence.measures["gradients_per_effective_sample"]),
            "programs of a fit": made, "programs of the next fit": programs() - made,
            "steps": steps}


PARTS: dict[str, Callable[[], Any]] = {
    "solver": solver, "sampler": sampler, "patients": patients,
    "unsolvable": unsolvable, "counts": counts}


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a table in Markdown."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head),
             *[["-" if r[c] is None else r[c] for c in head] for r in rows]]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> None:
    """Measures, prints and keeps."""
    about, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(description=about, epilog=more,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="only these")
    asked = parser.parse_args().parts or list(PARTS)
    kept = HERE / "engine.json"
    before = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    for part in asked:
        before[part] = {"load": round(os.getloadavg()[0], 1), "found": PARTS[part]()}
        found = before[part]["found"]
        print(f"\n{part}\n\n{table(found) if isinstance(found, list) else json.dumps(found)}",
              flush=True)
    before["versions"] = versions()
    kept.write_text(json.dumps(before, indent=1) + "\n", "utf-8")
    page = (HERE / "README.md").read_text("utf-8")
    head, _, rest = page.partition(BEGIN)
    text = "\n\n".join(
        f"{part}, load {before[part]['load']}:\n\n"
        + (table(f) if isinstance(f := before[part]["found"], list) else f"`{json.dumps(f)}`")
        for part in PARTS if part in before)
    said = ", ".join(f"{n} {v}" for n, v in versions().items())
    (HERE / "README.md").write_text(
        f"{head}{BEGIN}\n{text}\n\n{said}\n{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    main()
