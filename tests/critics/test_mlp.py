"""MLP and SimBa: a zero head, impossible widths, dead units; what they read is in units of the rows' spread."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epvf_data.critics.base import Row, Scale, make_row
from epvf_data.critics.losses import make_loss
from epvf_data.critics.mlp import dead_units, mlp, simba
from epvf_data.critics.value import value
from epvf_data.errors import ConfigError


def slope(critic, params, theta):
    return jax.grad(lambda scaled: critic.apply(params, Row(scaled, scaled))[0])(theta)


def test_a_row_undoes_the_scale():
    scale = Scale(jnp.array([1.0, -2.0]), jnp.array([2.0, 4.0]), jnp.array(5.0), jnp.array(10.0))
    row = make_row(scale, jnp.array([3.0, 2.0]))
    np.testing.assert_allclose(row.scaled, [1.0, 1.0])
    np.testing.assert_allclose(row.vector, [3.0, 2.0])
    critic = mlp(2, (4,), zero_last=True)
    found = value(critic, make_loss("mse"), critic.init(jax.random.key(0)), scale, row.vector)
    assert float(found) == 5.0  # the mean return, as nothing was learned


@pytest.mark.parametrize("make", [mlp, simba])
def test_a_zero_head_starts_at_the_mean_without_a_gradient(make):
    critic, theta = make(5, (8, 8), zero_last=True), jax.random.normal(jax.random.key(1), (5,))
    params = critic.init(jax.random.key(0))
    assert critic.apply(params, Row(theta, theta)).tolist() == [0.0]
    np.testing.assert_array_equal(slope(critic, params, theta), np.zeros(5))
    plain = make(5, (8, 8))
    assert np.abs(slope(plain, plain.init(jax.random.key(0)), theta)).max() > 0


def test_simba_passes_its_input_on_beside_every_block():
    """Blocks whose second layer is zero change nothing: what is left is one linear map, LayerNorm and the head."""
    critic = simba(3, (6, 6))
    params = critic.init(jax.random.key(0))
    layers = params["params"]
    for name in ("Dense_2", "Dense_4"):
        layers[name] = jax.tree.map(jnp.zeros_like, layers[name])
    x = jnp.array([0.3, -1.0, 2.0])
    hidden = x @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"]
    normal = (hidden - hidden.mean()) / jnp.sqrt(hidden.var() + 1e-6)
    wanted = normal @ layers["Dense_5"]["kernel"] + layers["Dense_5"]["bias"]
    np.testing.assert_allclose(critic.apply(params, Row(x, x)), wanted, atol=1e-5)


@pytest.mark.parametrize("widths", [(0,), (8, -1), (2.5,)])
def test_impossible_widths_are_refused(widths):
    with pytest.raises(ConfigError, match="whole number"):
        mlp(3, widths)


def test_simba_needs_one_width():
    with pytest.raises(ConfigError, match="one width"):
        simba(3, (8, 16))


def test_dead_units_are_those_that_no_row_wakes():
    critic = mlp(2, (4,))
    params = critic.init(jax.random.key(0))
    layer = params["params"]["Dense_0"]
    layer["bias"] = jnp.array([100.0, -100.0, -100.0, 100.0])
    assert float(dead_units(params, jnp.ones((3, 2)))) == 0.5
