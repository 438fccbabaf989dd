"""The command models: table, filters, card, plot."""

import json
import time

import pytest
from typer.testing import CliRunner

from carpk import cli, registry
from carpk.cli_models import card, catalogue, chosen
from carpk.problems import RequestError

MODELS = [registry.load("models", name) for name in registry.names("models")]


def names(models):
    return [m.name for m in models]


def run(*arguments):
    return CliRunner().invoke(cli.app, [*arguments])


def test_the_table_says_what_each_model_is_for():
    text = catalogue([m for m in MODELS if m.name in ("stein_2019", "one_compartment_oral")])
    head, *lines = text.splitlines()
    assert head.split("  ")[0] == "model"
    for words in ("layers", "2 of 13", "semi-mechanistic", "closed form", "clinical: B-ALL",
                  "(NLME)", "CAR T"):
        assert words in text
    assert any(s.startswith("  Tisagenlecleucel: expansion,") for s in lines)
    assert all(len(s) <= 100 for s in text.splitlines())


def test_a_model_without_a_taxonomy_is_listed_and_filtered_by_its_form_only():
    oral = [m for m in MODELS if m.taxonomy is None]
    assert "one_compartment_oral" in names(oral)
    assert "one_compartment_oral" in names(chosen(MODELS, formalism="ODE"))
    assert not set(names(oral)) & set(names(chosen(MODELS, formalism="pkpd")))


@pytest.mark.parametrize(("wish", "meets"), [
    ({"disease": "b-all"}, lambda t: "B-ALL" in t.disease),
    ({"formalism": "PK/PD"}, lambda t: t.kinetics == "pkpd"),
    ({"formalism": "mechanistic"}, lambda t: t.depth == "mechanistic"),
    ({"holding": ["tumour"]}, lambda t: "tumour" in t.populations),
    ({"holding": ["tumor"]}, lambda t: "tumour" in t.populations),
    ({"holding": ["memory"]}, lambda t: any("memory" in p for p in t.phenotypes)),
    ({"holding": ["cytokine"]}, lambda t: "cytokines" in t.layers),
    ({"holding": ["tumour", "car-phenotypes"], "disease": "B-ALL"},
     lambda t: "tumour" in t.populations and "car_phenotypes" in t.layers
     and "B-ALL" in t.disease)])
def test_filters_keep_the_models_that_meet_all_of_them(wish, meets):
    assert names(chosen(MODELS, **wish)) == [m.name for m in MODELS
                                             if m.taxonomy and meets(m.taxonomy)]


def test_every_word_that_no_model_can_meet_is_named_at_once():
    with pytest.raises(RequestError) as caught:
        chosen(MODELS, "cold", "pdk", ["tumr", "tumour", "moon"])
    assert [p.found for p in caught.value.problems] == ["cold", "pdk", "tumr", "moon"]
    assert "did you mean tumour" in caught.value.problems[2].remedy
    assert "known: car_t" in caught.value.problems[3].remedy


def test_no_match_is_a_sentence_and_an_empty_list():
    wish = ("--disease", "B-ALL", "--formalism", "classic_pk", "--with", "cytokines")
    assert run("models", *wish).stdout == "no model is all of this\n"
    assert json.loads(run("models", *wish, "--json").stdout) == []


def test_json_holds_the_taxonomy_and_is_filtered_as_the_table():
    listed = json.loads(run("models", "--json", "--with", "tumour").stdout)
    assert [m["name"] for m in listed] == names(chosen(MODELS, holding=["tumour"]))
    for m in MODELS:
        held = json.loads(json.dumps(card(m), allow_nan=False))["taxonomy"]
        assert (held is None) == (m.taxonomy is None)
        if m.taxonomy:
            assert held["index"] == m.taxonomy.index
            assert held["layers"] == list(m.taxonomy.layers)
            assert held["laws"] == dict(m.taxonomy.laws)


def test_the_card_says_the_taxonomy():
    said = run("models", "stein_2019").stdout
    for words in ("2 of 13: car phenotypes", "effector, memory", "tisagenlecleucel, CD19, B-ALL",
                  "clinical: B-ALL (NLME)", "blood qPCR"):
        assert words in said


def test_the_table_of_loaded_models_is_made_in_no_time():
    before = time.process_time()
    catalogue(chosen(MODELS, holding=["tumour"]))
    assert time.process_time() - before < 0.5


def test_a_plot_is_drawn_where_it_is_asked_for_and_never_over_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("models", "stein_2019", "--plot")
    assert done.exit_code == 0, done.output
    assert done.stdout == "stein_2019.svg\n"
    assert "copies/ug" in (tmp_path / "stein_2019.svg").read_text("utf-8")
    again = run("models", "stein_2019", "--plot")
    assert again.exit_code == 1
    assert "is not overwritten" in again.stderr
    assert run("models", "stein_2019", "--plot", "--overwrite").exit_code == 0
    assert run("models", "stein_2019", "--plot", "other.png", "--until", "30").exit_code == 0
    assert (tmp_path / "other.png").read_bytes().startswith(b"\x89PNG")
    refused = run("models", "stein_2019", "--plot", "no/x.pdf", "--until", "-1", "--dose", "3")
    assert refused.exit_code == 1
    for words in ("ends in .svg", "no such folder", "must be above 0", "takes no dose"):
        assert words in refused.stderr


@pytest.mark.parametrize("arguments", [
    ["models", "--plot"], ["models", "stein_2019", "x.svg"], ["models", "stein_2019", "--until",
                                                              "3"],
    ["models", "stein_2019", "--disease", "B-ALL"]])
def test_what_does_not_go_together_is_wrong_usage(arguments):
    assert run(*arguments).exit_code == 2
