"""The catalogue of models and the card of one, as text and as plain data."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import itertools
import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from carpk.problems import Problem, RequestError
from carpk.structure import Classes, StructuralModel
from carpk.taxonomy import ALLOWED, LAYERS, Taxonomy

_WIDTHS = (40, 14, 7, 16, 15)  # with two blanks between them, 100
_HELD = ("populations", "phenotypes", "layers")  # what --with looks at
_WRITTEN = {
    "car_t": "CAR T", "normal_t": "normal T", "normal_b_maturation": "B maturation",
    "classic_pk": "classic PK", "pk": "PK", "pkpd": "PK/PD", "qsp": "QSP", "pbpk": "PBPK",
    "pbpk_pd": "PBPK/PD", "semi_mechanistic": "semi-mechanistic", "blood_qpcr": "blood qPCR",
    "cd4": "CD4", "cd8": "CD8", "habitats_or_topology": "habitats or topology"}


def catalogue(models: Iterable[StructuralModel]) -> str:
    """What each model is for, at most 100 columns wide: its name with its title below."""
    head = ("model", "populations", "layers", "formalism", "fitted on")
    blocks: list[list[tuple[str, ...]]] = [[(title,) for title in head]]
    for m in models:
        t = m.taxonomy
        facts = (", ".join(map(_plain, t.populations)), f"{t.index} of {len(LAYERS)}",
                 f"{_plain(t.depth)} {_plain(t.kinetics)}, {_form(m)}", fitted_on(t)) if t else \
            ("-", "-", _form(m), "-")
        title = textwrap.wrap(m.title, _WIDTHS[0] - 2, initial_indent="  ",
                              subsequent_indent="  ", break_on_hyphens=False)
        blocks.append([(m.name, *title), *(
            tuple(textwrap.wrap(fact, width, break_on_hyphens=False))
            for fact, width in zip(facts, _WIDTHS[1:], strict=True))])
    lines = (line for block in blocks for line in itertools.zip_longest(*block, fillvalue=""))
    return "\n".join("  ".join(cell.ljust(width) for cell, width in
                               zip(line, _WIDTHS, strict=True)).rstrip() for line in lines)


def fitted_on(taxonomy: Taxonomy) -> str:
    """The setting and disease of the data, and at which level they were fitted.

    >>> fitted_on(Taxonomy("pk", "empirical", setting=("clinical",), disease="CLL",
    ...                    parameters_from="fitted", fit_level="nlme"))
    'clinical: CLL (NLME)'
    """
    where = ", ".join(map(_plain, taxonomy.setting))
    said = ": ".join(part for part in (where, taxonomy.disease) if part)
    if taxonomy.parameters_from not in ("fitted", "mixed"):
        how = "not fitted"
    else:
        how = {"nlme": "NLME", "individual": "one by one", "population_mean": "means"}.get(
            taxonomy.fit_level, "fitted")
    return f"{said} ({how})" if said else how


def chosen(models: Iterable[StructuralModel], disease: str | None = None,
           formalism: str | None = None, holding: Iterable[str] = ()) -> list[StructuralModel]:
    """The models that meet every wish; RequestError with each word that no model can meet.

    disease : part of the disease's name
    formalism : a word of the taxonomy's kinetics or depth ("pkpd"), or "ode", "closed form"
    holding : populations, phenotypes and layers, or a part of their names ("memory")
    """
    known, found = list(models), []
    diseases = sorted({m.taxonomy.disease for m in known if m.taxonomy and m.taxonomy.disease})
    if disease and not any(_squeezed(disease) in _squeezed(d) for d in diseases):
        found.append(_no_such("disease", disease, diseases))
    forms = (*ALLOWED["kinetics"], *ALLOWED["depth"], "ode", "closed_form")
    if formalism and _squeezed(formalism) not in map(_squeezed, forms):
        found.append(_no_such("formalism", formalism, forms))
    words = list(dict.fromkeys(w for group in _HELD for w in ALLOWED[group]))
    holding = list(holding)
    found += [_no_such("with", wish, words) for wish in holding if not _meets(wish, words)]
    if found:
        raise RequestError(found)
    return [m for m in known if _suits(m, disease, formalism, holding)]


def _suits(m: StructuralModel, disease: str | None, formalism: str | None,
           holding: list[str]) -> bool:
    t = m.taxonomy
    forms = [_form(m), *((t.kinetics, t.depth) if t else ())]
    held = [w for group in _HELD for w in getattr(t, group)] if t else []
    return (not disease or (t is not None and _squeezed(disease) in _squeezed(t.disease))) and (
        not formalism or _squeezed(formalism) in map(_squeezed, forms)) and all(
        _meets(wish, held) for wish in holding)


def _meets(wish: str, words: Iterable[str]) -> bool:
    """Whether one of the words is the wish, or has it among its parts (tumor, too)."""
    asked = _squeezed(wish).replace("tumour", "tumor").replace("tumor", "tumour")
    return bool(asked) and any(
        asked == _squeezed(w) or asked in (p := w.split("_")) or f"{asked}s" in p for w in words)


def _squeezed(text: str) -> str:
    """Letters and digits only: PK/PD, pk_pd and PKPD are one.

    >>> _squeezed("semi-mechanistic PK/PD")
    'semimechanisticpkpd'
    """
    return "".join(c for c in text.lower() if c.isalnum())


def _no_such(option: str, found: str, known: Iterable[str]) -> Problem:
    listed = list(known)
    near = difflib.get_close_matches(found.lower(), listed, n=2)
    return Problem("error", f"no model is known by this --{option}",
                   f"did you mean {' or '.join(near)}?" if near else
                   f"known: {', '.join(listed) or 'none'}", found=found)


def _form(model: StructuralModel) -> str:
    return "closed form" if model.solution else "ODE"


def _plain(word: str) -> str:
    """A word of the taxonomy as it is written in a sentence."""
    return _WRITTEN.get(word, word.replace("_", " "))


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
        "doses": plain(model.doses), "dosing": {s: sorted(w) for s, w in model.dosed.items()},
        "outputs": plain(model.outputs), "derived": plain(model.derived),
        "parameter_sets": {title: dict(v) for title, v in model.parameter_sets.items()},
        "classes": model.classes and dataclasses.asdict(model.classes),
        "taxonomy": _taxonomy(model.taxonomy), "doubts": list(model.doubts)}


def _taxonomy(taxonomy: Taxonomy | None) -> dict[str, Any] | None:
    return None if taxonomy is None else {"index": taxonomy.index, **{
        f.name: list(v) if isinstance(v := getattr(taxonomy, f.name), tuple) else
        dict(v) if f.name == "laws" else v for f in dataclasses.fields(taxonomy)}}


def _written_taxonomy(t: Taxonomy) -> str:
    """The taxonomy for a reader, a line for each thing that is said."""
    def listed(words: Iterable[str]) -> str:
        return ", ".join(map(_plain, words))

    made_for = ", ".join(part for part in (t.product, t.antigen, t.disease) if part)
    rows = [("what it describes", listed(t.populations) + (
                f"; CAR T cells as {listed(t.phenotypes)}" if t.phenotypes != ("undivided",)
                else "")),
            ("where", listed(t.habitats) + (
                f" ({_plain(t.distribution)})" if t.distribution != "none" else "")),
            ("layers", f"{t.index} of {len(LAYERS)}" + (f": {listed(t.layers)}" if t.layers
                                                        else "")),
            ("formalism", f"{_plain(t.depth)} {_plain(t.kinetics)}, {t.use} use"),
            ("laws", "; ".join(f"{_plain(k)}: {_plain(v)}" for k, v in t.laws.items())),
            ("product, antigen, disease", made_for),
            ("fitted on", fitted_on(t)), ("measured", listed(t.measured))]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(textwrap.fill(said, 100, initial_indent=name.ljust(width),
                                   subsequent_indent=" " * width, break_on_hyphens=False)
                     for name, said in rows if said)


def written_card(model: StructuralModel) -> str:
    """The card of a model for a reader."""
    doi = f"\nhttps://doi.org/{model.source.doi}" if model.source.doi else ""
    form = "closed form" if model.solution else "ordinary differential equations"
    parts = [f"{model.name}: {model.title}", f"{model.source.citation}{doi}",
             _docstring(model), _written_taxonomy(model.taxonomy) if model.taxonomy else "",
             f"Given as {form}; time in {model.time_unit}."]
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
        ("state", [(s.name, s.unit, s.meaning, f"ratio to {s.ratio_to}" if s.ratio_to else
                    f"{s.scale} scale") for s in model.states]),
        ("output", [(o.name, o.unit, o.meaning, f"DVID {o.dvid}, {o.error} error")
                    for o in model.outputs]),
        ("derived", [(d.name, d.unit, d.meaning, "") for d in model.derived])]
    units = {s.name: s.unit for s in model.states}
    given = [f"{d.amount:g} {units[d.state]} into {d.state} at {d.at:g}"
             + (f" over {d.over:g}" if d.over else "") for d in model.doses]
    parts += [aligned([(title, "unit", "meaning", ""), *items]) for title, items in groups
              if items]
    parts += [f"Usual doses: {'; '.join(given)}"] if given else []
    own = [f"{state}: {', '.join(sorted(words))}" for state, words in model.dosed.items()]
    parts += [f"Of doses the model says, by state: {'; '.join(own)}"] if own else []
    sets = [f"{title}: {', '.join(f'{k} = {v:g}' for k, v in values.items())}"
            for title, values in model.parameter_sets.items()]
    parts += [f"Classes of patients\n{_classes(model.classes)}"] if model.classes else []
    parts += ["Other published values\n" + "\n".join(f"  {s}" for s in sets)] if sets else []
    parts += ["Doubts\n" + "\n".join(f"  {d}" for d in model.doubts)] if model.doubts else []
    return "\n\n".join(part for part in parts if part)


def _classes(own: Classes) -> str:
    """A line for each latent class."""
    return "\n".join(
        f"  {k + 1}{f' ({own.names[k]})' if own.names else ''}, share {share:g}: "
        + ", ".join(f"{n} = {v[k]:g}" for n, v in own.values.items())
        for k, share in enumerate(own.shares))


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
