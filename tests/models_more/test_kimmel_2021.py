"""Kimmel 2021: remission, extinction and progression as its deterministic path implies them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from test_models import GOLDEN, assert_printed, solved, values_of

from carpk import registry
from carpk.structure import named

MODEL = registry.load("models", "kimmel_2021")
FEW, DAYS = 100.0, np.linspace(0.0, 200.0, 20001)  # extinction is decided long before day 200


def crossing(at, level, low, high):
    return brentq(lambda t: float(at([t])["ln_B"][0]) - np.log(level), low, high, xtol=1e-9)


@pytest.mark.parametrize("entry", GOLDEN["kimmel_2021"]["cure"],
                         ids=lambda e: f"{e['set']} {e.get('values', {})}")
def test_a_tumour_of_100_cells_dies_out_with_the_printed_chance(entry):
    at, p = solved(MODEL, entry, DAYS[-1]), values_of(MODEL, entry)
    seen = at(DAYS)
    first = DAYS[np.argmax(seen["ln_B"] < np.log(FEW))]
    day = crossing(at, FEW, first - 1.0, first)
    times = np.linspace(day, DAYS[-1], 40001)
    seen = at(times)
    lost = p["gamma_B"] * seen["C"] / (p["k_B"] + seen["C"])
    # Kendall 1948: J is the integral of deaths over the relative size of the expected tumour
    integrand = lost * np.exp(np.log(FEW) - seen["ln_B"])
    step = times[1] - times[0]
    J = np.concatenate([[0.0], np.cumsum(0.5 * (integrand[1:] + integrand[:-1]) * step)])
    chance = np.exp(FEW * np.log(np.maximum(J, 1e-300) / (1.0 + J)))
    median = np.interp(0.5 * chance[-1], chance, times)
    for what, value in {"day": day, "chance": chance[-1], "median": median}.items():
        if what in entry["printed"]:
            assert_printed(float(value), entry["printed"][what])


@jax.jit
def chances(patients):
    """Of extinction within 200 days, for patients {parameter or input: (n,)}: Kendall's J again."""
    def slopes(u, p):
        y = named({s.name: jnp.exp(x) for s, x in zip(MODEL.states, u, strict=True)})
        dy = MODEL.rates(0.0, y, p)
        lost = p.gamma_B * y.C / (p.k_B + y.C) * jnp.exp(jnp.log(FEW) - u[2])
        return jnp.stack([dy["N"] / y.N, dy["C"] / y.C, dy["B"] / y.B]), lost

    def of(patient, h=0.05):
        p = named(patient)

        def step(carry, _):  # Runge-Kutta, J from the day of 100 cells on
            u, J = carry
            k1, lost = slopes(u, p)
            k2, _ = slopes(u + h / 2 * k1, p)
            k3, _ = slopes(u + h / 2 * k2, p)
            k4, _ = slopes(u + h * k3, p)
            after = u + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            few = (J > 0) | (u[2] < jnp.log(FEW))
            return (after, J + jnp.where(few, h / 2 * (lost + slopes(after, p)[1]), 0.0)), None

        (_, J), _ = jax.lax.scan(step, (jnp.log(jnp.stack([p.N0, p.C0, p.B0])), 0.0), length=4000)
        return jnp.where(J > 0, jnp.exp(-FEW * jnp.log1p(1.0 / jnp.maximum(J, 1e-300))), 0.0)

    return jax.vmap(of)(patients)


@pytest.mark.parametrize("entry", GOLDEN["kimmel_2021"]["virtual"], ids=lambda e: e["set"])
def test_of_virtual_patients_the_printed_share_is_cured(entry):
    rng, values, n = np.random.default_rng(1), values_of(MODEL, entry), 500
    spread = {name: (-1.0 if name == "k_B" else 1.0) if name in MODEL.typical and name != "V"
              else 0.0 for name in values}  # the authors vary 1 / k_B
    share = float(chances({name: jnp.asarray(value * (1 + 0.05 * rng.standard_normal(n))
                                             ** spread[name])
                           for name, value in values.items()}).mean())
    # the printed one is of 150 draws
    assert abs(share - float(entry["printed"])) < 2 * np.sqrt(share * (1 - share) / 150)


@pytest.mark.parametrize("title", list(MODEL.parameter_sets))
@pytest.mark.parametrize("r_B", [0.19, 0.265])
def test_a_fast_tumour_never_falls_to_100_cells(title, r_B):
    seen = solved(MODEL, {"set": title, "values": {"r_B": r_B}}, DAYS[-1])(DAYS)
    assert seen["ln_B"].min() > np.log(FEW)


@pytest.mark.parametrize(("r_B", "day"), [(0.065, "570"), (0.105, "353")])
def test_the_tumour_progresses_on_the_printed_day(r_B, day):
    entry = {"set": "Table 1", "values": {"r_B": r_B}}
    at = solved(MODEL, entry, 700.0)
    assert_printed(crossing(at, 1.2 * 9.486e10, 200.0, 700.0), day)


def test_the_t_cells_do_not_depend_on_the_tumour():
    times = np.array([7.0, 28.0, 180.0])
    slow, fast = (solved(MODEL, {"set": "Table 1", "values": {"r_B": r, "B0": b}}, 180.0)(times)
                  for r, b in ((0.01, 2.3e9), (0.265, 1.3e12)))
    for cells in ("N", "C"):
        np.testing.assert_allclose(slow[cells], fast[cells], rtol=1e-9)


def test_normal_t_cells_alone_grow_by_gompertz():
    entry = {"set": "Table 1", "values": {"C0": 1e-200}}
    times = np.array([3.0, 10.0, 40.0])
    expected = np.log(2.5e11) + np.log(3e9 / 2.5e11) * np.exp(-0.170 * times)
    np.testing.assert_allclose(solved(MODEL, entry, 40.0)(times)["ln_N"], expected, rtol=1e-9)


def test_a_further_infusion_is_a_dose_into_the_car_t_cells():
    split = {"set": "Table 1", "values": {"C0": 1e8}, "dose": {"C": 8e7}}
    at, whole = solved(MODEL, split, 20.0), solved(MODEL, {"set": "Table 1"}, 20.0)
    np.testing.assert_allclose(at([10.0])["C"], whole([10.0])["C"], rtol=1e-9)
