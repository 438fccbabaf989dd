"""NUTS: reference posteriors, reproducible draws, verdicts, failures that stay outcomes."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from arviz_stats.base import array_stats
from models_for_tests import DECAY, cohort, decaying

from carpk import chains
from carpk.cohort import design
from carpk.empirical_bayes import laplace_start
from carpk.estimators.nuts import Nuts
from carpk.fitting import fit
from carpk.geometry import frozen, to_phi
from carpk.likelihood import data_of, to_theta
from carpk.padding import filled_start
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.problems import RequestError
from carpk.structure import Input, Output, Parameter, Source, State, StructuralModel

HERE = __file__


def agreement(draws, mean, sd):
    """Distance of mean and SD from those of 10,000 nearly independent reference draws, in Monte
    Carlo standard errors of both; the references' are estimated from the shape of `draws`."""
    z2 = (draws - draws.mean()) ** 2
    sd_error = np.sqrt((z2**2).mean() / z2.mean() - z2.mean()) / (2 * 10_000**0.5)
    return (abs(draws.mean() - mean) / np.hypot(array_stats.mcse(draws, method="mean"), sd / 100),
            abs(draws.std() - sd) / np.hypot(array_stats.mcse(draws, method="sd"), sd_error))


def quantile_agreement(draws, row):
    """Distance of the quartiles and the 5 % and 95 % quantiles, in standard errors of both."""
    far = []
    for p in (0.05, 0.25, 0.5, 0.75, 0.95):
        error = array_stats.mcse(draws, method="quantile", prob=p)
        ess = array_stats.ess(draws, method="quantile", prob=p)
        far.append(abs(np.quantile(draws, p) - row[f"q{round(100 * p):02d}"])
                   / (error * np.sqrt(1 + ess / 10_000)))
    return far


@pytest.mark.parametrize("estimator", [
    "nuts", pytest.param("gibbs", marks=pytest.mark.slow)])
def test_eight_schools_has_the_reference_posterior(shared_data, estimator):
    folder = shared_data / "posterior_eight_schools"
    data = json.loads((folder / "data.json").read_text())
    structure = StructuralModel(
        title="eight schools", source=Source("Rubin 1981"), time_unit="-",
        parameters=(Parameter("theta", 0.0, "-", "effect", link="identity"),),
        inputs=(Input("SE", "-", "known standard error"),),
        outputs=(Output("y", "-", "effect in standard errors", error="additive"),),
        solution=lambda t, p: {"y": p.theta / p.SE}, file=HERE)
    model = population(structure, spread=["theta"], fixed={"sigma_y_add": 1.0},
                       priors={"theta_pop": "normal(0, 5)", "omega_theta": "halfcauchy(5)"})
    rows = [(str(k), 0.0, y / s) for k, (y, s) in enumerate(zip(data["y"], data["sigma"],
                                                                strict=True))]
    result = fit(model, cohort(rows, SE=np.array(data["sigma"], float)), estimator, seed=1,
                 draws=2000, target_accept=0.95)
    reference = pd.read_csv(folder / "reference_summary.csv", index_col="parameter")
    found = result.posterior["posterior"]
    ours = {"mu": found["theta_pop"].values, "tau": found["omega_theta"].values}
    ours |= {f"theta[{k + 1}]": found["theta"].values[..., k] for k in range(8)}
    far = {n: agreement(v, *reference.loc[n, ["mean", "sd"]]) for n, v in ours.items()}
    assert {n: d for n, d in far.items() if max(d) > 3} == {}
    assert result.convergence.measures["divergences"] < 0.01 * 8000


