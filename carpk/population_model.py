"""A structural model with its patients: spread, covariates, residual errors, priors, what is held
fixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd

from carpk import registry
from carpk.censoring import METHODS
from carpk.classes import Mixture, asked_mixture, wrong_shares
from carpk.correlated import asked_blocks, correlations
from carpk.covariate_models import CovariateEffect
from carpk.earlier import Earlier
from carpk.effects import AUTO, asked_effects, coefficients, covariate_model
from carpk.epochs import OCCASION, RULES
from carpk.error_models import ErrorModel, error_model, without_column
from carpk.horseshoe import Horseshoe
from carpk.levels import Level, asked_levels
from carpk.missing import Missing, asked_missing
from carpk.paired_errors import Pair, asked_pairs, rho_of
from carpk.priors import LINKS, Prior, Scale
from carpk.problems import Problem, RequestError, unknown
from carpk.separate_errors import Residual, Separate, asked_separate, residuals, sigma_of, stem
from carpk.stated_values import (
    Nameable,
    asked_correlations,
    given_priors,
    held_values,
    joint_priors,
)
from carpk.structure import Parameter, Solver, StructuralModel


@dataclass(frozen=True)
class PopulationModel:
    """Structure + spread + covariates + residual errors + priors + what is fixed.

    Population parameters are named `CL_pop` (natural scale), `beta_CL_WT` (link scale),
    `omega_CL` (SD of eta on the link scale), `corr_CL_V` and `sigma_Cc_prop`. `spread` lists the
    parameters that vary between patients, `blocks` those of them whose etas are correlated;
    `effects` are the covariates, which a cohort gives references and levels; `priors` and `fixed`
    are by population parameter; `reasons` says why a prior or a fixed value is what it is,
    wherever that was not asked for. `steps` is the mesh of an ODE solve; 0 leaves it to the fit,
    which may find that a few patients need a `finer` one: its steps, and who they are;
    `censoring` says what is done with levels below a limit, `etas` what shape the spread has;
    `mixture` are latent classes of patients, with `delta_CL_2` (link scale) and `share_2`;
    `levels` are studies, products or sites, with `tau_STUDY_CL` and `b_STUDY_CL_A`.
    `time_varying` says by which rule of `carpk.epochs` a column changes in a patient; `occasions`
    are the parameters that differ, by gamma_CL, between the `courses` a patient has at most;
    `earlier` is the posterior of another fit that some of the priors are the marginals of, and
    `horseshoe` the prior of the coefficients together. `separate` says of outputs by which column
    their residual errors are, with `sigma_C_log_qPCR`; those of the outputs of `error_pairs` are
    correlated within a sample, by `rho_A_B`. `missing` are the covariates whose missing values are
    modelled, with mean_WT, sd_WT and z_WT_17, see `carpk.missing`.
    """

    structure: StructuralModel
    errors: Mapping[str, str]
    spread: tuple[str, ...]
    priors: Mapping[str, Prior] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    steps: int = 0
    effects: tuple[CovariateEffect, ...] = ()
    blocks: tuple[tuple[str, ...], ...] = ()
    censoring: str = "M3"
    etas: str = "normal"
    mixture: Mixture | None = None
    levels: tuple[Level, ...] = ()
    time_varying: Mapping[str, str] = field(default_factory=dict)
    occasions: tuple[str, ...] = ()
    courses: int = 0
    earlier: Earlier | None = None
    horseshoe: Horseshoe | None = None
    separate: Mapping[str, Separate] = field(default_factory=dict)
    error_pairs: tuple[Pair, ...] = ()
    missing: tuple[Missing, ...] = ()
    finer: tuple[int, tuple[str, ...]] = (0, ())

    @property
    def varying(self) -> tuple[Parameter, ...]:
        """The parameters with between-patient spread, in the order of every eta array."""
        return tuple(self.structure.parameter(n) for n in self.spread)

    @property
    def kappas(self) -> tuple[str, ...]:
        """Patients' deviations in each course, which stand in phi behind the parameters' etas."""
        return tuple(f"kappa_{n}_{j + 1}" for n in self.occasions for j in range(self.courses))

    @property
    def sds(self) -> tuple[str, ...]:
        """The names of the SDs of what stands in phi: omegas, and gammas of the kappas."""
        return (*(f"omega_{n}" for n in self.spread),
                *(f"gamma_{n}" for n in self.occasions for _ in range(self.courses)))

    @property
    def rules(self) -> dict[str, str]:
        """By which rule each column changes in a patient that the model reads row by row."""
        return {**({OCCASION: "locf"} if self.occasions else {}), **self.time_varying}

    @property
    def names(self) -> tuple[str, ...]:
        """Every population parameter: typical values, coefficients, spreads, correlations,
        spreads between occasions, residual errors."""
        return (*(f"{p.name}_pop" for p in self.structure.parameters),
                *(n for e in self.effects for n in coefficients(e)),
                *(self.horseshoe.names if self.horseshoe else ()),
                *(self.mixture.names if self.mixture else ()),
                *(n for level in self.levels for n in level.names),
                *(n for gap in self.missing for n in gap.names),
                *(f"omega_{n}" for n in self.spread),
                *(n for block in self.blocks for n in correlations(block)),
                *(f"gamma_{n}" for n in self.occasions),
                *self.residuals, *map(rho_of, self.error_pairs))

    @property
    def stems(self) -> tuple[str, ...]:
        """What names of population parameters begin with that a cohort completes."""
        return (*(e.stem for e in self.effects),
                *(level.stem(n) for level in self.levels for n in level.parameters),
                *(name for gap in self.missing for name in gap.stems),
                *(f"{stem(o, s)}_" for o in self.separate for s in self.error_models()[o].sigmas))

    @property
    def free(self) -> tuple[str, ...]:
        """The population parameters that are estimated."""
        return tuple(n for n in self.names if n not in self.fixed)

    @property
    def residuals(self) -> dict[str, Residual]:
        """What each residual parameter is of, by its name."""
        return residuals(self.error_models(), self.separate)

    def error_models(self) -> dict[str, ErrorModel]:
        """The residual error model of each output."""
        return {o: error_model(e) for o, e in self.errors.items()}

    def scale(self, parameter: str) -> Scale:
        """The link of a structural parameter."""
        return LINKS[self.structure.parameter(parameter).link]

    @property
    def covariates(self) -> tuple[str, ...]:
        """The columns of the file that effects read."""
        return tuple(dict.fromkeys((*(n for e in self.effects for n in (
            (e.column,) if e.form == AUTO else covariate_model(e).needs(e))),
            *(level.column for level in self.levels))))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the file that the model reads beside the inputs of its structure."""
        return tuple(dict.fromkeys((*self.covariates, *self.rules,
                                    *(s.column for s in self.separate.values()))))

    @property
    def moved(self) -> frozenset[str]:
        """The parameters that covariates or levels move."""
        return frozenset((*(e.parameter for e in self.effects),
                          *(n for level in self.levels for n in level.parameters)))

    def effect_columns(self, covariates: pd.DataFrame) -> dict[str, np.ndarray]:
        """What the coefficients of each effect multiply, (P, C) by the effect's key, and those of
        each level; without the effects that change in a patient.

        covariates : index ID, the columns of the file; 0 of a missing value that is modelled, and
            no other that an effect reads is missing
        """
        columns = {}
        for e in (e for e in self.effects if not self.changes(e)):
            form, gap = covariate_model(e), self.gap(e)
            if gap is None:
                columns[e.key] = np.asarray(form.columns(form.read(covariates, e), e))
                continue
            lacking = gap.lacking(covariates)
            there = np.asarray(form.columns(form.read(covariates[~lacking], e), e))
            columns[e.key] = np.zeros((len(lacking), there.shape[1]))
            columns[e.key][~lacking] = there
        return columns | {level.key: level.columns(covariates) for level in self.levels} | {
            gap.key: gap.rows(covariates) for gap in self.missing}

    def gap(self, effect: CovariateEffect) -> Missing | None:
        """Of an effect whose column has missing values that are modelled, these."""
        return next((m for m in self.missing if m.column == effect.column), None)

    @property
    def hidden(self) -> tuple[Missing, ...]:
        """The categories whose missing levels are summed over."""
        return tuple(m for m in self.missing if m.kind == "category")

    def changes(self, effect: CovariateEffect) -> bool:
        """Whether an effect changes in a patient: one of the columns it reads does."""
        needs = (effect.column,) if effect.form == AUTO else covariate_model(effect).needs(effect)
        return any(n in self.time_varying for n in needs)

    def location(self, theta: Mapping[str, Any], columns: Mapping[str, Any], parameter: str) -> Any:
        """Where a parameter lies on its link scale, by its typical value and the covariates.

        theta : population values by name, natural scale; columns : of `effect_columns`
        returns : (P,), or a scalar where no covariate moves it
        """
        at = self.scale(parameter).to_real(theta[f"{parameter}_pop"])
        for e in self.effects:
            if e.parameter == parameter and e.key in columns:
                at = at + self.shift(e, theta, columns)
        for level in self.levels:
            at = at + level.shift(columns[level.key], theta, parameter)
        return at

    def shift(self, effect: CovariateEffect, theta: Mapping[str, Any], columns: Mapping[str, Any]) \
            -> Any:
        """(P,), what one effect adds on its parameter's link scale; see `location`."""
        form, gap, own = covariate_model(effect), self.gap(effect), columns[effect.key]
        if gap is not None:
            own = gap.filled(effect, own, columns[gap.key], theta)
        return form.shift(own, [theta[n] for n in form.names(effect)])

    def patient_values(self, theta: Mapping[str, Any], columns: Mapping[str, Any], phi: Any) \
            -> dict[str, Any]:
        """Each patient's structural parameters.

        theta : population values by name, natural scale; columns : of `effect_columns`
        phi : (P, K), the varying parameters on their link scale, and the kappas
        returns : each parameter as (P,), natural scale; of one that changes in a patient, its
            value at the references of what changes, without a kappa
        """
        values: dict[str, Any] = {}
        for p in self.structure.parameters:
            if p.name in self.spread:
                value = LINKS[p.link].from_real(phi[:, self.spread.index(p.name)])
            elif p.name in self.moved:
                value = LINKS[p.link].from_real(self.location(theta, columns, p.name))
            else:
                value = theta[f"{p.name}_pop"]
            values[p.name] = jnp.broadcast_to(value, phi.shape[:1])
        return values

    def sigma(self, theta: Mapping[str, Any], output: str,
              units: Mapping[str, Any] | None = None) -> SimpleNamespace:
        """The residual parameters of one output, read as `sigma.add`; units : where some are
        separate, of `separate_errors.units_of`, at the rows that are looked at."""
        return sigma_of(theta, self.error_models()[output], output, self.separate.get(output),
                        units)


