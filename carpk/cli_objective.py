"""From a file of population values to the objective that is printed of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from carpk import requests
from carpk.marginal import Objective, objective
from carpk.problems import Problem, RequestError


def values(file: str) -> dict[str, float]:
    """Population values by name: a TOML of name = number, or the manifest.json of a fit by maximum
    likelihood, whose estimates and fixed values they then are."""
    table = _manifest(file) if file.endswith(".json") else requests.table(file)
    if "estimates" in table:
        return {**table["resolved"]["fixed"],
                **{n: v["estimate"] for n, v in table["estimates"].items()}}
    found = [Problem("error", "must be a number", "for instance CL_pop = 3.2", file, column=str(n),
                     found=str(v)) for n, v in table.items()
             if isinstance(v, bool) or not isinstance(v, int | float)]
    if found:
        raise RequestError(found)
    return {str(n): float(v) for n, v in table.items()}


def _manifest(file: str) -> dict[str, Any]:
    requests.table(file)  # refuses what is no manifest
    table: dict[str, Any] = json.loads(Path(file).read_text("utf-8"))
    if "estimates" not in table:
        raise RequestError(Problem("error", "not of a fit by maximum likelihood: a posterior has "
                                   "no one value", "write values into a TOML", file))
    return table


def run(asked: requests.Request, theta: str, method: str, draws: int) -> Objective:
    """The objective of a request's model and data."""
    model = asked.population()
    return objective(model, asked.cohort(model.structure), values(theta), method, draws=draws,
                     seed=asked.seed or 1)


def written(found: Objective, every: bool) -> str:
    """The objective in both conventions, and each patient's part."""
    noise = f" (Monte Carlo SE {found.se:.2g})" if found.se else ""
    lines = [f"OFV {found.total:.4f}{noise}, by {found.method}, without N log 2 pi",
             f"-2 log-likelihood {found.total + found.constant:.4f}"]
    if "pareto_k" in found.patients:
        high = found.patients.index[found.patients["pareto_k"] > 0.7]
        if len(high):
            lines.append(f"Pareto k is above 0.7 for {', '.join(map(str, high))}: take more draws")
    lost = found.patients.index[[not math.isfinite(v) for v in found.patients["ofv"]]]
    if len(lost):
        lines.append(f"no solution, or no mode, for {', '.join(map(str, lost))}")
    return "\n".join([*lines, found.patients.to_csv(float_format="%.6f").rstrip()] if every
                     else lines)


def as_json(found: Objective) -> dict[str, Any]:
    """The same for programs."""
    return {"method": found.method, "ofv": found.total, "se": found.se,
            "minus_two_log_likelihood": found.total + found.constant,
            "patients": found.patients.to_dict("index")}
