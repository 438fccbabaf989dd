"""Latent classes of patients: their density against scipy, their posterior against quadrature."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models_for_tests import DECAY, LEVEL, cohort, decaying
from scipy import stats

from carpk import tables
from carpk.classes import Mixture, drawn_classes
from carpk.cohort import design
from carpk.comparison import patient_log_likelihoods
from carpk.conditional_residuals import cwres
from carpk.covariate_effects import unexplained
from carpk.fitting import fit, load_fit
from carpk.geometry import frozen, to_phi, to_z
from carpk.likelihood import (
    class_log_densities,
    data_of,
    from_theta,
    log_jacobian,
    log_prior,
    patient_log_density,
    to_theta,
)
from carpk.mixture_start import start_of
from carpk.population_model import population
from carpk.predictive_check import new_measurements
from carpk.preparation import resolve
from carpk.problems import ModelError, RequestError
from carpk.requests import Request
from carpk.simulation import drawn_from_prior, published, simulate
from carpk.structure import Classes

DESIGN = design(decaying(), DECAY)
MODEL, _ = resolve(population(DECAY, classes="3: C0, k", correlated="full"), DESIGN, {})
DATA = data_of(MODEL, DESIGN)
THETA = {"C0_pop": 40.0, "k_pop": 0.2, "delta_C0_2": 1.1, "delta_C0_3": 0.7, "delta_k_2": -0.4,
         "delta_k_3": 0.9, "share_2": 0.3, "share_3": 0.15, "omega_C0": 0.4, "omega_k": 0.35,
         "corr_C0_k": -0.6, "sigma_C_log": 0.3}
PHI = np.log([60.0, 0.2]) + np.random.default_rng(1).normal(size=(8, 2))
SHARES, SHIFTS = [0.55, 0.3, 0.15], [(0.0, 0.0), (1.1, -0.4), (1.8, 0.5)]


def of_each_class():
    """(P, C): share times density of PHI, by scipy."""
    covariance = [[0.16, -0.6 * 0.4 * 0.35], [-0.6 * 0.4 * 0.35, 0.35**2]]
    return np.stack([w * stats.multivariate_normal(np.log([40, 0.2]) + s, covariance).pdf(PHI)
                     for w, s in zip(SHARES, SHIFTS, strict=True)], axis=1)


def test_a_mixture_is_the_sum_over_its_classes_as_scipy_has_it():
    ours, each = jax.jit(lambda phi: (patient_log_density(MODEL, DATA, THETA, phi),
                                      class_log_densities(MODEL, DATA, THETA, phi)))(PHI)
    assert np.asarray(ours) == pytest.approx(np.log(of_each_class().sum(axis=1)), rel=1e-12)
    assert np.exp(each) == pytest.approx(of_each_class(), rel=1e-10)


def test_a_patient_whose_class_is_known_has_the_density_of_that_class():
    known = {**DATA, "classes": jax.nn.one_hot(np.full(8, 2), 3, dtype=float)}
    ours = jax.jit(lambda phi: patient_log_density(MODEL, known, THETA, phi))(PHI)
    assert np.asarray(ours) == pytest.approx(np.log(of_each_class()[:, 2] / 0.15), rel=1e-12)


def test_the_shares_have_the_dirichlet_prior_of_which_each_has_a_beta_margin():
    moved = {**THETA, "share_2": 0.1, "share_3": 0.6}
    prior_of = jax.jit(lambda theta: log_prior(MODEL, theta))
    ours = float(prior_of(moved) - prior_of(THETA))
    dirichlet = stats.dirichlet([2.0, 2.0, 2.0])
    assert ours == pytest.approx(dirichlet.logpdf([0.3, 0.1, 0.6]) - dirichlet.logpdf(SHARES))
    assert str(MODEL.priors["share_2"]) == "beta(2, 4)"
    prior = MODEL.priors["share_2"]
    assert float(prior.log_density(0.3)) == pytest.approx(stats.beta(2, 4).logpdf(0.3))
    assert prior.median == pytest.approx(stats.beta(2, 4).median())
    drawn = np.array([[drawn_from_prior(MODEL, seed=s)[n] for n in ("share_2", "share_3")]
                      for s in range(400)])
    assert (drawn.sum(axis=1) < 1).all()
    assert stats.kstest(drawn[:, 0], stats.beta(2, 4).cdf).pvalue > 0.001


def test_the_real_line_of_a_mixture_leads_back_and_its_volume_is_that_of_autodiff():
    def stacked(u):
        return jnp.stack([to_theta(MODEL, u)[n] for n in MODEL.free])

    u = jax.jit(lambda theta: from_theta(MODEL, theta))(THETA)
    back, slope, volume = jax.jit(lambda u: (stacked(u), jax.jacfwd(stacked)(u),
                                             log_jacobian(MODEL, u)))(u)
    assert dict(zip(MODEL.free, back.tolist(), strict=True)) == pytest.approx(THETA)
    assert float(volume) == pytest.approx(float(np.linalg.slogdet(np.asarray(slope))[1]))


def test_the_start_parts_the_patients_and_its_coordinates_have_the_volume_of_autodiff():
    model, seen = two_levels()
    data = data_of(model, seen)
    start = start_of(model, data, seed=1)
    theta = jax.jit(lambda u: to_theta(model, u))(start.u)
    assert np.asarray(start.classes).argmax(axis=1).tolist() == [0, 0, 0, 1, 0, 1, 0, 0, 1]
    assert np.isfinite(start.u).all()
    assert abs(theta["delta_m_2"] - 2.5) < 1.0

    @jax.jit
    def there_and_back(z):
        about = frozen(model, start)
        phi, volume = to_phi(model, data, theta, z, about, "informed")
        slope = jax.jacfwd(lambda z: to_phi(model, data, theta, z, about, "informed")[0])(z)
        return volume, jnp.diagonal(slope[:, 0, :, 0]), to_z(model, data, theta, phi, about,
                                                             "informed")

    z = np.random.default_rng(2).normal(size=(9, 1))
    volume, slope, again = there_and_back(jnp.asarray(z))
    assert np.asarray(volume) == pytest.approx(np.log(np.abs(slope)))
    assert np.asarray(again) == pytest.approx(z, abs=1e-9)


TRUTH = np.array([0, 0, 0, 1, 0, 1, 0, 0, 1])


def two_levels_cohort():
    rng = np.random.default_rng(5)
    levels = 2.5 * TRUTH + 0.5 * rng.normal(size=9)
    return cohort([(str(i + 1), t, v + 0.4 * rng.normal()) for i, v in enumerate(levels)
                   for t in (1.0, 2.0)])


ASKED = population(LEVEL, classes="2: m", fixed={"omega_m": 0.5, "sigma_y_add": 0.4})


def two_levels():
    seen = design(two_levels_cohort(), LEVEL)
    return resolve(ASKED, seen, {})[0], seen


def quadrature():
    """Mean and SD of each population value, and each patient's probability of class 2, by summing
    the posterior over a grid: the patients' levels are integrated out by hand."""
    table = two_levels_cohort().observations
    means, v = table.groupby("ID", sort=False)["DV"].mean(), np.sqrt(0.25 + 0.16 / 2)
    m, d, w = np.meshgrid(np.linspace(-2, 2, 51), np.exp(np.linspace(-3, 2.5, 90)),
                          (np.arange(40) + 0.5) / 40, indexing="ij")
    log = stats.norm(0, 1).logpdf(m) + stats.lognorm(s=0.75).logpdf(d) + np.log(d) \
        + stats.beta(2, 2).logpdf(w)
    pairs = [(np.log1p(-w) + stats.norm(m, v).logpdf(y), np.log(w) + stats.norm(m + d, v).logpdf(y))
             for y in means]
    log += sum(np.logaddexp(*pair) for pair in pairs)
    weight = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
    values = {"m_pop": m, "delta_m_2": d, "share_2": w}
    found = {n: (mean := float((weight * x).sum()), float((weight * (x - mean)**2).sum()**0.5))
             for n, x in values.items()}
    return found, [float((weight * np.exp(b - np.logaddexp(a, b))).sum()) for a, b in pairs]


