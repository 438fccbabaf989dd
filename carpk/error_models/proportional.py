"""Proportional: DV = pred (1 + prop e)."""

import jax.numpy as jnp

from carpk.error_models import ErrorModel

ERROR_MODEL = ErrorModel(
    title="proportional",
    sigmas={"prop": "SD of DV as a share of the prediction"},
    # a prediction of zero would be certain: no assay is
    sd=lambda pred, sigma: sigma.prop * jnp.maximum(jnp.abs(pred), 1e-12),
)
