"""What a reader gets of a fit: tables, figures and one page, all made again from the fit alone."""

from __future__ import annotations

import base64
import importlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from carpk import digits, plots, registry, tables
from carpk.endpoint_check import checked
from carpk.fit_exposure import ENDPOINTS, model_exposure
from carpk.fitting import Fit
from carpk.individual_information import contraction
from carpk.numerical_check import npc
from carpk.plots import all_patients

DRAWS = {
    "posterior": "draws from the posterior", "guide": "draws from the variational guide",
    "asymptotic": "draws from the asymptotic normal", "point": "a point estimate",
}
KINDS = {
    "typical": "Typical values", "covariate": "Covariates (on the link scale)",
    "shrinkage": "Horseshoe: what the coefficients are drawn to 0 by",
    "class": "Classes of patients (delta on the link scale)",
    "level": "Levels above the patients (tau: SD between units on the link scale, b in taus)",
    "missing": "Covariates that some patients lack",
    "spread": "Spread between patients (SD on the link scale)",
    "occasions": "Spread between a patient's occasions (SD on the link scale)",
    "correlation": "Correlation between a patient's parameters",
    "residual": "Residual error", "derived": "Derived, of the typical patient",
}

# how a reader goes on from the parameters; figures that are not named here come last
_ORDER = ("covariates", "all_patients", "individual_fits", "information", "observed_predicted",
          "residuals", "vpc", "numerical_check", "endpoints", "eta_covariates", "priors", "traces",
          "starts")

_LOOSE = 50  # percent: beyond it a value is poorly determined
_LEVELS = 6  # a covariate with more values has no groups to choose from
PLAIN = (  # reasons that need no word
    "default", "default: around the model file's value",
    "default: a factor of e for the level", "default: a factor of e for an SD of the column")


def report(fit: Fit, folder: str | Path, *, png: bool = False, docx: bool = False) -> Path:
    """Writes tables/*.csv, plots/*.svg and report.html into a folder; returns the page.

    Each file is written beside and renamed. The page holds everything it shows and needs no
    network. `png` adds plots/*.png; `docx` these and report.docx, the page for Word, and returns
    that.
    """
    folder = Path(folder)
    made = {"parameters": tables.parameters(fit), "individuals": tables.individuals(fit),
            "predictions": tables.predictions(fit), "excluded": tables.excluded(fit),
            "correlations": tables.correlations_of_estimates(fit),
            "exposure": model_exposure(fit), "endpoints": checked(fit), "npc": npc(fit)}
    if fit.model.spread:
        made["information"] = contraction(fit)
    if fit.model.effects:
        made["covariates"] = tables.covariates(fit)
    if "ofv" in fit.convergence.measures:
        made["likelihood"] = tables.likelihood_measures(fit)
    if "starts" in fit.manifest:
        made["starts"] = tables.starts(fit)
    if fit.posterior["posterior"].dataset.attrs["draws_from"] == "posterior":
        made["prior_sensitivity"] = tables.prior_sensitivity(fit)
    for name, table in made.items():
        _write(folder / "tables" / f"{name}.csv", _csv(table))
    names = sorted(registry.names("plots"), key=lambda n: (
        _ORDER.index(n) if n in _ORDER else len(_ORDER), n))
    drawn = [_figures(fit, name, folder / "plots", png or docx) for name in names]
    figures = [f for f in drawn if f.pages]
    page, text = folder / "report.html", _html(fit, made, figures)
    _write(page, text.encode())
    if docx:
        from carpk.word import document
        page = folder / "report.docx"
        _write(page, document(text, {file: (folder / "plots" / f"{file}.png").read_bytes()
                                     for f in figures for file, _, _ in f.pages}))
    return page


def verdict(fit: Fit) -> str:
    """Whether the fit can be used, in a few sentences: reasons against it, remarks, measures."""
    judged = fit.convergence
    if judged.ok:
        lines = [f"Converged{_measured(judged.measures)}."]
    else:
        lines = ["NOT CONVERGED: do not use these numbers.", *(f"- {r}" for r in judged.reasons)]
    return "\n".join([*lines, *(f"Note: {r}" for r in judged.remarks)])


