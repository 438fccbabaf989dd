"""A population model made ready for one cohort: default priors, what is held, the mesh."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from carpk.accuracy import MESHES, Mesh, by, chosen_mesh
from carpk.changes import effects_over_time, epochs_of, resolved_over_time
from carpk.classes import class_priors, published_classes
from carpk.cohort import Design
from carpk.correlated import correlations
from carpk.earlier import adopted
from carpk.effects import coefficients, resolved_effects
from carpk.levels import level_priors, resolved_levels
from carpk.likelihood import data_of, predicted_rows, read_by_errors
from carpk.missing import missing_priors, resolved_missing
from carpk.occasions import courses_of
from carpk.paired_errors import pair_problems, rho_of
from carpk.population_model import PopulationModel
from carpk.priors import Prior
from carpk.problems import DataError, Problem, RequestError, errors
from carpk.separate_errors import resolved_separate
from carpk.solve import arrays, predict
from carpk.structure import StructuralModel
from carpk.units import same_unit

# SD of a default prior on the log (or logit) scale: a factor of 20 either way within 95 %
_WIDTH = 1.5


def resolve(model: PopulationModel, design: Design, units: Mapping[int | str, str]) \
        -> tuple[PopulationModel, tuple[Problem, ...]]:
    """The model with every covariate, prior and fixed value decided for this cohort, with
    reasons; and what a user should know of its covariates.

    A parameter in the unit of an output that the cohort gives in another unit (cells/uL where
    the paper has copies/ug) cannot take the paper's value: its prior is centred where the
    typical curve's peak meets the patients' observed peaks (geometric mean), with the same width.
    """
    structure, (model, warnings) = model.structure, with_effects(model, design)
    fixed, reasons = dict(model.fixed), dict(model.reasons)
    priors: dict[str, Prior] = {**_covariate_priors(model, design, reasons)}
    if model.mixture:
        priors |= class_priors(structure, model.mixture, reasons)
    for level in model.levels:
        priors |= level_priors(structure, level, reasons)
    for gap in model.missing:
        priors |= missing_priors(gap, reasons)
    of_classes = published_classes(structure, model.mixture)
    for block in model.blocks:
        priors |= dict.fromkeys(correlations(block), Prior("lkj", (2.0,)))
    for p in structure.parameters:
        name = f"{p.name}_pop"
        if p.requires and name not in model.priors and name not in fixed and \
                _all_default(structure, design, p.requires):
            fixed[name] = p.typical
            reasons[name] = f"no patient has {p.requires}: the data say nothing about it"
    for name, (output, s, _) in model.residuals.items():
        in_units = s in model.error_models()[output].in_units
        scale = _spread_of_dv(structure, design, output) if in_units else 1.0
        if s == "power":  # 0 is additive, 1 proportional; beyond 2 nobody has been
            priors[name] = Prior("normal", (1.0, 0.5))
            continue
        priors[name] = Prior("halfnormal", (scale,))
        if in_units:
            reasons.setdefault(name, "default: scaled to the SD of the observed DV")
    priors |= {rho_of(pair): Prior("lkj", (2.0,)) for pair in model.error_pairs}
    for p in structure.parameters:
        if f"{p.name}_pop" in fixed:
            continue
        given = of_classes.get(f"{p.name}_pop", p.typical)
        centre, why = given, "default: around the model file's value"
        for seen in structure.outputs:
            unit = units.get(seen.dvid, seen.unit)
            if p.unit == seen.unit and not same_unit(unit, seen.unit):
                centre = given * _peak_ratio(structure, design, seen.name)
                why = (f"default: the cohort is in {unit}, the model in {seen.unit}; centred "
                       "where the typical peak meets the patients' peaks (geometric mean)")
        family, width = {"log": ("lognormal", _WIDTH), "logit": ("logitnormal", _WIDTH),
                         "identity": ("normal", max(2 * abs(centre), 1.0))}[p.link]
        priors[f"{p.name}_pop"] = Prior(family, (centre, width))
        reasons.setdefault(f"{p.name}_pop", why)
    for p in model.varying:
        scale = max(p.size, p.omega.omega) if p.omega else p.size
        if p.omega and not p.omega.published:
            scale = 2.0 * p.omega.omega
            reasons.setdefault(f"omega_{p.name}", "default: twice the assumed spread")
        priors[f"omega_{p.name}"] = Prior("halfnormal", (scale,))
    for name in model.occasions:
        p = structure.parameter(name)
        scale = max(p.size, p.omega.omega) if p.omega else p.size
        priors[f"gamma_{name}"] = Prior("halfnormal", (scale,))
    model = _with_joint_priors(model, design, units, priors, fixed, reasons)
    if model.earlier is not None:
        warnings += model.earlier.dropped(model.effects)
    priors = {**priors, **model.priors}
    return dataclasses.replace(
        model, fixed=fixed, priors={n: priors[n] for n in model.names if n not in fixed},
        reasons={n: reasons.get(n, "default") for n in model.names}), warnings


def _with_joint_priors(model: PopulationModel, design: Design, units: Mapping[int | str, str],
                       priors: dict[str, Prior], fixed: Mapping[str, float],
                       reasons: dict[str, str]) -> PopulationModel:
    """The model with what is left to an earlier posterior and to a horseshoe; notes their priors,
    and why, among the others. What was asked for by name stands."""
    earlier, sparse = model.earlier, model.horseshoe
    if earlier is not None:
        if model.mixture:
            raise RequestError(Problem(
                "error", "latent classes take no prior from a fit without them",
                "state priors one by one", column="priors", found=earlier.written))
        earlier = adopted(earlier, model.structure, {
            n: p for n, p in priors.items() if n not in fixed and n not in model.priors
            and not any(n in gap.deviations for gap in model.missing)},  # of other patients
            model.blocks, units)
        priors |= earlier.priors
        reasons |= dict.fromkeys(earlier.priors, f"the posterior of {earlier.written}, "
                                 "correlated as there")
    if sparse is not None:
        sizes = {n: priors[n].numbers[1] for e in model.effects for n in coefficients(e)
                 if n not in (*fixed, *model.priors, *(earlier.priors if earlier else ()))}
        sparse, more = sparse.over(sizes, len(design.ids), _noise(model))
        priors |= more
        reasons |= dict.fromkeys(more, f"{sparse.written} over {len(sizes)} coefficients")
    return dataclasses.replace(model, earlier=earlier, horseshoe=sparse)


def with_effects(model: PopulationModel, design: Design, planned: bool = False) \
        -> tuple[PopulationModel, tuple[Problem, ...]]:
    """The model with each covariate's form, reference and levels, the units of the levels above
    the patients, and warnings.

    planned : nothing is to be estimated, so patients may all be alike
    Raises DataError with everything that is wrong with the columns the covariates read.
    """
    source = next((p.file for p in design.warnings if p.file), "")
    still, found = resolved_effects(
        model.structure, [e for e in model.effects if not model.changes(e)], design.covariates,
        design.varying, source, [m.column for m in model.missing], planned)
    gaps, more = ((), []) if errors(found) else resolved_missing(
        model.missing, still, model.spread, design.covariates, source)
    found += more
    levels, more = resolved_levels(model.levels, design.covariates, design.varying, source)
    found += more
    separate, more = resolved_separate(
        model.separate, [o.name for o in model.structure.outputs], design, source)
    found += more + pair_problems(model.error_pairs, list(model.errors), design, source)
    courses, more = courses_of(model, design, source)
    found += more
    changing, more = ((), []) if errors(more) else resolved_over_time(
        model, design, source, planned)
    found += more
    if errors(found):
        raise DataError(found)
    by_key = {e.key: e for e in (*still, *changing)}
    effects = tuple(by_key[e.key] for e in model.effects)
    whole = dataclasses.replace(model, effects=effects, levels=levels, courses=courses,
                                missing=gaps, separate=separate)
    unknown = [n for n in (*model.priors, *model.fixed) if n not in whole.names]
    if unknown:
        there = (*(n for e in effects for n in coefficients(e)),
                 *(n for level in levels for n in level.names),
                 *(n for gap in gaps for n in gap.names),
                 *(n for n, r in whole.residuals.items() if r.unit))
        raise RequestError(Problem("error", "no such coefficient or level",
                                   f"these there are: {', '.join(there)}", column=n)
                           for n in unknown)
    return whole, tuple(found)


def _covariate_priors(model: PopulationModel, design: Design, reasons: dict[str, str]) \
        -> dict[str, Prior]:
    """normal(0, 1) of each coefficient, in SDs of what it multiplies."""
    priors, still = {}, model.effect_columns(design.covariates)
    if (epochs := epochs_of(model, design)) is not None:
        moving = effects_over_time(model, design, epochs)
        still |= {k: v[epochs.lasting()].reshape(-1, v.shape[-1]) for k, v in moving.items()}
    for e in model.effects:
        columns, gap = still[e.key], model.gap(e)
        columns = columns if gap is None else columns[~gap.lacking(design.covariates)]
        p = model.structure.parameter(e.parameter)
        size, large = p.size, "a factor of e" if p.link != "identity" else f"{p.size:g} {p.unit}"
        for k, name in enumerate(coefficients(e)):
            sd = 1.0 if e.form == "category" else float(np.std(columns[:, k]))
            priors[name] = Prior("normal", (0.0, float(f"{size / sd:.2g}")))
            reasons.setdefault(name, f"default: {large} for "
                               + ("the level" if e.form == "category" else "an SD of the column"))
    return priors


def _noise(model: PopulationModel) -> float:
    """What effects stand against: the spread of the parameters they move (geometric mean), in
    the unit of their coefficients' default priors; 0.5 where the model file has none."""
    moved = [model.structure.parameter(e.parameter) for e in model.effects]
    return float(np.exp(np.mean([np.log(p.omega.omega / p.size if p.omega else 0.5)
                                 for p in moved] or [0.0])))


