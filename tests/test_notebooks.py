"""Every notebook runs from its first cell to its last, with fits too short to be of use."""

import ast
from pathlib import Path

import nbformat
import pytest
import test_layers
import test_models
from nbclient import NotebookClient

from carpk import registry

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(f.name for f in FOLDER.glob("*.ipynb"))
# before the first cell: the package of this checkout, and few draws and patients
SHORT = f"""
import sys
sys.path.insert(0, {str(FOLDER.parent)!r})
import carpk
in_full, short = carpk.fit, {{
    "nuts": dict(chains=2, draws=20, warmup=20, max_tree_depth=4), "svi": dict(steps=500),
    "saem": dict(burn_in=50, smoothing=50, importance=500)}}
carpk.fit = lambda model, cohort, estimator="nuts", **asked: in_full(
    model, cohort, estimator, **{{**short.get(estimator, {{}}), **asked}})
whole = carpk.example
carpk.example = lambda name: whole(name).select([str(k) for k in range(1, 13)])
"""
# and of the catalogue a closed form, a model of sets and one of doses: each is a compilation
FEW = """
from carpk import registry
every = registry.names
registry.names = lambda kind: ["liu_l_2022", "one_compartment_oral", "stein_2019"] \\
    if kind == "models" else every(kind)
"""


def run(name, folder, first):
    notebook = nbformat.read(FOLDER / name, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(first))
    NotebookClient(notebook, timeout=1500, kernel_name="python3",
                   resources={"metadata": {"path": str(folder)}}).execute()
    code = "".join(c.source for c in notebook.cells if c.cell_type == "code")
    assert "fit.save(" not in code or list((folder / "fits").iterdir())


# the first fits: 38 s, passed; the second fits an ODE model: 54 s, passed; the fourth fits twice:
# 45 s, passed; the fifth fits five times: passed, 18 minutes with a load of 18 on two cores
LONG = ("01", "02", "04", "05")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n[:2] in LONG
                                  else n for n in NOTEBOOKS])
# what nbclient and the kernel warn of is theirs
@pytest.mark.filterwarnings("default")
def test_a_notebook_runs_from_its_first_cell_to_its_last(name, tmp_path):
    run(name, tmp_path, SHORT + FEW)
    own = sorted(tmp_path.glob("*.py"))
    assert len(own) == (name == "02_add_a_model.ipynb")
    for file in own:  # the model it writes would pass the tests of every model
        meets_what_every_model_must(file)


@pytest.mark.slow  # last: 27 models in 75 s of one core, most of it compilation; passed
@pytest.mark.filterwarnings("default")
def test_the_zoo_shows_every_model(tmp_path):
    run("03_model_zoo.ipynb", tmp_path, SHORT)


def meets_what_every_model_must(file):
    model = registry.load_file(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load", lambda kind, name, load=registry.load:
                      model if (kind, name) == ("models", model.name) else load(kind, name))
        test_models.test_a_published_model_says_where_it_is_from_and_has_golden_numbers(model.name)
        test_models.test_every_word_of_a_model_has_a_unit_and_a_meaning(model.name)
        test_models.test_a_parameter_set_is_whole(model.name)
        test_models.test_values_and_gradients_are_finite_and_no_type_or_shape_is_mixed(model.name)
        test_models.test_a_log_state_starts_above_zero(model.name)
    assert model.taxonomy is not None
    imported = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
                if isinstance(node, ast.Import | ast.ImportFrom)}
    assert imported <= set(test_layers.A_MODEL_MAY_IMPORT)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_without_outputs(name):
    cells = nbformat.read(FOLDER / name, as_version=4).cells
    assert not [c for c in cells if c.cell_type == "code" and (c.outputs or c.execution_count)]
