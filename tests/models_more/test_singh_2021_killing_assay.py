"""Singh 2021, killing assay: growth and killing in closed form, complexes at their equilibrium."""

import numpy as np
import pytest
from test_models import GOLDEN, assert_printed, solved

from carpk import registry

MODEL = registry.load("models", "singh_2021_killing_assay")
PER_NM = 6.02214076e11  # molecules in a mL at 1 nM


def test_without_antigen_both_kinds_of_cells_double_in_their_times():
    entry = {"set": "JeKo-1", "values": {"AgT": 0.0}}
    seen = solved(MODEL, entry, 78.0)(np.array([24.0, 26.0, 72.0, 78.0]))
    np.testing.assert_allclose(seen["T"][[1, 3]], [2e4, 8e4], rtol=1e-9)
    np.testing.assert_allclose(seen["E"][[0, 2]], [2e4, 8e4], rtol=1e-9)
    np.testing.assert_allclose(seen["alive"], 100.0, rtol=1e-9)


@pytest.mark.parametrize("cells", list(MODEL.parameter_sets))
def test_complexes_settle_at_the_smaller_root_of_their_equilibrium(cells):
    entry = {"set": cells, "values": {"Kkillmax": 1e-12, "DTt": 1e12, "DTc": 1e12}}
    p, x = MODEL.parameter_sets[cells], solved(MODEL, entry, 2.0)([2.0])["X"][0]
    a, b = 1e4 * p["AgCAR"], 1e4 * p["AgT"]
    KD = 1e9 * p["koff"] / p["kon"] * PER_NM * p["Vc"]
    both = a + b + KD
    np.testing.assert_allclose(x, 2 * a * b / (both + np.sqrt(both**2 - 4 * a * b)), rtol=1e-6)
    if cells == "JeKo-1":
        assert_printed(float(x) / 1e4, GOLDEN["singh_2021_killing_assay"]["bound"]["printed"])


def test_cells_covered_with_complexes_die_at_the_maximal_rate_and_few_complexes_kill_few():
    near = solved(MODEL, {"set": "RPMI-8226", "values": {"Vc": 1e-6}}, 12.0)([2.0, 12.0])
    slope = np.log(near["alive"][1] / near["alive"][0]) / 10.0
    np.testing.assert_allclose(slope, -0.353, rtol=2e-3)
    far = [solved(MODEL, {"set": cells}, 24.0)([24.0])["alive"][0] for cells in
           ("RPMI-8226", "JeKo-1")]
    assert far[0] < far[1] < 100.0
    # in a litre few of either are bound: x = a b / KD per cell, and it grows with the CAR T cells
    far = solved(MODEL, {"set": "RPMI-8226", "values": {"Vc": 1e3}}, 24.0)([24.0])["alive"][0]
    x = 1e4 * 15000 * 12590 / (1e9 * 2.385e-3 / 7.103e4 * PER_NM * 1e3)
    area = x * 24.0 / np.log(2.0)
    np.testing.assert_allclose(-np.log(far / 100.0), 0.353 / 2.24 * area, rtol=0.01)
