"""A binary output beside a measured one: NONMEM's objective, what suits it, what is refused."""

import jax
import numpy as np
import pandas as pd
import pytest
import references
from models_for_tests import cohort
from reference_models import MIXED
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import expit

from carpk import climbing, conditional
from carpk.approximations import Approximation
from carpk.cohort import design
from carpk.conditional_residuals import cwres
from carpk.empirical_bayes import laplace_start
from carpk.endpoint_check import checked
from carpk.error_models import error_model
from carpk.fit_exposure import model_exposure
from carpk.fitting import fit
from carpk.likelihood import data_of, from_theta
from carpk.marginal import objective
from carpk.normalised_errors import npde
from carpk.numerical_check import npc
from carpk.population_model import population
from carpk.prediction import predictions
from carpk.predictive_check import replicates, vpc
from carpk.preparation import resolve
from carpk.problems import DataError, RequestError
from carpk.registry import load

THETA = {"KA_pop": 1.5, "V_pop": 30.0, "CL_pop": 10.0, "base_pop": -0.6, "slope_pop": 0.08,
         "omega_CL": 0.5, "sigma_C_prop": 0.2}


def answering(patients=14):
    """Levels at three times and answers at two."""
    random, rows = np.random.default_rng(4), []
    for i in range(patients):
        cl, ka, v = 10 * np.exp(0.5 * random.normal()), 1.5, 30.0
        for t, dvid in ((0.5, 1), (1.0, 2), (2.0, 1), (6.0, 2), (9.0, 1)):
            c = 4000 * ka / v / (ka - cl / v) * (np.exp(-cl / v * t) - np.exp(-ka * t))
            y = c * (1 + 0.2 * random.normal()) if dvid == 1 else float(
                random.uniform() < expit(-0.6 + 0.08 * c))
            rows.append((str(i + 1), t, y, y, y, dvid))
    return cohort(rows, DOSE=np.full(patients, 4.0))


MODEL = population(MIXED, spread=["CL"])


def test_a_row_has_bernoullis_probability_and_its_exact_derivatives():
    model = error_model("bernoulli")

    def row(y, p):
        return model.log_likelihood(y, y, p, None)

    for p in (0.03, 0.5, 0.99):
        for y in (0.0, 1.0):
            assert float(row(y, p)) == pytest.approx(stats.bernoulli(p).logpmf(y), rel=1e-12)
            slope = y / p - (1 - y) / (1 - p)
            assert float(jax.grad(row, argnums=1)(y, p)) == pytest.approx(slope, rel=1e-10)
            assert float(jax.grad(jax.grad(row, argnums=1), argnums=1)(y, p)) == pytest.approx(
                -slope**2, rel=1e-10)
    assert np.isfinite([row(y, p) for y in (0.0, 1.0) for p in (0.0, 1.0)]).all()
    drawn = np.asarray(model.draw(jax.random.key(1), np.full(4000, 0.3), None))
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert drawn.mean() == pytest.approx(0.3, abs=4 * (0.21 / 4000) ** 0.5)


def test_a_start_at_which_answers_are_nearly_sure_finds_back_to_a_slope():
    """There the curvature is all but 0, and Newton's step thousands long: it is taken as far as
    it helps. With half a unit of it whatever came of it, the slope went to and fro."""
    cohort = answering(60)
    seen = design(cohort, MIXED)
    model, _ = resolve(MODEL, seen, {})
    near, far = (laplace_start(model, data_of(model, seen), seed=1, begin=THETA | at)
                 for at in ({}, {"base_pop": -3.5, "slope_pop": 0.95}))
    assert far.sweeps < 120
    assert np.asarray(far.u) == pytest.approx(np.asarray(near.u), abs=0.2)
    assert np.sum(far.log_likelihood) == pytest.approx(np.sum(near.log_likelihood), abs=1.0)


@pytest.mark.slow  # 10036.79451 against 10036.79450; no patient further off than 1.5e-4
def test_the_joint_objective_is_nonmems_patient_by_patient(shared_data):
    found = objective(*references.mixed(shared_data), "laplace")
    assert found.total == pytest.approx(10036.7945046504, abs=0.01)
    assert found.total + found.constant == pytest.approx(15329.8804559, abs=0.01)
    printed = pd.read_csv(shared_data / "wexample10_mixed" / "nonmem_laplace_phi.csv")["OBJ"]
    assert np.abs(found.patients["ofv"].to_numpy() - printed.to_numpy()).max() < 1e-3


def test_the_objective_is_laplaces_of_the_written_out_density():
    """In numpy and scipy, patient by patient, with the second derivative by differences."""
    who = answering()
    found = objective(MODEL, who, THETA, "laplace")
    for i in ("1", "2", "3"):
        mine = who.observations[who.observations["ID"] == i]

        def height(eta, mine=mine):
            ke, value = 10 * np.exp(0.5 * eta) / 30, stats.norm.logpdf(eta)
            for r in mine.itertuples():
                c = 4000 * 1.5 / 30 / (1.5 - ke) * (np.exp(-ke * r.TIME) - np.exp(-1.5 * r.TIME))
                value = value + (stats.norm.logpdf(r.DV, c, 0.2 * c) if r.DVID == 1 else
                                 stats.bernoulli.logpmf(int(r.DV), expit(-0.6 + 0.08 * c)))
            return value

        mode = minimize_scalar(lambda e, f=height: -f(e), bounds=(-3, 3),
                               options={"xatol": 1e-9}).x
        bend = -(height(mode + 1e-3) - 2 * height(mode) + height(mode - 1e-3)) / 1e-6
        laplace = -2 * height(mode) + np.log(bend) - np.log(2 * np.pi)
        levels = (mine["DVID"] == 1).sum()  # answers have no constant to leave out
        assert found.patients.loc[i, "ofv"] == pytest.approx(
            laplace - levels * np.log(2 * np.pi), abs=1e-4)


