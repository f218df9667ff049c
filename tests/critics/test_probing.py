"""Critics that read actions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epvf_data.critics.base import Row
from epvf_data.critics.mlp import network
from epvf_data.critics.probing import action_value, probing, ridge_on_actions
from epvf_data.policies import mlp
from epvf_data.policies.probe import probe
from epvf_data.policies.spec import PolicySpec

SPEC = PolicySpec(3, 2, (5,))


def policies(count, seed=0):
    return jax.vmap(lambda key: mlp.init(key, SPEC))(jax.random.split(jax.random.key(seed), count))


@pytest.mark.parametrize("rows", [12, 40])  # fewer and more rows than features: both systems
def test_the_plane_is_the_ridge_solution(rows):
    theta, states = policies(rows), jax.random.normal(jax.random.key(1), (8, 3))
    targets = jax.random.normal(jax.random.key(2), (rows,))
    plane = ridge_on_actions(SPEC, states, theta, targets, penalty=0.1)
    actions = np.stack([np.ravel(probe(SPEC, row, states)) for row in theta]).astype(np.float64)
    centred, wanted = actions - actions.mean(0), np.asarray(targets, np.float64) - np.mean(targets)
    level = 0.1 * centred.var(0).sum()
    weights = np.linalg.solve(centred.T @ centred + level * np.eye(16), centred.T @ wanted)
    np.testing.assert_allclose(plane.weights, weights, rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(
        action_value(SPEC, plane, theta[3]), centred[3] @ weights + np.mean(targets), rtol=1e-3, atol=1e-4
    )


def test_what_antithetic_partners_share_is_no_slope():
    states, base = jax.random.normal(jax.random.key(1), (8, 3)), policies(1)[0]
    noise = 0.3 * jax.random.normal(jax.random.key(2), (200, SPEC.size))
    theta = jnp.concatenate([base[None] + noise, base[None] - noise])
    shared = 10 * jnp.sum(jnp.square(noise), axis=1)
    slope = jax.random.normal(jax.random.key(3), (SPEC.size,))
    targets = jnp.concatenate([shared + noise @ slope, shared - noise @ slope])
    plane = ridge_on_actions(SPEC, states, theta, targets, 1e-3, pairs=True)
    same = ridge_on_actions(SPEC, states, theta, targets - jnp.concatenate([shared, shared]), 1e-3, pairs=True)
    np.testing.assert_allclose(plane.weights, same.weights, rtol=1e-3, atol=1e-4)
    gradient = jax.grad(lambda row: action_value(SPEC, plane, row))(base)
    assert jnp.dot(gradient, slope) / jnp.linalg.norm(gradient) / jnp.linalg.norm(slope) > 0.5


def test_the_plane_ranks_policies_whose_return_is_linear_in_their_actions():
    states = jax.random.normal(jax.random.key(1), (8, 3))
    train, test = policies(300), policies(100, seed=9)
    truth = jax.random.normal(jax.random.key(3), (16,))
    returns = jax.vmap(lambda row: jnp.ravel(probe(SPEC, row, states)) @ truth)
    plane = ridge_on_actions(SPEC, states, train, returns(train), penalty=1e-4)
    predicted = jax.vmap(lambda row: action_value(SPEC, plane, row))(test)
    assert np.corrcoef(predicted, returns(test))[0, 1] > 0.999


@pytest.mark.parametrize("generated", [False, True])
@pytest.mark.parametrize("raw", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_the_learned_states_get_gradients_and_theta_too(raw, generated):
    critic = probing(SPEC, network((8,)), states=4, raw=raw, generated=generated)
    params, theta = critic.init(jax.random.key(0)), policies(1)[0]
    slopes = jax.grad(lambda params, theta: critic.apply(params, Row(theta, theta, SPEC))[0], argnums=(0, 1))
    for gradient in jax.tree.leaves(slopes(params, theta)):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0
