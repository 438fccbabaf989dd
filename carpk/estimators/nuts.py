"""No-U-turn sampling (NumPyro's kernel) of the full posterior, chains side by side on the cores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.hmc import hmc

from carpk.chains import Kernel, MarkovChains
from carpk.checkpoints import Checkpoints, Progress
from carpk.estimators import Estimate, Estimator, of_chains
from carpk.geometry import log_density
from carpk.population_model import PopulationModel
from carpk.problems import RequestError
from carpk.solve import Arrays


@dataclass(frozen=True)
class Nuts(MarkovChains, Estimator):
    """NUTS; its coordinates, start and settings are those of `carpk.chains.MarkovChains`."""

    max_tree_depth: int = 10

    def __post_init__(self) -> None:
        if found := self.refused("max_tree_depth"):
            raise RequestError(found)

    def fit(self, model: PopulationModel, data: Arrays, ids: tuple[str, ...], seed: int,
            progress: Progress, kept: Checkpoints | None = None) -> Estimate:
        """See Estimator."""
        return of_chains(self.drawn(model, data, ids, seed, progress, kept))

    def kernel(self, model: PopulationModel) -> Kernel:
        """NumPyro's, with a dense metric of most of the population."""
        lone = _lone(model)
        places = np.concatenate([np.flatnonzero(~lone), np.flatnonzero(lone)])

        def whole(q: Arrays) -> jax.Array:
            return jnp.concatenate([q["u"], q["lone"]])[np.argsort(places)]

        def potential(data: Arrays, frame: Arrays) -> Callable[[Arrays], jax.Array]:
            return lambda q: -log_density(model, data, frame, whole(q), q["z"],
                                          self.parametrisation)

        init, step = hmc(potential_fn_gen=potential, algo="NUTS")

        def begin(u: jax.Array, z: jax.Array, spread: jax.Array, key: jax.Array, data: Arrays,
                  frame: Arrays) -> Any:
            return init(
                {"u": u[~lone], "lone": u[lone], "z": z}, self.warmup, step_size=0.1,
                dense_mass=[("u",)], inverse_mass_matrix={
                    ("u",): jnp.diag(spread[~lone]**2),
                    ("lone", "z"): jnp.concatenate([spread[lone]**2, jnp.ones(z.size)])},
                target_accept_prob=self.target_accept, max_tree_depth=self.max_tree_depth,
                trajectory_length=None, model_args=(data, frame), rng_key=key)

        def move(state: Any, data: Arrays, frame: Arrays) -> Any:
            return step(state, model_args=(data, frame))

        def record(state: Any) -> Arrays:
            return {"u": whole(state.z), "z": state.z["z"], "diverging": state.diverging,
                    "n_steps": state.num_steps, "energy": state.energy,
                    "acceptance_rate": state.accept_prob, "lp": -state.potential_energy,
                    "step_size": state.adapt_state.step_size}

        return Kernel(begin, move, record)

    def noticed(self, stats: Mapping[str, np.ndarray]) -> list[str]:
        """See MarkovChains."""
        deep = float(np.mean(stats["n_steps"] >= 2**self.max_tree_depth - 1))
        return [f"{100 * deep:.0f} % of the draws reached the tree depth limit"] \
            if deep > 0.05 else []


def _lone(model: PopulationModel) -> np.ndarray:
    """(Q,): what has no part in the dense metric, which takes several draws per parameter to learn:
    the coefficients and scales of a horseshoe, and missing numbers."""
    sparse = model.horseshoe
    many = {*(sparse.names if sparse else ()), *(sparse.sizes if sparse else ()),
            *(n for gap in model.missing for n in gap.deviations)}
    return np.array([n in many for n in model.free], bool)


ESTIMATOR = Nuts
