"""Pérez-García 2021: fratricide in closed form, what it takes to expand, control and its price."""

import numpy as np
import pytest
from test_models import assert_printed, integrated, solved, values_of

from carpk import registry
from carpk.structure import named

MODEL = registry.load("models", "perez_garcia_2021")


def test_a_culture_of_car_t_cells_declines_as_the_closed_form_says():
    values = values_of(MODEL, {"set": "rL 1/40", "values": {"C0": 1e9, "L0": 1e-200, "N0": 1e-200}})
    times = np.array([0.0, 1.0, 5.0, 10.0, 20.0])
    q = (values["alpha"] - values["rC"]) * values["tC"]
    assert_printed(q, "1.05e-9")
    declined = 1.0 / ((1.0 / 1e9 + q) * np.exp(times / values["tC"]) - q)
    np.testing.assert_allclose(integrated(MODEL, values, {}, 20.0)(times)["C"], declined, rtol=1e-9)


@pytest.mark.parametrize("C0", [1e7, 1e9])
def test_infused_cells_expand_only_with_the_targets_needed(C0):
    p = named({**MODEL.parameter_sets["rL 1/40"], "C0": C0})
    needed = MODEL.derive(p)["targets_needed"]
    for factor, sign in ((0.999, -1), (1.001, 1)):
        y = named({"C": C0, "L": 0.5 * factor * needed, "N": 0.5 * factor * needed})
        assert np.sign(MODEL.rates(0.0, y, p)["C"]) == sign


def test_normal_t_cells_are_lost_within_a_year():
    at = solved(MODEL, {"set": "rL 1/40"}, 365.0)
    assert_printed(at([365.0])["N"][0] / 2.5e10, "1.47e-5")


def test_a_small_leukaemia_grows_when_car_t_cells_are_gone():
    p = named(MODEL.parameter_sets["rL 1/40"])
    assert MODEL.rates(0.0, named({"C": 1.0, "L": 1.0, "N": 1.0}), p)["L"] > 0


def test_feeding_on_one_another_never_outweighs_fratricide_with_these_values():
    assert all(values["rC"] < values["alpha"] for values in MODEL.parameter_sets.values())
