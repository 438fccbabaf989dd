"""The posterior of an earlier fit as a prior: a normal on the real line, by parameter name."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from carpk import registry
from carpk.covariate_models import CovariateEffect
from carpk.effects import AUTO
from carpk.priors import IDENTITY, LOG, LOGIT, SOFTPLUS, TANH, Prior
from carpk.problems import CarpkError, Problem, RequestError
from carpk.small_matrices import cholesky, partial_correlations
from carpk.structure import StructuralModel
from carpk.units import same_unit

_FAMILIES = {IDENTITY: "normal", LOG: "lognormal", LOGIT: "logitnormal",
             SOFTPLUS: "softplusnormal", TANH: "tanhnormal"}


@dataclass(frozen=True)
class Earlier:
    """What an earlier fit knows of population parameters, as the prior of a new one.

    Its draws are taken to the real line on which each parameter is sampled and replaced by the
    normal of their mean and covariance, which is the marginal priors and their correlation. The
    covariance is divided by the discount, which for a normal is the posterior to that power (a
    power prior, Ibrahim & Chen 2000, Stat Sci 15:46, of which the first prior is also a factor).

    written : folder and discount, as they are asked for
    priors : the marginal of each parameter; of a correlation, that of the partial one
    correlation : (Q, Q) on the real line, in the order of `priors`
    blocks, effects : of the earlier model; units : of its cohort, by DVID; sha256 : of its data
    """

    written: str
    priors: Mapping[str, Prior]
    correlation: tuple[tuple[float, ...], ...]
    blocks: tuple[tuple[str, ...], ...] = ()
    effects: tuple[CovariateEffect, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    structure: StructuralModel | None = None
    sha256: str = ""

    def log_dependence(self, real: Mapping[str, Any]) -> jax.Array:
        """What the correlation adds to the sum of the marginals' log densities.

        real : the parameters on the real line, by name
        """
        matrix = np.array(self.correlation)
        z = jnp.stack([(real[n] - _centre(p)) / p.numbers[1] for n, p in self.priors.items()])
        added = jnp.asarray(np.linalg.inv(matrix) - np.eye(len(matrix)))
        return -0.5 * (z @ added @ z) - 0.5 * float(np.linalg.slogdet(matrix)[1])

    def draw(self, random: np.random.Generator) -> dict[str, float]:
        """One value of each parameter, natural scale; of a correlation, of the partial one."""
        z = np.linalg.cholesky(np.array(self.correlation)) @ random.normal(size=len(self.priors))
        return {n: float(p.scale.from_real(_centre(p) + p.numbers[1] * x))
                for (n, p), x in zip(self.priors.items(), z, strict=True)}

    def of(self, names: Sequence[str]) -> Earlier:
        """The marginal posterior of some of the parameters."""
        kept = [k for k, n in enumerate(self.priors) if n in names]
        return dataclasses.replace(
            self, priors={n: p for n, p in self.priors.items() if n in names},
            correlation=tuple(tuple(self.correlation[i][j] for j in kept) for i in kept))

    def effect(self, asked: CovariateEffect) -> CovariateEffect:
        """An effect as it is asked for, at the earlier fit's reference where none is said: the
        typical value belongs to it. RequestError where the two do not mean the same.
        """
        before = next((e for e in self.effects if e.key == asked.key), None)
        if before is None:
            return asked
        points = () if before.form == "category" else before.points
        taken = dataclasses.replace(before, points=points) if asked.reference is None and \
            not asked.points and asked.form in (AUTO, before.form) else asked
        if (taken.form, str(taken.reference), taken.points or points) != (
                before.form, str(before.reference), points):
            raise RequestError(Problem(
                "error", f"the prior's fit has {before.written} here: coefficient and typical "
                "value would not mean the same", f"take {before.written}, or no prior of a fit",
                column=asked.key, found=asked.written))
        return taken

    def dropped(self, effects: Sequence[CovariateEffect]) -> tuple[Problem, ...]:
        """A warning of each effect that a new model with these lacks, on a parameter whose typical
        value is taken over: it is that of patients at the effect's reference."""
        return tuple(Problem(
            "warning", f"the prior's fit has {e.written} here, this model nothing: the typical "
            f"{e.parameter} that is taken over is of patients at {e.column} {e.reference}",
            f"take {e.written}, or state a prior of {e.parameter}", column=e.key)
            for e in self.effects if e.key not in {a.key for a in effects}
            and f"{e.parameter}_pop" in self.priors)


def _centre(prior: Prior) -> jax.Array:
    return jnp.asarray(prior.scale.to_real(jnp.asarray(prior.numbers[0])))


def asked_earlier(written: str | None, effects: Sequence[CovariateEffect]) \
        -> tuple[Earlier | None, tuple[CovariateEffect, ...], list[Problem]]:
    """The posterior that is asked for as a prior, the effects at its references, and what is
    wrong with either."""
    try:
        earlier = posterior_of(written) if written is not None else None
    except RequestError as refused:
        return None, tuple(effects), list(refused.problems)
    made: list[CovariateEffect] = []
    found: list[Problem] = []
    for asked in effects:
        try:
            made.append(earlier.effect(asked) if earlier else asked)
        except RequestError as refused:
            found += refused.problems
    return earlier, tuple(made), found