@pytest.fixture(scope="module")
def fitted():
    return fit(ASKED, two_levels_cohort(), seed=1, chains=2, draws=600, warmup=300)


def test_the_posterior_of_a_mixture_of_normals_is_that_of_quadrature(fitted):
    values, second = quadrature()
    table = tables.parameters(fitted).set_index("parameter")
    for name, (mean, sd) in values.items():
        error = 4 * table.loc[name, "sd"] / table.loc[name, "ess_bulk"] ** 0.5
        assert table.loc[name, "mean"] == pytest.approx(mean, abs=error)
        assert table.loc[name, "sd"] == pytest.approx(sd, rel=0.1)
    own = tables.individuals(fitted)
    assert own["class_2_probability"].to_numpy() == pytest.approx(second, abs=0.01)
    assert (own["class"] - 1).tolist() == TRUTH.tolist()
    assert table.loc["m_pop_2", "mean"] == pytest.approx(
        table.loc["m_pop", "mean"] + table.loc["delta_m_2", "mean"])
    assert table.loc["share_1", "mean"] == pytest.approx(1 - table.loc["share_2", "mean"])
    assert table.loc["m_pop", "meaning"] == "level, class 1"
    assert table.loc[["delta_m_2", "m_pop_2", "share_1"], "kind"].eq("class").all()


