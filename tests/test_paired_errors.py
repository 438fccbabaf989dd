"""Correlated errors of two assays of one sample: against scipy, differences, exact maxima."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from models_for_tests import cohort
from scipy import integrate, optimize, special, stats

from carpk import cli_request, tables
from carpk.cohort import design
from carpk.conditional import information_of, row_terms
from carpk.conditional_residuals import linearised_residuals
from carpk.fitting import fit, load_fit
from carpk.likelihood import data_of
from carpk.nonmem import read_csv
from carpk.paired_errors import log_rectangle
from carpk.population_model import population
from carpk.prediction import medians, predictions
from carpk.preparation import resolve
from carpk.problems import DataError, RequestError
from carpk.registry import find_model
from carpk.requests import Request
from carpk.simulation import simulate

FILE = '''"""A level of each patient, by two assays."""
from carpk.structure import Output, Parameter, Source, StructuralModel, sd

MODEL = StructuralModel(
    title="a level, seen twice", source=Source("textbook"), time_unit="day",
    parameters=(Parameter("a", 10.0, "mg/L", "level", omega=sd(2.0), link="identity"),),
    outputs=(Output("A", "mg/L", "by one assay", dvid=1, error="additive"),
             Output("B", "mg/L", "by the other", dvid=2, error="additive")),
    solution=lambda t, p: {"A": p.a + 0.0 * t, "B": 0.5 * p.a + 0.1 * t})
'''
PAIR = (("A", "B"),)
RHO = 0.6
RECTANGLES = jax.jit(log_rectangle)


@pytest.fixture
def two(tmp_path):
    """The model of FILE."""
    (tmp_path / "two.py").write_text(FILE)
    return find_model(str(tmp_path / "two.py"))


def far(low, high, k, rho):
    """ln of the probability of a rectangle, by adaptive quadrature around its top."""
    def log_density(x):
        return stats.norm.logpdf(x) + special.log_ndtr((k - rho * x) / np.sqrt(1 - rho**2))

    grid = np.linspace(max(low, -60), min(high, 60), 100_001)
    top = grid[log_density(grid).argmax()]
    found = [integrate.quad(lambda x: np.exp(log_density(x) - log_density(top)), a, b,
                            epsabs=0, epsrel=1e-11, limit=200)[0]
             for a, b in itertools.pairwise(np.clip([top - 9, top - 1, top - 0.1, top, top + 0.1,
                                                     top + 1, top + 9], low, high)) if b > a]
    return log_density(top) + np.log(sum(found))


def test_the_probability_of_two_censored_rows_is_scipys_near_and_that_of_quadrature_far():
    random = np.random.default_rng(1)
    rho, k, a, b = np.tanh(random.normal(size=10)), *random.normal(size=(3, 10))
    low, high = np.minimum(a, b), np.maximum(a, b)
    low[::3], high[1::3] = -np.inf, np.inf
    cases = [(-np.inf, -40.0, -40.0, 0.5), (-np.inf, -40.0, 40.0, -0.9), (40.0, np.inf, -40.0, 0.3),
             (-np.inf, 40.0, -40.0, 0.8), (-41.0, -40.0, -30.0, -0.7), (3.0, np.inf, -20.0, 0.99)]
    ours = np.asarray(RECTANGLES(*np.hstack([[low, high, k, rho], np.array(cases).T])))
    for r, x, lower, upper, found in zip(rho, k, low, high, ours[:10], strict=True):
        both = stats.multivariate_normal(cov=[[1, r], [r, 1]])
        expected = both.cdf([min(upper, 40), x]) - both.cdf([max(lower, -40), x])
        assert np.exp(found) == pytest.approx(expected, abs=1e-12)
    assert ours[10:] == pytest.approx([far(*c) for c in cases], abs=1e-7)


def test_its_gradient_is_that_of_differences_and_finite_at_forty_sds():
    at = np.array([[-0.4, 0.8, 0.3, 0.6], [-np.inf, -40.0, -40.0, -0.5],
                   [-np.inf, 40.0, -40.0, 0.9], [1.0, np.inf, -2.0, 0.2]])
    slopes = np.stack(jax.jit(jax.grad(lambda *x: log_rectangle(*x).sum(), argnums=(0, 1, 2, 3)))(
        *at.T), axis=1)
    assert np.isfinite(slopes).all()
    steps = 1e-5 * np.repeat(np.eye(4), 4, axis=0)  # by argument, then by case
    above, below = (np.asarray(RECTANGLES(*(np.tile(at, (4, 1)) + d).T))
                    for d in (steps, -steps))
    expected = np.nan_to_num(((above - below) / 2e-5).reshape(4, 4).T)
    assert slopes == pytest.approx(expected, rel=1e-4, abs=2e-4)


# what each assay says of a sample: the level, and where the truth lies
KINDS = {"measured": lambda y: (y, y), "below": lambda y: (-np.inf, y + 0.3),
         "above": lambda y: (y - 0.4, np.inf), "between": lambda y: (y - 0.5, y + 0.6)}
COMBINED = [(a, b) for a in KINDS for b in KINDS if (a, b) != ("between", "between")]


def samples(two, log):
    """One patient with a sample of every combination, and one each of A and B alone."""
    random, table = np.random.default_rng(2), []
    for t, (a, b) in enumerate(COMBINED):
        for dvid, kind in ((1, a), (2, b)):
            lower, upper = KINDS[kind](2.0 + 0.5 * random.normal())
            ends = [np.exp(x) if log[dvid - 1] else x for x in (lower, upper)]
            ends[0] = -np.inf if lower == -np.inf else ends[0]
            table.append(("1", t, ends[1] if np.isfinite(upper) else ends[0], *ends, dvid))
    table += [("1", 50.0, 7.0, 7.0, 7.0, 1), ("1", 51.0, 6.0, 6.0, 6.0, 2)]
    random.shuffle(table)
    made = cohort(sorted(table, key=lambda r: r[1]))
    words = {True: "lognormal", False: "additive"}
    asked = population(two, errors={o: words[x] for o, x in zip("AB", log, strict=True)},
                       correlated_errors=PAIR)
    seen = design(made, asked.structure)
    model, _ = resolve(asked, seen, {})
    return made, model, data_of(model, seen)


def by_hand(made, log, f, sds, rho):
    """ln p of every sample by scipy's normal and bivariate normal."""
    total, rows = 0.0, made.observations.assign(f=f)
    for _, sample in rows.groupby("TIME"):
        ends = []
        for r in sample.sort_values("DVID").itertuples():
            own, sd = log[r.DVID - 1], sds[r.DVID - 1]
            if r.LOWER == r.UPPER and own:
                total -= np.log(r.DV)
            with np.errstate(divide="ignore", invalid="ignore"):
                at = [np.log(max(x, 0)) if own else x for x in (r.LOWER, r.UPPER, r.f)]
            ends.append([(x - at[2]) / sd for x in at[:2]])
            total -= np.log(sd) if r.LOWER == r.UPPER else 0.0
        known = [lower == upper for lower, upper in ends]
        if len(ends) == 1:
            assert known == [True]
            total += stats.norm.logpdf(ends[0][0])
        elif all(known):
            total += stats.multivariate_normal(cov=[[1, rho], [rho, 1]]).logpdf(
                [e[0] for e in ends])
        elif any(known):
            (given, _), (lower, upper) = sorted(ends, key=lambda e: e[0] != e[1])
            other = stats.norm(rho * given, np.sqrt(1 - rho**2))
            total += stats.norm.logpdf(given) + np.log(other.cdf(upper) - other.cdf(lower))
        else:
            both = stats.multivariate_normal(cov=[[1, rho], [rho, 1]])
            total += np.log(both.cdf(np.clip([e[1] for e in ends], -40, 40), lower_limit=np.clip(
                [e[0] for e in ends], -40, 40)))
    return total