def _measured(measures: Mapping[str, float]) -> str:
    """The measures a reader knows, as the end of a sentence."""
    forms = {"rhat_max": "R-hat at most {:.3f}", "ess_bulk_min": "bulk ESS at least {:.0f}",
             "ess_tail_min": "tail ESS at least {:.0f}",
             "divergences": "{:.0f} divergent transitions", "elbo": "evidence lower bound {:.2f}",
             "pareto_k": "Pareto k {:.2f} of the population",
             "pareto_k_joint": "{:.2f} of all parameters at once",
             "ofv": "OFV {:.3f} (without N log 2π)", "ofv_se": "Monte Carlo SE {:.2g}",
             "minus_two_log_likelihood": "−2 log-likelihood {:.3f} (with it)",
             "aic": "AIC {:.2f}", "bic": "BIC {:.2f}", "bicc": "BICc {:.2f}",
             "condition_number": "condition number {:.3g}"}
    said = [form.format(measures[name]) for name, form in forms.items() if name in measures]
    return (": " + ", ".join(said)).replace(" 0 divergent", " no divergent").replace(
        " 1 divergent transitions", " 1 divergent transition") if said else ""


@dataclass(frozen=True)
class _Figures:
    """One kind of figure as the page shows it: its pages as (file, what it shows, the picture),
    each picture a data URI or, where it is drawn in the page itself, SVG."""

    name: str
    title: str
    caption: str
    remark: str
    drawn: bool
    pages: list[tuple[str, str, str]]


def _figures(fit: Fit, name: str, folder: Path, png: bool) -> _Figures:
    """Draws one kind of figure and writes its files."""
    module: ModuleType = importlib.import_module(f"carpk.plots.{name}")
    drawn, pages = module is all_patients, []
    for stem, figure in module.draw(fit):
        picture = plots.svg(figure)
        _write(folder / f"{stem}.svg", picture)
        if png:
            _write(folder / f"{stem}.png", plots.png(figure))
        pages.append((stem, figure.get_suptitle(), _inline(picture, stem) if drawn else
                      "data:image/svg+xml;base64," + base64.b64encode(picture).decode()))
    remark = module.remark(fit) if hasattr(module, "remark") else ""
    return _Figures(name, module.TITLE, module.CAPTION, remark, drawn, pages)


def _inline(picture: bytes, stem: str) -> str:
    """An SVG as a part of the page: its names begin with the stem, as those of no other do."""
    text = picture.decode()
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{stem}-", text[text.index("<svg"):])


def _people(fit: Fit) -> dict[str, Any]:
    """What the drawing of all patients says of each, and the groups that it can show alone."""
    table = fit.design.covariates.reindex(list(fit.design.ids))
    said = {n: table[n].map(lambda v: f"{v:.6g}" if isinstance(v, float) else str(v))
            .where(table[n].notna(), "missing") for n in table.columns}
    few = {n: list(dict.fromkeys(v)) for n, v in said.items()}
    return {
        "prefix": all_patients.PATIENT,
        "about": {k: f"{patient}: " + ", ".join(f"{n} {said[n].iloc[k]}" for n in said)
                  for k, patient in enumerate(fit.design.ids)},
        "groups": {f"{n} {level}": np.flatnonzero(said[n] == level).tolist()
                   for n, levels in few.items() if 1 < len(levels) <= _LEVELS
                   for level in sorted(levels)}}


