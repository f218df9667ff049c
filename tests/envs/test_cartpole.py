"""CartPole step by step against Gymnasium's own."""

import gymnasium
import jax
import numpy as np
from scipy.stats import kstest

from epvf_data import envs
from epvf_data.envs.base import Physics

ENV = envs.make("cartpole")


def theirs(state, push_right):
    """One step of Gymnasium's environment from a given state."""
    env = gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    env.state, env.steps_beyond_terminated = state, None
    _, reward, terminated, _, _ = env.step(int(push_right))
    return np.array(env.state), reward, terminated


def test_a_thousand_random_steps_agree_with_gymnasium():
    rng = np.random.default_rng(0)
    states = rng.uniform(-1, 1, (1000, 4)) * [2.5, 3.0, 0.24, 3.0]
    states = states.astype(np.float32).astype(float)
    actions = rng.uniform(-1, 1, (1000, 1)).astype(np.float32)
    actions[:2] = [[0.0], [-0.0]]  # the border pushes right

    @jax.jit
    @jax.vmap
    def ours(state, action):
        before = Physics(qpos=state[jax.numpy.array([0, 2])], qvel=state[jax.numpy.array([1, 3])], action=action)
        after = Physics(*ENV.dynamics(before, ENV.control(action)), action)
        return ENV.observe(after), ENV.reward(before, after), ENV.terminated(after)

    observation, reward, terminated = map(np.asarray, ours(states.astype(np.float32), actions))
    expected = [theirs(state, action >= 0) for state, action in zip(states, actions[:, 0], strict=True)]
    np.testing.assert_allclose(observation, [item[0] for item in expected], atol=1e-6, rtol=0)
    np.testing.assert_array_equal(reward, [item[1] for item in expected])
    np.testing.assert_array_equal(terminated, [item[2] for item in expected])
    assert 0.1 < terminated.mean() < 0.9


def test_horizon_is_gymnasiums():
    assert gymnasium.spec("CartPole-v1").max_episode_steps == ENV.horizon
    assert gymnasium.make("CartPole-v1").unwrapped.tau == ENV.timestep


def test_start_is_uniform_within_five_hundredths():
    states = jax.vmap(ENV.reset)(jax.random.split(jax.random.key(0), 4000))
    for values in np.concatenate([states.qpos, states.qvel], axis=1).T:
        assert np.abs(values).max() <= 0.05
        assert kstest(values, "uniform", args=(-0.05, 0.1)).pvalue > 1e-3
    assert np.abs(np.corrcoef(np.concatenate([states.qpos, states.qvel], axis=1).T) - np.eye(4)).max() < 0.06
