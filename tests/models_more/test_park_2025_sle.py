"""Park 2025: cells in marrow, rest without the drug, the plateau of C3, cells that are kept."""

import numpy as np
from test_models import GOLDEN, assert_printed, solved, table, values_of

from carpk import registry
from carpk.structure import named
from carpk.thresholds import rates_of

MODEL = registry.load("models", "park_2025_sle")
GOLD = GOLDEN["park_2025_sle"]
CAR = [s.name for s in MODEL.states if s.name[0] in "NCMF"]
HOST = ("P8", "H8", "P4", "H4", "G0", "G1", "G2", "G3", "G")
COARSE = {"rtol": 1e-10, "atol": 1e-7}
TYPICAL = values_of(MODEL, {})


def test_car_t_cells_in_marrow_are_as_many_as_printed_and_c3_reaches_its_plateau():
    rows = table(GOLD["marrow"]["printed"])
    seen = solved(MODEL, COARSE, 90.0)([float(t) for t in rows["t"]])
    for k, text in enumerate(rows["cells"]):
        assert_printed(float(sum(seen[n][k] for n in CAR if n.endswith("m"))), text)
    p = named(TYPICAL)
    assert_printed(p.Q0 * (p.A0 / seen["A"][-1]) ** p.gC, GOLD["marrow"]["plateau"])
    assert_printed(float(seen["Q"][-1]), GOLD["marrow"]["plateau"])


def test_without_the_drug_host_cells_rest():
    p = named({**TYPICAL, "Ddose": 0.0})
    start = MODEL.initial(p)
    still = rates_of(MODEL)(0.0, named(start), p)
    for n in HOST:  # at a rate below rounding, for two years
        assert abs(still[n]) * 730.0 <= 1e-10 * start[n]


def test_at_the_infusion_markers_other_than_urine_protein_rest_and_it_rises():
    p = named(TYPICAL)
    start = MODEL.initial(p)
    rate = rates_of(MODEL)(0.0, named(start), p)
    for n in "IAQ":
        assert abs(rate[n]) <= 1e-9 * start[n]
    np.testing.assert_allclose(rate["U"], p.ksU / (0.24 * p.WT) * (np.exp(2.0) - 1.0), rtol=1e-12)


def test_cells_that_neither_divide_nor_die_are_kept_in_blood_and_marrow():
    entry = {**COARSE, "values": {"Kexp": 0.0, "kelm": 0.0, "kele": 0.0}}
    seen = solved(MODEL, entry, 30.0)(np.array([0.0, 1.0, 10.0, 30.0]))
    p = named(TYPICAL)
    total = sum(seen[n] * (1.6 if n.endswith("m") else 5.0) * p.WT / 70.0 for n in CAR)
    np.testing.assert_allclose(total, total[0], rtol=1e-8)


def test_a_heavy_patient_is_given_as_many_cells_per_litre_as_a_light_one():
    light, heavy = (MODEL.initial(named({**TYPICAL, "WT": w})) for w in (45.0, 110.0))
    for n in CAR:
        np.testing.assert_allclose(light[n], heavy[n], rtol=1e-12)


def test_the_b_cells_that_were_there_only_fall_and_naive_ones_only_return():
    seen = solved(MODEL, COARSE, 90.0)(np.linspace(0.0, 28.0, 113))
    assert (np.diff(seen["B"]) < 0).all()
    assert (np.diff(seen["R"]) > -1e-3).all()
