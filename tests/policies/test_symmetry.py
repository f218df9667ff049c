"""Renumbered units and flipped signs leave every action as it was."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epvf_data.errors import ConfigError
from epvf_data.policies import mlp
from epvf_data.policies.probe import probe
from epvf_data.policies.spec import PolicySpec
from epvf_data.policies.symmetry import flip, permute

SPECS = st.builds(
    lambda hidden, bias, norm, gaussian: PolicySpec(
        3, 2, tuple(hidden), bias=bias, layer_norm=norm and bool(hidden), gaussian=gaussian
    ),
    st.lists(st.integers(1, 6), max_size=3),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, "sampled"]),
)


@pytest.mark.parametrize("examples", [4, pytest.param(100, marks=pytest.mark.soak)])
def test_the_policy_stays_what_it_was(examples):
    """Each specification compiles anew."""
    settings(max_examples=examples)(given(SPECS, st.integers(0, 2**16), st.sampled_from([permute, flip]))(unchanged))()


def unchanged(spec, seed, change):
    keys = jax.random.split(jax.random.key(seed), 3)
    theta = mlp.init(keys[0], spec)
    other = change(spec, theta, keys[1])
    states = jax.random.normal(keys[2], (8, 3))
    np.testing.assert_allclose(probe(spec, other, states), probe(spec, theta, states), atol=1e-6)
    np.testing.assert_allclose(jnp.sort(jnp.abs(other)), jnp.sort(jnp.abs(theta)))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("change", [permute, flip])
def test_the_parameters_do_change(change, norm):
    spec = PolicySpec(3, 2, (8, 8), layer_norm=norm)
    theta = mlp.init(jax.random.key(0), spec)
    assert (change(spec, theta, jax.random.key(1)) != theta).mean() > 0.3


def test_signs_of_units_that_are_not_odd_stay():
    spec = PolicySpec(3, 2, (4,), activation="relu")
    with pytest.raises(ConfigError, match="relu"):
        flip(spec, jnp.zeros(spec.size), jax.random.key(0))
    permute(spec, jnp.zeros(spec.size), jax.random.key(0))
