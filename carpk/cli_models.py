"""The catalogue of models and the card of one, as text and as plain data."""

from __future__ import annotations

import ast
import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from carpk.structure import StructuralModel


def catalogue(models: Iterable[StructuralModel]) -> str:
    """One line for each: its name, its title and what is observed."""
    rows = [(m.name, m.title, ", ".join(f"{o.name} ({o.unit})" for o in m.outputs))
            for m in models]
    return aligned([("model", "what it is", "observed"), *rows])


def card(model: StructuralModel) -> dict[str, Any]:
    """What a model file declares, as plain data; a default of infinity is written as null."""
    spread = {p.name: p.omega and {"printed": p.omega.printed, "omega": p.omega.omega,
                                   "fixed": p.omega.fixed}
              for p in model.parameters}

    def plain(items: Iterable[Any]) -> list[dict[str, Any]]:
        return [{k: None if isinstance(v, float) and not math.isfinite(v) else v
                 for k, v in dataclasses.asdict(item).items()} for item in items]

    return {
        "name": model.name, "title": model.title, "citation": model.source.citation,
        "doi": model.source.doi, "time_unit": model.time_unit,
        "form": "closed form" if model.solution else "ODE", "meaning": _docstring(model),
        "parameters": [{**p, "omega": spread[p["name"]]} for p in plain(model.parameters)],
        "inputs": plain(model.inputs), "states": plain(model.states),
        "outputs": plain(model.outputs), "derived": plain(model.derived),
        "doubts": list(model.doubts)}


def written_card(model: StructuralModel) -> str:
    """The card of a model for a reader."""
    doi = f"\nhttps://doi.org/{model.source.doi}" if model.source.doi else ""
    form = "closed form" if model.solution else "ordinary differential equations"
    parts = [f"{model.name}: {model.title}", f"{model.source.citation}{doi}",
             _docstring(model), f"Given as {form}; time in {model.time_unit}."]
    rows = [("parameter", "value", "unit", "spread", "omega", "printed in", "meaning")]
    for p in model.parameters:
        value = f"{p.typical:g}" + (" fixed" if p.fixed else "")
        spread, omega = (p.omega.printed, f"{p.omega.omega:.3g}") if p.omega else ("none", "")
        rows.append((p.name, value, p.unit, spread,
                     omega + (" fixed" if p.omega and p.omega.fixed else ""), p.where, p.meaning))
    parts.append(aligned(rows) + "\nomega is the SD of eta on the link scale (log where not said)")
    links = [f"{p.name}: {p.link}" for p in model.parameters if p.link != "log"]
    parts += [f"Link: {', '.join(links)}"] if links else []
    groups: list[tuple[str, list[tuple[str, ...]]]] = [
        ("input (CSV column)", [(i.name, i.unit, i.meaning, _unless_given(i.default))
                                for i in model.inputs]),
        ("state", [(s.name, s.unit, s.meaning, f"{s.scale} scale") for s in model.states]),
        ("output", [(o.name, o.unit, o.meaning, f"DVID {o.dvid}, {o.error} error")
                    for o in model.outputs]),
        ("derived", [(d.name, d.unit, d.meaning, "") for d in model.derived])]
    parts += [aligned([(title, "unit", "meaning", ""), *items]) for title, items in groups
              if items]
    sets = [f"{title}: {', '.join(f'{k} = {v:g}' for k, v in values.items())}"
            for title, values in model.parameter_sets.items()]
    parts += ["Other published values\n" + "\n".join(f"  {s}" for s in sets)] if sets else []
    parts += ["Doubts\n" + "\n".join(f"  {d}" for d in model.doubts)] if model.doubts else []
    return "\n\n".join(part for part in parts if part)


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of text as columns two blanks apart, the first row being their names.

    >>> print(aligned([("name", "unit"), ("Cmax", "copies/ug"), ("Tmax", "day")]))
    name  unit
    Cmax  copies/ug
    Tmax  day
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
                     for row in rows)


def _unless_given(default: float | None) -> str:
    if default is None:
        return "required"
    return f"{default:g} where there is none" if math.isfinite(default) else "may be empty"


def _docstring(model: StructuralModel) -> str:
    try:
        return ast.get_docstring(ast.parse(Path(model.file).read_text(encoding="utf-8"))) or ""
    except OSError:
        return ""
