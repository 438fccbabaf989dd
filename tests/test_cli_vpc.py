"""`carpk vpc` and `carpk nca` of a fit: files, options, refusals."""

from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from conftest import cohort_text
from typer.testing import CliRunner

from carpk import cli
from carpk.nonmem import read_csv
from carpk.plots.vpc import remark
from carpk.population_model import population
from carpk.prediction import predictions
from carpk.reporting import report


@pytest.fixture
def carpk(tmp_path, monkeypatch, near_typical):
    """Runs a command in a folder of its own, beside a fit `fits/<name>`."""
    monkeypatch.chdir(tmp_path)
    Path("run.csv").write_text(cohort_text(tuple(str(k) for k in range(8))).replace(
        ",F\n", ",M\n", 21))
    folder = near_typical(population("stein_2019"), read_csv("run.csv")).save("fits")
    return lambda command, *more: CliRunner().invoke(
        cli.app, [command, str(folder), *map(str, more)]), folder


def test_a_check_is_drawn_with_its_numbers_beside_it_as_asked(carpk):
    run, _ = carpk
    for options, strata in ((("--by", "SEX", "--corrected", "--scale", "split"), 2),
                            (("--bins", "none", "--scale", "log"), 1),
                            (("--bins", "1,7,14,28,90", "--scale", "linear"), 1)):
        done = run("vpc", *options, "--replicates", 30, "--out", "v.svg", "--overwrite")
        assert done.exit_code == 0, done.output
        assert done.stdout.split() == ["v.svg", "v.csv"]
        assert ElementTree.parse("v.svg").getroot().tag.endswith("svg")
        table = pd.read_csv("v.csv")
        assert table["stratum"].nunique(dropna=False) == strata
        assert set(table["statistic"]) == {"p5", "p50", "p95", "below"}
        if "1,7,14,28,90" in options:
            assert table["time"].nunique() == 5


@pytest.mark.parametrize("method", [  # the slow one passed, 10 s
    pytest.param("M3", marks=pytest.mark.slow), "M6"])
def test_a_check_says_that_the_method_left_levels_out_of_what_was_observed(
        carpk, near_typical, method):
    cohort = read_csv("run.csv")
    fit = near_typical(population("stein_2019", censoring=method), cohort)
    lost = len(cohort.observations) - len(predictions(fit))
    done = CliRunner().invoke(cli.app, ["vpc", str(fit.save("other")), "--replicates", "30"])
    said = f"{method} left out levels below the limit ({lost} in all)"
    assert (lost > 0) == (method != "M3")
    assert (said in done.output) == (said in remark(fit)) == (method != "M3")


def test_what_is_not_understood_is_refused_and_nothing_is_written(carpk):
    run, before = carpk[0], sorted(Path().iterdir())
    for options, code, words in (
            (("--by", "SEX,ARM"), 1, "no such covariate"),
            (("--bins", "some"), 2, "neither adaptive"),
            (("--scale", "cubic"), 1, "no such scale"), (("--output", "B"), 1, "no observation"),
            (("--out", "v.pdf"), 1, "SVG or PNG"), (("--replicates", 2), 1, "1000 are usual"),
            (("--out", "no/v.svg"), 1, "no such folder")):
        refused = run("vpc", *options)
        assert refused.exit_code == code
        assert words in " ".join(refused.output.replace("│", " ").split())
    assert sorted(Path().iterdir()) == before


@pytest.mark.slow  # passed, 12 s
def test_the_exposure_of_a_fit_is_printed_from_its_report(carpk):
    run, folder = carpk
    missing = run("nca", "--blq", "m3")
    assert missing.exit_code == 1
    assert "carpk report" in missing.stderr
    from carpk.fitting import load_fit
    report(load_fit(folder), folder)
    done = run("nca", "--blq", "m3")
    assert done.exit_code == 0, done.output
    assert "typical" in done.stdout
    assert "AUC0_28" in done.stdout
    assert done.stdout.splitlines()[-1] == str(folder / "tables" / "exposure.csv")
    refused = run("nca", "--blq", "half")
    assert refused.exit_code == 1
    assert "takes censored levels by M3" in refused.stderr
