"""What `import carpk` offers, and that it costs nothing before it is used."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import carpk

ROOT = Path(__file__).parents[1]
PUBLIC = [
    "CarpkError", "Cohort", "DataError", "Design", "Fit", "ModelError", "PopulationModel", "Prior",
    "Problem", "RequestError", "__version__", "design", "example", "exposure_response",
    "fit", "load_fit", "nca", "objective", "population", "prior_predictive", "read_csv",
    "report", "simulate", "to_csv"]


def in_a_new_process(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names_are_these():
    assert carpk.__all__ == PUBLIC
    assert dir(carpk) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name):
    assert getattr(carpk, name) is getattr(carpk, name) is not None


def test_type_checkers_are_told_the_same_names_from_the_same_places():
    tree = ast.parse((ROOT / "carpk" / "__init__.py").read_text("utf-8"))
    told = {alias.name: node.module.removeprefix("carpk.")
            for block in tree.body if isinstance(block, ast.If) and "TYPE" in ast.dump(block.test)
            for node in block.body for alias in node.names}
    assert told == carpk._HOME
    assert sorted([*told, "__version__"]) == carpk.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        carpk.fitt  # noqa: B018


def test_importing_carpk_and_its_command_line_imports_nothing_heavy():
    heavy = in_a_new_process(
        "import sys, carpk, carpk.cli\n"
        "print({'jax', 'numpy', 'pandas', 'pydantic', 'matplotlib'} & set(sys.modules))")
    assert heavy.strip() == "set()"


@pytest.mark.parametrize("order", ["import carpk, jax", "import jax, carpk",
                                   "import os; os.environ['JAX_ENABLE_X64'] = '0'; import carpk",
                                   "from carpk import structure"])
def test_arrays_are_float64_whatever_is_imported_first(order):
    assert in_a_new_process(f"{order}\nimport jax.numpy\nprint(jax.numpy.zeros(1).dtype)") == \
        "float64\n"


def test_the_version_is_the_projects():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project.get("version", carpk.__version__) == carpk.__version__