def posterior_of(written: str) -> Earlier:
    """The posterior in a fit's folder, "fits/RUN", or with a discount, "fits/RUN:0.5".

    RequestError where there is no such fit, it did not converge, or its draws are too few.
    """
    folder, discount = _parted(written)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        structure = registry.load_file(folder / "model.py")
        resolved = manifest["resolved"]
        scales = {n: Prior.parse(p).scale for n, p in resolved["priors"].items()
                  if n not in resolved["fixed"]}
        with xr.open_datatree(folder / "posterior.nc", engine="h5netcdf") as stored:
            drawn = stored["posterior"].dataset
            draws = {n: drawn[n].values.ravel() for n in scales}
    except (OSError, ValueError, KeyError, TypeError, CarpkError) as failure:
        raise RequestError(Problem("error", f"not a fit to take priors from ({failure})",
                                   "name the folder that `carpk fit` printed", str(folder),
                                   column="priors")) from None
    if resolved.get("mixture"):
        raise RequestError(Problem("error", "this fit has latent classes, whose typical values are "
                                   "not those of other fits", "state priors one by one",
                                   str(folder), column="priors"))
    if not manifest["convergence"]["ok"]:
        raise RequestError(Problem("error", "this fit did not converge: it is no prior",
                                   "fit it until it does", str(folder), column="priors"))
    blocks = tuple(map(tuple, resolved.get("blocks", ())))
    draws |= _partials(blocks, draws)
    real = np.stack([np.asarray(scales[n].to_real(jnp.asarray(v))) for n, v in draws.items()])
    mean, covariance = real.mean(axis=1), np.atleast_2d(np.cov(real))
    size = np.sqrt(np.diag(covariance))
    if real.shape[1] < 10 * len(real) or not (np.isfinite(covariance).all() and size.all()):
        raise RequestError(Problem(
            "error", f"{real.shape[1]} draws do not make a covariance of {len(real)} parameters",
            f"{10 * len(real)} or more do: draw more", str(folder), column="priors"))
    correlation = covariance / np.outer(size, size)
    return Earlier(
        written, {n: Prior(_FAMILIES[scales[n]], (
            float(scales[n].from_real(m)), s / math.sqrt(discount)))
            for n, m, s in zip(draws, mean, size, strict=True)},
        tuple(map(tuple, correlation.tolist())), blocks,
        tuple(CovariateEffect(**{**e, "points": tuple(e["points"])})
              for e in resolved.get("effects", ())),
        manifest["data"]["units"], structure, manifest["data"]["sha256"])


def _parted(written: str) -> tuple[Path, float]:
    """The folder and the discount."""
    folder, colon, number = written.rpartition(":")
    try:
        discount = float(number)
    except ValueError:
        return Path(written), 1.0  # a colon may belong to the folder
    if not colon:
        return Path(written), 1.0
    if not 0.0 < discount <= 1.0:
        raise RequestError(Problem("error", "a discount lies above 0 and up to 1",
                                   "for instance fits/RUN:0.5", column="priors", found=written))
    return Path(folder), discount


def _partials(blocks: tuple[tuple[str, ...], ...], draws: Mapping[str, np.ndarray]) \
        -> dict[str, np.ndarray]:
    """The partial correlations behind the draws of correlations, by the correlations' names."""
    found: dict[str, np.ndarray] = {}
    for block in blocks:
        names = [[f"corr_{a}_{b}" for a in block[:k]] for k, b in enumerate(block)]
        if names[1][0] not in draws:  # held
            continue
        partial = partial_correlations(cholesky(
            [{**{j: draws[n] for j, n in enumerate(row)}, i: 1.0} for i, row in enumerate(names)]))
        found |= {n: np.asarray(partial[i][j]) for i, row in enumerate(names)
                  for j, n in enumerate(row)}
    return found


def adopted(earlier: Earlier, structure: StructuralModel, defaults: Mapping[str, Prior],
            blocks: Sequence[tuple[str, ...]], units: Mapping[int | str, str]) -> Earlier:
    """Of an earlier posterior what says something of a new model's parameters.

    defaults : the new model's priors of what it estimates and nobody gave a prior
    blocks : its correlated etas; units : of its cohort's outputs, by DVID
    A block's correlations are taken over whole or not at all. RequestError where a parameter of
    one name is in different units, or on different scales, or nothing is left.
    """
    before = earlier.structure
    assert before is not None
    here = {o.dvid: str(units.get(o.dvid, o.unit)) for o in structure.outputs}
    there = {o.dvid: earlier.units.get(str(o.dvid), o.unit) for o in before.outputs}
    shared = [n for n in earlier.priors if n in defaults and not n.startswith("corr_")]
    for block in blocks:
        names = [f"corr_{a}_{b}" for k, b in enumerate(block) for a in block[:k]]
        if block in earlier.blocks and all(n in earlier.priors and n in defaults for n in names):
            shared += names
    found = [Problem("error", f"it is sampled on another scale in the prior's fit "
                     f"({earlier.priors[n]})", "give it a prior of its own", column=n,
                     found=str(defaults[n]))
             for n in shared if earlier.priors[n].scale is not defaults[n].scale]
    for name in shared:
        mine, theirs = (_unit(name, s, u) for s, u in ((structure, here), (before, there)))
        if not same_unit(mine, theirs):
            found.append(Problem("error", f"it is in {theirs} in the prior's fit",
                                 "convert the data, or give it a prior of its own",
                                 column=name, found=mine))
    if not shared:
        found.append(Problem("error", "no parameter of this fit is estimated here",
                             f"it has {', '.join(earlier.priors)}", earlier.written,
                             column="priors"))
    if found:
        raise RequestError(found)
    return earlier.of(shared)


def _unit(name: str, structure: StructuralModel, units: Mapping[int, str]) -> str:
    """The unit of a typical value or of a residual SD in a cohort; "-" of others."""
    given = {o.unit: units[o.dvid] for o in structure.outputs}
    if name.endswith("_pop"):
        unit = structure.parameter(name.removesuffix("_pop")).unit
        return given.get(unit, unit)
    for o in structure.outputs:
        if name.startswith(f"sigma_{o.name}_add"):
            return given[o.unit]
    return "-"
