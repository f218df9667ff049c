"""An iteration is written once: propose, roll out, fit, improve. A chunk of them runs between two log entries.

On an accelerator a whole chunk is one compiled function. On a CPU its parts are compiled apart and the rollouts between
them take all cores: one function would compute the critic on one core, or on each core the same. Both advance by
`log_every` iterations, up to a multiple of it or the last of `iterations`, and evaluate θ at its end. Where chunks end
depends on the settings alone, so a run that was resumed at a chunk's end computes the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from epvf_data.envs import Env
from epvf_data.physics.episode import Outcomes
from epvf_data.physics.loop import Stepper, Work, make_advance, make_block
from epvf_data.physics.play import DEVICE_LANES, stepper_of
from epvf_data.policies.kinds import Spec
from epvf_data.rollout import rollout
from epvf_data.trainers.mesh import Layout, make_layout
from epvf_data.trainers.online.iteration import Iteration, make_iteration, seeds_of
from epvf_data.trainers.online.settings import OnlineConfig
from epvf_data.trainers.online.state import Proposal, Result, State
from epvf_data.trainers.online.top import Top, top_of, top_over

# Functions of an iteration, and the name of each one's time in the log.
PARTS = {"propose": "propose", "fit": "critic", "improve": "policy", "candidates": "evaluation"}
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
    score: Float[np.ndarray, "S C"]  # what the best one is chosen by
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


def episodes_of(config: OnlineConfig, env: Env) -> int:
    """Episodes in which θ is judged."""
    random = env.random_start or config.policy.sampled
    return config.evaluation_episodes or (8 if random else 1)


# (what for, policies [S · n, P], reset seeds [S · n, 2], episodes, whether to keep observations, active [S]) → outcomes
Roll = Callable[[str, Any, Any, int, bool, Any], Outcomes]
# (an iteration: state → (state, what it found), state, length) → (state, what was found, stacked)
Repeat = Callable[[Callable[[State], tuple[State, Any]], State, int], tuple[State, Any]]


def make_loop(config: OnlineConfig, env: Env, spec: Spec, backend: str) -> Loop:
    """The loop of a run on this backend. Raises BackendError where the backend cannot run the environment."""
    run, seeds, count = make_iteration(config, env, spec), config.seeds, config.envs
    layout = make_layout(seeds, [config.batch_size], config.devices)

    def chunk(run: Iteration, roll: Roll, repeat: Repeat, state: State, active: Any, keep: bool, length: int):
        def iteration(state: State) -> tuple[State, Any]:
            proposal = run.propose(state)
            flat = proposal.params.reshape(-1, spec.size), proposal.seeds.reshape(-1, 2)
            outcomes = roll("rollout", *flat, config.episodes, run.observations, active)
            result = to_result(outcomes, seeds, count)
            state, first = run.fit(state, proposal, result, active)
            state, second = run.improve(state, proposal, result, active)
            state = layout.members(state)
            top = top_of(proposal.params, result.returns, result.finite, active)
            return state, (first | second, result.lengths.sum(axis=1), top, (proposal, outcomes) if keep else None)

        state, found = repeat(iteration, state, length)
        judged = run.candidates(state)
        reset = evaluation_seeds(seeds * judged.shape[1])
        flat = judged.reshape(-1, spec.size), reset
        outcomes = roll("evaluation", *flat, episodes_of(config, env), False, np.ones(seeds, bool))
        return state, found, outcomes.returns.mean(axis=1).reshape(seeds, -1), judged

    def advance(state: State, active: np.ndarray, keep: bool) -> Chunk:
        seconds: dict[str, float] = {}
        first, length = iteration_of(state), length_of(config, state)
        state = layout.members(state)
        if on_host:
            parts = {name: partial(timed, seconds, PARTS[name], function) for name, function in compiled.items()}
            roll = partial(_host_roll, env, spec, backend, seconds, config.devices)
            done = chunk(run._replace(**parts), roll, _looped, state, active, keep, length)
        else:
            done = timed(seconds, "everything", whole, state, active, keep, length)
        state, (metrics, steps, tops, kept), unperturbed, judged = done[0], *jax.tree.map(np.asarray, done[1:])
        rollouts = [] if kept is None else _taken(kept, first, active, count)
        steps = steps.sum(axis=0, dtype=np.int64) * active
        top = top_over(tops)
        return Chunk(state, average(metrics), steps, unperturbed, judged, unperturbed, seconds, rollouts, active, top)

    on_host = backend == "native" or jax.default_backend() == "cpu"
    # Not donated: Ctrl-C in a chunk saves the state before it. The one compiled function takes the state over.
    compiled = {name: jax.jit(getattr(run, name)) for name in PARTS}
    stepper = stepper_of(env, backend)
    roll = partial(_compiled_roll, env, spec, stepper, layout)
    whole = jax.jit(partial(chunk, run, roll, _scanned), donate_argnums=0, static_argnums=(2, 3))
    return Loop(lambda: jax.jit(run.init)(seeds_of(config)), advance)


def _scanned(iteration: Callable[[State], tuple[State, Any]], state: State, length: int) -> tuple[State, Any]:
    return jax.lax.scan(lambda state, _: iteration(state), state, length=length)


def _looped(iteration: Callable[[State], tuple[State, Any]], state: State, length: int) -> tuple[State, Any]:
    found = []
    for _ in range(length):
        state, one = iteration(state)
        found.append(one)
    return state, jax.tree.map(lambda *leaves: np.stack(leaves), *found)


def _host_roll(
    env: Env,
    spec: Spec,
    backend: str,
    seconds: dict[str, float],
    devices: int | None,
    what: str,
    params: Float[Array, "N P"],
    reset: UInt32[Array, "N 2"],
    episodes: int,
    sample: bool,
    active: Bool[np.ndarray, "S"],
) -> Outcomes:
    """Through the door that everybody takes, on all cores; of the policies of seeds that are active."""
    chosen = _chosen(np.repeat(active, len(params) // len(active)))

    def run() -> Outcomes:
        params_, reset_ = np.asarray(params)[chosen], np.asarray(reset)[chosen]
        options: Any = {"episodes": episodes, "backend": backend, "sample": sample, "devices": devices}
        return rollout(env, spec, params_, reset_seed=reset_, **options)

    outcomes = timed(seconds, what, run)
    return jax.tree.map(lambda leaf: _spread(leaf, chosen, len(params)), outcomes)


def _compiled_roll(
    env: Env,
    spec: Spec,
    stepper: Stepper,
    layout: Layout,
    what: str,
    params: Float[Array, "N P"],
    reset: UInt32[Array, "N 2"],
    episodes: int,
    sample: bool,
    active: Bool[Array, "S"],
) -> Outcomes:
    """Inside a compiled function; those of seeds that are not active are rolled out like the others."""

    def play(params: Float[Array, "n P"], reset: UInt32[Array, "n 2"]) -> Outcomes:
        rows = len(params) * episodes
        numbers = jnp.tile(jnp.arange(episodes, dtype=jnp.int32), len(params))
        work = Work(jnp.repeat(params, episodes, 0), jnp.repeat(reset, episodes, 0), numbers, jnp.int32(rows))
        block = make_block(env, spec, stepper, min(rows, DEVICE_LANES) + stepper.spare, rows, sample)
        ended = make_advance(env, spec, stepper, 1.0, sample)(block(), work, jnp.int32(2**31 - 1)).ended
        return Outcomes(*jax.tree.map(lambda leaf: leaf.reshape(-1, episodes, *leaf.shape[1:]), ended))

    return layout.each(play, params, jnp.asarray(reset))


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


def length_of(config: OnlineConfig, state: State) -> int:
    """Iterations of the next chunk."""
    done = iteration_of(state)
    length = config.log_every - done % config.log_every  # a run that a larger budget carries on logs where others do
    return length if config.iterations is None else min(length, config.iterations - done)


def _chosen(active: np.ndarray) -> slice | np.ndarray:
    """Index of the rows that are active: where all are, one that gives a view and no copy."""
    return slice(None) if active.all() else active


def _spread(leaf: np.ndarray, chosen: slice | np.ndarray, count: int) -> np.ndarray:
    """What the chosen rows gave, with zeros for the others."""
    if isinstance(chosen, slice):
        return leaf
    full = np.zeros((count, *leaf.shape[1:]), leaf.dtype)
    full[chosen] = leaf
    return full


def average(metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Over a chunk's iterations, the first axis: the mean, and of return_max the maximum."""
    return {
        name: values.max(axis=0) if name == "return_max" else values.mean(axis=0) for name, values in metrics.items()
    }


def timed(seconds: dict[str, float], name: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """Does the work, waits until it is done and adds its time to `seconds[name]`."""
    began = time.perf_counter()
    done = jax.block_until_ready(work(*arguments))
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
    return done
