"""Every figure of carpk/plots: its pages, their size, and that no name in a file breaks them."""

import base64
import importlib
import io
import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from conftest import IDS
from matplotlib.figure import Figure
from PIL import Image

from carpk import plots, registry
from carpk.fit_exposure import model_exposure
from carpk.nonmem import read_csv
from carpk.plots import crowded, individual_fits, observed_predicted, residuals, traces, vpc
from carpk.population_model import population

NAMES = registry.names("plots")


@pytest.fixture(scope="module")
def pages(small_fit):
    before = dict(mpl.rcParams)
    drawn = {n: importlib.import_module(f"carpk.plots.{n}").draw(small_fit) for n in NAMES}
    pictures = {stem: plots.svg(figure) for found in drawn.values() for stem, figure in found}
    assert dict(mpl.rcParams) == before
    return drawn, pictures


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_has_a_title_a_caption_and_named_pages(name, pages):
    module = importlib.import_module(f"carpk.plots.{name}")
    assert module.TITLE
    assert module.CAPTION.endswith(".")
    for stem, figure in pages[0][name]:
        assert stem.startswith(name)
        assert isinstance(figure, Figure)
        assert figure.get_suptitle()


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_small_well_formed_and_the_same_each_time(name, pages, small_fit):
    again = importlib.import_module(f"carpk.plots.{name}").draw(small_fit)
    for stem, figure in again:
        picture = pages[1][stem]
        assert len(picture) < 600_000
        assert ElementTree.fromstring(picture).tag.endswith("svg")
        assert plots.svg(figure) == picture


def test_a_fit_that_did_not_converge_says_so_on_every_page(pages, near_typical, tmp_path):
    assert all(b"NOT CONVERGED" in picture for picture in pages[1].values())
    file = tmp_path / "two.csv"
    file.write_text("ID,TIME,DV\n1,7,900\n1,28,90\n2,7,800\n")
    fine = near_typical(population("stein_2019"), read_csv(file), ok=True)
    assert b"NOT CONVERGED" not in plots.svg(traces.draw(fine)[0][1])


def test_text_stays_text_and_names_from_a_file_are_shown_as_they_are(pages):
    texts = [t.text for t in ElementTree.fromstring(pages[1]["individual_fits"]).iter()
             if t.tag.endswith("text")]
    assert {plots.plain(i) for i in IDS} <= set(texts)
    assert "Day after infusion (square-root scale)" in texts


def test_the_band_names_where_its_draws_come_from(pages):
    assert b"90 % band (posterior)" in pages[1]["individual_fits"]


def test_a_name_of_any_length_and_letters_can_be_drawn(near_typical, tmp_path):
    file = tmp_path / "odd.csv"
    file.write_text('ID,TIME,DV\n"$\\frac{",7,900\n"$\\frac{",28,90\n' + "x" * 90 + ",7,80\n"
                    "\x07bell,7,900\n", encoding="utf-8")
    fit = near_typical(population("stein_2019"), read_csv(file))
    for _, figure in individual_fits.draw(fit):
        ElementTree.fromstring(plots.svg(figure))
        assert plots.png(figure).startswith(b"\x89PNG")


def test_levels_at_or_below_zero_get_a_linear_axis(near_typical, tmp_path):
    file = tmp_path / "linear.csv"
    file.write_text("ID,TIME,DV\n1,1,-0.2\n1,7,90\n2,7,80\n2,9,0\n")
    fit = near_typical(population("stein_2019", errors={"C": "additive"}), read_csv(file))
    for module in (individual_fits, observed_predicted):
        (_, figure), = module.draw(fit)
        assert {ax.get_yscale() for ax in figure.axes} == {"linear"}
        plots.svg(figure)


def test_many_dots_are_pixels_of_few_colours_that_look_the_same():
    figure = plots.sheet(3.0, 2.0, "dots")
    ax = figure.add_axes((0.1, 0.1, 0.8, 0.7))
    x, y = np.random.default_rng(1).normal(size=(2, 2000))
    ax.plot(x, y, "o", color=plots.GREY, markersize=2.2, alpha=0.45, markeredgewidth=0,
            rasterized=True)
    plain = plots._saved(figure, format="svg", dpi=200)

    def pixels(picture):
        [found] = re.findall(rb"data:image/png;base64,([^\"]+)", picture)
        image = Image.open(io.BytesIO(base64.b64decode(found))).convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return np.asarray(Image.alpha_composite(white, image)).astype(int)

    lean = plots.svg(figure)
    assert len(lean) < 0.6 * len(plain)
    assert np.abs(pixels(lean) - pixels(plain)).max() <= 6


def test_one_patient_with_one_sample_can_be_drawn(near_typical, tmp_path):
    file = tmp_path / "one.csv"
    file.write_text("ID,TIME,DV\n1,7,900\n")
    fit = near_typical(population("stein_2019"), read_csv(file))
    for name in NAMES:
        for _, figure in importlib.import_module(f"carpk.plots.{name}").draw(fit):
            plots.svg(figure)