def test_every_combination_of_censoring_has_the_density_of_scipy_and_its_curvature(two):
    log = (True, False)
    made, model, data = samples(two, log)
    names = [f"sigma_{o}_{'log' if x else 'add'}" for o, x in zip("AB", log, strict=True)]
    theta = {"a_pop": 2.0, "omega_a": 1.0, **dict(zip(names, (0.7, 0.9), strict=True))}
    random = np.random.default_rng(4)
    f = np.asarray(made.observations["DVID"].map(
        lambda d: np.exp(2.0) if log[d - 1] else 2.0)) * (1 + 0.1 * random.normal(
            size=len(made.observations)))
    terms = jax.jit(lambda data, f, rho: row_terms(model, data, {
        **theta, "rho_A_B": rho}, f[None]))
    for rho in (0.0, -0.9, RHO):
        value, _, weight = terms(data, f, rho)
        assert float(value.sum()) == pytest.approx(by_hand(made, log, f, (0.7, 0.9), rho), abs=1e-7)
    each = jnp.eye(f.size)[None]  # as if every prediction were a parameter of its own
    information = np.asarray(information_of(data, weight, each)[0])
    for k, dvid in enumerate(made.observations["DVID"]):
        sides = []
        for step in (1e-4, -1e-4):
            moved = f.copy()
            moved[k] = f[k] * np.exp(step) if log[dvid - 1] else f[k] + step
            sides.append(terms(data, moved, RHO))
        (up, up_slope, _), (down, down_slope, _) = sides
        rise = float(up.sum() - down.sum()) / 2e-4
        middle = float(up_slope[0, k] + down_slope[0, k]) / 2
        assert middle == pytest.approx(rise, abs=1e-6)
        assert information[k] == pytest.approx(
            -np.asarray(up_slope[0] - down_slope[0]) / 2e-4, abs=1e-6)


