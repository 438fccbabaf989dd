"""Exponential: P = P_pop exp(beta (x - reference)); plainly linear on an identity link."""

from carpk.covariate_models import CovariateModel

COVARIATE_MODEL = CovariateModel(
    title="exponential", says="P = P_pop exp(beta (x - reference))",
    columns=lambda x, effect: (x - effect.reference)[:, None])
