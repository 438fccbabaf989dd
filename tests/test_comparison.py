"""Model choice: patients' likelihoods against a closed form, the better model wins, refusals."""

import dataclasses

import numpy as np
import pytest
from models_for_tests import cohort
from reference_models import LINE
from scipy import stats

from carpk.comparison import compare, patient_log_likelihoods
from carpk.population_model import population
from carpk.posterior import left_out, pareto_k
from carpk.prediction import some_draws
from carpk.problems import RequestError

TIMES = (0.0, 1.0, 2.0, 4.0)
DESIGN = np.stack([np.ones(4), TIMES], axis=1)


def lines(patients=12, seed=3):
    """Levels on straight lines whose intercept follows SEX."""
    rng = np.random.default_rng(seed)
    sex = np.where(np.arange(patients) % 2, "M", "F")
    a = 20.0 + 3.0 * (sex == "M") + 0.3 * rng.normal(size=patients)
    rows = [(str(i), t, a[i] + (1.0 + 0.3 * rng.normal()) * t + 0.5 * rng.normal())
            for i in range(patients) for t in TIMES]
    return cohort(rows, SEX=sex)


def made(near_typical, changed=lambda draws: None, **asked):
    """Draws around the priors' medians, which lie where the lines were simulated.

    changed : what becomes of the draws of the population before those of the patients follow
    """
    priors = {"a_pop": "normal(21, 1)", "b_pop": "normal(1, 0.3)", "omega_a": "halfnormal(1)",
              "omega_b": "halfnormal(0.5)", "sigma_C_add": "halfnormal(0.8)"}
    fit = near_typical(population(LINE, priors={**priors, **asked.pop("priors", {})}, **asked),
                       lines())
    changed(fit.posterior["posterior"].dataset)
    return conditioned(fit)


def conditioned(fit):
    """The fit with each patient's line drawn given the population and the patient's levels."""
    rng, tree = np.random.default_rng(7), fit.posterior.copy(deep=True)
    draws, y, z = tree["posterior"].dataset, fit.design.upper, DESIGN
    rows = tree["log_likelihood"]["y"].values
    sex = (fit.design.covariates["SEX"] == "M").to_numpy(float)
    middle = fit.model.priors["a_pop"].median
    draws["a_pop"].values[:] = middle + 0.1 * (draws["a_pop"].values - middle)  # 1 %, not 10 %
    for c, d in np.ndindex(draws.sizes["chain"], draws.sizes["draw"]):
        at = {n: float(draws[n].values[c, d]) for n in fit.model.free}
        omega = omega_of(at)
        mu = np.stack([at["a_pop"] + at.get("beta_a_SEX_M", 0.0) * sex,
                       np.full(len(y), at["b_pop"])], axis=1)
        cov = np.linalg.inv(z.T @ z / at["sigma_C_add"] ** 2 + np.linalg.inv(omega))
        phi = (y @ z / at["sigma_C_add"] ** 2 + mu @ np.linalg.inv(omega)) @ cov \
            + rng.multivariate_normal([0, 0], cov, len(y))
        for k, n in enumerate("ab"):
            tree["posterior"][n].values[c, d] = phi[:, k]
        rows[c, d] = stats.norm(phi @ z.T, at["sigma_C_add"]).logpdf(y).ravel()
    return dataclasses.replace(fit, posterior=tree)


def omega_of(at):
    cov = at.get("corr_a_b", 0.0) * at["omega_a"] * at["omega_b"]
    return np.array([[at["omega_a"] ** 2, cov], [cov, at["omega_b"] ** 2]])


def exactly(fit):
    """What `patient_log_likelihoods` estimates, in closed form."""
    found, draws = [], fit.posterior["posterior"].dataset
    for s in some_draws(fit, 400):
        at = {n: float(draws[n].values.reshape(-1)[s]) for n in fit.model.free}
        found.append(stats.multivariate_normal(
            DESIGN @ [at["a_pop"], at["b_pop"]],
            DESIGN @ omega_of(at) @ DESIGN.T + at["sigma_C_add"] ** 2 * np.eye(4)).logpdf(
                fit.design.upper))
    return np.array(found).reshape(draws.sizes["chain"], -1, len(fit.design.ids))


def test_a_patients_likelihood_is_the_multivariate_normal_of_a_linear_model(near_typical):
    fit = made(near_typical, correlated="full")
    away = patient_log_likelihoods(fit) - exactly(fit)
    assert np.abs(away).mean() < 0.1
    assert abs(away.mean()) < 0.01  # of all patients and draws: the noise has no side


def test_leaving_a_patient_out_holds_where_an_omega_comes_near_0_in_some_draws(near_typical):
    def small(draws):
        draws["omega_b"].values[:] = 10 ** np.random.default_rng(3).uniform(
            -6, -0.3, size=draws["omega_b"].shape)

    fit = made(near_typical, small)
    ours, exact = patient_log_likelihoods(fit), exactly(fit)
    assert np.abs(ours - exact).max() < 0.7
    found = [left_out({"one": x, "same": x})["one"] for x in (ours, exact)]
    assert found[0].elpd == pytest.approx(found[1].elpd, abs=0.1)


