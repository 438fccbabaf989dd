"""What the parameter table says of latent classes: their typical values, differences, shares."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np

from carpk.fitting import Fit


def typical(fit: Fit) -> dict[str, np.ndarray]:
    """(chain, draw) of each further class's typical values, as X_pop_2, and of share_1."""
    mixture = fit.model.mixture
    if mixture is None:
        return {}
    theta = _theta(fit, (*mixture.names, *(f"{n}_pop" for n in mixture.parameters)))
    found = {}
    for name in mixture.parameters:
        link = fit.model.scale(name)
        first = link.to_real(jnp.asarray(theta[f"{name}_pop"]))
        for k, shift in list(enumerate(mixture.shifts(theta, name)))[1:]:
            found[f"{name}_pop_{k + 1}"] = np.asarray(link.from_real(first + shift))
    return found | {"share_1": np.asarray(mixture.shares(theta)[0])}


def further(fit: Fit, values: Mapping[str, np.ndarray]) \
        -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Each class from the second, and the typical patient's values with its own in them."""
    mixture, own = fit.model.mixture, typical(fit)
    for k in range(2, (mixture.count if mixture else 1) + 1):
        assert mixture is not None
        yield k, {**values, **{n: own[f"{n}_pop_{k}"] for n in mixture.parameters}}


def described(fit: Fit, name: str) -> dict[str, str] | None:
    """Kind, unit and meaning of a row that is of a class; None of others."""
    mixture, structure = fit.model.mixture, fit.model.structure
    if mixture is not None and name.removesuffix("_pop") in mixture.parameters:
        p = structure.parameter(name.removesuffix("_pop"))
        return {"kind": "typical", "unit": p.unit, "meaning": f"{p.meaning}, {_called(fit, 1)}"}
    match = re.fullmatch(r"(?:(delta)_)?(\w+?)(_pop)?_(\d+)", name)
    if mixture is None or match is None or not 1 <= int(match[4]) <= mixture.count:
        return None
    k, of = int(match[4]), match[2]
    if of == "share":
        return {"kind": "class", "unit": "-",
                "meaning": f"share of the patients in {_called(fit, k)}"}
    if match[1] and of in mixture.parameters:
        p = structure.parameter(of)
        scale = {"log": f"ln {of}", "logit": f"logit {of}", "identity": of}[p.link]
        return {"kind": "class", "unit": p.unit if p.link == "identity" else "-",
                "meaning": f"{scale} of {_called(fit, k)} above {_called(fit, k - 1)}"}
    if match[3] and of in mixture.parameters:
        p = structure.parameter(of)
        return {"kind": "class", "unit": p.unit, "meaning": f"{p.meaning}, {_called(fit, k)}"}
    quantity = next((d for d in structure.derived if d.name == of), None)
    return {"kind": "derived", "unit": quantity.unit,
            "meaning": f"{quantity.meaning}, {_called(fit, k)}"} if quantity and match[3] else None


def _called(fit: Fit, k: int) -> str:
    """A class by its number, and by its name where the model file's classes are meant."""
    own, mixture = fit.model.structure.classes, fit.model.mixture
    named = own is not None and own.names and mixture is not None \
        and (len(own.shares), tuple(own.values)) == (mixture.count, mixture.parameters)
    return f"class {k} ({own.names[k - 1]})" if own is not None and named else f"class {k}"


def _theta(fit: Fit, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """(chain, draw) of population values, fixed ones included."""
    draws = fit.posterior["posterior"].dataset
    shape = (draws.sizes["chain"], draws.sizes["draw"])
    return {n: draws[n].values if n in fit.model.free else np.full(shape, fit.model.fixed[n])
            for n in names}
