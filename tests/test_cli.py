"""The commands fit, check and report: what they print, write, refuse and exit with."""

import csv
import io
import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from carpk import cli_fit, cli_models, fitting, registry

MODEL = """
from carpk.structure import Output, Parameter, Source, StructuralModel, sd
MODEL = StructuralModel(
    title="decline", source=Source("mine"), time_unit="day",
    parameters=(Parameter("C0", 1000, "copies/ug", "level at day 0", omega=sd(1)),
                Parameter("half_life", 20, "day", "half-life", omega=sd(0.5))),
    outputs=(Output("C", "copies/ug", "level"),),
    solution=lambda t, p: {"C": p.C0 * 2.0 ** (-t / p.half_life)})
"""
DATA = "ID,TIME,DV,SEX\n" + "".join(
    f"{i},{t},{1000 * 2 ** (-t / 20) * (1 + 0.1 * (i + t) % 0.3):.1f},F\n"
    for i in range(1, 6) for t in (1, 10, 30, 60))


@pytest.fixture
def carpk(carpk, short_reports):
    """Runs a command beside a model and its cohort; a fit takes the estimator of the test."""
    Path("mine.py").write_text(MODEL)
    Path("run.csv").write_text(DATA)
    return carpk


def fits(folder="fits"):
    return sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []


# fit


def test_a_fit_prints_the_verdict_the_parameters_and_its_folder(carpk, near_typical):
    done = carpk("fit", "run.csv", "--model", "./mine.py", "--estimator", "near", "--seed", 3)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[1].startswith("Converged: R-hat at most 1.002")
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
    table = done.stdout
    for name in ("C0_pop", "half_life_pop", "omega_C0", "sigma_C_log", "97.5 %", "copies/ug"):
        assert name in table
    [folder] = fits()
    assert done.stdout.splitlines()[-1] == str(folder)
    assert "5 patients, 20 observations" in done.stderr
    assert "seed 3" in done.stderr
    assert "columns not used: SEX" in done.stderr
    assert [f.name for f in sorted(folder.iterdir())] == [
        "manifest.json", "model.py", "plots", "posterior.nc", "report.html", "tables"]
    with (folder / "tables" / "parameters.csv").open() as file:
        assert next(csv.reader(file))[:11] == [
            "parameter", "unit", "mean", "median", "sd", "lower95", "upper95", "rse", "rhat",
            "ess_bulk", "ess_tail"]


def test_a_fit_is_the_prior_of_the_next_and_the_table_says_so(carpk, near_typical):
    assert carpk("fit", "run.csv", "--model", "mine.py", "--estimator", "near", "--seed",
                 3).exit_code == 0
    [first] = fits()
    done = carpk("fit", "run.csv", "--model", "mine.py", "--estimator", "near", "--seed", 4,
                 "--prior", "half_life=lognormal(20, 1)", "--prior-from", f"{first}:0.5")
    assert done.exit_code == 0, done.output
    [second] = [f for f in fits() if f != first]
    manifest = json.loads((second / "manifest.json").read_text())
    assert manifest["request"]["priors"] == {"half_life_pop": "lognormal(20, 1)",
                                             "from": f"{first}:0.5"}
    assert any("these data are in the prior already" in w for w in manifest["warnings"])
    table = pd.read_csv(second / "tables" / "parameters.csv").set_index("parameter")
    drawn = pd.read_csv(first / "tables" / "parameters.csv").set_index("parameter")["sd"]
    family, _, numbers = table.loc["C0_pop", "prior"].partition("(")
    assert family == "lognormal"
    assert float(numbers.split(",")[1][:-1]) == pytest.approx(
        2**0.5 * drawn["C0_pop"] / 1000, rel=0.05)
    assert f"the posterior of {first}:0.5" in table.loc["omega_C0", "note"]
    assert table.loc["half_life_pop", "note"].startswith("asked for")
    assert len(pd.read_csv(second / "tables" / "prior_sensitivity.csv")) == len(drawn)


def test_a_fit_that_did_not_converge_is_saved_says_so_and_exits_3(carpk, near_typical):
    done = carpk("fit", "run.csv", "--model", "mine.py", "--estimator", "near", "--seed", 1,
                 "--setting", "ok=false")
    assert done.exit_code == 3, done.output
    assert "NOT CONVERGED" in done.stdout
    assert "R-hat of <all> is large" in done.stdout
    assert len(fits()) == 1


def test_without_a_seed_one_is_drawn_said_and_recorded(carpk, near_typical):
    done = carpk("fit", "run.csv", "--model", "mine.py", "--estimator", "near")
    seed = int(re.search(r"no seed was given; --seed (\d+)", done.stderr)[1])
    manifest = json.loads((fits()[0] / "manifest.json").read_text())
    assert manifest["request"]["seed"] == seed


