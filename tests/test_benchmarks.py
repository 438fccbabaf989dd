"""The scripts of benchmarks/ run, and what they keep is what they print."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import script
from scipy.integrate import solve_ivp

from carpk import registry

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def models():
    return script(FOLDER / "models.py")


def test_a_row_tells_the_mesh_of_the_patients_and_none_of_them_fails(models):
    row = models.measured("one_compartment_oral", patients=5, repeats=1)
    assert (row["states"], row["patients"], row["failed"]) == (2, 5, 0)
    assert row["run_seconds"] > 0
    assert "| one_compartment_oral | 2 |" in models.table({"one_compartment_oral": row})


def test_the_kept_rows_are_of_known_models_without_a_failed_patient_and_stand_in_the_table(models):
    kept = json.loads((FOLDER / "models.json").read_text("utf-8"))["models"]
    assert set(kept) <= set(registry.names("models"))
    assert models.table(kept) in (FOLDER / "README.md").read_text("utf-8")
    assert all(row["patients"] == 1000 and row["failed"] == 0 for row in kept.values())


def test_the_kept_fits_are_rows_of_the_script_and_stand_in_the_table():
    estimators = script(FOLDER / "estimators.py")
    kept = json.loads((FOLDER / "estimators.json").read_text("utf-8"))["fits"]
    assert set(kept) <= set(estimators.ROWS)
    page = (FOLDER / "README.md").read_text("utf-8")
    assert estimators.table(kept) in page
    assert estimators.growth(kept) in page


def test_the_table_of_recovery_holds_every_set_and_every_bias_within_three_errors():
    recovery = script(FOLDER / "recovery.py")
    page = (FOLDER / "README.md").read_text("utf-8")
    kept = [[x.strip() for x in line.strip("|").split("|")] for line in page.partition(
        recovery.BEGIN)[2].partition(recovery.END)[0].strip().splitlines()]
    assert tuple(kept[0]) == recovery.HEAD
    assert {row[0] for row in kept[2:]} == set(recovery.SETS)
    assert all(abs(float(row[4])) < 3 * float(row[5]) for row in kept[2:])


@pytest.mark.slow  # passed, 15 s
def test_what_recovery_prints_of_a_set_is_what_is_kept(shared_data):
    recovery = script(FOLDER / "recovery.py")
    page = (FOLDER / "README.md").read_text("utf-8")
    for row in recovery.rows("oral_1cpt"):
        assert f"| {' | '.join(row)} |" in page


def test_growth_is_the_power_of_the_number_of_patients():
    estimators = script(FOLDER / "estimators.py")
    rows = {f"tisacel-{n}": {"patients": n, "cpu_seconds": 0.1 * n} for n in (90, 2000)}
    assert estimators.growth(rows) == "from 90 to 2000 patients CPU time grows with the power 1.00"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_c_by_hand_solves_what_the_others_solve():
    """LSODA's states in the end of two patients; of C, which fills up to eight, with 600 steps."""
    solvers = script(FOLDER / "solvers.py")
    phi = np.log(solvers.TYPICAL) + 0.3 * np.random.default_rng(1).normal(size=(2, 8))
    found = solvers.by_hand(np.tile(phi, (5, 1)), 600)()
    for k, row in enumerate(phi):
        p = np.exp(row)

        def flow(t, u, p=p):
            e, b = np.exp(u[0]), np.exp(u[3])
            return [p[0] * b / (100 + b) - p[1] - p[2] - p[3], p[2] * e - p[4] * u[1],
                    p[3] * e - 0.1 * u[2], p[5] - p[6] * e / (5000 + e)]
        end = solve_ivp(flow, (0, solvers.TIMES[-1]), [np.log(10), 0, 0, row[-1]], "LSODA",
                        rtol=1e-9, atol=1e-9).y[:, -1]
        assert found.shape == (4, 10)
        np.testing.assert_allclose(found[:, k::2], np.tile(end[:, None], 5), rtol=1e-4, atol=1e-4)


@pytest.fixture
def targets(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return script(FOLDER / "targets.py")


def test_a_target_is_compared_with_what_was_measured(targets):
    solved = [{"solver": "diffrax Tsit5", "what": "solve and Jacobian", "carpk is": "0.36 x"},
              {"solver": "C by hand", "what": "solve", "carpk is": "5.00 x"}]
    fits = [{"fit": "stein90-nuts", "start": "warm", "wall s": 9.0, "GB": 1.2, "ESS": 500,
             "R-hat": 1.004},
            {"fit": "nuts-2000", "start": "cold", "wall s": 600.0, "GB": 3.0, "ESS": 250,
             "R-hat": 1.01}]
    tests = [{"tests": "", "passed": 2, "failed": 1, "ran": True}]
    rows = targets.compared({"solver": solved, "fits": fits, "references": tests})
    assert [r["ratio"] for r in rows] == [0.8, 2.0, None, 0.5, 0.67, 0.5]
    assert rows[2]["measured"] == 1
    assert rows[3]["what"] == "sim_stein90 by nuts, warm, s"
    assert rows[3]["besides"] == "ESS 500, R-hat 1.004"
    assert targets.compared({}) == []


def test_the_kept_targets_stand_in_the_readme(targets):
    kept = json.loads((FOLDER / "engine.json").read_text("utf-8"))
    page = (FOLDER / "README.md").read_text("utf-8")
    rows = targets.compared({n: part["found"] for n, part in kept.items() if "found" in part})
    assert len(rows) >= 6
    for row in rows:
        assert f"| {row['what']} | {row['at most']} | {row['measured']} |" in page


def test_what_does_not_depend_on_the_machine_has_not_grown():
    """Gradients per effective sample, programs compiled, steps of a mesh; of a process of its own,
    for programs are counted by where they are kept."""
    kept = json.loads((FOLDER / "engine.json").read_text("utf-8"))["counts"]["found"]
    said = subprocess.run(
        [sys.executable, "-c", "import json, engine; print(json.dumps(engine.counts()))"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (FOLDER, FOLDER.parent)))},
        capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout.splitlines()[-1])
    assert found.keys() == kept.keys()
    assert found["steps"] == kept["steps"]
    for count, most in kept.items():
        if count != "steps":
            assert found[count] <= 1.5 * most, count
