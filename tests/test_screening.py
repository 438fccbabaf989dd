"""`carpk screen`: every request fitted once, what is refused said beside what is not."""

import json

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
