"""How long a fit takes from a cold start: a new process per row, imports, compilation and tables.

    python benchmarks/estimators.py            every row, without a compile cache
    python benchmarks/estimators.py theophylline --warm

The public data sets are looked for in ../shared/data. Times are wall seconds and, because other
work on the machine moves them less, CPU seconds; the fit's own stages are by the wall and hold the
compilation of what they run. "load" is how many processes wanted a core meanwhile. The result is
kept in estimators.json and as the table of README.md; rows that are named are made anew. With
--warm, which is not kept, each row is run twice, the second time with the first's programs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
DATA = ROOT.parent / "shared" / "data"
ROWS = {  # name: (reference in tests/references.py, estimator, copies of the cohort)
    "theophylline": ("theophylline_nlmer", "focei", 1),
    "stein90-saem": ("stein90", "saem", 1), "stein90-laplace": ("stein90", "laplace", 1),
    "stein90-focei": ("stein90", "focei", 1),
    "pkpd40-saem": ("pkpd40", "saem", 1), "pkpd40-laplace": ("pkpd40", "laplace", 1),
    "tisacel-90": ("tisacel", "saem", 1), "tisacel-400": ("tisacel", "saem", 400 / 90),
    "tisacel-2000": ("tisacel", "saem", 2000 / 90),
    "stein90-nuts": ("stein90", "nuts", 1), "stein90-gibbs": ("stein90", "gibbs", 1),
    "pkpd40-gibbs": ("pkpd40", "gibbs", 1), "gibbs-2000": ("stein90", "gibbs", 2000 / 90),
    "nuts-2000": ("stein90", "nuts", 2000 / 90),
}
SETTINGS = {"gibbs-2000": {"draws": 1000}, "nuts-2000": {"draws": 250}}  # for ESS of 200 and more
APART = ("nuts-2000",)  # takes a quarter of an hour: only where it is asked for
BEGIN, END = "<!-- estimators -->", "<!-- end of estimators -->"
COLUMNS = ("fit", "patients", "wall s", "cpu s", "of theophylline's cpu", "GB", "OFV or ESS",
           "converged", "stages, wall s", "load")


def one(name: str) -> None:
    """Fits one row and prints it as JSON; run in a process of its own."""
    begun = time.perf_counter()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    import references

    from carpk import example, population, tables
    from carpk.fitting import fit

    reference, estimator, copies = ROWS[name]
    if reference == "tisacel":
        model, cohort = population("stein_2019"), example("tisacel_like")
    else:
        model, cohort, _ = getattr(references, reference)(DATA)
    if copies != 1:
        cohort = replicated(cohort, copies)
    result = fit(model, cohort, estimator, seed=1, **SETTINGS.get(name, {}))
    tables.parameters(result)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({
        "patients": len(cohort.ids), "wall_seconds": round(time.perf_counter() - begun, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "gigabytes": round(_most_memory() / 1e6, 2),
        **{n: round(v, 2) for n, v in result.convergence.measures.items()
           if n in ("ofv", "ess_bulk_min", "gradients")},
        **{n: round(v, 4) for n, v in result.convergence.measures.items() if n == "rhat_max"},
        "converged": result.convergence.ok,
        "stages": {n: round(s, 1) for n, s in result.manifest["seconds"].items()},
        "load": round(os.getloadavg()[0], 1)}))


def _most_memory() -> int:
    """In kB, of this process alone, on Linux: what getrusage tells begins at that of the one it
    was forked from."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0])


def fresh(name: str, programs: str) -> dict[str, Any]:
    """A row, of a process of its own; programs : the folder where compiled ones are kept."""
    done = subprocess.run([sys.executable, __file__, "--one", name], check=True, text=True,
                          stdout=subprocess.PIPE, env={**os.environ, "XDG_CACHE_HOME": programs})
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


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


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as a table in Markdown, in the order of ROWS."""
    lines: list[tuple[Any, ...]] = [COLUMNS, tuple("---" for _ in COLUMNS)]
    unit = rows.get("theophylline", {}).get("cpu_seconds", math.nan)
    for name in (n for n in ROWS if n in rows):
        r = rows[name]
        share = r["cpu_seconds"] / unit
        lines.append((name, r["patients"], f"{r['wall_seconds']:.1f}", f"{r['cpu_seconds']:.1f}",
                      f"{share:.1f}" if math.isfinite(share) else "", f"{r['gigabytes']:.2f}",
                      f"{r['ofv']:.2f}" if "ofv" in r else f"ESS {r['ess_bulk_min']:.0f}",
                      "yes" if r["converged"] else "no",
                      ", ".join(f"{n} {s:.1f}" for n, s in r["stages"].items()), r["load"]))
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def growth(rows: dict[str, dict[str, Any]]) -> str:
    """By which power of the number of patients the CPU time of one fit grows."""
    sizes = [rows[n] for n in ROWS if n.startswith("tisacel-") and n in rows]
    found = []
    for a, b in itertools.pairwise(sizes):
        power = math.log(b["cpu_seconds"] / a["cpu_seconds"]) \
            / math.log(b["patients"] / a["patients"])
        found.append(f"from {a['patients']} to {b['patients']} patients CPU time grows with the "
                     f"power {power:.2f}")
    return "; ".join(found)


def versions() -> dict[str, str]:
    """What the numbers depend on."""
    return {**{n: importlib.metadata.version(n) for n in ("jax", "jaxlib", "numpy")},
            "python": platform.python_version(), "machine": platform.machine(),
            "cores": str(os.cpu_count())}


def keep(rows: dict[str, dict[str, Any]]) -> None:
    """Writes estimators.json and the table of README.md."""
    (HERE / "estimators.json").write_text(json.dumps(
        {"versions": versions(), "fits": rows}, indent=1) + "\n", "utf-8")
    page = (HERE / "README.md").read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    said = "\n\n".join(t for t in (table(rows), growth(rows), ", ".join(
        f"{n} {v}" for n, v in versions().items())) if t)
    (HERE / "README.md").write_text(f"{before}{BEGIN}\n{said}\n{END}{after}", "utf-8")


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
    kept = HERE / "estimators.json"
    before = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    rows = before["fits"] if given.rows and before.get("versions") == versions() else {}
    print(table({}), flush=True)
    for name in given.rows or [n for n in ROWS if n not in APART]:
        with tempfile.TemporaryDirectory() as programs:
            for again in range(2 if given.warm else 1):
                row = fresh(name, programs)
                print(table({name: row}).splitlines()[-1], flush=True)
                if not again and not given.warm:
                    rows[name] = row
                    keep(rows)


if __name__ == "__main__":
    main()
