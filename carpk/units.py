"""Units as a cohort states them, against those a model takes."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from carpk.problems import Problem
from carpk.structure import StructuralModel

# doses studied span less (from 1e5 to 1e9 cells); cells for millions of cells are a factor of 1e6
_FAR = 1e3


def same_unit(one: str, other: str) -> bool:
    """Whether two units are one, however they are written: days is day, µL is uL.

    >>> same_unit("cells/µL", "cells / uL"), same_unit("1e6 cells", "cells")
    (True, False)
    """
    def plain(unit: str) -> str:
        unit = unit.replace("\u00b5", "u").replace("\u03bc", "u").replace(" ", "")
        return {"days": "day", "d": "day", "hours": "h", "hour": "h"}.get(unit, unit)

    return plain(one) == plain(other)


def unit_problems(units: Mapping[int | str, str], doses: pd.DataFrame,
                  structure: StructuralModel, source: str) -> list[Problem]:
    """What a model does not take in the unit that a cohort states.

    An output's unit that differs is met by re-scaling, only where the model's enters plainly.

    units, doses, source : of a Cohort

    >>> from carpk import registry
    >>> model, none = registry.find_model("stein_2019"), pd.DataFrame({"CMT": [], "AMT": []})
    >>> for problem in unit_problems({1: "cells/uL", "TIME": "h"}, none, model, "run.csv"):
    ...     print(problem.column, problem.wrong)
    unit of TIME stein_2019 takes TIME in day
    """
    found = _dose_problems(units, doses, structure, source)
    for name, unit in (("TIME", structure.time_unit),
                       *((i.name, i.unit) for i in structure.inputs)):
        given = units.get(name, unit)
        if not same_unit(given, unit):
            found.append(Problem(
                "error", f"{structure.name} takes {name} in {unit}", "convert the column",
                source, column=f"unit of {name}", found=given))
    for output in structure.outputs:
        unit = units.get(output.dvid, output.unit)
        mixed = [p.name for p in structure.parameters
                 if output.unit in p.unit and p.unit != output.unit]
        if not same_unit(unit, output.unit) and (mixed or structure.states):
            found.append(Problem(
                "error", f"output {output.name} of {structure.name} is in {output.unit} and its "
                "equations hold that unit, so it cannot be re-scaled",
                "convert DV in the file", source, column=f"unit of DVID {output.dvid}",
                found=unit))
    return found


def _dose_problems(units: Mapping[int | str, str], doses: pd.DataFrame,
                   structure: StructuralModel, source: str) -> list[Problem]:
    """Doses whose stated unit is not that of the state they enter; where none is stated, doses
    that are far from what patients usually get."""
    names = [s.name for s in structure.states]
    stated = [key[4:] for key in map(str, units) if key.startswith("AMT:")]
    found = [Problem("error", f"{structure.name} has no state {name}",
                     f"it has {', '.join(names) or 'none'}", source,
                     column=f"unit of AMT:{name}") for name in stated if name not in names]
    for k, state in enumerate(structure.states, 1):
        into = doses[(doses["CMT"] == k) & (doses["AMT"] > 0)]
        if not len(into):
            continue
        given = units.get(f"AMT:{state.name}", units.get("AMT"))
        line, median = int(into["line"].iloc[0]), float(into["AMT"].median())
        if given is not None and not same_unit(given, state.unit):
            found.append(Problem(
                "error", f"a dose into {state.name} of {structure.name} is in {state.unit}",
                "convert AMT in the file", source, line, column=f"unit of AMT:{state.name}",
                found=given))
        usual = [d.amount for d in structure.doses if d.state == state.name]
        if given is None and usual and not 1 / _FAR < median / max(usual) < _FAR:
            found.append(Problem(
                "warning", f"doses into {state.name} of {structure.name} are usually "
                f"{max(usual):g} {state.unit}", "if AMT is in another unit, convert it; if it is "
                f"right, say so: --unit AMT:{state.name}={state.unit!r}", source, line,
                column="AMT", found=f"{median:g} (median)"))
    return found
