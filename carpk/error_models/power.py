"""Power: DV = pred + e with SD prop |pred|^power; 0 is additive, 1 proportional."""

import jax.numpy as jnp

from carpk.error_models import ErrorModel

ERROR_MODEL = ErrorModel(
    title="power of the prediction",
    sigmas={"prop": "SD at a prediction of 1", "power": "power of the prediction"},
    # a prediction of zero would be certain: no assay is
    sd=lambda pred, sigma: sigma.prop * jnp.maximum(jnp.abs(pred), 1e-12) ** sigma.power,
    in_units=("prop",),
)
