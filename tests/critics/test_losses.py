"""Losses: padding counts for nothing; a histogram reads back what it was fitted to; an order knows no units."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from epvf_data.critics.losses import LOSSES, hl_gauss, listnet, make_loss, rank, rank_top
from epvf_data.critics.value import combine
from epvf_data.errors import ConfigError


@pytest.mark.parametrize("name", LOSSES)
def test_rows_of_weight_zero_count_for_nothing(name):
    loss = make_loss(name, bins=9)
    outputs = jax.random.normal(jax.random.key(0), (6, loss.outputs))
    targets = jax.random.normal(jax.random.key(1), (6,))
    wild = jnp.concatenate([outputs, 100 * jnp.ones((2, loss.outputs))]), jnp.concatenate([targets, jnp.full(2, 9.0)])
    weights = jnp.concatenate([jnp.ones(6), jnp.zeros(2)])
    assert float(loss.loss(*wild, weights)) == pytest.approx(float(loss.loss(outputs, targets, jnp.ones(6))), rel=1e-5)


@given(target=st.floats(-0.9, 2.9))
def test_the_histogram_wanted_is_the_gaussian_over_the_bins(target):
    loss = hl_gauss((-1.0, 3.0), bins=40)
    wanted = jax.grad(lambda outputs: -loss.loss(outputs[None], jnp.array([target]), jnp.ones(1)))(jnp.zeros(40))
    probabilities = np.asarray(wanted) + 1 / 40  # the gradient of the cross-entropy is softmax − wanted
    edges = np.linspace(-1, 3, 41)
    mass = np.diff(norm.cdf(edges, target, 0.075))
    np.testing.assert_allclose(probabilities, mass / mass.sum(), atol=1e-4)


def test_a_fitted_histogram_reads_back_its_target():
    loss = hl_gauss((-1.0, 3.0), bins=81)
    targets = jnp.array([-0.5, 0.0, 1.234, 2.5])
    outputs, optimiser = jnp.zeros((4, 81)), optax.adam(0.3)
    moments = optimiser.init(outputs)

    @jax.jit
    def step(outputs, moments):
        updates, moments = optimiser.update(jax.grad(loss.loss)(outputs, targets, jnp.ones(4)), moments)
        return outputs + updates, moments

    for _ in range(200):
        outputs, moments = step(outputs, moments)
    np.testing.assert_allclose(loss.read(outputs), targets, atol=0.01)


def test_no_value_leaves_the_support():
    loss = hl_gauss((0.0, 2.0))
    found = loss.read(100 * jax.random.normal(jax.random.key(0), (50, 101)))
    assert 0 <= float(found.min()) <= float(found.max()) <= 2
    with pytest.raises(ConfigError, match="at least 2 bins over a range"):
        hl_gauss((1.0, 1.0))


def test_listnet_is_least_where_predictions_are_the_targets_but_for_a_constant():
    targets = jnp.array([0.3, -1.0, 2.0, 0.0])
    ones = jnp.ones(4)
    slope = jax.grad(listnet)(targets + 7.0, targets, ones)
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)
    wanted = np.exp(targets) / np.exp(targets).sum()
    expected = -(wanted * np.log(wanted)).sum()
    assert float(listnet(targets + 7.0, targets, ones)) == pytest.approx(expected, rel=1e-5)


def test_rank_top_orders_the_best_among_themselves_and_before_the_rest():
    targets, ones = jnp.arange(10.0), jnp.ones(10)
    predictions = jax.random.normal(jax.random.key(0), (10,))
    cost = lambda better, worse: np.log1p(np.exp(0.5 - float(predictions[better] - predictions[worse])))  # noqa: E731
    within, across = [cost(9, 8)], [cost(best, other) for best in (8, 9) for other in range(8)]
    expected = 0.3 * np.mean(within) + 0.7 * np.mean(across)
    assert float(rank_top(predictions, targets, ones)) == pytest.approx(expected, rel=1e-5)
    other = predictions.at[:8].set(predictions[:8][::-1])  # what is the order below, is all one
    assert float(rank_top(other, targets, ones)) == pytest.approx(expected, rel=1e-5)
    assert float(rank_top(predictions, jnp.zeros(10), ones)) == 0.0  # nothing to order


def test_the_order_is_all_that_rank_sees():
    predictions, targets = jnp.array([0.1, -2.0, 0.7, 3.0]), jnp.array([1.0, 0.0, 2.0, 3.0])
    ones = jnp.ones(4)
    pairs = [
        float(jax.nn.softplus(predictions[j] - predictions[i]))
        for i in range(4)
        for j in range(4)
        if targets[i] > targets[j]
    ]
    assert float(rank(predictions, targets, ones)) == pytest.approx(np.mean(pairs), rel=1e-5)
    assert float(rank(predictions, 100 * targets**3, ones)) == pytest.approx(np.mean(pairs), rel=1e-5)
    assert float(rank(predictions, jnp.ones(4), ones)) == 0.0  # nothing to order


@given(st.sampled_from(["mean", "min", "lower"]))
def test_bounds_of_an_ensemble(bound):
    members = np.random.default_rng(0).normal(size=(2, 5, 7))
    found = combine(members, bound)
    wanted = {"mean": members.mean(1), "min": members.min(1), "lower": members.mean(1) - members.std(1)}[bound]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    slope = jax.grad(lambda value: combine(value * jnp.ones((3, 1)), bound).sum())(1.0)
    assert np.isfinite(slope)  # also where all members agree


def test_unknown_losses_are_refused():
    with pytest.raises(ConfigError, match="there is no loss 'mae'"):
        make_loss("mae")
