"""run.toml and manifest to a request: what is read, and what is refused."""

import dataclasses
import json

import pytest
import typer

from carpk import examples, fitting
from carpk.cli_request import options, request
from carpk.population_model import population
from carpk.problems import CarpkError, DataError, RequestError
from carpk.requests import Request, table

WHOLE = """
model = "stein_2019"
estimator = "nuts"
seed = 1
out = "results"
spread = ["Cmax", "beta"]
free = ["Ftoci"]

[data]
file = "run.csv"
dvid = [1]
patients = ["1", "2"]
[data.columns]
DV = "CONC"
[data.units]
1 = "cells/uL"

[errors]
C = "proportional"
[fixed]
beta = 0.003
FB_pop = "published"
[priors]
Cmax_pop = "lognormal(24000, 1.5)"
[settings]
chains = 2
"""


@pytest.fixture
def write(tmp_path):
    def written(text):
        path = tmp_path / "run.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path
    return written


def problems(path):
    with pytest.raises(RequestError) as caught:
        Request.read(path)
    return [(p.column, p.found, p.wrong, p.remedy) for p in caught.value.problems]


def test_a_run_toml_states_a_whole_fit_with_paths_relative_to_it(write, tmp_path):
    (tmp_path / "run.csv").write_text("ID,TIME,CONC,DVID\n1,7,420,1\n1,7,9,2\n2,7,99,1\n3,7,9,1\n")
    asked = Request.read(write(WHOLE))
    assert asked.out == str(tmp_path / "results")
    model, cohort = asked.population(), asked.cohort()
    assert model.spread == ("Cmax", "beta")
    assert model.errors == {"C": "proportional"}
    assert model.fixed == {"beta_pop": 0.003, "FB_pop": 0.0079}
    assert str(model.priors["Cmax_pop"]) == "lognormal(24000, 1.5)"
    assert cohort.ids == ("1", "2")
    assert cohort.units == {1: "cells/uL"}
    assert cohort.observations["DV"].tolist() == [420.0, 99.0]


@pytest.mark.parametrize("text", ['priors = "fits/a:0.5"', 'priors = {from = "fits/a:0.5"}'])
def test_a_prior_from_a_fit_is_found_beside_the_run_toml(write, tmp_path, text):
    asked = Request.read(write(f'model = "stein_2019"\n{text}\n[data]\nfile = "x.csv"'))
    assert asked.priors == {"from": str(tmp_path / "fits/a:0.5")}
    with pytest.raises(RequestError, match="not a fit to take priors from"):
        asked.population()


def test_a_model_file_is_found_beside_the_run_toml(write, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from carpk.structure import Output, Parameter, Source, StructuralModel\n"
        "MODEL = StructuralModel(title='constant', source=Source('mine'), time_unit='day',\n"
        "    parameters=(Parameter('level', 1, 'x', 'level'),), outputs=(Output('C', 'x', 'c'),),\n"
        "    solution=lambda t, p: {'C': p.level})\n")
    asked = Request.read(write('model = "mine.py"\n[data]\nfile = "x.csv"'))
    assert asked.population().structure.title == "constant"


def test_a_list_of_names_fixes_them_at_the_published_values():
    asked = Request.of({"model": "stein_2019", "data": {"file": "x"}, "fixed": ["beta", "FB"]})
    assert asked.population().fixed == population("stein_2019", fixed=["beta", "FB"]).fixed


def test_every_unknown_key_and_wrong_type_is_said_at_once_with_its_remedy(write):
    assert problems(write("""
modl = "stein_2019"
seed = 1.5
spread = "Cmax"
out = 3
[data]
file = 7
dvid = ["1"]
colums = {DV = "CONC"}
[fixed]
beta = true
FB = nan
[priors]
Cmax = 3
""")) == [
        ("model", None, "not stated", 'for instance: model = "stein_2019"'),
        ("data.file", "7", "must be text in quotes", ""),
        ("data.dvid.0", '"1"', "must be a whole number", ""),
        ("data.colums", None, "no such key", "did you mean columns?"),
        ("seed", "1.5", "must be a whole number", ""),
        ("spread", '"Cmax"', "must be a list in brackets", ""),
        ("fixed.beta", "true", 'must be a number or "published"', ""),
        ("fixed.FB", "NaN", "must be finite", ""),
        ("priors.Cmax", "3", "must be text in quotes", ""),
        ("out", "3", "must be text in quotes", ""),
        ("modl", None, "no such key", "did you mean model?")]


