"""Every notebook runs from its first cell to its last, with fits too short to be of use."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(f.name for f in FOLDER.glob("*.ipynb"))
# before the first cell: the package of this checkout, and a few draws where a user takes many
SHORT = f"""
import functools, sys
sys.path.insert(0, {str(FOLDER.parent)!r})
import carpk
carpk.fit = functools.partial(carpk.fit, chains=2, draws=20, warmup=20)
"""


@pytest.mark.parametrize("name", NOTEBOOKS)
# what nbclient and the kernel warn of is theirs
@pytest.mark.filterwarnings("default")
def test_a_notebook_runs_from_its_first_cell_to_its_last(name, tmp_path):
    notebook = nbformat.read(FOLDER / name, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(SHORT))
    NotebookClient(notebook, timeout=300, kernel_name="python3",
                   resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert list((tmp_path / "fits").iterdir())


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_without_outputs(name):
    cells = nbformat.read(FOLDER / name, as_version=4).cells
    assert not [c for c in cells if c.cell_type == "code" and (c.outputs or c.execution_count)]
