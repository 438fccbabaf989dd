"""Linear in proportion: P = P_pop (1 + beta (x - reference)), for parameters on a log link."""

from carpk.covariate_models import CovariateModel

COVARIATE_MODEL = CovariateModel(
    title="linear", says="P = P_pop (1 + beta (x - reference))", proportional=True,
    columns=lambda x, effect: (x - effect.reference)[:, None])
