"""Climbing a function whose top is known."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epvf_data.improvement.ascent import climb, make_improver, rate_at

TOP = jnp.array([0.5, -0.02, 0.0, 3.0])


def value(theta):
    return -jnp.sum(jnp.square(theta - TOP))


@pytest.mark.parametrize(("limit", "expected"), [(None, TOP), (0.1, [0.1, -0.02, 0.0, 0.1])])
def test_climb_reaches_the_top_or_the_box(limit, expected):
    improver, theta = make_improver(limit), jnp.zeros(4)
    climbed, _, norm = climb(value, improver, theta, improver.init(theta), steps=4000, rate=2e-3)
    np.testing.assert_allclose(climbed, expected, atol=2e-3)
    np.testing.assert_allclose(norm, 2 * np.linalg.norm(TOP), rtol=1e-6)


def test_the_first_step_is_the_rate_in_every_direction_that_matters():
    improver, theta = make_improver(), jnp.zeros(4)
    climbed, _, _ = climb(value, improver, theta, improver.init(theta), steps=1, rate=1e-3)
    np.testing.assert_allclose(climbed, 1e-3 * jnp.sign(TOP), rtol=1e-3)


def test_momentum_moves_by_the_rate_along_the_gradient():
    improver, theta = make_improver(optimiser="momentum"), jnp.zeros(4)
    moments, path = improver.init(theta), []
    for gradient in (TOP, 100 * TOP, TOP):
        moved, moments = improver.step(theta, moments, gradient, 0.25)
        path.append(moved - theta)
        theta = moved
    np.testing.assert_allclose(path, [0.25 * TOP / np.linalg.norm(TOP)] * 3, rtol=1e-5)


def test_weight_decay_is_decoupled_from_the_gradient():
    plain, decayed = make_improver(), make_improver(weight_decay=0.5)
    theta, gradient = jnp.array([1.0, -2.0]), jnp.array([0.3, 0.1])
    first, _ = plain.step(theta, plain.init(theta), gradient, 0.01)
    second, _ = decayed.step(theta, decayed.init(theta), gradient, 0.01)
    np.testing.assert_allclose(second, first - 0.01 * 0.5 * theta, rtol=1e-6)


@given(st.floats(0.0, 1.0), st.floats(1e-6, 1.0), st.floats(1e-6, 1.0), st.floats(0.01, 1.0))
@settings(max_examples=30, deadline=None)
def test_the_rate_falls_exponentially_and_stays(fraction, first, last, end):
    rate, done = float(rate_at(first, last, jnp.asarray(fraction), end)), min(fraction / end, 1.0)
    np.testing.assert_allclose(np.log(rate), (1 - done) * np.log(first) + done * np.log(last), atol=1e-4)
    assert float(rate_at(first, None, jnp.asarray(fraction))) == pytest.approx(first)
