"""Power around a reference: P = P_pop (x / reference)^beta. The usual form for size and dose."""

import numpy as np

from carpk.covariate_models import CovariateModel

COVARIATE_MODEL = CovariateModel(
    title="power", says="P = P_pop (x / reference)^beta", positive=True,
    columns=lambda x, effect: np.log(x / effect.reference)[:, None])
