"""The one loop in which every episode runs: policy, observation, physics, reward and bookkeeping, compiled together.

A block of worlds steps side by side. A world whose episode has ended hands in its result and takes the next episode of
the queue, so one compiled shape serves any number of policies, and short episodes cost little. How a world is stepped
is the backend's: MJX (or an environment's own dynamics) or MuJoCo C, each one `Stepper`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from epvf_data.envs.base import Env, Physics
from epvf_data.physics.episode import Episode, Outcomes, account, act, begin
from epvf_data.policies import acting
from epvf_data.policies.kinds import Spec

SEGMENT = 25  # control steps between two looks at what has finished

# (state, physics, action, control, running) → (state, physics) after a control step under `control`, which stands for
# the action. A world that does not run keeps its state; its physics is not looked at.
Move = Callable[[Any, Physics, Array, Array, Bool[Array, ""]], tuple[Any, Physics]]


class Stepper(NamedTuple):
    """How a backend steps one world by one control step."""

    start: Callable[[Physics], Any]  # the state of a world that begins there
    move: Move
    lanes: int  # worlds that are stepped together on a CPU
    spare: int = 0  # of them, the last ones that stay empty
    options: Mapping[str, str | bool] | None = None  # of the compiler on a CPU
    single: bool = False  # whether only one thread may step at a time


class World(NamedTuple):
    """All that one world carries from step to step."""

    episode: Episode
    state: Any  # of the physics, as the stepper has it


class Work(NamedTuple):
    """Episodes that wait: R places, of which the first `count` are taken."""

    params: Float[Array, "R P"]
    seeds: UInt32[Array, "R 2"]  # raw key data of the row's start states
    numbers: Int[Array, "R"]  # which of the row's episodes
    count: Int[Array, ""]


class Block(NamedTuple):
    """L worlds at work, and what has ended so far."""

    tensors: acting.Tensors
    world: World
    item: Int[Array, "L"]  # place of its episode in the work; R: none
    taken: Int[Array, ""]
    ended: Outcomes  # [R]


def ended_of(episode: Episode) -> Outcomes:
    """What is kept of an episode."""
    seen = None if episode.sample is None else episode.sample.observation
    flags = episode.terminated, episode.truncated, episode.finite
    return Outcomes(episode.returns, episode.discounted, episode.length, *flags, seen)  # pyright: ignore


def start_key(seed: UInt32[Array, "2"], number: Int[Array, ""]) -> PRNGKeyArray:
    """The key of episode `number` of a row: `fold_in` of the row's raw key data."""
    return jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), number)


def start(env: Env, spec: Spec, seed: UInt32[Array, "2"], number: Int[Array, ""], sample: bool = False) -> Episode:
    """A fresh episode `number` of a row whose policy is of `spec`."""
    return begin(env, start_key(seed, number), sample, spec.sampled)


def control_step(
    env: Env, spec: Spec, stepper: Stepper, discount: float = 1.0
) -> Callable[[acting.Tensors, World], World]:
    """One control step of one world; a world whose episode has ended stays as it is."""

    def step(tensors: acting.Tensors, world: World) -> World:
        # TF32 would change returns, and MuJoCo's own code promotes ranks.
        with jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("allow"):
            episode, action, control = act(env, spec, tensors, world.episode)
            state, after = stepper.move(world.state, episode.physics, action, control, episode.running)
            stepped = account(env, discount, episode, after)
        keep = lambda new, old: jnp.where(world.episode.running, new, old)  # noqa: E731
        return World(jax.tree.map(keep, stepped, world.episode), state)

    return step


def transition(env: Env, stepper: Stepper) -> Callable[[World, Float[Array, "A"]], tuple[World, Float[Array, ""]]]:
    """(world, action) → (the world one control step later, the reward of that step), for one world.

    For those who learn from single steps. What ended an episode stands in the world; it starts again by `fresh_world`.
    """

    def step(world: World, action: Float[Array, "A"]) -> tuple[World, Float[Array, ""]]:
        # As in every rollout: TF32 would change returns, and MuJoCo's own code promotes ranks.
        with jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("allow"):
            before = world.episode
            state, after = stepper.move(world.state, before.physics, action, env.control(action), before.running)
            episode = account(env, 1.0, before, after)
            # The difference of two long sums would lose digits: the step alone, in an episode that starts at zero.
            alone = account(env, 1.0, before._replace(returns=jnp.zeros_like(before.returns)), after)
        return World(episode, state), alone.returns

    return step