@pytest.mark.parametrize(("text", "expected"), [
    ('model = "x"\ndata = 3', ("data", "3", "must be a table", "")),
    ('model = "x"', ("data", None, "not stated", '[data] with file = "my.csv"')),
    ('model = "x"\nseed = -1\n[data]\nfile = "x"', ("seed", "-1", "must not be negative", ""))])
def test_a_missing_or_wrong_table_is_named(write, text, expected):
    found = problems(write(text))
    assert (found[0][0], found[0][1], found[0][2]) == expected[:3]
    assert expected[3] in found[0][3]


@pytest.mark.parametrize(("text", "line", "wrong"), [
    ("model = \n", 1, "not TOML: invalid value, at column 9"),
    ('model = "a"\n[data\n', 2, "not TOML: expected"),
    ('x = 1\nx = 2\n', 2, "not TOML: cannot overwrite a value"),
    ('model = """abc', None, "at the end of the file")])
def test_what_is_not_toml_is_refused_with_its_line(write, text, line, wrong):
    with pytest.raises(RequestError) as caught:
        Request.read(write(text))
    problem = caught.value.problems[0]
    assert (problem.line, problem.file) == (line, str(write(text)))
    assert wrong in problem.wrong


@pytest.mark.parametrize("content", [b"\xff\xfe", b"model = \"\xe9\""])
def test_what_is_not_utf_8_is_refused(write, content):
    assert problems(write(content))[0][2] == "not UTF-8 text"


def test_a_byte_order_mark_is_no_obstacle(write):
    assert table(write(b'\xef\xbb\xbfmodel = "x"')) == {"model": "x"}


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.toml", tmp_path):
        assert problems(path)[0][2].startswith("cannot be read")


def test_a_json_that_is_no_manifest_is_refused(tmp_path):
    for text in ("[1]", "{", "{}", '{"request": 3}'):
        (tmp_path / "x.json").write_text(text)
        assert problems(tmp_path / "x.json")[0][2] == "not the manifest of a fit"


def test_a_refused_name_is_said_with_the_file_that_asks_for_it(write):
    path = write('model = "stein_2019"\nspread = ["Cmx"]\n[data]\nfile = "x.csv"')
    with pytest.raises(RequestError) as caught:
        Request.read(path).population()
    assert [(p.file, p.found) for p in caught.value.problems] == [(str(path), "Cmx")]


def test_patients_who_are_not_in_the_file_are_refused():
    asked = Request.of({"model": "stein_2019", "data": {
        "file": "example:tisacel_like", "patients": ["1", "x"]}})
    with pytest.raises(RequestError, match="no patient x"):
        asked.cohort()


def test_a_missing_file_is_a_data_error():
    with pytest.raises(DataError):
        Request.of({"model": "stein_2019", "data": {"file": "none.csv"}}).cohort()


def test_the_request_a_fit_records_asks_for_the_same_fit(near_typical, tmp_path):
    cohort = examples.example("tisacel_like").select(["3", "1", "7"])
    model = population("stein_2019", errors={"C": "proportional"}, spread=["Cmax", "Tmax", "FB"],
                       covariates=["Cmax ~ log(DOSE) + np.sqrt(AGE)", "FB ~ WT"],
                       correlated=[["FB", "Cmax"]], etas="student_t", censoring="M4",
                       fixed={"FB": 0.01, "omega_Tmax": 0}, free=["Ftoci"],
                       priors={"Cmax": "lognormal(20000, 1)"})
    fit = near_typical(model, cohort, ok=False)
    folder = fit.save(tmp_path)
    asked = Request.read(folder / "manifest.json")
    again = asked.population()
    assert dataclasses.replace(again, reasons={}) == dataclasses.replace(model, reasons={})
    assert asked.cohort().ids == cohort.ids
    assert asked.cohort().source == cohort.source
    assert (asked.estimator, asked.seed, asked.settings) == ("near", 1, {"ok": False})
    second = fitting.fit(again, asked.cohort(), asked.estimator, seed=asked.seed, **asked.settings)
    assert second.manifest["request"] == json.loads(json.dumps(fit.manifest["request"]))
    assert second.manifest["name"] == fit.manifest["name"]


