"""What the README shows is what happens: its files, commands and Python are run."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import NearTypical
from typer.testing import CliRunner

from carpk import cli, examples, registry

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [(before, language, text) for before, language, text in re.findall(
    r"(?:<!-- file: (\S+) -->\n)?```(\w+)\n(.*?)```", README, re.DOTALL)]


@dataclass(frozen=True)
class Quick(NearTypical):
    """Stands in for NUTS, so that the walk takes seconds."""

    target_accept: float = 0.8


@pytest.fixture
def walk(tmp_path, monkeypatch):
    """A folder with the files of the README, where fits cost nothing, of twelve patients."""
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda kind, name: Quick
                        if (kind, name) == ("estimators", "nuts") else load(kind, name))
    whole = examples.example
    monkeypatch.setattr(examples, "example", lambda *name, **how: whole(*name, **how).select(
        [str(k) for k in range(1, 13)]))
    monkeypatch.chdir(tmp_path)
    for name, _, text in BLOCKS:
        if name:
            (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_every_command_of_the_walk_does_what_it_says(walk, short_reports):
    lines = [line for _, language, text in BLOCKS if language == "sh"
             for line in text.replace("\\\n", " ").splitlines() if line.startswith("carpk ")]
    assert len(lines) >= 8
    for line in lines:
        made = next(iter(sorted((walk / "fits").glob("2*"))), "")
        asked = shlex.split(line.replace("fits/<the fit>", f"'{made}'"))[1:]
        done = CliRunner().invoke(cli.app, asked)
        assert done.exit_code == 0, f"{line}\n{done.output}"
    assert len(list((walk / "fits").iterdir())) == sum(" fit " in line for line in lines)
    assert all((f / "report.html").is_file() for f in (walk / "fits").iterdir())


def test_the_python_of_the_readme_makes_the_folder_it_describes(walk, request):
    [code] = [text for name, language, text in BLOCKS if language == "python" and not name]
    exec(compile(code, "README.md", "exec"), {})
    [folder] = (walk / "fits").iterdir()
    listed = re.findall(r"^\| `([\w.]+)/?` \|", README.partition("## Where")[0], re.MULTILINE)
    assert sorted(listed) == sorted(f.name for f in folder.iterdir())
    request.getfixturevalue("short_reports")
    assert CliRunner().invoke(cli.app, ["report", str(folder)]).exit_code == 0


def test_the_main_command_is_the_one_that_the_walk_fits_with():
    [both] = [text for _, language, text in BLOCKS if "pip install . &&" in text]
    assert both.partition("&& ")[2] in [t for _, _, t in BLOCKS]


def test_every_file_and_folder_that_is_named_is_there():
    named = re.findall(r"`((?:models|data|docs|notebooks|tests|carpk|\.ci)/[\w./]*)`", README)
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert [n for n in (*named, *pictures) if not (ROOT / n).exists()] == []
    assert pictures
