"""Arrays filled up to round numbers of patients: one more patient needs no other program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from carpk.devices import shared_out
from carpk.round_sizes import rounded
from carpk.solve import Arrays


def filled_up(data: Arrays, parts: int = 1) -> Arrays:
    """The same data with patients who have no observation, up to a round number that so many
    parts divide.

    They repeat the last patient's rows, unobserved, and `stands_for` (P,) says whose parameters
    a patient is solved with: the own ones, or the last patient's, so that none of them fails alone.
    `carpk.geometry.log_density` makes their z standard normal and independent of all else.
    Of what a chain tells only its energies know of them.
    """
    place, own = _places(data["time"].shape[0], parts)

    def taken(values: Any) -> jax.Array:
        return jnp.asarray(np.asarray(values)[place])  # on the host: nothing is compiled for it

    if own.all():
        return {**data, "stands_for": jnp.asarray(place)}
    filled: Arrays = jax.tree.map(taken, data)
    return {**filled, "observed": jnp.asarray(np.asarray(filled["observed"]) & own[:, None]),
            "stands_for": jnp.asarray(place)}


def filled_on_devices(data: Arrays) -> Arrays:
    """`filled_up` so that all devices have a share of the patients, and shared out among them."""
    return shared_out(filled_up(data, len(jax.devices())))


def own_patients(data: Arrays) -> jax.Array:
    """(P,), of filled up data: whether it is a patient, and not one who fills up."""
    own: jax.Array = data["stands_for"] == jnp.arange(len(data["stands_for"]))
    return own


def filled_to(count: int, values: Any, axis: int = 0) -> np.ndarray:
    """An array whose `axis` is the patients', filled up to so many by repeating the last."""
    own = np.asarray(values)
    more = count - own.shape[axis]
    return np.concatenate([own, np.repeat(np.take(own, [-1], axis), more, axis)], axis) \
        if more else own


def filled_start(start: Any, parts: int = 1) -> Any:
    """The `carpk.empirical_bayes.Start` of `filled_up` data: of those who fill up nothing is known.
    """
    place, own = _places(start.phi.shape[0], parts)

    def taken(values: Any) -> jax.Array:
        return jnp.asarray(np.asarray(values)[place])

    def nothing(values: Any) -> jax.Array:
        values = np.asarray(values)[place]
        return jnp.asarray(np.where(own.reshape(-1, *[1] * (values.ndim - 1)), values, 0.0))

    return start._replace(
        phi=taken(start.phi), information=nothing(start.information),
        linear=nothing(start.linear), log_likelihood=nothing(start.log_likelihood),
        classes=None if start.classes is None else taken(start.classes), left_open=None)


def _places(patients: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the filled up patients whose rows each has, and whether it is the patient itself."""
    each = np.arange(-(-rounded(patients) // parts) * parts)
    return np.minimum(each, patients - 1), each < patients
