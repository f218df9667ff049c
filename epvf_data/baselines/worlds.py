"""A task as brax wants it: many worlds in one batch, each started again when its episode has ended.

Physics, observation, reward and end are those of every other rollout of the task; nothing of it is written again here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from epvf_data.baselines import library
from epvf_data.envs import Env
from epvf_data.physics.loop import World, fresh_world, transition
from epvf_data.physics.play import stepper_of

Ended = Callable[[np.ndarray, np.ndarray], None]  # (whether each world's episode ended, its return)


class Worlds:
    """The environment that brax's training takes without wrappers of its own.

    `state.info["truncation"]` is 1 where the horizon cut an episode that had not ended by itself. There brax's PPO
    goes on from the value of the state before and its SAC leaves the step out; a terminated state is worth nothing.
    `ended` is called on the host whenever episodes have ended.
    """

    def __init__(self, env: Env, ended: Ended | None = None, backend: str = "mjx"):
        self.env, self.ended, self.backend = env, ended, backend
        self.observation_size, self.action_size = env.observation_size, env.action_size
        self._state = library.load("envs.base").State
        stepper = stepper_of(env, backend)
        self._step, self._fresh = transition(env, stepper), partial(fresh_world, env, stepper)

    @property
    def unwrapped(self) -> Worlds:
        return self

    def reset(self, rng: UInt32[Array, "N 2"]) -> Any:
        """All worlds at the start; each has a key of its own, from which its later starts follow."""
        keys, starts = _split(rng)
        worlds = jax.vmap(self._fresh)(starts)
        nothing = jnp.zeros(len(rng))
        return self._pack(worlds, nothing, nothing, nothing, worlds, keys)

    def step(self, state: Any, action: Float[Array, "N A"]) -> Any:
        """One control step of every world; a world whose episode ends with it is at its next start afterwards."""
        after, reward = jax.vmap(self._step)(state.pipeline_state, action)
        over = ~after.episode.running
        if self.ended is not None:
            told, returns = self.ended, after.episode.returns
            jax.lax.cond(over.any(), lambda: jax.debug.callback(told, over, returns), lambda: None)
        keys, starts = _split(state.info["keys"])
        start = jax.vmap(self._fresh)(starts)
        worlds = jax.tree.map(lambda new, old: jnp.where(_beside(over, old), new, old), start, after)
        truncated = after.episode.truncated & ~after.episode.terminated
        return self._pack(worlds, reward, over.astype(jnp.float32), truncated.astype(jnp.float32), after, keys)

    def _pack(self, worlds: World, reward: Array, done: Array, truncation: Array, seen: World, keys: Array) -> Any:
        length = seen.episode.length.astype(jnp.float32)
        info = {
            "steps": length,
            "truncation": truncation,
            "episode_done": done,
            "episode_metrics": {"sum_reward": seen.episode.returns, "length": length},
            "keys": keys,
        }
        observation = jax.vmap(self.env.observe)(worlds.episode.physics)
        return self._state(worlds, observation, reward, done, {}, info)


def _split(keys: UInt32[Array, "N 2"]) -> tuple[Array, Array]:
    """(keys to keep, keys to use)"""
    pairs = jax.vmap(jax.random.split)(keys)
    return pairs[:, 0], pairs[:, 1]


def _beside(mask: Array, leaf: Array) -> Array:
    return mask.reshape(mask.shape + (1,) * (leaf.ndim - 1))
