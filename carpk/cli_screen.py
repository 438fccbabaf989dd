"""From many requests to their fits and a table of them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from carpk.fitting import fit
from carpk.many_fits import Result, results
from carpk.problems import CarpkError, Problem, RequestError
from carpk.progress import Stages
from carpk.reporting import report
from carpk.requests import Request, table

_KEPT = ".screen"  # of the folder of the fits: what is known of each
_MEASURES = {"ofv": "OFV", "aic": "AIC", "bic": "BIC"}


def run(files: list[Path], workers: int, scheduler: str | None, seed: int, out: Path | None) -> int:
    """Makes the fits that are not there yet and prints all; the exit code."""
    asked: dict[str, dict[str, Any]] = {}
    found: list[Problem] = []
    for file in files:
        try:
            request = Request.read(file)
            request.population()  # before any of them is fitted
            asked[str(file)] = {**_resolved(file), "seed": seed if request.seed is None
                                else request.seed}
        except CarpkError as refused:
            found += refused.problems
    names = {f"{Path(f).stem}-{_stamp(r)}": r for f, r in asked.items()}
    if len(names) < len(files) and not found:
        found.append(Problem("error", "the same request is named twice", "name each once"))
    if found:
        raise RequestError(found)
    folder = out or Path(Request.read(files[0]).out)
    for known in (folder / _KEPT / f"{name}.json" for name in names):
        if known.is_file() and not Path(json.loads(known.read_text("utf-8"))
                                        .get("fit", folder)).is_dir():
            known.unlink()  # a fit that was deleted is made again
    with Stages() as progress:
        made = results(fitting, str(folder), {}, names, folder / _KEPT, workers=workers,
                       scheduler=scheduler, told=lambda n, all_: progress("fits", n, all_))
    shown = dict(zip(asked, made.values(), strict=True))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=140)
    console.print(_table(shown), crop=False)
    for name, result in shown.items():
        for reason in result["reasons"]:
            console.print(f"{name}: {reason}")
    return 0 if all(r["ok"] for r in made.values()) else 3


def _resolved(file: Path) -> dict[str, Any]:
    """The request as plain JSON, its paths those that this process sees."""
    asked = table(file)
    if asked["model"].endswith(".py"):
        asked["model"] = str(Path(asked["model"]).resolve())
    if not asked["data"]["file"].startswith("example:"):
        asked["data"]["file"] = str(Path(asked["data"]["file"]).resolve())
    plain: dict[str, Any] = json.loads(json.dumps(asked))
    return plain


def _stamp(request: Mapping[str, Any]) -> str:
    """Of what is asked, and of the files as they are."""
    stamp = hashlib.sha256(json.dumps(request, sort_keys=True).encode())
    for file in map(Path, (request["model"], request["data"]["file"])):
        if file.is_file():
            stamp.update(file.read_bytes())
    return stamp.hexdigest()[:12]


def fitting(source: str, asked: Mapping[str, Any]) -> Callable[[Any], Result]:
    """Fits one request and reports it into a folder of its own in `source`."""
    def one(request: Mapping[str, Any]) -> Result:
        try:
            stated = Request.of({k: v for k, v in request.items() if k != "out"})
            assert stated.seed is not None
            model = stated.population()
            made = fit(model, stated.cohort(model.structure), stated.estimator,
                       seed=stated.seed, **stated.settings)
        except CarpkError as refused:
            return {"ok": False, "reasons": [str(p) for p in refused.problems]}
        folder = made.save(source)
        report(made, folder)
        known = made.convergence
        return {"ok": known.ok, "reasons": list(known.reasons), "fit": str(folder.resolve()),
                "parameters": len(made.model.free), "seconds": sum(
                    made.manifest["seconds"].values()),
                **{n: known.measures[n] for n in _MEASURES if n in known.measures}}
    return one


def _table(shown: Mapping[str, Result]) -> Table:
    made = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    made.add_column("request", overflow="fold")
    for heading in ("parameters", *_MEASURES.values(), "seconds"):
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("fit", overflow="fold")
    for name, r in sorted(shown.items(), key=lambda kv: kv[1].get("bic", math.inf)):
        cells = [f"{r[n]:.2f}" if n in r else "" for n in _MEASURES]
        seconds = f"{r['seconds']:.1f}" if "seconds" in r else ""
        made.add_row(name, str(r.get("parameters", "")), *cells, seconds,
                     (Path(r["fit"]).name if "fit" in r else "refused")
                     + ("" if r["ok"] or "fit" not in r else " NOT CONVERGED"))
    return made
