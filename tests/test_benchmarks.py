"""The scripts of benchmarks/ run, and what they keep is what they print."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import script

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
