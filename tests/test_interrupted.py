"""A fit that is killed, at whatever point, leaves nothing that looks like a fit."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import cohort_text

from carpk import fitting
from carpk.problems import RequestError

ROOT = Path(__file__).parents[1]
ENDLESS = """
model = "stein_2019"
seed = 1
out = "fits"
[data]
file = "small.csv"
[settings]
chains = 2
warmup = 30  # with the cohort of small_fit the program of small_fit: compiled once
draws = 10000000
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are sent")
@pytest.mark.parametrize("how", [
    signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])  # passed, 12 s
def test_a_process_killed_while_it_samples_leaves_no_fit(tmp_path, how):
    (tmp_path / "run.toml").write_text(ENDLESS)
    (tmp_path / "small.csv").write_text(cohort_text(), encoding="utf-8")
    process = subprocess.Popen([sys.executable, "-m", "carpk", "fit", tmp_path / "run.toml"],
                               cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if line.startswith("compile: "):
                break
        time.sleep(0.5)  # well inside the sampling
        assert process.poll() is None
        process.send_signal(how)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert list((tmp_path / "fits").iterdir()) == []
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert said.endswith("interrupted, nothing was written\n")
    else:
        assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("step", ["posterior.nc", "model.py", "manifest.json", "rename"])
@pytest.mark.parametrize("cleaned", [True, False])
def test_a_save_that_is_cut_short_leaves_no_fit(small_fit, tmp_path, monkeypatch, step,
                                                     cleaned):
    """`cleaned` is an interrupt; without it the process is killed and can tidy nothing."""
    def die(*arguments, **options):
        raise KeyboardInterrupt

    if step == "rename":
        monkeypatch.setattr(os, "rename", die)
    elif step == "posterior.nc":
        monkeypatch.setattr(type(small_fit.posterior), "to_netcdf", die)
    else:
        write = Path.write_text

        def half(path, text, **options):
            if path.name != step:
                return write(path, text, **options)
            write(path, text[:len(text) // 2], **options)
            raise KeyboardInterrupt

        monkeypatch.setattr(Path, "write_text", half)
    if not cleaned:
        monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
    with pytest.raises(KeyboardInterrupt):
        small_fit.save(tmp_path)
    monkeypatch.undo()
    left = list(tmp_path.iterdir())
    if cleaned:
        assert left == []
    else:
        assert [f.name.startswith(".unfinished-") for f in left] == [True]
    if step != "rename":  # all is written then: only the name is not yet its own
        for folder in left:
            with pytest.raises(RequestError, match="not a fit"):
                fitting.load_fit(folder)
    assert fitting.load_fit(small_fit.save(tmp_path)).manifest == small_fit.manifest