def test_a_patient_is_left_out_and_predicted_by_the_whole_mixture(fitted):
    some = patient_log_likelihoods(fitted)
    stored = fitted.posterior["posterior"].dataset
    at = np.unique(np.linspace(0, 1199, 400).astype(int))  # as `some_draws` has it
    m, d, w = (stored[n].values.reshape(-1)[at][:, None] for n in ("m_pop", "delta_m_2", "share_2"))
    rows = two_levels_cohort().observations.groupby("ID", sort=False)["DV"]
    pairs = np.array([g.to_numpy() for _, g in rows])
    covariance = 0.25 + 0.16 * np.eye(2)
    exact = [np.logaddexp(
        np.log1p(-w[:, 0]) + stats.multivariate_normal([0, 0], covariance).logpdf(pair - m),
        np.log(w[:, 0]) + stats.multivariate_normal([0, 0], covariance).logpdf(pair - m - d))
        for pair in pairs]
    away = some.reshape(-1, 9) - np.array(exact).T
    assert abs(away.mean()) < 0.02  # a hundred draws of phi for each of the posterior's
    assert away.std() < 0.3


def test_a_fit_of_classes_comes_back_from_disk_and_asks_for_them_again(fitted, tmp_path):
    code = fitted.manifest["model"]["text"] + "\nMODEL = LEVEL\n"
    kept = replace(fitted, manifest={**fitted.manifest, "model": {
        **fitted.manifest["model"], "text": code}})
    again = load_fit(kept.save(tmp_path))
    assert again.model.mixture == fitted.model.mixture
    assert again.model.names == fitted.model.names
    assert fitted.manifest["request"]["classes"] == "2: m"
    asked = Request.of({**fitted.manifest["request"], "model": "stein_2019", "spread": None,
                        "fixed": {}, "errors": {}, "classes": "2: Cmax"})
    assert asked.population().mixture == Mixture(2, ("Cmax",))


def test_residuals_of_a_mixture_are_about_the_patients_own_class(fitted):
    table = tables.prediction.predictions(fitted)
    middle = table.groupby("ID", sort=False)["PRED"].mean().to_numpy()
    assert np.ptp(middle[TRUTH == 0]) == np.ptp(middle[TRUTH == 1]) == 0
    assert middle[TRUTH == 1][0] - middle[TRUTH == 0][0] > 1.5
    assert np.abs(cwres(fitted)).max() < 3.5
    assert np.abs(tables.individuals(fitted)["eta_m_mean"]).max() < 1.2  # not half of delta


def test_new_patients_are_of_the_classes_by_their_shares_unless_their_values_are_given():
    model, many = MODEL, design(decaying(patients=3000, limit=0.0), DECAY)
    drawn = simulate(model, many, THETA, seed=1)
    counts = np.bincount(drawn.classes, minlength=4)[1:]
    assert stats.chisquare(counts, 3000 * np.array(SHARES)).pvalue > 0.001
    of = np.log(drawn.parameters.to_numpy()) - np.log([40.0, 0.2])
    for k, shift in enumerate(SHIFTS):
        mine = of[drawn.classes == k + 1]
        assert mine.mean(axis=0) == pytest.approx(shift, abs=5 * 0.4 / len(mine) ** 0.5)
        assert mine.std(axis=0) == pytest.approx([0.4, 0.35], rel=0.12)
    for k, name in enumerate(("C0", "k")):
        assert of[:, k].var() == pytest.approx(float(unexplained(model, THETA, name)), rel=0.08)
    again = drawn_classes(model.mixture, data_of(model, many), THETA, jax.random.key(3))["classes"]
    assert np.asarray(again.sum(axis=0)) == pytest.approx(3000 * np.array(SHARES), abs=120)
    y = new_measurements(model, data_of(model, many), {n: jnp.asarray(v) for n, v in THETA.items()},
                         jax.random.key(2))
    first = np.log(np.asarray(y)[:, 0])  # of the population, as the simulation has it
    assert stats.ks_2samp(first, np.log(drawn.dv[:, 0])).pvalue > 0.001
    # a set of parameters stands for the class
    own = {"C0": np.full(3000, 30.0), "k": np.full(3000, 0.1)}
    drawn = simulate(MODEL, many, {**THETA, "omega_C0": 1e-9, "omega_k": 1e-9}, seed=1, own=own)
    assert drawn.parameters["C0"].to_numpy() == pytest.approx(own["C0"])
    assert drawn.classes is None


