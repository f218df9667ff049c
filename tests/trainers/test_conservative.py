"""The conservative term on a plane, where everything is known: V(z⁻) − V(z) = T η √D ‖w‖²."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from epvf_data.critics.base import Row
from epvf_data.critics.ridge import ridge
from epvf_data.critics.settings import Conservative
from epvf_data.trainers.fit import Batch, critic_step, init_state

HOW = Conservative(limit=0.5, steps=4, rate=0.1, rows=8)
WEIGHTS = np.array([1.0, -2.0, 0.5, 0.0, 3.0], np.float32)
REACH = HOW.steps * HOW.rate * np.sqrt(5.0)


def test_a_conservative_step_is_the_plain_one_and_a_pull_towards_flatness():
    critic, optimiser = ridge(5), optax.sgd(0.01)
    z = jnp.asarray(np.random.default_rng(0).normal(size=(20, 5)), jnp.float32)
    batch = Batch((Row(z, z),), z.sum(1), jnp.ones(20), (jnp.ones(5),))
    params = {"weights": jnp.asarray(WEIGHTS)[None], "bias": jnp.zeros(1)}
    plain = init_state(critic, optimiser, jax.random.key(0))._replace(params=params)
    taught = init_state(critic, optimiser, jax.random.key(0), HOW)._replace(params=params)
    one, told = critic_step(critic, optimiser, plain, batch)
    other, same = critic_step(critic, optimiser, taught, batch, conservative=HOW)
    assert float(told["loss"]) == float(same["loss"])  # what is told is the error alone
    pull = one.params["weights"][0] - other.params["weights"][0]
    np.testing.assert_allclose(pull, 0.01 * HOW.first * REACH * WEIGHTS, rtol=1e-3, atol=1e-6)
    gap = REACH * np.square(WEIGHTS).sum()
    assert gap > HOW.limit + 1
    np.testing.assert_allclose(other.moments[1], np.log(HOW.first) + HOW.dual_rate, rtol=1e-5)  # the gap is too wide
    flat = {"weights": jnp.zeros((1, 5)), "bias": jnp.zeros(1)}
    less, _ = critic_step(critic, optimiser, taught._replace(params=flat), batch, conservative=HOW)
    assert float(less.moments[1]) < np.log(HOW.first)
