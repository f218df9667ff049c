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
from epvf_data.physics.loop import World, control_step, make_block, start
from epvf_data.policies import acting
from epvf_data.policies.kinds import Spec


class Trajectory(NamedTuple):
    """One episode: T control steps, T + 1 states."""

    qpos: Float[np.ndarray, "T+1 nq"]
    qvel: Float[np.ndarray, "T+1 nv"]
    observations: Float[np.ndarray, "T+1 O"]
    actions: Float[np.ndarray, "T+1 A"]  # that led to each state: zeros to the first
    episode: Episode  # how it ended


@lru_cache(maxsize=16)
def _functions(env: Env, spec: Spec):
    return (
        jax.jit(partial(start, env, spec)),
        jax.jit(lambda flat, episode: act(env, spec, acting.unflatten(spec, flat), episode)),
        jax.jit(lambda episode, after: account(env, 1.0, episode, after)),
        jax.jit(env.observe),
        jax.jit(env.dynamics or (lambda state, control: (state.qpos, state.qvel))),
    )


def trajectory(
    env: Env,
    spec: Spec,
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


@lru_cache(maxsize=16)
def _logged(env: Env, spec: Spec):
    """(params, seed, number) → the episode and the physics after each control step; frozen once it has ended."""
    stepper = native.stepper(env)
    # A whole block, of which one world runs: the compiler rounds otherwise in smaller ones.
    block, step = make_block(env, spec, stepper, stepper.lanes, 1), jax.vmap(control_step(env, spec, stepper))

    def run(params, seed, number):
        episode = start(env, spec, seed, number)
        fresh = (acting.unflatten(spec, params), World(episode, stepper.start(episode.physics)))
        blank = block()
        tensors, world = jax.tree.map(lambda old, new: old.at[0].set(new), (blank.tensors, blank.world), fresh)

        def on(world: World, _: None) -> tuple[World, Physics]:
            world = step(tensors, world)
            return world, jax.tree.map(lambda leaf: leaf[0], world.episode.physics)

        world, states = jax.lax.scan(on, world, length=env.horizon)
        before = jax.tree.map(lambda leaf: leaf[None], episode.physics)
        states = jax.tree.map(lambda first, rest: jnp.concatenate([first, rest]), before, states)
        observations = jax.vmap(env.observe)(states._replace(moved=jnp.zeros_like(states.qpos)))
        return jax.tree.map(lambda leaf: leaf[0], world.episode), states, observations

    return jax.jit(run)


def replay(
    env: Env,
    spec: Spec,
    params: Float[np.ndarray, "P"],
    reset_seed: UInt32[np.ndarray, "2"] | None = None,
    number: int = 0,
) -> Trajectory:
    """As `trajectory`, but to the bit the episode that the native backend plays, where it can."""
    if env.xml is None or not native.available():
        return trajectory(env, spec, params, reset_seed, number)
    seed = np.zeros(2, np.uint32) if reset_seed is None else np.asarray(reset_seed, np.uint32)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        played = _logged(env, spec)(np.asarray(params, np.float32), seed, np.int32(number))
    episode, states, observations = jax.tree.map(np.asarray, played)
    # A policy that answered NaN ended its episode in a state that it did not leave.
    steps = int(episode.length) + int(episode.terminated and not episode.finite and _moved(states, episode))
    chosen = slice(0, steps + 1)
    return Trajectory(states.qpos[chosen], states.qvel[chosen], observations[chosen], states.action[chosen], episode)


def _moved(states: Physics, episode: Episode) -> bool:
    """Whether the physics went on to a state that is not finite, which the length does not count."""
    end = int(episode.length) + 1
    return end < len(states.qpos) and not np.array_equal(states.qpos[end], states.qpos[end - 1])
