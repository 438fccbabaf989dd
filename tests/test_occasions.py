"""carpk.occasions: spread between the occasions of a patient, against exact normal likelihoods."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, multivariate_t, norm
from test_changes import ONE, written

from carpk import fit, objective, population
from carpk.changes import effects_over_time, epochs_of
from carpk.cohort import design
from carpk.likelihood import data_of, log_joint, predicted_rows
from carpk.predictive_check import new_measurements
from carpk.preparation import with_effects
from carpk.problems import DataError, RequestError
from carpk.simulation import simulate
from carpk.structure import Output, Parameter, Source, StructuralModel, sd
from carpk.tables import individuals, parameters

# y = A + eta + kappa of the occasion + error: the likelihood is a normal's
FLAT = StructuralModel(
    title="a level", source=Source("textbook"), time_unit="day",
    parameters=(Parameter("A", 10.0, "mg/L", "level", omega=sd(2.0), link="identity"),),
    outputs=(Output("Y", "mg/L", "level", error="additive"),),
    solution=lambda t, p: {"Y": p.A + 0.0 * t}, file=__file__)
THETA = {"A_pop": 10.0, "omega_A": 2.0, "gamma_A": 1.2, "sigma_Y_add": 0.7}
COUNTS = ((3, 2), (2, 2, 2), (4,), (1, 3))  # samples of each occasion of each patient


def levels(folder, counts=COUNTS, seed=1):
    """Patients with occasions that begin anew; the occasions are called 5, 6, 7."""
    rng, rows = np.random.default_rng(seed), ["ID,TIME,DV,EVID,OCC"]
    for i, own in enumerate(counts):
        a = 10.0 + 2.0 * rng.normal()
        for j, count in enumerate(own):
            kappa = 1.2 * rng.normal()
            rows += [f"{i},{10 * j},.,3,{5 + j}"] if j else []
            rows += [f"{i},{10 * j + k + 1},{a + kappa + 0.7 * rng.normal():.4f},0,{5 + j}"
                     for k in range(count)]
    return written(folder, "\n".join(rows) + "\n")


def exact(cohort, theta=THETA):
    """ln p of each patient's levels: normal, with blocks of occasions in the covariance."""
    table = cohort.observations
    found = []
    for _, rows in table.groupby("ID", sort=False):
        occasion = (rows["TIME"].to_numpy() - 0.5) // 10
        cov = theta["omega_A"]**2 + theta["gamma_A"]**2 * (
            occasion[:, None] == occasion[None, :]) + theta["sigma_Y_add"]**2 * np.eye(len(rows))
        found.append(multivariate_normal(np.full(len(rows), theta["A_pop"]), cov).logpdf(
            rows["DV"].to_numpy()))
    return np.array(found)


def test_the_likelihood_is_that_of_nested_random_effects(tmp_path):
    cohort = levels(tmp_path)
    model = population(FLAT, occasions=["A"])
    assert model.names == ("A_pop", "omega_A", "gamma_A", "sigma_Y_add")
    found = objective(model, cohort, THETA, "laplace")
    assert (found.patients["ofv"].to_numpy() + np.array(
        [sum(c) for c in COUNTS]) * np.log(2 * np.pi)) == pytest.approx(
            -2 * exact(cohort), abs=1e-8)


def test_a_joint_density_has_a_kappa_for_each_occasion_and_a_prior_for_unused_ones(tmp_path):
    cohort = levels(tmp_path)
    seen = design(cohort, FLAT)
    model, _ = with_effects(population(FLAT, occasions=["A"], fixed=THETA), seen)
    assert model.kappas == ("kappa_A_1", "kappa_A_2", "kappa_A_3")
    data, eta = data_of(model, seen), np.random.default_rng(2).normal(size=(4, 4))
    expected = norm(0, 2.0).logpdf(eta[:, 0]).sum() + norm(0, 1.2).logpdf(eta[:, 1:]).sum()
    for i, own in enumerate(COUNTS):
        dv = cohort.observations.loc[cohort.observations["ID"] == str(i), "DV"].to_numpy()
        level = 10.0 + eta[i, 0] + np.repeat(eta[i, 1:1 + len(own)], own)
        expected += norm(level, 0.7).logpdf(dv).sum()
    assert float(log_joint(model, data, THETA, jnp.asarray(eta))) == pytest.approx(expected)


