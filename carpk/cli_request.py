"""From the options of a command to a request."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from carpk import requests
from carpk.cohort import contents, design
from carpk.preparation import with_effects
from carpk.problems import Problem, RequestError

_PAIRED = ("errors", "fixed", "priors", "columns", "units", "time_varying")
_LISTED = ("spread", "free", "dvid", "occasions", "missing")
_CHECKED = ("data", "model", "covariates", "levels", "time_varying", "occasions",
            "missing")  # with the file


def options(setting: list[str] | None = None, **given: Any) -> dict[str, Any]:
    """What was given on the command line, in the shape of a run.toml; BadParameter otherwise."""
    table: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, Mapping):
            table[name] = options(**value)
        elif value is None or value == []:
            continue
        elif name == "covariates":
            table[name] = _each_once(name, map(_effect, value))
        elif name == "levels":
            table[name] = _each_once(name, map(_level, value))
        elif name in ("correlated", "correlated_errors"):
            table[name] = "full" if value == ["full"] else [
                [part.strip() for part in text.split(",") if part.strip()] for text in value]
        elif name in _PAIRED:
            table[name] = _each_once(name, (_pair(text, name) for text in value))
        elif name in _LISTED:
            listed = [part.strip() for text in value for part in text.split(",") if part.strip()]
            table[name] = [_whole(part) for part in listed] if name == "dvid" else \
                dict.fromkeys(listed, "model") if name == "missing" else listed
        elif name == "prior_from":
            table["priors"] = {**table.get("priors", {}), "from": value}
        else:
            table[name] = value
    for name, value in _each_once("settings", (_pair(t, "setting") for t in setting or ())).items():
        table.setdefault("settings", {})[name] = _literal(value)
    return {name: value for name, value in table.items() if value != {}}


@contextlib.contextmanager
def resumed(folder: str, data: str, given: Mapping[str, Any]) \
        -> Iterator[tuple[requests.Request, str]]:
    """The request of an unfinished fit, as it was made, for the name of its folder holds its hash;
    and that folder, as it is seen from the one in which the fit was begun. This process is there
    meanwhile: the paths in a request mean what they meant."""
    if data or given:
        raise typer.BadParameter("a fit is resumed as it was asked for: --resume stands alone")
    asked = Path(folder) / "request.json"
    if not asked.is_file():
        raise RequestError(Problem("error", "not an unfinished fit: no request.json",
                                   "name the folder that the interrupted fit printed", folder))
    stated = requests.table(asked)
    begun = Path(json.loads(asked.read_text("utf-8")).get("begun_in", "."))
    if not begun.is_dir():
        raise RequestError(Problem("error", "the folder in which this fit was begun is not there",
                                   "put it back, or fit anew", folder, found=str(begun)))
    elsewhere = not begun.samefile(".")
    place = Path(folder).resolve() if elsewhere else Path(folder)
    with contextlib.chdir(begun):
        yield requests.Request.of({**stated, "out": str(place.parent)}, str(asked)), str(place)


def request(data: str, given: Mapping[str, Any]) -> requests.Request:
    """The request of a run.toml (or a manifest.json) or of a data file, options on top."""
    if not data:
        raise typer.BadParameter("say which data: a CSV file, a run.toml, or example:NAME")
    stated = _stated(data, given)
    if "model" not in stated:
        raise typer.BadParameter("say which model: --model NAME; `carpk models` lists them")
    if "seed" not in stated:
        stated["seed"] = secrets.randbelow(2**31)
        typer.echo(f"no seed was given; --seed {stated['seed']} makes this fit again", err=True)
    return requests.Request.of(stated, data if _is_request(data) else "")


def checked(data: str, given: Mapping[str, Any]) -> tuple[tuple[Problem, ...], str]:
    """The warnings of a cohort that can be used, and what is in it, as a sentence."""
    stated = _stated(data, given)
    wanted = {k: v for k, v in stated.items() if k in _CHECKED}
    asked = requests.Request.of({"model": "", **wanted}, data if _is_request(data) else "")
    if not asked.model:
        cohort = requests.cohort_of(asked.data)
        return cohort.warnings, contents(cohort)
    model = asked.population()
    cohort = asked.cohort(model.structure)
    seen = design(cohort, model.structure)
    return (*seen.warnings, *with_effects(model, seen)[1]), contents(
        cohort, model.structure, model.columns)


def _is_request(data: str) -> bool:
    return Path(data).suffix in (".toml", ".json")


def _stated(data: str, given: Mapping[str, Any]) -> dict[str, Any]:
    stated = requests.table(data) if _is_request(data) else {"data": {"file": data}}
    if "fixed" in stated:
        stated["fixed"] = requests.by_name(stated["fixed"])
    return _over(stated, given)


def _over(table: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A table with other values on top, name by name."""
    short = {n.removesuffix("_pop") for n in given}  # Cmax is above a table's Cmax_pop
    merged = {n: v for n, v in table.items() if n in given or n.removesuffix("_pop") not in short}
    for name, value in given.items():
        below = merged.get(name)
        merged[name] = _over(below, value) if isinstance(below, dict) and \
            isinstance(value, dict) else value
    return merged


def _each_once(option: str, pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Names and their values; what stands there twice may mean either."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise typer.BadParameter(f"{name} is stated twice among the {option}: "
                                     f"{found[name]} and {value}")
        found[name] = value
    return found


def _pair(text: str, group: str) -> tuple[str, Any]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if group == "fixed":
        return name, _number_or_text(value) if equals else "published"
    if not (name and equals and value):
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE")
    return name, value


def _effect(text: str) -> tuple[str, str]:
    """Cmax ~ DOSE=power, or a formula as it stands: it may hold a = of its own."""
    match = re.fullmatch(r"(.*?)=\s*(\w+(?:\([^()]*\))?)\s*", text)
    return (match[1].strip(), match[2]) if match else (text, "formula")


def _level(text: str) -> tuple[str, list[str]]:
    """STUDY: Cmax, alpha."""
    column, colon, names = (part.strip() for part in text.partition(":"))
    listed = [part.strip() for part in names.split(",") if part.strip()]
    if not (column and colon and listed):
        raise typer.BadParameter(f"{text!r} is not COLUMN: PARAMETER, PARAMETER")
    return column, listed


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise typer.BadParameter(f"a DVID is a whole number, not {text!r}")
    return int(text)


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _literal(text: str) -> Any:
    """A value as TOML has it; bare words are text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
