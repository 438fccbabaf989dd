"""The bundled cohort is what its card says, and its script makes it again."""

import io
import tomllib

import numpy as np
import pandas as pd
import pytest
from conftest import script

from carpk import examples
from carpk.outcome_regression import regress

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


def test_dose_product_age_and_weight_have_no_effect(card):
    assert set(card["truth"]["effects"]) == {
        "Cmax ~ TUMOUR_BURDEN", "Cmax ~ RESPONSE", "alpha ~ RESPONSE"}


@pytest.mark.slow  # last: at most 1.40 SE of seed 2039, 1.95 of the next, 5 s
def test_the_seed_is_the_one_whose_patients_are_most_nearly_as_the_truth_says(making, monkeypatch):
    away, truth = {}, making.CARD["truth"]
    for seed in range(2000, 2050):
        monkeypatch.setitem(making.CARD, "seed", seed)
        own = pd.read_csv(io.StringIO(making.make()[1]), index_col="ID")
        who = making.covariates(np.random.default_rng(seed))
        moved = shifts(making.CARD, who)
        eta = np.stack([(np.log(own[n] / v).to_numpy() - moved.get(n, 0.0)) / truth["omega"][n]
                        for n, v in truth["typical"].items()])
        columns = [who["RESPONSE"] == "NR", who["PRODUCT"] == "B", who["AGE"],
                   *np.log(who[["TUMOUR_BURDEN", "DOSE", "WT"]].to_numpy().T)]
        r = np.corrcoef(np.vstack([eta, np.array(columns, dtype=float)]))[:len(eta), len(eta):]
        away[seed] = max(np.abs(v).max() for v in (
            90**0.5 * eta.mean(axis=1), 90**0.5 * r, 180**0.5 * np.log(eta.std(axis=1, ddof=1))))
    print(sorted(away.values())[:3])
    assert min(away, key=away.__getitem__) == 2039


def test_the_stream_is_the_one_whose_outcomes_are_nearest_to_the_truth(making):
    own = pd.read_csv(FOLDER / "individual_truth.csv", index_col="ID")
    who = pd.read_csv(FOLDER / "tisacel_like.csv").drop_duplicates("ID").set_index("ID")
    crs, pfs = making.CARD["outcomes"]["CRS_GRADE"], making.CARD["outcomes"]["PFS"]
    peak = np.stack([np.log2(own["Cmax"]), who["TUMOUR_BURDEN"]], axis=1)[None]
    area = np.stack([np.log2(making.exposure(own, 28)), who["RESPONSE"] == "NR"], axis=1)[None]
    wanted = np.log([crs["odds_ratio_per_doubling"], crs["odds_ratio_per_percent_burden"],
                     pfs["hazard_ratio_per_doubling"], pfs["hazard_ratio_NR"]])
    away = {}
    for stream in range(1, 41):
        came = making.outcomes(np.random.default_rng([making.CARD["seed"], stream]), who, own)
        days, event = came["PFS_DAYS"].to_numpy() - 28.0, came["PFS_EVENT"].to_numpy()
        fits = (regress("ordinal", peak, came["CRS_GRADE"].to_numpy()),
                regress("survival", area[:, days > 0], days[days > 0], event[days > 0]))
        slopes, errors = (np.concatenate([getattr(f, n)[0] for f in fits])
                          for n in ("slopes", "errors"))
        away[stream] = (((slopes - wanted) / errors)**2).sum()
    assert min(away, key=away.__getitem__) == making.CARD["outcomes"]["stream"]
