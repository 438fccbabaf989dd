"""The bundled cohort is what its card says, and its script makes it again."""

import io
import tomllib

import numpy as np
import pandas as pd
import pytest
from conftest import script

from carpk import examples

FOLDER = examples.FOLDER / "tisacel_like"


@pytest.fixture(scope="module")
def making():
    return script(FOLDER / "make.py")


@pytest.fixture(scope="module")
def card():
    return tomllib.loads((FOLDER / "card.toml").read_text("utf-8"))


def shifts(card, table):
    """The effects of the card by hand: {parameter: shift of its logarithm, one per patient}."""
    total = {}
    for pair, effect in card["truth"]["effects"].items():
        parameter, column = pair.split(" ~ ")
        if effect["form"] == "power":
            by = effect["coefficient"] * np.log(table[column] / effect["reference"])
        else:
            by = table[column].map({effect["reference"]: 0.0, **{
                k: v for k, v in effect.items() if k not in ("form", "reference")}})
        total[parameter] = total.get(parameter, 0.0) + by.to_numpy(float)
    return total


def test_the_script_makes_the_files_again_byte_for_byte(making):
    names = ("tisacel_like.csv", "individual_truth.csv")
    assert tuple(t.encode() for t in making.make()) == \
        tuple((FOLDER / n).read_bytes() for n in names)


def test_what_is_drawn_of_outcomes_leaves_all_else_as_it_is(making, monkeypatch):
    monkeypatch.setitem(making.CARD["outcomes"], "stream", 1)
    new, old = (pd.read_csv(io.StringIO(t), dtype=str) for t in (
        making.make()[0], (FOLDER / "tisacel_like.csv").read_text("utf-8")))
    drawn = ["CRS_GRADE", "PFS_DAYS", "PFS_EVENT"]
    assert new.drop(columns=drawn).equals(old.drop(columns=drawn))
    assert all((new[c] != old[c]).any() for c in drawn)


def test_the_card_describes_every_column(card):
    header = (FOLDER / "tisacel_like.csv").read_text("utf-8").partition("\n")[0]
    assert header.split(",") == list(card["columns"])


def test_levels_below_the_limit_are_censored_at_it(card):
    table = pd.read_csv(FOLDER / "tisacel_like.csv")
    assert (table["LLOQ"] == card["lloq"]).all()
    assert (table["DV"] >= card["lloq"]).all()
    assert (table.loc[table["CENS"] == 1, "DV"] == card["lloq"]).all()
    assert 0.2 < table["CENS"].mean() < 0.35


def test_the_truth_without_covariates_follows_from_the_truth_with_them(making, card):
    patients = making.covariates(np.random.default_rng(card["seed"]))
    truth = card["truth"]
    for name, shift in shifts(card, patients).items():
        stated = truth["without_covariates"]
        assert stated[name] == pytest.approx(truth["typical"][name] * np.exp(shift.mean()), 1e-3)
        omega = np.hypot(truth["omega"][name], shift.std())
        assert stated[f"omega_{name}"] == pytest.approx(omega, abs=5e-4)


def test_the_patients_drawn_are_within_chance_of_the_truth(making, card):
    own = pd.read_csv(io.StringIO(making.make()[1]), index_col="ID")
    patients = making.covariates(np.random.default_rng(card["seed"]))
    moved, truth = shifts(card, patients), card["truth"]
    for name, typical in truth["typical"].items():
        eta = np.log(own[name].to_numpy() / typical) - moved.get(name, 0.0)
        assert abs(eta.mean()) < 2 * truth["omega"][name] / 90**0.5
        assert abs(np.log(eta.std(ddof=1) / truth["omega"][name])) < 2 / 180**0.5


def test_product_age_and_weight_have_no_effect(card):
    named = {pair.split(" ~ ")[1] for pair in card["truth"]["effects"]}
    assert named == {"TUMOUR_BURDEN", "DOSE", "RESPONSE"}
    assert len(card["truth"]["effects"]) == 4
