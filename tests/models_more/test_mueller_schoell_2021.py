"""Mueller-Schoell 2021: its cohort by typical values and covariates, and the survival score."""

import numpy as np
import pytest
from test_models import GOLDEN, assert_printed, solved, table

from carpk import registry
from carpk.structure import cv

MODEL = registry.load("models", "mueller_schoell_2021")
COHORT = GOLDEN["mueller_schoell_2021"]["cohort"]
DAYS = np.linspace(0.0, 100.0, 10001)


@pytest.fixture(scope="module")
def patients():
    """ID -> volume, class (1 is low) and the curves of its naive and of all its cells on DAYS."""
    seen = {}
    for row in zip(*table(COHORT["patients"]).values(), strict=True):
        volume, asct, r7, low = map(float, row[1:])
        entry = {"set": "low class" if low else "reference class",
                 "values": {"V0": volume, "ASCT": asct, "R7": r7}}
        curves = solved(MODEL, entry, DAYS[-1])(DAYS)
        seen[row[0]] = (volume, int(low), curves["TN"], curves["Tall"])
    return seen


def test_the_score_of_a_patient_is_its_peak_of_naive_cells_over_its_volume(patients):
    for patient, text in COHORT["score"].items():
        volume, _, naive, _ = patients[patient]
        assert_printed(naive.max() / volume, text)
    scores = {i: naive.max() / volume for i, (volume, _, naive, _) in patients.items()}
    assert sorted(scores, key=scores.get)[:3] == ["4", "10", "9"]


@pytest.mark.parametrize("low", [0, 1])
def test_the_medians_of_a_class_follow_from_its_patients_covariates(patients, low):
    curves = [every for _, kind, _, every in patients.values() if kind == low]
    first = DAYS <= 28
    for text, values in zip(COHORT["medians"][low], (
            [c.max() for c in curves], [DAYS[c.argmax()] for c in curves],
            [np.trapezoid(c[first], DAYS[first]) for c in curves]), strict=True):
        assert_printed(float(np.median(values)), text)


def test_ten_times_fewer_cells_at_first_move_the_peaks_day_more_than_its_height():
    few, typical = (solved(MODEL, {"set": "reference class", "values": {"c0": c0}}, 100.0)(DAYS)
                    for c0 in (0.01, 0.1))
    assert few["Tall"].max() / typical["Tall"].max() > 0.85
    assert DAYS[few["Tall"].argmax()] - DAYS[typical["Tall"].argmax()] > 4


def test_the_printed_cv_are_those_of_lognormal_parameters():
    for name, percent, variance in (("Vmax1", 150, 1.17865), ("Vmax52", 307, 2.3442)):
        omega = MODEL.parameter(name).omega
        assert omega == cv(percent)
        np.testing.assert_allclose(omega.omega**2, variance, rtol=1e-5)
