"""A fit that is killed, at whatever point, leaves nothing that looks like a fit, and goes on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from conftest import cohort_text
from typer.testing import CliRunner

from carpk import chains, cli, fitting
from carpk.checkpoints import Checkpoints
from carpk.nonmem import read_csv
from carpk.population_model import population
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


@pytest.mark.slow  # passed, 10 and 12 s
@pytest.mark.skipif(os.name != "posix", reason="signals are sent")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
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
    [left] = (tmp_path / "fits").iterdir()
    assert left.suffix == ".unfinished"
    with pytest.raises(RequestError, match="not a fit"):
        fitting.load_fit(left)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert said.endswith(f"interrupted; carpk fit --resume {left} goes on\n")
    else:
        assert process.returncode == -signal.SIGKILL


@pytest.mark.slow  # passed, 14 s
def test_a_fit_that_was_interrupted_goes_on_to_the_same_draws(small_fit, tmp_path, monkeypatch):
    monkeypatch.setattr(chains, "_SAVED", 0.0)
    monkeypatch.setattr(fitting.program_cache, "keep_programs", lambda: ())
    file = tmp_path / "small.csv"
    file.write_text(cohort_text(), encoding="utf-8")
    cohort = read_csv(file, units={1: "copies/ug"})
    seen = []

    def dying(after):
        def progress(stage, done, total):
            seen.append((stage, done))
            if stage.startswith("sample") and done >= after:
                raise KeyboardInterrupt
        return progress

    def again(progress, place=tmp_path / "fits", draws=30):
        return fitting.fit(population("stein_2019"), cohort, seed=1, chains=2, draws=draws,
                           warmup=30, unfinished=place, progress=progress)

    for after in (40, 80):  # in the warm-up, then among the draws
        with pytest.raises(KeyboardInterrupt) as interrupt:
            again(dying(after))
        [folder] = (tmp_path / "fits").iterdir()
        assert interrupt.value.args == (str(folder),)
        assert (("sample: 0/2 warmed up", 20) in seen) == (after == 40)
        seen.clear()
    with pytest.raises(RequestError, match="have changed since this fit was begun"):
        again(dying(0), folder, draws=31)
    result = again(lambda stage, done, total: seen.append((stage, done)), folder)
    assert min(done for stage, done in seen if stage.startswith("sample")) > 80
    assert ("sample", 120) in seen
    xr.testing.assert_equal(result.posterior["posterior"].dataset,
                            small_fit.posterior["posterior"].dataset)
    saved = result.save(tmp_path / "fits")
    assert list((tmp_path / "fits").iterdir()) == [saved]


# kills its own process, as it is killed from outside: nothing is tidied
KILLED = """
import os, signal
from carpk import chains, checkpoints
from carpk.cli import main
chains._SAVED = 0.0
save, count = checkpoints.Checkpoints.save, 0

def dying(kept, name, arrays):
    global count
    save(kept, name, arrays)
    count += name.startswith("chain-")
    if count == 5:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoints.Checkpoints.save = dying
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are sent")
def test_a_killed_command_is_resumed_from_any_folder_to_the_same_draws(small_fit, tmp_path,
                                                                       monkeypatch):
    study, elsewhere = tmp_path / "study", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (study / "data").mkdir(parents=True)
    (study / "data" / "small.csv").write_text(cohort_text(), encoding="utf-8")
    asked = ["fit", "data/small.csv", "--model", "stein_2019", "--seed", "1", "--chains", "2",
             "--draws", "30", "--warmup", "30", "--unit", "1=copies/ug"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *asked], cwd=study, check=False,
                            capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT),
                                                      "CARPK_CACHE": "off"})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    [left] = (study / "fits").iterdir()
    assert list(left.glob("chain-*.npz"))
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(fitting.program_cache, "keep_programs", lambda: ())
    done = CliRunner().invoke(cli.app, ["fit", "--resume", "../study/fits/" + left.name])
    assert Path.cwd() == elsewhere
    folder = Path(done.stdout.splitlines()[-1])
    assert list((study / "fits").iterdir()) == [folder], done.output
    result = fitting.load_fit(folder)
    assert result.manifest["request"]["data"]["file"] == "data/small.csv"
    xr.testing.assert_equal(result.posterior["posterior"].dataset,
                            small_fit.posterior["posterior"].dataset)


def test_versions_that_differ_from_those_of_an_unfinished_fit_are_named(tmp_path):
    kept = Checkpoints(tmp_path / "x.unfinished", {"request": {}, "versions": {"jax": "1"}})
    assert kept.load("chain-0") is None
    kept.save("chain-0", {"u": np.arange(3.0)})
    kept.save("chain-0", {"u": np.arange(4.0)})
    later = Checkpoints(kept.folder, {"request": {}, "versions": {"jax": "2"}})
    assert (later.other_versions, kept.other_versions) == ({"jax": "1"}, {})
    np.testing.assert_array_equal(later.load("chain-0")["u"], np.arange(4.0))
    assert sorted(f.name for f in kept.folder.iterdir()) == ["chain-0.npz", "request.json"]


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
