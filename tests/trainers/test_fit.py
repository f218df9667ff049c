"""The critic step: it learns, seeds do not disturb each other, padding counts for nothing, scan equals a loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epvf_data.critics.base import Scale, make_row
from epvf_data.critics.mlp import mlp
from epvf_data.trainers.fit import Batch, FitState, critic_step, init_state, make_fit, make_optimiser

SIZE = 10
UNIT = Scale(np.zeros(SIZE, np.float32), np.ones(SIZE, np.float32), np.array(0, np.float32), np.array(1, np.float32))


def rows(count: int = 32, seed: int = 0):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, SIZE)).astype(np.float32), random.normal(size=count).astype(np.float32)


def order(count: int, steps: int):
    return np.tile(np.arange(count, dtype=np.int32), (steps, 1)), np.ones((steps, count), np.float32)


def keys(*seeds: int):
    return jnp.stack([jax.random.key(seed) for seed in seeds])


def values(fit, params, theta, scale=UNIT):
    return np.asarray(fit.value(fit.outputs(params, theta, scale), scale))


def step(fit, state, theta, target, weight, scale=UNIT):
    return fit.step(state, (theta,), (target,), (weight,), (scale,))


def many(fit, state, theta, target, index, weight, scale=UNIT):
    return fit.many(state, (theta,), (target,), (index,), (weight,), (scale,))


def close(left, right, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), left, right)


def test_the_mlp_overfits_a_tiny_set():
    theta, target = rows()
    fit = make_fit(mlp(SIZE, (64, 64)), make_optimiser(3e-3, weight_decay=0.0))
    state = fit.init(keys(0, 1))
    before = np.square(values(fit, state.params, theta, UNIT) - target).mean(1)
    state, found = many(fit, state, theta, target, *order(32, 400))
    after = np.square(values(fit, state.params, theta, UNIT) - target).mean(1)
    assert (after < 1e-3).all()
    assert (after < 1e-2 * before).all()
    assert found["loss"].shape == found["gradient_norm"].shape == (400, 2)


def test_seeds_side_by_side_equal_seeds_alone():
    theta, target = rows()
    fit = make_fit(mlp(SIZE, (16, 16)), make_optimiser(steps=20))
    together, _ = many(fit, fit.init(keys(3, 4, 5)), theta, target, *order(32, 20))
    for place, seed in enumerate((3, 4, 5)):
        alone, _ = many(fit, fit.init(keys(seed)), theta, target, *order(32, 20))
        # Batched products add up in another order, so equality holds to float32 rounding only.
        mine = jax.tree.map(lambda leaf, place=place: leaf[place], together.params)
        close(mine, jax.tree.map(lambda leaf: leaf[0], alone.params), rtol=1e-4, atol=1e-5)


def test_scan_equals_a_loop_and_padding_counts_for_nothing():
    theta, target = rows(24)
    fit = make_fit(mlp(SIZE, (16,)), make_optimiser())
    index = np.concatenate([np.arange(24), np.zeros(8)]).astype(np.int32)[None]
    weight = np.concatenate([np.ones(24), np.zeros(8)]).astype(np.float32)[None]
    scanned, found = many(fit, fit.init(keys(0)), theta, target, index, weight)
    single, direct = step(fit, fit.init(keys(0)), theta, target, np.ones(24, np.float32))
    close(scanned.params, single.params, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["loss"][0], direct["loss"], rtol=1e-5)


def test_scale_is_applied_to_inputs_and_undone_on_outputs():
    theta, target = rows()
    scale = Scale(
        np.full(SIZE, 2.0, np.float32),
        np.full(SIZE, 3.0, np.float32),
        np.array(50, np.float32),
        np.array(9, np.float32),
    )
    fit = make_fit(mlp(SIZE, (16,)), make_optimiser())
    raw, _ = step(fit, fit.init(keys(0)), 3 * theta + 2, 9 * target + 50, np.ones(32, np.float32), scale)
    unit, _ = step(fit, fit.init(keys(0)), theta, target, np.ones(32, np.float32))
    close(raw.params, unit.params, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        values(fit, raw.params, 3 * theta + 2, scale), 9 * values(fit, unit.params, theta, UNIT) + 50, rtol=1e-3
    )


def test_one_step_is_clipped_adamw():
    """The first AdamW step by hand: −rate · (g / (|g| + ε) + decay · θ), without decay on biases."""
    critic, rate, decay = mlp(SIZE, (4,)), 1e-2, 0.5
    optimiser = make_optimiser(rate, decay, clip=1e-9)  # so small that ε = 1e-8 matters: clipping is visible
    state = init_state(critic, optimiser, jax.random.key(0))
    theta, target = rows(8)
    seen = jax.vmap(lambda vector: make_row(UNIT, vector))(jnp.asarray(theta))
    batch = Batch((seen,), jnp.asarray(target), jnp.ones(8))

    def objective(params):
        return jnp.mean((jax.vmap(critic.apply, in_axes=(None, 0))(params, seen)[:, 0] - batch.target) ** 2)

    gradient = jax.grad(objective)(state.params)
    norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))

    def expected(leaf, slope):
        clipped = slope * (1e-9 / norm)
        return leaf - rate * (clipped / (jnp.abs(clipped) + 1e-8) + (decay * leaf if leaf.ndim > 1 else 0.0))

    after, found = critic_step(critic, optimiser, state, batch)
    close(after.params, jax.tree.map(expected, state.params, gradient), rtol=1e-4, atol=1e-7)
    assert float(found["gradient_norm"]) == pytest.approx(float(norm), rel=1e-5)


def test_the_rate_falls_to_zero_along_a_cosine():
    theta, target = rows()
    fit = make_fit(mlp(SIZE, (8,)), make_optimiser(steps=5))
    state, _ = many(fit, fit.init(keys(0)), theta, target, *order(32, 5))
    last = jax.tree.map(np.asarray, state.params)
    assert isinstance(state, FitState)
    assert state.step.tolist() == [5]
    state, _ = step(fit, state, theta, target, np.ones(32, np.float32))
    close(state.params, last, rtol=0, atol=0)
