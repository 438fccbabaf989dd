"""Singh 2021: exposure and response by dose and burden, the second run in concentrations, rest."""

import numpy as np
import pytest
from test_models import GOLDEN, assert_printed, integrated, solved, table, values_of

from carpk import registry
from carpk.structure import named

MODEL = registry.load("models", "singh_2021_idecel")
GOLD = GOLDEN["singh_2021_idecel"]


def run(dose=450e6, until=100.0, **values):
    return integrated(MODEL, values_of(MODEL, {"values": values}), {"Eb": dose}, until,
                      rtol=1e-10, atol=1e-14)


def peak(at, end=30.0, step=0.05):
    """Of the transgene after the first day, when the infused cells have left blood."""
    days = np.arange(1.0, end, step)
    level = at(days)["transgene"]
    return float(level.max()), float(days[level.argmax()])


@pytest.mark.parametrize("entry", GOLD["dose"], ids=lambda e: f"{e['cells'] / 1e6:g}e6")
def test_a_dose_cohort_has_the_printed_peak_and_the_printed_nadir_of_m_protein(entry):
    at, half_days = run(entry["cells"]), np.arange(0.0, 100.5, 0.5)
    level = at(half_days)["Mprotein"]
    highest, on = peak(at)
    seen = {"peak": highest, "on": on, "nadir": level.min(), "at": half_days[level.argmin()]}
    for what, text in entry["printed"].items():
        assert_printed(float(seen[what]), text)


def test_exposure_is_flat_in_the_dose_and_steep_in_the_burden():
    by_dose = [peak(run(dose, 30.0))[0] for dose in (50e6, 800e6)]
    by_burden = [peak(run(T0=times * 2.5e9, until=30.0))[0] for times in (0.2, 5.0)]
    assert_printed(by_dose[0] / by_dose[1], "1.1")
    assert_printed(by_burden[1] / by_burden[0], "5836")


def test_the_second_run_is_reproduced_in_its_concentrations():
    gold = GOLD["concentration"]
    p = values_of(MODEL, {})
    per = {"Eb": p["Vb"], "Mb": p["Vb"], "Et": p["Vbm"], "Mt": p["Vbm"], "X": 1.0, "T": 1.0}
    rows = table(gold["printed"])
    at = run(until=60.0, **gold["values"])
    seen = at([float(t) for t in rows.pop("t")])
    for state, texts in rows.items():
        for value, text in zip(seen[state], texts, strict=True):
            assert_printed(float(value) / per[state], text)
    for one in gold["peaks"]:
        values = {**gold["values"], **{n: one[n] for n in ("EC50exp",) if n in one}}
        highest, on = peak(run(one["dose"], 30.0, **values), step=0.01)
        assert_printed(highest / p["TransC"], one["max"])
        if "at" in one:
            assert_printed(on, one["at"])


def test_a_patient_without_car_t_cells_keeps_no_change_of_a_tumour_that_does_not_grow():
    p = values_of(MODEL, {"values": {"Kg": 0.0}})
    start = MODEL.initial(named(p))
    seen = MODEL.observe(0.0, named(start), named(p))
    assert seen["Mprotein"] == 0
    assert seen["sBCMA"] == 0
    still = MODEL.rates(0.0, named({**start, "Et": 0.0}), named(p))
    np.testing.assert_allclose([float(still[n]) for n in still], 0.0, atol=1e-12)


def test_cells_that_neither_divide_nor_die_are_kept():
    entry = {"dose": {"Eb": 450e6}, "values": {"Kexpmax": 1e-300, "Kel_e": 0.0, "Kel_m": 0.0}}
    seen = solved(MODEL, entry, 30.0)(np.array([0.5, 5.0, 30.0]))
    total = sum(seen[n] for n in ("Eb", "Et", "Mb", "Mt"))
    np.testing.assert_allclose(total, 450e6, rtol=1e-9)
