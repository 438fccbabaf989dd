"""The metadata of a model: the index is counted, what is not of the schema is said."""

import pytest

from carpk.taxonomy import LAYERS, Taxonomy


def test_the_index_is_the_number_of_layers():
    assert Taxonomy("pk", "empirical").index == 0
    every = Taxonomy("qsp", "mechanistic", ("car_t", "tumour"), ("memory",), LAYERS)
    assert every.index == 13
    assert every.problems() == []


@pytest.mark.parametrize(("words", "said"), [
    ({"kinetics": "guess"}, "'guess' is none of"),
    ({"layers": ("cytokine",)}, "'cytokine' is none of"),
    ({"setting": ("moon",)}, "'moon' is none of"),
    ({"laws": {"decay": "exponential"}}, "'decay' is none of"),
    ({"populations": ("car_t", "tumour")}, "multi_population"),
    ({"layers": ("car_phenotypes",)}, "go together")])
def test_a_word_outside_the_schema_is_named(words, said):
    problems = Taxonomy(**{"kinetics": "pkpd", "depth": "mechanistic", **words}).problems()
    assert len(problems) == 1
    assert said in problems[0]
