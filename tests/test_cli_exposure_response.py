"""`carpk exposure-response`: files, what is printed, refusals."""

from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from typer.testing import CliRunner

from carpk import cli, examples
from carpk.population_model import population


@pytest.fixture
def carpk(tmp_path, monkeypatch, near_typical):
    """Runs the command in a folder of its own, on a fit there."""
    monkeypatch.chdir(tmp_path)
    folder = near_typical(population("stein_2019"), examples.example("tisacel_like")).save("fits")
    run = CliRunner()
    return lambda *more: run.invoke(cli.app, ["exposure-response", str(folder), *map(str, more)]), \
        folder


def test_each_type_writes_its_table_and_figure_into_the_fit(carpk):
    run, folder = carpk
    pfs = ("--time", "PFS_DAYS", "--event", "PFS_EVENT", "--landmark", 28)
    for options, stem, words in (
            (("--outcome", "CRS_GRADE", "--type", "ordinal", "--metric", "cmax"),
             "CRS_GRADE_cmax", ["odds ratio", "CRS_GRADE >= 4 alone", "All patients"]),
            (("--outcome", "RESPONSE=CR", "--type", "binary", "--metric", "AUC0_28", "--adjust",
              "AGE,PRODUCT", "--prior", 2.5), "RESPONSE_CR_auc0_28_AGE_PRODUCT",
             ["prior SD 2.5", "PRODUCT", "two stages"]),
            ((*pfs, "--type", "survival"), "PFS_DAYS_cmax",
             ["hazard ratio", "43: event at 14, not after the landmark", "84 patients"]),
            ((*pfs, "--type", "cox", "--metric", "auc0_14"), "PFS_DAYS_auc0_14",
             ["Cox proportional hazards", "AUC0_14 (copies/ug*day)"])):
        done = run(*options)
        assert done.exit_code == 0, done.output
        files = [folder / "exposure_response" / f"{stem}{s}" for s in (".csv", ".svg")]
        lines = done.stdout.splitlines()
        assert lines[-2:] == [str(f) for f in files]
        text = " ".join(done.stdout.split())
        assert all(w in text for w in words), text
        table = pd.read_csv(files[0])
        assert (table["lower95"] < table["estimate"]).all()
        assert (table["estimate"] < table["upper95"]).all()
        picture = ElementTree.parse(files[1]).getroot()
        assert picture.tag.endswith("svg")
        drawn = "".join(picture.itertext())
        assert ("at risk" in drawn) == ("--time" in options)
        assert f"{table['estimate'][0]:.2f}" in drawn


def test_nothing_is_lost_and_what_is_not_understood_is_refused(carpk):
    run, folder = carpk
    ask = ("--outcome", "CRS_GRADE>=3", "--type", "binary", "--out", "er.csv")
    assert run(*ask).exit_code == 0
    again = run(*ask)
    assert again.exit_code == 1
    assert "there already" in again.stderr
    assert run(*ask, "--overwrite").exit_code == 0
    assert sorted(Path().iterdir()) == [Path("er.csv"), Path("er.svg"), Path("fits")]
    assert not (folder / "exposure_response").exists()
    refused = run("--outcome", "ICANS", "--type", "ordinal", "--adjust", "SEX")
    assert refused.exit_code == 1
    assert refused.stderr.count("no such column") == 2
    assert not (folder / "exposure_response").exists()
    assert run("--type", "binary").exit_code == 2
    assert run("--type", "binary", "--outcome", "RESPONSE=CR", "--out", "no/x.csv").exit_code == 1
