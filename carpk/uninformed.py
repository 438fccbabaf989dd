"""What the data hardly inform, told from a start: before a sampler's time is spent."""

from __future__ import annotations

import numpy as np

from carpk.conditional import Patients
from carpk.effects import coefficients
from carpk.empirical_bayes import Start
from carpk.importance import conditional_moments
from carpk.likelihood import to_theta
from carpk.population_model import PopulationModel
from carpk.sensitivities import omegas

_OPEN = 0.9  # of a variance, left open by the levels; see `hardly_informed`
_DRAWS, _WORTH = 400, 40.0  # of each patient, and how many independent ones these must be worth
_FAR = 2.0  # standard errors


def hardly_informed(model: PopulationModel, start: Start, patients: Patients) -> list[str]:
    """Sentences, said before the sampling, on what the patients' levels hardly inform.

    Spreads: at the start each patient's levels leave a share of omega's variance open,
    Gauss-Newton: where nearly all of it on average, omega is mostly its prior's, and chains walk
    slowly along it. Of the bundled example it is 9 to 76 %; of the same patients seen for two
    weeks only, 97 to 100 % for the spreads that these do not show. Others whose likeliest value
    is 0 are named too. Typical values and coefficients: the same share of the prior's variance.
    Last, what the exact likelihood puts elsewhere than a quick Laplace fit does: see `_apart`.
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
    if apart := _apart(model, start, patients):
        said.append(
            "the exact likelihood puts "
            f"{', '.join(f'{n} (by {by:.1f} standard errors)' for n, by in apart.items())} "
            "elsewhere than a quick Laplace fit does: given their levels the patients' parameters "
            "are far from normal, as where each has few answers; chains may walk slowly along it, "
            "and estimates by focei and laplace are less near to its maximum than saem's")
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


def _apart(model: PopulationModel, start: Start, patients: Patients) -> dict[str, float]:
    """Spreads and typical values that the exact likelihood puts more than two standard errors
    from where modes and curvature put them, and how many.

    From the start two steps of EM are taken, one by the patients' exact moments (by importance
    sampling: SAEM's maximum is where this step is 0), the other by modes and curvature. Where a
    share `open` of a spread's variance is left open, a step that is longer by d in ln omega ends
    d / (1 - open)^2 further, of which a standard error is 1 / sqrt(2 P) / (1 - open); of a typical
    value d / (1 - open), and omega / sqrt(P (1 - open)). Monte Carlo noise is allowed for;
    where nearly all is open nothing is said.
    """
    if model.mixture or model.etas != "normal" or not model.sds:
        return {}
    u, phi = np.asarray(start.u), np.asarray(start.phi)
    sizes, mu = np.asarray(omegas(model, to_theta(model, start.u))), patients.typical(u)
    whole = np.linalg.inv(_known(start)[0] + np.asarray(patients.between(u).precision))
    exact = conditional_moments(patients, u, phi, whole, _DRAWS, 1)
    sound = exact.effective > _WORTH
    if sound.sum() < 2:
        return {}
    open_ = np.diagonal(whole, axis1=1, axis2=2)
    (mean, square), (mean_0, square_0) = (
        ((at - mu)[sound].mean(axis=0), (variance + (at - mu)**2)[sound].mean(axis=0))
        for at, variance in ((exact.mean, np.diagonal(exact.covariance, axis1=1, axis2=2)),
                             (phi, open_)))
    left, count = 1.0 - np.mean(open_ / sizes**2, axis=0), float(sound.sum())
    worth, found = 1.0 / np.mean(1.0 / exact.effective[sound]), {}
    for name in dict.fromkeys(model.sds):
        here = np.flatnonzero(np.array(model.sds) == name)  # of occasions several
        if (share := left[here].mean()) > 1.0 - _OPEN:
            by = np.abs(np.log(square[here].sum() / square_0[here].sum())) \
                * np.sqrt(0.5 * count * len(here)) / share
            found[name] = by, np.sqrt((1.0 - share**2) / worth) / share
    for k, name in enumerate(model.spread):
        if left[k] > 1.0 - _OPEN:
            by = np.abs(mean[k] - mean_0[k]) / sizes[k] * np.sqrt(count / left[k])
            found[f"{name}_pop"] = by, np.sqrt((1.0 - left[k]) / left[k] / worth)
    return {n: float(by) for n, (by, noise) in found.items()
            if by > _FAR + 2.0 * noise and n in model.free}
