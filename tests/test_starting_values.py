"""Where fits begin: values read off the patients' summaries, the model file, another fit."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from models_for_tests import DECAY, decaying

from carpk import fitting, starting_values
from carpk.cohort import design
from carpk.fitting import fit
from carpk.likelihood import data_of, to_theta
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.problems import RequestError
from carpk.requests import Request
from carpk.starting_values import (
    _regressed,
    from_summaries,
    refused_inits,
    start_from,
    summaries,
    values_of_fit,
)
from carpk.structure import Input

COHORT = decaying(8, limit=5.0)
SEEN = design(COHORT, DECAY)
TRUTH = {"C0_pop": 100.0, "k_pop": 0.2}
# a model file whose values are ten times too low and too high
OFF = dataclasses.replace(DECAY, parameters=tuple(
    dataclasses.replace(p, typical=p.typical * f) for p, f in zip(
        DECAY.parameters, (0.1, 10.0), strict=True)))


def resolved(structure=DECAY, **asked):
    return resolve(population(structure, **asked), SEEN, {})[0]


@pytest.fixture(scope="module")
def model():
    return resolved()


@pytest.fixture(scope="module")
def data(model):
    return data_of(model, SEEN)


def test_a_summary_is_peak_area_times_and_slopes_of_each_output(data):
    levels = np.where(np.asarray(data["observed"]), np.asarray(data["upper"]), np.nan)
    found = summaries(data, levels, np.array([5.0]))
    rows = COHORT.observations
    own = rows[rows["ID"] == "1"]
    t, y = own["TIME"].to_numpy(), own["DV"].to_numpy()
    top = y.argmax()
    with np.errstate(invalid="ignore", divide="ignore"):
        rise = np.log(y[top] / y[0]) / (t[top] - t[0])
    assert found.shape == (8, 8)
    assert found[0] == pytest.approx([
        np.log(y[top]), np.log(y[0]), np.log(y[-1]), np.log(np.trapezoid(y, t)),
        np.log1p(t[top]), np.log1p(t[y > 5.005].max()), rise if top else 0.0,
        np.log(y[-1] / y[top]) / (t[-1] - t[top])])


@pytest.mark.parametrize("structure", [DECAY, OFF], ids=["near", "ten-fold off"])
def test_values_are_read_off_the_patients_wherever_the_model_files_lie(structure, data):
    """The truth's typical values within the scatter of eight patients, and spreads of their size;
    what the model file says moves neither by more than a few percent."""
    found = from_summaries(resolved(structure), data, 1)
    own = np.log([v.iloc[0] for _, v in COHORT.observations.groupby("ID")["DV"]])
    assert np.log(found["C0_pop"]) == pytest.approx(np.median(own) + 0.5 * 0.2, abs=0.15)
    assert found["k_pop"] == pytest.approx(0.2, rel=0.3)
    assert 0.25 < found["omega_C0"] < 0.9
    assert 0.05 <= found["sigma_C_log"] < 0.4


def test_a_model_that_is_far_off_starts_from_the_data_where_the_truth_is(data):
    model = resolved(OFF)
    theta = to_theta(model, start_from(model, data, 1, "data").u)
    for name, value in TRUTH.items():
        assert float(theta[name]) == pytest.approx(value, rel=0.5), name


def test_summaries_that_mislead_give_way_to_the_likelier_start(model, data, monkeypatch):
    """As of wbc_myelosuppression, whose few counts a patient are taken for short delays: the quick
    fit from there has an OFV of 818, that from the centres of the priors 589."""
    astray = {"C0_pop": 3.0, "k_pop": 1e-3, "omega_C0": 5.0, "omega_k": 0.01, "sigma_C_log": 3.0}
    real = starting_values.start_of
    monkeypatch.setattr(starting_values, "from_summaries", lambda *_: astray)
    monkeypatch.setattr(starting_values, "start_of", lambda *a, begin=None, **more: real(
        *a, begin=begin, held=begin is astray, **more))
    assert np.array_equal(start_from(model, data, 1, "data").u, start_from(model, data, 1).u)


def test_a_draw_whose_summaries_have_no_squares_is_left_out():
    random = np.random.default_rng(1)
    drawn = random.normal(size=(400, 2))
    seen = drawn @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 2.0]])
    seen[:3] = [[1e200, 0.0, 0.0], [np.nan, 0.0, 0.0], [0.0, -np.inf, 0.0]]
    own = np.array([0.4, 0.9, 1.4])  # of (0.4, 0.7)
    assert _regressed(drawn, seen, own) == pytest.approx([0.4, 0.7], abs=0.02)


@pytest.mark.parametrize("estimator", ["focei", "laplace", "saem"])
def test_patients_without_any_solution_are_refused_by_name(estimator):
    most = COHORT.covariates["WT"].quantile(0.7)
    broken = dataclasses.replace(
        DECAY, inputs=(Input("WT", "kg", "weight"),), solution=lambda t, p: {
            "C": jnp.where(most < p.WT, jnp.nan, p.C0 * jnp.exp(-p.k * t))})
    named = ", ".join(COHORT.covariates.index[COHORT.covariates["WT"] > most])
    with pytest.raises(RequestError, match=f"no solution for patients {named}"):
        fit(population(broken), COHORT, estimator, seed=1)


def test_the_model_files_values_and_those_of_a_fit_are_kept_as_they_stand(model, data, tmp_path):
    theta = to_theta(model, start_from(model, data, 1, "typical").u)
    expected = {"C0_pop": 100.0, "k_pop": 0.2, "omega_C0": 0.5, "omega_k": 0.3}
    assert {n: float(theta[n]) for n in expected} == pytest.approx(expected)
    estimates = {"C0_pop": 77.0, "k_pop": 0.11, "omega_k": 1e-7, "beta_k_SEX_M": 3.0}
    (tmp_path / "manifest.json").write_text(json.dumps(
        {"estimates": {n: {"estimate": v} for n, v in estimates.items()}}))
    theta = to_theta(model, start_from(model, data, 1, str(tmp_path)).u)
    assert float(theta["C0_pop"]) == pytest.approx(77.0)
    assert float(theta["k_pop"]) == pytest.approx(0.11)
    assert float(theta["omega_k"]) == pytest.approx(0.01)  # a spread of 0 is no place to move from
    other = resolved(spread=[], fixed={"C0_pop": 100.0, "k_pop": 0.2})
    with pytest.raises(RequestError, match="shares no parameter"):
        start_from(other, data, 1, str(tmp_path))


def test_a_posterior_gives_its_medians(near_typical, tmp_path):
    found = near_typical(population(DECAY), COHORT)
    values = values_of_fit(found.save(tmp_path))
    assert set(values) == set(found.model.free)
    assert values["k_pop"] == float(np.median(found.posterior["posterior"]["k_pop"]))


def test_what_is_no_start_is_refused_and_a_run_toml_states_one(tmp_path):
    assert refused_inits("data") == refused_inits("") == []
    with pytest.raises(RequestError, match="neither data nor typical, nor the folder of a fit"):
        fit(population(DECAY), COHORT, "focei", seed=1, inits="dat")
    file = tmp_path / "run.toml"
    file.write_text('model = "stein_2019"\n[data]\nfile = "a.csv"\n[settings]\ninits = "fits/a"\n')
    assert Request.read(file).settings == {"inits": str(tmp_path / "fits" / "a")}


@pytest.mark.slow  # passed, 197 s with a load of 14 on two cores
def test_all_estimators_record_where_they_began_and_end_where_others_do(tmp_path):
    """From the truth's neighbourhood or ten-fold off, by way of the data: the same maximum."""
    cohort = decaying(20, limit=5.0)
    first = fit(population(DECAY), cohort, "laplace", seed=1, draws=3)
    ofv = first.convergence.measures["ofv"]
    off = fit(population(OFF), cohort, "laplace", seed=1, draws=3, inits="data")
    assert off.convergence.measures["ofv"] == pytest.approx(ofv, abs=1e-3)
    assert off.manifest["request"]["settings"]["inits"] == "data"
    at = first.manifest["estimates"]
    (tmp_path / "manifest.json").write_text(json.dumps({"estimates": at}))
    again = fit(population(DECAY), cohort, "focei", seed=1, draws=3, inits=str(tmp_path))
    assert again.manifest["inits"] == pytest.approx({n: v["estimate"] for n, v in at.items()})
    sampled = fit(population(DECAY), cohort, "saem", seed=1, draws=3, inits="typical")
    assert sampled.manifest["inits"]["omega_k"] == pytest.approx(0.3)
    assert abs(sampled.convergence.measures["ofv"] - ofv) < 1.0
    drawn = fitting.fit(population(DECAY), cohort, seed=1, chains=1, draws=20, warmup=20,
                        inits=str(tmp_path))
    assert drawn.manifest["inits"]["k_pop"] == pytest.approx(at["k_pop"]["estimate"])