def _html(fit: Fit, made: Mapping[str, pd.DataFrame], figures: list[_Figures]) -> str:
    """The page; every text from files and models is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    manifest, of = fit.manifest, fit.posterior["posterior"].dataset.attrs["draws_from"]
    parameters = digits.format_table(made["parameters"])
    weak = tables.prior_dominated(fit)
    rows = parameters.to_dict("records")
    for row in rows:
        row["remark"] = _remark(row, weak)
        if row["prior"]:
            prior = fit.model.priors[row["parameter"]]
            row["prior"] = f"{prior.family}({', '.join(f'{x:.4g}' for x in prior.numbers)})"
    return environment.get_template("report.html.jinja").render(
        fit=fit, structure=fit.model.structure, manifest=manifest, figures=figures, weak=weak,
        people=_people(fit) if any(f.drawn for f in figures) else None,
        short=PurePath(manifest["data"]["file"]).name, measured=_measured(fit.convergence.measures),
        groups=[(title, [r for r in rows if r["kind"] == kind]) for kind, title in KINDS.items()],
        determined=_determined(rows, fit.model.free),
        fixed=[r for r in rows if r["parameter"] in fit.model.fixed],
        moved=[r for r in rows if r["parameter"] in fit.model.priors
               and fit.model.reasons.get(r["parameter"], "default") not in PLAIN],
        swayed=[r for r in made["prior_sensitivity"]["remark"] if r]
        if "prior_sensitivity" in made else [],
        outputs=_outputs(fit, made["predictions"]),
        excluded=_excluded(made["excluded"]), exposure=_exposure(fit, made["exposure"]),
        chosen_by=made["likelihood"].to_dict("records") if "likelihood" in made else [],
        draws=DRAWS.get(of, of), of=of, likeliest="estimates" in manifest,
        chained=of == "posterior",
        sizes=fit.posterior["posterior"].dataset.sizes,
        request=json.dumps(manifest["request"], indent=1, ensure_ascii=False))


def _determined(rows: list[dict[str, str]], free: Iterable[str]) -> str:
    """Which typical values the data fix best, and which least."""
    errors = sorted((float(r["rse"]), r["parameter"]) for r in rows
                    if r["kind"] == "typical" and r["parameter"] in free and r["rse"])
    if len(errors) < 2:
        return ""
    told = [f"{name.removesuffix('_pop')} (RSE {rse:.2g} %)" for rse, name in errors]
    least = [t for t, (rse, _) in zip(told, errors, strict=True) if rse > _LOOSE] or told[-1:]
    best = [t for t in told if t not in least][:3]
    return " ".join([f"Best determined of the typical values: {', '.join(best)}." if best else "",
                     f"{'Poorly' if errors[-1][0] > _LOOSE else 'Least'} determined: "
                     f"{', '.join(least)}."]).strip()


def _remark(row: Mapping[str, str], weak: Mapping[str, str]) -> str:
    """What a reader of the parameter table must know of one row; the reasons stand below it."""
    if row["parameter"] in weak:
        return "mostly its prior"
    note = row["note"].partition(":")
    return {"fixed": "fixed", "asked for": "asked for"}.get(note[0], "")


def _outputs(fit: Fit, predictions: pd.DataFrame) -> list[dict[str, Any]]:
    """How much of each output was fitted, and with which residual error."""
    said = []
    for output in fit.model.structure.outputs:
        rows = predictions[predictions["output"] == output.name]
        hidden = int((rows["censored"] != 0).sum())
        said.append({
            "label": plots.output_label(fit, output.name), "meaning": output.meaning,
            "rows": len(rows), "censored": hidden, "patients": rows["ID"].nunique(),
            "share": f"{100 * hidden / len(rows):.0f} %" if len(rows) else "",
            "error": fit.model.error_models()[output.name].title})
    return said


def _exposure(fit: Fit, table: pd.DataFrame) -> list[dict[str, Any]]:
    """Of each output the rows of exposure as text: the typical patient first."""
    time = fit.model.structure.time_unit
    said = []
    for output, part in table.groupby("output", sort=False):
        level = part["unit"].iloc[0]
        shown = [n for n in ENDPOINTS if part[f"{n}_median"].notna().any()]
        units = {"Cmax": level, "AUC0_28": f"{level}*{time}"}
        rows = []
        for row in part.sort_values("kind", ascending=False, kind="stable").to_dict("records"):
            cells = [_interval(row, n) for n in shown]
            if "Tbelow" in shown and pd.isna(row["Tbelow_median"]):
                share = row["below_share"]
                cells[shown.index("Tbelow")] = "" if pd.isna(share) else f"{100 * share:.0f} % are"
            rows.append((row["ID"] if row["kind"] == "patient" else "typical patient", cells))
        said.append({"output": output, "limit": part["limit"].iloc[0], "rows": rows, "columns": [
            f"{n.replace('_', '-') if n.startswith('AUC') else n.replace('_', ' ')} "
            f"({units.get(n, time)})" for n in shown]})
    return said


def _interval(row: Mapping[Any, Any], name: str) -> str:
    """A median and its interval; what lies beyond the horizon is left open."""
    median, low, high = (row[f"{name}_{k}"] for k in ("median", "lower95", "upper95"))
    if pd.isna(median):
        return ""
    uncertainty = (median - low) / 2 if pd.isna(high) else (high - low) / 4
    written = [digits.rounded(v, uncertainty) if uncertainty > 0 else f"{v:.4g}"
               for v in (median, low, high) if not pd.isna(v)]
    return f"{written[0]} ({written[1]} to {written[2]})" if len(written) == 3 else \
        f"{written[0]} ({written[1]} to later)"


def _excluded(table: pd.DataFrame) -> dict[str, Any]:
    """The rows that were not fitted, as text, and how many for which reason."""
    text = table.map(lambda v: "" if pd.isna(v) else v if isinstance(v, str) else f"{v:.6g}")
    return {"columns": list(table.columns), "rows": text.to_numpy().tolist(),
            "reasons": table["reason"].value_counts().to_dict()}


def _csv(table: pd.DataFrame) -> bytes:
    """CSV with a point, UTF-8, blanks where nothing is to be said; eight digits."""
    return table.to_csv(index=False, float_format="%.8g", lineterminator="\n").encode()


def _write(path: Path, content: bytes) -> None:
    """Whole or absent: written beside, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=f".{path.stem}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