def _all_default(structure: StructuralModel, design: Design, name: str) -> bool:
    default = next(i.default for i in structure.inputs if i.name == name)
    return bool(np.all(design.inputs[name] == default))


def _observed(structure: StructuralModel, design: Design, output: str) -> np.ndarray:
    """(P, N), DV of the measured rows of one output, NaN elsewhere."""
    index = [o.name for o in structure.outputs].index(output)
    rows = design.observed & ~design.censored & (design.output == index)
    return np.where(rows, design.upper, np.nan)


def _spread_of_dv(structure: StructuralModel, design: Design, output: str) -> float:
    values = _observed(structure, design, output)
    values = values[~np.isnan(values)]
    return float(np.std(values)) if values.size > 1 and np.std(values) > 0 else 1.0


def _peak_ratio(structure: StructuralModel, design: Design, output: str) -> float:
    """Observed peaks (geometric mean over patients) over the typical curve's peak."""
    values = _observed(structure, design, output)
    peaks = [np.nanmax(v) for v in values if np.isfinite(v).any() and np.nanmax(v) > 0]
    if not peaks:
        return 1.0
    index = [o.name for o in structure.outputs].index(output)
    typical = {n: np.full(len(design.ids), v) for n, v in structure.typical.items()}
    curve = np.asarray(predict(structure, arrays(design, structure, 150), typical))
    rows = np.where(design.observed & (design.output == index), curve, -np.inf)
    top = rows.max(axis=1)
    return float(np.exp(np.mean(np.log(peaks)) - np.mean(np.log(top[top > 0]))))


