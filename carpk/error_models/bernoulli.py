"""Bernoulli: the prediction is the probability that DV is 1; it is 0 otherwise."""

import jax.numpy as jnp

from carpk.error_models import ErrorModel, between_0_and_1

ERROR_MODEL = ErrorModel(
    title="binary, 1 with the predicted probability",
    sigmas={},
    sd=lambda pred, sigma: jnp.sqrt(between_0_and_1(pred) * (1.0 - between_0_and_1(pred))),
    binary=True,
)
