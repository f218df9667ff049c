"""Environments of MuJoCo Playground against Playground itself: models, starts, single steps, whole episodes."""

from __future__ import annotations

import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import epvf_data
from epvf_data import envs
from epvf_data.collectors.resimulate import resimulate
from epvf_data.conformance import check_env
from epvf_data.envs import playground
from epvf_data.envs.base import Physics
from epvf_data.envs.names import PLAYGROUND
from epvf_data.errors import ConfigError, EnvironmentMismatchError, MissingPackageError
from epvf_data.physics import mjx, native
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec
from epvf_data.rollout import rollout
from epvf_data.store.writer import Writer

QUICK = ("CartpoleSwingup", "PendulumSwingup", "PointMass")
SLOW = tuple(name for name in PLAYGROUND if name not in QUICK)
STEPS = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
# Where a control step is several physics steps, the speed of a walker's centre of mass is that of the end of the last.
NEAR = {"WalkerWalk": 0.15, "WalkerRun": 0.02}


@pytest.fixture
def absent(monkeypatch):
    """Playground is not installed, and nothing was made of it."""
    monkeypatch.setitem(sys.modules, "mujoco_playground", None)
    monkeypatch.setattr(envs, "_given", envs._given.__wrapped__)


@pytest.fixture
def installed():
    with playground._quiet():
        pytest.importorskip("mujoco_playground")


def test_names_are_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="did you mean playground:CheetahRun"):
        envs.make("playground:CheetahRunn")
    with pytest.raises(ConfigError, match=r"HopperHop is none of.*choose playground: and one of Acro.*WalkerWalk\.$"):
        envs.make("playground:HopperHop")
    with pytest.raises(ConfigError, match="there is no environment 'playground-HopperHop'"):
        envs.make("playground-HopperHop")


def test_without_playground_one_sentence_tells_the_extra(absent):
    with pytest.raises(MissingPackageError, match=r"not installed; .*'epvf-data\[playground\]'\.$"):
        envs.make("playground:CheetahRun")


def test_data_sets_may_name_them_and_nothing_else_there(absent, in_tmp, env, make_rows):
    """The package that the name stands for is asked for; a name that only looks alike loads nothing."""
    for name, error, told in (
        ("playground-PendulumSwingup", MissingPackageError, r"epvf-data\[playground\]"),
        ("playground-evil", EnvironmentMismatchError, "none of this package's"),
    ):
        with Writer.open(f"{name}.zarr", replace(env, name=name)) as writer:
            writer.commit(make_rows(4, 0, probes=2), {})
        with pytest.raises(error, match=told):
            resimulate(epvf_data.open(f"{name}.zarr"), 4)


def test_nobody_elses_environment_takes_their_names(in_tmp):
    text = "from dataclasses import replace\nfrom epvf_data.envs import make as given\n"
    (in_tmp / "mine.py").write_text(text + "def make(): return replace(given('ant'), name='playground-PointMass')")
    with pytest.raises(ConfigError, match="called 'playground-PointMass', as one of this package"):
        envs.make("mine.py:make")


def theirs(name):
    """Playground's own environment."""
    return playground._suite().load(name, config_overrides={"impl": "jax"})


@pytest.mark.parametrize("name", PLAYGROUND)
def test_models_compile_to_the_same_numbers(installed, name):
    env, model = envs.make(f"playground:{name}"), theirs(name).mj_model
    ours, compared = mujoco.MjModel.from_xml_string(env.xml), 0
    for one, other in ((ours, model), (ours.opt, model.opt)):
        for field in dir(one):
            value = getattr(one, field)
            if not field.startswith("_") and isinstance(value, (int, float, np.ndarray)) and field != "signature":
                np.testing.assert_array_equal(value, getattr(other, field), err_msg=field)
                compared += 1
    assert compared > 300
    assert not model.na
    assert model.jnt_type.min() >= mujoco.mjtJoint.mjJNT_SLIDE.value  # no quaternions
    assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_EULER.value
    assert (model.sensor_needstage < mujoco.mjtStage.mjSTAGE_ACC.value).all()  # no sensors of forces
    np.testing.assert_array_equal(model.actuator_ctrlrange, [[-1.0, 1.0]] * env.action_size)
    assert (env.timestep, env.substeps) == (model.opt.timestep, theirs(name).n_substeps)
    assert envs.make(f"playground-{name}") is env


def visited(world, size, episodes=16, steps=100):
    """Playground's own steps of random actions: dicts of what was before, the action, and what came."""

    def step(state, key):
        action = jax.random.uniform(key, (size,), minval=-1, maxval=1)
        after = world.step(state, action)
        kept = {"qpos": state.data.qpos, "qvel": state.data.qvel, "warm": state.data.qacc_warmstart, "seen": state.obs}
        came = {"qpos": after.data.qpos, "qvel": after.data.qvel, "seen": after.obs, "reward": after.reward}
        return after, (kept, action, came)

    def episode(key):
        return jax.lax.scan(step, world.reset(key), jax.random.split(key, steps))[1]

    with jax.numpy_rank_promotion("allow"), jax.default_matmul_precision("highest"):
        return jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), episodes))


