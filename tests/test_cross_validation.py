"""Patients left out a fold at a time: against the closed form of a linear model, and refusals."""

import dataclasses

import numpy as np
import pytest
from reference_models import LINE
from scipy import stats
from scipy.special import logsumexp
from test_comparison import DESIGN, conditioned, lines, omega_of

from carpk.comparison import COLUMNS
from carpk.cross_validation import folds_of, kfold
from carpk.population_model import population
from carpk.prediction import some_draws
from carpk.problems import RequestError

PRIORS = {"b_pop": "normal(1, 0.3)", "omega_a": "halfnormal(1)", "omega_b": "halfnormal(0.5)",
          "sigma_C_add": "halfnormal(0.8)"}


def exact(refit, left):
    """ln of the mean over the refit's draws of each left-out patient's multivariate normal."""
    draws, whole = refit.posterior["posterior"].dataset, lines()
    rows = whole.observations
    found = []
    for patient in left:
        y = rows.loc[rows["ID"] == patient, "DV"].to_numpy()
        logs = []
        for s in some_draws(refit, 400):
            at = {n: float(draws[n].values.reshape(-1)[s]) for n in refit.model.free}
            logs.append(stats.multivariate_normal(
                DESIGN @ [at["a_pop"], at["b_pop"]],
                DESIGN @ omega_of(at) @ DESIGN.T + at["sigma_C_add"] ** 2 * np.eye(4)).logpdf(y))
        found.append(logsumexp(logs) - np.log(len(logs)))
    return np.array(found)


def test_left_out_patients_have_the_density_of_the_fits_without_them(near_typical):
    """Of two models one is centred 3 from where the lines were simulated."""
    whole = lines()
    folds = folds_of(whole.ids, 2)
    fits, refits = {}, {}
    for name, centre in (("near", 21), ("far", 24)):
        model = population(LINE, priors={**PRIORS, "a_pop": f"normal({centre}, 1)"})
        fits[name] = conditioned(near_typical(model, whole))
        refits[name] = [near_typical(model, whole.select([i for i in whole.ids if i not in left]))
                        for left in folds]
    tables = [kfold(fits, refits, folds, seed) for seed in range(1, 7)]
    table = tables[0]
    assert tuple(table.columns) == COLUMNS
    assert list(table["fit"]) == ["near", "far"]
    assert set(table["unit"]) == {"patient, 2 folds"}
    # the patients' phi are drawn: the mean of six times
    columns = ["elpd", "se", "difference", "difference_se", "weight"]
    ours = sum(t.set_index("fit")[columns] for t in tables) / len(tables)
    density = {n: np.concatenate([exact(r, left) for r, left in zip(refits[n], folds, strict=True)])
               for n in fits}
    for name, own in density.items():
        assert ours.loc[name, "elpd"] == pytest.approx(own.sum(), abs=0.5)
        assert ours.loc[name, "se"] == pytest.approx((12 * own.var()) ** 0.5, rel=0.1)
    behind = density["far"] - density["near"]
    assert ours.loc["far", "difference"] == pytest.approx(behind.sum(), abs=0.5)
    assert ours.loc["far", "difference_se"] == pytest.approx((12 * behind.var()) ** 0.5, rel=0.1)
    assert ours["weight"].sum() == pytest.approx(1.0)
    assert ours.loc["near", "weight"] > 0.5


def test_folds_differ_by_one_and_every_patient_is_left_out_once():
    ids = [str(i) for i in range(13)]
    folds = folds_of(ids, 5)
    assert sorted(i for fold in folds for i in fold) == sorted(ids)
    assert {len(fold) for fold in folds} == {2, 3}
    assert folds == folds_of(ids, 5)


@pytest.mark.parametrize("count", [1, 14])
def test_folds_that_cannot_be_are_refused(count):
    with pytest.raises(RequestError, match="13 patients make 2 to 13 folds"):
        folds_of([str(i) for i in range(13)], count)


def test_a_level_that_only_one_fold_has_is_refused(near_typical):
    whole = lines()
    whole = dataclasses.replace(whole, covariates=whole.covariates.assign(
        SITE=["x", "x", *["y"] * 5, *["z"] * 5]))
    model = population(LINE, covariates={"a ~ SITE": "category(y)"}, priors=PRIORS)
    fit = near_typical(model, whole)
    folds = [("1", "2"), whole.ids[2:]]
    refits = [near_typical(model, whole.select(whole.ids[2:]))]
    with pytest.raises(RequestError, match=r"only patients of one fold have it \(1, 2\)"):
        kfold({"a": fit, "b": fit}, {"a": [*refits, *refits], "b": [*refits, *refits]}, folds)
