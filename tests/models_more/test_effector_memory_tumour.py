"""The generic effector, memory and tumour model under each of its 240 choices of laws.

Compiled one by one they would take a quarter of an hour. So each choice is one patient of a
model that switches between the laws, after its rates were shown to be those of `build`.
"""

import dataclasses
import itertools
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from test_models import design_of

from carpk import registry
from carpk.models import effector_memory_tumour as generic
from carpk.problems import ModelError
from carpk.solve import arrays, predict
from carpk.structure import Input, Parameter, named

OPTIONS = {"growth": generic.GROWTH, "killing": generic.KILLING, "expansion": generic.EXPANSION}
CHOICES = [dict(zip(OPTIONS, names, strict=True)) for names in itertools.product(*OPTIONS.values())]
MODELS = [generic.build(**choice) for choice in CHOICES]
NAMES = sorted({p.name for model in MODELS for p in model.parameters})
DAYS = np.array([1.0, 3.0, 5.0, 7.0, 10.0, 14.0, 21.0, 28.0, 60.0, 90.0, 180.0])


def switching_rates(t, y, p):
    def chosen(kind, *cells):
        which = getattr(p, kind).astype(int)
        return jax.lax.switch(which, [lambda option=option: generic.law(option, p, *cells)
                                      for option in OPTIONS[kind].values()])

    return generic.balance(y, p, chosen("growth", y.T), chosen("killing", y.E, y.T),
                           chosen("expansion", y.E, y.T))


SWITCHING = dataclasses.replace(
    generic.MODEL, rates=switching_rates,
    parameters=tuple(Parameter(n, 1.0, "-", "of its law") for n in NAMES),
    inputs=(*generic.MODEL.inputs, *(Input(kind, "-", "which law", 0.0) for kind in OPTIONS)))
WHICH = {kind: np.array([float(list(options).index(c[kind])) for c in CHOICES])
         for kind, options in OPTIONS.items()}
VALUES = {n: np.array([model.typical.get(n, 1.0) for model in MODELS]) for n in NAMES}


def data(steps):
    """Every choice as a patient whose CAR T cells are seen on DAYS, and then the tumour."""
    design = design_of(SWITCHING, {}, np.tile(DAYS, 2), ["CART"] * len(CHOICES))
    output = np.tile(np.repeat([0, 1], len(DAYS)), (len(CHOICES), 1))
    return arrays(dataclasses.replace(design, output=output, inputs=design.inputs | WHICH,
                                      ids=tuple(map(str, CHOICES))), SWITCHING, steps)


def test_the_default_is_the_first_law_of_each_kind():
    assert MODELS[0] == generic.MODEL
    assert CHOICES[0] == {"growth": "logistic", "killing": "mass_action",
                          "expansion": "michaelis_menten"}


def test_each_choice_declares_what_it_reads_and_has_the_rates_that_are_solved_below():
    cells = [named({"T": T, "E": E, "M": M}) for T, E, M in [(300.0, 20.0, 5.0), (1e-3, 1e3, 90.0)]]
    switching = jax.jit(lambda y, p: switching_rates(0.0, named(y), named(p)))
    for k, (choice, model) in enumerate(zip(CHOICES, MODELS, strict=True)):
        assert {**model.taxonomy.laws, "memory": ""} == {**choice, "memory": ""}
        p = {n: jnp.asarray(v[k]) for n, v in {**VALUES, **WHICH}.items()}
        for y in cells:
            own, solved = model.rates(0.0, y, named(model.typical)), switching(vars(y), p)
            for state in own:
                np.testing.assert_allclose(own[state], solved[state], rtol=1e-12, err_msg=choice)


@pytest.mark.slow
def test_every_choice_is_solved_with_finite_gradients():
    at = data(150)

    @jax.jit
    def values_and_slopes(values):
        value, pull = jax.vjp(lambda v: jnp.log(predict(SWITCHING, at, v)), values)
        return value, pull(jnp.ones_like(value))[0]

    value, slopes = values_and_slopes(VALUES)
    assert bool(jnp.isfinite(value).all())
    for name, slope in slopes.items():
        reads = np.array([name in model.typical for model in MODELS])
        assert bool(jnp.isfinite(slope).all()), name
        assert np.all(slope[~reads] == 0), f"{name} acts where it is not declared"
        assert np.all(slope[reads] != 0), f"{name} does nothing"


