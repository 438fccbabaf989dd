"""Stein 2019: its curve is that of its ODE, with comedication too; phenotypes and spreads."""

import itertools

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.stats import norm
from test_models import assert_printed, closed_form, values_of

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


def level(days, **values):
    return closed_form(MODEL, values_of(MODEL, {"values": values}))(days)["C"]


def test_what_is_no_effector_cell_is_memory_as_many_as_printed():
    days = np.array([0.0, 9.3, 14.0, 28.0, 90.0, 180.0, 365.0])
    memory = level(days) - level(days, FB=0.0)
    for value, text in zip(memory, ("0", "0", "97.3880", "169.072", "146.448", "109.802",
                                    "60.7445"), strict=True):
        assert_printed(value, text)
    grown = level(np.array([0.0, 9.3]))
    assert_printed(grown[0], "6.15384615")
    assert_printed(np.log(grown[1] / grown[0]) / 9.3, "0.889110950")
    p = named(MODEL.typical)
    assert_printed(p.FB * (p.alpha - p.beta), "0.00123872")  # effector to memory


def test_the_slow_decline_outweighs_the_fast_one_from_the_printed_day_on():
    p = named(MODEL.typical)

    def ahead(day):
        at = np.array([day])
        return (p.FB * level(at, FB=1.0) - (1.0 - p.FB) * level(at, FB=0.0))[0]

    assert_printed(brentq(ahead, 10.0, 100.0, xtol=1e-9), "40.1225")


def test_tocilizumab_multiplies_the_peak_and_the_papers_exposure_leaves_the_start_out():
    peak = np.array([9.3])
    assert_printed((level(peak, TTOCI=5.7) / level(peak))[0], "1.89678")
    p = named(MODEL.typical)
    rho = np.log(p.foldx) / p.Tmax
    assert_printed(p.Cmax * (1 / rho + (1 - p.FB) / p.alpha + p.FB / p.beta), "235058.257")
    assert_printed(p.Cmax * ((1 - 1 / p.foldx) / rho + (1 - p.FB) / p.alpha + p.FB / p.beta),
                   "235051.335")


def test_the_spreads_are_standard_deviations_of_logarithms():
    omega = {name: MODEL.parameter(name).omega.omega for name in ("Tmax", "Cmax")}
    for name, texts in (("Tmax", ("4.98", "17.4")), ("Cmax", ("8239", "69910"))):
        for share, text in zip((0.05, 0.95), texts, strict=True):
            assert_printed(MODEL.typical[name] * np.exp(omega[name] * norm.ppf(share)), text)
    for variance, text in ((omega["Cmax"]**2, "72.5"), (omega["Cmax"]**2 + 0.56**2, "104")):
        assert_printed(100.0 * np.sqrt(np.expm1(variance)), text)  # with the residual error
