"""Bundled cohorts: read by name, each with its card."""

import pytest

from carpk import examples
from carpk.problems import RequestError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("two_patients", "one_patient"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.toml").write_text('[units]\n1 = "copies/ug"\n')
        (tmp_path / name / f"{name}.csv").write_text("ID,TIME,DV\n1,7,420\n2,7,99\n")
        (tmp_path / name / "truth.csv").write_text("not,a,cohort\n")
    (tmp_path / "README.md").write_text("not a cohort either")
    monkeypatch.setattr(examples, "FOLDER", tmp_path)
    return tmp_path


def test_a_bundled_cohort_is_read_by_name_with_the_units_of_its_card(folder):
    cohort = examples.example("two_patients")
    assert cohort.ids == ("1", "2")
    assert cohort.units == {1: "copies/ug"}
    assert cohort.source == "example:two_patients"


def test_every_folder_with_a_csv_of_its_own_name_is_a_cohort(folder):
    assert examples.names() == ["one_patient", "two_patients"]


@pytest.mark.parametrize(("name", "remedy"), [
    ("two_patient", "did you mean two_patients?"), ("xyz", "known: one_patient, two_patients"),
    ("../two_patients", "two_patients"), ("", "known"), ("truth", "known")])
def test_an_unknown_name_is_refused_with_the_known_ones(folder, name, remedy):
    with pytest.raises(RequestError) as caught:
        examples.example(name)
    assert caught.value.problems[0].found == name
    assert remedy in caught.value.problems[0].remedy


@pytest.mark.parametrize("name", examples.names())
def test_every_bundled_cohort_has_a_card_and_units_and_no_problem(name):
    cohort = examples.example(name)
    assert (examples.FOLDER / name / "card.toml").is_file()
    assert set(cohort.observations["DVID"]) <= set(cohort.units)
