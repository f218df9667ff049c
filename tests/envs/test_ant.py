"""Both Ants: the compiled model against the published table, and observation, reward and end against MuJoCo's state."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import epvf_data
from epvf_data import envs
from epvf_data.collectors.bundled import bundled_files
from epvf_data.envs import ant, ant_reset_noise, ant_servo
from epvf_data.envs.base import Physics
from epvf_data.recording.probes import probing_states

NAMES = ("ant", "ant-servo")
POSE = {"ant": np.zeros(8), "ant-servo": np.array([0, 1.2, 0, -1.2, 0, -1.2, 0, 1.2])}


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    env = envs.make(request.param)
    return env, mujoco.MjModel.from_xml_string(env.xml)


def names(model, kind, count):
    return [mujoco.mj_id2name(model, kind, number) for number in range(count)]


def random_states(rng, count):
    """Turned torsos, joints within and beyond their ranges, random velocities."""
    qpos = rng.normal(size=(count, 15))
    qpos[:, 2] = rng.uniform(0.1, 1.2, count)
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    return qpos, 3 * rng.normal(size=(count, 14)), rng.uniform(-1, 1, (count, 8))


def test_compiled_model_is_the_published_one(case):
    env, model = case
    servo = env.name == "ant-servo"
    assert (model.nq, model.nv, model.nu, model.npair) == (15, 14, 8, 4)
    assert model.opt.timestep == env.timestep == (0.005 if servo else 0.01)
    assert env.substeps == (4 if servo else 1)
    assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_EULER
    assert model.opt.solver == mujoco.mjtSolver.mjSOL_NEWTON
    assert (model.opt.iterations, model.opt.ls_iterations) == (1, 4)
    assert model.opt.cone == mujoco.mjtCone.mjCONE_PYRAMIDAL
    assert model.opt.disableflags == mujoco.mjtDisableBit.mjDSBL_EULERDAMP

    joints = names(model, mujoco.mjtObj.mjOBJ_JOINT, model.njnt)
    assert joints == ["root", *(f"{part}_{leg}" for leg in (1, 2, 3, 4) for part in ("hip", "ankle"))]
    ranges = dict(zip(joints, np.rad2deg(model.jnt_range), strict=True))
    for leg in (1, 2, 3, 4):
        np.testing.assert_allclose(ranges[f"hip_{leg}"], [-30, 30])
        np.testing.assert_allclose(ranges[f"ankle_{leg}"], [30, 70] if leg in (1, 4) else [-70, -30])
        np.testing.assert_allclose(model.joint(f"hip_{leg}").axis, [0, 0, 1])
        axis = np.array([-1, 1, 0] if leg in (1, 3) else [1, 1, 0])
        np.testing.assert_allclose(model.joint(f"ankle_{leg}").axis, axis / np.sqrt(2))
    assert model.jnt_limited.tolist() == [0] + [1] * 8
    np.testing.assert_allclose(model.dof_armature, [0] * 6 + [0.02 if servo else 1] * 8)
    np.testing.assert_allclose(model.dof_damping, [0] * 6 + [0.1 if servo else 1] * 8)
    np.testing.assert_allclose(model.dof_frictionloss, 0.1 if servo else 0)

    torso, floor = model.geom("torso"), model.geom("floor")
    assert torso.size[0] == 0.25
    assert (model.geom_margin == 0.01).all()
    np.testing.assert_allclose(model.geom_friction, np.tile([1, 0.5, 0.5], (model.ngeom, 1)))
    limbs = [number for number in range(model.ngeom) if number not in (torso.id, floor.id)]
    assert (model.geom_type[limbs] == mujoco.mjtGeom.mjGEOM_CAPSULE).all()
    np.testing.assert_allclose(model.geom_size[limbs, 0], 0.08)
    lengths = {name: 2 * model.geom(name).size[1] for name in ("aux_1", "leg_1", "ankle_1")}
    np.testing.assert_allclose([*lengths.values()], np.sqrt(2) * np.array([0.2, 0.2, 0.4]))
    volume = 4 / 3 * np.pi * 0.25**3
    volume += sum(np.pi * 0.08**2 * (2 * model.geom_size[limb, 1] + 4 / 3 * 0.08) for limb in limbs)
    np.testing.assert_allclose(model.body_mass.sum(), 5 * volume)


def test_actuators_and_their_order(case):
    env, model = case
    order = [model.joint(number).name for number in model.actuator_trnid[:, 0]]
    if env.name == "ant":
        assert order == ["hip_4", "ankle_4", "hip_1", "ankle_1", "hip_2", "ankle_2", "hip_3", "ankle_3"]
        assert (model.actuator_gear[:, 0] == 150).all()
        assert model.actuator_ctrllimited.all()
        np.testing.assert_array_equal(model.actuator_ctrlrange, np.tile([-1, 1], (8, 1)))
        assert (model.actuator_biastype == mujoco.mjtBias.mjBIAS_NONE).all()
    else:
        assert order == [f"{part}_{leg}" for leg in (1, 2, 3, 4) for part in ("hip", "ankle")]
        np.testing.assert_allclose(model.actuator_gainprm[:, 0], 20)
        np.testing.assert_allclose(model.actuator_biasprm[:, :3], np.tile([0, -20, -0.5], (8, 1)))
        np.testing.assert_array_equal(model.actuator_forcerange, np.tile([-150, 150], (8, 1)))
        assert not model.actuator_ctrllimited.any()
    action = np.linspace(-1, 1, 8, dtype=np.float32)
    expected = action if env.name == "ant" else POSE["ant-servo"] + 0.3 * action
    np.testing.assert_allclose(env.control(jnp.asarray(action)), expected, rtol=1e-6)


def test_only_the_feet_touch_the_floor(case):
    _, model = case
    floor, feet = model.geom("floor").id, {model.geom(f"ankle_{leg}").id for leg in (1, 2, 3, 4)}
    assert not model.geom_contype.any()
    assert not model.geom_conaffinity.any()
    assert {frozenset(pair) for pair in zip(model.pair_geom1, model.pair_geom2, strict=True)} == {
        frozenset((foot, floor)) for foot in feet
    }
    np.testing.assert_array_equal(model.pair_friction[:, :2], 1)  # all that a contact of three dimensions uses
    assert (model.pair_dim == 3).all()
    assert not model.pair_margin.any()  # explicit pairs do not take the geoms' margin
    data, touched = mujoco.MjData(model), set()
    for qpos in random_states(np.random.default_rng(1), 200)[0]:
        data.qpos[:] = qpos
        mujoco.mj_forward(model, data)
        touched |= {int(geom) for contact in data.contact for geom in contact.geom}
    assert touched == feet | {floor}


def test_observation_and_reward_against_mujocos_state(case):
    env, model = case
    data, foot = mujoco.MjData(model), np.zeros(6)
    qpos, qvel, action = random_states(np.random.default_rng(0), 300)
    qvel[0, 6] = 500.0  # beyond the clip
    expected, rewards = [], []
    for position, velocity, last in zip(qpos, qvel, action, strict=True):
        data.qpos[:], data.qvel[:] = position, velocity
        mujoco.mj_forward(model, data)
        torso = model.body("torso").id
        to_body = data.xmat[torso].reshape(3, 3).T
        linear = to_body @ velocity[:3]
        np.testing.assert_allclose(data.body("torso").xpos[2], position[2])
        mujoco.mju_rotVecQuat(foot[:3], np.array([0.0, 0, -1]), position[3:7] * [1, -1, -1, -1])
        parts = [
            position[2:3],
            position[7:] - POSE[env.name],
            velocity[6:],
            linear,
            velocity[3:6],
            foot[:3],
            last,
        ]
        expected.append(np.clip(np.concatenate(parts), -100, 100))
        rewards.append(np.exp(-((linear[0] - 2) ** 2 + linear[1] ** 2) / 0.25))
    states = Physics(*(jnp.asarray(part, jnp.float32) for part in (qpos, qvel, action)))
    np.testing.assert_allclose(jax.vmap(env.observe)(states), expected, atol=3e-5)
    np.testing.assert_allclose(jax.vmap(env.reward)(states, states), rewards, atol=3e-5)
    assert max(rewards) > 0.1


def test_reward_is_one_at_the_target_velocity_whatever_the_heading():
    for angle in (0.0, 0.7, 2.5):
        qpos = jnp.zeros(15).at[3].set(np.cos(angle / 2)).at[6].set(np.sin(angle / 2))
        qvel = jnp.zeros(14).at[0].set(2 * np.cos(angle)).at[1].set(2 * np.sin(angle)).at[2].set(-5.0)
        np.testing.assert_allclose(ant.reward(Physics(qpos, qvel, jnp.zeros(8))), 1.0, rtol=1e-5)


@pytest.mark.parametrize(("height", "ended"), [(0.19, True), (0.21, False), (0.6, False), (0.99, False), (1.01, True)])
def test_episode_ends_outside_the_heights(case, height, ended):
    env, _ = case
    state = env.reset(jax.random.key(0))
    assert bool(env.terminated(state._replace(qpos=state.qpos.at[2].set(height)))) is ended


def test_start(case):
    env, model = case
    one, other = env.reset(jax.random.key(0)), env.reset(jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    expected = model.qpos0.copy()
    expected[2] = 0.61 if env.name == "ant-servo" else 0.75
    expected[7:] = POSE[env.name]
    np.testing.assert_allclose(one.qpos, expected, rtol=1e-6)
    assert not one.qvel.any()
    assert not one.action.any()
    assert env.horizon == 1000


def test_with_reset_noise_it_is_the_same_task_from_starts_a_hair_apart():
    env, fixed = envs.make("ant-reset-noise"), envs.make("ant")
    starts = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 2000))
    start = fixed.reset(jax.random.key(0))
    for one, other in ((starts.qpos, start.qpos), (starts.qvel, start.qvel)):
        moved = (np.asarray(one) - np.asarray(other)) / ant_reset_noise.RESET_NOISE
        np.testing.assert_allclose(moved.mean(0), 0, atol=0.1)
        np.testing.assert_allclose(moved.std(0), 1, atol=0.06)
    assert {**env.identity, "name": "ant"} == fixed.identity
    assert env.random_start
    config = epvf_data.collect_config("ant-reset-noise", envs=3, horizon=5)
    assert config.perturbed == epvf_data.collect_config("ant", envs=3).perturbed  # the same bases and radii
    np.testing.assert_array_equal(probing_states(env, 8), probing_states(fixed, 8))
    assert bundled_files(env) == bundled_files(fixed)


@given(st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4).filter(lambda q: sum(x * x for x in q) > 0.01))
def test_rotation_is_orthonormal_and_agrees_with_mujoco(quaternion):
    unit = np.array(quaternion, np.float32)
    unit /= np.linalg.norm(unit)
    ours, theirs = np.asarray(ant.rotation(jnp.asarray(unit))), np.zeros(9)
    mujoco.mju_quat2Mat(theirs, unit.astype(float))
    np.testing.assert_allclose(ours, theirs.reshape(3, 3), atol=1e-6)
    np.testing.assert_allclose(ours @ ours.T, np.eye(3), atol=2e-6)


def test_servo_stands_still_in_its_pose_under_no_action():
    """A sanity check of pose, set points and actuator order together: after 2 s without action it still stands."""
    env = envs.make("ant-servo")
    model = mujoco.MjModel.from_xml_string(env.xml)
    data, start = mujoco.MjData(model), env.reset(jax.random.key(0))
    data.qpos[:] = start.qpos
    data.ctrl[:] = env.control(jnp.zeros(8))
    for _ in range(400):
        mujoco.mj_step(model, data)
    assert 0.45 < data.qpos[2] < 0.65
    assert np.abs(data.qpos[7:] - np.array(ant_servo.POSE)).max() < 0.3
    assert np.abs(data.qvel).max() < 0.05