def test_simulated_errors_are_correlated_in_a_sample_and_not_beyond(two):
    times = [(str(i), t, 1.0, 1.0, 1.0, d) for i in range(500) for t, d in (
        (1.0, 1), (1.0, 2), (2.0, 1), (3.0, 2))]
    asked = population(two, errors={"A": "lognormal"}, correlated_errors=PAIR)
    drawn = simulate(asked, design(cohort(times), two), {
        "a_pop": 10.0, "omega_a": 1.0, "sigma_A_log": 0.3, "sigma_B_add": 2.0, "rho_A_B": RHO},
        seed=1)
    a = np.log(drawn.dv[:, [0, 2]] / drawn.predicted[:, [0, 2]]) / 0.3
    b = (drawn.dv[:, [1, 3]] - drawn.predicted[:, [1, 3]]) / 2.0
    for z in (*a.T, *b.T):
        assert stats.kstest(z, "norm").pvalue > 0.001
    found = np.corrcoef(np.hstack([a, b]).T)
    assert found[0, 2] == pytest.approx(RHO, abs=4 * (1 - RHO**2) / 500**0.5)
    assert np.abs(found[[0, 1, 0, 1], [1, 2, 3, 3]]).max() < 4 / 500**0.5


def test_what_cannot_be_correlated_is_refused(two):
    def refused(match, asked=PAIR, **how):
        with pytest.raises(RequestError, match=match):
            population(two, correlated_errors=asked, **how)

    refused("does not follow the prediction", errors={"A": "proportional"})
    refused("does not follow the prediction", errors={"B": "lognormal student_t"})
    refused("no such output", (("A", "C"),))
    refused("two outputs make a pair", (("A",),))
    refused("stands in two pairs", (("A", "B"), ("B", "A")))
    refused("M4 takes levels above 0 one by one", censoring="M4")
    assert population(two, correlated_errors=[["B", "A"]]).error_pairs == PAIR

    def of_rows(*rows):
        made = cohort([("1", t, 1.0, low, high, d) for t, d, low, high in rows])
        with pytest.raises(DataError) as found:
            resolve(population(two, correlated_errors=PAIR), design(made, two), {})
        return found.value.problems[0]

    one = (1.0, 1.0)
    twice = of_rows((1, 1, *one), (1, 2, *one), (1, 1, 2.0, 2.0))
    assert (twice.line, twice.patient, twice.column) == (4, "1", "TIME")
    assert "measured twice" in twice.wrong
    between = of_rows((1, 1, 1.0, 2.0), (1, 2, 1.0, 2.0))
    assert (between.line, between.column) == (2, "LIMIT")
    assert "no patient has A and B at the same time" in of_rows((1, 1, *one), (2, 2, *one)).wrong


