"""Groups of patients, and what the rules of the analysis decide."""

import math

import numpy as np
import pytest

from carpk.examples import example
from carpk.exposure_summary import by_group, sensitivity
from carpk.noncompartmental import BLQ, RULES, nca
from carpk.nonmem import read_csv
from carpk.problems import RequestError


@pytest.fixture
def cohort(tmp_path):
    file = tmp_path / "run.csv"
    file.write_text("ID,TIME,DV,CENS,ARM\n1,7,100,0,A\n1,28,50,1,A\n2,10,400,0,A\n2,28,50,1,A\n"
                    "3,7,900,0,B\n4,7,50,1,.\n")
    return read_csv(file, units={1: "copies/ug"})


def test_a_group_has_the_statistics_worked_by_hand(cohort):
    rows = by_group(nca(cohort), cohort, "ARM").set_index(["group", "endpoint"])
    peak = rows.loc[("A", "Cmax")]
    s2 = np.var(np.log([100, 400]), ddof=1)
    assert peak[["n", "geometric_mean", "median", "lowest", "highest"]].tolist() == \
        pytest.approx([2, 200, 250, 100, 400])
    assert peak["geometric_cv_percent"] == pytest.approx(100 * math.sqrt(math.exp(s2) - 1))
    assert rows.loc[("A", "Tmax"), ["n", "median", "lowest", "highest"]].tolist() == [2, 8.5, 7, 10]
    assert math.isnan(rows.loc[("A", "Tmax"), "geometric_mean"])
    assert rows.loc[("A", "detectable_M1"), ["n", "share_percent"]].tolist() == [2, 0]
    assert rows.loc[("B", "Cmax"), "n"] == 1
    assert math.isnan(rows.loc[("B", "Cmax"), "geometric_cv_percent"])
    assert rows.loc[("missing", "Cmax"), "n"] == 0
    assert rows.loc[("A", "AUC0_7"), "unit"] == "copies/ug*day"


def test_without_a_column_all_patients_are_one_group(cohort):
    rows = by_group(nca(cohort), cohort).set_index("endpoint")
    assert set(rows["group"]) == {"all"}
    assert rows.loc["Cmax", "n"] == 3


def test_zeros_are_counted_and_left_out_of_geometric_statistics(cohort):
    rows = by_group(nca(cohort, days=(5,), partial=[(20.0, 28.0)]), cohort).set_index("endpoint")
    assert rows.loc["AUC20_28", ["n", "zeros"]].tolist() == [2, 2]
    assert math.isnan(rows.loc["AUC20_28", "geometric_mean"])


def test_a_column_that_is_not_there_is_refused_with_those_that_are(cohort):
    with pytest.raises(RequestError, match="the file has ARM"):
        by_group(nca(cohort), cohort, "RESPONSE")


def test_the_rules_are_compared_with_the_analysis_asked_for():
    cohort = example("tisacel_like")
    table = sensitivity(cohort, blq="half")
    asked = table[(table["blq"] == "half") & (table["rule"] == RULES[0])]
    assert (asked[["ratio", "lowest_ratio", "highest_ratio"]] == 1).all(axis=None)
    for endpoint, rows in table.groupby("endpoint"):
        assert set(rows["blq"]) == {*BLQ, "zero-then-missing, then to zero"}, endpoint
        assert set(rows["rule"]) == set(RULES)
        assert len(rows) == 6
    one = table.set_index(["endpoint", "blq", "rule"]).loc[("AUC0_28", "missing", RULES[0])]
    ratios = nca(cohort, blq="missing")["AUC0_28"] / nca(cohort, blq="half")["AUC0_28"]
    assert one["ratio"] == pytest.approx(np.exp(np.log(ratios).mean()))
    assert one["highest_ratio"] == ratios.max()
    sampled = cohort.observations.groupby("ID")["TIME"].max() >= 28
    assert one["n"] == sampled.sum() == 89