# the laws written anew, of the tumour T and the effectors E in plain floats

LAWS = {
    "growth": {
        "logistic": lambda T, p: p.r * T * (1 - T / p.K),
        "exponential": lambda T, p: p.r * T,
        "richards": lambda T, p: p.r * T * (1 - (T / p.K) ** p.v),
        "gompertz": lambda T, p: p.r * T * math.log(p.K / T),
        "bertalanffy": lambda T, p: p.a * T ** (2 / 3) - p.b * T,
        "power_law": lambda T, p: p.a * T ** p.q},
    "killing": {
        "mass_action": lambda E, T, p: p.k * E * T,
        "holling_2": lambda E, T, p: p.k * E * T / (p.hk + T),
        "holling_3": lambda E, T, p: p.k * E / (1 + (p.hk / T) ** p.nk),
        "saturating_in_effectors": lambda E, T, p: p.k * T * E / (p.hk + E),
        "hill_in_effectors": lambda E, T, p: p.k * T / (1 + (p.hk / E) ** p.nk),
        "ratio_dependent": lambda E, T, p: p.k * T / (p.sk * (T / E) ** p.nk + 1),
        "beddington_deangelis": lambda E, T, p: p.k * E * T / (1 + p.ak * T + p.bk * E),
        "one_to_one": lambda E, T, p: p.k * pairs(E, T, p.hk)},
    "expansion": {
        "michaelis_menten": lambda E, T, p: p.rho * E * T / (p.hE + T),
        "mass_action": lambda E, T, p: p.rho * E * T,
        "hill": lambda E, T, p: p.rho * E / (1 + (p.hE / T) ** p.nE),
        "saturating_in_effectors": lambda E, T, p: p.rho * T * E / (p.hE + E),
        "one_to_one": lambda E, T, p: p.rho * pairs(E, T, p.hE)},
}


def pairs(E, T, h):
    s = h + E + T
    return 2 * E * T / (s + math.sqrt(s * s - 4 * E * T))


def independent(choice, model):
    """ln(E + M), then ln T, on DAYS by scipy."""
    p = named(model.typical)
    grow, kill, expand = (LAWS[kind][name] for kind, name in choice.items())

    def slopes(t, u):
        T, E, M = math.exp(u[0]), math.exp(u[1]), u[2]
        recalled = p.rM * T / (p.hM + T) * M
        return [(grow(T, p) - kill(E, T, p)) / T,
                (expand(E, T, p) + recalled) / E - p.lE - p.cM, p.cM * E - p.lM * M - recalled]

    path = solve_ivp(slopes, (0.0, DAYS[-1]), [math.log(1000.0), math.log(p.E0), 0.0],
                     method="LSODA", t_eval=DAYS, rtol=1e-9, atol=1e-11)
    assert path.success
    return np.concatenate([np.log(np.exp(path.y[1]) + path.y[2]), path.y[0]])


def test_every_choice_agrees_with_its_equations_written_anew_under_another_solver():
    at = data(960)
    seen = np.log(np.asarray(jax.jit(lambda v: predict(SWITCHING, at, v))(VALUES)))
    for row, choice, model in zip(seen, CHOICES, MODELS, strict=True):
        np.testing.assert_allclose(row, independent(choice, model), rtol=1e-4, atol=1e-4,
                                   err_msg=choice)


# how a choice is made


def test_a_users_file_of_two_lines_makes_a_choice(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from carpk.models.effector_memory_tumour import build\n"
                    'MODEL = build(growth="gompertz", killing="holling_2", expansion="hill")\n')
    model = registry.load_file(file)
    assert model.taxonomy.laws["growth"] == "gompertz"
    assert {"r", "K", "k", "hk", "rho", "hE", "nE"} < set(model.typical)
    assert pickle.loads(pickle.dumps(model)) == model
    assert model.rates != generic.MODEL.rates


def test_a_law_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from carpk.models.effector_memory_tumour import build\n"
                    'MODEL = build(killing="holling")\n')
    with pytest.raises(ModelError, match=r"killing 'holling' is none of mass_action, holling_2"):
        registry.load_file(file)


def test_the_docstring_offers_exactly_the_options_there_are():
    lines = generic.__doc__.partition("\ngrowth ")[2].partition("\n\n")[0]
    offered = ("growth " + lines).replace(",", " ").split()
    assert offered == [word for kind, options in OPTIONS.items() for word in (kind, *options)]
