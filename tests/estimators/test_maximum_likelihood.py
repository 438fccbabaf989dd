"""FOCEI and Laplace: exact gradients, known optima, standard errors, honest refusals."""

import dataclasses
import json

import numpy as np
import pytest
import references
from models_for_tests import COVARIATES, DECAY, LEVEL, cohort, decaying
from scipy.stats import norm

from carpk import climbing, conditional, maximum_likelihood, tables
from carpk.approximations import Approximation
from carpk.asymptotics import Uncertainty, estimates, normal_draws, uncertainty
from carpk.cohort import design
from carpk.fitting import fit
from carpk.individual_information import contraction
from carpk.likelihood import data_of, from_theta
from carpk.marginal import objective
from carpk.maximum_likelihood import maximised
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.problems import RequestError
from carpk.reporting import report, verdict
from carpk.structure import Parameter

COHORT = decaying(20)
SEEN = design(COHORT, DECAY)
# the rate varies with weight but not between patients: a place that patients share
SHARED, _ = resolve(population(DECAY, spread=["C0"], covariates={"k ~ WT": "power(70)"}), SEEN, {})
RICH, _ = resolve(population(DECAY, covariates=COVARIATES, correlated="full"), SEEN, {})
START = {"C0_pop": 90.0, "k_pop": 0.25, "omega_C0": 0.4, "omega_k": 0.35, "sigma_C_log": 0.3,
         "beta_C0_WT": 0.8, "beta_k_SEX_M": -0.4, "beta_k_WT": 0.01, "corr_C0_k": -0.5}


@pytest.mark.parametrize(("model", "method"), [
    (RICH, "laplace"), (SHARED, "focei"), pytest.param(RICH, "focei", marks=pytest.mark.slow),
    pytest.param(SHARED, "laplace", marks=pytest.mark.slow)],
    ids=["rich-laplace", "shared-focei", "rich-focei", "shared-laplace"])
def test_the_gradient_with_the_modes_moving_is_that_of_differences(model, method, monkeypatch):
    for module in (climbing, conditional):  # modes to the last digit
        monkeypatch.setattr(module, "TOLERANCE", 1e-20)
    approximation = Approximation(model, data_of(model, SEEN), method)
    u = np.asarray(from_theta(model, {n: START[n] for n in model.free}))
    _has_the_gradients_of_differences(approximation, u)


def _has_the_gradients_of_differences(approximation, u):
    found = approximation.likelihood(u, scores=True)
    for k in range(len(u)):
        step = 3e-5 * (np.arange(len(u)) == k)
        above, below = (approximation.likelihood(u + s, found.modes.phi).patients
                        for s in (step, -step))
        assert found.scores[:, k] == pytest.approx((above - below) / 6e-5, rel=1e-5, abs=1e-3), \
            approximation.model.free[k]


@pytest.mark.parametrize("error", ["proportional", "combined"])
@pytest.mark.parametrize("method", ["fo", "foce"])
def test_the_gradients_of_fo_and_foce_are_those_of_differences(method, error, monkeypatch):
    """Their residual SDs are the typical patient's, which all that moves a prediction moves."""
    for module in (climbing, conditional):
        monkeypatch.setattr(module, "TOLERANCE", 1e-20)
    seen = design(decaying(12, limit=0.0), DECAY)
    model, _ = resolve(population(DECAY, spread=["C0"], errors={"C": error},
                                  covariates={"k ~ WT": "power(70)", "C0 ~ SEX": "category(F)"}),
                       seen, {})
    approximation = Approximation(model, data_of(model, seen), method)
    u = np.asarray(from_theta(model, START | {
        "beta_C0_SEX_M": 0.2, "sigma_C_prop": 0.2, "sigma_C_add": 2.0}))
    _has_the_gradients_of_differences(approximation, u)


@pytest.fixture(scope="module")
def laplace_fit():
    return fit(population(DECAY), COHORT, "laplace", seed=1, draws=51)


