"""Bundled cohorts by name: data/<name>/<name>.csv, with a card.toml that describes it."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import Any

from carpk.cohort import Cohort
from carpk.nonmem import read_csv
from carpk.problems import Problem, RequestError

_HERE = Path(__file__).parent
# a wheel carries data/ inside the package; in a checkout it lies beside it
FOLDER = _HERE / "data" if (_HERE / "data").is_dir() else _HERE.parent / "data"


def names() -> list[str]:
    """The bundled cohorts."""
    return sorted(f.parent.name for f in FOLDER.glob("*/*.csv") if f.stem == f.parent.name)


def csv_path(name: str) -> Path:
    """The CSV file of a bundled cohort; an unknown name is refused with the known ones."""
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise RequestError(Problem(
            "error", "there is no bundled cohort of this name",
            f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}",
            found=name))
    return FOLDER / name / f"{name}.csv"


def example(name: str, **reading: Any) -> Cohort:
    """A bundled cohort, with the units of its card; `reading` as in `read_csv`.

    >>> len(example("tisacel_like").ids)
    90
    """
    return dataclasses.replace(read_csv(csv_path(name), **reading), source=f"example:{name}")
