"""What was asked for: the schema of run.toml, which is also the `request` in a fit's manifest."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from carpk import examples
from carpk.cohort import Cohort
from carpk.effects import band_of
from carpk.nonmem import by_dvid, read_csv
from carpk.population_model import PopulationModel, population
from carpk.problems import Problem, RequestError
from carpk.starting_values import WORDS
from carpk.structure import Solver, StructuralModel

_EXAMPLE = "example:"


def _value(found: Any) -> Any:
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        raise PydanticCustomError("held", 'must be a number or "published"')
    if not isinstance(found, str) and not math.isfinite(found):
        raise PydanticCustomError("held", "must be finite")
    return found


def by_name(found: Any) -> Any:
    """fixed = ["beta"] is short for fixed = {beta = "published"}."""
    if isinstance(found, list) and all(isinstance(n, str) for n in found):
        return dict.fromkeys(found, "published")
    return found


def _band(found: Any) -> Any:
    try:
        return list(band_of(found))
    except RequestError as refused:
        raise PydanticCustomError("band", "{wrong}", {"wrong": refused.problems[0].wrong}) from None


def by_source(found: Any) -> Any:
    """priors = "fits/RUN" is short for priors = {from = "fits/RUN"}."""
    return {"from": found} if isinstance(found, str) else found


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataRequest(_Table):
    """Which file, and how it is read: the arguments of `carpk.read_csv`, and which patients."""

    file: str
    columns: dict[str, str] = {}
    dvid: list[int] | None = None
    units: dict[str, str] = {}
    patients: list[str] | None = None


class Request(_Table):
    """A whole fit, stated. Paths in a run.toml are relative to it.

    model : a name, or the path of a model file (ending in .py)
    data : file, or "example:NAME", and how it is read
    errors, correlated_errors, spread, covariates, missing, time_varying, occasions, correlated,
        etas, classes, levels, censoring, fixed, free, priors, steps, solver : as in
        `carpk.population`; priors = "fits/RUN:0.5" also as {from = ...}, the folder like other
        paths
    band : ratios between these two numbers are no relevant change by a covariate: [0.8, 1.25]
    settings : of the estimator; without `seed` one is drawn

    >>> asked = Request.of({"model": "stein_2019", "data": {"file": "example:tisacel_like"}})
    >>> asked.estimator, len(asked.cohort().ids)
    ('nuts', 90)
    """

    model: str
    data: DataRequest
    estimator: str = "nuts"
    seed: int | None = Field(None, ge=0, lt=2**63)
    errors: dict[str, str] = {}
    spread: list[str] | None = None
    covariates: dict[str, str] | list[str] = {}
    correlated: str | list[list[str]] = []
    correlated_errors: list[list[str]] = []
    censoring: str = "M3"
    etas: str = "normal"
    classes: str | None = None
    levels: dict[str, str | list[str]] = {}
    time_varying: dict[str, str] = {}
    occasions: list[str] = []
    missing: dict[str, str] = {}
    fixed: Annotated[dict[str, Annotated[Any, BeforeValidator(_value)]],
                     BeforeValidator(by_name)] = {}
    free: list[str] = []
    priors: Annotated[dict[str, str], BeforeValidator(by_source)] = {}
    steps: int = Field(0, ge=0)
    solver: Solver | None = None
    band: Annotated[list[float] | None, BeforeValidator(_band)] = None
    settings: dict[str, Any] = {}
    out: str = "fits"
    _file: str = PrivateAttr("")

    @classmethod
    def read(cls, path: str | Path) -> Request:
        """The request in a run.toml, or that of a fit in its manifest.json."""
        return cls.of(table(path), str(path))

    @classmethod
    def of(cls, asked: Mapping[str, Any], file: str = "") -> Request:
        """A request from its table; RequestError with everything in it that is not understood."""
        try:
            request = cls.model_validate(dict(asked))
        except ValidationError as refused:
            raise RequestError(_problem(e, file) for e in refused.errors()) from None
        request._file = file
        return request

    def population(self) -> PopulationModel:
        """The population model that is asked for."""
        try:
            return population(self.model, errors=self.errors, spread=self.spread,
                              correlated_errors=self.correlated_errors,
                              covariates=self.covariates, correlated=self.correlated,
                              censoring=self.censoring, etas=self.etas, classes=self.classes,
                              levels=self.levels, time_varying=self.time_varying,
                              occasions=self.occasions, missing=self.missing, fixed=self.fixed,
                              priors=self.priors, free=self.free, steps=self.steps,
                              solver=self.solver)
        except RequestError as refused:
            raise RequestError(dataclasses.replace(p, file=p.file or self._file)
                               for p in refused.problems) from refused

    def cohort(self, structure: StructuralModel | None = None) -> Cohort:
        """The cohort that is asked for, checked against a model where one is given."""
        return cohort_of(self.data, structure)


def cohort_of(asked: DataRequest, structure: StructuralModel | None = None) -> Cohort:
    """The cohort of a file or a bundled example; DataError with everything wrong with it."""
    how: dict[str, Any] = {
        "columns": asked.columns, "dvid": asked.dvid,
        "units": by_dvid(asked.units) or None,
        # of some patients it is the fit that says whether they suit the model
        "structure": structure if asked.patients is None else None}
    read = examples.example(asked.file.removeprefix(_EXAMPLE), **how) \
        if asked.file.startswith(_EXAMPLE) else read_csv(asked.file, **how)
    if asked.patients is None:
        return read
    try:
        return read.select(asked.patients)
    except KeyError as failure:
        raise RequestError(Problem("error", str(failure.args[0]), "", column="data.patients")) \
            from None


def table(path: str | Path) -> dict[str, Any]:
    """The table of a run.toml with its paths resolved, or the request in a manifest.json."""
    path = Path(path)

    def refused(wrong: str, remedy: str = "", line: int | None = None) -> RequestError:
        return RequestError(Problem("error", wrong, remedy, str(path), line))

    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as failure:
        raise refused(f"cannot be read: {failure.strerror}", "check the path") from None
    except UnicodeDecodeError:
        raise refused("not UTF-8 text", "save it as UTF-8") from None
    if path.suffix == ".json":
        try:
            return dict(json.loads(text)["request"])
        except (ValueError, KeyError, TypeError):
            raise refused("not the manifest of a fit", "name the manifest.json of a fit, "
                          "or a run.toml") from None
    try:
        asked = tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        at = re.search(r"\(at line (\d+), column (\d+)\)", str(failure))
        what = str(failure).partition(" (at ")[0]
        raise refused(f"not TOML: {what[:1].lower()}{what[1:]}"
                      + (f", at column {at[2]}" if at else ", at the end of the file"),
                      'for instance: model = "stein_2019"', int(at[1]) if at else None) from None
    if "priors" in asked:
        asked["priors"] = by_source(asked["priors"])
    if isinstance(asked.get("out"), str):
        asked["out"] = str(path.parent / asked["out"])
    return seen_from(asked, path.parent)


def seen_from(asked: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The table of a request whose paths of what it reads are relative to a folder, with that
    folder before them. What is no path, or not yet known to be text, stays as it is.

    >>> seen_from({"model": "stein_2019", "data": {"file": "my.csv"}}, Path("there"))["data"]
    {'file': 'there/my.csv'}
    """
    def path(text: str) -> bool:
        return not text.startswith(_EXAMPLE)

    found = dict(asked)
    for table, name, is_path in ((None, "model", lambda text: text.endswith(".py")),
                                 ("data", "file", path), ("priors", "from", path),
                                 ("settings", "inits", lambda text: text not in WORDS)):
        holder = found if table is None else found.get(table)
        if isinstance(holder, Mapping) and isinstance(holder.get(name), str) \
                and is_path(holder[name]):
            moved = {**holder, name: str(folder / holder[name])}
            found = moved if table is None else {**found, table: moved}
    return found


_MUST_BE = {
    "string_type": "must be text in quotes", "int_type": "must be a whole number",
    "int_from_float": "must be a whole number", "dict_type": "must be a table",
    "model_type": "must be a table", "list_type": "must be a list in brackets",
    "greater_than_equal": "must not be negative", "less_than": "is too large"}


def _problem(error: ErrorDetails, file: str) -> Problem:
    """A pydantic error in our words."""
    place = [str(part) for part in error["loc"] if part != "[key]"]
    key = ".".join(place)
    if error["type"] == "missing":
        return Problem("error", "not stated", f'for instance: {_FOR_INSTANCE.get(key, key)}',
                       file, column=key)
    if error["type"] == "extra_forbidden":
        known = list((DataRequest if place[0] == "data" else Request).model_fields)
        near = difflib.get_close_matches(place[-1], known, n=1)
        return Problem("error", "no such key",
                       f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}",
                       file, column=key)
    return Problem("error", _MUST_BE.get(error["type"], error["msg"]), "", file, column=key,
                   found=json.dumps(error["input"], default=str))


_FOR_INSTANCE = {"model": 'model = "stein_2019"', "data": '[data] with file = "my.csv"',
                 "data.file": 'file = "my.csv"'}

