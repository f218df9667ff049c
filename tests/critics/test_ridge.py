"""The ridge against least squares on augmented rows, in both regimes, and what it can and cannot find."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epvf_data.critics.base import Row
from epvf_data.critics.ridge import PENALTIES, RidgeFit, fit_ridge, ridge
from epvf_data.trainers.metrics import spearman


def problem(rows: int, size: int, seed: int, noise: float = 0.5):
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, size)).astype(np.float32) + 0.3
    y = x @ random.normal(size=size) / np.sqrt(size) + noise * random.normal(size=rows) + 2.0
    held_out = np.zeros(rows, bool)
    held_out[random.choice(rows, max(1, rows // 5), replace=False)] = True
    return x, y, held_out


def augmented(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """[w, b] by least squares: √λ·I rows with target 0 stand for the penalty; the bias has none."""
    size = x.shape[1]
    top = np.column_stack([x.astype(np.float64), np.ones(len(x))])
    bottom = np.column_stack([np.sqrt(penalty) * np.eye(size), np.zeros(size)])
    return np.linalg.lstsq(np.vstack([top, bottom]), np.concatenate([y, np.zeros(size)]), rcond=None)[0]


def fit(x, y, held_out, **options) -> RidgeFit:
    return fit_ridge(lambda start, stop: x[start:stop], y, held_out, x.shape[1], **options)


@given(rows=st.integers(5, 60), size=st.integers(1, 60), seed=st.integers(0, 2**16))
def test_equals_augmented_least_squares(rows, size, seed):
    x, y, held_out = problem(rows, size, seed)
    found = fit(x, y, held_out)
    *weights, bias = augmented(x, y, found.penalty * size)
    np.testing.assert_allclose(found.weights, weights, atol=2e-5)
    assert found.bias == pytest.approx(bias, abs=2e-5)
    errors = []
    for penalty in PENALTIES:
        *slope, offset = augmented(x[~held_out], y[~held_out], penalty * size)
        errors.append(np.mean(np.square(x[held_out] @ np.array(slope) + offset - y[held_out])))
    np.testing.assert_allclose(found.errors, errors, rtol=1e-4, atol=1e-8)
    assert found.penalty == PENALTIES[int(np.argmin(found.errors))]


@pytest.mark.parametrize(("rows", "size"), [(90, 20), (20, 90)])
def test_blocks_give_the_same_plane(rows, size):
    x, y, held_out = problem(rows, size, seed=1)
    whole = fit(x, y, held_out)
    pieces = fit(x, y, held_out, block_bytes=4 * size * 7)  # seven rows at a time
    np.testing.assert_allclose(pieces.weights, whole.weights, atol=1e-6)
    assert pieces.penalty == whole.penalty


def test_too_large_a_system_uses_an_even_subset_of_the_rows():
    x, y, held_out = problem(80, 50, seed=2)
    found = fit(x, y, held_out, max_gram=40)
    rows = np.linspace(0, 79, 40).astype(int)
    *weights, _ = augmented(x[rows], y[rows], found.penalty * 50)
    assert found.rows == 40
    np.testing.assert_allclose(found.weights, weights, atol=2e-5)


def test_a_signal_is_found_and_shuffled_labels_have_none():
    genuine, shuffled = [], []
    for seed in range(8):
        x, y, held_out = problem(700, 60, seed, noise=0.2)
        train, test = slice(0, 500), slice(500, 700)
        for labels, scores in ((y, genuine), (np.random.default_rng(seed).permutation(y), shuffled)):
            found = fit(x[train], labels[train], held_out[train])
            scores.append(spearman(x[test] @ found.weights + found.bias, labels[test]))
    assert min(genuine) > 0.9
    assert abs(np.mean(shuffled)) < 0.08  # the mean of 8 has a standard deviation of about 0.025
    assert max(map(abs, shuffled)) < 0.3


def test_the_plane_is_a_critic():
    x, y, held_out = problem(50, 8, seed=3)
    found = fit(x, y, held_out)
    critic = ridge(8)
    params = {"weights": found.weights[None], "bias": np.float32([found.bias])}
    rows = Row(x, x)
    values = jax.vmap(critic.apply, in_axes=(None, 0))(params, rows)[:, 0]
    np.testing.assert_allclose(values, x @ found.weights + found.bias, atol=1e-5)
    slope = jax.grad(lambda scaled: critic.apply(params, Row(scaled, scaled))[0])(x[0])
    np.testing.assert_array_equal(slope, found.weights)
    assert jax.tree.map(np.shape, critic.init(jax.random.key(0))) == {"weights": (1, 8), "bias": (1,)}