def choose_steps(model: PopulationModel, seen: Design, tolerance: float = 5e-3) \
        -> PopulationModel:
    """The model with the method and the fewest mesh steps that predict within `tolerance` on the
    log scale.

    Steps double from 15 until twice as many move no prediction of the typical patient, nor of
    one with every parameter a spread away, by more. Where 960 explicit steps do not suffice, the
    equations are taken to be stiff and the implicit method is tried. A method or steps that
    were asked for are kept. `solve_error` looks again where the fit has gone.

    All patients walk the same number of steps. Where a tenth of them or fewer need four times
    those of the others, or more, they alone have the finer mesh.
    """
    structure = model.structure
    if not structure.states:
        return model
    values = {n: model.priors[n].median if n in model.priors else model.fixed[n]
              for n in model.names}
    mu = np.array([float(model.scale(n).to_real(jnp.asarray(values[f"{n}_pop"])))
                   for n in model.spread])
    size = np.array([p.omega.omega if p.omega else 0.5 for p in model.varying])
    mu, size = (np.append(v, np.zeros(len(model.kappas))) for v in (mu, size))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (len(seen.ids), len(mu)))
    patients = (np.broadcast_to(mu, signs.shape), mu + size * signs)

    run, ladder = _log_predictions(model, seen, values), MESHES["fit"][structure.solver]
    least_room, runs = 4 * ladder[0][1], dict[Mesh, np.ndarray]()

    def logs(mesh: Mesh) -> np.ndarray:
        room = max(mesh[1], least_room)  # which the first three share; mostly they suffice
        return np.stack([run(mesh, phi, room) for phi in patients])

    if model.steps:
        method = structure.solver
        if method == "auto":
            explicit = np.isfinite(logs(("tsit5", model.steps))).all()
            method = "tsit5" if explicit else "rodas4"
        return dataclasses.replace(model, structure=by(structure, (method, 0)))
    moved: dict[Mesh, np.ndarray] = {}  # by the coarser of two, of each patient
    for mesh in ladder:
        runs[mesh] = logs(mesh)
        if len(runs) > 1:
            coarse, fine = list(runs)[-2:]
            apart = np.abs(runs[fine] - runs[coarse]).max(axis=(0, 2))
            moved[coarse] = np.where(np.isnan(apart), np.inf, apart)
            if (moved[coarse] <= tolerance).all():
                break
    chosen, decide = chosen_mesh(list(runs), np.stack(list(moved.values())), tolerance)
    for coarse, apart in moved.items():
        left = decide & (apart > tolerance)
        if coarse[0] == chosen[0] and 4 * coarse[1] <= chosen[1] and left.sum() <= _few(seen.ids):
            return dataclasses.replace(
                model, structure=by(structure, coarse), steps=coarse[1],
                finer=(chosen[1], tuple(np.array(seen.ids, object)[left])))
    return dataclasses.replace(model, structure=by(structure, chosen), steps=chosen[1])


