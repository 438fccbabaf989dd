"""Studies, products, sites: against scipy, a two-level normal model in closed form, and refusals.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models_for_tests import DECAY, LEVEL, cohort, decaying
from scipy import stats

from carpk import tables
from carpk.cohort import design
from carpk.covariate_effects import covariates
from carpk.fitting import fit
from carpk.likelihood import (
    data_of,
    log_joint,
    patient_log_density,
    patient_log_likelihood,
)
from carpk.maximum_likelihood import refuse_priors
from carpk.nonmem import read_csv
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.problems import DataError, RequestError
from carpk.requests import Request
from carpk.simulation import published, simulate


def in_studies(patients=9, studies=3, seed=1):
    made = decaying(patients, seed=seed)
    made.covariates["STUDY"] = [float(i % studies + 1) for i in range(patients)]
    return made


COHORT = in_studies()
DESIGN = design(COHORT, DECAY)
ASKED = population(DECAY, levels={"STUDY": "C0"})
MODEL, TOLD = resolve(ASKED, DESIGN, {})
DATA = data_of(MODEL, DESIGN)
THETA = {"C0_pop": 90.0, "k_pop": 0.25, "omega_C0": 0.4, "omega_k": 0.35, "sigma_C_log": 0.3,
         "tau_STUDY_C0": 0.6, "b_STUDY_C0_1": -1.1, "b_STUDY_C0_2": 0.4, "b_STUDY_C0_3": 1.7}


def test_a_study_moves_its_patients_as_written_out_by_hand():
    eta = np.random.default_rng(3).normal(size=(9, 2)) * [0.4, 0.35]
    b = np.array([-1.1, 0.4, 1.7])
    total = stats.norm(0, [0.4, 0.35]).logpdf(eta).sum() + stats.norm.logpdf(b).sum()
    for row in COHORT.observations.itertuples():
        i = COHORT.ids.index(row.ID)
        pred = 90.0 * np.exp(0.6 * b[i % 3] + eta[i, 0]) * np.exp(
            -0.25 * np.exp(eta[i, 1]) * row.TIME)
        dv = stats.lognorm(s=0.3, scale=pred)
        total += dv.logcdf(row.UPPER) if row.CENS else dv.logpdf(row.DV)
    total += stats.lognorm(s=1.5, scale=100.0).logpdf(90.0)
    total += stats.lognorm(s=1.5, scale=0.2).logpdf(0.25)
    total += stats.halfnorm(scale=1.0).logpdf([0.4, 0.35, 0.3]).sum()
    total += stats.halfnorm(scale=0.5).logpdf(0.6)
    ours = float(jax.jit(lambda eta: log_joint(MODEL, DATA, THETA, eta))(eta))
    assert ours == pytest.approx(total, rel=1e-12)


def test_a_parameter_without_spread_may_differ_between_studies():
    model, _ = resolve(population(DECAY, levels={"STUDY": ["k"]}, spread=["C0"]), DESIGN, {})
    theta = {n.replace("C0", "k") if "STUDY" in n else n: v for n, v in THETA.items()}
    values = model.patient_values(theta, data_of(model, DESIGN)["effects"], jnp.zeros((9, 1)))
    expected = 0.25 * np.exp(0.6 * np.array([-1.1, 0.4, 1.7]))
    assert np.asarray(values["k"]) == pytest.approx(np.tile(expected, 3))


def test_a_known_study_keeps_its_deviation_and_a_new_one_draws_it():
    many = in_studies(patients=400, studies=40)
    seen = design(many, DECAY)
    drawn = simulate(MODEL, seen, {**THETA, "omega_C0": 1e-9}, seed=1)
    away = np.log(drawn.parameters["C0"].to_numpy() / 90.0).reshape(10, 40) / 0.6
    assert np.ptp(away, axis=0).max() < 1e-6
    assert away[0, :3] == pytest.approx([-1.1, 0.4, 1.7], abs=1e-6)
    assert stats.kstest(away[0, 3:], "norm").pvalue > 0.001
    again = simulate(MODEL, seen, {**THETA, "omega_C0": 1e-9}, seed=2)
    assert (np.abs(np.log(again.parameters["C0"] / drawn.parameters["C0"]))[3:40] > 1e-3).all()
    assert "tau_STUDY_C0" not in published(MODEL)


def test_few_studies_are_warned_of():
    assert [p.wrong for p in TOLD] == ["a spread between 3 units is mostly its prior's"]
    many = design(in_studies(patients=12, studies=6), DECAY)
    assert not resolve(ASKED, many, {})[1]


@pytest.mark.parametrize(("column", "wrong"), [
    (["A"] * 9, "all patients are of one unit"),
    (list("ABCDEFGHI"), "every patient is a unit of its own"),
    (["A", None, *"ABABABA"], "whose patient is this"),
])
def test_a_column_that_is_no_level_is_refused(column, wrong):
    made = decaying(9)
    made.covariates["STUDY"] = column
    with pytest.raises(DataError, match=wrong):
        resolve(ASKED, design(made, DECAY), {})


def test_a_level_that_cannot_be_is_refused():
    with pytest.raises(RequestError, match="no such parameter"):
        population(DECAY, levels={"STUDY": "gamma"})
    with pytest.raises(RequestError, match="which parameters"):
        population(DECAY, levels={"STUDY": ""})
    with pytest.raises(RequestError, match="among the covariates"):
        population(DECAY, levels={"STUDY": "k"}, covariates={"k ~ STUDY": "category"})
    with pytest.raises(DataError, match="the file has none"):
        resolve(population(DECAY, levels={"SITE": "k"}), DESIGN, {})
    with pytest.raises(RequestError, match="no such coefficient"):
        resolve(population(DECAY, levels={"STUDY": "k"}, fixed={"b_STUDY_k_9": 0.0}), DESIGN, {})
    with pytest.raises(RequestError, match="no level above the patients"):
        fit(ASKED, COHORT, "saem", seed=1)


def test_the_tables_name_the_studies(near_typical):
    asked = population(DECAY, levels={"STUDY": "C0"}, covariates={"C0 ~ WT": "power(70)"})
    found = near_typical(asked, COHORT)
    table = tables.parameters(found).set_index("parameter")
    rows = table[table["kind"] == "level"]
    assert list(rows.index) == ["tau_STUDY_C0", "b_STUDY_C0_1", "b_STUDY_C0_2", "b_STUDY_C0_3",
                                "C0_pop_STUDY_1", "C0_pop_STUDY_2", "C0_pop_STUDY_3"]
    assert rows.loc["tau_STUDY_C0", "meaning"] == "SD between STUDY of ln C0"
    draws = found.posterior["posterior"].dataset
    expected = draws["C0_pop"] * np.exp(draws["tau_STUDY_C0"] * draws["b_STUDY_C0_2"])
    assert rows.loc["C0_pop_STUDY_2", "mean"] == pytest.approx(float(expected.mean()))
    assert tables.individuals(found)["STUDY"].tolist() == COHORT.covariates["STUDY"].tolist()
    assert len(covariates(found))
    asked = Request.of({**found.manifest["request"], "model": "stein_2019", "spread": None,
                        "covariates": {}, "levels": {"STUDY": ["Cmax"]}, "errors": {}})
    assert asked.population().levels[0].parameters == ("Cmax",)
    assert found.manifest["request"]["levels"] == {"STUDY": ["C0"]}


@pytest.mark.slow
def test_the_posterior_of_studies_is_that_of_the_two_level_normal_model():
    """Last: it holds within four Monte Carlo errors, 128 s on two busy cores."""
    rng, studies, each = np.random.default_rng(8), 6, (2, 3, 4, 5, 3, 4)
    rows, of = [], []
    for s in range(studies):
        middle = 0.9 * rng.normal()
        for _ in range(each[s]):
            own = middle + 0.5 * rng.normal()
            of.append("ABCDEF"[s])
            rows += [(str(len(of)), t, own + 0.4 * rng.normal()) for t in (1.0, 2.0)]
    made = cohort(rows, STUDY=of)
    asked = population(LEVEL, levels={"STUDY": "m"}, fixed={"omega_m": 0.5, "sigma_y_add": 0.4},
                       priors={"tau_STUDY_m": "halfnormal(1)"})
    found = fit(asked, made, seed=1, chains=2, draws=1500, warmup=400)
    # by hand: the mean of a study's n patients is normal around m, its variance tau^2 + v / n
    own = made.observations.groupby("ID", sort=False)["DV"].mean().to_numpy()
    study = np.array(of)
    means = np.array([own[study == s].mean() for s in "ABCDEF"])
    v = (0.25 + 0.08) / np.array(each)
    m, tau = np.meshgrid(np.linspace(-4, 4, 801), np.linspace(0.002, 5, 1200), indexing="ij")
    log = stats.norm(0, 1).logpdf(m) + stats.halfnorm.logpdf(tau) + sum(
        stats.norm(m, np.sqrt(tau**2 + vs)).logpdf(y) for y, vs in zip(means, v, strict=True))
    weight = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
    exact = {"m_pop": m, "tau_STUDY_m": tau}
    exact |= {f"b_STUDY_m_{s}": tau * (y - m) / (tau**2 + vs)
              for s, y, vs in zip("ABCDEF", means, v, strict=True)}
    table = tables.parameters(found).set_index("parameter")
    for name, values in exact.items():
        error = 4 * table.loc[name, "sd"] / table.loc[name, "ess_bulk"] ** 0.5
        assert table.loc[name, "mean"] == pytest.approx(float((weight * values).sum()), abs=error)
    for name in ("m_pop", "tau_STUDY_m"):
        mean = (weight * exact[name]).sum()
        sd = float((weight * (exact[name] - mean) ** 2).sum() ** 0.5)
        assert table.loc[name, "sd"] == pytest.approx(sd, rel=0.1)
    assert found.convergence.ok, found.convergence.reasons


def test_a_study_a_class_of_patients_and_an_occasion_add_up_as_written_out(tmp_path):
    random, rows = np.random.default_rng(6), []
    for i in range(4):
        for t, evid, occasion in ((1, 0, 1), (2, 0, 1), (10, 3, 2), (11, 0, 2), (12, 0, 2)):
            dv = "." if evid else round(random.normal(), 3)
            rows.append(f"{i + 1},{t},{dv},{evid},{occasion},{'AB'[i % 2]}")
    (tmp_path / "all.csv").write_text("\n".join(["ID,TIME,DV,EVID,OCC,STUDY", *rows]) + "\n")
    seen = design(read_csv(tmp_path / "all.csv"), LEVEL)
    model, _ = resolve(population(LEVEL, classes="2: m", levels={"STUDY": "m"},
                                  occasions=["m"]), seen, {})
    theta = {"m_pop": 0.3, "delta_m_2": 1.4, "share_2": 0.3, "tau_STUDY_m": 0.5,
             "b_STUDY_m_A": -0.8, "b_STUDY_m_B": 1.1, "omega_m": 0.4, "gamma_m": 0.25,
             "sigma_y_add": 0.2}
    assert set(theta) == set(model.names)
    phi, data = random.normal(size=(4, 3)), data_of(model, seen)  # m, and m in either occasion
    seen_at = phi[:, :1] + phi[:, [1, 1, 2, 2]]
    expected = stats.norm(seen_at, 0.2).logpdf(seen.upper).sum(axis=1)
    assert np.asarray(patient_log_likelihood(model, data, theta, jnp.asarray(phi))) \
        == pytest.approx(expected, rel=1e-12)
    middle = 0.3 + 0.5 * np.array([-0.8, 1.1, -0.8, 1.1])
    between = np.log(0.7 * stats.norm(middle, 0.4).pdf(phi[:, 0])
                     + 0.3 * stats.norm(middle + 1.4, 0.4).pdf(phi[:, 0]))
    expected = between + stats.norm(0, 0.25).logpdf(phi[:, 1:]).sum(axis=1)
    assert np.asarray(patient_log_density(model, data, theta, jnp.asarray(phi))) \
        == pytest.approx(expected, rel=1e-12)
    for asked in ("classes", "levels"):  # by maximum likelihood they are refused
        with pytest.raises(RequestError) as refused:
            refuse_priors(model if asked == "classes" else
                          dataclasses.replace(model, mixture=None))
        assert refused.value.problems[0].column == asked
