"""Barros 2021: mice dosed and challenged in mid-course, extinction, the two rests."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from test_models import GOLDEN, assert_printed, named, printed, table

from carpk import registry
from carpk.cohort import Design
from carpk.solve import arrays, predict

MODEL = registry.load("models", "barros_2021_cartmath")
GOLD = GOLDEN["barros_2021_cartmath"]
STATES = ["CT", "CM", "T"]
MICE = {m["name"]: m for m in GOLD["mouse"]}


@jax.jit
def slopes(u, p):
    """Of CT, CM and ln T."""
    T = jnp.exp(jnp.maximum(u[2], -600.0))
    dy = MODEL.rates(0.0, named({"CT": u[0], "CM": u[1], "T": T}), named(p))
    return jnp.stack([dy["CT"], dy["CM"], dy["T"] / T])


jacobian = jax.jit(jax.jacfwd(slopes))


def crossings(pieces, k, level):
    """The days state k falls through the level."""
    days = []
    for path in pieces:
        t = np.linspace(path.t_min, path.t_max, 4001)
        u = path(t)[k]
        for j in np.nonzero((u[:-1] >= level) & (u[1:] < level))[0]:
            days.append(brentq(lambda s, path=path: path(s)[k] - level, t[j], t[j + 1]))
    return days


def mouse(p, doses, until):
    """The pieces of the path between doses: each maps days to CT, CM and ln T."""
    u, start, pieces = np.array([0.0, 0.0, math.log(p["T0"])]), 0.0, []
    for day, state, cells in [*doses, [until, "", 0.0]]:
        path = solve_ivp(lambda _, u: np.asarray(slopes(u, p)), (start, day), u, method="LSODA",
                         jac=lambda _, u: np.asarray(jacobian(u, p)), rtol=1e-12,
                         atol=[1e-13, 1e-13, 1e-12], dense_output=True)
        assert path.success
        pieces.append(path.sol)
        u, start = path.y[:, -1].copy(), day
        if state == "T":
            u[2] = np.logaddexp(u[2], math.log(cells))
        elif state:
            u[STATES.index(state)] += cells
    return pieces


def at(pieces, day):
    """CT, CM and T at a day, before a dose of that day."""
    path = next(s for s in pieces if day <= s.t_max)
    CT, CM, ln_T = path(day)
    return {"CT": CT, "CM": CM, "T": math.exp(ln_T)}


def fate(dose, T0=2e6, until=300.0):
    """The tumour some time after one dose at day 42."""
    p = {**MODEL.parameter_sets["HDLM-2"], "T0": T0}
    return at(mouse(p, [[42.0, "CT", dose]], until), until)["T"]


def of(entry):
    return MODEL.parameter_sets[entry.get("set", "HDLM-2")]


@pytest.mark.parametrize("entry", GOLD["mouse"], ids=lambda m: m["name"])
def test_a_dosed_mouse_goes_the_printed_way(entry):
    rows = table(entry["printed"])
    days = [float(t) for t in rows.pop("t")]
    pieces = mouse(of(entry), entry["doses"], max(days))
    for name, texts in rows.items():
        for day, text in zip(days, texts, strict=True):
            seen = at(pieces, day)[name]
            if text == "0":
                assert seen < 1e-6
            elif text != "-":
                assert_printed(seen, text)
    for name, texts in entry.get("gone", {}).items():
        level = math.log(1e-6) if name == "T" else 1e-6
        gone = crossings(pieces, STATES.index(name), level)
        for day, text in zip(gone, texts, strict=True):
            assert_printed(day, text)


def test_split_doses_leave_more_memory_and_raji_peaks_on_day_nine():
    memory = {n: at(mouse(of(MICE[n]), MICE[n]["doses"], 200.0), 200.0)["CM"]
              for n in ("4d", "4e")}
    single = at(mouse(of({}), [[42, "CT", 2e6]], 200.0), 200.0)["CM"]
    assert_printed(100 * (memory["4d"] / single - 1), "7.6")
    assert_printed(100 * (memory["4e"] / single - 1), "14.4")
    path = mouse(of(MICE["3b"]), MICE["3b"]["doses"], 14.0)[1]
    days = np.linspace(8.0, 10.0, 2001)
    assert_printed(days[np.argmax(path(days)[0])], "8.875")


def test_the_dose_that_decides_between_response_and_escape():
    assert fate(2.5335e5, until=800.0) > 1e10
    assert fate(2.5345e5, until=800.0) < 8e5
    assert fate(1.3e6, T0=1e7) < 8e5


@pytest.mark.parametrize("entry", GOLD["rest"], ids=["residual", "escape"])
def test_the_tumour_rests_twice_once_stably(entry):
    p = named(MODEL.parameter_sets["HDLM-2"])
    near = [printed(entry["state"][n]) for n in STATES]

    def rates(x):
        dy = MODEL.rates(0.0, named(dict(zip(STATES, x, strict=True))), p)
        return jnp.stack([jnp.asarray(dy[n]) for n in STATES])

    x = jnp.array([value for value, _ in near])
    correction = np.linalg.solve(jax.jacfwd(rates)(x), -np.asarray(rates(x)))
    assert np.all(np.abs(correction) <= [half_unit for _, half_unit in near])
    values = np.linalg.eigvals(np.asarray(jax.jacfwd(rates)(x + correction)))
    wanted = entry["eigenvalues"]
    if len(wanted) == 1:  # the saddle
        assert np.sum(values.real > 0) == 1
        values = values[values.real > 0]
    for (real, imaginary), value in zip(wanted, sorted(values, key=lambda z: (z.real, -z.imag)),
                                        strict=True):
        assert_printed(value.real, real)
        assert_printed(value.imag, imaginary)


def test_hdlm_2_lies_where_response_and_escape_are_both_stable():
    p = named(MODEL.parameter_sets["HDLM-2"])
    scaled = {"p": (p.rho - p.phi) / p.r, "q": p.theta / (p.b * p.r), "s": p.alpha / (p.b * p.r),
              "u": p.eps / p.r, "w": p.mu / p.r}
    g = named({**scaled, "v": scaled["u"] - scaled["p"]})
    one = g.p * g.w / g.q
    both = g.s * g.w / g.q + 2 * math.sqrt(g.s * one)
    escape = g.s + (g.p + g.s) * g.w / g.q
    for value, text in ((g.p, "1.504418"), (g.q, "7.56353e7"), (g.s, "5.67265e5"),
                        (g.u, "2.654855"), (g.w, "8.84952e-2"), (g.v, "1.15044"),
                        (one, "1.760e-9"), (both, "6.3862e-2"), (escape, "5.67265e5"),
                        (1 / p.b, "7.1224e11")):
        assert_printed(value, text)
    assert both < g.v < escape


def design(entry, days, column):
    """A mouse observed by one output, dosed as the entry says."""
    doses, row = entry["doses"], np.ones((1, len(days)))
    each = np.ones((1, len(doses)))
    return Design(
        ids=("mouse",), time=row * days, lower=row, upper=row,
        output=np.full((1, len(days)), [o.name for o in MODEL.outputs].index(column)),
        observed=row > 0, line=np.arange(len(days))[None] + 2,
        inputs={"T0": np.array([of(entry)["T0"]])},
        dose_time=each * [d for d, _, _ in doses], dose_amount=each * [n for _, _, n in doses],
        dose_duration=0 * each, dose_state=np.array([[STATES.index(s) for _, s, _ in doses]]),
        dose_line=np.full((1, len(doses)), 99), excluded=pd.DataFrame(), warnings=())


@pytest.mark.parametrize("name", ["3a", "4b", "4c", "3b"])
def test_the_solver_agrees_with_an_independent_one(name):
    entry = MICE[name]
    first = entry["doses"][0][0]
    days = np.array([float(t) for t in table(entry["printed"])["t"] if float(t) > first])
    pieces = mouse(of(entry), entry["doses"], days[-1])
    values = {n: np.array([of(entry)[n]]) for n in MODEL.typical}
    for column in ("T", "CT"):
        data = arrays(design(entry, days, column), MODEL, 1920)  # half of it: 6e-4 in CT
        got = np.asarray(jax.jit(lambda v, data=data: predict(MODEL, data, v))(values))[0]
        wanted = np.array([at(pieces, d)[column] for d in days])
        some = wanted > 1e-6  # not extinct
        np.testing.assert_allclose(got[some], wanted[some], rtol=1e-4)