@pytest.mark.slow  # passed, 85 s
def test_michaelis_menten_elimination_has_the_reference_posterior(shared_data):
    folder = shared_data / "posterior_one_comp_mm_elim_abs"
    data = json.loads((folder / "data.json").read_text())
    structure = StructuralModel(
        title="absorption, Michaelis-Menten elimination", source=Source("posteriordb"),
        time_unit="-",
        parameters=(Parameter("ka", 1.0, "-", ""), Parameter("Km", 1.0, "-", ""),
                    Parameter("Vm", 1.0, "-", "")),
        states=(State("C", "-", ""),), outputs=(Output("C", "-", ""),),
        rates=lambda t, y, p: {"C": p.ka * (data["D"] / data["V"]) * jnp.exp(-p.ka * t)
                               - p.Vm / data["V"] * y.C / (p.Km + y.C)},
        initial=lambda p: {"C": 0.0}, observe=lambda t, y, p: {"C": y.C}, file=HERE)
    model = population(structure, spread=[], priors={
        n: "halfcauchy(1)" for n in ("ka", "Km", "Vm", "sigma_C_log")})
    rows = [("1", t, y) for t, y in zip(data["times"], data["C_hat"], strict=True)]
    # the ridge of K_m and V_m bends: with a longer step its far end is entered divergently
    result = fit(model, cohort(rows), seed=1, draws=2000, warmup=1000, target_accept=0.99)
    reference = pd.read_csv(folder / "reference_summary.csv", index_col="parameter")
    found = result.posterior["posterior"]
    far = {n: agreement(found[ours].values, *reference.loc[n, ["mean", "sd"]])
           for n, ours in (("k_a", "ka_pop"), ("sigma", "sigma_C_log"))}
    # the tails of K_m and V_m are so heavy that a few draws rule their means: quantiles instead
    far |= {n: quantile_agreement(found[ours].values, reference.loc[n])
            for n, ours in (("K_m", "Km_pop"), ("V_m", "Vm_pop"))}
    assert {n: d for n, d in far.items() if max(d) > 3} == {}
    assert result.convergence.measures["divergences"] < 0.01 * 8000


@pytest.mark.slow  # passed, 11 s
def test_the_same_seed_gives_the_same_draws_and_another_seed_others():
    cohort_, model = decaying(), population(DECAY)
    runs = [fit(model, cohort_, seed=s, chains=2, draws=25, warmup=25) for s in (1, 1, 2)]
    draws = [r.posterior["posterior"]["C0_pop"].values for r in runs]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_drawn_at_no_distance_a_chain_begins_at_the_patients_modes():
    seen = design(decaying(), DECAY)
    model, _ = resolve(population(DECAY), seen, {})
    data = data_of(model, seen)
    start = filled_start(laplace_start(model, data, seed=1))
    frame = frozen(model, start)
    begin, _ = chains._programs(Nuts(chains=1), model, data)
    state = begin(jax.random.key(1), jnp.asarray(0.0), start, data, frame)
    np.testing.assert_array_equal(state.z["u"], start.u)
    middle, phi = (to_phi(model, data, to_theta(model, start.u), z, frame, "informed")[0]
                   for z in (jnp.zeros_like(start.phi), state.z["z"]))
    np.testing.assert_allclose(phi, start.phi, atol=1e-9)
    assert np.abs(middle - start.phi).max() > 1e-2, "the middle of the coordinates is another place"


def test_no_dense_metric_is_learnt_of_a_horseshoe():
    """Two coefficients, their lambdas, tau and slab stay apart."""
    seen = design(decaying(), DECAY)
    model, _ = resolve(population(DECAY, covariates={
        "C0 ~ WT": "power(70)", "k ~ WT": "exponential(70)"}, priors={
            "covariates": "horseshoe(1)"}), seen, {})
    data = data_of(model, seen)
    start = laplace_start(model, data, seed=1)
    kernel, size = Nuts().kernel(model), len(model.free)
    state = jax.eval_shape(kernel.begin, start.u, start.phi, jnp.ones(size), jax.random.key(1),
                           data, frozen(model, start))
    metric = state.adapt_state.inverse_mass_matrix
    assert metric["u",].shape == (size - 6, size - 6)
    assert metric["lone", "z"].shape == (6 + start.phi.size,)


