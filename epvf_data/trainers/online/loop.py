"""Where iterations run: all in one compiled loop on an XLA device, or around MuJoCo C on the processor.

Both advance by a chunk of `log_every` iterations, the last one by what is left of `iterations`, and evaluate θ at its
end. Where chunks end depends on the settings alone, so a run that was resumed at a chunk's end computes the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from epvf_data.envs import Env
from epvf_data.physics.episode import Outcomes
from epvf_data.physics.mjx import episode_fn
from epvf_data.physics.slots import start_key
from epvf_data.policies import mlp
from epvf_data.policies.spec import PolicySpec
from epvf_data.rollout import rollout
from epvf_data.trainers.online.iteration import make_iteration, seeds_of
from epvf_data.trainers.online.settings import OnlineConfig
from epvf_data.trainers.online.state import Proposal, Result, State
from epvf_data.trainers.online.top import Top, top_of, top_over

EVALUATION_KEY = (0, 7_421)  # raw key of the start states in which θ is judged: the same ones in every run


class Rollouts(NamedTuple):
    """An iteration's rollouts on the host, for whoever records them; of the A seeds that took part."""

    iteration: int
    seeds: Int[np.ndarray, "A"]  # their positions
    proposal: Proposal  # leading axes A, M
    outcomes: Outcomes  # [A · M, E]


class Chunk(NamedTuple):
    """What a chunk of iterations gave. S seeds."""

    state: State
    metrics: dict[str, Float[np.ndarray, "S"]]  # means over the chunk's iterations; return_max is the maximum
    steps: Int[np.ndarray, "S"]  # control steps of the perturbed policies
    unperturbed: Float[np.ndarray, "S C"]  # returns of the unperturbed θ at the end of the chunk
    candidates: Float[np.ndarray, "S C P"]
    seconds: dict[str, float]
    rollouts: list[Rollouts]
    active: Bool[np.ndarray, "S"]  # seeds that took part; of the others only state, candidates and unperturbed count
    top: Top  # the best perturbed policy


class Loop(NamedTuple):
    """`init() → state`; `advance(state, active [S], keep) → chunk`, with the rollouts in it where `keep`.

    Seeds that are not active stay as they are.
    """

    init: Callable[[], State]
    advance: Callable[[State, Bool[np.ndarray, "S"], bool], Chunk]


def evaluation_seeds(count: int) -> np.ndarray:
    """Raw keys of the resets in which θ is judged."""
    return np.tile(np.array(EVALUATION_KEY, np.uint32), (count, 1))


def make_loop(config: OnlineConfig, env: Env, spec: PolicySpec, backend: str) -> Loop:
    """The loop of a run on this backend."""
    return (native_loop if backend == "native" else xla_loop)(config, env, spec)


def episodes_of(config: OnlineConfig, env: Env) -> int:
    """Episodes in which θ is judged."""
    random = env.random_start or config.policy.gaussian == "sampled"
    return config.evaluation_episodes or (8 if random else 1)


