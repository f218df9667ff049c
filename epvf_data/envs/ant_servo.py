"""The Ant with position servos: an action moves each joint's set point by up to 0.3 rad around a standing pose.

Task, observation and reward are those of `ant`, with joint positions relative to the standing pose.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from epvf_data.envs import ant
from epvf_data.envs.base import Env, Physics, model_xml

POSE = (0.0, 1.2, 0.0, -1.2, 0.0, -1.2, 0.0, 1.2)  # rad: hip_1, ankle_1, hip_2, …
START_HEIGHT = 0.61  # m, standing
ACTION_SCALE = 0.3  # rad


def make() -> Env:
    """The Ant with servos: four physics steps of 5 ms a control step, no noise at the start."""
    return Env(
        name="ant-servo",
        version="1",
        observation_size=34,
        action_size=8,
        horizon=1000,
        timestep=0.005,
        substeps=4,
        reset=_reset,
        observe=observe,
        reward=lambda before, after: ant.reward(after),
        terminated=ant.terminated,
        control=lambda action: jnp.array(POSE) + ACTION_SCALE * action,
        random_start=False,
        xml=model_xml("ant_servo"),
    )


def _reset(key: PRNGKeyArray) -> Physics:
    del key  # the start is fixed
    qpos = jnp.array([0.0, 0.0, START_HEIGHT, 1.0, 0.0, 0.0, 0.0, *POSE])
    return Physics(qpos=qpos, qvel=jnp.zeros(14), action=jnp.zeros(8))


def observe(state: Physics) -> Float[Array, "34"]:
    """As `ant.observe`, with joint positions relative to the standing pose."""
    return ant.observe(state._replace(qpos=state.qpos.at[7:].add(-jnp.array(POSE))))