def test_every_option_reaches_the_request_and_stands_above_the_run_toml(carpk, near_typical,
                                                                        tmp_path):
    (tmp_path / "run.toml").write_text(
        'model = "mine.py"\nestimator = "nuts"\nseed = 1\nfixed = ["half_life"]\n'
        '[data]\nfile = "other.csv"\ndvid = [7]\n[data.columns]\nDV = "CONC"\n'
        '[priors]\nC0 = "lognormal(5, 1)"\n[errors]\nC = "combined"\n')
    head, *rows = DATA.splitlines()
    (tmp_path / "other.csv").write_text("\n".join([
        head.replace("DV,SEX", "CONC,DVID,SEX,AGE"),
        *(f"{row[:-1]}1,{'FM'[int(row[0]) % 2]},{30 + int(row[0])}" for row in rows)]) + "\n")
    done = carpk("fit", "run.toml", "--estimator", "near", "--seed", 9, "--out", "elsewhere",
                 "--dvid", 1, "--unit", "1=copies/ug", "--error", "C=proportional", "--spread",
                 "C0,half_life", "--prior", "C0_pop=lognormal(900, 1)", "--fix", "omega_C0=0.7",
                 "--covariate", "C0 ~ SEX=category", "--covariate", "half_life ~ I(AGE**2)",
                 "--correlate", "C0,half_life", "--etas", "student_t", "--censoring", "M1",
                 "--steps", 300, "--solver", "rodas4")
    assert done.exit_code == 0, done.output
    request = json.loads((fits("elsewhere")[0] / "manifest.json").read_text())["request"]
    assert request == {
        "model": str(tmp_path / "mine.py"), "estimator": "near", "seed": 9,
        "spread": ["C0", "half_life"], "free": [],
        "covariates": {"C0 ~ SEX": "category", "half_life ~ I(AGE ** 2)": "formula"},
        "correlated": [["C0", "half_life"]], "etas": "student_t", "censoring": "M1",
        "time_varying": {}, "occasions": [],
        "data": {"file": "other.csv", "columns": {"DV": "CONC"}, "dvid": [1],
                 "units": {"1": "copies/ug"}},
        "errors": {"C": "proportional"}, "fixed": {"half_life_pop": 20.0, "omega_C0": 0.7},
        "priors": {"C0_pop": "lognormal(900, 1)"}, "steps": 300,
        "solver": "rodas4", "settings": {"ok": True}}


def test_a_fit_is_asked_for_again_by_its_manifest(carpk, near_typical):
    carpk("fit", "run.csv", "--model", "mine.py", "--estimator", "near", "--seed", 3)
    [first] = fits()
    done = carpk("fit", first / "manifest.json")
    assert done.exit_code == 0, done.output
    assert [f.name for f in fits()] == [first.name, f"{first.name}-2"]


def test_a_parameter_that_is_held_says_why_below_the_table(carpk, near_typical):
    done = carpk("fit", "run.csv", "--model", "mine.py", "--estimator", "near", "--seed", 1,
                 "--fix", "half_life")
    assert "half_life_pop: fixed: held at the model file's value on request" in done.stdout
    assert re.search(r"half_life_pop\s+day\s+20\s+fixed", done.stdout)


@pytest.mark.parametrize(("width", "columns"), [(100, 10), (80, 8), (64, 6)])
def test_a_narrow_terminal_shows_fewer_columns_and_no_number_cut_short(width, columns):
    every = pd.DataFrame({
        "parameter": ["half_life_terminal_pop", "Ftoci_pop"], "unit": ["copies/ug", "-"],
        "median": [0.00757, 1.2], "sd": [0.001, math.nan], "lower95": [0.00562, math.nan],
        "upper95": [0.00998, math.nan], "rse": [14.9, math.nan], "shrinkage": [0.29, math.nan],
        "rhat": [1.003, math.nan], "ess_bulk": [1600.0, math.nan], "ess_tail": [2677.0, math.nan],
        "note": ["default", "fixed: no patient has TTOCI"]})
    console = Console(file=io.StringIO(), width=width)
    table = cli_fit.parameter_table(every, console)
    console.print(table)
    assert len(table.columns) == columns
    assert "…" not in console.file.getvalue()
    assert "fixed" in console.file.getvalue()


