"""One policy in one world, step by step, for whoever wants to look at it: probing states, pictures, parity tests.

Slow and plain on purpose: MuJoCo's own `mj_step` in a Python loop, the same bookkeeping as every backend.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import NamedTuple

import jax
import mujoco
import numpy as np
from jaxtyping import Float, UInt32

from epvf_data.envs.base import Env, Physics
from epvf_data.physics import native
from epvf_data.physics.episode import Episode, account, act
from epvf_data.physics.slots import start
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec


class Trajectory(NamedTuple):
    """One episode: T control steps, T + 1 states."""

    qpos: Float[np.ndarray, "T+1 nq"]
    qvel: Float[np.ndarray, "T+1 nv"]
    observations: Float[np.ndarray, "T+1 O"]
    episode: Episode  # how it ended


@lru_cache(maxsize=16)
def _functions(env: Env, spec: PolicySpec):
    return (
        jax.jit(partial(start, env)),
        jax.jit(lambda flat, episode: act(env, spec, mlp.unflatten(spec, flat), episode)),
        jax.jit(lambda episode, after: account(env, 1.0, episode, after)),
        jax.jit(env.observe),
        jax.jit(env.dynamics or (lambda state, control: (state.qpos, state.qvel))),
    )


def trajectory(
    env: Env,
    spec: PolicySpec,
    params: Float[np.ndarray, "P"],
    reset_seed: UInt32[np.ndarray, "2"] | None = None,
    number: int = 0,
) -> Trajectory:
    """Rolls out episode `number` of one policy, as `rollout` does it, and keeps every state."""
    begin, choose, settle, observe, dynamics = _functions(env, spec)
    episode = begin(np.zeros(2, np.uint32) if reset_seed is None else reset_seed, number)
    states = [episode.physics]
    data = None
    if env.xml is not None:
        model = native.load_model(env)
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = episode.physics.qpos, episode.physics.qvel
    while True:
        episode, action, control = choose(params, episode)
        if not episode.running:
            break
        if data is None:
            qpos, qvel = dynamics(episode.physics, control)
            moved = qpos - episode.physics.qpos
        else:
            data.ctrl[:], before = control, data.qpos.copy()
            mujoco.mj_step(model, data, env.substeps)
            qpos, qvel = data.qpos.astype(np.float32), data.qvel.astype(np.float32)
            moved = (data.qpos - before).astype(np.float32)
        episode = settle(episode, Physics(qpos, qvel, action, moved))
        states.append(episode.physics)
        if not episode.running:
            break
    return Trajectory(
        np.stack([state.qpos for state in states]),
        np.stack([state.qvel for state in states]),
        np.stack([observe(state) for state in states]),
        episode,
    )