def _few(ids: tuple[str, ...]) -> int:
    """How many patients may have a finer mesh than the others."""
    return max(len(ids) // 10, 1) if len(ids) > 2 else 0


class SolveError(NamedTuple):
    """How far twice the mesh steps move each patient's predictions, at most: (P,) on the log
    scale, and (P,) in SDs of the residual error; infinite where a solve failed.

    enough : (P,), the steps that suffice; 0 where none do that a fit would try
    """

    logs: np.ndarray
    sds: np.ndarray
    enough: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """(P,), where it is more than 0.1 of ln level, or than a tenth of the residual SD."""
        return np.asarray((self.logs > 0.1) | (self.sds > 0.1))

    @property
    def noted(self) -> np.ndarray:
        """(P,), where it is worth a remark."""
        return self.wrong | (self.logs > 0.02)


def solve_error(model: PopulationModel, seen: Design, theta: Mapping[str, float],
                phi: np.ndarray) -> SolveError:
    """What the mesh leaves out where the fit has gone; 0 for a closed form.

    theta : population values, phi : (P, K)
    """
    if not model.structure.states:
        return SolveError(*np.zeros((3, len(seen.ids))))
    run, method = _log_predictions(model, seen, theta), model.structure.solver
    units = read_by_errors(model, seen).get("separate")

    def errors_of(steps: int, room: int = 0) -> SolveError:
        coarse, fine = (run((method, n), phi, max(room, 2 * steps)) for n in (steps, 2 * steps))
        sds = np.zeros_like(fine)
        for k, (output, error) in enumerate(model.error_models().items()):
            before, after = (error.working(np.exp(v)) for v in (coarse, fine))
            sd = error.sd(np.exp(fine), model.sigma(theta, output, units))
            sds = np.where(seen.output == k, np.abs(after - before) / sd, sds)
        each = (np.where(seen.observed, v, 0.0) for v in (np.abs(fine - coarse), sds))
        logs, sds = (np.where(np.isnan(v), np.inf, v).max(axis=1) for v in each)
        return SolveError(logs, sds, np.full(len(fine), steps))

    found, (steps, who) = errors_of(model.steps), model.finer
    if who:
        found = SolveError(*(np.where(np.isin(seen.ids, who), finer, coarse)
                             for finer, coarse in zip(errors_of(steps), found, strict=True)))
    if not found.noted.any():
        return found
    enough, most = np.where(found.noted, 0, found.enough), MESHES["fit"][method][-1][1]
    for steps in (model.steps << k for k in range(1, 20)):
        if steps > most or enough.all():
            break
        better = ~errors_of(steps, 2 * most).noted
        enough = np.where((enough == 0) & better, steps, enough)
    return found._replace(enough=enough)


def refined(model: PopulationModel, ids: tuple[str, ...], error: SolveError) -> PopulationModel:
    """The model on a mesh that suffices where a fit has gone: the model itself where its own does
    or where no mesh is known to help. As in `choose_steps` few patients alone have the finer one.
    """
    helped = error.wrong & (error.enough > 0)
    if not helped.any():
        return model
    steps, (fine, who) = int(error.enough[helped].max()), model.finer
    every = (*who, *(i for i, here in zip(ids, helped, strict=True) if here and i not in who))
    if steps >= 4 * model.steps and len(every) <= _few(ids):
        return model if (fine >= steps and every == who) else dataclasses.replace(
            model, finer=(max(steps, fine), every))
    return dataclasses.replace(
        model, steps=steps, finer=(fine, who) if fine >= 4 * steps else (0, ()))


def _log_predictions(model: PopulationModel, seen: Design, theta: Mapping[str, float]) \
        -> Callable[[Mesh, np.ndarray, int], np.ndarray]:
    """run(mesh, phi, room) -> (P, N): ln of each prediction; a tenth of the cohort's smallest level
    is added first, because errors far below any limit move no likelihood. Meshes of one method
    with the same room for nodes share a program."""
    positive = seen.upper[seen.observed & (seen.upper > 0) & np.isfinite(seen.upper)]
    floor = 0.1 * float(positive.min()) if positive.size else 1e-6
    programs: dict[str, Callable[..., jax.Array]] = {}

    def run(mesh: Mesh, phi: np.ndarray, room: int) -> np.ndarray:
        tried = dataclasses.replace(
            model, structure=by(model.structure, mesh), steps=mesh[1], finer=(0, ()))
        program = programs.setdefault(mesh[0], jax.jit(
            lambda data, phi: predicted_rows(tried, data, theta, phi)))
        predicted = program(data_of(tried, seen, room), jnp.asarray(phi))
        return np.where(seen.observed, np.log(np.abs(predicted) + floor), 0.0)

    return run
