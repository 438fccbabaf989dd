"""The page and the files of a fit: complete, safe to open, and made from the fit alone."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import docx
import pandas as pd
import pytest
from conftest import IDS, cohort_text

from carpk import reporting
from carpk.fitting import load_fit
from carpk.nonmem import read_csv
from carpk.population_model import population
from carpk.reporting import report, verdict

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """What a test asks of a page: its tags are closed, its images, links, headings, ids."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def folder(small_fit, tmp_path_factory):
    place = small_fit.save(tmp_path_factory.mktemp("fits"))
    assert report(load_fit(place), place) == place / "report.html"
    return place


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_tables_and_plots_lie_beside_the_primary_files(folder):
    found = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    assert found == {
        "manifest.json", "posterior.nc", "model.py", "report.html",
        *(f"tables/{n}.csv" for n in ("parameters", "individuals", "predictions", "excluded",
                                       "correlations", "prior_sensitivity", "exposure",
                                       "endpoints", "information", "npc")),
        *(f"plots/{n}.svg" for n in ("all_patients", "individual_fits", "information",
                                     "observed_predicted", "residuals", "vpc", "numerical_check",
                                     "endpoints", "eta_covariates_pairs", "priors", "traces"))}


def test_a_blank_in_a_table_is_blank(folder):
    for file in (folder / "tables").glob("*.csv"):
        assert not re.search(r"(^|,)(nan|inf|-inf|none)(,|$)", file.read_text("utf-8"),
                             re.MULTILINE | re.IGNORECASE)
    rows = pd.read_csv(folder / "tables" / "predictions.csv", dtype={"ID": str})
    assert rows["ID"].unique().tolist() == list(IDS)


def test_the_page_is_well_formed_and_loads_nothing(page):
    assert not page.all("link") + page.all("iframe")
    assert not any("src" in script for script in page.all("script"))
    assert all(i["src"].startswith("data:image/svg+xml;base64,") for i in page.all("img"))
    assert {a["href"] for a in page.all("a") if not a["href"].startswith("#")} == \
        {"https://doi.org/10.1002/psp4.12388"}


def test_every_picture_says_in_words_what_it_shows(page):
    assert len(page.all("img")) == 10
    assert all(len(i["alt"]) > 80 for i in page.all("img"))
    drawings = [a["aria-label"] for a in page.all("figure") if "aria-label" in a]
    assert [d[:12] for d in drawings] == ["All patients"]


def test_every_link_within_the_page_leads_somewhere(page):
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")} <= set(ids)


def test_the_drawing_of_all_patients_knows_every_patient_and_the_groups(page, folder):
    text = (folder / "report.html").read_text("utf-8")
    known = json.loads(re.search(r'id="patients">(.*?)</script>', text, re.DOTALL)[1])
    assert [about.partition(": ")[0] for about in known["about"].values()] == list(IDS)
    assert known["groups"] == {}  # SEX is F in all of them
    names = {a["id"] for a in page.all("g") if known["prefix"] in a.get("id", "")}
    assert {n.split(known["prefix"])[1].split("-")[0] for n in names} == set(known["about"])


def test_exposure_is_told_of_the_typical_patient_and_of_each(page, folder):
    said = " ".join(page.text.split())
    assert "typical patient" in said
    assert all(i in page.text for i in IDS)
    rows = pd.read_csv(folder / "tables" / "exposure.csv", dtype={"ID": str})
    assert rows["kind"].tolist() == ["patient"] * len(IDS) + ["typical"]
    typical = rows.iloc[-1]
    assert typical["Cmax_lower95"] < typical["Cmax_median"] < typical["Cmax_upper95"]


def test_the_least_informed_parameter_is_named(page, folder):
    rows = pd.read_csv(folder / "tables" / "information.csv", dtype={"ID": str})
    assert list(rows.columns) == ["ID", "parameter", "contraction"]
    means = rows.groupby("parameter")["contraction"].mean()
    least = rows[rows["parameter"] == means.idxmin()]["contraction"]
    said = f"Least informed is {means.idxmin()}, by {least.mean():.2f} in the mean: " \
        f"{(least > 0.5).sum()} of {len(IDS)} patients inform it by more than half."
    assert said in " ".join(page.text.split())
    assert [said in i["alt"] for i in page.all("img")].count(True) == 1


