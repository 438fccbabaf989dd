"""The regularised horseshoe: its density and draws, what the table says of it, what it finds."""

import json

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from conftest import script
from models_for_tests import DECAY, cohort, decaying
from scipy import stats

from carpk import examples, fitting
from carpk.cohort import design
from carpk.covariate_effects import covariates
from carpk.likelihood import from_theta, log_jacobian, log_prior, to_theta
from carpk.nonmem import read_csv
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.problems import RequestError
from carpk.simulation import drawn_from_prior

EFFECTS = {"C0 ~ WT": "power(70)", "C0 ~ SEX": "category(F)", "k ~ WT": "exponential(70)"}
NAMES = ("beta_C0_WT", "beta_C0_SEX_M", "beta_k_WT")


@pytest.fixture(scope="module")
def ready():
    model = population(DECAY, covariates=EFFECTS, priors={"covariates": "horseshoe(1)"})
    return resolve(model, design(decaying(), DECAY), {})[0]


def by_hand(theta, sizes):
    """ln density of the coefficients and of their scales, as the paper writes it."""
    tau, slab = theta["tau_beta"], theta["slab_beta"]
    around = float(f"{1 / (3 - 1) * (0.5 * 0.5 * 0.3) ** (1 / 3) / 8**0.5:.3g}")
    total = stats.halfcauchy(scale=around).logpdf(tau) + stats.invgamma(2, scale=2).logpdf(slab)
    for name, size in sizes.items():
        own = theta[name.replace("beta", "lambda", 1)]
        regularised = slab * own**2 / (slab + tau**2 * own**2)
        total += stats.halfcauchy().logpdf(own) + stats.norm(
            0, size * tau * regularised**0.5).logpdf(theta[name])
    return total


def test_coefficients_have_the_density_of_the_paper(ready):
    weight = decaying().covariates["WT"].to_numpy()
    sizes = {"beta_C0_WT": float(f"{1 / np.log(weight / 70).std():.2g}"), "beta_C0_SEX_M": 1.0,
             "beta_k_WT": float(f"{1 / weight.std():.2g}")}
    assert ready.horseshoe.sizes == sizes
    random = np.random.default_rng(1)
    plain = resolve(population(DECAY, covariates=EFFECTS), design(decaying(), DECAY), {})[0]
    apart = []
    for u in random.normal(size=(4, len(ready.free))):
        theta = to_theta(ready, jnp.asarray(u))
        assert np.allclose(from_theta(ready, theta), u, atol=1e-9)
        rest = sum(plain.priors[n].log_density(theta[n]) for n in plain.free if n not in NAMES)
        found = float(log_prior(ready, theta) - rest)
        apart.append(found - by_hand({n: float(v) for n, v in theta.items()}, sizes))
    assert np.allclose(apart, 0.0, atol=1e-8)


def test_a_coefficient_over_its_scale_is_standard_normal_on_the_real_line(ready):
    u = jnp.asarray(np.random.default_rng(2).normal(size=len(ready.free)))
    at = [ready.free.index(n) for n in NAMES]
    moved = u.at[jnp.asarray(at)].set(0.0)

    def density(u):
        return log_prior(ready, to_theta(ready, u)) + log_jacobian(ready, u)
    assert float(density(moved) - density(u)) == pytest.approx(
        0.5 * float((u[jnp.asarray(at)] ** 2).sum()), abs=1e-9)


def test_draws_are_of_the_prior(ready):
    drawn = [drawn_from_prior(ready, seed) for seed in range(600)]
    random = np.random.default_rng(3)
    tau = ready.priors["tau_beta"].numbers[0] * np.abs(random.standard_cauchy(60_000))
    own, slab = np.abs(random.standard_cauchy(60_000)), 2 / random.gamma(2, size=60_000)
    scale = tau * own * np.sqrt(slab / (slab + (tau * own) ** 2))
    mine = [d["beta_C0_SEX_M"] for d in drawn]
    assert stats.ks_2samp(mine, scale * random.normal(size=60_000)).pvalue > 1e-3


