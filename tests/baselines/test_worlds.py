"""The task as brax sees it is the task as every rollout steps it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("brax")

from epvf_data import envs
from epvf_data.baselines.worlds import Worlds
from epvf_data.envs.base import Physics
from epvf_data.physics.trajectory import trajectory
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec

CARTPOLE = envs.make("cartpole")


def keys(count, seed=0):
    return jax.random.split(jax.random.PRNGKey(seed), count)


@pytest.mark.slow  # compiles the Ant
def test_the_ant_moves_as_on_any_other_path():
    """Every observation, reward and end of whole short episodes, against MuJoCo C under the same actions."""
    env, spec = envs.make("ant").with_horizon(20), PolicySpec(34, 8, hidden=(16,))
    flat = [np.asarray(mlp.init(key, spec, scale)) for key, scale in zip(keys(3), (0.0, 1.0, 3.0), strict=True)]
    tensors = jax.vmap(lambda row: mlp.unflatten(spec, row))(jnp.stack(flat))
    worlds = Worlds(env)

    @jax.jit
    def step(state):
        action = jax.vmap(lambda tensors, seen: mlp.apply(spec, tensors, seen))(tensors, state.obs)
        return worlds.step(state, action)

    states = [jax.jit(worlds.reset)(keys(3))]
    for _ in range(env.horizon):
        states.append(step(states[-1]))
    for world, row in enumerate(flat):
        wanted = trajectory(env, spec, row)
        seen = np.stack([state.obs[world] for state in states])
        np.testing.assert_allclose(seen[:-1], wanted.observations[:-1], atol=2e-3)
        np.testing.assert_allclose(seen[-1], seen[0])  # it starts again
        rewards = [float(state.reward[world]) for state in states[1:]]
        after = Physics(jnp.asarray(wanted.qpos[1:]), jnp.asarray(wanted.qvel[1:]), jnp.zeros((20, 8)))
        expected = jax.vmap(lambda after: env.reward(after, after))(after)
        np.testing.assert_allclose(rewards, expected, rtol=2e-2, atol=1e-6)
        assert [float(state.done[world]) for state in states[1:]] == [0.0] * 19 + [1.0]
        assert [float(state.info["truncation"][world]) for state in states[1:]] == [0.0] * 19 + [1.0]
        assert max(rewards) > 1e-7


def fall(state):
    """Steps until CartPole ends when it is pushed to the right all the time, one row of the batch each."""

    dynamics = CARTPOLE.dynamics
    assert dynamics is not None

    def push(state):
        qpos, qvel = dynamics(state, CARTPOLE.control(jnp.ones(1)))
        return state._replace(qpos=qpos, qvel=qvel)

    step, ended = jax.jit(jax.vmap(push)), jax.jit(jax.vmap(CARTPOLE.terminated))
    steps = np.zeros(16, int)
    while not (over := np.asarray(ended(state))).all():
        steps += ~over
        state = step(state)
    return steps


def test_truncation_is_told_from_termination_and_starts_are_drawn_afresh():
    first = Worlds(CARTPOLE).reset(keys(16)).pipeline_state.episode.physics
    falls = fall(first)
    horizon = int(np.median(falls))
    assert falls.min() < horizon < falls.max()
    ended = []
    worlds = Worlds(CARTPOLE.with_horizon(horizon), lambda over, returns: ended.append((over, returns)))
    state, step = worlds.reset(keys(16)), jax.jit(worlds.step)
    starts = np.asarray(state.obs)
    for number in range(1, horizon + 1):
        state = step(state, jnp.ones((16, 1)))
        over = np.asarray(state.done, bool)
        alive = falls >= number
        np.testing.assert_array_equal(over[alive], (falls == number)[alive] | (number == horizon))
        np.testing.assert_array_equal(
            np.asarray(state.info["truncation"])[alive], ((falls > number) & (number == horizon))[alive]
        )
        assert (np.asarray(state.info["steps"])[alive] == number).all()
        assert (np.abs(np.asarray(state.obs)[over]) <= 0.05).all()  # at a start again …
        assert not np.isclose(np.asarray(state.obs)[over], starts[over]).all(axis=1).any()  # … which is another one
        np.testing.assert_array_equal(state.reward, np.ones(16))
        assert (np.asarray(state.pipeline_state.episode.length)[over] == 0).all()
    jax.effects_barrier()
    first_returns = np.zeros(16)
    for over, returns in ended:
        new = np.asarray(over) & (first_returns == 0)
        first_returns[new] = np.asarray(returns)[new]
    np.testing.assert_array_equal(first_returns, np.minimum(falls, horizon))


def test_a_diverged_state_ends_the_episode_without_reward():
    worlds = Worlds(CARTPOLE)
    state = worlds.reset(keys(2))
    physics = state.pipeline_state.episode.physics
    broken = physics._replace(qvel=physics.qvel.at[0, 0].set(jnp.nan))
    world = state.pipeline_state._replace(episode=state.pipeline_state.episode._replace(physics=broken))
    state = jax.jit(worlds.step)(state.replace(pipeline_state=world), jnp.ones((2, 1)))
    assert state.done.tolist() == [1.0, 0.0]
    assert state.reward.tolist() == [0.0, 1.0]
    assert state.info["truncation"].tolist() == [0.0, 0.0]
    assert np.isfinite(state.obs).all()
