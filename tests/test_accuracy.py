"""How far two solutions lie apart, and the mesh on which they agree."""

import dataclasses

import numpy as np
import pytest
from models_for_tests import FOLLOWING, cohort

from carpk import accuracy, registry
from carpk.accuracy import ROOM, TOLERANCE, apart, by, chosen_mesh, solved
from carpk.cohort import design
from carpk.solve import arrays, predict

ROWS = [("1", t, 50.0) for t in (1, 5, 20, 60.0)]


MESHES = [("tsit5", 15), ("tsit5", 30), ("rodas4", 120), ("rodas4", 240)]


def test_the_mesh_is_the_first_that_the_next_hardly_moves_for_all():
    moved = np.array([[0.2, 0.001], [0.02, 0.001], [0.001, 0.002]])
    mesh, decide = chosen_mesh(MESHES, moved, 0.005)
    assert mesh == MESHES[2]
    assert decide.all()


@pytest.mark.parametrize("bad", [np.inf, 0.3])
def test_a_patient_whom_no_mesh_solves_decides_nothing(bad):
    moved = np.array([[0.001, bad], [0.0001, bad], [0.00001, bad]])
    mesh, decide = chosen_mesh(MESHES, moved, 0.005)
    assert mesh == MESHES[0]
    assert decide.tolist() == [True, False]


def test_where_no_two_agree_the_finer_of_the_nearest_is_left():
    moved = np.array([[4.0, np.inf, 1.0], [2.0, np.inf, 3.0], [93.0, np.inf, 1.0]])
    assert chosen_mesh(MESHES, moved, 0.5)[0] == MESHES[2]
    mesh, decide = chosen_mesh(MESHES, np.full((3, 2), np.inf), 0.5)
    assert mesh == MESHES[-1]
    assert not decide.any()


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