@pytest.mark.slow  # within 3e-6
def test_gradients_of_laplace_are_those_of_differences(monkeypatch):
    for module in (climbing, conditional):
        monkeypatch.setattr(module, "TOLERANCE", 1e-20)  # modes to the last digit
    seen = design(answering(), MIXED)
    model, _ = resolve(MODEL, seen, {})
    approximation = Approximation(model, data_of(model, seen), "laplace")
    u = np.asarray(from_theta(model, THETA))
    found = approximation.likelihood(u, scores=True)
    for k in range(len(u)):
        step = 3e-5 * (np.arange(len(u)) == k)
        a, b = (approximation.likelihood(u + s, found.modes.phi).patients for s in (step, -step))
        assert found.scores[:, k] == pytest.approx((a - b) / 6e-5, rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("method", ["fo", "foce", "focei"])
def test_only_laplace_has_a_place_for_it(method):
    with pytest.raises(RequestError, match=f"{method} has no place for a binary output"):
        objective(MODEL, answering(3), THETA, method)


def test_a_fit_by_focei_is_refused_and_tails_are_none():
    with pytest.raises(RequestError, match="take laplace, saem or nuts"):
        fit(MODEL, answering(3), "focei", seed=1)
    with pytest.raises(RequestError, match="a binary DV has none"):
        error_model("bernoulli student_t")


@pytest.mark.parametrize("wrong", [0.5, 2.0])
def test_a_dv_that_is_neither_is_refused_by_its_line(wrong):
    rows = [("1", 1.0, 5.0), ("1", 2.0, wrong, wrong, wrong, 2), ("1", 3.0, 1.0, 1.0, 1.0, 2)]
    with pytest.raises(DataError, match="R is binary: 0 or 1") as refused:
        design(cohort(rows, DOSE=[4.0]), MIXED)
    assert [p.line for p in refused.value.problems] == [3]


@pytest.fixture(scope="module")
def drawn():
    """Draws near the truth, without a sampler."""
    from unittest import mock

    from conftest import NearTypical

    from carpk import registry
    with mock.patch.object(registry, "load", lambda kind, name, load=load: NearTypical
                           if kind == "estimators" else load(kind, name)):
        return fit(MODEL, answering(), "near", seed=1)


def test_residuals_of_answers_are_pearsons_and_they_have_no_npde(drawn):
    table = predictions(drawn)
    answers = (table["DVID"] == 2).to_numpy()
    p = table["IPRED"][answers]
    assert table["IWRES"][answers].to_numpy() == pytest.approx(
        ((table["DV"][answers] - p) / np.sqrt(p * (1 - p))).to_numpy(), rel=1e-9)
    for values in (npde(drawn), cwres(drawn)):
        assert np.isnan(values[answers]).all()
        assert np.isfinite(values[~answers]).all()
    assert set(npc(drawn)["output"]) == set(checked(drawn)["output"]) == {"C"}
    assert set(model_exposure(drawn)["output"]) == {"C"}


def test_the_predictive_check_of_answers_is_of_the_share_that_is_1(drawn):
    table = vpc(drawn, "R", bins=(1.0, 6.0), count=200)
    assert list(table["statistic"]) == ["share", "share"]
    rows, y = predictions(drawn), replicates(drawn, 200).y
    for k, t in enumerate((1.0, 6.0)):
        here = ((rows["DVID"] == 2) & (rows["TIME"] == t)).to_numpy()
        assert table["observed"][k] == pytest.approx(rows["DV"][here].mean())
        assert table["median"][k] == pytest.approx(np.quantile(
            y[:, here].mean(axis=1), 0.5, method="inverted_cdf"))
    with pytest.raises(RequestError, match="no level to correct"):
        vpc(drawn, "R", corrected=True, count=200)


@pytest.mark.slow  # passed
def test_the_figures_show_the_share_and_leave_residuals_of_answers_out(drawn):
    from carpk.plots import endpoints, observed_predicted, residuals, svg
    from carpk.plots import vpc as picture
    names = [n for n, _ in picture.draw(drawn)]
    assert names == ["vpc_C", "vpc_R"]
    assert b"observed share of 1" in svg(dict(picture.draw(drawn))["vpc_R"])
    assert [n for n, _ in residuals.draw(drawn)] == ["residuals"]
    assert [n for n, _ in endpoints.draw(drawn)] == ["endpoints"]
    assert len(observed_predicted.draw(drawn)) == 1


@pytest.mark.slow  # passed, both
@pytest.mark.parametrize("estimator", ["laplace", "saem"])
def test_a_fit_gives_the_truth_back(estimator):
    found = fit(MODEL, answering(120), estimator, seed=1, draws=21)
    assert found.convergence.ok
    for name, known in found.manifest["estimates"].items():
        assert abs(known["estimate"] - THETA[name]) < 3.5 * known["se"], name
