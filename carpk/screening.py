"""From many requests to their fits, each made once."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from carpk.fitting import Fit, fit
from carpk.many_fits import Result, Told, results
from carpk.model_choice import method_of
from carpk.problems import CarpkError, Problem, RequestError
from carpk.reporting import report
from carpk.requests import Request, seen_from, table

_KEPT = ".screen"  # of the folder of the fits: what is known of each
MEASURES = ("ofv", "aic", "bic")


def screened(files: Sequence[Path], *, seed: int = 1, out: Path | None = None, workers: int = 1,
             scheduler: str | None = None, told: Told | None = None) -> dict[str, Result]:
    """Of each run.toml what became of it, by the file's name: ok, reasons; fit (its folder),
    method, observations (their hash) and rows (how many), parameters (how many are free), seconds,
    and of a maximum ofv, aic, bic.

    seed : of the requests that state none; out : the folder of the fits, else the first request's
    A fit that is there and asks the same of the same files is not made again. RequestError with
    all that is wrong with the requests, before any is fitted.
    """
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
    made = results(fit_by_fit, str(folder.resolve()), {}, names, folder / _KEPT, workers=workers,
                   scheduler=scheduler, told=told)
    return dict(zip(asked, made.values(), strict=True))


def ranked(made: Mapping[str, Result]) -> list[dict[str, Result]]:
    """Results by what can be compared, fits of one method on the same observations, each group by
    BIC, the groups as they were asked for; requests that came to no fit last.

    >>> [list(group) for group in ranked({
    ...     "a": {"method": "focei", "observations": "x", "bic": 3.0}, "b": {"reasons": ["no"]},
    ...     "c": {"method": "fo", "observations": "x", "bic": 1.0},
    ...     "d": {"method": "focei", "observations": "x", "bic": 2.0}})]
    [['d', 'a'], ['c'], ['b']]
    """
    groups: dict[tuple[str, ...], dict[str, Result]] = {}
    for name, r in sorted(made.items(), key=lambda kv: "method" not in kv[1]):
        of = (r["method"], r["observations"]) if "method" in r else ()
        groups.setdefault(of, {})[name] = r
    return [dict(sorted(group.items(), key=lambda kv: kv[1].get("bic", math.inf)))
            for group in groups.values()]


def _resolved(file: Path) -> dict[str, Any]:
    """The request as plain JSON, its paths those that any process sees."""
    plain: dict[str, Any] = json.loads(json.dumps(seen_from(table(file), Path.cwd())))
    return plain


def _stamp(request: Mapping[str, Any]) -> str:
    """Of what is asked, and of the files as they are."""
    stamp = hashlib.sha256(json.dumps(request, sort_keys=True).encode())
    for file in map(Path, (request["model"], request["data"]["file"])):
        if file.is_file():
            stamp.update(file.read_bytes())
    return stamp.hexdigest()[:12]


def fit_by_fit(source: str, asked: Mapping[str, Any]) -> Callable[[Any], Result]:
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
                "method": method_of(made), "observations": _observations(made),
                "rows": int(made.design.observed.sum()),
                "parameters": len(made.model.free), "seconds": sum(
                    made.manifest["seconds"].values()),
                **{n: known.measures[n] for n in MEASURES if n in known.measures}}
    return one


def _observations(made: Fit) -> str:
    """The hash of the lines that were fitted and their values."""
    stamp = hashlib.sha256(made.manifest["data"]["sha256"].encode())
    seen = made.posterior["observed_data"].dataset
    for values in (made.posterior["constant_data"].dataset["line"], seen["lower"], seen["upper"]):
        stamp.update(values.values.tobytes())
    return stamp.hexdigest()[:12]
