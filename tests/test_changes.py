"""carpk.changes: parameters that change in a patient, against solutions by hand."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models_for_tests import DECAY
from scipy.stats import norm

from carpk import cli_request, posterior, registry
from carpk.changes import epochs_of
from carpk.cohort import design
from carpk.fitting import fit, load_fit
from carpk.likelihood import data_of, patient_log_likelihood, predicted_rows
from carpk.nonmem import read_csv, to_csv
from carpk.population_model import population
from carpk.prediction import curves
from carpk.preparation import with_effects
from carpk.problems import DataError, RequestError
from carpk.requests import Request
from carpk.simulation import simulate
from carpk.structure import Output, Parameter, Source, State, StructuralModel, sd
from carpk.tables import covariates, parameters

ONE = StructuralModel(
    title="one compartment", source=Source("textbook"), time_unit="day",
    parameters=(Parameter("CL", 2.0, "L/day", "clearance", omega=sd(0.3)),
                Parameter("V", 10.0, "L", "volume")),
    states=(State("A", "mg", "amount"),), outputs=(Output("C", "mg/L", "level"),),
    rates=lambda t, y, p: {"A": -p.CL / p.V * y.A}, initial=lambda p: {"A": 0.0},
    observe=lambda t, y, p: {"C": y.A / p.V}, file=__file__)
# the same with what a model may say of a dose: a share of it comes, a day late
LATE = StructuralModel(
    title="one compartment, late", source=Source("textbook"), time_unit="day",
    parameters=(*ONE.parameters, Parameter("F", 0.6, "-", "share", link="logit")),
    states=ONE.states, outputs=ONE.outputs, rates=ONE.rates, initial=ONE.initial,
    observe=ONE.observe, file=__file__,
    dosing=lambda p: {"A": {"bioavailability": p.F, "lag": 1.0}})
FILE = """ID,TIME,DV,AMT,EVID,WT,STEROID
1,0,.,100,1,70,.
1,1,8,.,0,70,.
1,2,.,.,2,.,1
1,3,6,.,0,77,.
1,5,.,.,2,.,0
1,6,3,.,0,90,.
1,9,2,.,0,90,.
2,0,.,100,1,80,.
2,1,9,.,0,80,.
2,4,5,.,0,80,.
2,8,2,.,0,64,.
"""
EFFECTS = {"CL ~ WT": "power(70)", "CL ~ STEROID": "exponential", "V ~ WT": "power(70)"}
THETA = {"CL_pop": 2.0, "V_pop": 10.0, "omega_CL": 0.3, "beta_CL_WT": 0.75,
         "beta_CL_STEROID": 0.5, "beta_V_WT": 1.0, "sigma_C_prop": 0.1}


@pytest.fixture
def cohort(tmp_path):
    return written(tmp_path, FILE)


def written(folder, text):
    path = folder / "run.csv"
    path.write_text(text)
    return read_csv(path)


def asked(structure=ONE, wt="locf", **more):
    return population(structure, errors={"C": "proportional"}, covariates=EFFECTS,
                      time_varying={"WT": wt, "STEROID": "window"}, **more)


def ready(model, cohort, steps=240):
    seen = design(cohort, model.structure)
    model, _ = with_effects(replace(model, steps=steps), seen)
    return model, seen, data_of(model, seen)


def by_hand(wt, on, eta, times, scale=1.0, at=0.0):
    """C at times: the amount falls with the rate of each moment, summed over 20000 pieces that
    end where the rate jumps."""
    grid = np.unique(np.append(np.linspace(0.0, max(times), 20001), np.arange(10)))
    middle = 0.5 * (grid[1:] + grid[:-1])
    size = wt(middle) / 70.0
    rate = 2.0 * np.exp(eta) * size**0.75 * np.exp(0.5 * on(middle)) / (10.0 * size)
    rate = np.where(middle >= at, rate, 0.0)
    amount = scale * 100.0 * np.exp(-np.concatenate([[0.0], np.cumsum(rate * np.diff(grid))]))
    return [np.interp(t, grid, amount) / (10.0 * wt(np.array([t]))[0] / 70.0)
            if t > at else 0.0 for t in times]


def locf(times, values):
    return lambda t: np.asarray(values, float)[np.searchsorted(times, t, side="right") - 1]


STEROID = locf([0, 2, 5], [0, 1, 0])


@pytest.mark.parametrize(("rule", "wt"), [
    pytest.param("nocb", (lambda t: np.select([t <= 1, t <= 3], [70.0, 77.0], 90.0),
                          lambda t: np.where(t <= 4, 80.0, 64.0)), marks=pytest.mark.slow),
    ("linear", (lambda t: np.interp(t, [0, 1, 3, 6, 9], [70, 70, 77, 90, 90]),
                lambda t: np.interp(t, [0, 1, 4, 8], [80, 80, 80, 64]))),
])
def test_a_clearance_that_changes_is_solved_as_by_hand(cohort, rule, wt):
    """nocb: last run 2026-11-26: passed."""
    model, seen, data = ready(asked(wt=rule), cohort)
    phi = jnp.log(jnp.array([[2.0], [2.0]])) + jnp.array([[0.2], [-0.1]])
    found = np.asarray(predicted_rows(model, data, THETA, phi))[seen.observed]
    expected = [*by_hand(wt[0], STEROID, 0.2, [1, 3, 6, 9]),
                *by_hand(wt[1], lambda t: 0.0 * t, -0.1, [1, 4, 8])]
    # a slope is cut in eight pieces, in each of which the parameter goes straight
    assert found == pytest.approx(expected, rel=2e-5 if rule == "linear" else 2e-6)


@pytest.mark.parametrize("structure", [
    ONE, pytest.param(LATE, marks=pytest.mark.slow)], ids=["given", "late"])  # late: passed
def test_a_patient_with_a_finer_mesh_keeps_its_doses_and_changes(cohort, structure):
    model, seen, _ = ready(asked(structure, wt="linear"), cohort, steps=5)
    theta, phi = {**THETA, "F_pop": 0.6}, jnp.log(jnp.array([[2.4], [1.8]]))
    coarse, fine, mixed = (np.asarray(predicted_rows(model, data_of(m, seen), theta, phi)) for m in
                           (model, replace(model, steps=80), replace(model, finer=(80, ("2",)))))
    assert np.array_equal(mixed[0], coarse[0])
    assert mixed[1] == pytest.approx(fine[1], rel=1e-12)
    assert not np.allclose(coarse[1], fine[1], rtol=1e-9)


def test_likelihood_and_gradient_across_a_change_are_those_by_hand(cohort):
    model, seen, data = ready(asked(), cohort)
    names = ["CL_pop", "V_pop", "beta_CL_WT", "beta_CL_STEROID", "beta_V_WT", "sigma_C_prop"]

    @jax.jit
    def value(x, phi):
        return patient_log_likelihood(model, data, {**THETA, **dict(zip(names, x, strict=True))},
                                      phi).sum()

    x, phi = jnp.array([THETA[n] for n in names]), jnp.log(jnp.array([[2.4], [1.8]]))
    level = np.array([
        *by_hand(locf([0, 3, 6], [70, 77, 90]), STEROID, np.log(1.2), [1, 3, 6, 9]),
        *by_hand(locf([0, 8], [80, 64]), lambda t: 0.0 * t, np.log(0.9), [1, 4, 8])])
    assert float(value(x, phi)) == pytest.approx(
        norm(level, 0.1 * level).logpdf(seen.upper[seen.observed]).sum(), rel=1e-6)
    found = jax.grad(value, argnums=(0, 1))(x, phi)
    for k in range(len(names)):
        step = 1e-5 * jnp.eye(len(names))[k]
        expected = (value(x + step, phi) - value(x - step, phi)) / 2e-5
        assert found[0][k] == pytest.approx(float(expected), rel=1e-6, abs=1e-6)
    for i in range(2):
        step = jnp.zeros((2, 1)).at[i, 0].set(1e-5)
        expected = (value(x, phi + step) - value(x, phi - step)) / 2e-5
        assert found[1][i, 0] == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.slow  # passed, 10 s
def test_delayed_doses_and_resets_have_the_parameters_of_their_record(tmp_path):
    text = "ID,TIME,DV,AMT,EVID,WT,STEROID\n1,0,.,100,1,70,0\n1,1,5,.,0,70,1\n" \
        "1,4,5,.,0,70,1\n1,10,.,200,4,140,1\n1,13,5,.,0,140,1\n"
    model, seen, data = ready(population(
        LATE, errors={"C": "proportional"},
        covariates={"CL ~ WT": "power(70)", "F ~ STEROID": "exponential"}, spread=[],
        time_varying={"WT": "locf", "STEROID": "locf"}), written(tmp_path, text))
    theta = {**THETA, "F_pop": 0.5, "beta_F_STEROID": np.log(3.0)}  # on the logit scale
    found = np.asarray(predicted_rows(model, data, theta, jnp.zeros((1, 0))))[seen.observed]
    # both doses come a day after their record
    assert found[1:] == pytest.approx(
        [5 * np.exp(-0.2 * 3), 15 * np.exp(-0.2 * 2**0.75 * 2)], rel=2e-6)


@pytest.mark.slow
def test_a_steady_state_is_that_of_the_epoch_of_its_dose(tmp_path):
    """25 s; last run 2026-11-26: passed."""
    text = "ID,TIME,DV,AMT,EVID,WT,SS,II\n1,0,.,100,1,70,1,2\n1,1,5,.,0,70,0,0\n" \
        "1,10,.,100,1,140,1,2\n1,11,5,.,0,140,0,0\n"
    model, seen, data = ready(population(
        ONE, errors={"C": "proportional"}, covariates={"CL ~ WT": "power(70)"}, spread=[],
        time_varying={"WT": "locf"}), written(tmp_path, text))
    found = np.asarray(predicted_rows(model, data, THETA, jnp.zeros((1, 0))))[seen.observed]
    k = 0.2 * np.array([1.0, 2**0.75])
    assert found == pytest.approx(10 * np.exp(-k) / (1 - np.exp(-2 * k)), rel=2e-6)


COURSES = "ID,TIME,DV,AMT,EVID,PRODUCT\n1,0,.,1,1,0\n1,1,80,.,0,0\n1,5,40,.,0,0\n" \
    "1,30,.,1,{evid},1\n1,31,80,.,0,1\n1,35,20,.,0,1\n"


def test_a_closed_form_counts_time_anew_where_a_course_begins_anew(tmp_path):
    model, seen, data = ready(population(
        DECAY, covariates={"k ~ PRODUCT": "exponential"}, errors={"C": "proportional"},
        time_varying={"PRODUCT": "locf"}), written(tmp_path, COURSES.format(evid=4)))
    theta = {"C0_pop": 100.0, "k_pop": 0.2, "beta_k_PRODUCT": 0.7}
    found = np.asarray(predicted_rows(model, data, theta, jnp.log(jnp.array([[100.0, 0.2]]))))
    k = 0.2 * np.exp(0.7)
    assert found[seen.observed] == pytest.approx(
        [100 * np.exp(-0.2), 100 * np.exp(-1.0), 100 * np.exp(-k), 100 * np.exp(-5 * k)])


def two_courses(folder, patients=8):
    """Patients of stein_2019 with two courses, of which the second peaks exp(-0.7) as high."""
    rng, rows = np.random.default_rng(3), ["ID,TIME,DV,AMT,EVID,COURSE"]
    curve = registry.find_model("stein_2019")
    typical = SimpleNamespace(**curve.typical, TTOCI=np.inf, TSTER=np.inf)
    for i in range(patients):
        eta = 0.5 * rng.normal()
        for course, (start, evid) in enumerate(((0, 1), (60, 4))):
            rows.append(f"{i},{start},.,1,{evid},{course}")
            for t in (3, 7, 12, 28):
                level = float(curve.solution(t, typical)["C"])
                dv = level * np.exp(eta - 0.7 * course + 0.2 * rng.normal())
                rows.append(f"{i},{start + t},{dv:.4g},.,0,{course}")
    return written(folder, "\n".join(rows) + "\n")


@pytest.mark.slow
def test_a_fit_with_changes_is_kept_whole_and_its_tables_say_what_changes(tmp_path):
    """25 s; last run 2026-11-26: passed, beta -0.714 (-0.802 to -0.625)."""
    others = [p.name for p in registry.find_model("stein_2019").parameters if p.name != "Cmax"]
    model = population("stein_2019", spread=["Cmax"], fixed=others,
                       covariates={"Cmax ~ COURSE": "exponential"},
                       time_varying={"COURSE": "locf"})
    result = fit(model, two_courses(tmp_path), "focei", seed=1)
    again = load_fit(result.save(tmp_path / "fits"))
    assert (again.model.effects, again.model.priors) == (result.model.effects, result.model.priors)
    assert again.design.changing["COURSE"].tolist() == result.design.changing["COURSE"].tolist()
    table = parameters(again).set_index("parameter")
    low, high = table.loc["beta_Cmax_COURSE", ["lower95", "upper95"]]
    assert low < -0.7 < high
    assert high - low < 0.3
    effect = covariates(again)
    row = effect[effect["kind"] == "parameter"].iloc[0]
    assert (row["value"], row["reference"]) == (1.0, 0.0)
    assert row["median"] == pytest.approx(
        np.exp(table.loc["beta_Cmax_COURSE", "median"]), rel=0.02)
    path = curves(again, 100).groupby("ID")
    second = path.apply(lambda c: c["median"][c["TIME"] > 60].max() / c["median"].max(),
                        include_groups=False)
    assert second.to_numpy() == pytest.approx(row["median"], rel=0.05)
    assert again.manifest["request"]["time_varying"] == {"COURSE": "locf"}


def refused(call):
    with pytest.raises((DataError, RequestError)) as caught:
        call()
    return [(p.line, p.patient, p.column, p.wrong) for p in caught.value.problems]


def test_a_closed_form_is_refused_a_change_within_a_course(tmp_path):
    model = population(DECAY, covariates={"k ~ PRODUCT": "exponential"},
                       time_varying={"PRODUCT": "locf"})
    (found,) = refused(lambda: ready(model, written(tmp_path, COURSES.format(evid=1))))
    assert found[:3] == (6, "1", "PRODUCT")
    assert "closed form" in found[3]


def test_what_is_wrong_with_a_rule_is_told_by_row(cohort, tmp_path):
    def problems(text=FILE, rules=None, effects=EFFECTS):
        model = population(ONE, covariates=effects, time_varying=rules or {})
        return refused(lambda: with_effects(model, design(written(tmp_path, text), ONE)))

    none = problems()
    assert [p[:3] for p in none if p[2] == "WT"] == [(5, "1", "WT"), (12, "2", "WT")]
    assert [p[:3] for p in none if p[2] == "STEROID"] == [(6, "1", "STEROID")]
    rules = {"WT": "locf", "STEROID": "window"}
    assert "no such rule" in refused(lambda: asked(wt="last"))[0][3]
    assert problems(FILE.replace("0,90", "0,-9"), rules) == [
        (7, "1", "WT", "power needs values above 0"), (8, "1", "WT", "power needs values above 0")]
    assert problems(FILE.replace("3,6,.,0,77", "3,6,.,0,heavy"), rules)[0][:3] == (5, "1", "WT")
    still = "ID,TIME,DV,AMT,EVID,WT\n1,0,.,9,1,70\n1,1,8,.,0,70\n2,0,.,9,1,60\n2,1,8,.,0,60\n"
    assert "the same on all rows" in problems(still, {"WT": "locf"}, {"CL ~ WT": "power"})[0][3]
    assert "no covariate effect reads" in refused(lambda: population(
        ONE, covariates=EFFECTS, time_varying={"AGE": "locf"}))[0][3]
    gone = FILE.replace("1,8,.,0,70", "1,8,.,0,.").replace(",80,", ",.,").replace(",64,", ",.,")
    assert (None, "2", "WT", "missing, and CL ~ WT needs it") in problems(gone, rules)


def test_words_between_rows_levels_nobody_is_at_and_rare_ones_are_told(tmp_path):
    def seen(text, rule, form="category"):
        model = population(ONE, covariates={"CL ~ DRUG": form}, time_varying={"DRUG": rule})
        return model, design(written(tmp_path, text), ONE)

    words = ("ID,TIME,DV,AMT,EVID,DRUG\n1,0,.,100,1,a\n1,1,8,.,0,a\n1,3,6,.,0,b\n"
             "2,0,.,100,1,a\n2,1,9,.,0,a\n2,4,5,.,0,b\n")
    assert [p[0] for p in refused(lambda: with_effects(*seen(words, "linear")))] == [*range(2, 8)]
    assert (None, None, "CL ~ DRUG", "no patient has the reference level") in refused(
        lambda: with_effects(*seen(words, "window")))  # it is off but before and after all rows
    _, warnings = with_effects(*seen(words, "locf"))
    assert [w.found for w in warnings] == ["b"]
    assert "only 2 of 2 patients" in warnings[0].wrong  # patients, not rows
    numbers = words.replace(",a", ",1").replace(",b", ",2")
    [(_, _, _, wrong)] = refused(lambda: with_effects(*seen(numbers, "locf", "hockey_stick(9)")))
    assert "no patient lies where beta_CL_DRUG_above acts" in wrong


def test_rules_and_occasions_are_asked_for_on_a_command_line_and_in_a_file(tmp_path):
    given = cli_request.options(time_varying=["STEROID=window", "WT=locf"],
                                occasions=["Cmax,alpha"])
    assert given == {"time_varying": {"STEROID": "window", "WT": "locf"},
                     "occasions": ["Cmax", "alpha"]}
    path = tmp_path / "run.toml"
    path.write_text('model = "stein_2019"\noccasions = ["Cmax"]\n[data]\nfile = "run.csv"\n'
                    '[covariates]\n"Cmax ~ PRODUCT" = "category"\n'
                    '[time_varying]\nPRODUCT = "locf"\n')
    model = Request.read(path).population()
    assert model.rules == {"OCC": "locf", "PRODUCT": "locf"}
    assert model.columns == ("PRODUCT", "OCC")
    assert "gamma_Cmax" in model.names


def test_references_are_those_the_patients_begin_with_and_windows_are_off(cohort):
    seen = design(cohort, ONE)
    model, _ = with_effects(population(
        ONE, covariates={"CL ~ WT": "power", "V ~ STEROID": "category"},
        time_varying={"WT": "locf", "STEROID": "window"}), seen)
    assert [(e.reference, e.points) for e in model.effects] == [(75.0, ()), ("0", ("1",))]
    assert epochs_of(model, seen).start.shape == (2, 5)


def test_a_cohort_with_changes_goes_to_a_file_and_comes_back(cohort, tmp_path):
    to_csv(cohort, tmp_path / "again.csv")
    again = read_csv(tmp_path / "again.csv")
    assert again.changing.equals(cohort.changing)
    assert again.observations.equals(cohort.observations)


def test_a_design_with_changes_comes_back_from_the_tree_of_a_fit(tmp_path):
    model, seen, data = ready(population(
        DECAY, covariates={"k ~ PRODUCT": "category"}, errors={"C": "proportional"},
        time_varying={"PRODUCT": "locf"}), written(
            tmp_path, COURSES.format(evid=4).replace(",1\n", ",new\n").replace(",0\n", ",old\n")))
    theta = {n: np.full((1, 2), 0.1) for n in model.names}
    stored = posterior.tree(model, seen, data, theta, np.zeros((1, 2, 1, 2)), {}, "posterior", 1)
    again = data_of(model, posterior.design_of(stored))
    jax.tree.map(np.testing.assert_array_equal, again, data)
    assert stored["constant_data"]["change_PRODUCT"].values[-1] == "new"


@pytest.mark.slow
def test_simulated_patients_follow_the_same_changes(cohort):
    """5 s; last run 2026-11-26: passed."""
    model = asked()
    seen = design(cohort, ONE)
    drawn = simulate(model, seen, {**THETA, "omega_CL": 1e-9}, seed=1)
    assert drawn.predicted[0][seen.observed[0]] == pytest.approx(by_hand(
        locf([0, 3, 6], [70, 77, 90]), STEROID, 0.0, [1, 3, 6, 9]), rel=1e-4)
