"""Several starts of a search: they are the seed's, and whether they agree is said as it is."""

import io
import re

import numpy as np
import pytest
from models_for_tests import DECAY, decaying
from rich.console import Console
from typer.testing import CliRunner

from carpk import plots, tables
from carpk.cli import app
from carpk.cli_fit import starts_table
from carpk.cohort import design
from carpk.fitting import fit
from carpk.multistart import Ended, agreed, dispersed
from carpk.plots import starts
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.problems import RequestError

COHORT = decaying(20)  # as in tests/estimators/test_maximum_likelihood.py, whose programs it shares
MODEL, _ = resolve(population(DECAY, covariates={"k ~ WT": "linear(70)"}, correlated="full"),
                   design(COHORT, DECAY), {})
SIZE = len(MODEL.free)


def ended(ofv, moved=0.0, se=0.0):
    u = np.zeros(SIZE)
    u[0] = moved
    return Ended(np.zeros(SIZE), u, ofv, se, 7)


def judged(*each, se=0.0):
    return agreed(MODEL, each, np.zeros(SIZE), 100.0, 0.01 * np.eye(SIZE), se)


def test_the_first_start_is_the_start_and_the_others_are_the_seeds():
    u = np.linspace(-1.0, 1.0, SIZE)
    found = dispersed(MODEL, u, 2001, 1)
    assert np.array_equal(found[0], u)
    assert np.array_equal(found, dispersed(MODEL, u, 2001, 1))
    assert not np.array_equal(found[1], dispersed(MODEL, u, 2001, 2)[1])
    sds = dict(zip(MODEL.free, found[1:].std(axis=0), strict=True))
    assert sds["C0_pop"] == pytest.approx(1.0, rel=0.1)
    assert sds["omega_k"] == pytest.approx(np.log(2), rel=0.1)
    assert sds["corr_C0_k"] == pytest.approx(0.5, rel=0.1)


def test_what_starts_say_of_each_other_is_said_in_a_sentence():
    assert judged(ended(100.0)) == ({}, [], [])
    records, against, remarks = judged(ended(100.0), ended(100.005, 0.02))
    assert against == []
    assert remarks == ["all 2 starts end at the same maximum"]
    assert [r["distance"] for r in records["starts"]] == pytest.approx([0.0, 0.2])
    _, against, [remark] = judged(ended(100.0), ended(100.0), ended(103.5))
    assert against == []
    assert remark.startswith("1 of 3 starts ended at an OFV higher by 3.5 to 3.5")
    _, [reason], _ = judged(ended(100.0), ended(102.0), ended(103.5))
    assert reason.startswith("only one of 3 starts came to the best OFV")
    _, _, [remark] = judged(ended(100.0), ended(100.0, -0.3))
    assert "up to 3 standard errors away in C0_pop" in remark
    records, _, remarks = judged(ended(100.0), ended(100.0), ended(np.nan))
    assert records["starts"][2]["ofv"] is None
    assert "no solution from starts 3" in remarks


def test_how_near_to_0_a_spread_came_is_no_distance():
    covariance = 0.01 * np.eye(SIZE)
    covariance[0, 0] = 0.0
    _, _, remarks = agreed(MODEL, [ended(100.0), ended(100.0, 3.0)], np.zeros(SIZE), 100.0,
                           covariance)
    assert remarks == ["all 2 starts end at the same maximum"]


def test_monte_carlo_noise_is_no_other_maximum():
    assert judged(ended(100.0, se=0.2), ended(100.5, se=0.2), se=0.2)[2] == [
        "all 2 starts end at the same maximum"]


@pytest.mark.parametrize("starts", [0, -1, 2.5])
def test_a_number_of_starts_that_is_none_is_refused(starts):
    with pytest.raises(RequestError):
        fit(population(DECAY), COHORT, "focei", seed=1, starts=starts)


@pytest.fixture(scope="module")
def searched():
    return fit(population(DECAY), COHORT, "laplace", seed=1, draws=51, starts=3)


def test_searches_from_afar_come_to_the_same_maximum_and_show_it(searched):
    table = tables.starts(searched)
    best = searched.convergence.measures["ofv"]
    assert table["ofv"].to_numpy() == pytest.approx(best, abs=0.01)
    assert table["distance"].max() < 0.5
    began = [r["began"]["C0_pop"] for r in searched.manifest["starts"]]
    assert np.ptp(np.log(began)) > 0.5
    assert "all 3 starts end at the same maximum" in searched.convergence.remarks
    at = {n: v["estimate"] for n, v in searched.manifest["estimates"].items()}
    assert table.loc[table["difference"].idxmin(), list(at)].to_dict() == pytest.approx(
        at, rel=1e-2)


