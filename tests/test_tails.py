"""The normal tail against scipy's, with its first and second derivative."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from carpk.tails import log_normal_below

Z = np.concatenate([np.linspace(-60, 40, 20_001), [-1e5, -1e3, -12.0, -1e-300, 0.0, 1e5]])


def test_the_normal_tail_is_scipys_to_twelve_digits():
    assert np.allclose(log_normal_below(Z), special.log_ndtr(Z), rtol=1e-12, atol=1e-15)
    ends = log_normal_below(jnp.array([-np.inf, np.inf, np.nan]))
    assert ends[0] == -np.inf
    assert ends[1] == 0.0
    assert np.isnan(ends[2])


def test_so_are_its_slope_and_its_bend():
    near = Z[np.abs(Z) < 35]
    slope = np.exp(-0.5 * near**2 - 0.5 * np.log(2 * np.pi) - special.log_ndtr(near))
    first, second = jax.grad(log_normal_below), jax.grad(jax.grad(log_normal_below))
    assert np.allclose(jax.vmap(first)(near), slope, rtol=1e-10, atol=0.0)
    assert np.allclose(jax.vmap(second)(near), -slope * (near + slope), rtol=1e-8, atol=1e-12)
