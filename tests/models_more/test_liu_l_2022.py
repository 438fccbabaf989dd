"""Liu 2022: what either population does where the other is missing."""

import numpy as np
import pytest
from test_models import integrated, values_of

from carpk import registry


@pytest.mark.parametrize(("name", "title"), [("liu_l_2022", "set 1"), ("liu_l_2022", "set 3"),
                                             ("liu_l_2022_negative_relapse", "set 2")])
def test_without_car_t_cells_the_leukaemia_grows_logistically(name, title):
    model = registry.load("models", name)
    p = values_of(model, {"set": title, "values": {"nTN0": 1e-250, "NB0": 10.0}})
    times = np.array([1.0, 10.0, 50.0, 100.0])
    seen = integrated(model, p, {}, 100.0)(times)
    grown = 10.0 * np.exp(p["rBp"] * times)
    np.testing.assert_allclose(seen["B"], grown / (1 + (grown - 10.0) / p["nMB"]), rtol=1e-8)


def test_without_leukaemia_car_t_cells_decline_exponentially():
    model = registry.load("models", "liu_l_2022")
    p = values_of(model, {"set": "set 1", "values": {"NB0": 1e-200, "rBp": 1e-9}})
    times = np.array([1.0, 10.0, 100.0])
    seen = integrated(model, p, {"T": 50.0}, 100.0)(times)
    np.testing.assert_allclose(seen["T"], 50.0 * np.exp(-p["lTA0"] * times), rtol=1e-9)
    np.testing.assert_allclose(seen["N"], p["nTN0"] * np.exp(-p["lTN"] * times), rtol=1e-9)
