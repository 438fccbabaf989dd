"""npde by hand, against their exact value, under censoring, and of right and wrong models."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import cohort_text
from scipy.linalg import sqrtm
from scipy.special import ndtr, ndtri
from scipy.stats import chisquare, kstest, norm

from carpk import normalised_errors, numerical_check
from carpk.cohort import design
from carpk.nonmem import read_csv
from carpk.normalised_errors import decorrelated_errors, imputed, judged, npde
from carpk.numerical_check import npc
from carpk.population_model import population
from carpk.predictive_check import replicates
from carpk.simulation import simulate

GOLDEN = Path(__file__).parent / "golden"
# run 402 of nonmem2rx (Bauer RJ. CPT Pharmacometrics Syst Pharmacol 2019;8:525-537, supplement):
# estimates and variances of V1, CL, V2, Q; patients 1-3 of its table
RUN_402 = ((9.760346, 0.01486943), (3.876825, 0.01997162), (30.81783, 0.02918796),
           (8.773851, 0.02318324))


def test_a_case_worked_by_hand():
    # means 1 and 1.5, variances 4/3 and 5/3, covariance 4/3: the second given the first has
    # mean 1.5 + (y1 - 1) and its residuals are -0.5, -0.5, 0.5, 0.5 but for one of them
    simulated = np.array([[0.0, 0.0], [0.0, 1.0], [2.0, 2.0], [2.0, 3.0]])
    found = decorrelated_errors(np.array([1.0, 3.0]), simulated)
    # 1.0: two of four lie below; 3 - 1.5 - 0 = 1.5: all four residuals lie below
    assert found == pytest.approx([ndtri(2.5 / 5), ndtri(4.5 / 5)])


def test_of_a_normal_model_npde_are_the_decorrelated_residuals():
    rng = np.random.default_rng(3)
    half = rng.normal(size=(5, 5))
    covariance, centre = half @ half.T + np.eye(5), rng.normal(size=5)
    simulated = rng.multivariate_normal(centre, covariance, size=40_000)
    seen = rng.multivariate_normal(centre, covariance)
    exact = np.linalg.solve(np.linalg.cholesky(covariance), seen - centre)
    assert decorrelated_errors(seen, simulated) == pytest.approx(exact, abs=0.05)


def test_they_are_those_nonmem_prints_of_its_thousand_simulations():
    """NONMEM 7.4 decorrelates by the symmetric square root; levels that are decorrelated by it
    beforehand are not changed by ours. Single rows need none: its NPD."""
    printed = pd.read_csv(GOLDEN / "bauer402_npde.csv")
    rng, count = np.random.default_rng(1), 20_000
    v1, cl, v2, q = (typical * np.exp(np.sqrt(w) * rng.normal(size=(count, 1)))
                     for typical, w in RUN_402)
    out, there, back = cl / v1, q / v1, q / v2
    total = out + there + back
    root = np.sqrt(total**2 - 4 * out * back)
    fast, slow = (total + root) / 2, (total - root) / 2
    for _, rows in printed.groupby("ID"):
        t, seen = rows["TIME"].to_numpy(), rows["DV"].to_numpy()
        level = 250 / v1 / (fast - slow) * ((fast - back) * np.exp(-fast * t)
                                            + (back - slow) * np.exp(-slow * t))
        y = level * (1 + np.sqrt(8.841256e-3) * rng.normal(size=level.shape))
        whiten = np.linalg.inv(np.real(sqrtm(np.cov(y, rowvar=False))))
        alone = [decorrelated_errors(seen[[k]], y[:, [k]])[0] for k in range(len(t))]
        together = decorrelated_errors(seen @ whiten, y @ whiten)
        for ours, theirs in ((alone, rows["NPD"]), (together, rows["NPDE"])):
            z = theirs.to_numpy()
            # of a quantile of a thousand; the outermost ten are too few to be told apart
            se = np.sqrt(ndtr(z) * ndtr(-z) / 1000) / norm.pdf(z)
            inside = np.abs(z) < 2.3
            assert (np.abs(ours - z) < 4 * se)[inside].all()


@pytest.mark.parametrize("side", ["below", "above", "between"])
def test_censored_levels_get_the_distribution_they_were_predicted_to_have(side):
    rng = np.random.default_rng(5)
    simulated = rng.normal(size=(400, 3))
    found = []
    for truth in rng.normal(size=(700, 3)):
        lower, upper = truth.copy(), truth.copy()
        limit = np.full(3, 0.3 if side == "below" else -np.inf)
        if side == "below":
            hidden = truth < 0.3
            lower[hidden], upper[hidden] = -np.inf, 0.3
        elif side == "above":
            hidden = truth > 0.8
            lower[hidden], upper[hidden] = 0.8, np.inf
        else:
            hidden = (truth > -0.5) & (truth < 0.5)
            lower[hidden], upper[hidden] = -0.5, 0.5
        levels = imputed(lower, upper, limit, simulated, rng)
        assert ((levels[0] >= lower - 1e-9) & (levels[0] <= upper + 1e-9)).all()
        assert (levels[0] == truth)[~hidden].all()
        found.append(levels[0])
    assert kstest(np.concatenate(found), simulated.ravel()).pvalue > 0.01


def test_what_is_far_from_normal_is_judged_so():
    z = np.random.default_rng(1).normal(size=400)
    assert judged(z)["p_all"] > 0.01
    assert judged(z + 0.4)["p_mean"] < 1e-6
    assert judged(1.4 * z)["p_variance"] < 1e-6
    assert judged(np.sign(z))["p_normal"] < 1e-6
    assert np.isnan(judged(np.array([1.0]))["mean"])


def replaced(fit, values=None, observed=None, seed=1):
    """A fit with other population values in every draw, other measurements, another seed."""
    tree = fit.posterior.copy()
    if values:
        posterior = tree["posterior"].dataset.copy()
        for name, value in values.items():
            posterior[name] = posterior[name] * 0 + value
        tree["posterior"].dataset = posterior
    if observed is not None:
        data, limit = tree["observed_data"].dataset.copy(), 50.0
        below = observed < limit
        data["lower"] = (("observation",), np.where(below, -np.inf, observed))
        data["upper"] = (("observation",), np.where(below, limit, observed))
        data["censored"] = (("observation",), below)
        tree["observed_data"].dataset = data
    manifest = {**fit.manifest, "request": {**fit.manifest["request"], "seed": seed}}
    return dataclasses.replace(fit, posterior=tree, manifest=manifest)


TRUTH = {"foldx_pop": 3900.0, "Tmax_pop": 9.3, "Cmax_pop": 24000.0, "alpha_pop": 0.16,
         "FB_pop": 0.0079, "beta_pop": 0.0032, "omega_foldx": 1.2, "omega_Tmax": 0.38,
         "omega_Cmax": 0.65, "omega_alpha": 0.91, "omega_FB": 0.8, "omega_beta": 0.86,
         "sigma_C_log": 0.4}


@pytest.fixture
def cohort(tmp_path):
    file = tmp_path / "cohort.csv"
    file.write_text(cohort_text(tuple(str(k) for k in range(30))))
    return read_csv(file)


@pytest.fixture
def truth(near_typical, cohort):
    """Thirty patients of ten samples, some censored; every draw of the fit is the truth."""
    return replaced(near_typical(population("stein_2019"), cohort), TRUTH)


def data_sets(fit, cohort, count):
    """Measurements of new patients of the true model, in the order of the fit's rows."""
    seen = design(cohort, fit.model.structure)
    for seed in range(count):
        yield simulate(population("stein_2019"), seen, TRUTH, seed=seed).dv[seen.observed]