def test_two_outputs_stand_above_each_other_on_one_time_axis(near_typical, shared_data):
    cohort = read_csv(shared_data / "cart_liu2022_ball" / "liu2022_ball.csv", dvid=[1, 2],
                      units={1: "cells/uL", 2: "cells/uL"})
    fit = near_typical(population("liu_l_2022"), cohort.select(cohort.ids[:3]))
    (stem, figure), = individual_fits.draw(fit)
    assert stem == "individual_fits"
    boxes = [ax.get_position() for ax in figure.axes]
    assert [ax.get_title(loc="left") for ax in figure.axes] == \
        [t for i in fit.design.ids for t in (i, "")]
    for k in (0, 2, 4):
        assert (boxes[k].x0, boxes[k].x1) == (boxes[k + 1].x0, boxes[k + 1].x1)
        assert boxes[k].y0 > boxes[k + 1].y1
    assert len({ax.get_xlim() for ax in figure.axes}) == 1
    assert len({ax.get_ylim() for ax in figure.axes}) == 2
    (_, figure), = observed_predicted.draw(fit)
    assert len(figure.axes) == 4


def test_doses_and_times_of_comedication_are_marked(near_typical, tmp_path):
    file = tmp_path / "toci.csv"
    file.write_text("ID,TIME,DV,TTOCI\n1,7,900,3\n1,28,90,3\n2,7,800,.\n")
    fit = near_typical(population("stein_2019"), read_csv(file))
    assert individual_fits.event_inputs(fit) == ["TTOCI", "TSTER"]
    (_, figure), = individual_fits.draw(fit)
    upright = [[list(line.get_xdata()) for line in ax.lines
                if list(line.get_ydata()) == [0, 1]] for ax in figure.axes]
    assert upright == [[[3.0, 3.0]], []]
    assert [t.get_text() for legend in figure.legends for t in legend.get_texts()][-1] == "TTOCI"
    file.write_text("ID,TIME,DV,AMT,EVID\n1,0,.,100,1\n1,2,5,.,0\n1,12,.,250,1\n1,14,9,.,0\n"
                    "2,0,.,100,1\n2,3,8,.,0\n")
    (_, figure), = individual_fits.draw(near_typical(population("one_compartment_oral"),
                                                     read_csv(file)))
    given = [next(line.get_xdata().tolist() for line in ax.lines if line.get_color() ==
                  individual_fits._GREEN) for ax in figure.axes]
    assert given == [[0.0, 12.0], [0.0]]
    assert [[t.get_text() for t in ax.texts] for ax in figure.axes] == [["250"], []]


def test_no_page_of_patients_is_left_almost_empty():
    assert [individual_fits.per_page(n) for n in (1, 4, 20, 21, 41)] == [4, 4, 20, 12, 16]
    assert [individual_fits.per_page(40, n) for n in (2, 3, 12)] == [16, 8, 4]


def test_time_is_by_square_roots_only_where_samples_crowd_at_its_start():
    assert crowded(np.array([1.0, 3, 7, 10, 14, 28, 90, 360]))
    assert not crowded(np.linspace(0, 24, 13))


def test_ranks_of_equal_chains_are_even():
    draws = np.random.default_rng(1).permutation(4000).reshape(4, 1000).astype(float)
    counts = traces.rank_counts(draws, 20)
    assert counts.sum(axis=1).tolist() == [1000] * 4
    assert counts.sum(axis=0).tolist() == [200] * 20


def test_figures_are_drawn_without_pyplot():
    code = "import sys, carpk.reporting, carpk.plots.traces, carpk.plots.individual_fits; " \
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_covariate_of_the_model_gets_a_check_of_its_groups(near_typical, tmp_path):
    rows = ["ID,TIME,DV,ARM"] + [f"{k},{t},{900 + 7 * k * t},{'AB'[k % 2]}"
                                 for k in range(8) for t in (7, 14, 28)]
    file = tmp_path / "arms.csv"
    file.write_text("\n".join(rows) + "\n")
    fit = near_typical(population("stein_2019", covariates={"Cmax ~ ARM": "category"}),
                       read_csv(file))
    pages = dict(vpc.draw(fit))
    assert list(pages) == ["vpc", "vpc_corrected", "vpc_ARM"]
    assert len(pages["vpc"].axes) == 1  # nothing is censored: there is no share below a limit
    assert [ax.get_title(loc="left") for ax in pages["vpc_ARM"].axes] == \
        ["ARM A: 4 patients", "ARM B: 4 patients"]
    (_, figure), (stem, covariates) = residuals.draw(fit)
    assert [ax.get_ylabel() for ax in figure.axes[::3]] == ["IWRES", "CWRES", "npde"]
    assert stem == "residuals_covariates"
    assert [t.get_text() for t in covariates.axes[0].get_xticklabels()] == ["A", "B"]
    by_id = model_exposure(fit).set_index("kind")["Cmax_median"]
    assert by_id["typical"] == pytest.approx(np.median(
        fit.posterior["posterior"]["Cmax_pop"].values), rel=0.02)
