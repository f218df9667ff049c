"""The buffer: how each θ was made, not θ itself. A row is its iteration's base, noise key and sign, and its return.

100 iterations of 4,096 policies of 6,920 parameters take 3 MB in place of 11 GB; a sampled row is drawn again.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from epvf_data.trainers.online.exploration import member, regenerate
from epvf_data.trainers.online.settings import OnlineConfig

FLOYD = 256  # batches up to this size are drawn one by one, larger ones by a permutation of the buffer


class Buffer(NamedTuple):
    """The last I iterations of M rows each; iteration i lies in place i mod I."""

    base: Float[Array, "I P"]
    key: UInt32[Array, "I 2"]
    returns: Float[Array, "I M"]
    filled: Int[Array, ""]  # iterations


def make_buffer(config: OnlineConfig, size: int) -> Buffer | None:
    """An empty buffer for policies of `size` parameters; None where the critic sees fresh rows only."""
    if config.capacity == config.envs:
        return None
    places = config.capacity // config.envs
    if config.iterations is not None:  # more iterations later: `lengthened`
        places = min(places, config.iterations)
    return Buffer(
        jnp.zeros((places, size)),
        jnp.zeros((places, 2), jnp.uint32),
        jnp.zeros((places, config.envs)),
        jnp.zeros((), jnp.int32),
    )


def lengthened(buffer: Buffer, places: int) -> Buffer:
    """A buffer on the host with room for so many iterations: one that was made for a smaller budget has not come round
    yet, so that what is in it stays where it is. All leaves have the seeds as their first axis."""
    more = [(0, 0), (0, places - buffer.base.shape[1])]
    grow = lambda leaf: np.pad(leaf, [*more, *[(0, 0)] * (leaf.ndim - 2)])  # noqa: E731
    return buffer._replace(base=grow(buffer.base), key=grow(buffer.key), returns=grow(buffer.returns))


def push(
    buffer: Buffer, iteration: Int[Array, ""], base: Float[Array, "P"], key: UInt32[Array, "2"], returns: Array
) -> Buffer:
    """The buffer with one more iteration, in place of the oldest."""
    place = iteration % len(buffer.base)
    return Buffer(
        buffer.base.at[place].set(base),
        buffer.key.at[place].set(key),
        buffer.returns.at[place].set(returns),
        jnp.minimum(buffer.filled + 1, len(buffer.base)),
    )


def distinct(key: PRNGKeyArray, count: int, size: int, filled: Int[Array, ""]) -> Int[Array, "B"]:
    """`count` different numbers below `filled` ≤ `size`, every subset equally likely; −1 pads when `filled` is less.

    Which ones does not depend on `size`: a run that a larger budget gives more room goes on as if it had always had it.
    """
    if count > FLOYD:
        bits = jax.random.bits(key, (size,), jnp.uint32)  # the i-th ones are the same for every size
        last = jnp.asarray(jnp.iinfo(jnp.uint32).max, jnp.uint32)
        order = jnp.argsort(jnp.where(jnp.arange(size) < filled, bits, last), stable=True)[:count]
        return jnp.where(jnp.arange(count) < filled, order, -1)

    def draw(step: Array, chosen: Array) -> Array:
        # Robert Floyd's algorithm (Bentley 1987): j runs over the last `count` numbers below `filled`.
        j = filled - count + step
        pick = jax.random.randint(jax.random.fold_in(key, step), (), 0, jnp.maximum(j + 1, 1))
        pick = jnp.where((chosen == pick).any(), j, pick)
        return chosen.at[step].set(jnp.where(j >= 0, pick, -1))

    chosen = jax.lax.fori_loop(0, count, draw, jnp.full(count, -1))
    # Fewer rows than the batch: all of them, once.
    return jnp.where(filled >= count, chosen, jnp.where(jnp.arange(count) < filled, jnp.arange(count), -1))


def sample(
    config: OnlineConfig, buffer: Buffer, key: PRNGKeyArray
) -> tuple[Float[Array, "B P"], Int[Array, "B"], Float[Array, "B"]]:
    """B rows without replacement: θ, their numbers in the flattened `returns`, and weights (0: padding)."""
    places, count = buffer.returns.shape
    rows = distinct(key, config.batch_size, places * count, buffer.filled * count)
    place, row = jnp.divmod(jnp.maximum(rows, 0), count)

    keys, sign = jax.vmap(partial(member, config))(buffer.key[place], row)
    theta = regenerate(config, buffer.base[place], keys, sign)
    return theta, jnp.maximum(rows, 0), (rows >= 0).astype(jnp.float32)
