"""Power around a reference: P = P_pop (x / reference)^beta. The usual form for size and dose."""

import jax.numpy as jnp

from carpk.covariate_models import CovariateModel

COVARIATE_MODEL = CovariateModel(
    title="power", says="P = P_pop (x / reference)^beta", positive=True,
    columns=lambda x, effect: jnp.log(x / effect.reference)[:, None])
