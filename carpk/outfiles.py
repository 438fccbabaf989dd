"""Files that a command is about to write: none is lost, none lands where no folder is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from carpk.problems import Problem


def not_free(files: Iterable[Path], overwrite: bool) -> list[Problem]:
    """A problem for each file that would be lost, and for each folder that is not there.

    >>> not_free([Path("no/such/folder/a.csv")], False)[0].wrong
    'there is no such folder'
    """
    found, folders = [], []
    for file in files:
        if file.exists() and not (overwrite and file.is_file()):
            found.append(Problem("error", "it is there already and is not overwritten",
                                 "give another name, or --overwrite", str(file)))
        elif not file.parent.is_dir() and file.parent not in folders:
            folders.append(file.parent)
    return found + [Problem("error", "there is no such folder", "make it first", str(f))
                    for f in folders]
