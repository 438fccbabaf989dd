"""Many independent fits: in this process, on this machine's cores or on a cluster, each result
kept in a file of its own as it comes, so that what is done is never done again."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from carpk.problems import Problem, RequestError
from carpk.program_cache import keep_programs

Result = dict[str, Any]
Prepare = Callable[[str, Mapping[str, Any]], Callable[[Any], Result]]
"""A function of a module, by whose name workers find it: from where things lie and what is asked
to the function of one request. What is dear, as compiling, is done here, once per process."""
Told = Callable[[int, int], None]

_QUESTION = "asked.json"
# read when JAX opens its device, which importing it does not do: workers share the cores
_ONE_THREAD = {"NPROC": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
               "MKL_NUM_THREADS": "1"}
_prepared: dict[str, Callable[[Any], Result]] = {}


def results(prepare: Prepare, source: str, asked: Mapping[str, Any], requests: Mapping[str, Any],
            folder: str | Path, *, workers: int = 1, scheduler: str | None = None,
            told: Told | None = None, ready: Callable[[Any], Result] | None = None) \
        -> dict[str, Result]:
    """The result of every request, by name, in the order of the requests.

    prepare, source, asked : what each process prepares, `prepare(source, asked)`
    requests : by a name that can be a file's; asked, requests and results are plain JSON
    folder : where results are kept; those that are there are read, not made again
    workers : processes on this machine, of one thread each; 1 is this process
    scheduler : address of a dask cluster instead, whose workers see `source`
    told : called with how many are there, of how many
    ready : what this process has prepared already, where it does the work itself
    Raises RequestError where the folder holds results of something else, and where workers die
    or cannot be reached; what was done by then is kept.

    >>> place = tempfile.mkdtemp()
    >>> results(doubled, "", {}, {"one": 1, "two": 2}, place)
    {'one': {'twice': 2}, 'two': {'twice': 4}}
    >>> sorted(f.name for f in Path(place).iterdir())
    ['asked.json', 'one.json', 'two.json']
    """
    if workers < 1:
        raise RequestError(Problem("error", "must be at least 1", column="workers",
                                   found=str(workers)))
    folder, say = Path(folder), told or (lambda done, total: None)
    folder.mkdir(parents=True, exist_ok=True)
    _same_question(folder / _QUESTION, asked)
    kept = {n: json.loads(_file(folder, n).read_text("utf-8")) for n in requests
            if _file(folder, n).is_file()}
    left = {n: r for n, r in requests.items() if n not in kept}
    say(len(kept), len(requests))
    here = workers == 1 and scheduler is None
    made = ((n, ready(r)) for n, r in left.items()) if here and ready else (
        _here if here else _on_cores if scheduler is None else _on_cluster)(
            prepare, source, asked, left, workers, scheduler)
    for name, result in made:
        _write(_file(folder, name), result)
        kept[name] = result
        say(len(kept), len(requests))
    return {n: kept[n] for n in requests}


def doubled(source: str, asked: Mapping[str, Any]) -> Callable[[Any], Result]:
    """The least that can be prepared, to see that workers answer.

    >>> doubled("", {})(3)
    {'twice': 6}
    """
    return lambda request: {"twice": 2 * request}


def _here(prepare: Prepare, source: str, asked: Mapping[str, Any], left: Mapping[str, Any],
          workers: int, scheduler: str | None) -> Iterator[tuple[str, Result]]:
    for name, request in left.items():
        yield name, _answered(prepare, source, asked, request)


def _on_cores(prepare: Prepare, source: str, asked: Mapping[str, Any], left: Mapping[str, Any],
              workers: int, scheduler: str | None) -> Iterator[tuple[str, Result]]:
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    pool = Parallel(n_jobs=workers, backend="loky", batch_size=1,
                    return_as="generator_unordered")
    try:
        yield from pool(delayed(_by_worker)(prepare, source, asked, n, r)
                        for n, r in left.items())
    except TerminatedWorkerError:
        raise RequestError(Problem(
            "error", "a worker died, perhaps for want of memory", "what was done is kept: ask "
            "again, with fewer workers", column="workers", found=str(workers))) from None


def _on_cluster(prepare: Prepare, source: str, asked: Mapping[str, Any], left: Mapping[str, Any],
                workers: int, scheduler: str | None) -> Iterator[tuple[str, Result]]:
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise RequestError(Problem("error", "a cluster needs dask", "pip install 'carpk[cluster]'",
                                   column="scheduler", found=scheduler)) from None
    try:
        client = Client(scheduler, timeout="20s")
    except (OSError, ValueError) as failure:
        raise RequestError(Problem("error", f"no scheduler answers ({failure})",
                                   "start one: dask scheduler, and dask worker ADDRESS "
                                   "--nthreads 1", column="scheduler", found=scheduler)) from None
    with client:
        futures = [client.submit(_by_worker, prepare, source, dict(asked), n, r, pure=False)
                   for n, r in left.items()]
        for future in as_completed(futures):
            yield future.result()


def _by_worker(prepare: Prepare, source: str, asked: Mapping[str, Any], name: str, request: Any) \
        -> tuple[str, Result]:
    for variable, value in _ONE_THREAD.items():
        os.environ.setdefault(variable, value)
    return name, _answered(prepare, source, asked, request)


def _answered(prepare: Prepare, source: str, asked: Mapping[str, Any], request: Any) -> Result:
    """One result, by what this process has prepared."""
    key = json.dumps([prepare.__module__, prepare.__qualname__, source, asked], sort_keys=True)
    if key not in _prepared:
        keep_programs()
        _prepared.clear()  # of one question at a time: programs are large
        _prepared[key] = prepare(source, asked)
    return _prepared[key](request)


def _same_question(file: Path, asked: Mapping[str, Any]) -> None:
    """Results of one question are not read as another's."""
    if not file.is_file():
        _write(file, dict(asked))
    elif json.loads(file.read_text("utf-8")) != json.loads(json.dumps(asked)):
        raise RequestError(Problem("error", "holds results of something else",
                                   "delete it, or name another folder", str(file.parent)))


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _write(path: Path, content: Result) -> None:
    """Whole or absent: written beside, then renamed."""
    handle, beside = tempfile.mkstemp(prefix=".unfinished-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, allow_nan=False)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
