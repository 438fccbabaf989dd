"""Hockey stick: exponential with one slope below the reference and another above it."""

import jax.numpy as jnp

from carpk.covariate_models import CovariateModel

COVARIATE_MODEL = CovariateModel(
    title="hockey stick",
    says="P = P_pop exp(beta_below min(x - reference, 0) + beta_above max(x - reference, 0))",
    columns=lambda x, effect: jnp.stack([jnp.minimum(x - effect.reference, 0.0),
                                         jnp.maximum(x - effect.reference, 0.0)], axis=1),
    suffixes=lambda effect: ("_below", "_above"))
