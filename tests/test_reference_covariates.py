"""Posteriors of covariates and correlations against published and exact ones.

Last run of the slow part, 2026-11-27, by nuts and gibbs: all pass (bauer501, weighted to NONMEM's
priors: every quantile within 0.09 SD of its BAYES, 0.17 of its NUTS; the lines within 4 Monte Carlo
SEs of least squares).
"""

import re

import numpy as np
import pandas as pd
import pytest
from models_for_tests import cohort as made
from reference_models import INFUSED, LINE, model, parameters, single_dose

from carpk.fitting import fit
from carpk.population_model import population
from carpk.posterior import summary

FLAT = "normal(0, 316)"


def sampled(asked, cohort, draws=2000, estimator="nuts"):
    """Draws by name, (chain * draw,), and their Monte Carlo SEs."""
    found = fit(asked, cohort, estimator, seed=1, draws=draws)
    post = found.posterior["posterior"].dataset
    values = {n: post[n].values.ravel() for n in found.model.free}
    ess = summary({n: post[n].values for n in found.model.free})["ess_bulk"]
    return found, values, {n: v.std() / ess[n] ** 0.5 for n, v in values.items()}


def expected(file):
    """{sampler: {meaning: (mean, SD, 5 %, 50 %, 95 %)}} of section D of NONMEM's results."""
    bayes, nuts = file.read_text().partition("## D. Bayes")[2].split("NONMEM NUTS,")
    return {k: {m[1]: [float(v) for v in m[2].split("|")] for m in re.finditer(
        r"^\| [A-Z]\S+ \| (.+?) \| (.+) \|$", text, re.MULTILINE)}
        for k, text in (("BAYES", bayes), ("NUTS", nuts))}


def to_inverse_wishart(values, freedom):
    """(draws,), weights from halfnormal(1) SDs and a flat correlation to NONMEM's priors: OMEGA
    inverse Wishart of scale 2 diag(0.04, 0.04), SIGMA of scale 0.05 and 1 degree of freedom."""
    a, b, sigma = (values[n] ** 2 for n in ("omega_CL", "omega_V", "sigma_C_prop"))
    det = a * b * (1 - values["corr_CL_V"] ** 2)
    wanted = -0.5 * (freedom + 3) * np.log(det) - 0.5 * 0.08 * (a + b) / det \
        - 1.5 * np.log(sigma) - 0.5 * 0.05 / sigma
    drawn = -0.5 * (a + b + sigma) - np.log(a * b) - 0.5 * np.log(sigma)  # densities of variances
    weight = np.exp(wanted - drawn - np.max(wanted - drawn))
    return weight / weight.sum()


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["nuts", "gibbs"])
def test_bauers_covariates_have_the_posterior_that_nonmem_samples(shared_data, estimator):
    """Means against 10,000 iterations of NONMEM BAYES, and the 5, 50 and 95 % quantiles of all
    coefficients, of the full OMEGA and of SIGMA against BAYES and NUTS, within Monte Carlo error.

    Its priors of the variances are inverse Wishart, which the draws are weighted to. NONMEM's two
    samplers read the 2 degrees of freedom of OMEGA's differently: NUTS as the textbook's density,
    BAYES as 2 + 3 (found here: with it all agree, without it no variance does).
    """
    cohort = single_dose(shared_data / "bauer501_covariates" / "bauer501.csv",
                         WT="WT", AGE="AGE", SEX="SEX")
    covariates = {f"{p} ~ {c}": form for p in ("CL", "V")
                  for c, form in (("WT", "power(70)"), ("AGE", "power(50)"),
                                  ("SEX", "category(0)"))}
    free = {f"beta_{p}_{c}": FLAT for p in ("CL", "V") for c in ("WT", "AGE", "SEX_1")}
    asked = population(INFUSED, covariates=covariates, correlated="full",
                       priors={"CL_pop": "lognormal(1, 316)", "V_pop": "lognormal(1, 316)", **free,
                               **dict.fromkeys(("omega_CL", "omega_V", "sigma_C_prop"),
                                               "halfnormal(1)"), "correlated": "lkj(1)"})
    # as many draws as it takes: with 2,000 a chain gibbs is short of ESS by two seeds of four
    found, values, mcse = sampled(asked, cohort, 0, estimator)
    assert found.convergence.ok
    for name, mean, size in (
            ("CL_pop", 1.07064, 0.03907), ("V_pop", 3.4664, 0.04985),
            ("beta_CL_WT", 0.640645, 0.1647), ("beta_V_WT", 1.31467, 0.2042),
            ("beta_CL_AGE", -0.556722, 0.1059), ("beta_V_AGE", 0.05547, 0.1322),
            ("beta_CL_SEX_1", -0.1025, 0.05889), ("beta_V_SEX_1", -0.0517635, 0.07345)):
        ours = np.log(values[name]) if name.endswith("_pop") else values[name]
        slack = 3 * mcse[name] / (values[name].mean() if name.endswith("_pop") else 1.0)
        assert abs(ours.mean() - mean) < 0.1 * size + slack, name
        assert abs(np.log(ours.std() / size)) < 0.12, name
    as_nonmem = {"ln CL": np.log(values["CL_pop"]), "ln V": np.log(values["V_pop"]),
                 **{f"{p}~{c}": values[f"beta_{p}_{c}{'_1' * (c == 'SEX')}"]
                    for p in ("CL", "V") for c in ("WT", "AGE", "SEX")},
                 "var eta CL": values["omega_CL"] ** 2, "var eta V": values["omega_V"] ** 2,
                 "cov": values["corr_CL_V"] * values["omega_CL"] * values["omega_V"],
                 "proportional variance": values["sigma_C_prop"] ** 2}
    # draws that are independent, before they are weighted
    alike = min((v.std() / mcse[n]) ** 2 / v.size for n, v in values.items())
    published = expected(shared_data / "bauer501_covariates" / "expected.md")
    for sampler, freedom in (("BAYES", 5), ("NUTS", 2)):
        weight = to_inverse_wishart(values, freedom)
        slack = np.sqrt(1 / 1000 + np.sum(weight**2) / alike)  # NONMEM's worth 1,000, if not more
        for name, (_, size, *quantiles) in published[sampler].items():
            order = np.argsort(as_nonmem[name])
            ours = np.interp([0.05, 0.5, 0.95], np.cumsum(weight[order]), as_nonmem[name][order])
            off = (ours - quantiles) / size  # whose SE of a normal is 2.11 and 1.25 / sqrt(draws)
            assert np.all(np.abs(off) < 3.5 * slack * np.array([2.11, 1.25, 2.11])), (name, off)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["nuts", "gibbs"])
