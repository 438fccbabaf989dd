"""Profiles against closed forms, and what is said where there is no limit."""

import math
from pathlib import Path

import numpy as np
import pytest
from level_fits import level_fit, levels, likeliest, minus_two
from scipy.optimize import brentq, minimize
from typer.testing import CliRunner

from carpk import cli, profiling
from carpk.fitting import load_fit
from carpk.population_model import population
from carpk.problems import RequestError
from carpk.profiling import RISE, Point, profile, side
from carpk.refitting import Refitting

Y = levels()
NAMES = ("a_pop", "omega_a", "sigma_C_add")


def rise(name, value):
    """The OFV with one value held and the others at their best, above the least; closed form."""
    place, at = NAMES.index(name), np.array(list(likeliest(Y).values()))
    scale = np.array([1.0, at[1], at[2]])

    def whole(x):
        a, omega, sigma = np.insert(x, place, value / scale[place]) * scale
        return minus_two(Y, a, abs(omega), abs(sigma))

    best = minimize(whole, np.delete(at / scale, place), method="Nelder-Mead",
                    options={"xatol": 1e-8, "fatol": 1e-10})
    return best.fun - minus_two(Y, *at)


@pytest.fixture(scope="module")
def found():
    with pytest.MonkeyPatch.context() as patch:
        made = Refitting(load_fit(level_fit()))
        patch.setattr(profiling, "Refitting", lambda fit, method: made)
        return profile(level_fit(), ["omega_a", "a_pop"])


def test_limits_are_where_the_ofv_of_the_closed_form_has_risen_by_384(found):
    table = found.table.set_index("parameter")
    assert list(table.index) == ["omega_a", "a_pop"]
    for name, row in table.iterrows():
        at = likeliest(Y)[name]
        for end, far in (("lower95", 0.2), ("upper95", 3.0)):
            limit = brentq(lambda v, n=name: rise(n, v) - RISE, at, far * at, xtol=1e-6)
            # within 0.01 of the OFV, whose slope there is about 4 in units of half the interval
            assert row[end] == pytest.approx(limit, abs=0.005 * abs(limit - at))
        assert row["remark"] == ""
    skew = table.loc["omega_a"]
    assert skew["upper95"] - skew["estimate"] > 1.3 * (skew["estimate"] - skew["lower95"])


def test_every_point_is_that_of_the_closed_form(found):
    points = found.points[found.points["rise"] > 0]
    assert (points.groupby("parameter").size() >= 4).all()
    for p in points.itertuples():
        assert p.rise == pytest.approx(rise(p.parameter, p.value), abs=2e-3)
    assert (found.points.groupby("parameter")["value"].diff().dropna() > 0).all()


def test_the_command_prints_the_limits_and_the_folder_and_draws_the_figure(found):
    done = CliRunner().invoke(cli.app, ["profile", str(level_fit()), "--parameter", "omega_a"])
    assert done.exit_code == 0, done.output
    low, high = found.table.set_index("parameter").loc["omega_a", ["lower95", "upper95"]]
    assert f"{low:.2f} to {high:.2f}" in done.output
    picture = (Path(done.output.splitlines()[-1]) / "profile.svg").read_text("utf-8")
    assert "omega_a" in picture


def walk(shape, reach=8.0, se=1.0):
    """A side of a profile whose rise is a function of the distance."""
    start = Point(0.0, 0.0, True, np.zeros(1), None)
    return side(lambda away, near: Point(away, shape(away), True, np.zeros(1), None), start, 1.0,
                se, reach)


@pytest.mark.parametrize("shape", [
    lambda x: x**2, lambda x: 0.1 * x**2, lambda x: 25 * x**2, lambda x: x**4,
    lambda x: max(x - 1.0, 0.0), lambda x: 3.9 * (1 - math.exp(-x * x))])
def test_the_walk_closes_in_on_the_limit_in_few_refits(shape):
    points, limit, said = walk(shape)
    assert said == ""
    assert limit.rise == pytest.approx(RISE, abs=0.011)
    assert len(points) <= 12


@pytest.mark.parametrize(("shape", "words"), [
    (lambda x: 2.0 * (1 - math.exp(-x)), "the OFV rises by no more than 2 within reach"),
    (lambda x: x**2 if x < 1.5 else math.nan, "the refit fails before"),
    (lambda x: 0.0 if x < 2.0 else 9.0, "no limit after 25 refits")])
def test_a_limit_that_is_not_there_is_said(shape, words):
    points, limit, said = walk(shape)
    assert limit is None
    assert words in said
    assert len(points) <= 25


def test_names_that_cannot_be_profiled_are_refused(small_fit, tmp_path):
    with pytest.raises(RequestError, match="known: a_pop, omega_a, sigma_C_add"):
        profile(level_fit(), ["omega_b"])
    with pytest.raises(RequestError, match="not a fit by maximum likelihood"):
        profile(small_fit.save(tmp_path))


def test_of_a_block_of_three_the_inner_correlation_is_left_out_and_said():
    model = population("stein_2019", correlated=[["Cmax", "alpha", "beta"]])
    named, remarks = profiling._chosen(model, ())
    assert "corr_Cmax_beta" in named
    assert "corr_alpha_beta" not in named
    assert "corr_alpha_beta" in remarks[0]
    with pytest.raises(RequestError, match="block of three"):
        profiling._chosen(model, ("corr_alpha_beta",))
