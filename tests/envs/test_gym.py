"""The walking bodies against Gymnasium itself: compiled models, starts, single steps, whole episodes; and on MJX."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from epvf_data import envs
from epvf_data.envs import gym
from epvf_data.envs.base import Physics
from epvf_data.physics import native
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec
from epvf_data.rollout import rollout

BARE = {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0}
REST = {f"include_{name}_in_observation": False for name in ("cinert", "cvel", "qfrc_actuator")}
# Ours → Gymnasium's, the file of its model, and how far its reward may be from ours. Gymnasium measures the speed of
# ant and humanoid by positions of the Runge-Kutta method's last stage, which batched stepping does not give.
BODIES = {
    "hopper": ("Hopper-v5", {}, "hopper", 1e-6),
    "walker2d": ("Walker2d-v5", {}, "walker2d_v5", 1e-6),
    "halfcheetah": ("HalfCheetah-v5", {}, "half_cheetah", 1e-6),
    "swimmer": ("Swimmer-v5", {}, "swimmer", 1e-6),
    "ant-gym": ("Ant-v5", BARE, "ant", 0.1),
    "humanoid": ("Humanoid-v5", BARE | REST, "humanoid", 0.1),
}
# Looks, names, sizes of buffers, and what only viewers read.
NO_PHYSICS = ("name", "mat_", "matid", "nmat", "tex", "cam", "light", "vis", "stat", "user", "rgba", "paths", "key")
NO_PHYSICS += ("signature", "bvh", "oct", "numeric", "nbuffer", "narena")


@pytest.fixture(params=BODIES)
def body(request):
    theirs, settings, file, tolerance = BODIES[request.param]
    world = gymnasium.make(theirs, **settings).unwrapped
    yield envs.make(request.param), world, file, tolerance
    world.close()


def numbers(thing):
    """Name → value of all its numeric attributes."""
    found = {name: getattr(thing, name) for name in dir(thing) if not name.startswith("_")}
    return {name: np.asarray(value) for name, value in found.items() if isinstance(value, (int, float, np.ndarray))}


def test_models_compile_to_the_same_physics(body):
    env, _, file, _ = body
    path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / f"{file}.xml"
    ours, theirs = mujoco.MjModel.from_xml_string(env.xml), mujoco.MjModel.from_xml_path(str(path))
    compared = 0
    for one, other in ((ours, theirs), (ours.opt, theirs.opt)):
        known = numbers(other)
        for name, value in numbers(one).items():
            if not any(word in name for word in NO_PHYSICS):
                np.testing.assert_allclose(value, known[name], rtol=1e-12, atol=1e-12, err_msg=name)
                compared += value.size
    assert compared > 500


def visited(world, env, count=128):
    """States (qpos, qvel) on the way of random actions, as float32 can hold them, and other actions."""
    random, states = np.random.default_rng(0), []
    world.reset(seed=0)
    while len(states) < count:
        _, _, ended, _, _ = world.step(random.uniform(-1, 1, env.action_size) * world.action_space.high)
        states.append((world.data.qpos.copy(), world.data.qvel.copy()))
        if ended and random.random() < 0.2:  # also states that end the episode
            world.reset()
    qpos, qvel = (np.float32(part).astype(float) for part in zip(*states, strict=True))
    return qpos, qvel, random.uniform(-1, 1, (count, env.action_size)).astype(np.float32)


def native_step(env, qpos, qvel, action):
    """One control step by the native backend from these states, the solver started cold: qpos, qvel, change of qpos."""
    stepper = native.stepper(env)

    def one(physics, action):
        return stepper.move(stepper.start(physics), physics, action, env.control(action), jnp.ones((), bool))

    physics = Physics(*map(jnp.float32, (qpos, qvel, action, np.zeros_like(qpos))))
    state, after = jax.jit(jax.vmap(one))(physics, jnp.asarray(action))
    exact = np.asarray(state).view(np.float64)[:, 1:]  # after the time
    return exact[:, : qpos.shape[1]], exact[:, qpos.shape[1] :][:, : qvel.shape[1]], np.asarray(after.moved)


def test_steps_agree(body):
    env, world, _, tolerance = body
    qpos, qvel, action = visited(world, env)
    found = native_step(env, qpos, qvel, action)
    single = [jnp.asarray(part, jnp.float32) for part in found]
    before = Physics(jnp.asarray(qpos, jnp.float32), jnp.asarray(qvel, jnp.float32), action, None)
    after = Physics(single[0], single[1], jnp.asarray(action), single[2])
    observed, ended = jax.vmap(env.observe)(after), jax.vmap(env.terminated)(after)
    rewards = jax.jit(jax.vmap(env.reward))(before, after)
    first = jax.vmap(env.observe)(before)
    for row in range(len(qpos)):
        world.set_state(qpos[row], qvel[row])
        np.testing.assert_allclose(first[row], world._get_obs())
        world.data.qacc_warmstart[:] = 0
        control = np.asarray(env.control(action[row]))
        assert np.abs(control).max() <= world.action_space.high.max()
        seen, reward, over, _, _ = world.step(control)
        np.testing.assert_allclose(found[0][row], world.data.qpos, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found[1][row], world.data.qvel, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(observed[row], seen, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(rewards[row], reward, rtol=1e-6, atol=tolerance)
        assert bool(ended[row]) == over
    if env.name not in ("halfcheetah", "swimmer"):
        assert 0 < np.asarray(ended).sum() < len(ended)


def test_starts_are_spread_as_theirs(body):
    env, world, _, _ = body
    ours = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 4000))
    theirs = [world.reset(seed=seed) and (world.data.qpos.copy(), world.data.qvel.copy()) for seed in range(1000)]
    for mine, other in zip((ours.qpos, ours.qvel), map(np.array, zip(*theirs, strict=True)), strict=True):
        noise = world._reset_noise_scale
        np.testing.assert_allclose(np.mean(mine, axis=0), other.mean(0), atol=0.2 * noise)
        np.testing.assert_allclose(np.std(mine, axis=0), other.std(0), rtol=0.15)
        np.testing.assert_allclose(np.abs(mine).max(), np.abs(other).max(), rtol=0.05 if noise < 0.05 else 0.4)


@pytest.mark.parametrize(
    "body",
    [pytest.param(name, marks=[pytest.mark.soak] * (name != "hopper")) for name in BODIES],
    indirect=True,
)
def test_whole_episodes_agree(body):
    """The same policies from the same starts, until small differences have grown."""
    env, world, _, tolerance = body
    env, spec = env.with_horizon(25), PolicySpec(env.observation_size, env.action_size, (16,))
    keys = jax.random.split(jax.random.key(0), 6)
    params = np.asarray(jax.vmap(lambda key: mlp.init(key, spec))(keys))
    seeds = np.asarray(jax.vmap(jax.random.key_data)(keys))
    found = rollout(env, spec, params, reset_seed=seeds, backend="native")
    act = jax.jit(lambda flat, seen: env.control(mlp.apply(spec, mlp.unflatten(spec, flat), seen)))
    for row, (flat, key) in enumerate(zip(params, keys, strict=True)):
        start = env.reset(jax.random.fold_in(key, 0))
        world.set_state(np.asarray(start.qpos, float), np.asarray(start.qvel, float))
        seen, total, length, over = world._get_obs(), 0.0, 0, False
        while not over and length < 25:
            seen, reward, over, _, _ = world.step(np.asarray(act(flat, jnp.asarray(seen, jnp.float32)), float))
            total, length = total + reward, length + 1
        assert (found.lengths[row, 0], bool(found.terminated[row, 0])) == (length, over)
        np.testing.assert_allclose(found.returns[row, 0], total, rtol=1e-3, atol=1e-3 + 25 * tolerance / 4)


def test_centre_of_mass_is_mujocos():
    model = mujoco.MjModel.from_xml_string(envs.make("humanoid").xml)
    data, random = mujoco.MjData(model), np.random.default_rng(0)
    centre = jax.jit(partial(gym.centre_of_mass, "humanoid"))
    for _ in range(20):
        data.qpos[:] = model.qpos0 + random.uniform(-1, 1, model.nq)
        mujoco.mj_forward(model, data)
        found = centre(jnp.asarray(data.qpos, jnp.float32))
        np.testing.assert_allclose(found, data.subtree_com[0], atol=2e-6)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["hopper", "swimmer"])
def test_mjx_gives_the_same_returns(name):
    """The Ant's stands in tests/physics; the other bodies take minutes to compile: `benchmarks/bodies.py` has them."""
    env = envs.make(name).with_horizon(20)
    spec = PolicySpec(env.observation_size, env.action_size, (16,))
    keys = jax.random.split(jax.random.key(0), 16)
    params = np.asarray(jax.vmap(lambda key: mlp.init(key, spec))(keys))
    seeds = np.asarray(jax.vmap(jax.random.key_data)(keys))
    one, other = (rollout(env, spec, params, reset_seed=seeds, backend=backend) for backend in ("native", "mjx"))
    np.testing.assert_array_equal(one.lengths, other.lengths)
    np.testing.assert_allclose(one.returns, other.returns, rtol=1e-3, atol=2e-3)