def test_equations_carry_a_patient_from_one_occasion_into_the_next(tmp_path):
    text = "ID,TIME,DV,AMT,EVID,OCC\n1,0,.,100,1,1\n1,2,5,.,0,1\n1,3,.,50,1,2\n" \
        "1,5,5,.,0,2\n2,0,.,100,1,1\n2,2,5,.,0,1\n2,5,5,.,0,1\n"
    seen = design(written(tmp_path, text), ONE)
    model, _ = with_effects(population(ONE, occasions=["CL"], steps=120), seen)
    phi = jnp.array([[np.log(2.0), 0.5, -0.4], [np.log(2.0), 0.5, 9.9]])
    found = predicted_rows(model, data_of(model, seen), {"CL_pop": 2.0, "V_pop": 10.0}, phi)
    k = 0.2 * np.exp([0.5, -0.4])
    at_3 = 10 * np.exp(-k[0] * 3)
    assert np.asarray(found)[seen.observed] == pytest.approx(
        [10 * np.exp(-2 * k[0]), (at_3 + 5) * np.exp(-2 * k[1]), 10 * np.exp(-2 * k[0]),
         10 * np.exp(-5 * k[0])], rel=1e-6)


def test_occasions_are_a_patients_own_and_numbered_as_they_come(tmp_path):
    text = "ID,TIME,DV,EVID,OCC\n1,1,5,0,b\n1,2,5,0,a\n1,3,5,0,b\n2,1,5,0,a\n"
    seen = design(written(tmp_path, text), FLAT)
    model = dataclasses.replace(population(FLAT, occasions=["A"]), courses=2)
    found = effects_over_time(model, seen, epochs_of(model, seen))["OCC"]
    assert found.argmax(axis=2)[0].tolist() == [0, 1, 0]
    assert found[1, 0].tolist() == [1.0, 0.0]


def refused(call):
    with pytest.raises((DataError, RequestError)) as caught:
        call()
    return caught.value.problems


def test_what_is_wrong_with_occasions_is_told(tmp_path):
    def problems(text, structure=FLAT):
        model = population(structure, occasions=["A" if structure is FLAT else "CL"])
        return refused(lambda: with_effects(model, design(written(tmp_path, text), structure)))

    assert "one occasion" in problems("ID,TIME,DV,OCC\n1,1,5,1\n2,1,5,2\n")[0].wrong
    assert "no column" in problems("ID,TIME,DV\n1,1,5\n2,1,5\n")[0].wrong
    none = problems("ID,TIME,DV,EVID,OCC\n1,1,5,0,1\n1,2,.,3,2\n1,3,5,0,2\n2,1,5,0,.\n")
    assert [(p.patient, p.column) for p in none] == [("2", "OCC")]
    closed = problems("ID,TIME,DV,OCC\n1,1,5,1\n1,2,5,2\n")[0]
    assert (closed.line, closed.patient) == (3, "1")
    assert "closed form" in closed.wrong
    assert refused(lambda: population(FLAT, occasions=["B"]))[0].found == "B"


@pytest.mark.slow
def test_new_patients_have_new_kappas(tmp_path):
    """5 s; last run 2026-11-26: passed."""
    seen = design(levels(tmp_path, ((1, 1),) * 400), FLAT)
    model, _ = with_effects(population(FLAT, occasions=["A"]), seen)
    drawn = simulate(model, seen, THETA, seed=1).dv
    assert np.std(drawn[:, 0] - drawn[:, 1]) == pytest.approx(
        np.sqrt(2 * (1.2**2 + 0.7**2)), rel=0.12)  # 3.5 standard errors
    again = np.asarray(jax.jit(lambda data, key: new_measurements(model, data, THETA, key))(
        data_of(model, seen), jax.random.key(3)))
    assert np.std(again[:, 0] - again[:, 1]) == pytest.approx(
        np.sqrt(2 * (1.2**2 + 0.7**2)), rel=0.12)


