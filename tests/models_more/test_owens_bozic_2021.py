"""Owens & Bozic 2021: who is cured, by carpk's own solver over all plans; resting states."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import fsolve
from test_models import GOLDEN, assert_printed, design_of, printed, table

from carpk import registry
from carpk.solve import arrays, predict
from carpk.structure import named

MODEL = registry.load("models", "owens_bozic_2021")
GOLD = GOLDEN["owens_bozic_2021"]
SETS = list(MODEL.parameter_sets)
STATES = [s.name for s in MODEL.states]
PULSE = 1 / 48  # half an hour
PLANS = {"C3": (3, 125.0), "C5": (5, 77.0)}  # infusions, uM/day
CELLS = {"DL1": 1e5, "DL2": 1e6, "DL3": 2.5e6}
BURDEN = {"low": (1e9, 1e8), "med": (5e9, 5e8), "high": (1e10, 9.8e8)}  # lymphoma, melanoma


def infusions(plan):
    days, amount = PLANS[plan]
    return [(float(t), "M", amount * PULSE, PULSE) for t in range(days)]


def cured(patients, until):
    """Of every (set, T0, doses): does the tumour end below one cell?"""
    times, most = np.array([0.0, until]), max(len(doses) for _, _, doses in patients)
    rows = [[*doses, *[(0.0, "C", 0.0, 0.0)] * (most - len(doses))] for _, _, doses in patients]
    time, amount, duration = (np.array([[d[k] for d in row] for row in rows]) for k in (0, 2, 3))
    design = dataclasses.replace(
        design_of(MODEL, {"set": SETS[0]}, times, ["T"] * len(patients)),
        inputs={"T0": np.array([T0 for _, T0, _ in patients]),
                "E0": np.full(len(patients), 4e5)},
        dose_time=time, dose_amount=amount, dose_duration=duration,
        dose_state=np.array([[STATES.index(d[1]) for d in row] for row in rows]),
        dose_line=np.ones(time.shape, int))
    values = {n: jnp.array([MODEL.parameter_sets[s][n] for s, *_ in patients])
              for n in MODEL.typical}
    data = arrays(design, MODEL, 10_000)  # at its capacity a tumour inactivates 134 times a day
    last = np.asarray(jax.jit(lambda v: predict(MODEL, data, v))(values))[:, -1]
    assert np.isfinite(last).all()
    return last < 1.0


def test_the_longest_rest_after_which_a_plan_cures_is_the_recomputed_one():
    rows = table(GOLD["plans"]["longest_rest"])
    asked, wanted = [], []
    for k, (patient, burden) in enumerate(zip(rows["patient"], rows["burden"], strict=True)):
        title = SETS[int(patient) - 1]
        for plan in (p for p in rows if "-" in p):
            chemo, level = plan.split("-")
            for rest in range(2, 19):
                # what is well inside either side is not solved
                border = int(rows[plan][k])
                if rest in {2, max(border, 2), max(border + 1, 2)}:
                    day = PLANS[chemo][0] - 1.0 + rest
                    asked.append((title, BURDEN[burden][int(patient) > 2],
                                  [*infusions(chemo), (day, "C", CELLS[level], 0.0)]))
                    wanted.append(rest <= border)
    seen = cured(asked, 80.0)
    wrong = [a for a, s, w in zip(asked, seen, wanted, strict=True) if s != w]
    assert not wrong


@pytest.mark.parametrize("patient", GOLD["patient"], ids=lambda p: p["set"])
def test_more_car_t_cells_than_the_threshold_cure_a_low_burden_without_chemotherapy(patient):
    value, half_unit = printed(patient["threshold"])
    low = BURDEN["low"]["melanoma" in patient["set"]]
    plans = [(patient["set"], low, [(0.0, "C", value + side * half_unit, 0.0)])
             for side in (-1, 1)]
    assert cured(plans, 160.0).tolist() == [False, True]


@pytest.mark.parametrize("patient", GOLD["patient"], ids=lambda p: p["set"])
def test_an_untreated_tumour_rests_at_the_printed_state(patient):
    p = named(MODEL.parameter_sets[patient["set"]])

    def slopes(u):
        y = {"T": np.exp(u[0]), "E": np.exp(u[1]), "C": 0.0, "M": 0.0}
        dy = MODEL.rates(0.0, named(y), p)
        return [float(dy["T"]) / y["T"], float(dy["E"]) / y["E"]]

    start = [np.log(printed(patient["rest"][n])[0]) for n in ("T", "E")]
    rest = np.exp(fsolve(slopes, start, xtol=1e-12))
    for value, name in zip(rest, ("T", "E"), strict=True):
        assert_printed(float(value), patient["rest"][name])


@pytest.mark.parametrize("title", SETS)
def test_chemotherapy_alone_cures_nobody(title):
    melanoma = "melanoma" in title
    assert not cured([(title, BURDEN["low"][melanoma], infusions(plan)) for plan in PLANS],
                     80.0).any()


@pytest.mark.parametrize("plan", list(PLANS))
def test_the_drugs_exposure_is_its_dose_over_its_decay(plan):
    dose = sum(amount for *_, amount, _ in infusions(plan))
    assert_printed(dose / MODEL.typical["gamma"], GOLD["plans"]["area"][plan])


@pytest.mark.parametrize("title", SETS)
def test_the_tumour_free_state_is_a_stable_node(title):
    p = named(MODEL.parameter_sets[title])
    # a linear state of the tumour: the logarithm has no resting value at 0
    y = {"T": 1e-30, "E": p.g / p.m_E, "C": 0.0, "M": 0.0}
    dy = MODEL.rates(0.0, named(y), p)
    np.testing.assert_allclose(float(dy["T"]) / y["T"], p.a - p.d_E, rtol=1e-6)
    assert MODEL.derive(p)["cure_rate"] > 0
    assert abs(float(dy["E"])) < 1e-6


@pytest.mark.parametrize(("j_C", "near", "shares"), [
    (0.6, [(0.55, 8e4, 4e7), (0.935, 5e4, 1.5e7), (0.9999, 8e4, 2e4)],
     ("0.5511", "0.935", "0.9999")),
    (0.3, [(0.31, 1.6e5, 3e7), (0.998, 6e4, 1e6), (0.9999, 8e4, 3e4)],
     ("0.3086", "0.9985", "0.9999"))])
def test_melanoma_and_car_t_cells_coexist_at_three_burdens_the_middle_one_stable(j_C, near, shares):
    p = named({**MODEL.parameter_sets["patient 3, melanoma"], "j_C": j_C})

    def slopes(u):  # of ln T, ln E and ln C
        y = named({**dict(zip("TEC", jnp.exp(u), strict=True)), "M": 0.0})
        dy = MODEL.rates(0.0, y, p)
        return jnp.stack([dy[n] / getattr(y, n) for n in "TEC"])

    jacobian = jax.jit(jax.jacfwd(slopes))
    for (x, E, C), share, unstable in zip(near, shares, (1, 0, 1), strict=True):
        rest, _, well, _ = fsolve(slopes, np.log([x / p.b, E, C]), xtol=1e-12, fprime=jacobian,
                                  full_output=True)
        assert well == 1
        assert_printed(float(np.exp(rest[0])) * p.b, share)
        assert (np.linalg.eigvals(jacobian(rest)).real > 0).sum() == unstable