def test_data_of_the_model_pass_and_those_of_another_are_rejected(truth, cohort):
    [observed] = data_sets(truth, cohort, 1)
    right = replaced(truth, observed=observed)
    assert judged(npde(right))["p_all"] > 0.05
    assert judged(npde(right))["n"] == 300
    assert npc(right)["outside"].sum() == 0
    for wrong in ({"omega_alpha": 0.0}, {"sigma_C_log": 0.15}):
        fit = replaced(truth, wrong, observed)
        assert judged(npde(fit))["p_all"] < 1e-3, wrong
    alike = {n: 0.0 for n in TRUTH if n.startswith("omega")}
    for fit in (replaced(truth, alike, observed), replaced(truth, {"Cmax_pop": 5000.0}, observed)):
        assert npc(fit)["outside"].sum() > 3


@pytest.mark.slow  # passed, 23 s
def test_fifty_data_sets_of_the_model_have_even_ranks_mean_0_and_variance_1(
        truth, cohort, monkeypatch):
    """Last result, of 15,000 levels: mean 0.009, variance 1.008 (SE 0.008 and 0.012), p 0.69 of
    even ranks; of the shares of the numerical check 6 % outside their bands."""
    simulated = replicates(truth)  # the model is the same each time
    for module in (normalised_errors, numerical_check):
        monkeypatch.setattr(module, "replicates", lambda *_: simulated)
    fits = [replaced(truth, observed=y, seed=k)
            for k, y in enumerate(data_sets(truth, cohort, 50))]
    found = np.array([npde(fit) for fit in fits])
    print(f"mean {found.mean():.4f}, variance {found.var(ddof=1):.4f}")
    z_mean = found.mean(axis=1).mean() * np.sqrt(found.size)
    z_variance = (found.var(axis=1, ddof=1).mean() - 1) * np.sqrt(found.size / 2)
    counts = np.bincount((20 * ndtr(found.ravel())).astype(int), minlength=20)
    even = chisquare(counts).pvalue
    outside = np.mean([npc(fit)["outside"].mean() for fit in fits[::3]])
    print(f"z {z_mean:.2f}, {z_variance:.2f}, even p {even:.3f}, outside {outside:.3f}")
    assert abs(z_mean) < 3.5
    assert abs(z_variance) < 3.5
    assert even > 1e-3
    assert outside < 0.12  # twelve correlated shares of seventeen data sets


@pytest.mark.slow
def test_over_fifty_data_sets_of_the_model_npde_are_standard_normal(truth, cohort):
    """Last result, of 300 levels each: mean 0.008 (SE 0.010), variance 1.004 (SE 0.012), and
    5.3 % of rows with p below 0.05; 3 minutes."""
    found = np.array([npde(replaced(truth, observed=y, seed=k))
                      for k, y in enumerate(data_sets(truth, cohort, 50))])
    means, variances = found.mean(axis=1), found.var(axis=1, ddof=1)
    for values, expected in ((means, 0.0), (variances, 1.0)):
        error = values.std(ddof=1) / np.sqrt(len(values))
        print(f"{values.mean():.4f} +- {error:.4f}")
        assert abs(values.mean() - expected) < 3 * error
    # each row's rank is uniform over data sets, whose patients are independent
    p = np.array([kstest(row, "norm").pvalue for row in found.T])
    print(f"p < 0.05 in {(p < 0.05).mean():.3f} of rows")
    assert (p < 0.05).mean() < 0.1


def test_npde_are_the_same_each_time_and_of_every_row(truth):
    first = npde(truth)
    assert np.isfinite(first).all()
    assert len(first) == replicates(truth).y.shape[1]
    np.testing.assert_array_equal(first, npde(dataclasses.replace(truth)))
