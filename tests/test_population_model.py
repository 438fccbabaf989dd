"""Population models: what a request may say, and what it is refused for."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from models_for_tests import DECAY

from carpk.population_model import population
from carpk.problems import RequestError
from carpk.structure import Parameter, assumed


def test_names_are_built_by_one_grammar():
    assert population(DECAY).names == (
        "C0_pop", "k_pop", "omega_C0", "omega_k", "sigma_C_log")
    assert population(DECAY, spread=["k"], errors={"C": "combined"}).names == (
        "C0_pop", "k_pop", "omega_k", "sigma_C_add", "sigma_C_prop")


def test_everything_wrong_in_a_request_is_said_at_once():
    with pytest.raises(RequestError) as refused:
        population(DECAY, fixed={"Q": 1, "k": "much"}, free=["nothing"],
                   priors={"C0": "gauss(1)", "X": "normal(0,1)"})
    text = str(refused.value)
    assert len(refused.value.problems) == 5
    for word in ("Q", "much", "gauss", "X", "nothing"):
        assert word in text


@pytest.mark.parametrize("request_", [
    {"errors": {"D": "additive"}}, {"errors": {"C": "gaussian"}}, {"spread": ["V"]},
    {"fixed": {"k": 0.1}, "priors": {"k": "lognormal(1, 1)"}}])
def test_an_unknown_or_contradictory_word_is_refused(request_):
    with pytest.raises(RequestError):
        population(DECAY, **request_)


def test_a_short_name_stands_for_the_typical_value():
    model = population(DECAY, fixed=["k"], priors={"C0": "lognormal(50, 1)"})
    assert model.fixed == {"k_pop": 0.2}
    assert str(model.priors["C0_pop"]) == "lognormal(50, 1)"
    assert "k_pop" not in model.free


def test_a_spread_fixed_at_zero_takes_the_parameter_out_of_the_varying_ones():
    model = population(DECAY, fixed={"omega_k": 0})
    assert model.spread == ("C0",)
    assert "omega_k" not in model.names


def test_a_spread_the_model_file_holds_is_fixed_with_its_reason_until_it_is_freed():
    k = Parameter("k", 0.2, "1/day", "rate", omega=assumed(0.3, fixed="few early samples"))
    structure = dataclasses.replace(DECAY, parameters=(DECAY.parameters[0], k))
    model = population(structure)
    assert model.spread == ("C0", "k")
    assert model.fixed == {"omega_k": 0.3}
    assert model.reasons["omega_k"].endswith("few early samples")
    assert "omega_k" in population(structure, free=["omega_k"]).free
    assert population(structure, spread=["C0"]).fixed == {}
    assert population(structure, fixed={"omega_k": 0.1}).fixed == {"omega_k": 0.1}


def test_patient_values_are_on_the_natural_scale():
    model = population(DECAY, spread=["k"])
    phi = jnp.log(jnp.asarray([[0.1], [0.4]]))
    values = model.patient_values({"C0_pop": 90.0, "k_pop": 0.2}, {}, phi)
    assert np.allclose(values["k"], [0.1, 0.4])
    assert np.allclose(values["C0"], 90.0)