@pytest.mark.slow  # passed, 21 s
def test_without_a_number_of_draws_the_chains_draw_on_until_they_can_be_used(monkeypatch):
    monkeypatch.setattr(chains, "_ROUND", 150)
    cohort_, model = decaying(), population(DECAY)
    result = fit(model, cohort_, seed=1, chains=2, warmup=200)
    draws = result.posterior["posterior"]
    drawn = draws.sizes["draw"]
    assert result.convergence.ok
    assert drawn in range(300, 5000, 150)
    short, same = (fit(model, cohort_, seed=1, chains=2, warmup=200, draws=n)
                   for n in (drawn - 150, drawn))
    assert not short.convergence.ok
    for name in model.free:
        assert np.array_equal(draws[name], same.posterior["posterior"][name]), name


def test_drawing_on_ends_where_it_does_not_help(monkeypatch):
    monkeypatch.setattr(chains, "_ROUND", 20)
    monkeypatch.setattr(chains, "_MOST", 60)
    result = fit(population(DECAY), decaying(), seed=1, chains=2, warmup=100,
                 target_accept=0.95)
    assert result.posterior["posterior"].sizes["draw"] == 60
    assert not result.convergence.ok
    few = [{"u": np.random.default_rng(k).normal(size=(20, 1)), "diverging": np.arange(20) == 3}
           for k in range(2)]
    assert not chains._more_would_help(few)
    assert chains._more_would_help([{**run, "diverging": np.zeros(20, bool)} for run in few])


def test_too_few_draws_are_judged_not_converged_in_sentences():
    result = fit(population(DECAY), decaying(), seed=1, chains=2, draws=25, warmup=25)
    assert not result.convergence.ok
    assert any("bulk ESS" in r and "want at least 400" in r for r in result.convergence.reasons)


@pytest.mark.slow
@pytest.mark.parametrize("other", [{"parametrisation": "noncentred"},
                                   {"parametrisation": "centred"}, {"estimator": "gibbs"}])
def test_other_coordinates_and_other_trajectories_sample_the_same_posterior(other):
    runs = [fit(population(DECAY), decaying(20), seed=k, draws=4000, **settings)
            for k, settings in enumerate(({}, other))]
    for name in runs[0].model.free:
        a, b = (r.posterior["posterior"][name].values for r in runs)
        for method, statistic in (("mean", np.mean), ("sd", np.std)):
            error = np.hypot(*(array_stats.mcse(x, method=method) for x in (a, b)))
            assert abs(statistic(a) - statistic(b)) < 4 * error, name


@pytest.mark.parametrize("settings", [
    {"chains": 0}, {"draws": -1}, {"draws": 2.5}, {"target_accept": 1.0},
    {"parametrisation": "sideways"}])
def test_a_setting_that_makes_no_sense_is_refused(settings):
    with pytest.raises(RequestError):
        Nuts(**settings)


def test_an_unknown_setting_is_refused_by_name():
    from carpk.estimators import with_settings
    with pytest.raises(RequestError, match="stepsize"):
        with_settings(Nuts, {"stepsize": 1})
    assert dataclasses.asdict(with_settings(Nuts, {"draws": 5}))["draws"] == 5


def test_what_is_hardly_informed_is_named_before_the_sampling_and_kept(caplog, monkeypatch):
    told = ["the data hardly inform omega_k"]
    monkeypatch.setattr(chains, "hardly_informed", lambda model, start, patients: told)
    before = []
    real = chains._run
    monkeypatch.setattr(chains, "_run", lambda *a: before.append(caplog.messages) or real(*a))
    result = fit(population(DECAY), decaying(), seed=1, chains=1, draws=4, warmup=4)
    assert told[0] in before[0]
    assert told[0] in result.convergence.remarks
