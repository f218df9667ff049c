"""Swing a pendulum up and hold it there. Change the model and the functions below, and raise `version` when you do."""

import jax
import jax.numpy as jnp

from epvf_data.envs import Env, Physics

XML = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <light pos="0 0 3"/>
    <geom name="floor" type="plane" size="5 5 0.1" contype="0" conaffinity="0"/>
    <body pos="0 0 1">
      <joint name="hinge" axis="0 1 0" damping="0.05"/>
      <geom type="capsule" fromto="0 0 0 0 0 -0.5" size="0.04" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <actuator>
    <motor joint="hinge" gear="2" ctrllimited="true" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""


def reset(key):  # all randomness comes from the key
    angle, speed = 0.1 * jax.random.normal(key, (2,))
    return Physics(qpos=angle[None], qvel=speed[None], action=jnp.zeros(1))


def observe(state):
    return jnp.concatenate([jnp.cos(state.qpos), jnp.sin(state.qpos), state.qvel / 10])


def reward(before, after):  # after.moved is the change of qpos between the two
    return (1 - jnp.cos(after.qpos[0])) / 2 - 0.001 * jnp.sum(after.action**2)


def terminated(state):
    return jnp.abs(state.qvel[0]) > 50


def make():
    return Env(
        name="my-pendulum",
        version="1",
        observation_size=3,
        action_size=1,
        horizon=200,
        timestep=0.01,  # of the model
        substeps=2,  # physics steps a control step
        reset=reset,
        observe=observe,
        reward=reward,
        terminated=terminated,
        control=lambda action: action,  # from the policy's −1 … 1 to the actuators
        random_start=True,
        xml=XML,
    )