def test_a_request_states_it_and_few_samples_are_reported(two):
    asked = Request.of({"model": "stein_2019", "data": {"file": "example:tisacel_like"},
                        "correlated_errors": [["C", "D"]]})
    with pytest.raises(RequestError, match="no such output"):
        asked.population()
    assert cli_request.options(errors=["A=additive by LAB"], correlated_errors=["A, B"]) == {
        "errors": {"A": "additive by LAB"}, "correlated_errors": [["A", "B"]]}
    few = cohort([("1", t, 1.0, 1.0, 1.0, d) for t in (1, 2, 3) for d in (1, 2)])
    model, (told,) = resolve(population(two, correlated_errors=PAIR), design(few, two), {})
    assert told.wrong.startswith("3 samples have A and B measured")
    assert str(model.priors["rho_A_B"]) == "lkj(2)"


def pairs():
    """Of the model: eight patients with four samples each."""
    random = np.random.default_rng(7)
    covariance = [[1.0, 0.6 * 0.5], [0.6 * 0.5, 0.25]]
    own = 10 + 2 * random.normal(size=(8, 1))
    e = random.multivariate_normal([0, 0], covariance, size=(8, 4))
    t = np.arange(1.0, 5.0)
    return t, np.round(own + e[..., 0], 3), np.round(0.5 * own + 0.1 * t + e[..., 1], 3)


NAMES = ("a_pop", "omega_a", "sigma_A_add_x", "sigma_A_add_y", "sigma_B_add", "rho_A_B")
ASKED = {"errors": {"A": "additive by LAB"}, "correlated_errors": PAIR}


def exactly(t, x):
    """The normal distribution of a patient's rows, those of A first, which two labs measure in
    turn; x : of NAMES, SDs by their logs, rho by atanh."""
    load, sds = np.repeat([1.0, 0.5], 4), np.exp(np.r_[x[2:4], x[2:4], [x[4]] * 4])
    within = np.diag(sds**2)
    within[range(4), range(4, 8)] = within[range(4, 8), range(4)] = \
        np.tanh(x[5]) * sds[:4] * sds[4:]
    return stats.multivariate_normal(load * x[0] + np.r_[0 * t, 0.1 * t], np.exp(
        2 * x[1]) * np.outer(load, load) + within)


def read(folder):
    """The cohort of `pairs`."""
    t, a, b = pairs()
    pd.DataFrame([(i + 1, t[j], (a, b)[d][i, j], d + 1, "xy"[j % 2]) for i in range(8)
                  for j in range(4) for d in range(2)], columns=["ID", "TIME", "DV", "DVID", "LAB"]
                 ).to_csv(folder / "pairs.csv", index=False)
    return read_csv(folder / "pairs.csv")


def test_conditional_weighted_residuals_are_decorrelated_within_samples_too(two, tmp_path):
    t, a, b = pairs()
    seen = design(read(tmp_path), two)
    model, _ = resolve(population(two, **ASKED), seen, {})
    values = (9.0, 1.5, 0.9, 0.6, 0.4, RHO)
    found = linearised_residuals(model, seen, dict(zip(NAMES, values, strict=True)))
    at = exactly(t, [9.0, *np.log(values[1:5]), np.arctanh(RHO)])
    value, vector = np.linalg.eigh(at.cov)
    expected = (np.hstack([a, b]) - at.mean) @ (vector @ np.diag(value**-0.5) @ vector.T)
    assert found.reshape(8, 4, 2) == pytest.approx(
        expected.reshape(8, 2, 4).transpose(0, 2, 1), abs=1e-6)


