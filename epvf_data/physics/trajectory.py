"""One policy in one world, step by step, for whoever wants to look at it: probing states, pictures, parity tests.

Slow and plain on purpose: MuJoCo's own `mj_step` in a Python loop, the same bookkeeping as every backend.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Float, UInt32

from epvf_data.envs.base import Env, Physics
from epvf_data.physics import native
from epvf_data.physics.episode import Episode, account, act
from epvf_data.physics.slots import Queue, start
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec


class Trajectory(NamedTuple):
    """One episode: T control steps, T + 1 states."""

    qpos: Float[np.ndarray, "T+1 nq"]
    qvel: Float[np.ndarray, "T+1 nv"]
    observations: Float[np.ndarray, "T+1 O"]
    actions: Float[np.ndarray, "T+1 A"]  # that led to each state: zeros to the first
    episode: Episode  # how it ended


@lru_cache(maxsize=16)
def _functions(env: Env, spec: PolicySpec):
    return (
        jax.jit(partial(start, env, spec)),
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
    """Rolls out episode `number` of one policy under the rules of `rollout`, and keeps every state.

    It rounds otherwise than the backends, which a falling ant amplifies: `replay` gives the native backend's episode.
    """
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
        np.stack([state.action for state in states]),
        episode,
    )


class _Logged(native._Block):
    """A block that keeps every state of the one episode that it plays."""

    def _load(self, slots: np.ndarray, items: np.ndarray) -> None:
        super()._load(slots, items)
        self.states, self.actions = [self.state[slots[0]].copy()], [np.zeros(self.env.action_size, np.float32)]

    def _physics(self, live: np.ndarray, control: np.ndarray) -> None:
        super()._physics(live, control)
        self.states.append(self.state[live[0]].copy())
        self.actions.append(np.asarray(self.action)[live[0]])


def replay(
    env: Env,
    spec: PolicySpec,
    params: Float[np.ndarray, "P"],
    reset_seed: UInt32[np.ndarray, "2"] | None = None,
    number: int = 0,
) -> Trajectory:
    """As `trajectory`, but to the bit the episode that the native backend plays, where it can."""
    if env.xml is None:
        return trajectory(env, spec, params, reset_seed, number)
    seed = np.zeros(2, np.uint32) if reset_seed is None else np.asarray(reset_seed, np.uint32)
    queue = Queue(np.asarray(params, np.float32)[None], seed[None], number + 1)
    queue.take(number)  # the earlier ones
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        block = _Logged(native.load_model(env), env, native.compiled(env, spec, 1.0), queue, 1)
        while block.advance():
            pass
        seen = np.stack(block.states).astype(np.float32)
        qpos, qvel = seen[:, block.qpos], seen[:, block.qvel]
        actions = np.stack(block.actions)
        physics = Physics(*map(jnp.asarray, (qpos, qvel, actions, np.zeros_like(qpos))))
        observations = np.asarray(jax.vmap(env.observe)(physics))
    returns, discounted, length, terminated, truncated, finite, _ = queue.outcomes
    ended = (jnp.asarray(one[0, number]) for one in (returns, discounted, length, terminated, truncated, finite))
    last = jax.tree.map(lambda leaf: leaf[-1], physics)
    return Trajectory(qpos, qvel, observations, actions, Episode(last, *ended, running=jnp.zeros((), bool)))