def test_a_fit_stands_at_a_minimum_of_its_own_objective(laplace_fit):
    assert laplace_fit.convergence.ok
    found = laplace_fit.manifest["estimates"]
    theta = {n: v["estimate"] for n, v in found.items()}
    least = objective(laplace_fit.model, COHORT, theta, "laplace").total
    assert least == pytest.approx(laplace_fit.convergence.measures["ofv"], abs=1e-5)
    for name in ("C0_pop", "omega_k"):
        for share in (-0.3, 0.3):
            moved = theta | {name: theta[name] + share * found[name]["se"]}
            risen = objective(laplace_fit.model, COHORT, moved, "laplace").total - least
            # a parabola: the square of the distance in standard errors, the others held
            assert 0.6 * share**2 < risen < 6 * share**2


def test_tables_and_page_of_a_maximum_say_what_it_is(laplace_fit, tmp_path):
    table = tables.parameters(laplace_fit).set_index("parameter")
    found = laplace_fit.manifest["estimates"]
    assert table.loc["k_pop", "median"] == found["k_pop"]["estimate"]
    assert table.loc["k_pop", "sd"] == found["k_pop"]["se"]
    assert table["rhat"].isna().all()
    assert (table["prior"] == "").all()
    page = report(laplace_fit, tmp_path).read_text("utf-8")
    assert "R-hat" not in page
    assert "Maximum-likelihood estimates" in page
    assert "asymptotic" in page
    assert not list((tmp_path / "plots").glob("traces*"))
    assert verdict(laplace_fit).startswith("Converged: OFV ")
    shares = tables.correlations_of_estimates(laplace_fit).set_index("parameter")
    assert np.allclose(np.diag(shares), 1.0)


def test_a_saved_maximum_keeps_its_estimates(laplace_fit, tmp_path):
    kept = json.loads((laplace_fit.save(tmp_path) / "manifest.json").read_text("utf-8"))
    assert kept["estimates"] == laplace_fit.manifest["estimates"]
    assert laplace_fit.posterior["posterior"].attrs["draws_from"] == "asymptotic"


def test_the_median_of_the_draws_is_the_estimate(laplace_fit):
    draws = laplace_fit.posterior["posterior"]
    for name, value in laplace_fit.manifest["estimates"].items():
        assert float(np.median(draws[name])) == pytest.approx(value["estimate"], rel=1e-6)


def test_a_search_without_rest_is_begun_anew_from_the_other_start(laplace_fit, monkeypatch):
    ends, whole = [], maximum_likelihood.maximised

    def at_first_short_of_rest(*asked):
        top = whole(*asked)
        ends.append(top.u)
        return top if len(ends) > 1 else top._replace(
            gain=2.0, found=top.found._replace(patients=top.found.patients + 1.0))

    monkeypatch.setattr(maximum_likelihood, "maximised", at_first_short_of_rest)
    found = fit(population(DECAY), COHORT, "laplace", seed=1, draws=51)
    ofv = found.convergence.measures["ofv"]
    assert ofv == pytest.approx(laplace_fit.convergence.measures["ofv"], abs=1e-3)
    assert (f"did not come to rest, at an OFV of {ofv + len(COHORT.ids):.2f}; from another start "
            f"it ended at {ofv:.2f}") in " ".join(found.convergence.remarks)
    assert found.convergence.ok


def test_an_interval_beyond_all_numbers_can_still_be_kept():
    u = np.asarray(from_theta(SHARED, {n: START[n] for n in SHARED.free}))
    wide = Uncertainty(1e12 * np.eye(len(u)), 1e12 * np.eye(len(u)), 1.0, "")
    kept = json.loads(json.dumps(estimates(SHARED, u, wide), allow_nan=False))
    assert kept["C0_pop"]["upper95"] == np.finfo(float).max
    assert kept["C0_pop"]["lower95"] == 0.0