def test_a_fit_with_labs_and_samples_is_kept_and_its_tables_know_them(two, tmp_path, near_typical):
    again = load_fit(near_typical(population(two, **ASKED), read(tmp_path)).save(tmp_path))
    assert again.model.error_pairs == PAIR
    assert again.model.separate["A"].units == ("x", "y")
    assert again.model.names == NAMES
    asked = again.manifest["request"]
    assert asked["errors"] == {"A": "additive by LAB", "B": "additive"}
    assert asked["correlated_errors"] == [["A", "B"]]
    assert list(again.posterior["constant_data"].dataset["change_LAB"].values) == [
        *"xxyyxxyy"] * 8
    said = tables.parameters(again).set_index("parameter")["meaning"]
    assert said["sigma_A_add_x"] == "A: SD of DV around the prediction, LAB x"
    assert said["rho_A_B"] == "correlation of the residuals of A and B in one sample"
    rows, middle = predictions(again), medians(again)
    names = np.where(rows["output"] == "B", "sigma_B_add", np.tile(
        np.repeat(NAMES[2:4], 2), 16))
    assert rows["IWRES"].to_numpy() == pytest.approx(
        ((rows["DV"] - rows["IPRED"]) / [middle[n] for n in names]).to_numpy(), rel=1e-9)


@pytest.mark.slow  # passed, under 12 s
def test_a_fit_by_focei_is_the_exact_maximum(two, tmp_path):
    t, a, b = pairs()
    best = optimize.minimize(
        lambda x: -2 * exactly(t, x).logpdf(np.hstack([a, b])).sum() - 64 * np.log(2 * np.pi),
        [10, 0.5, 0, 0, 0, 0], method="BFGS", options={"gtol": 1e-7})
    exact = dict(zip(NAMES, (best.x[0], *np.exp(best.x[1:5]), np.tanh(best.x[5])), strict=True))
    made = fit(population(two, **ASKED), read(tmp_path), "focei", seed=1)
    # the search ends where 1e-5 of OFV are to be gained
    assert made.manifest["convergence"]["measures"]["ofv"] == pytest.approx(best.fun, abs=1e-4)
    found = {n: v["estimate"] for n, v in made.manifest["estimates"].items()}
    assert found == pytest.approx(exact, rel=2e-3)


@pytest.mark.slow  # all five passed, 12 to 90 s each; rho 0.579 by focei, 0.578 by saem
@pytest.mark.parametrize("estimator", ["focei", "laplace", "saem", "svi", "nuts"])
def test_every_estimator_recovers_the_correlation_of_errors_with_censored_rows(
        two, tmp_path, estimator):
    times = [(str(i + 1), t, 1.0, 1.0, 1.0, d) for i in range(40) for t in range(5) for d in (1, 2)]
    asked = population(two, errors={"A": "lognormal"}, correlated_errors=PAIR)
    seen = design(cohort(times), asked.structure)
    drawn = simulate(asked, seen, {"a_pop": 10.0, "omega_a": 2.0, "sigma_A_log": 0.25,
                                   "sigma_B_add": 1.0, "rho_A_B": RHO}, seed=3)
    rows = pd.DataFrame(times, columns=["ID", "TIME", "DV", "LOW", "HIGH", "DVID"])
    limit = rows["DVID"].map({1: 8.0, 2: 4.5})
    dv = drawn.dv.ravel()
    rows.assign(DV=np.maximum(dv, limit), CENS=(dv < limit).astype(int)).drop(
        columns=["LOW", "HIGH"]).to_csv(tmp_path / "hidden.csv", index=False)
    found = fit(asked, read_csv(tmp_path / "hidden.csv"), estimator, seed=1)
    draws = found.posterior["posterior"].dataset
    assert float(draws["rho_A_B"].median()) == pytest.approx(RHO, abs=0.15)
    assert float(draws["sigma_A_log"].median()) == pytest.approx(0.25, abs=0.05)