def native_loop(config: OnlineConfig, env: Env, spec: PolicySpec) -> Loop:
    """Physics leaves the jit, nothing else does."""
    run = make_iteration(config, env, spec)
    choose, candidates = jax.jit(run.propose), jax.jit(run.candidates)
    fit, improve = jax.jit(run.fit), jax.jit(run.improve)  # not donated: Ctrl-C in a chunk saves the state before it
    seeds, count = config.seeds, config.envs

    def roll(params: np.ndarray, reset: np.ndarray, episodes: int, sample: bool) -> Outcomes:
        flat = np.ascontiguousarray(params).reshape(-1, spec.size)
        return rollout(
            env, spec, flat, reset_seed=reset.reshape(-1, 2), episodes=episodes, backend="native", sample=sample
        )

    def one(state: State, active: np.ndarray, seconds: dict[str, float]) -> tuple[State, Any, Rollouts]:
        number = iteration_of(state)
        proposal = timed(seconds, "propose", lambda: choose(state))
        host = jax.tree.map(lambda leaf: np.asarray(leaf)[_chosen(active)], proposal)
        outcomes = timed(seconds, "rollout", lambda: roll(host.params, host.seeds, config.episodes, run.observations))
        result = jax.tree.map(lambda leaf: _spread(leaf, active), to_result(outcomes, active.sum(), count))
        state, first = timed(seconds, "critic", lambda: fit(state, proposal, result, active))
        state, second = timed(seconds, "policy", lambda: improve(state, proposal, result, active))
        metrics = {name: np.asarray(value) for name, value in (first | second).items()}
        top = jax.device_get(top_of(proposal.params, result.returns, result.finite, active))
        kept = Rollouts(number, np.flatnonzero(active), host, outcomes)
        return state, (metrics, result.lengths.sum(axis=1), top), kept

    def advance(state: State, active: np.ndarray, keep: bool) -> Chunk:
        seconds: dict[str, float] = {}
        found, steps, kept, tops = [], np.zeros(seeds, np.int64), [], []
        for _ in range(_length(config, state)):
            state, (metrics, taken, top), rollouts = one(state, active, seconds)
            found.append(metrics)
            tops.append(top)
            steps += np.asarray(taken, np.int64)
            if keep:
                kept.append(rollouts)
        judged = np.asarray(candidates(state))
        reset = evaluation_seeds(seeds * judged.shape[1])
        outcomes = timed(seconds, "evaluation", lambda: roll(judged, reset, episodes_of(config, env), False))
        unperturbed = outcomes.returns.mean(axis=1).reshape(seeds, -1)
        joined = {name: np.stack([metrics[name] for metrics in found]) for name in found[0]}
        top = top_over(jax.tree.map(lambda *each: np.stack(each), *tops))
        return Chunk(state, average(joined), steps, unperturbed, judged, seconds, kept, active, top)

    return Loop(lambda: jax.jit(run.init)(seeds_of(config)), advance)


def xla_loop(config: OnlineConfig, env: Env, spec: PolicySpec) -> Loop:
    """Rollouts, critic and policy of a whole chunk in one compiled function, which takes the state over.

    Seeds that are not active are rolled out like the others, and the outcomes dropped.
    """
    run = make_iteration(config, env, spec)
    seeds, count = config.seeds, config.envs

    def roll(params, reset, episodes: int, sample: bool):
        """Episodes [rows, E] of the policies [rows, P]."""
        episode = episode_fn(env, spec, 1.0, sample)
        tensors = jax.vmap(partial(mlp.unflatten, spec))(jnp.repeat(params, episodes, axis=0))
        numbers = jnp.tile(jnp.arange(episodes), len(params))
        keys = jax.vmap(start_key)(jnp.repeat(reset, episodes, axis=0), numbers)
        ended = jax.vmap(episode)(tensors, keys)
        shape = lambda leaf: leaf.reshape(-1, episodes, *leaf.shape[1:])  # noqa: E731
        return Outcomes(
            returns=shape(ended.returns),
            discounted=shape(ended.discounted),
            lengths=shape(ended.length),
            terminated=shape(ended.terminated),
            truncated=shape(ended.truncated),
            finite=shape(ended.finite),
            observations=shape(ended.sample.observation) if ended.sample else None,
        )

    def iteration(keep: bool, active: jax.Array, state: State, _: None):
        proposal = run.propose(state)
        outcomes = roll(
            proposal.params.reshape(-1, spec.size), proposal.seeds.reshape(-1, 2), config.episodes, run.observations
        )
        result = to_result(outcomes, seeds, count)
        state, first = run.fit(state, proposal, result, active)
        state, second = run.improve(state, proposal, result, active)
        top = top_of(proposal.params, result.returns, result.finite, active)
        return state, (first | second, result.lengths.sum(axis=1) * active, (proposal, outcomes) if keep else None, top)

    @partial(jax.jit, donate_argnums=0, static_argnums=(2, 3))
    def chunk(state: State, active: jax.Array, keep: bool, length: int):
        state, (metrics, steps, kept, tops) = jax.lax.scan(partial(iteration, keep, active), state, length=length)
        judged = run.candidates(state)
        reset = jnp.asarray(evaluation_seeds(seeds * judged.shape[1]))
        outcomes = roll(judged.reshape(-1, spec.size), reset, episodes_of(config, env), False)
        unperturbed = outcomes.returns.mean(axis=1).reshape(seeds, -1)
        return state, metrics, steps, unperturbed, judged, kept, top_over(tops)

    def advance(state: State, active: np.ndarray, keep: bool) -> Chunk:
        seconds: dict[str, float] = {}
        first, length = iteration_of(state), _length(config, state)
        found = timed(seconds, "everything", lambda: chunk(state, active, keep, length))
        state, metrics, steps, unperturbed, judged, kept, top = (
            found[0],
            *jax.tree.map(np.asarray, found[1:]),
        )
        rollouts = [] if kept is None else _taken(kept, first, active, count)
        steps = steps.sum(axis=0, dtype=np.int64)
        return Chunk(state, average(metrics), steps, unperturbed, judged, seconds, rollouts, active, top)

    return Loop(lambda: jax.jit(run.init)(seeds_of(config)), advance)


