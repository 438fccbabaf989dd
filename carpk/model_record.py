"""A resolved model as plain JSON, and back: in the manifest of a fit, and to a worker of one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from carpk import registry
from carpk.checkpoints import Checkpoints, flat
from carpk.classes import Mixture
from carpk.covariate_models import CovariateEffect
from carpk.earlier import Earlier
from carpk.horseshoe import Horseshoe
from carpk.levels import Level
from carpk.missing import Given, Missing
from carpk.population_model import PopulationModel
from carpk.priors import Prior
from carpk.separate_errors import Separate
from carpk.solve import Arrays


def record(model: PopulationModel) -> dict[str, Any]:
    """Everything of a resolved model but its file.

    >>> from carpk import population
    >>> record(population("stein_2019", spread=["Cmax"]))["spread"]
    ['Cmax']
    """
    return {
        "errors": dict(model.errors), "spread": list(model.spread),
        "effects": [dataclasses.asdict(e) for e in model.effects],
        "blocks": [list(b) for b in model.blocks], "censoring": model.censoring,
        "etas": model.etas,
        "mixture": dataclasses.asdict(model.mixture) if model.mixture else None,
        "levels": [dataclasses.asdict(level) for level in model.levels],
        "separate": {o: dataclasses.asdict(s) for o, s in model.separate.items()},
        "error_pairs": [list(p) for p in model.error_pairs],
        "missing": [dataclasses.asdict(gap) for gap in model.missing],
        "time_varying": dict(model.time_varying),
        "occasions": list(model.occasions), "courses": model.courses,
        "priors": {n: str(p) for n, p in model.priors.items()},
        "fixed": dict(model.fixed), "reasons": dict(model.reasons), "steps": model.steps,
        "finer": list(model.finer), "solver": model.structure.solver, **({"earlier": {
            "written": model.earlier.written, "names": list(model.earlier.priors),
            "correlation": model.earlier.correlation}} if model.earlier else {}),
        **({"horseshoe": dataclasses.asdict(model.horseshoe)} if model.horseshoe else {})}


def from_record(known: Mapping[str, Any], file: Path, name: str) -> PopulationModel:
    """The model of a record, its equations from a file; name : of the model."""
    structure = dataclasses.replace(registry.load_file(file), name=name, solver=known["solver"])
    priors = {n: Prior.parse(p) for n, p in known["priors"].items()}
    return PopulationModel(
        structure, known["errors"], tuple(known["spread"]), priors, known["fixed"],
        known["reasons"], known["steps"],
        tuple(CovariateEffect(**{**e, "points": tuple(e["points"])})
              for e in known.get("effects", ())),
        tuple(map(tuple, known.get("blocks", ()))), known.get("censoring", "M3"),
        known.get("etas", "normal"),
        Mixture(own["count"], tuple(own["parameters"])) if (own := known.get("mixture"))
        else None, tuple(Level(v["column"], tuple(v["parameters"]), tuple(v["units"]))
                         for v in known.get("levels", ())),
        known.get("time_varying", {}), tuple(known.get("occasions", ())),
        known.get("courses", 0), None if "earlier" not in known else Earlier(
            known["earlier"]["written"], {n: priors[n] for n in known["earlier"]["names"]},
            tuple(map(tuple, known["earlier"]["correlation"]))),
        Horseshoe(**known["horseshoe"]) if "horseshoe" in known else None,
        {o: Separate(s["column"], tuple(s["units"]))
         for o, s in known.get("separate", {}).items()},
        tuple((a, b) for a, b in known.get("error_pairs", ())),
        tuple(Missing(**{**v, "levels": tuple(v["levels"]), "patients": tuple(v["patients"]),
                         "given": tuple(Given(**g) for g in v["given"])})
              for v in known.get("missing", ())),
        (known["finer"][0], tuple(known["finer"][1])) if "finer" in known else (0, ()))


def sent(model: PopulationModel, data: Arrays, kept: Checkpoints) -> None:
    """Keeps a model and its data beside an unfinished fit, for workers to read."""
    kept.write("model.py", Path(model.structure.file).read_text(encoding="utf-8"))
    kept.write("model.json", json.dumps({
        "name": model.structure.name, "model": record(model),
        "data": jax.tree.map(lambda leaf: 0, data)}))  # where its leaves are
    kept.save("data", flat(data))


def received(kept: Checkpoints) -> tuple[PopulationModel, Arrays]:
    """The model and the data that were sent."""
    known = json.loads((kept.folder / "model.json").read_text("utf-8"))
    leaves, shape = kept.load("data"), jax.tree.structure(known["data"])
    assert leaves is not None
    data: Arrays = jax.tree.unflatten(shape, [jnp.asarray(leaves[f"leaf {k}"])
                                              for k in range(len(leaves))])
    return from_record(known["model"], kept.folder / "model.py", known["name"]), data