def test_a_fit_that_did_not_converge_is_announced_first_with_its_reasons(page, small_fit):
    assert "NOT CONVERGED" in page.text[:400]
    for reason in small_fit.convergence.reasons:
        assert reason in page.text
    assert verdict(small_fit).startswith("NOT CONVERGED: do not use these numbers.\n- ")


def test_a_converged_fit_says_so(near_typical, short_reports, tmp_path):
    file = tmp_path / "c.csv"
    file.write_text(cohort_text(("1", "2", "3")))
    fit = near_typical(population("stein_2019", priors={"Tmax_pop": "lognormal(9, 0.2)"},
                                  fixed={"beta": 0.004}), read_csv(file))
    assert verdict(fit) == "Converged: R-hat at most 1.002, no divergent transitions."
    page = report(fit, tmp_path / "out").read_text("utf-8")
    assert "Best determined of the typical values: " in page
    assert "1 row of the file was not fitted (1: MDV = 1)" in page
    text = Page(page).text
    assert "NOT CONVERGED" not in text
    assert "Tmax_pop ~ lognormal(9, 0.2): asked for" in text
    assert "beta_pop = 0.004 1/day, fixed: fixed on request" in text


def test_a_word_document_holds_what_the_page_says(near_typical, short_reports, tmp_path):
    file = tmp_path / "c.csv"
    file.write_text(cohort_text(("1", "2", "site <b>")))
    fit = near_typical(population("stein_2019"), read_csv(file))
    made = report(fit, tmp_path / "out", docx=True)
    assert made == tmp_path / "out" / "report.docx"
    document = docx.Document(io.BytesIO(made.read_bytes()))
    page = Page((made.parent / "report.html").read_text("utf-8"))
    said = [p.text for p in document.paragraphs]
    assert said[0] == fit.model.structure.title
    assert "Converged: R-hat at most 1.002, no divergent transitions." in said
    headings = [p.text for p in document.paragraphs if p.style.name == "Heading 1"]
    assert len(headings) == len(page.all("h2"))
    parameters = next(t for t in document.tables if t.cell(0, 0).text == "Parameter")
    names = {c.text.partition("\n")[0] for c in parameters.columns[0].cells}
    assert {*fit.model.names, "Typical values"} <= names
    cmax = next(r for r in parameters.rows if r.cells[0].text.startswith("Cmax_pop"))
    table = pd.read_csv(made.parent / "tables" / "parameters.csv").set_index("parameter")
    assert float(cmax.cells[2].text) == pytest.approx(table.loc["Cmax_pop", "median"], rel=0.05)
    assert len(document.inline_shapes) == len(page.all("figure")) == 1


def test_names_from_files_are_text_and_never_markup(folder, near_typical, tmp_path):
    text = (folder / "report.html").read_text("utf-8")
    assert "<b>subject</b>" not in text
    assert "&lt;b&gt;subject&lt;/b&gt;" in text
    file = tmp_path / "c.csv"
    file.write_text(cohort_text(("1", "2")))
    failed = near_typical(population("stein_2019"), read_csv(file), ok=False)
    assert "R-hat of &lt;all&gt; is large" in report(failed, tmp_path / "out").read_text("utf-8")


def test_the_page_says_what_was_fitted_with_what_and_what_was_left_out(page, small_fit):
    said = " ".join(page.text.split())
    for words in ("7 patients, 70 observations", "Stein AM et al.", "chains 2, draws 30",
                  "1 row of the file was not fitted", "Columns of the file that were not used: "
                  "SEX", "Ftoci_pop = 1.2, fixed: no patient has TTOCI", "How the authors treated",
                  small_fit.manifest["model"]["sha256"], "draws from the posterior"):
        assert words in said


def test_a_report_is_made_anew_the_same_and_leaves_nothing_else(folder, small_fit):
    before = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    report(small_fit, folder)
    assert {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()} == before


def test_png_is_written_on_request(near_typical, tmp_path):
    file = tmp_path / "c.csv"
    file.write_text(cohort_text(("1", "2")))
    report(near_typical(population("stein_2019"), read_csv(file)), tmp_path / "out", png=True)
    assert (tmp_path / "out" / "plots" / "traces.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_is_whole_or_absent(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(reporting.os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        reporting._write(Path(tmp_path / "a.csv"), b"x")
    assert list(tmp_path.iterdir()) == []
