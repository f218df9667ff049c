"""What critics that use time learn from: n-step rows in a ring, and the policies that made them, as keys.

A policy is never stored: its iteration's θ and normaliser, its noise key and the scale of its noise give it again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from epvf_data.envs import Env
from epvf_data.policies.kinds import Spec
from epvf_data.trainers.online.exploration import member, spread
from epvf_data.trainers.online.settings import OnlineConfig
from epvf_data.trainers.online.state import Normaliser, fold, make_normaliser


class Rows(NamedTuple):
    """Rows of the replay: n control steps of a policy each."""

    observation: Float[Array, "N O"]
    action: Float[Array, "N A"]
    reward: Float[Array, "N"]  # discounted sum over the steps
    discount: Float[Array, "N"]  # of what comes after them; 0 where the episode terminated
    after: Float[Array, "N O"]  # observation after the steps
    next_action: Float[Array, "N A"]  # what the row's own policy does there
    policy: Int[Array, "N"]  # the policy's number


class Policies(NamedTuple):
    """The policies of the last I iterations; number i · M + m is the m-th of the iteration in place i."""

    base: Float[Array, "I P"]  # θ
    normaliser: Normaliser | None  # leading axis I
    key: UInt32[Array, "I 2"]  # of the iteration
    scale: Float[Array, "I M"]  # of the perturbation law
    z: Float[Array, "I M Z"]


def n_step(
    reward: Float[Array, "T"], terminated: Bool[Array, "T"], done: Bool[Array, "T"], steps: int, discount: float
) -> tuple[Float[Array, "T"], Float[Array, "T"], Int[Array, "T"]]:
    """Of one world's segment, for each control step: Σ γᵏ r over up to `steps` rewards, the discount of what follows
    them, and the step at which they end.

    Sums end at an episode's end and at the segment's. After a termination nothing follows; after a time-out and at the
    segment's end the value of the state there does.
    """
    length, start = len(reward), jnp.arange(len(reward))

    def add(k: Array, carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        total, factor, last, going = carry
        at = jnp.minimum(start + k, length - 1)
        going = going & (start + k < length)
        total = total + jnp.where(going, factor * reward[at], 0.0)
        factor = jnp.where(going, jnp.where(terminated[at], 0.0, factor * discount), factor)
        return total, factor, jnp.where(going, at, last), going & ~done[at]

    first = jnp.zeros(length), jnp.ones(length), start, jnp.ones(length, bool)
    total, factor, last, _ = jax.lax.fori_loop(0, steps, add, first)
    return total, factor, last


def blocks(config: OnlineConfig) -> int:
    """Iterations whose rows the replay holds."""
    return config.capacity // (config.envs * config.time.segment)


def make_replay(config: OnlineConfig, env: Env) -> Rows:
    """An empty replay: whole iterations, as many as fit into the capacity."""
    size = blocks(config) * config.envs * config.time.segment
    seen, acts, one = (size, env.observation_size), (size, env.action_size), (size,)
    shapes = Rows(seen, acts, one, one, seen, acts, one)  # pyright: ignore[reportArgumentType]
    rows = Rows(*(jnp.zeros(shape) for shape in shapes))
    return rows._replace(policy=jnp.zeros(size, jnp.int32))


def push(replay: Rows, rows: Rows, iteration: Int[Array, ""]) -> Rows:
    """The replay with an iteration's rows, in place of the oldest."""
    size = len(rows.reward)
    place = iteration % (len(replay.reward) // size) * size
    return jax.tree.map(lambda kept, new: jax.lax.dynamic_update_slice_in_dim(kept, new, place, 0), replay, rows)


def draw(replay: Any, key: PRNGKeyArray, filled: Int[Array, ""], count: int) -> Any:
    """`count` of the first `filled` rows, uniformly with replacement; of all columns, or of one."""
    index = jax.random.randint(key, (count,), 0, filled)
    return jax.tree.map(lambda leaf: leaf[index], replay)


def make_policies(config: OnlineConfig, spec: Spec, size: int) -> Policies:
    """Room for the policies of all rows of the replay; `size` numbers in z."""
    places, count = blocks(config) + config.time.hold, config.envs  # a row's policy may be older than the row
    normaliser = make_normaliser(spec.observation_size) if config.normalise_observations else None
    return Policies(
        jnp.zeros((places, spec.size)),
        jax.tree.map(lambda leaf: jnp.zeros((places, *leaf.shape)), normaliser),
        jnp.zeros((places, 2), jnp.uint32),
        jnp.zeros((places, count)),
        jnp.zeros((places, count, size)),
    )


def policy(config: OnlineConfig, policies: Policies, number: Int[Array, ""]) -> tuple[Array, Normaliser | None]:
    """θ of a stored policy before the normaliser is folded in, and its normaliser."""
    place, row = jnp.divmod(number, config.envs)
    data, sign = member(config, policies.key[place], row)
    theta = spread(config, policies.base[place], data, sign, policies.scale[place, row])
    return theta, jax.tree.map(lambda leaf: leaf[place], policies.normaliser)


def folded(config: OnlineConfig, spec: Spec, policies: Policies, number: Int[Array, ""]) -> Float[Array, "P"]:
    """The parameters of a stored policy as they were rolled out."""
    theta, normaliser = policy(config, policies, number)
    return fold(spec, normaliser, theta)