def test_contraction_is_that_of_the_curvature_and_none_where_no_sample_is():
    """Five samples of each patient but the first two, who have one, before anything declines."""
    rows = COHORT.observations
    few = dataclasses.replace(COHORT, observations=rows[
        ~rows["ID"].isin(["1", "2"]) | (rows["TIME"] < 1)])
    found = fit(population(DECAY), few, "laplace", seed=1, draws=801)
    table = contraction(found).pivot(index="ID", columns="parameter", values="contraction")
    assert table.loc[["1", "2"], "k"].abs().max() < 0.15
    at = {n: v["estimate"] for n, v in found.manifest["estimates"].items()}
    # ln C is linear in ln C0: a patient of one sample is a textbook normal
    known = at["omega_C0"] ** 2 / (at["omega_C0"] ** 2 + at["sigma_C_log"] ** 2)
    assert table.loc[["1", "2"], "C0"].to_numpy() == pytest.approx(known, abs=0.2 * (1 - known))
    draws = found.posterior["posterior"]
    for i in map(str, range(3, 21)):
        own, sigma = few.observations[few.observations["ID"] == i], at["sigma_C_log"]
        t, z = own["TIME"].to_numpy(), np.log(own["DV"].to_numpy())
        k, c = (float(draws[n].sel(patient=i)[0, 0]) for n in ("k", "C0"))
        z = (z - np.log(c) + k * t) / sigma
        below = norm.pdf(z) / norm.cdf(z)  # of P(Z < z) the slope of its logarithm
        hidden = own["CENS"].to_numpy() == 1
        slope = np.where(hidden, -below, z) / sigma
        bend = np.where(hidden, below * (below + z), 1.0) / sigma**2
        along = np.stack([np.ones_like(t), -k * t])  # in ln C0 and ln k
        bent = along * bend @ along.T + np.diag([0.0, (slope * k * t).sum()])
        prior = np.array([at["omega_C0"], at["omega_k"]]) ** 2
        left = np.diag(np.linalg.inv(bent + np.diag(1 / prior))) / prior
        assert 1 - table.loc[i, ["C0", "k"]].to_numpy(float) == pytest.approx(left, rel=0.25)


def test_asymptotic_draws_have_exactly_their_covariance():
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    draws = normal_draws(np.array([1.0, -1.0]), covariance, 201, 3)
    assert np.cov(draws.T) == pytest.approx(covariance, rel=1e-12)
    assert np.median(draws, axis=0) == pytest.approx([1.0, -1.0], abs=1e-12)


def test_a_flat_direction_is_named():
    model = dataclasses.replace(RICH)
    scores = np.random.default_rng(1).normal(size=(30, len(model.free)))
    hessian = 0.5 * scores.T @ scores
    a, b = model.free.index("C0_pop"), model.free.index("beta_C0_WT")
    flat = np.zeros(len(model.free))
    flat[[a, b]] = 1.0
    flat /= np.linalg.norm(flat)
    turned = np.eye(len(flat)) - np.outer(flat, flat)
    u = np.asarray(from_theta(model, {n: START[n] for n in model.free}))
    known = uncertainty(model, u, turned @ hessian @ turned, scores)
    assert known.flat.startswith("the likelihood is flat along one combination of")
    assert "C0_pop" in known.flat
    assert "beta_C0_WT" in known.flat
    assert np.isfinite(known.covariance).all()


def test_a_prior_that_was_asked_for_is_refused_by_name():
    with pytest.raises(RequestError, match="k_pop"):
        fit(population(DECAY, priors={"k_pop": "lognormal(0.2, 0.1)"}), COHORT, "focei", seed=1)


def test_foce_refuses_censored_rows_and_an_unknown_method_is_refused():
    with pytest.raises(RequestError, match="censored"):
        fit(population(DECAY), COHORT, "focei", seed=1, method="foce")
    with pytest.raises(RequestError, match="focei, foce or fo"):
        fit(population(DECAY), COHORT, "focei", seed=1, method="fooce")


# last run 2026-11-27: all passed, within 8 s but wbc in 506 s, whose optimum is at the edge, with
# spreads of 1e-5 and a feedback of e^-11.6, and the likelihood is flat on the way there
@pytest.mark.slow
@pytest.mark.parametrize(("name", "ofv"), [
    ("bauer501", 1058.303712), ("warfarin", 423.327289), ("theophylline_nlmer", 111.38372),
    ("phenobarbital", 730.894727), ("phenobarbital_real", 586.276056),
    ("schoemaker", 20167.641094), ("wbc", 586.869021)])
