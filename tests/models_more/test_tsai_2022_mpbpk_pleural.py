"""Tsai 2022, pleural tumour: exposure by route, peaks of CAR T cells, cures, what is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm
from test_models import GOLDEN, assert_printed, integrated, solved, values_of

from carpk import registry
from carpk.structure import named

MODEL = registry.load("models", "tsai_2022_mpbpk_pleural")
GOLD = GOLDEN["tsai_2022_mpbpk_pleural"]
FREE = ("Aart", "Aven", "VL", "IL", "VO", "IO", "LN", "PS")
CELLS = (*FREE, "X")


def run(dose, until, **values):
    return integrated(MODEL, values_of(MODEL, {"values": values}), dose, until,
                      rtol=1e-10, atol=1e-14)


def exposure(until, state):
    """Exact areas after 1e6 cells into `state` where nothing binds or grows: the ODE is linear."""
    p = named(values_of(MODEL, {"values": {"kon": 0.0, "kg": 0.0}}))

    def whole(x):
        return named({**MODEL.initial(p), **dict(zip(FREE, x, strict=True))})

    def slopes(x):
        dy = MODEL.rates(0.0, whole(x), p)
        return jnp.stack([dy[n] for n in FREE])

    def seen(x):
        return MODEL.observe(0.0, whole(x), p)

    size = len(FREE)
    both = np.zeros((2 * size, 2 * size))
    both[:size, :size] = jax.jacfwd(slopes)(jnp.zeros(size))
    both[size:, :size] = np.eye(size)
    dosed = 1e6 * (np.array(FREE) == state)
    area = (expm(until * both) @ np.concatenate([dosed, np.zeros(size)]))[size:]
    return {n: float(row @ area) for n, row in jax.jacfwd(seen)(jnp.zeros(size)).items()}


@pytest.mark.parametrize("entry", GOLD["routes"], ids=lambda e: f"{e['until']} h")
def test_the_ratio_of_exposures_by_route_is_exact_and_by_trapezoids_as_printed(entry):
    until = float(entry["until"])
    by_route = [exposure(until, state) for state in ("PS", "Aven")]
    hours = np.arange(0.0, until + 0.025, 0.05)
    levels = [run({state: 1e6}, until, kon=0.0, kg=0.0)(hours) for state in ("PS", "Aven")]
    for output, text in entry["exact"].items():
        assert_printed(by_route[0][output] / by_route[1][output], text)
    for output, text in entry["trapezoid"].items():
        pleural, venous = (np.trapezoid(level[output], hours) for level in levels)
        assert_printed(float(pleural / venous), text)


def most(entry):
    hours = np.arange(0.0, 20 * 24 + 1.0)
    seen = run(entry["dose"], hours[-1], TB0=entry["TB0"])(hours)
    cells = sum(seen[n] for n in CELLS)
    return float(cells.max()), float(hours[cells.argmax()]) / 24.0, seen


@pytest.mark.parametrize("entry", GOLD["peak"], ids=lambda e: f"{e['dose']}, {e['TB0']:g}")
def test_the_most_car_t_cells_of_a_mouse_and_their_day_are_as_printed(entry):
    cells, on, seen = most(entry)
    assert_printed(cells, entry["printed"]["cells"])
    assert_printed(on, entry["printed"]["on"])
    assert seen["T"][-1] < 10.0, "the tumour is cleared"
    assert (seen["F"] >= 0).all()


def test_the_peak_comes_4_days_earlier_from_the_pleural_space():
    venous, pleural = (most(entry)[1] for entry in GOLD["peak"][:2])
    assert_printed(venous - pleural, "4.2")


def test_few_cells_do_not_control_a_large_tumour():
    at = run({"Aven": 1e5}, 84 * 24.0, TB0=3e8)
    assert_printed(float(at([84 * 24.0])["T"][0]), "7.0e11")


def test_cells_that_are_neither_made_nor_lost_are_kept():
    entry = {"dose": {"Aven": 1e6}, "values": {"kel": 0.0, "kpro": 0.0}}
    seen = solved(MODEL, entry, 336.0)(np.array([1.0, 24.0, 336.0]))
    np.testing.assert_allclose(sum(seen[n] for n in CELLS), 1e6, rtol=1e-8)


def test_without_car_t_cells_the_tumour_grows_exponentially():
    seen = solved(MODEL, {}, 336.0)(np.array([24.0, 336.0]))
    np.testing.assert_allclose(seen["T"], 1e8 * np.exp(0.00385 * np.array([24.0, 336.0])),
                               rtol=1e-9)
