"""Solver, sampler and compilation against what else there is, in one run: benchmarks/engine.py

    python benchmarks/engine.py                 every part; kept in engine.json and README.md
    python benchmarks/engine.py --large         with fits of 2,000 patients: a quarter of an hour
    python benchmarks/engine.py --quick         minutes, without samplers and fits; not kept
    python benchmarks/engine.py solver sampler  only these parts
    python benchmarks/engine.py counts          what does not depend on the machine

Last comes the table of targets (targets.py): each with what was measured and their ratio.

Times are processor seconds (other work on the machine hardly moves them), medians of repeats that
take turns, so that ratios within a table can be trusted. The solver's problem is in solvers.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import jax
import jax.numpy as jnp
import numpy as np
import targets
from jax.experimental.compilation_cache import compilation_cache
from solvers import FOUR, PATIENTS, TIMES, seconds, solver

from carpk import posterior, registry
from carpk.cohort import design
from carpk.empirical_bayes import laplace_start
from carpk.examples import example
from carpk.geometry import frozen, log_density
from carpk.likelihood import data_of
from carpk.population_model import population
from carpk.preparation import choose_steps, resolve
from carpk.solve import arrays, predict
from carpk.structure import State, StructuralModel
from carpk.virtual_cohort import enrolled, usual_doses, usual_times
from models import versions

BEGIN, END = "<!-- engine -->", "<!-- end of engine -->"


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


def sampled(name: str, estimator: str, parametrisation: str = "informed", draws: int = 500,
            chains: int = 4, warmup: int = 400) -> dict[str, Any]:
    """A run of a sampler: gradients per effective sample, by the worst parameter and the median."""
    model, data = problem(name)
    programs = counted()
    settings = registry.load("estimators", estimator)(
        chains=chains, draws=draws, warmup=warmup, parametrisation=parametrisation)
    ids = tuple(map(str, range(data["time"].shape[0])))
    found = settings.fit(model, data, ids, 1, lambda *said: None)
    measures, took = found.convergence.measures, found.seconds
    middle = posterior.summary(found.theta)["ess_bulk"].median()
    return {"problem": name, "sampler": estimator, "coordinates": parametrisation,
            "draws": draws * chains, "gradients per draw": round(
                measures["gradients"] / (draws * chains), 1),
            "bulk ESS": round(measures["ess_bulk_min"]), "R-hat": round(measures["rhat_max"], 3),
            "gradients per effective sample": round(measures["gradients_per_effective_sample"]),
            "median": round(measures["gradients"] / middle),
            "ESS per s": round(measures["ess_bulk_min"] / took["sample"], 1),
            "divergences": int(measures["divergences"]), "start s": round(took["start"], 1),
            "compile s": round(took["compile"], 1), "sample s": round(took["sample"], 1),
            "programs": programs()}


def counted(event: str = "/jax/core/compile/backend_compile_duration") -> Callable[[], int]:
    """How often this has happened since: as it stands, how many programs were needed, those
    among them that were kept on disk."""
    total = [0]

    def heard(name: str, *duration: float, **more: Any) -> None:
        total[0] += name == event

    jax.monitoring.register_event_duration_secs_listener(heard)
    jax.monitoring.register_event_listener(heard)
    return lambda: total[0]


def sampler() -> list[dict[str, Any]]:
    """Both samplers on the example and, where they are, on the simulated public cohorts."""
    there = (HERE.parents[1] / "shared" / "data" / "sim_stein90").is_dir()
    rows = [sampled("example", "nuts"), sampled("example", "nuts", "noncentred"),
            sampled("example", "nuts", "centred"),
            sampled("example", "gibbs", draws=2000)]
    if there:
        rows += [sampled("stein90", "nuts"), sampled("stein90", "gibbs", draws=2000),
                 sampled("pkpd40", "nuts", draws=100), sampled("pkpd40", "gibbs", draws=1000)]
    return rows


def patients() -> list[dict[str, Any]]:
    """Processor time of a gradient of the log density by the number of patients, closed form."""
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


def as_ode() -> StructuralModel:
    """stein_2019 without comedication as two states, effectors and memory, with a switch."""
    def rates(t: Any, y: Any, p: Any) -> dict[str, Any]:
        grows, rho = t <= p.Tmax, jnp.log(p.foldx) / p.Tmax
        return {"E": jnp.where(grows, rho, -p.alpha) * y.E,
                "M": jnp.where(grows, rho, -p.beta) * y.M}

    closed = registry.find_model("stein_2019")
    return dataclasses.replace(
        closed, solution=None, rates=rates, switches=("Tmax",),
        states=(State("E", "copies/ug", "effectors", "log"),
                State("M", "copies/ug", "memory", "log")),
        initial=lambda p: {"E": (1.0 - p.FB) * p.Cmax / p.foldx, "M": p.FB * p.Cmax / p.foldx},
        observe=lambda t, y, p: {"C": y.E + y.M}, file=__file__)


def closed_form() -> list[dict[str, Any]]:
    """A gradient of the log density of the example, in closed form and solved."""
    cohort, programs, told = example("tisacel_like"), {}, {}
    for name, structure in (("closed form", registry.find_model("stein_2019")), ("ODE", as_ode())):
        seen = design(cohort, structure)
        resolved, _ = resolve(population(structure), seen, cohort.units)
        model = choose_steps(resolved, seen)
        start = laplace_start(model, data := data_of(model, seen), 1)
        slope = jax.jit(jax.value_and_grad(lambda u, z, model=model, data=data, start=start:
                                           log_density(model, data, frozen(model, start), u, z,
                                                       "informed"), (0, 1)))
        told[name] = {"how": name, "steps": model.steps if structure.states else "-",
                      "log density": round(float(slope(start.u, jnp.zeros_like(start.phi))[0]), 3)}
        programs[name] = lambda f=slope, s=start: f(s.u, jnp.zeros_like(s.phi))
    took = seconds(programs, 41)
    return [{**row, "ms": round(1e3 * took[n], 2), "of the closed form's":
             f"{took[n] / took['closed form']:.1f} x"} for n, row in told.items()]


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


def kept_in(folder: str | None) -> None:
    """From now on programs are kept in this folder, and looked for there, or not at all."""
    for name, value in (("jax_compilation_cache_dir", folder),
                        ("jax_persistent_cache_min_entry_size_bytes", -1),
                        ("jax_persistent_cache_min_compile_time_secs", 0)):
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def counts() -> dict[str, Any]:
    """What is the same on every machine, or nearly: for a test that may fail on it."""
    from carpk import fit

    model, made = population("stein_2019"), counted("/jax/compilation_cache/cache_misses")
    whole = example("tisacel_like")
    with tempfile.TemporaryDirectory() as folder:  # of programs, empty at first
        kept_in(folder)
        result = fit(model, whole.select(whole.ids[:12]), seed=1, chains=2, warmup=200, draws=300)
        first = made()
        fit(model, whole.select(whole.ids[:13]), seed=1, chains=2, warmup=200, draws=300)
        second = made() - first
        kept_in(None)
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
            "programs of a fit": first, "programs that a 13th patient needs": second,
            "steps": steps}


PARTS: dict[str, Callable[[], Any]] = {
    "solver": solver, "sampler": sampler, "patients": patients,
    "closed form": closed_form,
    "unsolvable": unsolvable, "counts": counts, "fits": targets.fits,
    "references": targets.references}
QUICK = ("solver", "closed form", "unsolvable", "counts")


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a table in Markdown."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head),
             *[["-" if r[c] is None else r[c] for c in head] for r in rows]]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def shown(found: Any) -> str:
    """What a part found, in Markdown."""
    if isinstance(found, list):
        return table(found) if found else "not measured: the public data sets are not there"
    return f"`{json.dumps(found)}`"


def reached(kept: dict[str, Any]) -> str:
    """The table of targets, of the parts there are."""
    return shown(targets.compared({n: part["found"] for n, part in kept.items()
                                   if "found" in part}))


def main() -> None:
    """Measures, prints and keeps."""
    about, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(description=about, epilog=more,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="only these")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}; not kept")
    parser.add_argument("--large", action="store_true", help="with fits of 2,000 patients")
    given = parser.parse_args()
    kept = HERE / "engine.json"
    before = json.loads(kept.read_text("utf-8")) if kept.is_file() and not given.quick else {}
    for part in given.parts or (QUICK if given.quick else PARTS):
        more = {"large": True} if part == "fits" and given.large else {}
        before[part] = {"load": round(os.getloadavg()[0], 1), "found": PARTS[part](**more)}
        print(f"\n{part}\n\n{shown(before[part]['found'])}", flush=True)
    print(f"\ntargets\n\n{reached(before)}", flush=True)
    if given.quick:
        return
    before["versions"] = versions()
    kept.write_text(json.dumps(before, indent=1) + "\n", "utf-8")
    page = (HERE / "README.md").read_text("utf-8")
    head, _, rest = page.partition(BEGIN)
    text = "\n\n".join(
        [f"targets:\n\n{reached(before)}",
         *(f"{part}, load {before[part]['load']}:\n\n{shown(before[part]['found'])}"
           for part in PARTS if part in before)])
    said = ", ".join(f"{n} {v}" for n, v in versions().items())
    (HERE / "README.md").write_text(
        f"{head}{BEGIN}\n{text}\n\n{said}\n{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    main()