def test_a_fits_own_optimum_is_not_above_the_printed_one(name, ofv, shared_data):
    model, cohort, _ = getattr(references, name)(shared_data)
    found = fit(model, cohort, "focei", seed=1)
    assert found.convergence.measures["ofv"] < ofv + 0.01


@pytest.mark.slow  # passed, 12 s
def test_standard_errors_are_nonmems_within_two_percent(shared_data):
    model, cohort, _ = references.bauer501(shared_data)
    found = fit(model, cohort, "focei", seed=1).manifest["estimates"]
    printed = {"beta_CL_WT": 0.160148, "beta_V_WT": 0.201692, "beta_CL_AGE": 0.103164,
               "beta_V_AGE": 0.12946, "beta_CL_SEX": 0.0568296, "beta_V_SEX": 0.0713081}
    assert {n: found[n]["se"] for n in printed} == pytest.approx(printed, rel=0.02)
    logs = {"CL": 0.0383166, "V": 0.048748}
    assert {n: found[f"{n}_pop"]["se"] / found[f"{n}_pop"]["estimate"] for n in logs} == \
        pytest.approx(logs, rel=0.02)
    variances = {"omega_CL": 0.00916008, "omega_V": 0.0138528, "sigma_C_prop": 0.00675998}
    assert {n: 2 * found[n]["se"] * found[n]["estimate"] for n in variances} == \
        pytest.approx(variances, rel=0.02)


@pytest.mark.parametrize("inits", ["", "data", "typical"])
def test_a_smooth_model_has_no_kinks_wherever_its_fit_begins(inits, shared_data):
    """NONMEM's standard errors are its sandwich. With the jump that a curvature makes over a step
    taken for a kink, the scores stood in: 9.2 % of CL for 5.4 %."""
    model, cohort, theta = references.warfarin(shared_data)
    found = fit(model, cohort, "focei", seed=1, inits=inits, draws=51)
    assert not found.convergence.remarks
    assert found.convergence.measures["ofv"] < 423.327289 + 0.001
    printed = {"ka": 0.246083, "CL": 0.0538492, "V": 0.0459997}
    at = found.manifest["estimates"]
    assert {n: at[f"{n}_pop"]["se_sandwich"] / theta[f"{n}_pop"] for n in printed} == \
        pytest.approx(printed, rel=0.01)
    sds = {"sigma_C_prop": 0.0265313, "sigma_C_add": 0.153952}
    assert {n: at[n]["se_sandwich"] for n in sds} == pytest.approx(sds, rel=0.01)


@pytest.mark.parametrize("inits", ["", "data"])
@pytest.mark.parametrize("estimator", ["laplace", "focei"])
def test_a_line_begins_in_the_unit_of_its_intercept(estimator, inits, shared_data):
    """nlme's maximum, which is exact. With every start of omega near a third, 0.3 mm of an
    intercept of 20 mm, it ended at 229.811, its intercepts and slopes all but one."""
    model, cohort, theta = references.orthodont(shared_data)
    found = fit(model, cohort, estimator, seed=1, inits=inits, draws=51)
    assert found.convergence.ok
    assert found.convergence.measures["ofv"] == pytest.approx(229.31523, abs=1e-4)
    at = found.manifest["estimates"]
    assert {n: at[n]["estimate"] for n in theta} == pytest.approx(theta, rel=3e-3)


# last run: all passed, 80 to 160 s each beside other work; typical values within 6 % of the
# individuals' geometric means (RSE 3 to 5 %), VM and KM of the saturable set 8 and 13 % low (5, 8)
@pytest.mark.slow
@pytest.mark.parametrize(("name", "structure"), [
    ("bolus_2cpt", "TWO"), ("oral_1cpt", "ORAL"), ("infusion_2cpt", "TWO_INFUSED"),
    ("bolus_1cptmm", "SATURABLE")])
