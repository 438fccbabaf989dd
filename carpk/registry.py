"""A folder is a catalogue: the file's name is the key, the constant it exports is the entry."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from carpk.problems import CarpkError, ModelError, Problem, RequestError

EXPORTS = {"models": "MODEL", "error_models": "ERROR_MODEL", "estimators": "ESTIMATOR",
           "covariate_models": "COVARIATE_MODEL"}


def names(kind: str) -> list[str]:
    """Every entry of a kind: "models", "error_models", "covariate_models" or "estimators".

    >>> names("estimators")
    ['focei', 'gibbs', 'laplace', 'nuts', 'saem', 'svi']
    """
    folder = importlib.import_module(f"carpk.{kind}")
    return sorted(f.name for f in pkgutil.iter_modules(folder.__path__))


def load(kind: str, name: str) -> Any:
    """The entry of that name; an unknown name is refused with the nearest ones."""
    known = names(kind)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        raise RequestError(Problem(
            "error", f"there is no {kind[:-1].replace('_', ' ')} of this name",
            f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}",
            found=name))
    try:
        module = importlib.import_module(f"carpk.{kind}.{name}")
    except CarpkError as refused:
        raise _in_file(refused, f"{name}.py") from refused
    return _entry(module, kind, name)


def load_file(path: str | Path) -> Any:
    """The MODEL of a user's own file, checked as strictly as a bundled one."""
    path = Path(path)
    if not path.is_file():
        raise RequestError(Problem("error", "no such model file", "check the path", str(path)))
    spec = importlib.util.spec_from_file_location(f"carpk_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RequestError(Problem("error", "not a Python file", "its name must end in .py",
                                   str(path)))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that its functions can be pickled
    try:
        spec.loader.exec_module(module)
    except CarpkError as refused:
        raise _in_file(refused, str(path)) from refused
    except Exception as failure:
        raise ModelError(Problem("error", f"importing it raised {type(failure).__name__}: "
                                 f"{failure}", "run it with python to see where",
                                 str(path))) from failure
    return _entry(module, "models", path.stem)


def find_model(name: str) -> Any:
    """A bundled model by name, or a user's own by the path of its file (ending in .py).

    >>> find_model("stein_2019").outputs[0].unit
    'copies/ug'
    """
    return load_file(name) if name.endswith(".py") else load("models", name)


def _in_file(refused: CarpkError, file: str) -> ModelError:
    """The same problems, each naming the file that was misdeclared."""
    return ModelError(dataclasses.replace(p, file=p.file or file) for p in refused.problems)


def _entry(module: ModuleType, kind: str, name: str) -> Any:
    entry = getattr(module, EXPORTS[kind], None)
    if entry is None:
        raise ModelError(Problem("error", f"the file exports no {EXPORTS[kind]}",
                                 f"end it with {EXPORTS[kind]} = ...", str(module.__file__)))
    if kind == "models":
        from carpk.structure import StructuralModel
        if not isinstance(entry, StructuralModel):
            raise ModelError(Problem("error", "MODEL is not a StructuralModel",
                                     "build it with carpk.structure.StructuralModel",
                                     str(module.__file__), found=type(entry).__name__))
        return dataclasses.replace(entry, name=name, file=str(module.__file__))
    return entry
