"""The catalogue of models as the notebook shows it."""

import dataclasses

import numpy as np
import pytest

from carpk import plots, registry
from carpk.taxonomy import Taxonomy
from carpk.trajectories import Trajectories
from carpk.zoo import complexity_map, typical_patients

MODELS = [registry.load("models", name) for name in registry.names("models")]
TOLD = [m for m in MODELS if m.taxonomy]


def flat(model, titles=("typical values",), note=""):
    """Made-up trajectories: these tests look at the page, not at the curves."""
    time = np.linspace(0.0, 90.0, 7)
    return Trajectories(titles, time, {o.name: np.geomspace(1.0, 1e4, 7) * np.ones(
        (len(titles), 1)) for o in model.outputs}, note)


def texts(figure):
    return plots.svg(figure).decode()


def places(figure):
    """Where each model's name stands on the map."""
    names = {m.name: m for m in TOLD}
    return {label: text.get_position() for text in figure.axes[0].texts
            if (label := text.get_text().replace("\n", "")) in names}


def test_every_model_has_a_row_with_its_name_units_and_time():
    pages = typical_patients(MODELS, {m.name: flat(m) for m in MODELS}, rows=8)
    assert len(pages) == -(-len(MODELS) // 8)
    said = "".join(map(texts, pages))
    for m in MODELS:
        assert f">{m.name}<" in said
        assert f">{m.outputs[0].unit}<" in said
    assert sum(len(p.axes) for p in pages) == sum(min(3, len(m.outputs)) for m in MODELS)


def test_a_row_names_its_sets_in_their_colours_and_says_what_is_not_to_be_trusted():
    liu = registry.load("models", "liu_l_2022")
    (page,) = typical_patients([liu], {"liu_l_2022": flat(liu, ("set 1", "set 3"),
                                                          "NOT TO BE TRUSTED: T falls below 0")})
    colour = {t.get_text(): t.get_color() for t in page.texts}
    lines = [line.get_color() for line in page.axes[0].lines]
    assert [colour["set 1"], colour["set 3"]] == lines
    assert colour["NOT TO BE TRUSTED: T falls below 0"] == plots.ALARM
    assert [ax.get_yscale() for ax in page.axes] == ["log", "log"]


def test_of_many_outputs_one_of_each_unit_is_shown_and_the_others_are_named():
    schoell = registry.load("models", "mueller_schoell_2021")
    (page,) = typical_patients([schoell], {schoell.name: flat(schoell)})
    said = texts(page)
    assert len(page.axes) == 3
    assert "V: metabolic tumour volume" in said
    assert ">not shown: TEM, TEff, Tall<" in said


def test_a_model_stands_on_the_map_at_its_index_and_in_the_band_of_its_depth():
    figure = complexity_map(MODELS)
    found = places(figure)
    assert set(found) == {m.name for m in TOLD}
    for m in TOLD:
        assert abs(found[m.name][0] - m.taxonomy.index) < 0.5
    height = {d: [found[m.name][1] for m in TOLD if m.taxonomy.depth == d]
              for d in ("empirical", "semi_mechanistic", "mechanistic")}
    assert max(height["empirical"]) < min(height["semi_mechanistic"])
    assert max(height["semi_mechanistic"]) < min(height["mechanistic"])


def test_no_name_on_the_map_covers_another():
    figure = complexity_map(MODELS)
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in figure.axes[0].texts]
    assert not [1 for k, a in enumerate(boxes) for b in boxes[:k] if a.overlaps(b)]
    edge = figure.axes[0].get_window_extent()
    assert all(b.x1 <= edge.x1 and b.y1 <= edge.y1 for b in boxes)


@pytest.mark.parametrize("layers", [(), ("cytokines", "clonotypes")])
def test_another_layer_moves_a_model_to_the_right(layers):
    stein = registry.load("models", "stein_2019")
    other = dataclasses.replace(stein, taxonomy=Taxonomy("pk", "empirical", layers=layers))
    assert round(complexity_map([other]).axes[0].texts[0].get_position()[0]) == len(layers)