def test_a_balanced_linear_model_has_the_least_squares_means(shared_data, estimator):
    """27 children at the same four ages: whatever the variances, the posterior means of the lines
    under flat priors are the least-squares ones, and REML's SDs are near the posterior's."""
    table = pd.read_csv(shared_data / "lme_orthodont" / "orthodont.csv")
    cohort = made([(str(r.ID), r.AGE, r.DV) for r in table.itertuples()],
                  SEX=table.groupby("ID", sort=False)["SEX"].first().to_numpy())
    asked = population(LINE, covariates={"a ~ SEX": "category(Male)", "b ~ SEX": "category(Male)"},
                       correlated="full", priors={
                           **dict.fromkeys(("a_pop", "beta_a_SEX_Female"), "normal(0, 1000)"),
                           **dict.fromkeys(("b_pop", "beta_b_SEX_Female"), "normal(0, 100)"),
                           "omega_a": "halfnormal(10)", "omega_b": "halfnormal(1)",
                           "sigma_C_add": "halfnormal(10)"})
    # as many draws as it takes: with 2,000 a chain gibbs is short of ESS by two seeds of four
    found, values, mcse = sampled(asked, cohort, 0, estimator)
    assert found.convergence.ok
    for name, mean, size in (("a_pop", 16.340625, 1.0185), ("b_pop", 0.784375, 0.0860),
                             ("beta_a_SEX_Female", 1.0321022727, 1.5957),
                             ("beta_b_SEX_Female", -0.3048295455, 0.1347)):
        assert abs(values[name].mean() - mean) < 4 * mcse[name], name
        assert abs(np.log(values[name].std() / size)) < 0.15, name


@pytest.mark.slow
def test_the_known_effect_of_a_simulated_emax_trial_is_covered(shared_data):
    """beta 0.3 of the truth, and saemix's estimates, inside the 95 % intervals."""
    emax = model("Emax", parameters(("E0", 20.0), ("Emax", 100.0), ("EC50", 10.0)),
                 lambda t, p: {"C": p.E0 + p.Emax * t / (p.EC50 + t)}, error="additive")
    table = pd.read_csv(next((shared_data / "pd_emax_sim").glob("*.csv")))
    rows = [(str(r.ID), r.DOSE, r.DV) for r in table.itertuples()]
    who = table.groupby("ID", sort=False)["GENDER"].first()
    asked = population(emax, covariates={"EC50 ~ GENDER": "category(0)"})
    found, values, _ = sampled(asked, made(rows, GENDER=who.to_numpy()), draws=1000)
    assert found.convergence.ok
    for name, value in (("beta_EC50_GENDER_1", 0.3), ("beta_EC50_GENDER_1", 0.38342),
                        ("E0_pop", 23.1615), ("Emax_pop", 106.9204), ("EC50_pop", 11.3720),
                        ("sigma_C_add", 4.6655)):
        low, high = np.quantile(values[name], [0.025, 0.975])
        assert low < value < high, name
