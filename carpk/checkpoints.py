"""A fit that is not finished: what was asked, where it began, where each of its chains stands."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

SUFFIX = ".unfinished"

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, the steps done and the steps in all; after a colon the name says what
else is to know, as of "sample: 1/4 warmed up"."""


class Checkpoints:
    """The folder of an unfinished fit. Each of its files is replaced whole.

    record : what was asked and of which data, code and versions, and from which folder its paths
        are seen; another record that is there under the same name is of the same request, and
        only its versions and that folder may differ
    workers, scheduler : who makes what is made side by side, see `carpk.many_fits.results`
    """

    def __init__(self, folder: Path, record: Mapping[str, Any], workers: int = 1,
                 scheduler: str | None = None) -> None:
        self.folder, self.record = folder, record
        self.workers, self.scheduler = workers, scheduler

    def below(self, name: str) -> Checkpoints:
        """Another fit of the same request, in a folder of its own within."""
        return Checkpoints(self.folder / name, self.record, self.workers, self.scheduler)

    @property
    def other_versions(self) -> dict[str, str]:
        """The versions that wrote what is there, where they are not those of now."""
        try:
            written = json.loads((self.folder / "request.json").read_text("utf-8"))["versions"]
        except FileNotFoundError:
            return {}
        return {n: v for n, v in written.items() if self.record["versions"].get(n) != v}

    def save(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Keeps arrays by name, in the place of what was kept under `name`."""
        self._begin()
        side = self.folder / f".{name}-{os.getpid()}"
        with side.open("wb") as file:
            np.savez(file, allow_pickle=False, **{n: _plain(v) for n, v in arrays.items()})
        side.replace(self.folder / f"{name}.npz")

    def write(self, name: str, text: str) -> None:
        """Keeps a file of text."""
        self._begin()
        self._replace(self.folder / name, text.encode())

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """What was kept under a name, or None."""
        try:
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as kept:
                return dict(kept)
        except FileNotFoundError:
            return None

    def _begin(self) -> None:
        """The folder, with what was asked."""
        self.folder.mkdir(parents=True, exist_ok=True)
        asked = self.folder / "request.json"
        if not asked.exists():
            self._replace(asked, json.dumps(self.record, indent=1).encode())

    def _replace(self, path: Path, content: bytes) -> None:
        side = path.with_name(f".{path.name}-{os.getpid()}")
        side.write_bytes(content)
        side.replace(path)


def _plain(value: Any) -> np.ndarray:
    """An array as it is stored; of a random key, its bits."""
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    return np.asarray(value)


def flat(tree: Any) -> dict[str, Any]:
    """The leaves of a tree of arrays by their place.

    >>> flat((1.0, {"a": 2.0}))
    {'leaf 0': 1.0, 'leaf 1': 2.0}
    """
    return {f"leaf {k}": leaf for k, leaf in enumerate(jax.tree.leaves(tree))}


def as_before(tree: Any, kept: Mapping[str, np.ndarray]) -> Any:
    """A tree of the same shape with the leaves that `flat` gave of another.

    >>> as_before((0.0, {"a": 0.0}), flat((1.0, {"a": 2.0})))
    (1.0, {'a': 2.0})
    """
    def restored(leaf: Any, value: Any) -> Any:
        if not isinstance(leaf, jax.Array):
            return type(leaf)(value)
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
        return jax.numpy.asarray(value, leaf.dtype)

    leaves, shape = jax.tree.flatten(tree)
    return jax.tree.unflatten(shape, [restored(leaf, kept[f"leaf {k}"])
                                      for k, leaf in enumerate(leaves)])
