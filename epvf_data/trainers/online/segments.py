"""Worlds that never stop: each steps under its own perturbed policy, starts again when its episode ends, and the
policy can change without the world. A segment is what T control steps of M such worlds gave.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from epvf_data.envs import Env
from epvf_data.physics.loop import Stepper, World, fresh_world, transition
from epvf_data.policies import acting
from epvf_data.policies.kinds import Spec
from epvf_data.trainers.online.state import raw_key, typed_key


class Segment(NamedTuple):
    """T control steps of M worlds."""

    observation: Float[Array, "T M O"]
    action: Float[Array, "T M A"]  # with its noise
    reward: Float[Array, "T M"]
    after: Float[Array, "T M O"]  # what is observed after the step, before any new start
    terminated: Bool[Array, "T M"]
    done: Bool[Array, "T M"]  # the episode ended, by itself or by the horizon
    returns: Float[Array, "T M"]  # of the episode so far


# (parameters [M, P], worlds [M], deviation of the action noise [M], raw keys [M, 2]) → (worlds, segment)
Run = Callable[[Float[Array, "M P"], World, Float[Array, "M"], UInt32[Array, "M 2"]], tuple[World, Segment]]


def begin_worlds(env: Env, stepper: Stepper, key: PRNGKeyArray, count: int) -> World:
    """M worlds at their start, their clocks spread over the horizon: else all would end together again and again.

    The first episode of each is shorter for it.
    """
    starts, ages = jax.random.split(key)
    worlds = jax.vmap(lambda own: fresh_world(env, stepper, own))(jax.random.split(starts, count))
    length = jax.random.randint(ages, (count,), 0, env.horizon, worlds.episode.length.dtype)
    return worlds._replace(episode=worlds.episode._replace(length=length))


def make_segment(env: Env, spec: Spec, stepper: Stepper, steps: int, on_cpu: bool) -> Run:
    """The function that gives a segment of so many steps. On a CPU, worlds go in groups whose weights stay in cache."""
    move = jax.vmap(transition(env, stepper))
    act = jax.vmap(lambda tensors, observation: acting.apply(spec, tensors, observation))

    def restart(worlds: World, over: Bool[Array, "L"], keys: Array) -> World:
        fresh = jax.vmap(lambda key: fresh_world(env, stepper, key))(keys)
        chosen = lambda new, old: jnp.where(over.reshape(-1, *(1,) * (new.ndim - 1)), new, old)  # noqa: E731
        return jax.tree.map(chosen, fresh, worlds)

    def group(inputs: tuple[Array, World, Array, Array]) -> tuple[World, Segment]:
        params, worlds, deviation, keys = inputs
        tensors = jax.vmap(lambda flat: acting.unflatten(spec, flat))(params)

        def step(worlds: World, time: Int[Array, ""]) -> tuple[World, Segment]:
            own = jax.vmap(lambda key: jax.random.fold_in(typed_key(key), time))(keys)
            observation = jax.vmap(env.observe)(worlds.episode.physics)
            noise = jax.vmap(lambda key: jax.random.normal(key, (spec.action_size,)))(own)
            action = jnp.clip(act(tensors, observation) + deviation[:, None] * noise, -1.0, 1.0)
            action = jnp.where(jnp.isfinite(action), action, 0.0)
            after, reward = move(worlds, action)
            over, seen = ~after.episode.running, jax.vmap(env.observe)(after.episode.physics)
            worlds = jax.lax.cond(over.any(), lambda: restart(after, over, own), lambda: after)
            seen = jnp.where(after.episode.finite[:, None], seen, 0.0)
            terminated, returns = after.episode.terminated, after.episode.returns
            return worlds, Segment(observation, action, reward, seen, terminated, over, returns)

        return jax.lax.scan(step, worlds, jnp.arange(steps))

    def run(params: Array, worlds: World, deviation: Array, keys: Array) -> tuple[World, Segment]:
        count = len(params)
        lanes = _divisor(count, stepper.lanes) if on_cpu else count
        split = lambda leaf: leaf.reshape(count // lanes, lanes, *leaf.shape[1:])  # noqa: E731
        inputs = jax.tree.map(split, (params, worlds, deviation, keys))
        worlds, segment = jax.lax.map(group, inputs)
        flat = lambda leaf: leaf.reshape(count, *leaf.shape[2:])  # noqa: E731
        in_time = lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(steps, count, *leaf.shape[3:])  # noqa: E731
        return jax.tree.map(flat, worlds), jax.tree.map(in_time, segment)

    return run


def _divisor(count: int, most: int) -> int:
    """The largest divisor of `count` that is not above `most`."""
    return next(size for size in range(min(count, most), 0, -1) if count % size == 0)


def world_keys(key: PRNGKeyArray, count: int) -> UInt32[Array, "M 2"]:
    """Raw keys, one a world."""
    return raw_key(jax.random.split(key, count))