def test_leaving_a_unit_out_agrees_with_the_conjugate_normal():
    """mu known up to N(0, 10^2), y ~ N(mu, 1): each y given the others, in closed form."""
    rng = np.random.default_rng(1)
    y = rng.normal(0.5, 1.0, 30)
    precision = len(y) + 0.01
    mu = y.sum() / precision + rng.normal(size=(4, 2000)) / precision**0.5
    size = np.exp(1e-5 * rng.normal(size=(4, 2000, 1)))  # of a model that learns nothing
    flat = stats.norm(0.0, size).logpdf(y)
    found = left_out({"shifted": stats.norm(mu[..., None], 1.0).logpdf(y), "at zero": flat})
    exact = sum(stats.norm((y.sum() - v) / (precision - 1), (1 + 1 / (precision - 1)) ** 0.5)
                .logpdf(v) for v in y)
    assert found["shifted"].elpd == pytest.approx(exact, abs=0.05)
    assert found["at zero"].elpd == pytest.approx(stats.norm.logpdf(y).sum(), abs=1e-2)
    assert next(iter(found)) == max(found, key=lambda n: found[n].elpd)
    assert sum(v.weight for v in found.values()) == pytest.approx(1.0)
    assert found["shifted"].pareto_k.max() < 0.7


def test_a_unit_whose_weights_cannot_be_smoothed_is_named_and_leaves_no_hole():
    rng = np.random.default_rng(1)
    fine = rng.normal(size=(2, 200, 5)) - 1.0
    wild = fine.copy()
    wild[0, [0, 7], 2], wild[1, 3, 2] = (-5000.0, -3000.0), -4000.0
    wild[..., 2] -= np.exp(3.0 * rng.normal(size=(2, 200)))
    found = left_out({"wild": wild, "fine": fine})
    assert list(found) == ["fine", "wild"]
    assert np.isinf(found["wild"].pareto_k).tolist() == [False, False, True, False, False]
    worst = wild[..., 2].min() + np.log(400)  # the draw of least likelihood has all the weight
    assert found["wild"].elpd - found["fine"].elpd == pytest.approx(worst, abs=2)
    assert found["wild"].difference == found["wild"].elpd - found["fine"].elpd
    assert all(np.isfinite([x.elpd, x.se, x.p, x.difference, x.difference_se, x.weight]).all()
               for x in found.values())


def test_a_unit_of_which_every_draw_says_the_same_needs_no_tail():
    rng = np.random.default_rng(2)
    sure = rng.normal(size=(2, 100, 4)) - 1.0
    sure[..., 1] = -0.25
    found = left_out({"a": sure, "b": sure - 0.5 * rng.uniform(size=(2, 100, 4))})
    assert found["a"].pareto_k[1] == 0.0
    others = left_out({"a": sure[..., [0, 2, 3]], "b": sure[..., [0, 2, 3]]})["a"]
    assert found["a"].elpd == pytest.approx(others.elpd - 0.25, abs=1e-12)
    assert found["a"].p == pytest.approx(others.p, abs=1e-12)
    assert pareto_k(np.zeros((100, 1))).tolist() == [0.0]


def test_the_covariate_that_is_there_wins_and_the_difference_is_named(near_typical):
    plain = made(near_typical, priors={"omega_a": "halfnormal(2.4)", "a_pop": "normal(21.5, 1)"})
    better = made(near_typical, covariates={"a ~ SEX": "category(F)"}, priors={
        "a_pop": "normal(20, 1)", "omega_a": "halfnormal(0.5)", "beta_a_SEX_M": "normal(3, 0.1)"})
    table = compare({"plain": plain, "with SEX": better})
    for unit in ("patient", "observation"):
        rows = table[table["unit"] == unit]
        assert rows["difference"].iloc[0] == 0.0
        assert (rows["difference"].to_numpy() <= 0.0).all()
    first = table[table["unit"] == "patient"].iloc[0]
    assert first["fit"] == "with SEX"
    assert "a ~ SEX" in first["differs"]


def test_fits_that_cannot_be_compared_are_refused_with_every_reason(near_typical):
    fit = made(near_typical)
    other = dataclasses.replace(fit, manifest={**fit.manifest, "data": {
        **fit.manifest["data"], "sha256": "x"}})
    guess = dataclasses.replace(fit, posterior=fit.posterior.copy(deep=True))
    guess.posterior["posterior"].dataset.attrs["draws_from"] = "posterior"
    with pytest.raises(RequestError, match="other data than a"):
        compare({"a": fit, "b": other})
    with pytest.raises(RequestError, match="nothing to be compared"):
        compare({"a": fit})
    tree = fit.posterior.copy(deep=True)
    tree["observed_data"]["upper"].values[0] += 1.0
    with pytest.raises(RequestError, match="not the same observations"):
        compare({"a": fit, "b": dataclasses.replace(fit, posterior=tree)})
