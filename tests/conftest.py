"""What every test stands on: strict arrays, and the data sets that lie outside the project."""

import atexit
import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import jax
import jaxlib
import numpy as np
import pytest

from carpk import fitting, registry
from carpk.estimators import Convergence, Estimate, Estimator
from carpk.likelihood import population_location
from carpk.nonmem import read_csv
from carpk.population_model import population
from carpk.problems import DataError

# most of the tests' time is compilation, a third of which is spent on faster fused loops; a
# version that does not know the flag would end the process
if jaxlib.__version__.startswith("0.10."):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") \
        + " --xla_cpu_use_fusion_emitters=false"
jax.config.update("jax_numpy_rank_promotion", "raise")
# this run, its workers and the processes they start share what they compile, and leave the
# user's cache alone; a worker finds the folder in the environment
PROGRAMS = os.environ.get("CARPK_TEST_PROGRAMS")
if PROGRAMS is None:
    PROGRAMS = os.environ["CARPK_TEST_PROGRAMS"] = tempfile.mkdtemp(prefix="carpk-programs-")
    atexit.register(shutil.rmtree, PROGRAMS, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
jax.config.update("jax_compilation_cache_dir", PROGRAMS)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
# the first example of a property pays for a compilation
hypothesis.settings.register_profile("carpk", deadline=None)
hypothesis.settings.load_profile("carpk")


def script(file):
    """A script that lies outside of the package, as a module; what it does when run is not done."""
    spec = importlib.util.spec_from_file_location(f"script_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def shared_data() -> Path:
    """The folder of public data sets beside the repository."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the public data sets (../shared/data) are not on this machine")
    return folder


@pytest.fixture
def read(tmp_path):
    """read(text, **options): the cohort of a CSV with this text, as read_csv reads it."""
    def read(text, **options):
        path = tmp_path / "run.csv"
        path.write_text(text)
        return read_csv(path, **options)
    return read


@pytest.fixture
def refused(read):
    """refused(text, **options): the problems of a CSV that read_csv must refuse."""
    def refused(text, **options):
        with pytest.raises(DataError) as caught:
            read(text, **options)
        return caught.value.problems
    return refused


# what a file may call a patient: none of it may break a page, a picture or a table
IDS = ("1", "site 04 / <b>subject</b> & $x_1$", "患者3", "4", "5", "6", "7")


def cohort_text(ids=IDS) -> str:
    """A CSV of simulated stein_2019 patients: censored rows, a row with MDV, an unread column."""
    rng = np.random.default_rng(7)
    days = np.array([1.0, 4, 7, 10, 14, 21, 28, 60, 90, 180])
    rows = ["ID,TIME,DV,CENS,MDV,SEX"]
    for k, patient in enumerate(ids):
        tmax, cmax, alpha, beta = np.exp(
            np.log([9.3, 24000, 0.16, 0.01]) + [0.3, 0.6, 0.4, 0.4] * rng.normal(size=4))
        after = np.maximum(days - tmax, 0)
        level = cmax * np.exp(-np.maximum(tmax - days, 0)) * (
            0.99 * np.exp(-alpha * after) + 0.01 * np.exp(-beta * after))
        for day, dv in zip(days, level * np.exp(0.4 * rng.normal(size=len(days))), strict=True):
            below = dv < 50
            rows.append(f"{patient},{day:g},{50 if below else round(dv, 1)},{int(below)},0,F")
        if k == 1:
            rows.append(f"{patient},200,900,0,1,F")
    return "\n".join(rows) + "\n"


@dataclass(frozen=True)
class NearTypical(Estimator):
    """Draws scattered around the priors' medians: the shape of a fit without its cost."""

    ok: bool = True

    def fit(self, model, data, ids, seed, progress):
        rng = np.random.default_rng(seed)
        shape = (2, 50)
        centre = {n: model.priors[n].median for n in model.free}
        theta = {n: v * np.exp(0.1 * rng.normal(size=shape)) + 0.3 * (v == 0) * rng.normal(
            size=shape) for n, v in centre.items()}
        values = {**model.fixed, **centre}
        mu, _ = population_location(model, data, values)
        omega = np.array([values[f"omega_{n}"] for n in model.spread])
        eta = 0.3 * omega * rng.normal(size=(len(ids), len(model.spread)))
        noise = 0.05 * rng.normal(size=(*shape, len(ids), len(model.spread)))
        stats = {"diverging": np.zeros(shape, bool), "energy": rng.normal(size=shape)}
        return Estimate(
            theta, np.asarray(mu) + eta + noise, stats, "posterior",
            Convergence(self.ok, () if self.ok else ("R-hat of <all> is large: draw more",),
                        (), {"rhat_max": 1.002, "divergences": 0.0}), {"sample": 0.1})


@pytest.fixture
def near_typical(monkeypatch):
    """fit(model, cohort, ok=True) without sampling, through the whole of carpk.fit."""
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda kind, name: NearTypical
                        if (kind, name) == ("estimators", "near") else load(kind, name))
    return lambda model, cohort, **settings: fitting.fit(model, cohort, "near", seed=1,
                                                         **settings)


@pytest.fixture
def carpk(tmp_path, monkeypatch):
    """Runs a command, by its arguments, in a folder of its own."""
    from typer.testing import CliRunner

    from carpk import cli
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli.app, [*map(str, arguments)])


@pytest.fixture
def short_reports(monkeypatch):
    """Reports with one figure, where a report is not what is tested."""
    names = registry.names
    monkeypatch.setattr(registry, "names",
                        lambda kind: ["traces"] if kind == "plots" else names(kind))


@pytest.fixture(scope="session")
def small_fit(tmp_path_factory):
    """A real fit, far too short: seven patients, two chains of 30 draws, not converged. Of two
    workers one may find what the other has made."""
    made = sorted(Path(PROGRAMS).glob("small/2*"))
    if made:
        return fitting.load_fit(made[0])
    file = tmp_path_factory.mktemp("cohort") / "small.csv"
    file.write_text(cohort_text(), encoding="utf-8")
    result = fitting.fit(population("stein_2019"), read_csv(file, units={1: "copies/ug"}), seed=1,
                         chains=2, draws=30, warmup=30)
    result.save(Path(PROGRAMS) / "small")
    return result