@pytest.mark.slow  # passed, 50 s; the walk of the README fits the example too
def test_the_example_is_fitted_by_its_name(carpk):
    # the smallest real run: its folder and its exit code, not its numbers
    done = carpk("fit", "example:tisacel_like", "--model", "stein_2019", "--seed", 1, "--chains",
                 2, "--draws", 20, "--warmup", 20)
    assert done.exit_code == 3, done.output
    manifest = json.loads((fits()[0] / "manifest.json").read_text())
    assert manifest["request"]["data"]["file"] == "example:tisacel_like"
    assert "sample" in done.stderr
    assert "Ftoci_pop: fixed: no patient has TTOCI" in done.stdout


def test_an_interrupted_fit_writes_nothing_and_exits_130(carpk, near_typical, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt
    monkeypatch.setattr(cli_fit, "fit", interrupted)
    done = carpk("fit", "run.csv", "--model", "mine.py", "--estimator", "near", "--seed", 1)
    assert done.exit_code == 130
    assert done.stderr.endswith("interrupted, nothing was written\n")
    assert fits() == []


def test_an_interrupted_report_says_that_the_fit_is_whole(carpk, near_typical, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt
    monkeypatch.setattr(cli_fit, "report", interrupted)
    done = carpk("fit", "run.csv", "--model", "mine.py", "--estimator", "near", "--seed", 1)
    assert done.exit_code == 130
    [folder] = fits()
    assert f"carpk report {folder}" in done.stderr
    assert fitting.load_fit(folder).convergence.ok
    assert carpk("report", folder).exit_code == 0
    assert (folder / "report.html").is_file()
    assert not list(folder.rglob("*.png"))
    assert carpk("report", folder, "--format", "docx").stdout.strip() == \
        str(folder / "report.docx")
    assert (folder / "plots" / "traces.png").is_file()
    assert carpk("report", folder, "--format", "pdf").exit_code == 2


# what is refused


@pytest.mark.parametrize(("arguments", "said"), [
    (["fit", "none.csv", "--model", "stein_2019"], "no such file"),
    (["fit", "none.toml"], "cannot be read"),
    (["fit", "example:tisacel", "--model", "stein_2019"], "did you mean tisacel_like?"),
    (["fit", "run.csv", "--model", "stein_2018"], "did you mean stein_2019"),
    (["fit", "run.csv", "--model", "./none.py"], "no such model file"),
    (["fit", "run.csv", "--model", "mine.py", "--estimator", "nut"], "did you mean nuts?"),
    (["fit", "run.csv", "--model", "mine.py", "--chains", "0"], "a whole number above 0"),
    (["fit", "run.csv", "--model", "mine.py", "--setting", "target_accept=high"], "a number"),
    (["fit", "run.csv", "--model", "mine.py", "--setting", "x=1"], "no such setting"),
    (["fit", "run.csv", "--model", "mine.py", "--seed", "-1"], "must not be negative"),
    (["fit", "run.csv", "--model", "mine.py", "--fix", "half_life=long"], "not a number"),
    (["fit", "run.csv", "--model", "mine.py", "--fix", "half"], "no such population parameter"),
    (["fit", "run.csv", "--model", "mine.py", "--prior", "C0=normal(1)"], "takes 2 numbers"),
    (["fit", "run.csv", "--model", "mine.py", "--error", "C=none"],
     "there is no error model of this name"),
    (["fit", "run.csv", "--model", "mine.py", "--out", "run.csv"], "fits cannot be written here"),
    (["fit", "run.csv", "--model", "mine.py", "--column", "DV=CONC"], "CONC"),
    (["check", "none.csv"], "no such file"),
    (["models", "stein_2018"], "did you mean stein_2019"),
    (["report", "nowhere"], "not a fit")])
def test_refused_input_is_a_message_on_stderr_and_exit_1(carpk, arguments, said):
    done = carpk(*arguments)
    assert done.exit_code == 1, done.output
    assert said in done.stderr
    assert done.stderr.lstrip().startswith(("error: ", "no seed was given", "run.csv: 5 patients"))
    assert "Traceback" not in done.output
    assert fits() == []


@pytest.mark.parametrize("arguments", [
    ["fit"], ["fit", "run.csv"], ["fit", "run.csv", "--model"], ["fit", "run.csv", "--draws", "x"],
    ["fit", "run.csv", "--model", "mine.py", "--dvid", "one"], ["unfit"], ["check"],
    ["fit", "run.csv", "--model", "mine.py", "--unit", "1"], ["models", "--xml"]])
def test_wrong_usage_exits_2(carpk, arguments):
    assert carpk(*arguments).exit_code == 2


def test_many_problems_are_cut_at_thirty_with_the_count_of_the_rest(carpk, tmp_path):
    (tmp_path / "bad.csv").write_text("ID,TIME,DV\n" + "1,x,1\n" * 50)
    done = carpk("fit", "bad.csv", "--model", "mine.py", "--seed", 1)
    assert done.exit_code == 1
    assert done.stderr.count("error: ") == 30
    assert done.stderr.splitlines()[-1].startswith("... and 20 errors more")
    everything = carpk("check", "bad.csv", "--all")
    assert everything.stderr.count("error: ") == 50


# check


def test_check_counts_what_is_in_a_cohort(carpk):
    done = carpk("check", "run.csv")
    assert done.exit_code == 0
    assert done.stdout == ("run.csv: 5 patients, 20 observations (0 censored), 0 doses, "
                           "0 rows excluded\ncovariates: SEX\n")


def test_check_says_what_a_model_misses_and_what_it_does_not_use(carpk, tmp_path):
    assert "columns not used: SEX" in carpk("check", "run.csv", "--model", "mine.py").stdout
    refused = carpk("check", "run.csv", "--model", "liu_l_2022")
    assert refused.exit_code == 1
    assert "NB0" in refused.stderr


def test_check_prints_warnings_after_errors_and_accepts_a_cohort_with_warnings_only(
        carpk, tmp_path):
    rows = "ID,TIME,DV,LLOQ\n1,1,20,50\n1,2,90,50\n"
    (tmp_path / "low.csv").write_text(rows)
    done = carpk("check", "low.csv")
    assert done.exit_code == 0
    assert done.stderr.startswith("warning: low.csv:2, patient 1, DV = 20: below LLOQ")
    (tmp_path / "low.csv").write_text(rows + "1,x,90,50\n")
    both = carpk("check", "low.csv")
    assert both.exit_code == 1
    assert [line.partition(":")[0] for line in both.stderr.splitlines()
            if line.startswith(("error", "warning"))] == ["error", "warning"]


def test_check_reads_the_data_and_the_model_of_a_run_toml(carpk, tmp_path):
    (tmp_path / "run.toml").write_text('model = "mine.py"\n[data]\nfile = "run.csv"\n')
    assert "columns not used: SEX" in carpk("check", "run.toml").stdout
    assert carpk("check", "example:tisacel_like", "--model", "stein_2019").exit_code == 0


# models


def test_models_lists_each_within_100_columns(carpk):
    done = carpk("models")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    for name in registry.names("models"):
        assert [s for s in lines if s.startswith(f"{name} ")]


def test_models_as_json_is_a_list_of_objects_with_their_names(carpk):
    listed = json.loads(carpk("models", "--json").stdout)
    assert [m["name"] for m in listed] == registry.names("models")
    stein = json.loads(carpk("models", "stein_2019", "--json").stdout)
    assert stein == next(m for m in listed if m["name"] == "stein_2019")
    assert stein["outputs"] == [{"name": "C", "unit": "copies/ug", "dvid": 1, "error": "lognormal",
                                 "meaning": "transgene level in blood"}]
    assert stein["inputs"][0]["default"] is None


@pytest.mark.parametrize("name", registry.names("models"))
def test_a_card_says_all_that_the_model_file_declares(carpk, name):
    card, model = carpk("models", name).stdout, registry.load("models", name)
    assert model.title in card
    assert model.source.citation in card
    assert model.source.doi in card
    for group in (model.parameters, model.inputs, model.states, model.outputs, model.derived):
        for item in group:
            assert item.name in card
            assert item.meaning in card
    for p in model.parameters:
        assert f"{p.typical:g}" in card
        assert (p.omega.printed if p.omega else "none") in card
    assert all(doubt in card for doubt in model.doubts)
    assert json.loads(json.dumps(cli_models.card(model), allow_nan=False))["name"] == name


def test_the_card_of_a_users_own_file(carpk):
    done = carpk("models", "./mine.py")
    assert done.exit_code == 0
    assert done.stdout.startswith("mine: decline")


def test_a_broken_model_file_does_not_hide_the_others(carpk, monkeypatch):
    from carpk.problems import ModelError, Problem
    load = registry.load

    def broken(kind, name):
        if name == "liu_l_2022":
            raise ModelError(Problem("error", "no output is declared", file="liu_l_2022.py"))
        return load(kind, name)

    monkeypatch.setattr(registry, "load", broken)
    done = carpk("models")
    assert done.exit_code == 1
    assert "stein_2019" in done.stdout
    assert "liu_l_2022.py: no output is declared" in done.stderr


def test_the_version_is_printed(carpk):
    import carpk as package
    assert carpk("--version").stdout == f"{package.__version__}\n"


def test_the_help_names_every_command(carpk):
    done = carpk("--help")
    assert done.exit_code == 0
    assert all(c in done.stdout for c in ("fit", "check", "models", "simulate", "report"))
