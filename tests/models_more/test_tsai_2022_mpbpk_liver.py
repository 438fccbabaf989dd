"""Tsai 2022, liver tumour: its volume by route, flows that close, cells that are kept."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from test_models import GOLDEN, assert_printed, integrated, solved, values_of

from carpk import registry
from carpk.structure import named

MODEL = registry.load("models", "tsai_2022_mpbpk_liver")
CELLS = tuple(s.name for s in MODEL.states if s.name != "F")
FPV = float(MODEL.derive(named(values_of(MODEL, {})))["fpv"])
DOSES = {"intravenous": {"Aven": 3e6}, "hepatic artery": {"VT": 3e6},
         "portal vein": {"VT": FPV * 3e6, "VH": (1.0 - FPV) * 3e6}}


@pytest.mark.parametrize("route", GOLDEN["tsai_2022_mpbpk_liver"]["route"],
                         ids=lambda r: r["name"])
def test_the_tumour_grows_and_goes_as_printed_for_each_route(route):
    at = integrated(MODEL, values_of(MODEL, {}), DOSES[route["name"]], 16 * 24.0,
                    rtol=1e-10, atol=1e-14)

    def volume(hour):
        return float(at([hour])["V"][0])

    hours = np.arange(0.0, 16 * 24.0 + 1.0)
    top = hours[at(hours)["V"].argmax()]
    best = minimize_scalar(lambda t: -volume(t), method="bounded", bounds=(top - 1, top + 1))
    assert_printed(-best.fun, route["printed"]["largest"])
    gone = brentq(lambda t: volume(t) - 0.01, top, 16 * 24.0)
    assert_printed(gone / 24.0, route["printed"]["gone"])


def test_blood_and_lymph_flows_close():
    p = MODEL.typical
    assert p["Qha"] + p["Qg"] + p["Qs"] + p["Qo"] == pytest.approx(p["Q"], rel=1e-12)
    lymph = p["LL"] + p["Lo"] + p["Lg"] + p["Ls"] + p["LH"]
    assert lymph == pytest.approx(p["LLN"], rel=1e-3)  # as rounded in the table


def test_cells_that_are_neither_made_nor_lost_are_kept():
    entry = {"dose": {"Aven": 3e6}, "values": {"kel": 0.0, "kpro": 0.0}}
    seen = solved(MODEL, entry, 336.0)(np.array([1.0, 24.0, 336.0]))
    np.testing.assert_allclose(sum(seen[n] for n in CELLS), 3e6, rtol=1e-8)
