"""carpk's solver against diffrax, LSODA and C by hand: a part of benchmarks/engine.py.

The problem is 90 patients of four states and eight parameters: effector, memory and exhausted cells
against a tumour, seen at 14 times within a year; every solver is as coarse as an error of 4e-4 on
the log scale lets it be.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from carpk.cohort import design
from carpk.solve import arrays, predict
from carpk.structure import Output, Parameter, Source, State, StructuralModel, assumed, named
from carpk.virtual_cohort import enrolled

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

    def by_diffrax(method: Any, tolerance: float, most: int = 500) -> Callable[[Any], Any]:
        def one(phi: Any) -> Any:
            begin = jnp.stack([jnp.log(10.0), 0.0, 0.0, phi[-1]])
            u = diffrax.diffeqsolve(
                diffrax.ODETerm(slopes), method, 0.0, TIMES[-1], 0.1, begin, phi,
                saveat=diffrax.SaveAt(ts=jnp.asarray(TIMES)), max_steps=most,
                stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
                adjoint=diffrax.ForwardMode()).ys
            return jnp.log(jnp.exp(u[:, 0]) + u[:, 1] + u[:, 2])
        return jax.vmap(one)

    true = np.asarray(jax.jit(by_diffrax(diffrax.Dopri8(), 1e-11, 20_000))(phi))

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
        """Values and (8, P, N): one forward sweep carries all eight directions."""
        def both(phi: Any) -> Any:
            return jax.vmap(lambda d: jax.jvp(program, (phi,), (jnp.broadcast_to(d, phi.shape),)),
                            out_axes=(None, 0))(jnp.eye(len(NAMES)))
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
static double u[4][N], w[4][N], k[6][4][N];  // patients are innermost, so that they fill vectors
static void rates(const double *restrict p, double *restrict dw) {
  for (int l = 0; l < N; l++) {
    double e = exp(w[0][l]), b = exp(w[3][l]);
    dw[l] = p[l] * b / (100 + b) - p[N + l] - p[2 * N + l] - p[3 * N + l];
    dw[N + l] = p[2 * N + l] * e - p[4 * N + l] * w[1][l];
    dw[2 * N + l] = p[3 * N + l] * e - 0.1 * w[2][l];
    dw[3 * N + l] = p[5 * N + l] - p[6 * N + l] * e / (5000 + e); } }
#define EACH for (int i = 0; i < 4; i++) for (int l = 0; l < N; l++)
#define K(m) k[m][i][l]
#define STAGE(m, sum) EACH w[i][l] = u[i][l] + h * (sum); rates(p, k[m][0]);
void solve(const double *restrict p, const double *restrict steps, int many,
           double *restrict out) {
  for (int l = 0; l < N; l++) {
    u[0][l] = log(10.0); u[1][l] = u[2][l] = 0; u[3][l] = log(p[7 * N + l]); }
  for (int s = 0; s < many; s++) {
    double h = steps[s];
    STAGE(0, 0)
    STAGE(1, 0.161 * K(0))
    STAGE(2, -0.008480655492356989 * K(0) + 0.335480655492357 * K(1))
    STAGE(3, 2.8971530571054935 * K(0) - 6.359448489975075 * K(1) + 4.3622954328695815 * K(2))
    STAGE(4, 5.325864828439257 * K(0) - 11.748883564062828 * K(1) + 7.4955393428898365 * K(2)
          - 0.09249506636175525 * K(3))
    STAGE(5, 5.86145544294642 * K(0) - 12.92096931784711 * K(1) + 8.159367898576159 * K(2)
          - 0.071584973281401 * K(3) - 0.028269050394068383 * K(4))
    EACH u[i][l] += h * (0.09646076681806523 * K(0) + 0.01 * K(1) + 0.4798896504144996 * K(2)
      + 1.379008574103742 * K(3) - 3.290069515436081 * K(4) + 2.324710524099774 * K(5)); }
  EACH out[i * N + l] = u[i][l];
}
"""


def by_hand(phi: np.ndarray, steps: int) -> Callable[[], Any] | None:
    """The same method and number of steps in C, compiled here; None without a compiler.

    It returns the states of each patient in the end, (4, P), logarithms of E and B, instead of
    reading 14 times, and takes equal steps in log time: work, not accuracy, is what it measures.
    """
    compiler = shutil.which("gcc")
    if compiler is None:
        return None
    folder = Path(tempfile.mkdtemp())
    padded = np.concatenate([phi, phi[:-len(phi) % 8]])
    (folder / "floor.c").write_text(_C)
    made = folder / "floor.o"
    subprocess.run([compiler, "-O3", "-march=native", "-ffast-math", "-fPIC", "-c",
                    f"-DN={len(padded)}", "-o", made, folder / "floor.c"], check=True)
    # not by the same flags: a library so linked has the whole process round subnormals to 0
    subprocess.run([compiler, "-shared", "-o", folder / "floor.so", made, "-lm"], check=True)
    library = ctypes.CDLL(str(folder / "floor.so"))
    p = np.ascontiguousarray(np.exp(padded).T)
    nodes = steps + len(TIMES)
    h = np.diff(np.expm1(np.linspace(0.0, np.log1p(TIMES[-1]), nodes + 1)))
    out = np.empty((4, len(padded)))
    pointer = ctypes.POINTER(ctypes.c_double)
    given = [a.ctypes.data_as(pointer) for a in (p, h, out)]

    def run() -> np.ndarray:
        library.solve(given[0], given[1], nodes, given[2])
        return out[:, :len(phi)]
    run()
    return run if np.isfinite(out).all() else None
