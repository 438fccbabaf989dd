"""Sahoo 2020: the equilibria of CARRGO and what decides between cure and escape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from carpk import registry
from carpk.structure import named

MODEL = registry.load("models", "sahoo_2020_carrgo")
LESION = registry.load("models", "sahoo_2020_carrgo_lesion")


def dimensionless(A, B):
    return named({"rho": 1.0, "K": 1.0, "k1": 1.0, "k2": B, "theta": A})


def slopes(x, p):
    dy = MODEL.rates(0.0, named({"X": x[0], "Y": x[1]}), p)
    return jnp.stack([jnp.asarray(dy["X"]), jnp.asarray(dy["Y"])])


def eigenvalues(x, p):
    return np.linalg.eigvals(np.asarray(jax.jacfwd(slopes)(jnp.array(x), p)))


@pytest.mark.parametrize(("A", "B"), [(0.14, 1.6), (0.5, 0.6), (0.9, 1.0), (0.05, 4.0)])
def test_the_populations_coexist_at_a_stable_point_that_is_a_focus_if_a_over_b_is_small(A, B):
    p, at = dimensionless(A, B), (A / B, 1 - A / B)
    for point in ((0.0, 0.0), (1.0, 0.0), at):
        np.testing.assert_allclose(slopes(jnp.array(point), p), 0.0, atol=1e-12)
    values = eigenvalues(at, p)
    assert max(values.real) < 0
    assert (abs(values[0].imag) > 0) == (A / B < 4 * (B - A))


@pytest.mark.parametrize(("A", "B"), [(1.2, 1.0), (0.3, -0.2)])
def test_the_full_capacity_is_stable_when_car_t_cells_cannot_coexist(A, B):
    assert max(eigenvalues((1.0, 0.0), dimensionless(A, B)).real) < 0


@pytest.mark.parametrize("model", [MODEL, LESION])
def test_without_loss_a_lasting_cure_takes_more_car_t_cells_than_rho_over_k1(model):
    for values in model.parameter_sets.values():
        p, few = named({**values, "theta": 0.0}), values["rho"] / values["k1"]
        for X in (1e-9 * values["K"], 0.5 * values["K"]):  # less is enough against a large tumour
            enough = few * (1 - X / values["K"])
            assert model.rates(0.0, named({"X": X, "Y": 0.99 * enough}), p)["X"] > 0
            assert model.rates(0.0, named({"X": X, "Y": 1.01 * enough}), p)["X"] < 0


def test_killing_falls_and_proliferation_rises_with_the_number_of_car_t_cells():
    sets = MODEL.parameter_sets
    for line in ("PBT138", "PBT030", "HT1080"):
        wells = [sets[f"{line} {ratio}"] for ratio in ("1:20", "1:10", "1:5")]
        assert wells[0]["k1"] > wells[1]["k1"] > wells[2]["k1"]
        if line != "HT1080":  # whose k2 is 0.05, 0.06, 0.05
            assert wells[0]["k2"] < wells[1]["k2"] < wells[2]["k2"]


def test_exhaustion_lets_the_tumour_escape_in_the_lesion_t9():
    assert LESION.parameter_sets["T9"]["k2"] < 0 < LESION.parameter_sets["T7"]["k2"]
