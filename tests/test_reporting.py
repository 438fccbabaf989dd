"""The page and the files of a fit: complete, safe to open, and made from the fit alone."""

import re
from html.parser import HTMLParser
from pathlib import Path

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
        if "style" not in self.open:
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
                                       "endpoints", "npc")),
        *(f"plots/{n}.svg" for n in ("individual_fits", "observed_predicted", "residuals", "vpc",
                                     "numerical_check", "endpoints", "eta_covariates_pairs",
                                     "priors", "traces"))}


def test_a_blank_in_a_table_is_blank(folder):
    for file in (folder / "tables").glob("*.csv"):
        assert not re.search(r"(^|,)(nan|inf|-inf|none)(,|$)", file.read_text("utf-8"),
                             re.MULTILINE | re.IGNORECASE)
    rows = pd.read_csv(folder / "tables" / "predictions.csv", dtype={"ID": str})
    assert rows["ID"].unique().tolist() == list(IDS)


def test_the_page_is_well_formed_and_loads_nothing(page):
    assert not page.all("script") + page.all("link") + page.all("iframe")
    assert all(i["src"].startswith("data:image/svg+xml;base64,") for i in page.all("img"))
    assert {a["href"] for a in page.all("a") if not a["href"].startswith("#")} == \
        {"https://doi.org/10.1002/psp4.12388"}


def test_every_picture_says_in_words_what_it_shows(page):
    assert len(page.all("img")) == 9
    assert all(len(i["alt"]) > 80 for i in page.all("img"))


def test_every_link_within_the_page_leads_somewhere(page):
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")} <= set(ids)


def test_exposure_is_told_of_the_typical_patient_and_of_each(page, folder):
    said = " ".join(page.text.split())
    assert "typical patient" in said
    assert all(i in page.text for i in IDS)
    rows = pd.read_csv(folder / "tables" / "exposure.csv", dtype={"ID": str})
    assert rows["kind"].tolist() == ["patient"] * len(IDS) + ["typical"]
    typical = rows.iloc[-1]
    assert typical["Cmax_lower95"] < typical["Cmax_median"] < typical["Cmax_upper95"]


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
    text = Page(report(fit, tmp_path / "out").read_text("utf-8")).text
    assert "NOT CONVERGED" not in text
    assert "Tmax_pop ~ lognormal(9, 0.2): asked for" in text
    assert "beta_pop = 0.004 1/day, fixed: fixed on request" in text


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