def fresh_world(env: Env, stepper: Stepper, key: PRNGKeyArray | UInt32[Array, "2"]) -> World:
    """A world at the start of an episode."""
    episode = begin(env, key)
    return World(episode, stepper.start(episode.physics))


def make_block(
    env: Env, spec: Spec, stepper: Stepper, lanes: int, places: int, sample: bool = False
) -> Callable[[], Block]:
    """() → a block in which no episode runs, and that has room for `places` results."""

    def block() -> Block:
        tensors = {name: jnp.zeros((lanes, *slot.shape)) for name, slot in spec.tensors.items()}
        keys = jax.random.split(jax.random.key(0), lanes)
        episode = jax.vmap(lambda key: begin(env, key, sample, spec.sampled))(keys)
        world = World(episode._replace(running=jnp.zeros(lanes, bool)), jax.vmap(stepper.start)(episode.physics))
        ended = jax.tree.map(lambda leaf: jnp.zeros((places, *leaf.shape[1:]), leaf.dtype), ended_of(episode))
        return Block(tensors, world, jnp.full(lanes, places), jnp.zeros((), jnp.int32), ended)

    return block


def make_advance(
    env: Env, spec: Spec, stepper: Stepper, discount: float = 1.0, sample: bool = False
) -> Callable[[Block, Work, Int[Array, ""]], Block]:
    """(block, work, most segments) → the block after so many segments, or with all of the work done."""
    step = jax.vmap(control_step(env, spec, stepper, discount))
    length = segment_length(env)

    def exchange(block: Block, work: Work) -> Block:
        """Worlds that have ended hand in their results; idle ones take the next episodes."""
        places, lanes = len(work.numbers), len(block.item)
        done = ~block.world.episode.running  # of an idle world, whose item is beyond the places: dropped
        at = jnp.where(done, block.item, places)
        put = lambda kept, new: kept.at[at].set(new, mode="drop")  # noqa: E731
        ended = jax.tree.map(put, block.ended, ended_of(block.world.episode))
        able = done & (jnp.arange(lanes) < lanes - stepper.spare)
        wanted = block.taken + jnp.cumsum(able) - 1
        takes = able & (wanted < work.count)
        item = jnp.where(takes, wanted, jnp.where(done, places, block.item))
        row = jnp.where(takes, wanted, 0)
        tensors = jax.vmap(partial(acting.unflatten, spec))(work.params[row])
        episode = jax.vmap(partial(start, env, spec, sample=sample))(work.seeds[row], work.numbers[row])
        fresh = World(episode, jax.vmap(stepper.start)(episode.physics))
        chosen = lambda new, old: jnp.where(takes.reshape(-1, *(1,) * (new.ndim - 1)), new, old)  # noqa: E731
        tensors, world = jax.tree.map(chosen, (tensors, fresh), (block.tensors, block.world))
        return Block(tensors, world, item, block.taken + takes.sum(), ended)

    def segment(block: Block) -> Block:
        """`length` control steps, or until no world runs."""
        going = lambda carry: (carry[0] < length) & carry[1].episode.running.any()  # noqa: E731
        on = lambda carry: (carry[0] + 1, step(block.tensors, carry[1]))  # noqa: E731
        return block._replace(world=jax.lax.while_loop(going, on, (0, block.world))[1])

    def advance(block: Block, work: Work, most: Int[Array, ""]) -> Block:
        places = len(work.numbers)

        def busy(carry: tuple[Array, Block]) -> Array:
            return (carry[0] < most) & ~finished(carry[1], work)

        def on(carry: tuple[Array, Block]) -> tuple[Array, Block]:
            block = carry[1]
            idle = ~block.world.episode.running
            due = (idle & (block.item < places)).any() | (idle.any() & (block.taken < work.count))
            block = jax.lax.cond(due, lambda: exchange(block, work), lambda: block)
            return carry[0] + 1, segment(block)

        return jax.lax.while_loop(busy, on, (jnp.zeros((), jnp.int32), block))[1]

    return advance


def finished(block: Block, work: Work) -> Bool[Array, ""]:
    """Whether every episode of the work has ended and handed in its result."""
    return (block.taken >= work.count) & (block.item >= len(work.numbers)).all()


def segment_length(env: Env) -> int:
    """About `SEGMENT` control steps, such that whole segments fill the horizon with little left over."""
    pieces = -(-env.horizon // SEGMENT)
    return -(-env.horizon // pieces)
