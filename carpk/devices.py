"""A cohort's patients shared out among the devices, where there are several."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Arrays = TypeVar("Arrays")


def shared_out(data: Arrays) -> Arrays:
    """The same arrays, whose first axis is the patients', in equal parts on the devices JAX has,
    which must divide the patients: see `carpk.padding.filled_on_devices`.

    What is compiled for them then runs on all of these, a sum over patients as a sum of sums.
    With one device, as on a computer without GPUs, nothing changes.

    >>> import jax.numpy as jnp
    >>> shared_out({"time": jnp.zeros((4, 3))})["time"].shape
    (4, 3)
    """
    devices = jax.devices()
    if len(devices) == 1:
        return data
    rows = NamedSharding(Mesh(np.array(devices), ("patient",)), PartitionSpec("patient"))

    def placed(x: Any) -> Any:
        return jax.device_put(x, rows)

    moved: Arrays = jax.tree.map(placed, data)
    return moved
