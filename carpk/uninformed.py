"""What the data hardly inform, told from a start: before a sampler's time is spent."""

from __future__ import annotations

import numpy as np

from carpk.effects import coefficients
from carpk.empirical_bayes import Start
from carpk.likelihood import to_theta
from carpk.population_model import PopulationModel
from carpk.sensitivities import omegas

_OPEN = 0.9  # of a variance, left open by the levels; see `hardly_informed`


def hardly_informed(model: PopulationModel, start: Start) -> list[str]:
    """Sentences, said before the sampling, on what the patients' levels hardly inform.

    Spreads: at the start each patient's levels leave a share of omega's variance open,
    Gauss-Newton: where nearly all of it on average, omega is mostly its prior's, and chains walk
    slowly along it. Of the bundled example it is 9 to 76 %; of the same patients seen for two
    weeks only, 97 to 100 % for the spreads that these do not show. Others whose likeliest value
    is 0 are named too. Typical values and coefficients: the same share of the prior's variance.
    """
    weak = _weak_spreads(model, start)
    flat = {} if start.left_open is None else {
        n: float(share) for n, share in zip(model.free, np.asarray(start.left_open), strict=True)
        if share > _OPEN and _of_the_population(model, n)}
    said = []
    if weak:
        said.append(
            f"the data hardly inform {_listed(weak)}, in brackets the share of the variance that "
            "the patients' levels leave open: such a posterior is mostly its prior's and slow to "
            f"sample; hold it at a value (--fix {next(iter(weak))}=...), or name to --spread what "
            "varies")
    if flat:
        said.append(
            f"the data hardly inform {_listed(flat)}, in brackets the share of the prior's "
            "variance that is left: its posterior will be its prior; hold it at a value "
            f"(--fix {next(iter(flat))}=...), or state a prior you believe")
    if bound := [n for n in _at_zero(model, start) if n not in weak]:
        said.append(
            f"the likeliest value of {', '.join(bound)} is 0: the patients' levels do not show "
            "that they differ in it, and how far above 0 it lies its prior decides; name to "
            "--spread what varies")
    return said


def _listed(shares: dict[str, float]) -> str:
    return ", ".join(f"{n} ({share:.0%})" for n, share in shares.items())


def _of_the_population(model: PopulationModel, name: str) -> bool:
    """Whether it is a typical value or a coefficient that has a prior of its own."""
    return model.priors[name].family != "horseshoe" and (
        name.endswith("_pop") or any(name in coefficients(e) for e in model.effects))


def _known(start: Start) -> tuple[np.ndarray, np.ndarray]:
    """What each patient's levels say of phi, (P, K, K) and (P, K); nothing without a solution."""
    return tuple(np.nan_to_num(np.asarray(v).sum(axis=1))  # on the host: nothing is compiled
                 for v in (start.information, start.linear))


def _weak_spreads(model: PopulationModel, start: Start) -> dict[str, float]:
    """Spreads of whose variance the levels leave nearly all open, and how much."""
    if not model.sds:
        return {}
    sizes = np.asarray(omegas(model, to_theta(model, start.u)))
    left = np.linalg.inv(_known(start)[0] + np.diag(sizes**-2))
    open_ = np.mean(np.diagonal(left, axis1=1, axis2=2) / sizes**2, axis=0)
    return {n: float(share) for n, share in zip(model.sds, open_, strict=True)
            if share > _OPEN and n not in model.fixed}


def _at_zero(model: PopulationModel, start: Start) -> list[str]:
    """Spreads, correlated with no other, whose likelihood falls from 0 on: by its slope in
    omega^2 there, were each patient's likelihood normal, as at the start, and with the typical
    values where they are likeliest then.
    """
    together = {f"omega_{n}" for block in model.blocks for n in block}
    asked = [n for n in dict.fromkeys(model.sds) if n not in model.fixed and n not in together]
    if not asked or model.mixture:
        return []
    sizes = np.asarray(omegas(model, to_theta(model, start.u)))
    known, linear = _known(start)
    phi = np.asarray(start.phi)
    slope = linear - np.einsum("pkl,pl->pk", known, phi)  # at a mode Omega^-1 (phi - mu)
    away = linear - np.einsum("pkl,pl->pk", known, phi - sizes**2 * slope)  # known (phi^ - mu)
    found = []
    for name in asked:
        here = np.array(model.sds) == name
        inner = np.linalg.inv(known + np.diag(np.where(here, 1e-3 * sizes, sizes) ** -2))
        # V^-1 and V^-1 (phi^ - mu), of V = known^-1 + Omega: nothing is divided by what is unknown
        precision = known - known @ inner @ known
        pull = away - np.einsum("pkl,plm,pm->pk", known, inner, away)
        shift = np.linalg.lstsq(precision.sum(axis=0), pull.sum(axis=0), rcond=1e-10)[0]
        pull = pull - precision @ shift
        rises = pull**2 - np.diagonal(precision, axis1=1, axis2=2)
        if rises[:, here].sum() < 0.0:
            found.append(name)
    return found