def test_the_truth_of_simulated_sets_is_recovered_from_starts_of_the_data(name, structure,
                                                                          shared_data):
    """120 patients each, 30 % variability, residual SD 0.2: against the individuals' own values."""
    model, cohort, truth = references.schoemaker_set(shared_data, name, structure)
    found = fit(model, cohort, "focei", seed=1, inits="data")
    assert found.convergence.ok
    for n in model.spread:
        own = np.log(truth[n.upper()])
        at = found.manifest["estimates"]
        typical, spread = at[f"{n}_pop"], at[f"omega_{n}"]
        rse = typical["se"] / typical["estimate"]
        print(f"{name} {n}: bias {100 * (typical['estimate'] / np.exp(own.mean()) - 1):.2f} %, "
              f"RSE {100 * rse:.2f} %; omega {spread['estimate']:.4f} of {own.std():.4f}")
        assert abs(np.log(typical["estimate"]) - own.mean()) < 3 * rse
        assert abs(spread["estimate"] - own.std()) < 3 * spread["se"]
    assert at["sigma_C_prop"]["estimate"] == pytest.approx(0.2, rel=0.05)


def test_a_parameter_that_the_data_know_nothing_of_stays_in_reach():
    """As the feedback of wbc_myelosuppression, e^-11.6 at its maximum: a metric by its scores alone
    sent the first step to e^-96291, and the others came no further with it."""
    parameters = (*DECAY.parameters, Parameter("w", 0.1, "-", "next to nothing"))
    model, _ = resolve(population(dataclasses.replace(
        DECAY, parameters=parameters, solution=lambda t, p: {
            "C": p.C0 * 2.718281828459045 ** (-p.k * t) * (1.0 + 1e-7 * p.w * t)})), SEEN, {})
    approximation = Approximation(model, data_of(model, SEEN), "focei")
    u = np.asarray(from_theta(model, START | {"w_pop": 0.1}))
    top = maximised(approximation, u, None, lambda steps: None)
    assert top.gain < 1e-3
    w = model.free.index("w_pop")
    assert abs(top.u[w] - u[w]) < 10.0


@pytest.mark.slow  # passed, 36 s
def test_bfgs_from_elsewhere_finds_the_same_maximum(laplace_fit):
    model = laplace_fit.model
    approximation = Approximation(model, data_of(model, SEEN), "laplace")
    u = np.asarray(from_theta(model, {n: START[n] for n in model.free}))
    found = maximised(approximation, u, approximation.patients.typical(u), lambda steps: None)
    assert found.ofv == pytest.approx(laplace_fit.convergence.measures["ofv"], abs=1e-4)


def test_a_fit_by_fo_has_its_patients_at_their_conditional_modes():
    """Of normal levels with normal means they are known: the patient's mean drawn to the typical
    one by omega^2 / (omega^2 + sigma^2 / 3)."""
    rng = np.random.default_rng(3)
    level = 2.0 + 0.8 * rng.normal(size=15)
    rows = [(str(i + 1), t, m + 0.6 * rng.normal()) for i, m in enumerate(level)
            for t in (1.0, 2.0, 3.0)]
    found = fit(population(LEVEL), cohort(rows), "focei", seed=1, draws=51, method="fo")
    at = {n: v["estimate"] for n, v in found.manifest["estimates"].items()}
    mean = np.array([dv for _, _, dv in rows]).reshape(15, 3).mean(axis=1)
    drawn = at["omega_m"]**2 / (at["omega_m"]**2 + at["sigma_y_add"]**2 / 3)
    eta = drawn * (mean - at["m_pop"])
    stored = found.posterior["posterior"].dataset["eta_m"].values.mean(axis=(0, 1))
    assert stored == pytest.approx(eta, abs=1e-6)
    table = tables.parameters(found).set_index("parameter")
    assert table.loc["omega_m", "shrinkage"] == pytest.approx(
        1 - eta.std(ddof=1) / at["omega_m"], abs=1e-6)
    left = (np.array([dv for _, _, dv in rows]) - np.repeat(at["m_pop"] + eta, 3)) \
        / at["sigma_y_add"]
    assert table.loc["sigma_y_add", "shrinkage"] == pytest.approx(1 - left.std(ddof=1), abs=1e-3)
