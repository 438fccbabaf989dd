"""Kirouac 2023: what its dossier says of all 36 fitted sets, by carpk's own solver."""

import dataclasses

import jax
import numpy as np
import pytest
from test_models import GOLDEN, assert_printed, design_of, integrated, named, solved, values_of

from carpk import registry
from carpk.models import kirouac_2023
from carpk.solve import arrays, predict

MODEL = registry.load("models", "kirouac_2023")
GOLD = GOLDEN["kirouac_2023"]
SETS = list(MODEL.parameter_sets)
DAYS = np.arange(0.0, 365.1, 0.25)


@pytest.fixture(scope="module")
def cells():
    """Set -> its CAR T cells and tumour cells in the body on DAYS."""
    columns = ["CART"] * len(SETS) + ["B"] * len(SETS)
    design = design_of(MODEL, {}, DAYS, columns)
    design = dataclasses.replace(design, ids=tuple(map(str, range(len(columns)))))
    values = {n: np.array([MODEL.parameter_sets[s][n] for s in SETS] * 2) for n in MODEL.typical}
    seen = np.asarray(jax.jit(lambda v: predict(MODEL, arrays(design, MODEL, 1920), v))(values))
    assert np.isfinite(seen).all()
    assert (seen > 0).all()
    return {s: (MODEL.typical["V"] * seen[k], seen[len(SETS) + k]) for k, s in enumerate(SETS)}


def finest(curve, days):
    """Value and day of a curve's highest point, by the parabola through the three around it."""
    k = int(np.argmax(curve))
    if not 0 < k < len(days) - 1:
        return curve[k], days[k]
    a, b, _ = np.polyfit(days[k - 1:k + 2] - days[k], curve[k - 1:k + 2], 2)
    return curve[k] - b**2 / (4 * a), days[k] - b / (2 * a)


@pytest.mark.parametrize("group", GOLD["archetype"], ids=lambda g: g["name"])
def test_an_archetype_expands_and_responds_within_its_printed_range(cells, group):
    twelve = [cells[s] for s in SETS if s.startswith(group["name"])]
    assert len(twelve) == 12
    peaks, days = zip(*(finest(cart, DAYS) for cart, _ in twelve), strict=True)
    seen = {"peak": peaks, "day": days, "nadir": [-finest(-b, DAYS)[0] for _, b in twelve]
            if "nadir" in group["printed"] else [], "B_365": [b[-1] for _, b in twelve]}
    for what, texts in group["printed"].items():  # the least and, where it can be met, the most
        for extreme, text in zip((min, max), texts, strict=False):
            assert_printed(extreme(seen[what]), text)


def test_no_tumour_of_a_non_responder_shrinks_and_all_end_near_their_capacity(cells):
    for title in (s for s in SETS if s.startswith("NR")):
        tumour = cells[title][1]
        assert tumour.min() >= 1e10 * (1 - 1e-9)
        assert 0.85 < tumour[-1] / MODEL.parameter_sets[title]["Bmax"] < 1.0


@pytest.mark.parametrize("entry", GOLD["exposure"], ids=lambda e: e["set"])
def test_the_printed_exposure_is_that_of_the_printed_grid(entry):
    days = DAYS[DAYS <= 28]
    at = solved(MODEL, entry, 28.0)
    cart = MODEL.typical["V"] * at(days)["CART"]
    cart[0] = 0.0  # carpk counts the cells that are on their way, the paper does not
    assert_printed(cart.max(), entry["printed"]["peak"])
    assert_printed(days[np.argmax(cart)], entry["printed"]["day"])
    assert_printed(np.trapezoid(cart, days), entry["printed"]["area_28"])
    if "fine_28" in entry["printed"]:
        fine = np.linspace(0.0, 28.0, 28001)
        p = named(values_of(MODEL, entry))
        coming = (p.wM + p.wE1 + p.wE2 + p.wX) * kirouac_2023.waiting(fine, p)
        assert_printed(np.trapezoid(p.V * at(fine)["CART"] - coming, fine),
                       entry["printed"]["fine_28"])


def test_between_one_and_three_and_a_half_cells_in_a_thousand_engraft():
    engrafted = [MODEL.derive(named(MODEL.parameter_sets[s]))["engrafted"] for s in SETS]
    assert_printed(min(engrafted), "1.0e-3")
    assert_printed(max(engrafted), "3.5e-3")


def test_the_tumour_alone_grows_logistically_and_its_antigen_comes_to_rest():
    p = values_of(MODEL, {"set": "NR 1", "values": {"dose": 1e-200, "kkill": 1e-30, "B0": 1e6}})
    times = np.array([10.0, 100.0, 2000.0])
    seen = integrated(MODEL, p, {}, 2000.0)(times)
    grown = 1e6 * np.exp(p["uB"] * times)
    np.testing.assert_allclose(seen["B"], grown / (1 + (grown - 1e6) / p["Bmax"]), rtol=1e-8)
    np.testing.assert_allclose(seen["BA"][-1], p["kB1"] / p["kB2"] * p["Bmax"], rtol=1e-8)


def test_without_antigen_memory_grows_at_its_net_rate_and_nothing_else_expands():
    p = {**MODEL.typical, "dose": 1e8, "B0": 1.0}
    y = {"TM": 1e6, "TE1": 1e4, "TE2": 1e5, "TX": 1e3, "B": 1e-250, "BA": 1e-250}
    dy, after = MODEL.rates(100.0, named(y), named(p)), named(p)
    growth = MODEL.derive(named(p))["growth_TM"]
    np.testing.assert_allclose(dy["TM"], growth * 1e6 + after.rM * 1e5, rtol=1e-12)
    np.testing.assert_allclose(dy["TE2"], -(after.dE2 + after.rM) * 1e5, rtol=1e-12)
    np.testing.assert_allclose(dy["TX"], -after.dX * 1e3, rtol=1e-12)


def test_a_memory_cell_that_differentiates_makes_two_effectors_and_each_two_to_the_n():
    p = named({**MODEL.typical, "dose": 1e8, "B0": 1.0, "dE1": 0.0, "dM": 0.0, "rM": 0.0,
               "dE2": 0.0, "kex": 0.0, "fmax": 0.0})
    empty = {"TM": 0.0, "TE1": 0.0, "TE2": 0.0, "TX": 0.0, "B": 1e9, "BA": 1e9}
    memory = MODEL.rates(100.0, named({**empty, "TM": 1.0}), p)
    np.testing.assert_allclose(memory["TE1"], -2.0 * memory["TM"], rtol=1e-12)
    effector = MODEL.rates(100.0, named({**empty, "TE1": 1.0}), p)
    np.testing.assert_allclose(effector["TE2"], -(2.0**p.N) * effector["TE1"], rtol=1e-12)