def test_the_starts_are_printed_and_drawn(searched, near_typical):
    console = Console(file=io.StringIO(), width=100)
    console.print(starts_table(searched))
    assert re.search(r"\n +3 +\S+ +-?0\.00\d", console.file.getvalue())
    [(name, figure)] = starts.draw(searched)
    assert name == "starts"
    assert b"omega_k" in plots.svg(figure)
    assert starts.draw(near_typical(population(DECAY), COHORT)) == []


DECLINE = '''
"""A mono-exponential decline."""
import jax.numpy as jnp
from carpk.structure import Output, Parameter, Source, StructuralModel, sd
MODEL = StructuralModel(
    title="decline", source=Source("textbook"), time_unit="day",
    parameters=(Parameter("C0", 100.0, "mg/L", "start", omega=sd(0.5)),
                Parameter("k", 0.2, "1/day", "rate", omega=sd(0.3))),
    outputs=(Output("C", "mg/L", "level"),),
    solution=lambda t, p: {"C": p.C0 * jnp.exp(-p.k * t)})
'''


@pytest.fixture(scope="module")
def decline(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "decline.py"
    file.write_text(DECLINE, encoding="utf-8")
    return population(str(file), covariates={"k ~ WT": "linear(70)"})


@pytest.fixture(scope="module")
def alone(decline):
    return fit(decline, COHORT, "focei", seed=1, draws=51, starts=3)


def test_starts_by_workers_are_those_of_this_process_to_the_last_digit(decline, alone):
    shared = fit(decline, COHORT, "focei", seed=1, draws=51, starts=3, workers=2)
    _are_the_same(alone, shared)


@pytest.mark.slow  # passed
def test_starts_of_saem_by_workers_are_those_of_this_process_to_the_last_digit(decline):
    _are_the_same(*(fit(decline, COHORT, "saem", seed=1, draws=51, starts=3, workers=n,
                        burn_in=100, smoothing=50) for n in (1, 2)))


def _are_the_same(alone, shared):
    assert shared.manifest["starts"] == alone.manifest["starts"]
    assert shared.manifest["estimates"] == alone.manifest["estimates"]
    assert shared.manifest["name"] == alone.manifest["name"]


def test_a_fit_from_several_starts_goes_on_and_makes_no_start_again(decline, alone, tmp_path):
    def search(told=None):
        return fit(decline, COHORT, "focei", seed=1, draws=51, starts=3, progress=told,
                   unfinished=tmp_path / "fits")

    def dying(stage, done, total):
        if stage == "estimate" and done == 82:  # two starts of three have ended
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as interrupt:
        search(dying)
    [folder] = (tmp_path / "fits").iterdir()
    assert interrupt.value.args == (str(folder),)
    kept = {f.name: f.stat().st_mtime_ns for f in (folder / "starts").glob("start-*.json")}
    assert sorted(kept) == ["start-0.json", "start-1.json"]
    told = []
    resumed = search(lambda stage, done, total: told.append(done) if stage == "estimate" else None)
    assert min(told) == 82
    assert {n: (folder / "starts" / n).stat().st_mtime_ns for n in kept} == kept
    assert resumed.manifest["starts"] == alone.manifest["starts"]
    assert resumed.manifest["estimates"] == alone.manifest["estimates"]
    saved = resumed.save(tmp_path / "fits")
    assert list((tmp_path / "fits").iterdir()) == [saved]


def test_workers_of_one_start_are_refused(decline):
    for asked in ({"workers": 2}, {"scheduler": "localhost:8786"}):
        with pytest.raises(RequestError, match="make several starts"):
            fit(decline, COHORT, "focei", seed=1, **asked)


@pytest.mark.slow  # passed, 98 s with a load of 15 on two cores
def test_saem_from_several_starts_agrees_with_itself():
    cohort = decaying(20, limit=5.0)
    found = fit(population(DECAY), cohort, "saem", seed=1, draws=51, starts=3)
    alone = fit(population(DECAY), cohort, "saem", seed=1, draws=51)
    first = found.manifest["starts"][0]
    assert first["ofv"] == alone.convergence.measures["ofv"]
    assert found.convergence.measures["ofv"] <= first["ofv"]
    assert tables.starts(found)["distance"].max() < 0.5


def test_the_options_of_a_start_reach_the_estimator():
    done = CliRunner().invoke(app, [
        "fit", "example:tisacel_like", "--model", "stein_2019", "--estimator", "focei", "--seed",
        "1", "--starts", "0", "--inits", "dat"])
    assert done.exit_code == 1
    assert "starts = 0: must be a whole number above 0" in done.stderr
    assert "inits = dat: neither data nor typical" in done.stderr