def population(model: str | StructuralModel, *, errors: Mapping[str, str] | None = None,
               spread: Iterable[str] | None = None,
               correlated_errors: Iterable[Iterable[str]] = (),
               covariates: Mapping[str, str] | Iterable[str] = (),
               correlated: str | Iterable[Iterable[str]] = (), etas: str = "normal",
               classes: str | None = None, censoring: str = "M3",
               levels: Mapping[str, str | Iterable[str]] | None = None,
               time_varying: Mapping[str, str] | None = None, occasions: Iterable[str] = (),
               missing: Mapping[str, str] | Iterable[str] | None = None,
               fixed: Mapping[str, float | str] | Iterable[str] | None = None,
               priors: Mapping[str, Prior | str] | str | None = None,
               free: Iterable[str] = (), steps: int = 0, solver: Solver | None = None) \
        -> PopulationModel:
    """A population model from a structural model, its name or the path of its file.

    errors : {output: error model}, its tails, and the column by whose levels (assays, studies) it
        is separate, "lognormal student_t by ASSAY"; the model file's own where not given.
    correlated_errors : pairs of outputs whose errors are correlated where both are measured at
        the same time in a patient, as two assays of one sample; see `carpk.paired_errors`
    spread : the parameters that vary between patients; the model file's where not given.
    covariates : {"Cmax ~ DOSE": "power"}, or "power(3.1)" with a reference, else the patients'
        median or most frequent level; or formulas, ["Cmax ~ log(DOSE) + RESPONSE"]
    correlated : lists of parameters whose etas are correlated, or "full" for all that vary
    etas : normal, or student_t (4 degrees of freedom) where single patients lie far out: omega is
        then its scale, 0.71 of its SD
    classes : "2: Cmax, alpha", two latent classes of patients whose typical Cmax and alpha
        differ, numbered in rising order of Cmax; the model file's own where not given, "1" none
    levels : {"STUDY": "Cmax, alpha"}, columns whose units (studies, products, sites) differ in
        these parameters by more than chance, with the SD tau_STUDY_Cmax between them
    censoring : M3, or M1, M4, M6, M7 to see what they do; see `carpk.censoring`
    time_varying : {column: rule} of covariates that change in a patient: locf, nocb, linear or
        window; see `carpk.epochs`. Equations are solved with each epoch's own parameters; a closed
        form takes such a column only where it changes at a reset (EVID=3 or 4) and nowhere else.
        A patient's value of a parameter is then that at the covariate's reference: the level of
        a window while it is off, else the median of the patients' values at time 0
    occasions : the parameters that differ between the occasions of a patient, which the column
        OCC numbers; see `carpk.occasions`. gamma_CL is the SD between them on the link scale
    missing : {column: "model"}, or a list, of covariates that some patients lack, which are
        refused otherwise. A number is normal (its logarithm under a power) given the covariates no
        patient lacks, a category is summed over its levels; see `carpk.missing`
    fixed : {population parameter: value}; the value "published", or a plain list of names,
        holds the model file's value. `free` frees what the model file fixes.
    priors : {population parameter: "lognormal(24000, 1.5)"}; weakly informative defaults around
        the published values for the rest. {"from": "fits/RUN:0.5"}, or that text alone, takes
        the posterior of a fit, its covariance divided by 0.5; see `carpk.earlier`.
        {"covariates": "horseshoe(2)"} lets 2 of all coefficients matter; see `carpk.horseshoe`.
        {"correlated": "lkj(4)"} is of every block of correlations.
    steps : mesh steps per patient of an ODE solve; chosen by the accuracy they give where 0.
    solver : tsit5, or rodas4 for stiff equations; the model file's, else chosen like the steps.
        diffrax_tsit5 and diffrax_kvaerno5 (stiff) check them: see `carpk.diffrax_steps`
    Raises RequestError with every name or value that is not understood.

    >>> population("stein_2019", fixed=["beta"]).fixed["beta_pop"]
    0.0032
    """
    structure = registry.find_model(model) if isinstance(model, str) else model
    found: list[Problem] = []
    known = {p.name for p in structure.parameters}
    outputs = [o.name for o in structure.outputs]
    chosen = {o.name: o.error for o in structure.outputs} | dict(errors or {})
    found += [unknown("output", o, outputs) for o in chosen if o not in outputs]
    separate, more = asked_separate(chosen)
    pairs, paired = asked_pairs({o.name: error_model(chosen[o.name]) for o in structure.outputs},
                              correlated_errors, censoring) if not more else ((), [])
    found += more + paired
    vary = tuple(spread) if spread is not None else \
        tuple(p.name for p in structure.parameters if p.omega is not None)
    found += [unknown("parameter", n, known) for n in vary if n not in known]
    effects, problems = asked_effects(structure, covariates)
    blocks, more = asked_blocks(vary, correlated)
    stated, earlier, sparse, lkj, effects, last = joint_priors(priors, effects)
    found += problems + more + last
    if etas not in ("normal", "student_t"):
        found.append(unknown("shape of the etas", etas, ("normal", "student_t")))
    above, problems = asked_levels(structure, levels or {}, effects)
    mixture, more = asked_mixture(structure, classes, vary)
    gaps, last = asked_missing(missing or {}, effects, time_varying or {})
    found += problems + more + last
    if censoring not in METHODS:
        found.append(unknown("censoring method", censoring, METHODS))
    rules, again = dict(time_varying or {}), tuple(dict.fromkeys(occasions))
    found += [unknown("parameter", n, known) for n in again if n not in known]
    found += [unknown("rule", r, RULES) for r in rules.values() if r not in RULES]
    if found:
        raise RequestError(found)
    structure = dataclasses.replace(
        structure, solver=solver or structure.solver, outputs=tuple(
            dataclasses.replace(o, error=without_column(chosen[o.name])[0])
            for o in structure.outputs))
    asked = PopulationModel(structure, chosen, vary, effects=effects, blocks=blocks,
                            censoring=censoring, etas=etas, mixture=mixture,
                            levels=above, time_varying=rules, occasions=again, earlier=earlier,
                            horseshoe=sparse, separate=separate, error_pairs=pairs, missing=gaps)
    found = [Problem("error", "a rule for a column that no covariate effect reads",
                     f"they read {', '.join(asked.covariates) or 'none'}", column="time_varying",
                     found=n) for n in rules if n not in asked.covariates]
    nameable = Nameable(structure, mixture, asked.names, asked.stems)
    values, reasons, problems = held_values(nameable, fixed or {}, set(free))
    given, more = given_priors(nameable, stated)
    found += problems + more
    found += [Problem("error", "both fixed and given a prior",
                      "drop one; `free` frees what the model file fixes", column=n)
              for n in given if n in values]
    if found:
        raise RequestError(found)
    still = tuple(n for n in vary if values.get(f"omega_{n}") != 0)  # SD 0: it does not vary
    again = tuple(n for n in again if values.get(f"gamma_{n}") != 0)
    sds = {f"{sd}_{p.name}" for p in structure.parameters for sd in ("omega", "gamma")}
    values = {n: v for n, v in values.items() if n not in sds or v != 0}
    blocks = tuple(b for block in blocks if len(b := tuple(n for n in block if n in still)) > 1)
    given, found = asked_correlations(blocks, lkj, given, values)
    if mixture:
        found += asked_mixture(structure, mixture.written, still)[1]
        found += wrong_shares(mixture, given, values)
    if found:
        raise RequestError(found)
    return dataclasses.replace(asked, spread=still, occasions=again, blocks=blocks, priors=given,
                               fixed=values, steps=steps,
                               reasons={**reasons, **dict.fromkeys(given, "asked for")})
