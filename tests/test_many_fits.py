"""Many fits: every result once, in a file of its own, whoever does the work and whoever dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from carpk.many_fits import results
from carpk.problems import Problem, RequestError

ROOT = Path(__file__).parents[1]


def noting(source, asked):
    """Squares, slowly where asked for, with a line in a file for every request that was begun."""
    def square(request):
        if request < 0:
            raise RequestError(Problem("error", "is below 0", found=str(request)))
        with open(source, "a", encoding="utf-8") as file:
            file.write(f"{request} {os.getpid()}\n")
        time.sleep(asked.get("seconds", 0.0))
        return {"square": request**2, "threads": os.environ.get("NPROC", "")}
    return square


def begun(file):
    return [line.split() for line in file.read_text().splitlines()]


def requests(count):
    return {f"{k:03d}": k for k in range(count)}


def test_what_is_there_is_not_made_again_and_more_can_be_asked_for(tmp_path):
    notes, told = tmp_path / "notes", []
    first = results(noting, str(notes), {}, requests(3), tmp_path / "kept")
    again = results(noting, str(notes), {}, requests(5), tmp_path / "kept",
                    told=lambda done, total: told.append((done, total)))
    assert list(again) == list(requests(5))
    assert {n: again[n] for n in first} == first
    assert [k for k, _ in begun(notes)] == ["0", "1", "2", "3", "4"]
    assert told == [(3, 5), (4, 5), (5, 5)]


def test_results_of_another_question_are_not_mixed_in(tmp_path):
    results(noting, str(tmp_path / "notes"), {"seed": 1}, requests(1), tmp_path / "kept")
    with pytest.raises(RequestError, match="something else"):
        results(noting, str(tmp_path / "notes"), {"seed": 2}, requests(1), tmp_path / "kept")


def test_a_result_that_was_cut_short_is_no_result(tmp_path, monkeypatch):
    kept, notes = tmp_path / "kept", tmp_path / "notes"
    results(noting, str(notes), {}, {}, kept)
    monkeypatch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        results(noting, str(notes), {}, requests(2), kept)
    monkeypatch.undo()
    assert [f.name for f in kept.iterdir()] == ["asked.json"]
    assert len(results(noting, str(notes), {}, requests(2), kept)) == 2


def test_workers_are_processes_of_one_thread_and_what_they_refuse_is_said(tmp_path):
    notes = tmp_path / "notes"
    found = results(noting, str(notes), {"seconds": 0.2}, requests(6), tmp_path / "kept",
                    workers=2)
    assert [f["square"] for f in found.values()] == [0, 1, 4, 9, 16, 25]
    assert {f["threads"] for f in found.values()} == {"1"}
    workers = {pid for _, pid in begun(notes)}
    assert len(workers) == 2
    assert str(os.getpid()) not in workers
    with pytest.raises(RequestError, match="is below 0") as refused:
        results(noting, str(notes), {"seconds": 0.2}, {"bad": -1}, tmp_path / "kept", workers=2)
    assert refused.value.problems[0].found == "-1"


LONG = """
import sys
from carpk.many_fits import results
from test_many_fits import noting, requests
results(noting, sys.argv[1], {"seconds": 0.3}, requests(8), sys.argv[2], workers=2)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are sent")
def test_after_a_kill_only_what_was_not_kept_is_done(tmp_path):
    notes, kept = tmp_path / "notes", tmp_path / "kept"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    process = subprocess.Popen([sys.executable, "-c", LONG, notes, kept], env=environment,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while len(list(kept.glob("0*.json"))) < 3 and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = {f.name: f.stat().st_mtime_ns for f in kept.glob("0*.json")}
    assert 3 <= len(before) < 8
    for name in before:
        assert json.loads((kept / name).read_text())["square"] == int(name[:3]) ** 2
    notes.unlink()
    found = results(noting, str(notes), {"seconds": 0.3}, requests(8), kept)
    assert [f["square"] for f in found.values()] == [k**2 for k in range(8)]
    assert {f"{int(k):03d}.json" for k, _ in begun(notes)} == \
        {f"{k:03d}.json" for k in range(8)} - set(before)
    assert {n: (kept / n).stat().st_mtime_ns for n in before} == before


def dying(source, asked):
    return lambda request: os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(os.name != "posix", reason="signals are sent")
def test_a_worker_that_dies_is_a_sentence(tmp_path):
    with pytest.raises(RequestError, match="a worker died"):
        results(dying, "", {}, requests(2), tmp_path / "kept", workers=2)


def test_a_cluster_does_the_same_and_one_that_is_not_there_is_said(tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False,
                                  dashboard_address=None) as cluster:
        found = results(noting, str(tmp_path / "notes"), {}, requests(3), tmp_path / "kept",
                        scheduler=cluster.scheduler_address)
    assert [f["square"] for f in found.values()] == [0, 1, 4]
    with pytest.raises(RequestError, match="no scheduler answers"):
        results(noting, "", {}, requests(4), tmp_path / "kept", scheduler="127.0.0.1")
