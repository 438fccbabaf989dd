"""Singh 2020, mice: complexes, flows that close, cells that are kept, a dose that is too small."""

import numpy as np
import pytest
from scipy.optimize import brentq
from test_models import GOLDEN, assert_printed, solved, table

from carpk import registry
from carpk.structure import named

MODEL = registry.load("models", "singh_2020_mouse_pbpk")
BCMA = MODEL.parameter_sets["BCMA"]
ORGANS = ("lung", "spleen", "kidney", "brain", "other", "gut", "liver")


@pytest.mark.parametrize("entry", GOLDEN["singh_2020_mouse_pbpk"]["complexes"],
                         ids=lambda e: f"{e['dose']['B']:g}")
def test_the_complexes_per_tumour_cell_are_as_printed(entry):
    rows = table(entry["printed"])
    at = solved(MODEL, {"set": "BCMA", "dose": entry["dose"], "atol": 1e-16}, 672.0)
    seen = at([float(t) for t in rows["t"]])["TE"] / BCMA["TC"]
    for value, text in zip(seen, rows["x"], strict=True):
        assert_printed(float(value), text)


def test_blood_and_lymph_flows_close():
    flows = sum(BCMA[f"Q_{o}"] for o in ORGANS if o != "lung") + BCMA["Q_T"]
    assert flows == pytest.approx(BCMA["Q_lung"], rel=1e-12)
    lymph = sum(BCMA[f"L_{o}"] for o in ORGANS) + BCMA["L_T"]
    assert lymph == pytest.approx(BCMA["L_LN"], rel=1e-12)


def test_cells_that_are_neither_made_nor_lost_are_kept():
    p = named({**BCMA, "V0": 50.0})
    seen = solved(MODEL, {"set": "BCMA", "dose": {"B": 1e7}, "atol": 1e-16, "values": {
        "Kdep": 0.0, "Kexp": 0.0, "Kkmax": 0.0, "Kg": 0.0}}, 336.0)(np.array([0.0, 1.0, 336.0]))
    total = seen["B"] + seen["A"] + p.V_LN * seen["CLN"] + p.fv * 0.05 * seen["Cv_T"] + sum(
        getattr(p, f"{v}_{o}") * seen[f"{c}_{o}"] for o in ORGANS
        for v, c in (("Vv", "Cv"), ("Ve", "Ce")))
    np.testing.assert_allclose(total, 1e7, rtol=1e-8)


def test_complexes_rest_at_the_smaller_root_of_their_equilibrium():
    p = named({**BCMA, "V0": 50.0})
    start = {**MODEL.initial(p), "A": 4000.0, "V": 0.05}
    a, b, KD = 4000.0 / (0.887 * 0.05) * p.CAR, p.TC * p.TAA, p.koff / p.kon
    rest = brentq(lambda TE: float(MODEL.rates(0.0, named({**start, "TE": TE}), p)["TE"]), 0.0,
                  min(a, b), xtol=1.0, rtol=1e-14)
    both = a + b + KD
    np.testing.assert_allclose(rest, 2 * a * b / (both + np.sqrt(both**2 - 4 * a * b)), rtol=1e-9)


def test_a_tumour_shrinks_only_above_the_derived_number_of_complexes():
    p = named({**BCMA, "V0": 50.0})
    killing = p.Kkmax * (x := MODEL.derive(p)["x_control"]) / (x + p.IC50)
    np.testing.assert_allclose(killing, p.Kg, rtol=1e-12)
