"""What every test stands on: strict arrays, and the data sets that lie outside the project."""

from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def shared_data() -> Path:
    """The folder of public data sets beside the repository."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the public data sets (../shared/data) are not on this machine")
    return folder
