"""Offline methods where the best answer is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epvf_data.critics.conservative import next_dual, uphill
from epvf_data.critics.settings import Conservative
from epvf_data.improvement.ascent import ascend
from epvf_data.improvement.controls import averages, distance, random_steps
from epvf_data.improvement.judging import choose, sure, where_to_stop
from epvf_data.improvement.search import cma_es, evolve

SIZE = 12
TOP = np.linspace(-1, 1, SIZE)
SPREAD = np.linspace(0.5, 2.0, SIZE).astype(np.float32)
STARTS = np.random.default_rng(0).normal(size=(5, SIZE)).astype(np.float32)


def value(theta):
    return -jnp.sum(jnp.square(theta - TOP))


def test_steps_have_their_length_and_go_up():
    first, third = ascend(value, STARTS, SPREAD, 0.05, (1, 3))
    np.testing.assert_allclose(distance(np.asarray(first), STARTS, SPREAD), 0.05, rtol=1e-4)
    assert (distance(np.asarray(third), STARTS, SPREAD) <= 0.15 + 1e-4).all()
    slope = jax.vmap(jax.grad(value))(STARTS) * SPREAD[None] ** 2
    along = (np.asarray(first) - STARTS) / slope
    np.testing.assert_allclose(along, along[:, :1] * np.ones((1, SIZE)), rtol=1e-3)  # steepest in units of spread
    assert (jax.vmap(value)(third) > jax.vmap(value)(first)).all()


def test_plain_steps_follow_the_gradient_and_stay_within_their_radius():
    (one,) = ascend(value, STARTS, SPREAD, 0.01, (1,), plain=True)
    np.testing.assert_allclose(
        one, STARTS + 0.01 * SPREAD[None] ** 2 * jax.vmap(jax.grad(value))(STARTS), rtol=1e-3, atol=1e-5
    )
    (far,) = ascend(value, STARTS, SPREAD, 0.1, (40,), plain=True, radius=0.3)
    assert (distance(np.asarray(far), STARTS, SPREAD) <= 0.3 + 1e-4).all()


@given(st.integers(0, 100), st.floats(0.01, 5.0))
def test_random_steps_have_the_length_that_they_are_compared_at(seed, length):
    moved = random_steps(STARTS, SPREAD, np.full(5, length), np.random.default_rng(seed))
    np.testing.assert_allclose(distance(moved, STARTS, SPREAD), length, rtol=1e-3)


def test_averages_are_of_the_first():
    np.testing.assert_allclose(averages(STARTS, [1, 3])[1], STARTS[:3].mean(0), rtol=1e-6)
    np.testing.assert_array_equal(averages(STARTS, [1])[0], STARTS[0])


def test_judges_are_sure_of_what_they_agree_on():
    values = np.array([[5.0, 3.0, 0.0], [5.0, 13.0, 0.0]])
    np.testing.assert_allclose(sure(values), [5.0, 8.0 - np.sqrt(50.0), 0.0])
    assert choose(sure(values), 2).tolist() == [0, 1]
    np.testing.assert_array_equal(sure(values[:1]), values[0])
    assert where_to_stop(np.array([[1.0, 1.0], [2.0, 0.0], [5.0, -9.0]])) == 0  # ties go to the shorter climb
    climb = np.array([[5.0, 7.0], [7.0, 7.0], [3.0, 3.0], [99.0, 99.0]])
    assert where_to_stop(climb) == 3
    assert where_to_stop(climb, start=5.5) == 1  # what comes after the doubt is not believed
    assert where_to_stop(climb, start=8.0) == 0
    assert where_to_stop(climb, highest=50.0) == 1  # nor what is more than they say of any row
    assert where_to_stop(climb, highest=-1.0) == 0


def test_cma_es_finds_the_top_of_v():
    pytest.importorskip("evosax")
    first, last = cma_es(value, STARTS[0], SPREAD, 0.3, (1, 40), 6, population=16)
    assert first.shape == last.shape == (6, SIZE)
    scores = np.asarray(jax.vmap(value)(last))
    assert scores.mean() > np.asarray(jax.vmap(value)(first)).mean() + 3
    assert scores.max() > -0.5


def test_an_evolution_strategy_spends_no_more_than_it_may():
    asked = []

    def returns(theta, generation):
        asked.append(len(theta))
        return -np.square(theta - TOP).sum(1)

    path = evolve(returns, STARTS[0], SPREAD, 2000, pairs=16, rate=0.05)
    assert sum(asked) <= 2000
    assert len(path) == len(asked) + 1
    np.testing.assert_array_equal(path[0], STARTS[0])
    assert value(path[-1]) > value(path[0]) + 5


def test_uphill_is_plain_gradient_ascent_and_passes_no_gradient():
    how = Conservative(steps=3, rate=0.02)
    z = np.array(STARTS[0])
    for _ in range(3):
        z = z + 0.02 * np.sqrt(SIZE) * np.asarray(jax.grad(value)(z))
    np.testing.assert_allclose(uphill(value, jnp.asarray(STARTS[0]), how), z, rtol=1e-4)
    slope = jax.grad(lambda scale: uphill(lambda one: scale * value(one), jnp.asarray(STARTS[0]), how).sum())(1.0)
    assert slope == 0


@pytest.mark.parametrize(("gap", "sign"), [(2.0, 1), (0.5, 0), (-3.0, -1), (1e9, 1)])
def test_the_multiplier_grows_while_the_gap_exceeds_its_limit(gap, sign):
    moved = float(next_dual(jnp.zeros(()), jnp.asarray(gap), Conservative(limit=0.5)))
    assert np.sign(moved) == sign
    assert abs(moved) <= 0.05 + 1e-6
