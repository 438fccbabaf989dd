"""Missing covariates: against scipy, normal models in closed form, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from models_for_tests import DECAY, LEVEL, cohort, decaying
from scipy import stats
from typer.testing import CliRunner

from carpk import missing_rows, tables
from carpk.cli import app
from carpk.cohort import design
from carpk.fitting import fit, load_fit
from carpk.likelihood import data_of, log_joint, patient_log_density, population_location
from carpk.missing import missing_priors
from carpk.nonmem import to_csv
from carpk.population_model import population
from carpk.prediction import predictions
from carpk.predictive_check import new_measurements
from carpk.preparation import resolve
from carpk.problems import DataError, RequestError

EFFECTS = {"C0 ~ WT": "power(70)", "k ~ SEX": "category(F)", "k ~ WT": "linear(70)",
           "C0 ~ AGE": "exponential(33)"}
BOTH = {"WT": "model", "SEX": "model"}


def lacking(patients=8, **how):
    """A cohort in which patient 3 has no weight, 5 no sex and 7 neither."""
    made = decaying(patients, **how)
    made.covariates["AGE"] = 30.0 + np.arange(patients) % 5
    made.covariates.loc[["3", "7"], "WT"] = np.nan
    made.covariates.loc[["5", "7"], "SEX"] = None
    return made


COHORT = lacking()
DESIGN = design(COHORT, DECAY)
ASKED = population(DECAY, covariates=EFFECTS, missing=BOTH)
MODEL, TOLD = resolve(ASKED, DESIGN, {})
DATA = data_of(MODEL, DESIGN)
THETA = {"C0_pop": 90.0, "k_pop": 0.25, "beta_C0_WT": 0.7, "beta_k_SEX_M": -0.4,
         "beta_k_WT": 0.01, "beta_C0_AGE": 0.05, "mean_WT": 71.0, "slope_WT_AGE": 0.06,
         "sd_WT": 0.2, "z_WT_3": 0.8, "z_WT_7": -1.3, "logit_SEX_M": -0.5, "slope_SEX_M_AGE": 0.3,
         "omega_C0": 0.4, "omega_k": 0.35, "sigma_C_log": 0.3}


def by_hand():
    """Weights (P,) with the missing ones by z, ln P(M) and ln P(F) of each patient."""
    age = COHORT.covariates["AGE"].to_numpy()
    x = (age - age.mean()) / age.std()
    expected = np.log(71.0) + 0.06 * x
    weight = COHORT.covariates["WT"].to_numpy(copy=True)
    weight[[2, 6]] = np.exp(expected[[2, 6]] + 0.2 * np.array([0.8, -1.3]))
    odds = -0.5 + 0.3 * x
    return expected, weight, stats.logistic.logcdf(odds), stats.logistic.logcdf(-odds)


def test_the_density_is_that_written_out_by_hand():
    expected, weight, male, female = by_hand()
    known = ~np.isin(np.arange(8), [2, 6])
    phi = np.log([90.0, 0.25]) + np.random.default_rng(3).normal(size=(8, 2)) * [0.4, 0.35]
    age = COHORT.covariates["AGE"].to_numpy() - 33
    total = stats.norm(np.log(90) + 0.7 * np.log(weight / 70) + 0.05 * age, 0.4).logpdf(
        phi[:, 0]).sum()
    slope = np.log(0.25) + np.log(1 + 0.01 * (weight - 70))
    by_sex = {s: stats.norm(slope + b, 0.35).logpdf(phi[:, 1]) for s, b in (("F", 0), ("M", -0.4))}
    for i, sex in enumerate(COHORT.covariates["SEX"]):
        share = {"M": male[i], "F": female[i]}
        total += np.logaddexp(*(share[s] + by_sex[s][i] for s in "MF")) if pd.isna(sex) else \
            share[sex] + by_sex[sex][i]
    total += stats.norm(expected, 0.2).logpdf(np.log(weight))[known].sum()
    total += stats.norm.logpdf([0.8, -1.3]).sum()
    for row in COHORT.observations.itertuples():
        i = COHORT.ids.index(row.ID)
        dv = stats.lognorm(s=0.3, scale=np.exp(phi[i, 0] - np.exp(phi[i, 1]) * row.TIME))
        total += dv.logcdf(row.UPPER) if row.CENS else dv.logpdf(row.DV)
    total += sum(float(MODEL.priors[n].log_density(jnp.asarray(THETA[n])))
                 for n in MODEL.free if not n.startswith("z_"))
    ours = float(jax.jit(lambda phi: log_joint(
        MODEL, DATA, THETA, phi - population_location(MODEL, DATA, THETA)[0]))(phi))
    assert ours == pytest.approx(total, rel=1e-12)


def test_of_two_categories_and_two_classes_every_combination_is_summed_over():
    made = lacking()
    made.covariates["SITE"] = [*"ABCABC", None, "A"]
    model, _ = resolve(population(
        DECAY, covariates={"k ~ SEX": "category(F)", "C0 ~ SITE": "category(A)"},
        missing={"SEX": "model", "SITE": "model"}, classes="2: C0"), design(made, DECAY), {})
    theta = {**{n: p.median for n, p in model.priors.items()}, "beta_k_SEX_M": 0.6,
             "beta_C0_SITE_B": -0.5, "beta_C0_SITE_C": 1.0, "logit_SEX_M": 0.4,
             "logit_SITE_B": -1.0, "logit_SITE_C": 0.7, "share_2": 0.3, "delta_C0_2": 1.2}
    phi = np.log([110.0, 0.3])
    sites = np.exp([0, -1.0, 0.7]) / np.exp([0, -1.0, 0.7]).sum()
    start = sum(p * q * stats.norm(np.log(theta["C0_pop"]) + b + d, theta["omega_C0"]).pdf(phi[0])
                for p, b in zip(sites, (0, -0.5, 1.0), strict=True)
                for q, d in ((0.7, 0.0), (0.3, 1.2)))
    rate = sum(p * stats.norm(np.log(theta["k_pop"]) + b, theta["omega_k"]).pdf(phi[1])
               for p, b in ((stats.logistic.cdf(0.4), 0.6), (stats.logistic.cdf(-0.4), 0)))
    ours = jax.jit(lambda phi: patient_log_density(model, data_of(model, design(made, DECAY)),
                                                   theta, phi))(np.tile(phi, (8, 1)))
    assert float(ours[6]) == pytest.approx(np.log(start * rate), rel=1e-12)


def test_what_is_missing_is_told_and_nothing_is_named_that_is_not():
    assert [str(p).split(": ", 1)[1] for p in TOLD if "missing" in p.wrong] == [
        "missing in 2 of 8 patients: modelled as log-normal given AGE",
        "missing in 2 of 8 patients: modelled as a category of 2 levels given AGE"]
    assert MODEL.priors["mean_WT"].median == pytest.approx(stats.gmean(
        COHORT.covariates["WT"].dropna()), rel=5e-3)
    assert missing_priors(MODEL.missing[0], {})["sd_WT"].numbers[0] == pytest.approx(
        2 * np.log(COHORT.covariates["WT"].dropna()).std(ddof=0), rel=0.03)
    plain = population(DECAY, covariates={"C0 ~ AGE": "power"}, missing={"AGE": "model"})
    whole, told = resolve(plain, DESIGN, {})
    assert whole.missing == ()
    assert "nothing to model" in told[-1].wrong


def test_the_tables_hold_what_was_missing(near_typical, tmp_path):
    (tmp_path / "decay.py").write_text("from models_for_tests import DECAY as MODEL\n")
    asked = population(str(tmp_path / "decay.py"), covariates=EFFECTS, missing=BOTH)
    found = load_fit(near_typical(asked, COHORT).save(tmp_path))
    assert found.model.missing == MODEL.missing
    assert found.manifest["request"]["missing"] == BOTH
    assert any("WT: missing in 2 of 8" in w for w in found.manifest["warnings"])
    table = tables.parameters(found).set_index("parameter")
    assert "z_WT_3" not in table.index
    assert table.loc["mean_WT", "meaning"] == \
        "geometric mean of WT among the patients; missing in 2 patients"
    assert table.loc["slope_SEX_M_AGE", "meaning"] == \
        "slope of log odds of SEX M against F per SD of AGE; missing in 2 patients"
    own = tables.individuals(found).set_index("ID")
    assert own["WT_median"].notna().tolist() == COHORT.covariates["WT"].isna().tolist()
    assert (own[["SEX_F_probability", "SEX_M_probability"]].sum(axis=1)[["5", "7"]]).tolist() == \
        pytest.approx([1.0, 1.0])
    assert own["SEX_M_probability"].notna().sum() == 2
    effects = tables.covariates(found)
    assert effects.groupby("covariate")["missing"].first().to_dict() == {
        "AGE": 0, "SEX": 2, "WT": 2}
    assert np.isfinite(effects[["median", "lower95", "upper95"]].to_numpy()).all()
    assert np.isfinite(predictions(found)[["PRED", "IPRED"]].to_numpy()).all()


def test_new_patients_have_levels_as_they_are_frequent():
    made = lacking(400)
    made.covariates.loc[made.covariates.index[:300], "SEX"] = None
    seen = design(made, DECAY)
    model, _ = resolve(population(DECAY, covariates={"k ~ SEX": "category(F)"},
                                  missing={"SEX": "model"}), seen, {})
    theta = {"C0_pop": 90.0, "k_pop": 0.25, "beta_k_SEX_M": 1.0, "logit_SEX_M": np.log(3.0),
             "omega_C0": 0.4, "omega_k": 1e-9, "sigma_C_log": 1e-9}
    y = np.log(jax.jit(lambda data: new_measurements(model, data, theta, jax.random.key(2)))(
        data_of(model, seen)))[:300]
    rate = (y[:, 0] - y[:, 1]) / (seen.time[:300, 1] - seen.time[:300, 0]) / 0.25
    male = np.isclose(rate, np.e, atol=1e-5)
    assert (male | np.isclose(rate, 1.0, atol=1e-5)).all()
    assert stats.binomtest(int(male.sum()), 300, 0.75).pvalue > 0.001


@pytest.mark.parametrize(("asked", "words"), [
    ({"missing": {"HEIGHT": "model"}}, "no covariate effect reads the column"),
    ({"missing": {"WT": "mean"}}, "modelled, or refused"),
    ({"missing": {"WT": "model"}, "time_varying": {"WT": "locf"}}, "its rule fills it"),
    ({"covariates": ["C0 ~ np.sqrt(WT)"], "missing": {"WT": "model"}}, "term of a formula")])
def test_what_cannot_be_modelled_is_refused(asked, words):
    with pytest.raises(RequestError, match=words):
        population(DECAY, **{"covariates": EFFECTS, **asked})


def test_a_level_needs_a_parameter_that_varies_and_maximum_likelihood_refuses_both():
    with pytest.raises(DataError, match="this one has no spread"):
        resolve(population(DECAY, covariates=EFFECTS, missing=BOTH, spread=["C0"]), DESIGN, {})
    with pytest.raises(DataError, match=r'model it \(missing = \{WT = "model"\}\)'):
        resolve(population(DECAY, covariates=EFFECTS, missing={"SEX": "model"}), DESIGN, {})
    with pytest.raises(RequestError, match="estimator nuts"):
        fit(ASKED, COHORT, "saem", seed=1)


def test_the_command_line_asks_for_it(tmp_path):
    file, run = tmp_path / "some.csv", tmp_path / "run.toml"
    to_csv(COHORT, file)
    run.write_text('model = "stein_2019"\nmissing = {WT = "model"}\n[data]\nfile = "some.csv"\n'
                   '[covariates]\n"Cmax ~ WT" = "power"\n')
    shown = CliRunner().invoke(app, ["check", str(run)])
    assert shown.exit_code == 0
    assert "missing in 2 of 8 patients" in shown.output
    refused = CliRunner().invoke(app, [
        "fit", str(file), "--model", "stein_2019", "--seed", "1", "--estimator", "focei",
        "--covariate", "Cmax ~ WT=power", "--missing", "WT", "--out", str(tmp_path)])
    assert refused.exit_code == 1
    assert "covariates that no patient lacks" in refused.output


def normal_cohort(patients, lost, seed, beta=0.8, male=1.5):
    """One level per patient, y = beta ln(WT / 70) + 1.5 M + eta, twice measured; `lost` have no
    weight, of whom every second, and as many again, no sex."""
    rng = np.random.default_rng(seed)
    weight, sex = 70 * np.exp(0.3 * rng.normal(size=patients)), rng.random(patients) < 0.4
    m = beta * np.log(weight / 70) + male * sex + 0.5 * rng.normal(size=patients)
    made = cohort([(str(i + 1), t, m[i] + 0.3 * rng.normal()) for i in range(patients)
                   for t in (1.0, 2.0)], WT=weight, SEX=np.where(sex, "M", "F"))
    made.covariates.loc[made.covariates.index[:lost], "WT"] = np.nan
    made.covariates.loc[made.covariates.index[:2 * lost:2], "SEX"] = None
    return made, made.observations.groupby("ID", sort=False)["DV"].mean().to_numpy()


def test_patients_values_are_those_of_the_normal_model(monkeypatch):
    """Everything but the missing values is fixed: each weight is a mixture of two normals, each
    sex a Bayes factor."""
    monkeypatch.setattr(missing_rows, "_DRAWS", 8000)  # all: of 1,000 a median has an SE of 0.016
    made, y = normal_cohort(12, 4, 5)
    held = {"m_pop": 0.0, "beta_m_WT": 0.8, "beta_m_SEX_M": 1.5, "mean_WT": 70.0, "sd_WT": 0.3,
            "logit_SEX_M": np.log(2 / 3), "omega_m": 0.5, "sigma_y_add": 0.3}
    found = fit(population(LEVEL, covariates={"m ~ WT": "power(70)", "m ~ SEX": "category(F)"},
                           missing=BOTH, fixed=held), made, seed=1, chains=2, draws=4000,
                warmup=300)
    own = tables.individuals(found)
    noise = 0.5**2 + 0.3**2 / 2
    for i in range(8):
        x, sex = np.log(made.covariates["WT"].iloc[i] / 70), made.covariates["SEX"].iloc[i]
        of_x = 0.0 if i < 4 else 0.8 * x
        wide = np.sqrt(noise + 0.8**2 * 0.3**2 * (i < 4))
        weight = {s: (p if pd.isna(sex) else s == sex) * stats.norm(of_x + b, wide).pdf(y[i])
                  for s, p, b in (("F", 0.6, 0.0), ("M", 0.4, 1.5))}
        male = weight["M"] / (weight["M"] + weight["F"])
        if pd.isna(sex):
            assert own["SEX_M_probability"].iloc[i] == pytest.approx(male, abs=0.03)
        if i < 4:
            shrink, size = 0.8 * 0.3**2 / wide**2, 0.3 * np.sqrt(noise) / wide
            for end, q in (("lower95", 0.025), ("median", 0.5), ("upper95", 0.975)):
                at = np.log(own[f"WT_{end}"].iloc[i] / 70)
                cdf = male * stats.norm(shrink * (y[i] - 1.5), size).cdf(at) \
                    + (1 - male) * stats.norm(shrink * y[i], size).cdf(at)
                assert cdf == pytest.approx(q, abs=0.04 if q == 0.5 else 0.015)
    assert found.convergence.measures["divergences"] == 0


@pytest.mark.slow
def test_what_is_learned_is_what_the_normal_model_says():
    """The posterior of coefficient, mean and SD on a grid, the missing weights integrated out in
    closed form. Last: it holds within four Monte Carlo errors, SDs within 6 %; 9 s of CPU."""
    rng = np.random.default_rng(2)
    x = 0.3 * rng.normal(size=16)
    y = 0.8 * x + 0.4 * rng.normal(size=16)
    made = cohort([(str(i + 1), t, y[i] + d) for i in range(16) for t, d in ((1.0, 0.2),
                                                                            (2.0, -0.2))],
                  WT=np.where(np.arange(16) < 6, np.nan, 70 * np.exp(x)))
    found = fit(population(
        LEVEL, covariates={"m ~ WT": "power(70)"}, missing={"WT": "model"},
        fixed={"omega_m": 0.35, "sigma_y_add": 0.3}, priors={
            "m_pop": "normal(0, 1)", "beta_m_WT": "normal(0, 1)", "sd_WT": "halfnormal(0.5)",
            "mean_WT": "lognormal(70, 0.5)"}), made, seed=1, chains=4, draws=2000, warmup=500)
    m, b, mu, s = np.meshgrid(np.linspace(-0.9, 0.9, 41), np.linspace(-2.5, 3.5, 61),
                              np.linspace(-0.9, 0.9, 45), np.linspace(0.05, 1.2, 61),
                              indexing="ij", sparse=True)
    noise = 0.35**2 + 0.3**2 / 2
    log = stats.norm.logpdf(m) + stats.norm.logpdf(b) + stats.norm(0, 0.5).logpdf(mu) \
        + stats.halfnorm(scale=0.5).logpdf(s)
    for i in range(16):
        log = log + (stats.norm(m + b * mu, np.sqrt(noise + b**2 * s**2)).logpdf(y[i]) if i < 6
                     else stats.norm(m + b * x[i], noise**0.5).logpdf(y[i])
                     + stats.norm(mu, s).logpdf(x[i]))
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    draws = found.posterior["posterior"].dataset
    table = tables.parameters(found).set_index("parameter")
    for name, values, drawn in (
            ("m_pop", m, draws["m_pop"]), ("beta_m_WT", b, draws["beta_m_WT"]),
            ("mean_WT", mu, np.log(draws["mean_WT"] / 70)), ("sd_WT", s, draws["sd_WT"])):
        mean = float((weight * values).sum())
        sd = float((weight * (values - mean) ** 2).sum() ** 0.5)
        error = 4 * sd / table.loc[name, "ess_bulk"] ** 0.5
        assert float(drawn.mean()) == pytest.approx(mean, abs=error), name
        assert float(drawn.std()) == pytest.approx(sd, rel=0.06), name
    assert found.convergence.ok, found.convergence.reasons


def test_a_list_of_missing_covariates_is_short_for_modelling_each():
    assert population(DECAY, covariates=EFFECTS, missing=list(BOTH)).missing == ASKED.missing
