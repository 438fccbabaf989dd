"""`carpk objective`: both conventions, patients on request, values that are refused."""

import json

import pytest
from typer.testing import CliRunner

from carpk.cli import app

VALUES = """
foldx_pop = 4000
Tmax_pop = 9.3
Cmax_pop = 24000
alpha_pop = 0.16
FB_pop = 0.01
beta_pop = 0.0032
omega_Cmax = 0.8
sigma_C_log = 0.7
"""


def run(*arguments):
    return CliRunner().invoke(app, ["objective", "example:tisacel_like", "--model", "stein_2019",
                                    "--spread", "Cmax", *arguments])


@pytest.fixture
def values(tmp_path):
    file = tmp_path / "values.toml"
    file.write_text(VALUES, encoding="utf-8")
    return file


def test_the_objective_is_printed_in_both_conventions(values):
    done = run("--theta", str(values), "--method", "focei", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert len(found["patients"]) == 90
    assert sum(p["ofv"] for p in found["patients"].values()) == pytest.approx(found["ofv"])
    assert found["minus_two_log_likelihood"] > found["ofv"]


def test_values_that_do_not_fit_the_model_are_refused_by_name(values):
    values.write_text(VALUES.replace("omega_Cmax", "omega_Cmx"), encoding="utf-8")
    done = run("--theta", str(values))
    assert done.exit_code == 1
    assert "did you mean omega_Cmax?" in done.output