def test_the_table_says_how_much_each_coefficient_is_shrunk(near_typical, tmp_path):
    model = population(DECAY, covariates=EFFECTS, priors={"covariates": "horseshoe(1)",
                                                          "beta_k_WT": "normal(0, 1)"})
    fit = near_typical(model, decaying(16))
    assert fit.manifest["request"]["priors"] == {"beta_k_WT": "normal(0, 1)",
                                                 "covariates": "horseshoe(1)"}
    assert set(fit.model.horseshoe.sizes) == set(NAMES[:2])
    assert json.loads(json.dumps(fit.manifest))["resolved"]["horseshoe"]["expected"] == 1.0
    table = covariates(fit).query("kind == 'parameter'").set_index(["quantity", "covariate"])
    draws = fit.posterior["posterior"].dataset
    freed = draws["tau_beta"].values * draws["lambda_C0_SEX_M"].values
    scale = freed / np.sqrt(1 + freed**2 / draws["slab_beta"].values)
    women = (decaying(16).covariates["SEX"] == "F").to_numpy()
    kappa = 1 / (1 + 16 * (women.std() * scale / draws["omega_C0"].values) ** 2)
    assert table.loc[("C0", "SEX"), "kappa"].item() == pytest.approx(kappa.mean(), rel=1e-6)
    assert table.loc[("k", "WT"), "kappa"].isna().all()
    from carpk.tables import parameters
    rows = parameters(fit).set_index("parameter")
    assert rows.loc["lambda_C0_WT", "meaning"] == "horseshoe: own scale of beta_C0_WT"
    assert rows.loc["beta_C0_WT", "note"] == "horseshoe(1) over 2 coefficients"


@pytest.mark.parametrize(("priors", "words"), [
    ({"covariates": "lasso"}, "not a prior of all coefficients"),
    ({"covariates": "horseshoe(0)"}, "not a prior of all coefficients"),
    ({"covariates": "horseshoe(3)"}, "over 3 coefficients cannot expect 3"),
    ({"beta_C0_WT": "horseshoe(1)"}, "of all coefficients together")])
def test_what_is_no_horseshoe_is_refused(priors, words):
    with pytest.raises(RequestError, match=words):
        resolve(population(DECAY, covariates=EFFECTS, priors=priors),
                design(decaying(), DECAY), {})


def test_maximum_likelihood_has_no_place_for_it(ready):
    from carpk.maximum_likelihood import refuse_priors
    with pytest.raises(RequestError, match="no place for a prior"):
        refuse_priors(ready)


KNOWN = {"beta_C0_A": 0.5, "beta_C0_B": -0.35, "beta_k_C": 0.3}


def simulated(seed, patients=40):
    """Patients of DECAY, covariates A to G; A and B move C0, C moves k, the rest nothing. Spreads
    0.5 and 0.3: the effects explain 0.4 and 0.5 of the variance. The covariates have SDs of 1, so
    that all cohorts have one prior, and one compiled program."""
    random = np.random.default_rng(seed)
    x = pd.DataFrame(random.normal(size=(patients, 7)), columns=list("ABCDEFG"))
    x = (x - x.mean()) / x.std(ddof=0)
    start = 100 * np.exp(0.5 * x["A"] - 0.35 * x["B"] + 0.5 * random.normal(size=patients))
    k = 0.2 * np.exp(0.3 * x["C"] + 0.3 * random.normal(size=patients))
    rows = [(str(i + 1), t, start[i] * np.exp(-k[i] * t + 0.2 * random.normal()))
            for i in range(patients) for t in (0.5, 2.0, 5.0, 9.0)]
    return cohort(rows, **{n: x[n].to_numpy() for n in x})


@pytest.mark.slow
def test_known_effects_are_found_and_noise_is_not():
    """Of 14 coefficients in each of 20 cohorts 3 are known; one is found where its 95 % interval
    excludes 0. Last, 390 s of CPU: of known effects 47 of 60 (A 19, B 9, C 19 of 20), of others
    none of 220; up to 34 of 1000 transitions diverged, R-hat at most 1.06.

    With every patient's own C0 and k known, which no fit can beat, the same prior written anew in
    NumPyro and sampled by it finds 52 of 60 (20, 12, 20), and 2 of the others: A and C, as large
    as the spread they stand against, are nearly always found, B, 0.7 of it, in 12. At least 7 are
    asked of it, the 1 % limit of that rate.
    """
    found = []
    for seed in range(20):
        fit = fitting.fit(population(
            DECAY, covariates={f"{p} ~ {c}": "exponential(0)" for p in ("C0", "k")
                               for c in "ABCDEFG"}, priors={"covariates": "horseshoe(3)"}),
            simulated(seed), seed=seed, chains=2, draws=500, target_accept=0.95)
        draws = fit.posterior["posterior"].dataset
        ends = {n: np.quantile(draws[n], [0.025, 0.975]) for n in fit.model.horseshoe.sizes}
        found.append({n: bool(a * b > 0) for n, (a, b) in ends.items()})
    table = pd.DataFrame(found)
    assert table["beta_C0_A"].mean() >= 0.9
    assert table["beta_k_C"].mean() >= 0.9
    assert table["beta_C0_B"].sum() >= 7
    assert table.drop(columns=[*KNOWN]).to_numpy().mean() <= 0.05


