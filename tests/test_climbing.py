"""Climbs to the modes, on surfaces whose tops are known; across kinks; and what they cost."""

import jax.numpy as jnp
import numpy as np
import pytest
from models_for_tests import cohort

from carpk import climbing
from carpk.approximations import Approximation
from carpk.climbing import Between, Point, climbed, uphill
from carpk.cohort import design
from carpk.empirical_bayes import laplace_start
from carpk.likelihood import data_of, from_theta
from carpk.population_model import population
from carpk.preparation import resolve
from carpk.sensitivities import Look
from carpk.structure import Output, Parameter, Source, StructuralModel, sd

WIDE = Between(np.zeros((1, 2)), [{0: 1e3}, {1: 1e3}], 1e-6 * np.eye(2))  # a flat population


def surface(height, slope, information):
    """seen_from of a surface of two parameters of each patient, and how often it was looked at."""
    looks = []

    def seen_from(phi):
        looks.append(phi)
        seen = Look(*[np.zeros(len(phi))] * 6, information(phi))
        return Point(phi, height(phi) - 0.5e-6 * (phi**2).sum(axis=1),
                     slope(phi) - 1e-6 * phi), seen
    return seen_from, looks


def bent(phi):
    """Higher along a ridge that bends, x1 = x0^2, with its top at (1, 1)."""
    x, y = phi.T
    return -2.0 * (y - x**2) ** 2 - 0.5 * (x - 1) ** 2


def bent_slope(phi):
    x, y = phi.T
    off = y - x**2
    return np.stack([8.0 * off * x - (x - 1), -4.0 * off], axis=1)


def bent_information(phi):
    x = phi[:, 0]
    down = np.stack([-2.0 * x, np.ones_like(x)], axis=1)
    return 4.0 * down[:, :, None] * down[:, None, :] + np.diag([1.0, 0.0])


@pytest.mark.parametrize("told", [1.0, 0.6, 4.0])
def test_a_climb_ends_at_the_top_whatever_the_information_says_of_the_curvature(told):
    seen_from, _ = surface(bent, bent_slope, lambda phi: told * bent_information(phi))
    start = np.array([[-1.0, 2.0], [3.0, 0.0], [1.0, 1.0]])
    top = climbed(WIDE, seen_from, start)
    assert top.phi == pytest.approx(np.ones((3, 2)), abs=1e-5)
    assert (top.decrement < 1e-12).all()
    assert (top.share == 1.0).all()


def test_a_step_that_is_remembered_saves_others(monkeypatch):
    counts = []
    for nothing_told in (False, True):
        if nothing_told:
            monkeypatch.setattr(climbing, "_BENT", (1.0, 0.0))
        seen_from, looks = surface(bent, bent_slope, lambda phi: 0.6 * bent_information(phi))
        climbed(WIDE, seen_from, np.array([[-1.0, 2.0], [3.0, 0.0]]))
        counts.append(len(looks))
    assert counts[0] < 0.7 * counts[1]


def ridged(force):
    """- force |x0 - 0.2| - (x0 - 1)^2 / 2 - (x1 + x0)^2: its slope jumps at x0 = 0.2."""
    def height(phi):
        x, y = phi.T
        return -force * np.abs(x - 0.2) - 0.5 * (x - 1) ** 2 - (y + x) ** 2

    def slope(phi):
        x, y = phi.T
        return np.stack([-force * np.sign(x - 0.2) - (x - 1) - 2 * (y + x), -2 * (y + x)], axis=1)
    return height, slope, lambda phi: np.broadcast_to([[3.0, 2.0], [2.0, 2.0]], (len(phi), 2, 2))


def test_a_kink_holds_the_mode_as_far_as_both_sides_push():
    # 0.8 pushes up from the kink, which holds with 2 on either side: 2 (1 - share) - 2 share = -0.8
    seen_from, looks = surface(*ridged(2.0))
    top = climbed(WIDE, seen_from, np.array([[-3.0, 1.0], [4.0, 4.0]]))
    assert top.phi == pytest.approx(np.array([[0.2, -0.2]] * 2), abs=1e-5)
    low = np.where(top.across[:, 0] > 0, top.share, 1.0 - top.share)  # of the side below
    assert low == pytest.approx((2.0 - 0.8) / 4.0, abs=1e-5)
    # across is one SD long in the metric of the curvature, and leaves x1 where x0 takes it
    assert np.abs(top.across) == pytest.approx(np.ones((2, 2)), abs=1e-4)
    assert len(looks) < 30


