"""Where a fit of latent classes begins: the patients of a one-class start, parted in groups."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.cluster.vq import ClusterError, kmeans2

from carpk.classes import Mixture
from carpk.conditional import Patients
from carpk.empirical_bayes import Start, laplace_start
from carpk.likelihood import class_log_densities, from_theta, population_location, to_theta
from carpk.population_model import PopulationModel
from carpk.solve import Arrays

_LEAST_STEP, _LEAST_OMEGA = 0.1, 0.1  # link scale: classes and patients that all but coincide


def start_of(model: PopulationModel, data: Arrays, seed: int,
             begin: Mapping[str, float] | None = None, held: bool = False,
             patients: Patients | None = None) -> Start:
    """The start of `laplace_start`; of a mixture, from the modes of a start with one class.

    Their deviations from the location that covariates give are parted by k-means, the clusters
    numbered in rising order of the mixture's first parameter; their means, sizes and the spread
    within them begin the search. It only has to be finite and in the right part of the space.
    begin, held, patients : as of `laplace_start`; what is held stays as it is
    """
    if model.mixture is None:
        return laplace_start(model, data, seed, begin=begin, held=held, patients=patients)
    single = _of_one_class(model)
    start = laplace_start(single, data, seed, begin={
        n: v for n, v in (begin or {}).items() if n in single.free}, held=held)
    theta = {n: float(v) for n, v in jax.jit(lambda u: to_theta(single, u))(start.u).items()}
    mu = np.asarray(jax.jit(lambda theta: population_location(single, data, theta)[0])(theta))
    eta = np.asarray(start.phi) - mu
    theta |= _parted(model, model.mixture, theta, eta)
    if held:
        theta |= begin or {}
    theta = {n: float(model.fixed.get(n, theta[n])) for n in model.names}

    @jax.jit
    def finished(theta: Any, phi: jax.Array) -> tuple[jax.Array, jax.Array]:
        return from_theta(model, theta), jax.nn.softmax(
            class_log_densities(model, data, theta, phi), axis=1)

    u, classes = finished(theta, start.phi)
    return start._replace(u=u, classes=classes, left_open=None)


def _of_one_class(model: PopulationModel) -> PopulationModel:
    """The same model without its classes."""
    assert model.mixture is not None
    own = set(model.mixture.names)
    return dataclasses.replace(
        model, mixture=None, priors={n: p for n, p in model.priors.items() if n not in own},
        fixed={n: v for n, v in model.fixed.items() if n not in own})


def _parted(model: PopulationModel, mixture: Mixture, theta: dict[str, float],
            eta: np.ndarray) -> dict[str, float]:
    """Typical values of class 1, differences, shares and spreads of the clusters of eta (P, K)."""
    places = [model.spread.index(n) for n in mixture.parameters]
    own = eta[:, places]
    size = np.maximum(own.std(axis=0), 1e-6)
    label = np.argsort(np.argsort(own[:, 0])) * mixture.count // len(own)  # equal parts by rank
    centres = np.array([own[label == k].mean(axis=0) if (label == k).any() else size * k
                        for k in range(mixture.count)]) / size
    with contextlib.suppress(ClusterError):  # a cluster that loses its patients: the parts stay
        centres, label = kmeans2(own / size, centres, minit="matrix", missing="raise")
    order = np.argsort(centres[:, 0], kind="stable")
    centres, label = centres[order] * size, np.argsort(order)[label]
    counts = np.bincount(label, minlength=mixture.count) + 1.0
    steps = np.diff(centres, axis=0)
    steps[:, 0] = np.maximum(steps[:, 0], _LEAST_STEP)
    found = {n: float(c) for n, c in zip(mixture.share_names, counts[1:] / counts.sum(),
                                         strict=True)}
    within = (own - centres[label]).std(axis=0)
    for k, name in enumerate(mixture.parameters):
        link = model.scale(name)
        found[f"{name}_pop"] = float(link.from_real(
            link.to_real(jnp.asarray(theta[f"{name}_pop"])) + centres[0, k]))
        found |= dict(zip(mixture.deltas(name), steps[:, k].tolist(), strict=True))
        found[f"omega_{name}"] = float(np.clip(within[k], _LEAST_OMEGA, theta[f"omega_{name}"]))
    return found
