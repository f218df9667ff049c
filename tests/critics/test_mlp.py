"""The MLP critic: shapes, gradients with respect to θ, capacity, and the literal dictionary of critics."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epvf_data.critics import CRITICS, Scale, mlp, standardise, value
from epvf_data.errors import ConfigError


@pytest.mark.parametrize("name", sorted(CRITICS))
def test_every_critic_maps_one_policy_to_one_number(name):
    critic = CRITICS[name]()
    params = critic.init(jax.random.key(0), 11)
    assert critic.name == name
    assert critic.apply(params, jnp.ones(11)).shape == ()
    assert jax.vmap(critic.apply, in_axes=(None, 0))(params, jnp.ones((5, 11))).shape == (5,)


@given(seed=st.integers(0, 2**16), size=st.sampled_from([1, 12]))
def test_gradient_equals_finite_differences(seed, size):
    # Scaled to return units, so that standardisation is differentiated too. float64 tells kinks from rounding.
    with jax.enable_x64(True):
        critic = mlp((16, 16))
        key, start = jax.random.split(jax.random.key(seed))
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), critic.init(key, size))
        theta = jax.random.normal(start, (size,), jnp.float64)
        ones = jnp.ones(size, jnp.float64)
        scale = Scale(0.1 * ones, 0.5 * ones, jnp.asarray(3.0), jnp.asarray(7.0))

        def line(step: float):
            return float(value(critic, params, scale, theta + step * ones))

        slope = float(jax.grad(value, argnums=3)(critic, params, scale, theta).sum())
        step = 1e-7
        left, right = (line(0.0) - line(-step)) / step, (line(step) - line(0.0)) / step
        assert min(abs(slope - left), abs(slope - right)) < 1e-4 * max(1.0, abs(slope))


def test_standardise_undoes_the_scale():
    scale = Scale(jnp.array([1.0, -2.0]), jnp.array([2.0, 4.0]), jnp.array(0.0), jnp.array(1.0))
    np.testing.assert_allclose(standardise(scale, jnp.array([3.0, 2.0])), [1.0, 1.0])


def test_a_zero_head_starts_at_the_mean_without_a_gradient():
    critic = mlp((8,), zero_last=True)
    params = critic.init(jax.random.key(0), 5)
    theta = jax.random.normal(jax.random.key(1), (5,))
    assert float(critic.apply(params, theta)) == 0.0
    np.testing.assert_array_equal(jax.grad(critic.apply, argnums=1)(params, theta), np.zeros(5))
    plain = mlp((8,))
    assert np.abs(jax.grad(plain.apply, argnums=1)(plain.init(jax.random.key(0), 5), theta)).max() > 0


@pytest.mark.parametrize("widths", [(0,), (8, -1), (2.5,)])
def test_impossible_widths_are_refused(widths):
    with pytest.raises(ConfigError, match="whole number"):
        mlp(widths)