def mjx_step(env, before, action):
    """Our step on MJX with the solver's warm start."""
    move = mjx.stepper(env).move

    def one(before, action):
        physics = Physics(before["qpos"], before["qvel"], action, jnp.zeros_like(before["qpos"]))
        return move(before["warm"], physics, action, env.control(action), jnp.ones((), bool))[1][:2]

    with jax.numpy_rank_promotion("allow"), jax.default_matmul_precision("highest"):
        return jax.jit(jax.vmap(one))(before, action)


def native_step(env, before, action):
    """Our step on MuJoCo C with the solver's warm start."""
    stepper = native.stepper(env)

    def one(state, physics, action):
        return stepper.move(state, physics, action, env.control(action), jnp.ones((), bool))[1][:2]

    physics = Physics(before["qpos"], before["qvel"], action, jnp.zeros_like(before["qpos"]))
    state = np.array(jax.vmap(stepper.start)(physics)).view(np.float64)
    state[:, -before["warm"].shape[1] :] = before["warm"]  # a state ends with the warm start
    return jax.jit(jax.vmap(one))(state.view(np.uint32), physics, action)


@pytest.mark.parametrize("name", STEPS)
def test_starts_and_steps_agree(installed, name):
    env = envs.make(f"playground:{name}")
    rows = visited(theirs(name), env.action_size)
    start = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 16))
    np.testing.assert_array_equal(start.qpos, rows[0]["qpos"][:, 0])
    np.testing.assert_array_equal(start.qvel, rows[0]["qvel"][:, 0])
    # Their first observation has frames of the start itself: a time step of the start's velocities away.
    np.testing.assert_allclose(jax.vmap(env.observe)(start), rows[0]["seen"][:, 0], atol=5e-4)

    before, action, after = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), rows)
    judge = jax.jit(jax.vmap(lambda *states: (env.observe(states[1]), env.reward(*states), env.terminated(states[1]))))

    def judged(qpos, qvel, kept=slice(None)):
        first = Physics(before["qpos"][kept], before["qvel"][kept], action[kept], np.zeros_like(qpos))
        return judge(first, Physics(qpos, qvel, action[kept], qpos - first.qpos))

    near = NEAR.get(name, 1e-5)
    seen, reward, over = judged(after["qpos"], after["qvel"])  # of their states
    np.testing.assert_allclose(seen, after["seen"], atol=1e-6)
    np.testing.assert_allclose(reward, after["reward"], atol=near)
    assert np.median(np.abs(reward - after["reward"])) <= near / 30
    assert not over.any()
    assert np.ptp(after["reward"]) > 0.01

    qpos, qvel = mjx_step(env, before, action)
    np.testing.assert_allclose(qpos, after["qpos"], atol=2e-5)
    np.testing.assert_allclose(qvel, after["qvel"], atol=2e-3)
    assert np.median(np.abs(qvel - after["qvel"]).max(1)) < 1e-5

    kept = np.random.default_rng(0).choice(len(action), native.SLOTS, replace=False)
    found = native_step(env, *jax.tree.map(lambda leaf: leaf[kept], (before, action)))
    apart = np.abs(judged(*found, kept)[1] - after["reward"][kept])
    assert np.median(np.abs(found[0] - after["qpos"][kept]).max(1)) < 1e-6
    assert np.median(np.abs(found[1] - after["qvel"][kept]).max(1)) < 1e-4
    assert np.median(apart) <= near / 30


@pytest.mark.parametrize("name", ["CartpoleSwingup", pytest.param("CheetahRun", marks=pytest.mark.slow)])
def test_whole_episodes_agree(installed, name):
    """Policies in Playground's own loop, and on the native backend from the same starts."""
    env = envs.make(f"playground:{name}").with_horizon(100)
    world, spec = theirs(name), PolicySpec(env.observation_size, env.action_size, (16,))
    keys = jax.random.split(jax.random.key(1), 32)
    params = jax.vmap(lambda key: mlp.init(key, spec, 2.0))(keys)

    def episode(flat, key):
        def step(state, _):
            state = world.step(state, mlp.apply(spec, mlp.unflatten(spec, flat), state.obs))
            return state, state.reward

        return jax.lax.scan(step, world.reset(jax.random.fold_in(key, 0)), length=100)[1].sum()

    with jax.numpy_rank_promotion("allow"), jax.default_matmul_precision("highest"):
        expected = np.asarray(jax.jit(jax.vmap(episode))(params, keys))
    seeds = np.asarray(jax.vmap(jax.random.key_data)(keys))
    found = rollout(env, spec, np.asarray(params), reset_seed=seeds, backend="native")
    assert (found.lengths == 100).all()
    apart = np.abs(found.returns[:, 0] - expected)
    assert np.median(apart) < 0.02 * expected.std()
    assert abs(found.returns.mean() - expected.mean()) < 0.1 * expected.std()


def test_the_usual_mistakes_are_not_made(installed):
    found = check_env(envs.make("playground:PendulumSwingup"))
    assert [finding for finding in found if not finding.ok] == []
    assert len(found) == 7
