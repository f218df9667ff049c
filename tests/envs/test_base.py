"""The identity of a task, and what every environment owes its callers."""

import importlib
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epvf_data import envs
from epvf_data.errors import ConfigError


def test_unknown_environment_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'zebra'.*ant, ant-gym, ant-reset-noise, ant-servo, cartpole"):
        envs.make("zebra")


def test_environments_have_distinct_digests_and_are_made_once():
    digests = {name: envs.make(name).digest for name in envs.ENVS}
    assert len(set(digests.values())) == len(envs.ENVS)
    assert all(envs.make(name) is envs.make(name) and envs.make(name).name == name for name in envs.ENVS)


def test_digest_follows_horizon_version_and_model():
    env = envs.make("ant")
    changed = [
        env.with_horizon(500),
        replace(env, version="2"),
        replace(env, xml=env.xml.replace('gear="150"', 'gear="149"')),
        replace(env, substeps=2),
    ]
    assert len({env.digest, *(other.digest for other in changed)}) == 5
    assert env.with_horizon(env.horizon) is env
    assert env.with_horizon(500) is env.with_horizon(500)


def test_digest_ignores_comments_white_space_and_attribute_order():
    env = envs.make("ant")
    shuffled = env.xml.replace('name="torso" type="sphere"', 'type="sphere"   name="torso"')
    shuffled = "<!-- another remark -->\n" + shuffled.replace("\n", "\n\n  ")
    assert shuffled != env.xml
    assert replace(env, xml=shuffled).digest == env.digest


def test_a_task_needs_exactly_one_physics_and_positive_sizes():
    env = envs.make("cartpole")
    with pytest.raises(ConfigError, match="exactly one of"):
        replace(env, dynamics=None)
    with pytest.raises(ConfigError, match="exactly one of"):
        replace(env, xml="<mujoco/>")
    with pytest.raises(ConfigError, match="horizon"):
        replace(env, horizon=0)


@pytest.mark.parametrize("name", sorted(envs.ENVS))
def test_functions_are_pure_and_fit_the_declared_sizes(name):
    env = envs.make(name)

    def tour(key, action):
        state = env.reset(key)._replace(action=action)
        state = state._replace(moved=jnp.zeros_like(state.qpos))
        reward, ended = env.reward(state, state), env.terminated(state)
        return state, env.observe(state), reward, ended, env.control(action)

    keys = jax.random.split(jax.random.key(0), 5)
    actions = jax.random.uniform(jax.random.key(1), (5, env.action_size), minval=-1, maxval=1)
    many = jax.jit(jax.vmap(tour))
    once, again = many(keys, actions), many(keys, actions)
    jax.tree.map(np.testing.assert_array_equal, once, again)
    jax.tree.map(
        lambda batch, single: np.testing.assert_allclose(batch[3], single, rtol=1e-6), once, tour(keys[3], actions[3])
    )
    state, observation, reward, ended, control = once
    assert observation.shape == (5, env.observation_size)
    assert reward.shape == ended.shape == (5,)
    assert control.shape == (5, env.action_size)
    assert not ended.any()
    assert {leaf.dtype for leaf in jax.tree.leaves((state, observation, reward, control))} == {jnp.dtype("float32")}
    assert (len(np.unique(state.qpos, axis=0)) > 1) == env.random_start


@pytest.mark.parametrize("name", sorted(envs.ENVS))
def test_the_table_of_environments_says_what_they_are(name):
    env, entry = envs.make(name), envs.ENVS[name]
    sizes = (env.observation_size, env.action_size, env.horizon)
    assert sizes == (entry.observation_size, entry.action_size, entry.horizon)
    assert env.digest == entry.digest, "its rows no longer mix with earlier ones; if that is meant, write it down there"
    module = importlib.import_module(f"epvf_data.envs.{entry.module}")
    assert set(entry.objectives) == set(getattr(module, "OBJECTIVES", ()))


def test_the_name_of_a_data_set_is_known_without_the_environment(in_tmp):
    names = ["ant", "ant.slow", "playground:CheetahRun"]
    assert [envs.full_name(name) for name in names] == ["ant", "ant.slow", "playground-CheetahRun"]
