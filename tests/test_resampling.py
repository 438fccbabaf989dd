"""The bootstrap against closed forms: replicates, influences, intervals; what is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from level_fits import PATIENTS, level_fit, levels, likeliest
from scipy import stats
from test_changes import LATE, ONE, written
from typer.testing import CliRunner

from carpk import cli, resampling
from carpk.cohort import design
from carpk.expected_information import censored_below
from carpk.fitting import fit, load_fit
from carpk.likelihood import data_of, patient_log_likelihood, predicted_rows
from carpk.nonmem import read_csv
from carpk.population_model import population
from carpk.preparation import with_effects
from carpk.problems import RequestError
from carpk.refitting import Refitting, of_patients
from carpk.resampling import bca_interval, bootstrap, resampled, strata, summary

Y = levels()


@pytest.fixture(scope="module")
def again():
    return Refitting(load_fit(level_fit()))


@pytest.fixture
def in_this_process(monkeypatch, again):
    """The compiled programs of `again` for every bootstrap of this file."""
    monkeypatch.setattr(resampling, "Refitting", lambda fit: again)


@pytest.mark.parametrize("stratify", [None, "STUDY"])
def test_every_replicate_is_the_maximum_of_the_patients_it_drew(in_this_process, stratify):
    found = bootstrap(level_fit(), replicates=20, stratify=stratify, seed=1)
    se = found.table.set_index("parameter")["asymptotic_se"]
    groups = strata(load_fit(level_fit()).design, stratify)
    assert found.failures == {}
    for row in found.replicates.to_dict("records"):
        drawn = resampled(groups, np.random.default_rng([1, row["replicate"]]))
        assert not stratify or sorted(groups[drawn]) == sorted(groups)
        for name, value in likeliest(Y[drawn]).items():
            assert row[name] == pytest.approx(value, abs=0.01 * se[name])
    assert (found.folder / "table.csv").is_file()
    assert "1000 are usual" in found.remarks[-1]


COURSES = """ID,TIME,DV,AMT,EVID,OCC
1,0,.,100,1,1
1,2,5,.,0,1
1,3,.,50,1,2
1,5,5,.,0,2
2,0,.,80,1,1
2,1,5,.,0,1
3,0,.,60,1,1
3,2,5,.,0,1
3,4,.,60,4,2
3,9,5,.,0,2
"""


@pytest.mark.parametrize(("structure", "occasions"), [
    (ONE, ("CL",)), pytest.param(LATE, (), marks=pytest.mark.slow)])  # passed
def test_patients_who_are_drawn_bring_all_that_is_theirs(tmp_path, structure, occasions):
    """Doses, lags, resets and occasions of their own: their predictions and likelihoods."""
    seen = design(written(tmp_path, COURSES), structure)
    model, _ = with_effects(population(structure, occasions=occasions, steps=20), seen)
    data, places = data_of(model, seen), np.array([2, 0, 2])
    theta = {"CL_pop": 2.0, "V_pop": 10.0, "F_pop": 0.6, "sigma_C_log": 0.3}
    phi = 0.7 + 0.3 * np.random.default_rng(1).normal(size=(3, len(model.sds)))
    run = jax.jit(lambda data, phi: (predicted_rows(model, data, theta, phi),
                                     patient_log_likelihood(model, data, theta, phi)))
    for all_of, own in zip(run(data, phi), run(of_patients(data, places), phi[places]),
                           strict=True):
        assert np.asarray(own) == pytest.approx(np.asarray(all_of)[places], rel=1e-12)


def test_a_patients_influence_is_what_its_weight_moves(again):
    found, step = again.influence(), 1e-4
    mean = Y.mean(axis=1)
    # a fit stands within a hundredth of an SE of its maximum, where influences sum to 0
    own = {n: np.array(v) - np.mean(v) for n, v in found.items()}
    moves = (mean - mean.mean()) / PATIENTS
    assert own["a_pop"] == pytest.approx(moves, abs=1e-3 * np.abs(moves).max())

    def weighed(weights):
        centre = np.average(mean, weights=weights)
        within = np.average(((Y - mean[:, None]) ** 2).sum(axis=1), weights=weights) / 2
        return (np.average((mean - centre) ** 2, weights=weights) - within / 3) ** 0.5, within**0.5

    for i in range(PATIENTS):
        more, less = (weighed(1 + s * step * (np.arange(PATIENTS) == i)) for s in (1, -1))
        for name, a, b in zip(("omega_a", "sigma_C_add"), more, less, strict=True):
            assert own[name][i] == pytest.approx((a - b) / (2 * step), rel=0.01, abs=1e-4)


def test_simulated_patients_have_the_estimated_moments_and_are_refitted(again):
    at = likeliest(Y)
    y = np.stack([again.measured(k)[0] for k in range(400)])
    total = (at["omega_a"] ** 2 + at["sigma_C_add"] ** 2) ** 0.5
    noise = total / (400 * PATIENTS) ** 0.5
    assert y.mean() == pytest.approx(at["a_pop"], abs=4 * noise)
    assert y.std() == pytest.approx(total, rel=0.05)
    one, phi = again.measured(7)
    made = again.again(censored_below(again.data, one, np.full_like(one, -np.inf)), phi, 1)
    assert made.failed == ""
    assert made.theta == pytest.approx(likeliest(one), rel=2e-3)


def test_a_parametric_bootstrap_is_kept_apart_and_goes_on_where_it_stopped(in_this_process,
                                                                           monkeypatch):
    found = bootstrap(level_fit(), replicates=20, parametric=True, seed=2)
    assert found.folder.name == "parametric_seed2"
    kept = sorted((found.folder / "replicates").glob("0*.json"))
    assert len(kept) == 20
    before = json.loads(kept[3].read_text())
    kept[3].unlink()
    again = bootstrap(level_fit(), replicates=21, parametric=True, seed=2)
    assert json.loads(kept[3].read_text()) == before  # by its number alone
    assert again.replicates.iloc[:20].equals(found.replicates)
    assert abs(found.table["bias"] / found.table["se"]).max() < 2


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_interval_is_that_of_scipy_for_a_mean(seed):
    x = np.random.default_rng(seed).exponential(size=15)
    theirs = stats.bootstrap((x,), np.mean, method="BCa", n_resamples=999,
                             random_state=np.random.default_rng(seed))
    mine = bca_interval(theirs.bootstrap_distribution, x.mean(), x - x.mean())
    assert mine == pytest.approx((theirs.confidence_interval.low, theirs.confidence_interval.high),
                                 rel=1e-9)


def test_an_estimate_at_the_edge_has_no_corrected_interval():
    assert np.isnan(bca_interval(np.arange(30.0), -1.0, np.array([1.0, -1.0]))).all()


def test_failures_are_counted_by_their_reasons_and_left_out_of_the_table(in_this_process,
                                                                         monkeypatch):
    kept = resampling.results

    def spoilt(*arguments, **options):
        found = kept(*arguments, **options)
        for name in ("00001", "00002"):
            found[name] = {"theta": {"a_pop": 1e6}, "failed": "the search did not come to rest"}
        return found

    monkeypatch.setattr(resampling, "results", spoilt)
    found = bootstrap(level_fit(), replicates=22, seed=1)
    assert found.failures == {"the search did not come to rest": 2}
    assert found.table["mean"].max() < 100
    with pytest.raises(RequestError, match="only 19 of 21 replicates can be used: 2: the search"):
        bootstrap(level_fit(), replicates=21, seed=1)


def test_the_command_prints_the_table_and_the_folder_and_draws_the_figure(in_this_process):
    done = CliRunner().invoke(cli.app, ["bootstrap", str(level_fit()), "--replicates", "20",
                                        "--stratify", "STUDY"])
    assert done.exit_code == 0, done.output
    assert "20 of 20 replicates are used" in done.output
    folder = Path(done.output.splitlines()[-1])
    assert folder.name == "nonparametric_by_STUDY_seed1"
    picture = (folder / "bootstrap.svg").read_text("utf-8")
    assert all(n in picture for n in ("a_pop", "omega_a", "BCa", "20 replicates"))


def test_what_cannot_be_is_refused_with_everything_that_is_wrong(small_fit, tmp_path):
    with pytest.raises(RequestError) as refused:
        bootstrap(level_fit(), replicates=5, stratify="STUDDY")
    assert [p.column for p in refused.value.problems] == ["replicates", "stratify"]
    with pytest.raises(RequestError, match="not a fit by maximum likelihood"):
        bootstrap(small_fit.save(tmp_path))


def test_a_column_that_differs_in_every_patient_is_no_stratum(tmp_path, monkeypatch):
    fit = load_fit(level_fit())
    other = fit.design.covariates.assign(WT=np.arange(PATIENTS) / 3.0)
    monkeypatch.setattr(type(fit), "design", property(
        lambda self, seen=fit.design: dataclasses.replace(seen, covariates=other)))
    with pytest.raises(RequestError, match="nobody could be drawn twice"):
        bootstrap(level_fit(), stratify="WT")


def test_the_table_says_what_replicates_make_of_each_estimate():
    values = np.random.default_rng(1).normal(5.0, 1.0, 4000)
    table = summary({"x": {"estimate": 4.9, "se": 1.1, "lower95": 3.0, "upper95": 7.0}},
                    pd.DataFrame({"x": values}), {"x": np.array([1.0, -1.0])}, np.zeros(2, int))
    row = table.iloc[0]
    assert row["bias"] == pytest.approx(values.mean() - 4.9)
    assert row["se"] == pytest.approx(values.std(ddof=1))
    assert [row["lower95"], row["upper95"]] == pytest.approx(np.quantile(values, [0.025, 0.975]))
    # its median lies above the estimate: the corrected interval moves down
    assert row["bca_lower95"] < row["lower95"]
    assert row["asymptotic_se"] == 1.1


@pytest.mark.slow
def test_two_workers_make_the_replicates_of_one(tmp_path, in_this_process):
    here = bootstrap(level_fit(), replicates=20, seed=5)
    copy = tmp_path / "fit"
    shutil.copytree(level_fit(), copy, ignore=shutil.ignore_patterns("bootstrap"))
    there = bootstrap(copy, replicates=20, seed=5, workers=2)
    for name in ("a_pop", "omega_a", "sigma_C_add"):
        assert there.replicates[name].to_numpy() == pytest.approx(
            here.replicates[name].to_numpy(), rel=1e-6)


@pytest.mark.slow  # last: a_pop within 0.005, omega_a within 0.006, sigma_C_add within 0.003
def test_replicates_of_saem_are_refitted_by_saem(tmp_path):
    asked = load_fit(level_fit()).manifest["request"]
    cohort = read_csv(asked["data"]["file"])
    folder = fit(population(asked["model"]), cohort, "saem", seed=1, draws=21).save(tmp_path)
    found = bootstrap(folder, replicates=20)
    se = found.table.set_index("parameter")["asymptotic_se"]
    assert found.failures == {}
    for row in found.replicates.to_dict("records"):
        drawn = resampled(np.zeros(PATIENTS, int), np.random.default_rng([1, row["replicate"]]))
        for name, value in likeliest(Y[drawn]).items():
            assert row[name] == pytest.approx(value, abs=0.1 * se[name])
