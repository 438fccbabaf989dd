"""`carpk compare` where it fits again: under other rules for censored levels, without a fold."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from test_cli import DATA, MODEL, fits

from carpk.cli_blq import _table
from carpk.comparison_drawing import comparison_figure
from carpk.plots import ALARM


@pytest.fixture
def carpk(carpk, short_reports):
    """Runs a command beside a model and its cohort."""
    Path("mine.py").write_text(MODEL)
    Path("run.csv").write_text(DATA)
    return carpk


@pytest.mark.slow  # passed, 21 s
def test_a_fit_is_made_again_under_other_rules_for_censored_levels_once(carpk, near_typical):
    Path("run.csv").write_text(DATA.replace("SEX", "CENS").replace("F\n", "0\n") + "6,1,100,1\n"
                               "6,10,100,1\n6,30,500,0\n")
    assert carpk("fit", "run.csv", "--model", "./mine.py", "--estimator", "near", "--seed",
                 3).exit_code == 0
    [first] = fits()
    done = carpk("compare", first, "--blq", "M3,M1,M6", "--out", "blq.csv")
    assert done.exit_code == 0, done.output
    assert len(fits()) == 3
    assert {json.loads((f / "manifest.json").read_text())["request"]["censoring"]
            for f in fits()} == {"M1", "M3", "M6"}
    numbers = pd.read_csv("blq.csv").set_index("parameter")
    assert {"C0_pop", "half_life_pop", "omega_C0", "sigma_C_log"} <= set(numbers.index)
    assert (numbers["M3_moved"] == 0).all()
    moved = (numbers["M1_median"] - numbers["M3_median"]) / numbers["M3_sd"]
    assert numbers["M1_moved"].to_list() == pytest.approx(moved.to_list())
    assert "M6: " in done.stdout
    again = carpk("compare", first, "--blq", "M3,M1,M6")
    assert again.exit_code == 0
    assert len(fits()) == 3, "what is there is not made again"
    assert re.sub("blq.csv\n", "", done.stdout) == again.stdout
    refused = carpk("compare", first, "--blq", "M4,M7")
    assert refused.exit_code == 1
    assert "no logarithm" in refused.output
    assert len(fits()) == 3, "nothing is fitted before all of it can be"


def test_the_table_of_all_methods_keeps_its_numbers_whole_on_80_columns():
    methods = ["M1", "M3", "M4", "M6", "M7"]
    values = {"Cmax_pop": ("copies/ug", 24123.0, 2100.0), "omega_alpha": ("-", 0.513, 0.07),
              "beta_Cmax_TUMOUR_BURDEN": ("-", 0.31, 0.12)}
    rows = pd.DataFrame([{"parameter": n, "unit": unit, **{
        f"{m}_{c}": v for k, m in enumerate(methods) for c, v in (
            ("median", value), ("sd", sd), ("moved", -0.3 * k))}}
        for n, (unit, value, sd) in values.items()])
    rows.loc[1, "M4_sd"] = float("nan")  # at its bound by maximum likelihood
    console = Console(width=80, file=io.StringIO(), markup=False)
    console.print(_table(rows, methods), crop=False)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(lines)
    for k, m in enumerate(methods[1:], 1):
        for number in ("24100", "0.51" if m == "M4" else "0.513", "0.31"):
            assert f"{number} ({-0.3 * k:+.1f})" in text


def test_the_plot_has_each_difference_with_two_standard_errors_and_says_what_not_to_trust():
    rows = [("patient", "a", 0.0, 0.0, 0.9, ""), ("patient", "b", -6.0, 2.0, 0.1, "17"),
            ("observation", "b", 0.0, 0.0, 1.0, ""), ("observation", "a", -1.0, 4.0, 0.0, "")]
    table = pd.DataFrame([{"unit": u, "fit": f, "elpd": -90 + d, "difference": d,
                           "difference_se": se, "weight": w, "unreliable": bad}
                          for u, f, d, se, w, bad in rows])
    figure = comparison_figure(table, ["a"])
    for unit, ax in zip(("patient", "observation"), figure.axes, strict=True):
        part = table[table["unit"] == unit]
        bars, dots = ([line for line in ax.lines if (line.get_marker() == "o") == dot]
                      for dot in (False, True))
        assert [d.get_xdata()[0] for d in dots] == part["difference"].to_list()
        assert [np.diff(b.get_xdata())[0] for b in bars[:2]] == \
            (4 * part["difference_se"]).to_list()
        assert [d.get_markerfacecolor() == "white" for d in dots] == (
            part["unreliable"] != "").to_list()
        assert [t.get_color() == ALARM for t in ax.get_yticklabels()] == (
            part["fit"] == "a").to_list()
        assert [t.get_text() for t in ax.get_yticklabels()] == part["fit"].to_list()


@pytest.mark.slow  # passed, 160 s on a busy machine: two fits with their reports
def test_posteriors_are_compared_with_a_plot_where_one_is_asked_for(carpk, near_typical):
    for error in ("lognormal", "lognormal student_t"):
        assert carpk("fit", "run.csv", "--model", "./mine.py", "--estimator", "near", "--seed", 3,
                     "--error", f"C={error}").exit_code == 0
    Path("there.svg").touch()
    for name, said in (("a.pdf", "SVG or PNG"), ("there.svg", "not overwritten")):
        assert said in carpk("compare", *fits(), "--plot", name).output
    done = carpk("compare", *fits(), "--plot", "there.svg", "--overwrite")
    assert done.exit_code == 0, done.output
    assert all(f.name in Path("there.svg").read_text() for f in fits())


def test_what_cannot_be_made_again_is_refused(carpk, near_typical):
    carpk("fit", "run.csv", "--model", "./mine.py", "--estimator", "near", "--seed", 3)
    [fit] = fits()
    refused = carpk("compare", fit, "--blq", "M1,M2")
    assert refused.exit_code == 1
    assert "known: M1, M3, M4, M6, M7" in refused.output
    assert "no level of this fit is censored" in carpk("compare", fit, "--blq", "M1").output
    assert "one fit is made again" in carpk("compare", fit, fit, "--blq", "M1").output


@pytest.mark.slow  # passed, 141 s on a busy machine: four refits
def test_fits_are_compared_by_refits_without_a_fold_of_patients_made_once(carpk, near_typical):
    for error in ("lognormal", "lognormal student_t"):
        assert carpk("fit", "run.csv", "--model", "./mine.py", "--estimator", "near", "--seed", 3,
                     "--error", f"C={error}").exit_code == 0
    both = fits()
    done = carpk("compare", *both, "--kfold", 2, "--out", "folds.csv")
    assert done.exit_code == 0, done.output
    assert fits() == both, "refits lie in the folders of their fits"
    refits = [sorted((f / "kfold").iterdir()) for f in both]
    assert [len(r) for r in refits] == [2, 2]
    left = [set(json.loads((r / "manifest.json").read_text())["request"]["data"]["patients"])
            for r in refits[0]]
    assert left[0] | left[1] == {"1", "2", "3", "4", "5"}
    assert sorted(map(len, left)) == [2, 3]
    assert len(left[0] & left[1]) == 0
    table = pd.read_csv("folds.csv")
    assert table["difference"].iloc[0] == 0 >= table["difference"].iloc[1]
    again = carpk("compare", *both, "--kfold", 2)
    assert [sorted((f / "kfold").iterdir()) for f in both] == refits
    assert re.sub("folds.csv\n", "", done.stdout) == again.stdout
    assert "5 patients make 2 to 5 folds" in carpk("compare", *both, "--kfold", 6).output
    Path("run.csv").write_text(DATA + "6,1,100,F\n")
    assert "the data have changed" in carpk("compare", *both, "--kfold", 2).output
