"""`carpk screen`: every request fitted once, what is refused said beside what is not."""

import json
import re
from pathlib import Path

from conftest import NearTypical, cohort_text
from typer.testing import CliRunner

from carpk import cli, registry, screening

ASKED = """
model = "stein_2019"
estimator = "near"
out = "fits"
spread = {spread}
[data]
file = "small.csv"
"""


def test_requests_are_fitted_once_and_again_only_where_they_changed(tmp_path, monkeypatch):
    load, made = registry.load, []

    class Noted(NearTypical):
        def fit(self, model, data, ids, seed, progress):
            made.append((model.spread, seed))
            return super().fit(model, data, ids, seed, progress)

    monkeypatch.setattr(registry, "load", lambda kind, name: Noted
                        if (kind, name) == ("estimators", "near") else load(kind, name))
    monkeypatch.setattr(screening, "report", lambda made, folder: None)  # has its own tests
    (tmp_path / "small.csv").write_text(cohort_text(("1", "2")), encoding="utf-8")
    files = [tmp_path / f"{n}.toml" for n in "ab"]
    files[0].write_text(ASKED.format(spread='["Cmax"]'))
    files[1].write_text(ASKED.format(spread='["Cmax"]') + "\n[errors]\nnowhere = \"additive\"\n")
    refused = CliRunner().invoke(cli.app, ["screen", *map(str, files)])
    assert refused.exit_code == 1
    assert "nowhere" in refused.output
    assert not made
    files[1].write_text(ASKED.format(spread="[]"))
    for _ in range(2):
        done = CliRunner().invoke(cli.app, ["screen", *map(str, files)])
        assert done.exit_code == 0, done.output
        assert done.output.count("stein_2019_near") == 2
    assert made == [(("Cmax",), 1), ((), 1)]
    files[1].write_text(ASKED.format(spread="[]").replace("model", "seed = 3\nmodel", 1))
    CliRunner().invoke(cli.app, ["screen", *map(str, files)])
    assert made[2:] == [((), 3)]
    kept = [json.loads(f.read_text()) for f in (tmp_path / "fits" / ".screen").glob("b-*.json")]
    assert {k["ok"] for k in kept} == {True}
    assert len({k["fit"] for k in kept}) == 2


ELSEWHERE = """
model = "mine.py"
[data]
file = "../small.csv"
[settings]
inits = "fits/one"
[priors]
from = "fits/two:0.5"
"""


def test_a_worker_in_another_folder_is_told_where_everything_lies(tmp_path, monkeypatch):
    (tmp_path / "asked").mkdir()
    (tmp_path / "asked" / "a.toml").write_text(ELSEWHERE)
    monkeypatch.setattr(screening.Request, "population", lambda request: None)
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(screening, "results", lambda prepare, source, asked, requests, *rest,
                        **options: seen.append((source, requests)) or requests)
    screening.screened([Path("asked/a.toml")], out=Path("fits"))
    [(source, requests)] = seen
    [request] = requests.values()
    there = tmp_path / "asked"
    assert source == str(tmp_path / "fits")
    assert request["model"] == str(there / "mine.py")
    assert Path(request["data"]["file"]).resolve() == tmp_path / "small.csv"
    assert request["settings"]["inits"] == str(there / "fits" / "one")
    assert request["priors"]["from"] == str(there / "fits" / "two:0.5")
    for path in (request["model"], request["data"]["file"]):
        assert Path(path).is_absolute()


def test_only_fits_of_one_method_on_the_same_observations_are_ranked(tmp_path, monkeypatch):
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda kind, name: NearTypical
                        if (kind, name) == ("estimators", "near") else load(kind, name))
    monkeypatch.setattr(screening, "report", lambda made, folder: None)
    (tmp_path / "small.csv").write_text(cohort_text(("1", "2")), encoding="utf-8")
    for name, patients in (("a", ""), ("b", 'patients = ["1"]'), ("c", "")):
        (tmp_path / f"{name}.toml").write_text(ASKED.format(
            spread='["Cmax"]' if name == "a" else "[]") + patients)
    made = screening.screened([tmp_path / f"{n}.toml" for n in "abc"])
    assert [[Path(n).stem for n in group] for group in screening.ranked(made)] == [["a", "c"],
                                                                                   ["b"]]
    for (name, method, bic) in (("a", "focei", 5.0), ("b", "fo", 1.0), ("c", "focei", 3.0)):
        made[str(tmp_path / f"{name}.toml")] |= {"method": method, "bic": bic,
                                                 "observations": "x", "rows": 7}
    monkeypatch.setattr(screening, "screened", lambda *files, **options: made)
    done = CliRunner().invoke(cli.app, ["screen", str(tmp_path / "a.toml")])
    assert re.findall(r"^(\w+, 7 obs|\S+/\w\.toml)", done.stdout, re.MULTILINE) == [
        "focei, 7 obs", *(str(tmp_path / f"{n}.toml") for n in "ca"),
        "fo, 7 obs", str(tmp_path / "b.toml")]