def to_result(outcomes: Outcomes, seeds: int, count: int) -> Result:
    """The outcomes of S · M policies as each seed's result."""
    split = lambda leaf: leaf.reshape(seeds, count, *leaf.shape[1:])  # noqa: E731
    seen = None if outcomes.observations is None else split(outcomes.observations[:, 0])
    return Result(
        returns=split(outcomes.returns).mean(axis=2),
        finite=split(outcomes.finite).all(axis=2),
        lengths=split(outcomes.lengths).sum(axis=2, dtype=np.int32),
        observations=seen,
    )


def _taken(kept: tuple[Proposal, Outcomes], first: int, active: np.ndarray, count: int) -> list[Rollouts]:
    """The rollouts of a chunk, iteration by iteration from number `first` on, of the seeds that took part."""
    found = []
    for place in range(len(kept[0].theta)):
        proposal, outcomes = jax.tree.map(lambda leaf, at=place: leaf[at], kept)
        proposal = jax.tree.map(lambda leaf: leaf[_chosen(active)], proposal)
        outcomes = jax.tree.map(lambda leaf: leaf[_chosen(np.repeat(active, count))], outcomes)
        found.append(Rollouts(first + place, np.flatnonzero(active), proposal, outcomes))
    return found


def iteration_of(state: State) -> int:
    """Iterations that the run has behind it; seeds that ended earlier have fewer."""
    return int(np.asarray(state.iteration).max())


def _length(config: OnlineConfig, state: State) -> int:
    """Iterations of the next chunk."""
    if config.iterations is None:
        return config.log_every
    return min(config.log_every, config.iterations - iteration_of(state))


def _chosen(active: np.ndarray) -> slice | np.ndarray:
    """Index of the rows that are active: where all are, one that gives a view and no copy."""
    return slice(None) if active.all() else active


def _spread(leaf: np.ndarray, active: np.ndarray) -> np.ndarray:
    """What the active seeds gave, with zeros for the others."""
    if active.all():
        return leaf
    full = np.zeros((len(active), *leaf.shape[1:]), leaf.dtype)
    full[active] = leaf
    return full


def average(metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Over a chunk's iterations, the first axis: the mean, and of return_max the maximum."""
    return {
        name: values.max(axis=0) if name == "return_max" else values.mean(axis=0) for name, values in metrics.items()
    }


def timed(seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    """Does the work, waits until it is done and adds its time to `seconds[name]`."""
    began = time.perf_counter()
    done = jax.block_until_ready(work())
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
    return done
