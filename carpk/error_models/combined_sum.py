"""Combined, standard deviations added: DV = pred + (add + prop pred) e."""

import jax.numpy as jnp

from carpk.error_models import ErrorModel

ERROR_MODEL = ErrorModel(
    title="combined, sum of standard deviations",
    sigmas={
        "add": "additive part of the SD",
        "prop": "part of the SD in proportion to the prediction",
    },
    sd=lambda pred, sigma: sigma.add + sigma.prop * jnp.abs(pred),
    in_units=("add",),
)