def test_what_a_model_file_fixes_and_the_request_frees_stays_free_when_read_again(
        near_typical, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from carpk.structure import Output, Parameter, Source, StructuralModel, sd\n"
        "MODEL = StructuralModel(title='line', source=Source('mine'), time_unit='day',\n"
        "    parameters=(Parameter('level', 1, 'x', 'level', omega=sd(1)),\n"
        "                Parameter('slope', 1, 'x', 'slope', fixed='known'),\n"
        "                Parameter('bend', 2, 'x', 'bend', fixed='known')),\n"
        "    outputs=(Output('C', 'x', 'c'),),\n"
        "    solution=lambda t, p: {'C': p.level + p.slope * t + p.bend * t})\n")
    (tmp_path / "x.csv").write_text("ID,TIME,CONC\n1,7,420\n1,9,99\n2,7,99\n2,9,40\n")
    asked = Request.of({"model": str(file), "free": ["slope"], "data": {
        "file": str(tmp_path / "x.csv"), "columns": {"DV": "CONC"}, "units": {"1": "x"}}})
    model = asked.population()
    fit = near_typical(model, asked.cohort())
    again = Request.of(fit.manifest["request"])
    assert again.free == ["slope_pop"]
    assert again.population().fixed == {"bend_pop": 2.0}
    assert again.cohort().observations.equals(asked.cohort().observations)


def test_no_toml_gives_a_bare_traceback(write):
    for text in ("fixed = 3", "fixed = [[1]]", "settings = 1", "data = []", "priors = ['x']",
                 "[data]\nfile = []", "[data]\nfile = 'x'\nunits = [1]", "model = ['x.py']",
                 "out = {a = 1}", "free = 'x'", "seed = true", "[[data]]\nfile = 'x'"):
        with pytest.raises(CarpkError):
            Request.read(write(text))


@pytest.mark.parametrize("given", [
    {"priors": ["Cmax=lognormal(1, 1)", "Cmax=lognormal(2, 1)"]}, {"fixed": ["beta=1", "beta"]},
    {"covariates": ["Cmax ~ WT=power", "Cmax ~ WT=linear"]}, {"setting": ["draws=1", "draws=2"]},
    {"levels": ["STUDY: Cmax", "STUDY: alpha"]}])
def test_what_is_stated_twice_on_the_command_line_is_refused(given):
    with pytest.raises(typer.BadParameter, match="stated twice"):
        options(**given)


def test_an_option_stands_above_a_file_by_a_shorter_name_or_a_longer_one(write):
    file = write('model = "stein_2019"\nseed = 1\ndata = {file = "example:tisacel_like"}\n'
                 'priors = {Cmax_pop = "lognormal(3, 1)", alpha = "lognormal(1, 1)"}')
    asked = request(str(file), options(priors=["Cmax=lognormal(5, 1)", "alpha_pop=lognormal(2, 1)"],
                                       fixed=["beta=0.1"]))
    given = asked.population().priors
    assert (str(given["Cmax_pop"]), str(given["alpha_pop"])) == (
        "lognormal(5, 1)", "lognormal(2, 1)")


def test_a_band_is_two_numbers_around_1():
    asked = {"model": "stein_2019", "data": {"file": "example:tisacel_like"}}
    assert Request.of({**asked, "band": "0.7,1.43"}).band == [0.7, 1.43]
    assert request("example:tisacel_like", options(
        model="stein_2019", seed=1, band="0.7,1.43")).band == [0.7, 1.43]
    assert Request.of(asked).band is None
    for wrong in ([1.2, 1.4], [0.8], [], "", True, ["a", 2]):
        with pytest.raises(RequestError, match="0 < low < 1 < high"):
            Request.of({**asked, "band": wrong})
