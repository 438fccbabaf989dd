"""Additive: DV = pred + add e."""

from carpk.error_models import ErrorModel

ERROR_MODEL = ErrorModel(
    title="additive",
    sigmas={"add": "SD of DV around the prediction"},
    sd=lambda pred, sigma: sigma.add,
    in_units=("add",),
    constant=True,
)
