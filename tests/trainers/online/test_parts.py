"""The parts of the loop against what they must be."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec
from epvf_data.trainers.online import diagnostics
from epvf_data.trainers.online.exploration import member, noise_scale, propose, spread
from epvf_data.trainers.online.iteration import make_iteration
from epvf_data.trainers.online.learners import centred_ranks, shape_targets
from epvf_data.trainers.online.replay import FLOYD, distinct, make_buffer, push, sample
from epvf_data.trainers.online.run import resolve
from epvf_data.trainers.online.state import deviation, fold, make_normaliser, observe

SPEC = PolicySpec(3, 2, (5,))


@given(st.lists(st.integers(-5, 5), min_size=12, max_size=12))
@settings(max_examples=40, deadline=None)
def test_ranks_are_scipys(returns):
    wanted = (rankdata(returns) - 1) / (len(returns) - 1) - 0.5
    np.testing.assert_allclose(centred_ranks(jnp.array(returns, jnp.float32)), wanted, atol=1e-6)


def test_rows_that_do_not_count_rank_nobody(cartpole, ant):
    returns, valid = jnp.array([5.0, 9.0, 1.0, 7.0]), jnp.array([1.0, 0.0, 1.0, 1.0])
    np.testing.assert_allclose(centred_ranks(returns, valid), [0.0, 0.0, -0.5, 0.5])
    config = ant(**{"critic.target": "standardised"})
    shaped = shape_targets(config, resolve(config)[0], returns, valid)
    kept = np.array([5.0, 1.0, 7.0])
    np.testing.assert_allclose(np.asarray(shaped)[[0, 2, 3]], (kept - kept.mean()) / kept.std(), rtol=1e-5)


@pytest.mark.parametrize(("count", "size"), [(3, 6), (FLOYD + 1, FLOYD + 40)])
def test_samples_are_distinct_and_below_what_is_filled(count, size):
    draw = jax.jit(jax.vmap(lambda key, filled: distinct(key, count, size, filled), in_axes=(0, None)))
    for filled in (size, count, count - 1, 1):
        for rows in np.asarray(draw(jax.random.split(jax.random.key(0), 20), jnp.asarray(filled))):
            kept = rows[rows >= 0]
            assert len(kept) == min(count, filled) == len(set(kept.tolist()))
            assert kept.max() < filled


def test_every_subset_is_equally_likely():
    keys = jax.random.split(jax.random.key(3), 20_000)
    rows = np.asarray(jax.vmap(lambda key: distinct(key, 2, 5, jnp.asarray(5)))(keys))
    counts = np.array(list(Counter(tuple(sorted(row)) for row in rows.tolist()).values()))
    assert len(counts) == 10
    assert np.sum(np.square(counts - 2000) / 2000) < 27.9  # χ² with 9 degrees of freedom, p = 0.001


def test_the_buffer_gives_back_the_very_rows_that_were_rolled_out(cartpole):
    config = cartpole(**{"exploration.antithetic": True, "replay.capacity": 24, "replay.batch_size": 16})
    env, spec, _ = resolve(config)
    run = make_iteration(config, env, spec)
    state = run.init(np.arange(1))
    one = jax.tree.map(lambda leaf: leaf[0], state)
    buffer, seen = make_buffer(config, spec.size), []
    assert buffer is not None
    assert len(buffer.base) == 3
    for number in range(5):
        one = one._replace(iteration=jnp.asarray(number), theta=one.theta + 0.01)
        proposal = propose(config, spec, one)
        key = jax.random.key_data(jax.random.fold_in(jax.random.wrap_key_data(one.key), number))
        buffer = push(buffer, one.iteration, one.theta[0], key, jnp.arange(8.0) + 10 * number)
        seen.append(np.asarray(proposal.theta))
    theta, rows, weight = sample(config, buffer, jax.random.key(1))
    assert np.asarray(weight).all()
    assert len(set(np.asarray(rows).tolist())) == 16
    for found, label in zip(np.asarray(theta), np.asarray(buffer.returns).ravel()[np.asarray(rows)], strict=True):
        iteration, row = divmod(int(label), 10)
        assert iteration >= 2
        np.testing.assert_array_equal(found, seen[iteration][row])


def test_antithetic_partners_mirror_each_other(ant):
    config = ant(**{"exploration.law": "gaussian", "exploration.scale": 0.1})
    env, spec, _ = resolve(config)
    state = jax.tree.map(lambda leaf: leaf[0], make_iteration(config, env, spec).init(np.arange(1)))
    proposal = propose(config, spec, state)
    step = np.asarray(proposal.theta - state.theta)
    np.testing.assert_allclose(step[:8], -step[8:], atol=1e-7)
    np.testing.assert_allclose(step.std(), 0.1, rtol=0.05)
    assert len(np.unique(np.asarray(proposal.seeds), axis=0)) == config.envs


@pytest.mark.parametrize(
    ("changes", "least", "most"),
    [
        ({"exploration.law": "uniform_scaled", "exploration.scale": 0.3}, -0.3, 0.3),
        ({"exploration.law": "uniform_scaled", "exploration.scale": 1.0}, -1.0, 1.0),
    ],
)
def test_the_papers_noise_stays_within_its_share_of_each_parameter(ant, changes, least, most):
    config = ant("ant-cpu-paper", **changes)
    env, spec, _ = resolve(config)
    state = jax.tree.map(lambda leaf: leaf[0], make_iteration(config, env, spec).init(np.arange(1)))
    ratio = np.asarray(propose(config, spec, state).theta / state.theta) - 1
    assert ratio.min() >= least - 1e-5
    assert ratio.max() <= most + 1e-5
    np.testing.assert_allclose(ratio.std(), most / 3**0.5, rtol=0.02)
    expected = np.asarray(noise_scale(config, state.theta[0]))
    np.testing.assert_allclose(expected, most / 3**0.5 * np.abs(state.theta[0]), rtol=1e-5)
    assert np.abs(state.theta).max() <= 0.1  # the box holds from before the first rollout


def test_clips_of_the_noise_and_of_the_perturbed_weights(ant):
    wide = ant("ant-cpu-paper", **{"exploration.law": "gaussian", "exploration.scale": 1.0})
    base, key = jnp.full(6920, 0.05), jax.random.key_data(jax.random.key(0))
    noise = ant(
        "ant-cpu-paper", **{"exploration.law": "gaussian", "exploration.scale": 1.0, "exploration.clip_noise": 0.3}
    )
    weights = ant(
        "ant-cpu-paper", **{"exploration.law": "gaussian", "exploration.scale": 1.0, "exploration.clip_weights": True}
    )
    free, clipped, boxed = (np.asarray(spread(config, base, key, jnp.ones(()))) for config in (wide, noise, weights))
    np.testing.assert_allclose(clipped, 0.05 + np.clip(free - 0.05, -0.3, 0.3), atol=1e-6)
    np.testing.assert_allclose(boxed, np.clip(free, -0.1, 0.1), atol=1e-6)


def test_a_row_depends_on_its_key_only(cartpole):
    config = cartpole()
    key = jax.random.key_data(jax.random.key(7))
    data, sign = member(config, key, jnp.asarray(5))
    again, _ = member(config, key, jnp.asarray(5))
    np.testing.assert_array_equal(data, again)
    assert float(sign) == 1.0


def test_the_running_normaliser_is_numpys():
    seen = np.random.default_rng(0).normal(3.0, [0.5, 2.0, 5.0], (60, 3)).astype(np.float32)
    normaliser = make_normaliser(3)
    for batch in np.split(seen, [1, 7, 40]):
        normaliser = observe(normaliser, jnp.asarray(batch))
    np.testing.assert_allclose(normaliser.mean, seen.mean(0), rtol=1e-4)
    np.testing.assert_allclose(deviation(normaliser), seen.std(0), rtol=1e-4)


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, layer_norm=True, gaussian="sampled")], ids=str)
def test_folding_the_normaliser_in_changes_no_action(spec):
    theta, states = mlp.init(jax.random.key(0), spec), jax.random.normal(jax.random.key(1), (20, 3)) * 4 + 2
    normaliser = observe(make_normaliser(3), states)
    folded = fold(spec, normaliser, theta)
    act = lambda flat, rows: jax.vmap(lambda row: mlp.apply(spec, mlp.unflatten(spec, flat), row))(rows)  # noqa: E731
    inputs = (states - normaliser.mean[None]) / deviation(normaliser)[None]
    np.testing.assert_allclose(act(folded, states), act(theta, inputs), atol=2e-6)


def test_the_es_gradient_is_the_gradient_of_a_linear_return():
    slope = np.random.default_rng(0).normal(size=40)
    noise = np.random.default_rng(1).normal(size=(40_000, 40)) * 0.1
    found = diagnostics.evolution_gradient(jnp.asarray(noise @ slope), jnp.asarray(noise), jnp.full(40, 0.1))
    np.testing.assert_allclose(found, 0.1 * slope, atol=0.02)
    assert diagnostics.cosine(found, jnp.asarray(slope)) > 0.99
    assert diagnostics.cosine(found, jnp.zeros(40)) == 0.0
    assert diagnostics.correlation(jnp.ones(5), jnp.arange(5.0)) == 0.0
