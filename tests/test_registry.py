"""The folders as catalogues, and a user's own model file."""

import pickle
from pathlib import Path

import pytest

from carpk import models, registry
from carpk.problems import ModelError, RequestError
from carpk.structure import StructuralModel, named

MINE = '''
"""One compartment after a bolus."""

from carpk.structure import Output, Parameter, Source, StructuralModel, sd

import jax.numpy as jnp


def solution(t, p):
    return {"C": 100.0 / p.V * jnp.exp(-p.k * t)}


MODEL = StructuralModel(
    title="Bolus", source=Source("mine"), time_unit="h",
    parameters=(Parameter("V", 30, "L", "volume", omega=sd(0.3)),
                Parameter("k", 0.1, "1/h", "elimination")),
    outputs=(Output("C", "mg/L", "level"),), solution=solution)
'''


@pytest.fixture
def mine(tmp_path):
    """Writes a model file and returns its path."""
    def write(text: str = MINE, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path
    return write


def test_every_file_of_the_models_folder_is_listed_and_loads_under_its_name():
    folder = Path(models.__path__[-1])
    files = sorted(f.stem for f in folder.glob("*.py") if f.stem != "__init__")
    assert registry.names("models") == files
    for name in files:
        model = registry.find_model(name)
        assert isinstance(model, StructuralModel)
        assert model.name == name
        assert Path(model.file).name == f"{name}.py"


def test_every_kind_of_entry_loads():
    for kind in registry.EXPORTS:
        assert all(registry.load(kind, name) is not None for name in registry.names(kind))


def test_an_unknown_name_is_refused_with_the_nearest_ones():
    with pytest.raises(RequestError, match="found stein_2091: there is no model of this name"
                                           "\n    did you mean stein_2019"):
        registry.find_model("stein_2091")


def test_a_name_like_none_is_refused_with_all_that_are_known():
    with pytest.raises(RequestError, match=r"there is no error model of this name\n    known: .*"
                                           "lognormal"):
        registry.load("error_models", "zzz")


def test_a_users_own_file_works_like_a_bundled_one(mine):
    path = mine()
    model = registry.find_model(str(path))
    assert (model.name, model.file) == ("mine", str(path))
    assert model.solution(0.0, named(model.typical))["C"] == pytest.approx(100 / 30)
    assert pickle.loads(pickle.dumps(model)).solution is model.solution


def test_a_missing_file_is_refused_with_its_path(tmp_path):
    with pytest.raises(RequestError, match=r"nowhere\.py: no such model file"):
        registry.find_model(str(tmp_path / "nowhere.py"))


def test_a_file_that_is_not_python_by_name_is_refused(mine):
    with pytest.raises(RequestError, match=r"mine\.txt: not a Python file"):
        registry.load_file(mine(name="mine.txt"))


@pytest.mark.parametrize(("text", "sentence"), [
    ("MODEL = StructuralModel(", r"importing it raised SyntaxError: '\(' was never closed"),
    ("import no_such_package_xyz", "importing it raised ModuleNotFoundError: No module named"),
    ("x = 1 / 0", "importing it raised ZeroDivisionError: division by zero"),
    ("", "the file exports no MODEL"),
    ("MODEL = {'title': 'a dict'}", "found dict: MODEL is not a StructuralModel"),
])
def test_a_broken_file_is_refused_with_its_path(mine, text, sentence):
    with pytest.raises(ModelError, match=rf"mine\.py.*{sentence}"):
        registry.load_file(mine(text))


def test_a_misdeclared_file_is_refused_with_its_path_on_every_problem(mine):
    wrong = MINE.replace("p.k ", "p.kx ").replace('"V", 30', '"V", -30')
    with pytest.raises(ModelError) as refused:
        registry.load_file(path := mine(wrong))
    assert [str(p) for p in refused.value.problems] == [
        f"{path}: parameter V: a log link needs a typical value above 0",
        f"{path}: solution reads p.kx, which is no parameter or input"]


def test_a_misdeclared_file_in_the_models_folder_names_itself(mine, monkeypatch):
    path = mine(MINE.replace("p.k ", "p.kx "), name="wrong_2099.py")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(path.parent)])
    with pytest.raises(ModelError, match=r"wrong_2099\.py: solution reads p\.kx"):
        registry.load("models", "wrong_2099")
