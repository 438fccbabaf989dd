"""Typical trajectories: sets, doses, horizon."""

import dataclasses

import numpy as np
import pytest

from carpk import plots, registry
from carpk.drawings import typical_trajectories
from carpk.trajectories import Trajectories, grid, typical

LIU = registry.load("models", "liu_l_2022")
STEIN = registry.load("models", "stein_2019")


def test_each_parameter_set_has_its_own_trajectory():
    paths = typical(LIU, until=30)
    assert paths.titles == ("set 1", "set 3"), "set 1 holds the typical values"
    assert paths.time[0] == 0
    assert paths.time[-1] == 30
    for output in ("T", "B"):
        assert paths.values[output].shape == (2, len(paths.time))
    np.testing.assert_allclose(paths.values["B"][:, 0], [2200.24, 1874.144179])
    assert (paths.values["T"].max(axis=1) > 100).all()


def test_typical_values_that_are_no_set_are_shown_beside_the_sets():
    other = dataclasses.replace(STEIN, parameter_sets={"slow": {**STEIN.typical, "Tmax": 20.0}})
    paths = typical(other, until=28)
    assert paths.titles == ("typical values", "slow")
    assert paths.time[paths.values["C"].argmax(axis=1)] == pytest.approx([9.3, 20], abs=0.1)


def test_the_usual_doses_are_given_and_said():
    paths = typical(registry.load("models", "one_compartment_oral"))
    assert "100 mg into depot" in paths.note
    ka, k, v, t = 1.0, 0.1, 30.0, paths.time
    np.testing.assert_allclose(paths.values["Cc"][0], 100 / v * ka / (ka - k) * (
        np.exp(-k * t) - np.exp(-ka * t)), rtol=1e-5, atol=1e-9)


def test_curves_that_no_mesh_settles_say_so():
    wild = dataclasses.replace(LIU, rates=lambda t, y, p: {
        "B": 1e4 * y.B, "T": y.T**2 + 1.0, "N": 0.0 * y.N}, parameter_sets={
            "x": {**LIU.typical, "NB0": 1.0}})
    assert "not to be trusted" in typical(wild, until=100).note


def test_counts_that_fall_below_zero_say_so():
    sinking = dataclasses.replace(LIU, rates=lambda t, y, p: {
        "B": 0.0 * y.B, "T": -1.0 + 0.0 * y.T, "N": 0.0 * y.N})
    assert "T falls below 0" in typical(sinking, until=10).note


def test_time_is_denser_in_the_first_days_of_a_long_course_only():
    assert (np.diff(np.diff(grid(360.0))) > 0).all()
    np.testing.assert_allclose(np.diff(grid(7.0)), 7 / 300)


# their picture


def text_of(figure):
    return plots.svg(figure).decode()


def test_counts_have_a_log_axis_and_every_axis_its_unit():
    figure = typical_trajectories(LIU, typical(LIU, until=60))
    assert [ax.get_yscale() for ax in figure.axes] == ["log", "log"]
    said = text_of(figure)
    for words in ("T: CAR T cells in blood (cells/uL)", "Day after infusion", "set 3",
                  "J Immunother Cancer"):
        assert words in said
    linear = registry.load("models", "one_compartment_oral")
    figure = typical_trajectories(linear, typical(linear))
    assert figure.axes[0].get_yscale() == "linear"
    assert "Time (h)" in text_of(figure)
    assert "100 mg into depot" in text_of(figure)


@pytest.mark.parametrize(("name", "axis"), [
    ("stein_2019", "Day after infusion"), ("hardiansyah_2019", "Day after infusion"),
    ("barros_2021_cartmath", "Day"), ("owens_bozic_2021", "Day"), ("sahoo_2020_carrgo", "Day")])
def test_days_are_after_infusion_only_where_time_0_is_the_infusion(name, axis):
    model = registry.load("models", name)
    figure = typical_trajectories(model, many(model, ["x"], [o.name for o in model.outputs]))
    assert figure.get_supxlabel() == axis


def many(model, titles, outputs):
    time = np.linspace(0.0, 10.0, 5)
    return Trajectories(tuple(titles), time, {
        o: np.ones((len(titles), 5)) * np.arange(1, len(titles) + 1)[:, None] for o in outputs})


def test_many_sets_share_a_colour_by_their_group():
    titles = [f"{g} {k}" for g in ("CR", "NR") for k in range(12)]
    said = text_of(typical_trajectories(LIU, many(LIU, titles, "TB")))
    assert ">CR<" in said
    assert ">NR<" in said
    assert "CR 3" not in said
    said = text_of(typical_trajectories(LIU, many(LIU, [f"s{k}" for k in range(20)], "TB")))
    assert "parameter sets" in said


def test_a_model_of_many_outputs_shows_the_first_and_says_so():
    outputs = tuple(dataclasses.replace(STEIN.outputs[0], name=f"C{k}", dvid=k)
                    for k in range(1, 10))
    wide = dataclasses.replace(STEIN, outputs=outputs, taxonomy=None, solution=lambda t, p: {
        o.name: p.Cmax for o in outputs}, derived=(), derive=None)
    figure = typical_trajectories(wide, many(wide, ["x"], [o.name for o in outputs]))
    assert len(figure.axes) == 6
    assert "first 6 of 9 outputs" in text_of(figure)


def test_levels_of_zero_or_below_do_not_break_a_panel():
    time = np.linspace(0.0, 10.0, 5)
    for levels in (np.zeros(5), np.full(5, np.nan), np.array([0, -1.0, 2, 3, 4]),
                   np.array([0, 1e-30, 1, 2, 3])):
        paths = Trajectories(("x",), time, {"T": levels[None], "B": levels[None]})
        assert text_of(typical_trajectories(LIU, paths)).startswith("<?xml")
