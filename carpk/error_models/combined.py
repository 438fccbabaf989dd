"""Combined: DV = pred + e with variance add^2 + (prop pred)^2, the root of squares."""

import jax.numpy as jnp

from carpk.error_models import ErrorModel

ERROR_MODEL = ErrorModel(
    title="combined, root of squares",
    sigmas={
        "add": "additive part of the SD",
        "prop": "part of the SD in proportion to the prediction",
    },
    sd=lambda pred, sigma: jnp.sqrt(sigma.add**2 + (sigma.prop * pred) ** 2),
    in_units=("add",),
)
