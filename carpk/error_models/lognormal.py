"""Additive on the log scale: ln DV = ln pred + log e. The usual choice for qPCR."""

from carpk.error_models import ErrorModel

ERROR_MODEL = ErrorModel(
    title="additive on the log scale",
    sigmas={"log": "SD of ln DV around ln prediction"},
    sd=lambda pred, sigma: sigma.log,
    log_scale=True,
    constant=True,
)
