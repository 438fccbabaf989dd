"""The generic piecewise expansion: without a lag it is Stein's model; a lag beyond the peak."""

import jax
import jax.numpy as jnp
import numpy as np
from test_models import assert_printed

from carpk import registry
from carpk.structure import named

MODEL = registry.load("models", "piecewise_expansion")


def levels(model, times, values):
    p = {n: float(v) for n, v in values.items()}
    return np.asarray(jax.jit(jax.vmap(lambda t: model.solution(t, named(p))["C"]))(times))


def test_without_a_lag_it_is_the_expansion_of_stein_2019():
    stein = registry.load("models", "stein_2019")
    p = {**stein.typical, "TTOCI": np.inf, "TSTER": np.inf}
    own = {"Tlag": 0.0, "DT": p["Tmax"] * np.log(2) / np.log(p["foldx"]), "Tmax": p["Tmax"],
           "Cmax": p["Cmax"], "FB": p["FB"], "t_half_a": np.log(2) / p["alpha"],
           "t_half_b": np.log(2) / p["beta"]}
    times = jnp.linspace(0.0, 400.0, 201)
    np.testing.assert_allclose(levels(MODEL, times, own), levels(stein, times, p), rtol=1e-12)


def test_the_growth_lasts_as_many_days_and_doublings_as_printed():
    p, fold = named(MODEL.typical), MODEL.derive(named(MODEL.typical))["fold"]
    assert_printed(p.Tmax - p.Tlag, "6.02")
    assert_printed(float(jnp.log2(fold)), "7.97351")


def test_a_lag_beyond_the_peak_leaves_a_plateau_and_then_the_decline():
    p = {**MODEL.typical, "Tlag": 12.0}
    seen = levels(MODEL, jnp.array([0.0, 5.0, 12.0, 17.0]), p)
    halved = p["Cmax"] * (0.5 * (1 - p["FB"]) + p["FB"] * 2 ** (-5 / p["t_half_b"]))
    np.testing.assert_allclose(seen, [p["Cmax"]] * 3 + [halved], rtol=1e-12)
    slope = jax.grad(lambda lag: MODEL.solution(17.0, named({**p, "Tlag": lag}))["C"])(12.0)
    assert np.isfinite(slope)