def many(folder):
    return levels(folder, ((3, 3), (2, 3, 3), (3,), (3, 3, 3)) * 10, seed=4)


def natural(x):
    return {"A_pop": x[0], "omega_A": np.exp(x[1]), "gamma_A": np.exp(x[2]),
            "sigma_Y_add": np.exp(x[3])}


def likeliest(cohort):
    """The maximum of the exact likelihood, SDs by their logarithms."""
    return minimize(lambda x: -exact(cohort, natural(x)).sum(), [10.0, 0.5, 0.0, -0.3],
                    method="BFGS")


@pytest.mark.slow
@pytest.mark.parametrize(("estimator", "seeds"), [("focei", 1), ("laplace", 1), ("saem", 6)])
def test_maximum_likelihood_is_that_of_nested_random_effects(tmp_path, estimator, seeds):
    """25 s each at most; last run 2026-11-27: passed. SAEM's estimates scatter around it, of which
    the spread between occasions most: by a sixteenth of its standard error."""
    cohort, away = many(tmp_path), []
    expected = np.array(list(natural(likeliest(cohort).x).values()))
    for seed in range(1, seeds + 1):
        result = fit(population(FLAT, occasions=["A"]), cohort, estimator, seed=seed)
        table = parameters(result).set_index("parameter").loc[list(THETA)]
        away.append((table["median"].to_numpy() - expected) / table["sd"].to_numpy())
    noise = 0.0 if seeds == 1 else np.std(away, axis=0, ddof=1)
    assert np.all(np.abs(np.mean(away, axis=0)) < 0.01 + 3 * noise / seeds**0.5)
    assert np.max(noise) < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["nuts", "gibbs"])
def test_samplers_have_the_exact_posterior_and_the_tables_hold_each_occasion(tmp_path, estimator):
    """70 s at most; last run 2026-11-27: passed.

    The exact one by importance sampling of the four population values, levels integrated out.
    """
    cohort = many(tmp_path)
    result = fit(population(FLAT, occasions=["A"]), cohort, estimator, seed=1, chains=2, draws=750,
                 warmup=500)
    assert result.convergence.measures["rhat_max"] < 1.02
    best = likeliest(cohort)
    proposal = multivariate_t(best.x, 1.5 * best.hess_inv, df=5)
    x = proposal.rvs(2000, random_state=1)
    log_weight = [exact(cohort, natural(row)).sum() + row[1:].sum() + sum(
        float(result.model.priors[n].log_density(v)) for n, v in natural(row).items())
        for row in x] - proposal.logpdf(x)
    weight = np.exp(log_weight - np.max(log_weight))
    values = np.column_stack([x[:, 0], np.exp(x[:, 1:])])
    mean = np.average(values, axis=0, weights=weight)
    size = np.sqrt(np.average((values - mean)**2, axis=0, weights=weight))
    table = parameters(result).set_index("parameter").loc[list(THETA)]
    assert np.abs((table["mean"].to_numpy() - mean) / size).max() < 0.2
    assert table["sd"].to_numpy() / size == pytest.approx(1.0, abs=0.15)
    assert table.loc["gamma_A", "kind"] == "occasions"
    own = individuals(result)
    assert np.isfinite(own["A_1_median"]).all()
    assert own["A_3_median"].notna().tolist() == [False, True, False, True] * 10
    first = cohort.observations[cohort.observations["TIME"] < 10]
    assert np.corrcoef(own["A_1_median"], first.groupby("ID", sort=False)["DV"].mean())[0, 1] > 0.95