def test_the_model_files_classes_are_used_unless_another_number_is_asked_for():
    model = population("mueller_schoell_2021")
    assert model.mixture == Mixture(2, ("Vmax1",))

    values = published(model)
    assert values["Vmax1_pop"] * np.exp(values["delta_Vmax1_2"]) == pytest.approx(0.00846)
    assert (values["Vmax1_pop"], values["share_2"]) == (0.0007, 0.803)
    assert population("mueller_schoell_2021", classes="1").mixture is None
    assert population("mueller_schoell_2021", fixed=["Vmax1", "share_2"]).fixed["share_2"] == 0.803
    assert published(population("mueller_schoell_2021", classes="1"))["Vmax1_pop"] == 0.00846


@pytest.mark.parametrize(("asked", "wrong"), [
    ({"classes": "two"}, "not COUNT"),
    ({"classes": "2"}, "in which parameters"),
    ({"classes": "2: Cmax, gamma"}, "no such parameter"),
    ({"classes": "2: Cmax, Cmax"}, "named twice"),
    ({"classes": "2: Cmax", "spread": ["alpha"]}, "has no spread"),
    ({"classes": "2: Cmax", "fixed": {"omega_Cmax": 0}}, "has no spread"),
    ({"classes": "2: Cmax", "fixed": {"delta_Cmax_2": -1}}, "rising order"),
    ({"classes": "2: Cmax", "priors": {"delta_Cmax_2": "normal(0, 1)"}}, "rising order"),
    ({"classes": "2: Cmax", "fixed": {"share_2": 1.5}}, "shares are above 0"),
    ({"classes": "2: Cmax", "priors": {"share_2": "halfnormal(1)"}}, "between 0 and 1"),
    ({"classes": "3: Cmax", "fixed": {"share_2": 0.5}}, "only some of the shares"),
    ({"classes": "3: Cmax", "priors": {"share_2": "beta(1, 1)"}}, "Dirichlet"),
])
def test_classes_that_cannot_be_are_refused(asked, wrong):
    with pytest.raises(RequestError, match=wrong):
        population("stein_2019", **asked)


@pytest.mark.parametrize("estimator", ["focei", "laplace", "saem"])
def test_maximum_likelihood_refuses_classes_in_a_sentence(estimator):
    with pytest.raises(RequestError, match="patients of one class"):
        fit(ASKED, two_levels_cohort(), estimator, seed=1)


def test_a_model_file_whose_classes_are_wrong_is_refused():
    wrong = {"two or more above 0": Classes({"C0": (1.0, 2.0)}, (0.5, 0.6)),
             "have no parameter|no parameter": Classes({"X": (1.0, 2.0)}, (0.5, 0.5)),
             "have 3 values": Classes({"C0": (1.0, 2.0, 3.0)}, (0.5, 0.5)),
             "rising order": Classes({"C0": (2.0, 1.0)}, (0.5, 0.5)),
             "have 1 names": Classes({"C0": (1.0, 2.0)}, (0.5, 0.5), ("low",))}
    for sentence, classes in wrong.items():
        with pytest.raises(ModelError, match=sentence):
            replace(DECAY, classes=classes)


@pytest.mark.slow
def test_responders_and_non_responders_are_told_apart_in_every_chain():
    """Thirty responders of forty patients. Last: it holds, 64 s on two busy cores."""
    rng = np.random.default_rng(11)
    low = np.arange(40) % 4 == 0
    rows = []
    for i in range(40):
        start = (8.0 if low[i] else 120.0) * np.exp(0.5 * rng.normal())
        k = 0.2 * np.exp(0.3 * rng.normal())
        rows += [(str(i + 1), t, start * np.exp(-k * t + 0.2 * rng.normal()))
                 for t in (0.5, 2, 5, 9)]
    found = fit(population(DECAY, classes="2: C0"), cohort(rows), seed=1, chains=4, draws=500)
    assert found.convergence.ok, found.convergence.reasons
    own = tables.individuals(found)
    assert ((own["class"] == 1) == low).mean() > 0.95
    table = tables.parameters(found).set_index("parameter")
    for name, truth in {"C0_pop": 8.0, "C0_pop_2": 120.0, "share_2": 0.75, "omega_C0": 0.5}.items():
        assert table.loc[name, "lower95"] < truth < table.loc[name, "upper95"]
    draws = found.posterior["posterior"].dataset["class_2_probability"].values
    placed = draws.mean(axis=1).round()  # of each chain
    assert (placed == placed[0]).all()
