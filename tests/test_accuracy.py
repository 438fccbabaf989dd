"""How far two solutions lie apart, and the mesh on which they agree."""

import dataclasses

import numpy as np
import pytest
from models_for_tests import FOLLOWING, cohort

from carpk import accuracy, registry
from carpk.accuracy import ROOM, TOLERANCE, agreeing, apart, by, solved
from carpk.cohort import design
from carpk.solve import arrays, predict

ROWS = [("1", t, 50.0) for t in (1, 5, 20, 60.0)]


def test_meshes_are_tried_until_two_in_turn_agree():
    asked = []

    def run(mesh):
        asked.append(mesh)
        return min(len(asked), 3)

    meshes = [("tsit5", 500), ("tsit5", 2000), ("rodas4", 500), ("rodas4", 2000), ("tsit5", 8000)]
    coarse, fine, moved = agreeing(meshes, run, lambda a, b: abs(a - b), 0.5)
    assert asked == meshes[:4]
    assert (coarse, fine, moved) == ((meshes[2], 3), (meshes[3], 3), 0)


def test_where_no_two_agree_the_nearest_are_left_and_say_how_far_it_moved():
    meshes = [("tsit5", k) for k in (1, 5, 7, 100)]
    _, nearest, moved = agreeing(meshes, lambda m: m[1], lambda a, b: b - a, 0.5)
    assert (nearest, moved) == ((("tsit5", 7), 7), 2)
    _, last, moved = agreeing(meshes, lambda m: m[1], lambda a, b: np.inf, 0.5)
    assert (last, moved) == ((("tsit5", 100), 100), np.inf)


def test_meshes_that_share_a_program_give_the_same_as_on_their_own():
    seen, values = design(cohort(ROWS), FOLLOWING), FOLLOWING.typical
    steps, room = next(iter(ROOM.items()))
    stiff = by(FOLLOWING, ("rodas4", steps))
    alone, sharing = (predict(stiff, arrays(seen, stiff, steps, r), {
        n: np.array([v]) for n, v in values.items()}) for r in (0, room))
    np.testing.assert_allclose(sharing, alone, rtol=1e-14)


def test_a_cohort_solved_in_pieces_is_solved_the_same(monkeypatch):
    five = design(cohort([(str(i), t, 50.0) for i in range(5) for t in (1, 5, 20, 60.0)]),
                  FOLLOWING)
    values = {n: v * np.linspace(0.8, 1.2, 5) for n, v in FOLLOWING.typical.items()}
    whole = accuracy.runner(FOLLOWING, five, values)(("rodas4", 250))
    monkeypatch.setattr(accuracy, "_PIECE", 2)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    np.testing.assert_allclose(accuracy.runner(FOLLOWING, five, values)(("rodas4", 250)), whole,
                               rtol=1e-12)


def test_solutions_are_compared_by_their_logarithm_above_a_millionth_of_their_peak():
    one, output = np.array([[1.0, 1e-3, 1e-9, 5.0]]), np.array([[0, 0, 0, 1]])
    assert apart(one, one, output) == 0
    assert apart(one, one * [1, 1.1, 1, 1], output) == pytest.approx(np.log(1.1), rel=2e-3)
    assert apart(one, one * [1, 1, 100, 1], output) < 0.1
    assert apart(one, one * np.nan, output) == np.inf


def test_a_stiff_model_is_solved_to_the_tolerance_whatever_its_model_file_says_of_the_method():
    who = cohort(ROWS)
    seen = design(who, FOLLOWING)
    values = {n: np.array([v]) for n, v in FOLLOWING.typical.items()}
    k, fast, t = 0.05, 5000.0, seen.time
    exact = 100 * fast / (fast - k) * (np.exp(-k * t) - np.exp(-fast * t))
    for solver in ("auto", "rodas4"):
        found = solved(dataclasses.replace(FOLLOWING, solver=solver), seen, values)
        assert found.mesh[0][0] == "rodas4"
        assert found.moved <= TOLERANCE
        np.testing.assert_allclose(found.predicted[seen.observed], exact[seen.observed], rtol=1e-6)


def test_only_the_patients_who_need_it_are_solved_on_a_finer_mesh():
    three = design(cohort([(str(i), t, 50.0) for i in range(3) for t in (1, 5, 20, 60.0)]),
                   FOLLOWING)
    fast = np.array([5.0, 5000.0, 4.0])
    values = {n: np.full(3, v) for n, v in FOLLOWING.typical.items()} | {"fast": fast}
    found = solved(dataclasses.replace(FOLLOWING, solver="auto"), three, values)
    assert [m[0] for m in found.mesh] == ["tsit5", "rodas4", "tsit5"]
    k, f = 0.05, fast[:, None]
    exact = 100 * f / (f - k) * (np.exp(-k * three.time) - np.exp(-f * three.time))
    np.testing.assert_allclose(found.predicted, exact, rtol=1e-5)
    again = solved(FOLLOWING, three, values, found.mesh)
    np.testing.assert_allclose(again.predicted, found.predicted, rtol=1e-12)
    assert again.mesh == found.mesh


def test_a_closed_form_needs_no_mesh():
    stein = registry.find_model("stein_2019")
    found = solved(stein, design(cohort(ROWS), stein),
                   {n: np.array([v]) for n, v in stein.typical.items()})
    assert found.moved == 0
