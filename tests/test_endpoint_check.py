"""Clinical endpoints of replicates are those `carpk.nca` would report of the same samples."""

import dataclasses

import numpy as np
import pytest

from carpk.endpoint_check import checked, endpoints_of
from carpk.examples import example
from carpk.noncompartmental import nca
from carpk.population_model import population
from carpk.predictive_check import replicates

NAMES = {"Cmax": "Cmax", "Tmax": "Tmax", "AUC0_28": "AUC0_28", "Clast": "Clast",
         "Tlast": "Tlast", "detectable_M3": "detectable_M3", "detectable_M12": "detectable_M12"}


@pytest.fixture
def cohort():
    return example("tisacel_like").select([str(k) for k in range(1, 15)])


@pytest.fixture
def fit(near_typical, cohort):
    return near_typical(population("stein_2019"), cohort)


def test_observed_and_simulated_endpoints_are_those_of_nca(fit, cohort):
    found = endpoints_of(fit, "C", 20).values
    simulated = replicates(fit, 20)
    again = cohort.observations.copy()
    y = simulated.y[3]
    below = y < simulated.limit
    again["DV"] = np.where(below, simulated.limit, y)
    again["LOWER"], again["UPPER"] = np.where(below, -np.inf, y), again["DV"]
    again["CENS"] = below.astype(int)
    for place, data in ((0, cohort), (4, dataclasses.replace(cohort, observations=again))):
        table = nca(data)
        for name in NAMES:
            np.testing.assert_allclose(found[name][place], table[name].astype(float), rtol=1e-9,
                                       err_msg=f"{name} of {place}")


def test_who_is_not_yet_lost_is_bracketed_by_the_last_sample_above_and_the_next(fit, cohort):
    found = endpoints_of(fit, "C", 20)
    table = nca(cohort)
    samples = cohort.observations.groupby("ID")["TIME"].apply(np.sort)
    for k, (patient, last) in enumerate(zip(table["ID"], table["Tlast"], strict=True)):
        later = samples[patient][samples[patient] > last]
        assert found.next_sample[0, k] == (later[0] if len(later) else np.inf)
    share = found.still_above(np.array([0.0, 30.0, 200.0]), 10)
    assert share.shape == (11, 3)
    assert (share[:, 0] == 1).all()
    assert (np.diff(share, axis=1) <= 0).all()


def test_a_check_compares_medians_and_shares_over_patients(fit):
    found, table = endpoints_of(fit, "C", 50).values, checked(fit, 50).set_index("endpoint")
    assert table.loc["Cmax", "observed"] == np.nanmedian(found["Cmax"][0])
    each = np.nanmedian(found["Cmax"][1:], axis=1)
    assert table.loc["Cmax", "median"] == pytest.approx(np.median(each))
    assert table.loc["Cmax", "p"] == pytest.approx(
        2 * min((each < np.nanmedian(found["Cmax"][0])).mean(),
                (each > np.nanmedian(found["Cmax"][0])).mean()))
    assert table.loc["detectable_M3", "statistic"] == "share"
    assert table.loc["detectable_M3", "observed"] == np.nanmean(found["detectable_M3"][0])
    assert table["p"].between(0, 1).all()


def test_a_model_that_peaks_ten_times_too_high_is_seen(near_typical, cohort):
    rows = cohort.observations.copy()
    measured = rows["CENS"] == 0
    rows.loc[measured, ["DV", "LOWER", "UPPER"]] *= 10
    high = near_typical(population("stein_2019"), dataclasses.replace(cohort, observations=rows))
    table = checked(high, 100).set_index("endpoint")
    assert table.loc["Cmax", "p"] < 0.02
    assert table.loc["Cmax", "observed"] > table.loc["Cmax", "upper95"]
