"""Chaudhury 2020: what its three illustrative models conserve, cross and integrate to."""

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from test_models import (
    assert_printed,
    closed_form,
    integrated,
    ln_predicted,
    named,
    solved,
    values_of,
)

from carpk import registry


def test_predator_and_prey_keep_their_first_integral():
    model = registry.load("models", "chaudhury_2020_mass_action")
    p = named(values_of(model, {}))

    def first_integral(CE, U):
        return p.rho * U - p.kE * np.log(U) + p.d * CE - p.g * np.log(CE)

    assert_printed(first_integral(p.CE0, p.U0), "0.187729074")
    seen = integrated(model, vars(p), {}, 100.0)(np.linspace(0.0, 100.0, 201))
    np.testing.assert_allclose(first_integral(seen["CE"], seen["U"]), 0.187729074, atol=1e-8)
    at_rest = model.rates(0.0, named({"CE": p.g / p.d, "U": p.kE / p.rho}), p)
    assert max(map(abs, at_rest.values())) < 1e-12


def test_the_saturable_tumour_falls_below_its_cure_after_day_28():
    model = registry.load("models", "chaudhury_2020_saturable")
    p = values_of(model, {})
    seen = integrated(model, p, {}, 60.0)(np.array([28.0, 60.0]))["U"]
    assert seen[0] > p["Ucrit"] > seen[1]


@pytest.mark.parametrize("name", ["chaudhury_2020_saturable", "chaudhury_2020_timed"])
def test_the_closed_form_after_tmax_is_that_of_its_equations(name):
    model = registry.load("models", name)
    p = named(values_of(model, {}))
    days, peak = np.array([9.5, 14.0, 28.0, 100.0]), float(p.CE0 * np.exp(p.Tmax))
    path = solve_ivp(lambda t, u: [-(p.kE + p.kEP) * u[0], p.kEP * u[0] - p.beta * u[1]],
                     (p.Tmax, 100.0), [peak, 0.0], t_eval=days, method="DOP853", rtol=1e-12,
                     atol=1e-12)
    for k, day in enumerate(days):
        seen = model.observe(day, named({"E": peak, "U": 1.0}), p)
        np.testing.assert_allclose([seen["CE"], seen["CP"]], path.y[:, k], rtol=1e-8)


@pytest.mark.parametrize(("name", "days"), [
    ("chaudhury_2020_mass_action", [1.0, 5.0, 9.3, 28.0]),
    ("chaudhury_2020_saturable", [1.0, 5.0, 9.0, 12.0]),
    ("chaudhury_2020_timed", [1.0, 5.0, 7.0, 14.0])])
def test_gradients_agree_with_central_differences_of_an_independent_solver(name, days):
    model = registry.load("models", name)
    entry = {"set": "as encoded"} if model.parameter_sets else {}
    days, values = np.array(days), values_of(model, entry)
    at, x = ln_predicted(model, entry, days, ["U"], 960)
    jacobian = np.asarray(jax.jit(jax.jacrev(at))(x))[0]
    for k, parameter in enumerate(model.typical):
        low, high = (np.asarray(solved(model, {**entry, "values": {
            parameter: values[parameter] * np.exp(step)}}, days[-1])(days)["ln_U"])
            for step in (-1e-4, 1e-4))
        np.testing.assert_allclose(jacobian[:, k], (high - low) / 2e-4, rtol=1e-4, atol=1e-4,
                                   err_msg=parameter)


def test_persistent_cells_come_as_in_stein():
    stein = closed_form(registry.load("models", "stein_2019"),
                        values_of(registry.load("models", "stein_2019"), {}))
    model = registry.load("models", "chaudhury_2020_timed")
    p = named({**values_of(model, {}), "CE0": 24_000 / 3900, "rho": np.log(3900) / 9.3,
               "kE": 0.16 - 0.0079 * (0.16 - 0.0032), "kEP": 0.0079 * (0.16 - 0.0032)})
    days = np.array([1.0, 9.0, 14.0, 90.0, 365.0])
    mine = [float(model.observe(t, named({"U": 1.0}), p)["C"]) for t in days]
    np.testing.assert_allclose(mine, stein(days)["C"], rtol=1e-12)
