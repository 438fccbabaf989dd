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


INFUSED = '''
"""One compartment, infusion."""
from carpk.structure import Output, Parameter, Source, State, StructuralModel, sd
MODEL = StructuralModel(
    title="infusion", source=Source("textbook"), time_unit="h",
    parameters=(Parameter("CL", 3.0, "L/h", "clearance", omega=sd(0.3)),
                Parameter("V", 30.0, "L", "volume", omega=sd(0.3))),
    states=(State("A", "mg", "amount"),), initial=lambda p: {"A": 0.0},
    rates=lambda t, y, p: {"A": -p.CL / p.V * y.A},
    outputs=(Output("C", "mg/L", "level", error="additive"),),
    observe=lambda t, y, p: {"C": y.A / p.V})
'''
# NONMEM 7.4.3, run 504_foce of nonmem2rx: estimates with FOCEI's objective 1058.30371167602
PRINTED = {
    "CL_pop": 2.718281828459045**1.10899, "V_pop": 2.718281828459045**3.4777,
    "beta_CL_WT": 0.659764, "beta_V_WT": 1.32154, "beta_CL_AGE": -0.534045,
    "beta_V_AGE": 0.0522912, "beta_CL_SEX": -0.101058, "beta_V_SEX": -0.0547756,
    "sigma_C_prop": 0.0502578**0.5, "omega_CL": 0.0307235**0.5, "omega_V": 0.0466096**0.5,
    "corr_CL_V": 0.00147874 / (0.0307235 * 0.0466096) ** 0.5}
COVARIATES = {f"{p} ~ {c}": form for p in ("CL", "V") for c, form in (
    ("WT", "power(70)"), ("AGE", "power(50)"), ("SEX", "exponential(0)"))}


@pytest.mark.parametrize("stated", ["options", "run.toml"])
def test_a_model_of_options_or_a_request_has_the_objective_nonmem_prints(shared_data, tmp_path,
                                                                         stated):
    file, model = shared_data / "bauer501_covariates" / "bauer501.csv", tmp_path / "infused.py"
    theta = tmp_path / "manifest.json" if stated == "options" else tmp_path / "values.toml"
    model.write_text(INFUSED, encoding="utf-8")
    if stated == "options":  # as a fit records its estimates
        theta.write_text(json.dumps({"request": {}, "resolved": {"fixed": {}}, "estimates": {
            n: {"estimate": v} for n, v in PRINTED.items()}}))
        asked = [str(file), "--model", str(model), "--correlate", "CL,V", "--error",
                 "C=proportional", "--steps", "60"]
        for effect, form in COVARIATES.items():
            asked += ["--covariate", f"{effect}={form}"]
    else:
        theta.write_text("\n".join(f"{n} = {v!r}" for n, v in PRINTED.items()))
        run = tmp_path / "run.toml"
        run.write_text(f'''model = "infused.py"\ncorrelated = "full"\nsteps = 60
            [data]\nfile = "{file}"\n[errors]\nC = "proportional"\n[covariates]\n'''
                       + "\n".join(f'"{k}" = "{v}"' for k, v in COVARIATES.items()))
        asked = [str(run)]
    done = CliRunner().invoke(app, ["objective", *asked, "--theta", str(theta), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["ofv"] == pytest.approx(1058.30371167602, abs=0.001)


def test_censored_levels_count_as_the_model_says(values):
    by = {method: json.loads(run("--theta", str(values), "--censoring", method, "--json").stdout)
          for method in ("M1", "M3")}
    constant = {m: f["minus_two_log_likelihood"] - f["ofv"] for m, f in by.items()}
    assert constant["M1"] == pytest.approx(constant["M3"])  # N log 2 pi, N the measured rows
    assert by["M1"]["ofv"] < by["M3"]["ofv"] - 1.0  # censored ones are left out


def test_a_posterior_is_no_value(values, tmp_path):
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"request": {}, "resolved": {"fixed": {}}}))
    done = run("--theta", str(manifest))
    assert done.exit_code == 1
    assert "not of a fit by maximum likelihood" in done.output
    none = run("--theta", str(tmp_path / "none.json"))
    assert none.exit_code == 1
    assert "cannot be read" in none.output


def test_values_that_do_not_fit_the_model_are_refused_by_name(values):
    values.write_text(VALUES.replace("omega_Cmax", "omega_Cmx"), encoding="utf-8")
    done = run("--theta", str(values))
    assert done.exit_code == 1
    assert "did you mean omega_Cmax?" in done.output
