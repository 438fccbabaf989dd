"""Stein 2019: with comedication too, its curve is that of its ODE."""

import itertools

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from test_models import closed_form, values_of

from carpk import registry
from carpk.structure import named

MODEL = registry.load("models", "stein_2019")
DAYS = np.array([0.5, 3.0, 5.7, 6.5, 8.0, 9.3, 12.0, 60.0, 365.0])


@pytest.mark.parametrize(("toci", "ster"), [(5.7, 7.5), (7.5, 5.7), (3.0, np.inf), (11.0, 2.0)])
def test_the_closed_form_is_growth_at_a_rate_that_each_drug_changes_and_then_decline(toci, ster):
    values = values_of(MODEL, {"values": {"TTOCI": toci, "TSTER": ster, "Fster": 0.7}})
    p = named(values)
    rho = np.log(p.foldx) / p.Tmax
    switches = sorted({0.0, p.Tmax, *(t for t in (toci, ster) if t < p.Tmax)})
    level, seen = p.Cmax / p.foldx, {}
    for begin, end in itertools.pairwise(switches):
        rate = rho * (p.Ftoci if begin >= toci else 1.0) * (p.Fster if begin >= ster else 1.0)
        path = solve_ivp(lambda t, u, rate=rate: rate * u, (begin, end), [level], method="DOP853",
                         rtol=1e-12, atol=1e-12, dense_output=True)
        seen |= {t: path.sol(t)[0] for t in DAYS if begin < t <= end}
        level = path.y[0, -1]
    late = DAYS[p.Tmax < DAYS]
    path = solve_ivp(lambda t, u: [-p.alpha * u[0], -p.beta * u[1]], (p.Tmax, late[-1]),
                     [(1.0 - p.FB) * level, p.FB * level], t_eval=late, method="DOP853",
                     rtol=1e-12, atol=1e-12)
    seen |= dict(zip(late, path.y.sum(axis=0), strict=True))
    np.testing.assert_allclose(closed_form(MODEL, values)(DAYS)["C"], [seen[t] for t in DAYS],
                               rtol=1e-8)


def test_stein_halves_the_expansion_rate_only_before_the_peak():
    model = registry.load("models", "stein_2019")
    late = closed_form(model, values_of(model, {"values": {"TSTER": 9.3, "Fster": 0.5}}))
    never = closed_form(model, values_of(model, {}))
    times = np.linspace(0.0, 300.0, 61)
    np.testing.assert_allclose(late(times)["C"], never(times)["C"], rtol=1e-13)
