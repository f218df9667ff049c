"""The Ant of "Massively Scaling Explicit Policy-conditioned Value Functions": run at 2 m/s along the body's x axis.

Observation (34): torso height 1, joint positions 8, joint velocities 8, body-frame linear velocity 3, angular
velocity 3, projected gravity 3, last action 8. Reward exp(−‖v_xy − (2, 0)‖² / 0.25) a step, v in the body frame.
"""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from epvf_data.envs.base import Env, Physics, model_xml

TARGET_VELOCITY = (2.0, 0.0)  # m/s, body frame
MIN_HEIGHT, MAX_HEIGHT = 0.2, 1.0  # m; outside, the episode ends
START_HEIGHT = 0.75  # m
# Other purposes of the same body: velocity (m/s, body frame), and rate of turning (rad/s) or None for any.
OBJECTIVES: dict[str, tuple[tuple[float, float], float | None]] = {
    "slow": ((1.0, 0.0), None),
    "backward": ((-2.0, 0.0), None),
    "sideways": ((0.0, 1.0), None),
    "turning": ((0.0, 0.0), 1.5),
    "standing": ((0.0, 0.0), 0.0),
}


def make(objective: str | None = None) -> Env:
    """The paper's Ant: eight torque motors, one physics step of 10 ms a control step, no noise at the start."""
    target, turn = OBJECTIVES.get(objective or "", (TARGET_VELOCITY, None))
    return Env(
        name=f"ant.{objective}" if objective else "ant",
        version="1",
        observation_size=34,
        action_size=8,
        horizon=1000,
        timestep=0.01,
        reset=_reset,
        observe=observe,
        reward=lambda before, after: rate(after, target, turn),
        terminated=terminated,
        control=lambda action: action,
        random_start=False,
        xml=model_xml("ant"),
    )


def _reset(key: PRNGKeyArray) -> Physics:
    del key  # the start is fixed
    qpos = jnp.zeros(15).at[2].set(START_HEIGHT).at[3].set(1.0)
    return Physics(qpos=qpos, qvel=jnp.zeros(14), action=jnp.zeros(8))


def rotation(quaternion: Float[Array, "4"]) -> Float[Array, "3 3"]:
    """Body-to-world rotation matrix of the unit quaternion (w, x, y, z)."""
    w, x, y, z = quaternion
    return jnp.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def observe(state: Physics) -> Float[Array, "34"]:
    """The 34 numbers the policy sees, clipped to ±100."""
    to_world = rotation(state.qpos[3:7])
    parts = [
        state.qpos[2:3],
        state.qpos[7:],
        state.qvel[6:],
        to_world.T @ state.qvel[:3],
        state.qvel[3:6],
        -to_world[2],  # Rᵀ(0, 0, −1)
        state.action,
    ]
    return jnp.clip(jnp.concatenate(parts), -100.0, 100.0)


def rate(after: Physics, target: tuple[float, float], turn: float | None = None) -> Float[Array, ""]:
    """exp(−‖v_xy − target‖² / 0.25), times exp(−(ω_z − turn)² / 0.25) where a rate of turning is asked for."""
    velocity = (rotation(after.qpos[3:7]).T @ after.qvel[:3])[:2]
    miss = jnp.sum((velocity - jnp.array(target)) ** 2)
    if turn is not None:
        miss += (after.qvel[5] - turn) ** 2
    return jnp.exp(-miss / 0.25)


reward = partial(rate, target=TARGET_VELOCITY)  # the paper's, at most 1


def terminated(state: Physics) -> Bool[Array, ""]:
    """The torso left the heights between 0.2 and 1 m."""
    return (state.qpos[2] < MIN_HEIGHT) | (state.qpos[2] > MAX_HEIGHT)