# six covariates on three parameters of the example: three effects are there
PRESENT = ("beta_Cmax_TUMOUR_BURDEN", "beta_Cmax_RESPONSE_NR", "beta_alpha_RESPONSE_NR")
ASKED = {f"{p} ~ {c}": form for p in ("Cmax", "foldx", "alpha") for c, form in {
    "RESPONSE": "category(CR)", "PRODUCT": "category(A)", "TUMOUR_BURDEN": "power(40)",
    "DOSE": "power(3.1)", "AGE": "exponential(14)", "WT": "power(45)"}.items()}


def found_by_the_horseshoe(cohort_, **settings):
    """The coefficients whose 95 % interval excludes 0 and those where it does not, and R-hat."""
    fit = fitting.fit(population("stein_2019", covariates=ASKED, priors={
        "covariates": f"horseshoe({len(PRESENT)})"}), cohort_, **settings)
    draws = fit.posterior["posterior"].dataset
    ends = {n: np.quantile(draws[n], [0.025, 0.975]) for n in fit.model.horseshoe.sizes}
    return ({n: bool(a * b > 0) for n, (a, b) in ends.items()},
            fit.convergence.measures["rhat_max"])


@pytest.mark.slow
def test_the_effects_of_the_example_are_found_and_no_other():
    """With the default settings. Last, 140 s of CPU, R-hat 1.006, no divergent transition: the
    three and none of the 15 others; alpha of NR is the least certain, 0.07 to 1.54.
    """
    found, rhat = found_by_the_horseshoe(examples.example("tisacel_like"), seed=1)
    assert rhat <= 1.01
    assert {n for n, v in found.items() if v} == set(PRESENT)
    assert len(found) == 18


@pytest.mark.slow
def test_the_known_effects_of_cohorts_made_as_the_example_are_found_and_noise_is_not(
        tmp_path, monkeypatch):
    """Cohorts made as the example is, of 20 other seeds. By the expected information of the plain
    model TUMOUR_BURDEN is 4.6 standard errors, RESPONSE on Cmax 4.9 and on alpha 4.0.

    Last, 28 min of CPU: the horseshoe finds 51 of 60 known effects (TUMOUR_BURDEN 18, RESPONSE on
    Cmax 19 and on alpha 14 of 20) and 1 of 300 others; the plain model of all 18, by FOCEI, 58
    (20, 20, 18) and 7; seven of its fits did not come to rest among kinks. R-hat is above 1.1 in
    three cohorts: 1.46 of seed 110 and 1.21 of 108 are omega_Tmax's, beside 1.03 of the
    coefficients; 102, drawn on from 1.10 to 1.007, finds the same.
    Asked for are the 1 % limits of the rates; of others nominal 5 % in the plain model.
    """
    made = script(examples.FOLDER / "tisacel_like" / "make.py")
    forms, known = made.effects()
    assert set(known) == set(PRESENT)
    assert forms.items() <= ASKED.items()
    sparse, plain = [], []
    for seed in range(100, 120):
        monkeypatch.setitem(made.CARD, "seed", seed)
        file = tmp_path / f"{seed}.csv"
        file.write_text(made.make()[0], encoding="utf-8")
        cohort_ = read_csv(file, units={1: "copies/ug"})
        found, rhat = found_by_the_horseshoe(cohort_, seed=seed, chains=2, draws=500)
        whole = fitting.fit(population("stein_2019", covariates=ASKED), cohort_, "focei",
                            seed=seed).manifest["estimates"]
        sparse.append(found)
        plain.append({n: whole[n]["lower95"] * whole[n]["upper95"] > 0 for n in found})
        print(seed, rhat, *([n for n, v in each[-1].items() if v] for each in (sparse, plain)),
              flush=True)
    sparse, plain = pd.DataFrame(sparse), pd.DataFrame(plain)
    print(pd.DataFrame({"horseshoe": sparse.sum(), "plain": plain.sum()}).to_string())
    there, noise = [*PRESENT], [n for n in sparse if n not in PRESENT]
    assert len(noise) == 15
    assert sparse[noise].to_numpy().mean() <= 0.02
    assert plain[noise].to_numpy().mean() <= 0.08
    assert sparse[there].to_numpy().mean() >= 0.73
    assert plain[there].to_numpy().mean() >= 0.9
