"""Patients shared out among devices: the same numbers as on one."""

import os
import subprocess
import sys

import pytest

DENSITY = """
import sys; sys.path[:0] = ["tests"]
import jax, jax.numpy as jnp, numpy as np
from carpk.cohort import design
from carpk.conditional import Patients
from carpk.likelihood import data_of, from_theta, log_joint, to_theta
from carpk.padding import filled_on_devices, filled_up
from carpk.population_model import population
from carpk.preparation import resolve
from test_solve import ORAL, cohort

assert len(jax.devices()) == 4
who = cohort([0.5, 2, 11, 13, 30.0], [(1, 0, 100, 0), (2, 12, 50, 3)], patients=6)
seen = design(who, ORAL)
model, _ = resolve(population(ORAL, spread=["Ka", "CL"], steps=40, solver="tsit5",
                              errors={"Cc": "lognormal"}), seen, {})
u = from_theta(model, {n: p.median for n, p in model.priors.items()} | dict(model.fixed))
eta = 0.1 * np.random.default_rng(1).normal(size=(8, 2))
both = jax.jit(jax.value_and_grad(
    lambda u, eta, data: log_joint(model, data, to_theta(model, u), eta), (0, 1)))
one = data_of(model, seen)
full, many = filled_up(one, 4), filled_on_devices(one)  # eight, whom four devices divide
assert {len(x.sharding.device_set) for x in jax.tree.leaves(many)} == {4}
for a, b in zip(jax.tree.leaves(both(u, eta, full)), jax.tree.leaves(both(u, eta, many))):
    np.testing.assert_allclose(np.asarray(b), np.asarray(a), rtol=1e-12, atol=1e-12)

all_ = Patients(model, one)
alone = Patients(model, one)
alone.full = filled_up(one)
assert {len(x.sharding.device_set) for x in jax.tree.leaves(all_.full)} == {4}
for a, b in zip(jax.tree.leaves(alone.modes(u)), jax.tree.leaves(all_.modes(u))):
    assert a.shape[0] == 6
    np.testing.assert_allclose(np.asarray(b), np.asarray(a), rtol=1e-9, atol=1e-9)
"""
FIT = """
import sys; sys.path[:0] = ["tests"]
import numpy as np
from models_for_tests import DECAY, decaying
from carpk import fit, population

for estimator, settings in (("laplace", {}), ("saem", {}), ("svi", {"steps": 500}),
                            ("gibbs", {"chains": 3, "warmup": 30, "draws": 20}),
                            ("nuts", {"chains": 2, "warmup": 50, "draws": 20})):
    theta = fit(population(DECAY), decaying(), estimator, seed=1, **settings).posterior
    print(*(repr(float(v.mean())) for v in theta["posterior"].dataset.data_vars.values()))
"""


def ran(code, devices):
    """What it prints in a process that sees so many devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={
            **os.environ, "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}"})
    assert done.returncode == 0, done.stderr
    return done.stdout


WHERE = """
import sys; sys.path[:0] = ["tests"]
import jax
from models_for_tests import DECAY, decaying
from carpk import chains, fit, population

real, seats = chains._run, []
chains._run = lambda settings, states, given, *more: seats.append(given) or real(
    settings, states, given, *more)
fit(population(DECAY), decaying(3), "gibbs", seed=1, chains=3, warmup=4, draws=4)
assert [s.device for s in seats[0]] == jax.devices()
assert all(leaf.devices() == {s.device} for s in seats[0] for leaf in jax.tree.leaves(s.data))
"""


TOGETHER = """
import sys; sys.path[:0] = ["tests"]
import jax, numpy as np
from carpk.estimators.svi import Svi
from carpk.stochastic_em import Programs
from test_padding import by_saem, problem

asked, there = problem(7), []
for kind, name, data_of in ((Programs, "run", lambda patients, *more: patients.full),
                            (Svi, "_climbed", lambda model, data, *more: data)):
    def told(self, *given, real=getattr(kind, name), data_of=data_of):
        there.append({(len(x), len(x.sharding.device_set))
                      for x in jax.tree.leaves(data_of(*given))})
        return real(self, *given)
    setattr(kind, name, told)


def found():
    there.clear()
    walked, _ = by_saem(*asked)
    by_svi = Svi(steps=500, particles=1, draws=100).fit(
        *asked[:2], tuple("1234567"), 1, lambda *said: None)
    assert by_svi.phi.shape == (1, 100, 7, 2)
    return walked[:3], by_svi.theta, by_svi.phi, dict(by_svi.convergence.measures)


three, devices = found(), jax.devices()
assert len(devices) == 3
assert len(there) == 9 and all(found == {(9, 3)} for found in there), there
jax.devices = lambda: devices[:1]
one = found()
assert all(found == {(7, 1)} for found in there), there
for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(three), strict=True):
    np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-10)
"""


@pytest.mark.slow  # passed, 25 s
def test_saem_and_svi_share_seven_patients_among_three_devices():
    ran(TOGETHER, 3)


@pytest.mark.slow  # passed, 16 s
def test_chains_sit_on_all_devices():
    ran(WHERE, 2)


def test_a_density_and_its_gradient_are_those_of_one_device_to_12_digits():
    ran(DENSITY, 4)


@pytest.mark.slow  # passed, 66 s at a load of 4
def test_a_fit_on_two_devices_is_that_on_one():
    one, two = ([[float(x) for x in line.split()] for line in ran(FIT, n).splitlines()]
                for n in (1, 2))
    assert two[-2:] == one[-2:]  # samplers, whose chains are what is shared out
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