def test_a_weak_kink_is_crossed():
    seen_from, _ = surface(*ridged(0.5))
    top = climbed(WIDE, seen_from, np.array([[-3.0, 1.0], [0.2, -0.2]]))
    assert top.phi == pytest.approx(np.array([[0.5, -0.5]] * 2), abs=1e-5)
    assert (top.share == 1.0).all()


def test_a_climb_that_begins_beyond_all_numbers_ends_there_in_silence():
    nowhere = WIDE._replace(precision=np.full((2, 2), np.inf))

    def seen_from(phi):
        return Point(phi, np.full(len(phi), -np.inf), uphill(nowhere, phi, np.zeros_like(phi))), \
            Look(*[np.zeros(len(phi))] * 6, np.zeros((len(phi), 2, 2)))

    assert climbed(nowhere, seen_from, np.zeros((1, 2))).phi.tolist() == [[0.0, 0.0]]


PEAK = StructuralModel(
    title="a peak that may fall on a sample", source=Source("textbook"), time_unit="day",
    parameters=(Parameter("Tmax", 9.0, "day", "time of the peak", omega=sd(0.3)),
                Parameter("Cmax", 100.0, "mg/L", "peak", omega=sd(0.5))),
    outputs=(Output("C", "mg/L", "level"),),
    solution=lambda t, p: {"C": p.Cmax * jnp.exp(
        -jnp.where(t < p.Tmax, 0.6 * (p.Tmax - t), 0.3 * (t - p.Tmax)))}, file=__file__)


@pytest.fixture(scope="module", params=["focei", "laplace"])
def peaking(request):
    """A patient whose highest sample is at day 10, and the population around it."""
    rows = [("1", t, dv) for t, dv in ((4, 3.0), (7, 14.0), (10, 101.0), (14, 27.0), (21, 4.0))]
    seen = design(cohort(rows), PEAK)
    model, _ = resolve(population(PEAK), seen, {})
    theta = {"Tmax_pop": 9.0, "Cmax_pop": 100.0, "omega_Tmax": 0.3, "omega_Cmax": 0.5,
             "sigma_C_log": 0.3}
    return Approximation(model, data_of(model, seen), request.param), np.array(
        from_theta(model, {n: theta[n] for n in model.free}))


@pytest.mark.parametrize("name", ["omega_Cmax", "sigma_C_log"])
def test_the_objective_does_not_jump_where_a_kink_holds_the_mode(peaking, name):
    approximation, u = peaking
    along = np.array([n == name for n in approximation.model.free], float)
    values, shares = [], []
    for moved in np.linspace(-0.8, 0.8, 81):
        found = approximation.likelihood(u + moved * along)
        values.append(found.patients[0])
        shares.append(found.modes.share[0])
    assert np.sum(np.array(shares) < 1.0) > 20
    # by the slopes of one side alone, whichever phi ends on, it jumped by 0.07 and 0.09
    assert np.abs(np.diff(values, 2)).max() < 0.02


def test_on_a_kink_scores_tell_how_the_shares_of_its_sides_move(peaking):
    """All but that of Cmax_pop, which moves the mode along the kink: that is left out. Without the
    shares the score of Tmax_pop is off by 0.1 to 2.5."""
    approximation, u = peaking
    free = approximation.model.free
    found = approximation.likelihood(u, scores=True)
    assert found.kinked[0]
    slopes = {}
    for name, step in zip(free, 1e-3 * np.eye(len(u)), strict=True):
        above, below = (approximation.likelihood(u + s, found.modes.phi).patients[0]
                        for s in (step, -step))
        slopes[name] = (above - below) / 2e-3
    scores = dict(zip(free, found.scores[0], strict=True))
    del slopes["Cmax_pop"], scores["Cmax_pop"]
    assert scores == pytest.approx(slopes, abs=0.02)


def test_where_nothing_varies_there_is_nothing_to_climb():
    rows = [("1", 4, 3.0), ("1", 10, 101.0), ("2", 14, 27.0)]
    seen = design(cohort(rows), PEAK)
    model, _ = resolve(population(PEAK, spread=[]), seen, {})
    start = laplace_start(model, data_of(model, seen), seed=1)
    assert start.phi.shape == (2, 0)
    assert np.isfinite(start.log_likelihood).all()
