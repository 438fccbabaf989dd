"""carpk's own optima, from starts that are read off the data, against the printed ones.

Of wbc, whose optimum has spreads of 1e-5 and a feedback of e^-11.6, the summaries lead to 785,
where most patients have several modes: its start is the likelier one from the priors' centres.
"""

import pytest
import references

from carpk.fitting import fit
from carpk.marginal import objective

USUAL = {
    "warfarin": ("focei", 423.327289, {}),
    "orthodont": ("laplace", 229.31523, {}),
}
OTHERS = {
    "theophylline_fo": ("focei", 104.561066, {"method": "fo"}),
    "theophylline_nlmer": ("focei", 111.38372, {}),
    "warfarin_ode": ("focei", 423.327282, {}),
    "warfarin_lag": ("focei", 225.932864, {}),
    "phenobarbital": ("focei", 730.894727, {}),
    "phenobarbital_real": ("focei", 586.276056, {}),
    "bauer501": ("focei", 1058.303712, {}),
    "schoemaker": ("focei", 20167.641094, {}),
    "mixed": ("laplace", 10036.794505, {}),
    "wbc": ("focei", 586.869021, {}),
}


def own_optimum(name, data, estimator, settings):
    model, cohort, _ = getattr(references, name)(data)
    return fit(model, cohort, estimator, seed=1, inits="data", draws=51, **settings)


@pytest.mark.parametrize("name", USUAL)
def test_a_start_from_the_data_leads_no_higher_than_the_print(name, shared_data):
    estimator, ofv, settings = USUAL[name]
    found = own_optimum(name, shared_data, estimator, settings)
    assert found.convergence.measures["ofv"] < ofv + 0.01


# last run: all passed, wbc at 586.86880 after 11 minutes
@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_starts_from_the_data_lead_no_higher_than_the_print(name, shared_data):
    estimator, ofv, settings = OTHERS[name]
    found = own_optimum(name, shared_data, estimator, settings)
    print(name, found.convergence.measures["ofv"], found.convergence.reasons)
    assert found.convergence.measures["ofv"] < ofv + 0.01


# passed, -136.221 by both; with the seven above 100 s on two cores
@pytest.mark.slow
def test_a_fit_with_patients_of_two_modes_says_what_the_objective_says(shared_data):
    """Followed along its path the mode of patient 10 came to the end of its life, where Laplace's
    objective has no floor: a fit said -138.6 and the objective at its estimates -135.7. It is steep
    there: estimates moved by 1e-5 of themselves move it by 0.014."""
    found = own_optimum("ad3tr4", shared_data, "laplace", {})
    model, cohort, _ = references.ad3tr4(shared_data)
    theta = {n: v["estimate"] for n, v in found.manifest["estimates"].items()}
    ofv = found.convergence.measures["ofv"]
    assert objective(model, cohort, theta, "laplace").total == pytest.approx(ofv, abs=0.001)
    assert ofv < -130.41471 + 0.01
    assert "two modes" in found.convergence.reasons[0]
