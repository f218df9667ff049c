"""What the backends share: a queue of episodes, and a block of slots that episodes come to and leave."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from epvf_data.envs.base import Env
from epvf_data.physics.episode import Episode, Outcomes, begin
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec

Progress = Callable[[int, int], None]  # (episodes, control steps) finished since the last call


class Queue:
    """The episodes of one rollout, shared by threads; episode k of row r is item r · episodes + k."""

    def __init__(
        self,
        params: Float[np.ndarray, "N P"],
        reset_seed: UInt32[np.ndarray, "N 2"],
        episodes: int,
        progress: Progress | None = None,
        observation_size: int | None = None,
    ):
        self.params = np.ascontiguousarray(params, np.float32)
        self.reset_seed = np.ascontiguousarray(reset_seed, np.uint32)
        self.episodes, self.progress = episodes, progress
        self.outcomes = Outcomes.empty(len(self.params), episodes, observation_size)
        self.items = len(self.params) * episodes
        self.stop = threading.Event()  # set when the threads shall leave early
        self._next = 0
        self._lock = threading.Lock()

    def take(self, wanted: int, sharers: int = 1) -> Int[np.ndarray, "T"]:
        """The next items: at most `wanted`, and at most 1/sharers of what is left."""
        with self._lock:
            count = min(wanted, math.ceil((self.items - self._next) / sharers))
            self._next += count
            return np.arange(self._next - count, self._next)

    def inputs(self, items: Int[np.ndarray, "T"], size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Parameters [size, P], reset seeds [size, 2] and episode numbers [size], padded with the last item."""
        rows, numbers = np.divmod(np.pad(items, (0, size - items.size), mode="edge"), self.episodes)
        # Items come in a row: a full block of single episodes needs no copy, which an accelerator would wait for.
        chosen = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] == size - 1 else rows
        return self.params[chosen], self.reset_seed[chosen], numbers.astype(np.int32)

    def finish(self, items: Int[np.ndarray, "D"], episode: Episode, slots: Int[np.ndarray, "D"]) -> None:
        """Writes how the episodes in `slots` ended, and reports them."""
        rows, numbers = np.divmod(items, self.episodes)
        fields = (
            episode.returns,
            episode.discounted,
            episode.length,
            episode.terminated,
            episode.truncated,
            episode.finite,
            episode.sample and episode.sample.observation,
        )
        for target, field in zip(self.outcomes, fields, strict=True):
            if target is not None:
                target[rows, numbers] = np.asarray(field)[slots]
        if self.progress is not None:
            with self._lock:
                self.progress(len(items), int(np.asarray(episode.length)[slots].sum()))


def blank(env: Env, spec: PolicySpec, slots: int, sample: bool = False) -> tuple[mlp.Tensors, Episode]:
    """A block in which no episode runs."""
    tensors = {name: jnp.zeros((slots, *slot.shape)) for name, slot in spec.tensors.items()}
    keys = jax.random.split(jax.random.key(0), slots)
    episode = jax.vmap(lambda key: begin(env, key, sample, spec.sampled))(keys)
    return tensors, episode._replace(running=jnp.zeros(slots, bool))


def start(
    env: Env, spec: PolicySpec, seed: UInt32[Array, "2"], number: Int[Array, ""], sample: bool = False
) -> Episode:
    """A fresh episode `number` of a row whose policy is of `spec`."""
    return begin(env, start_key(seed, number), sample, spec.sampled)


def start_key(seed: UInt32[Array, "2"], number: Int[Array, ""]) -> PRNGKeyArray:
    """The key of episode `number` of a row: `fold_in` of the row's raw key data."""
    return jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), number)


def put(block: Array, slots: Int[Array, "F"], values: Array) -> Array:
    """`block` with `values` in `slots`; slot numbers beyond the block are dropped."""
    return block.at[slots].set(values, mode="drop")
