"""Tables for papers: what stands in them, and that every form of them holds the same."""

import io
import re
from dataclasses import replace

import docx
import pandas as pd
import pytest
from conftest import cohort_text
from models_for_tests import DECAY, decaying
from typer.testing import CliRunner

from carpk import cli
from carpk.cli_tables import Format
from carpk.covariate_effects import covariates
from carpk.examples import example
from carpk.fit_exposure import model_exposure
from carpk.nonmem import read_csv
from carpk.paper_tables import FORMS, for_paper, written
from carpk.population_model import population
from carpk.tables import individuals, parameters


@pytest.fixture
def fit(near_typical, tmp_path):
    file = tmp_path / "c.csv"
    file.write_text(cohort_text(("1", "2", "site <b> & 3_x")))
    return near_typical(population("stein_2019"), read_csv(file))


def test_estimates_are_rounded_and_everything_estimated_is_there(fit):
    found = {t.name: t.cells for t in for_paper(fit)}
    assert list(found) == ["population", "derived", "correlations", "individuals"]
    table, exact = found["population"].set_index("Parameter"), parameters(fit)
    exact = exact.set_index("parameter")
    assert set(table.index) == set(fit.model.names)
    assert float(table.loc["Cmax_pop", "Estimate"]) == pytest.approx(
        exact.loc["Cmax_pop", "median"], abs=exact.loc["Cmax_pop", "sd"] / 10)
    assert table.loc["Ftoci_pop", "95 % interval"] == "fixed"
    assert len(re.sub(r"\\D", "", table.loc["alpha_pop", "Estimate"].lstrip("0."))) <= 3
    derived = found["derived"].set_index("Parameter")
    assert set(derived.index) >= {"doubling_time_pop", "half_life_initial_pop",
                                  "half_life_terminal_pop", "Cmax of C", "AUC0-28 of C"}
    typical = model_exposure(fit).query("kind == 'typical'").iloc[0]
    assert float(derived.loc["AUC0-28 of C", "Estimate"]) == pytest.approx(
        typical["AUC0_28_median"], rel=0.05)
    assert derived.loc["AUC0-28 of C", "Unit"] == "copies/ug*day"
    assert not any(t.map(lambda v: "nan" in v.lower()).any(axis=None) for t in found.values())
    own, first = individuals(fit), found["individuals"].iloc[0]
    assert first["Cmax"].count("to") == 1
    assert float(first["Cmax"].partition(" ")[0]) == pytest.approx(own["Cmax_median"][0], rel=0.1)


def test_covariates_are_printed_with_reference_unit_and_interval(near_typical):
    shifted = replace(DECAY, parameters=(replace(DECAY.parameters[0], link="identity"),
                                         *DECAY.parameters[1:]))
    result = near_typical(population(shifted, covariates={
        "C0 ~ WT": "exponential(70)", "k ~ SEX": "category(F)"}), decaying(12), band=(0.5, 2.5))
    [table] = [t for t in for_paper(result) if t.name == "covariates"]
    exact = covariates(result)
    assert "Ratios from 0.5 to 2.5 count as no relevant change" in table.caption
    for printed, r in zip(table.cells.to_dict("records"), exact.itertuples(), strict=True):
        assert printed["Reference"] == {"WT": "70", "SEX": "F"}[r.covariate]
        assert printed["Unit"] == ("mg/L" if r.quantity == "C0" else "ratio")
        median, low, high = map(float, re.findall(r"-?[\d.]+(?:e[+-]?\d+)?",
                                                  printed["Effect (95 % interval)"]))
        for value, text in ((r.median, median), (r.lower95, low), (r.upper95, high)):
            assert text == pytest.approx(value, abs=(r.upper95 - r.lower95) / 20)
        assert printed["Coefficient"] == r.coefficient
    assert list(table.cells)[:5] == ["Covariate", "Value", "Reference", "Quantity", "Unit"]
    assert "beta_k_SEX_M" in set(table.cells["Coefficient"])
    assert " | 70 " in written([table], "md")["covariates.md"].decode()


def test_every_form_holds_the_same_and_names_are_text(fit):
    tables = for_paper(fit)
    cmax = tables[0].cells.set_index("Parameter").loc["Cmax_pop", "Estimate"]
    for form in FORMS:
        files = written(tables, form)
        assert len(files) == (1 if form == "docx" else len(tables))
        if form != "docx":
            text = b"".join(files.values()).decode()
            assert cmax in text
            assert "95 % interval" in text.replace("\\%", "%")
            assert "site" in text
            assert "<b>" not in text
    [page] = pd.read_html(io.BytesIO(written(tables, "html")["population.html"]))
    assert list(page["Parameter"]) == list(tables[0].cells["Parameter"])
    latex = written(tables, "latex")["individuals.tex"].decode()
    assert "3\\_x" in latex
    assert "\\&" in latex
    assert latex.count("\\toprule") == 1
    document = docx.Document(io.BytesIO(written(tables, "docx")["tables.docx"]))
    assert len(document.tables) == len(tables)
    assert document.tables[0].cell(0, 0).text == "Parameter"


def test_the_command_offers_every_form():
    assert {f.value for f in Format} == set(FORMS)


def test_the_command_writes_beside_the_csv_and_never_over_what_is_there(fit, tmp_path):
    folder = fit.save(tmp_path / "fits")

    def run(*more):
        return CliRunner().invoke(cli.app, ["tables", str(folder), *more])

    done = run("--format", "latex")
    assert done.exit_code == 0, done.output
    assert sorted(f.name for f in (folder / "tables").iterdir()) == [
        "correlations.tex", "derived.tex", "individuals.tex", "population.tex"]
    refused = run("--format", "latex")
    assert refused.exit_code == 1
    assert "--overwrite" in refused.output
    assert run("--format", "latex", "--overwrite").exit_code == 0
    assert run("--format", "docx", "--out", str(tmp_path)).stdout.split() == \
        [str(tmp_path / "tables.docx")]


def test_the_command_takes_a_band_of_no_relevant_change(near_typical, tmp_path):
    folder = near_typical(population("stein_2019", covariates={"Cmax ~ TUMOUR_BURDEN": "power"}),
                          example("tisacel_like").select(["1", "2", "3", "4", "5", "6"])).save(
                              tmp_path / "fits")

    def run(band):
        return CliRunner().invoke(cli.app, ["tables", str(folder), "--overwrite", "--band", band])

    done = run("0.7,1.43")
    assert done.exit_code == 0, done.output
    assert "Ratios from 0.7 to 1.43" in (folder / "tables" / "covariates.md").read_text()
    wrong = run("1.1,1.43")
    assert wrong.exit_code == 1
    assert "0 < low < 1 < high" in wrong.output
    assert "1.1,1.43" in wrong.output
