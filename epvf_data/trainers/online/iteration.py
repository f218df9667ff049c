"""One iteration as pure functions over several seeds: propose, (roll out,) fit, improve."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from epvf_data.envs import Env
from epvf_data.policies import acting
from epvf_data.policies.kinds import Spec
from epvf_data.policies.perturb import clip_weights
from epvf_data.streams import stream
from epvf_data.trainers.online.algorithms import improver_of, make_algorithm
from epvf_data.trainers.online.exploration import propose
from epvf_data.trainers.online.settings import OnlineConfig
from epvf_data.trainers.online.state import (
    Metrics,
    Proposal,
    Result,
    State,
    deviation,
    fold,
    make_normaliser,
    observe,
    raw_key,
)

JUDGED = 16  # of several θ, at most so many are evaluated


class Iteration(NamedTuple):
    """All functions take and give seeds along the first axis S.

    `init(seeds [S]) → state`; `propose(state) → proposal`; `fit(state, proposal, result, active [S])` and
    `improve(...)` → (state, metrics [S]), where seeds that are not active stay as they are; `candidates(state)
    → [S, T', P]`, the unperturbed θ to evaluate, normaliser folded in.
    """

    init: Callable[[Int[Array, "S"]], State]
    propose: Callable[[State], Proposal]
    fit: Callable[[State, Proposal, Result, Bool[Array, "S"]], tuple[State, Metrics]]
    improve: Callable[[State, Proposal, Result, Bool[Array, "S"]], tuple[State, Metrics]]
    candidates: Callable[[State], Float[Array, "S C P"]]
    observations: bool  # whether results must hold observations


def make_iteration(config: OnlineConfig, env: Env, spec: Spec) -> Iteration:
    """The functions of a run; not compiled yet."""
    algorithm = make_algorithm(config, env, spec)

    def init(seed: Int[Array, ""]) -> State:
        return initial(config, spec, algorithm.init(stream(seed, "critic")), seed)

    def fit(state: State, proposal: Proposal, result: Result) -> tuple[State, Metrics]:
        if state.normaliser is not None and result.observations is not None:
            seen = (result.observations - state.normaliser.mean) / deviation(state.normaliser)
            result = result._replace(observations=seen)
        return algorithm.fit(state, proposal, result)

    def improve(state: State, proposal: Proposal, result: Result) -> tuple[State, Metrics]:
        state, metrics = algorithm.improve(state, proposal, result)
        if state.normaliser is not None and result.observations is not None:
            state = state._replace(normaliser=observe(state.normaliser, result.observations))
        state = after_iteration(config, state, result.lengths.sum())
        metrics["return_perturbed"], metrics["return_max"] = result.returns.mean(), result.returns.max()
        metrics["episode_length"] = result.lengths.mean() / config.episodes
        metrics["not_finite"] = jnp.sum(~result.finite).astype(jnp.float32)
        return state, metrics

    def candidates(state: State) -> Float[Array, "C P"]:
        return jax.vmap(partial(fold, spec, state.normaliser))(state.theta[:JUDGED])

    return Iteration(
        init=_over_seeds(init),
        propose=_over_seeds(partial(propose, config, spec)),
        fit=_held(config, fit),
        improve=_held(config, improve),
        candidates=_over_seeds(candidates),
        observations=algorithm.observations or config.normalise_observations,
    )


def initial(config: OnlineConfig, spec: Spec, inner: Any, seed: Int[Array, ""]) -> State:
    """The state before the first iteration of a seed, with fresh θ and what the algorithm keeps."""
    keys = jax.random.split(stream(seed, "init"), config.exploration.policies)
    theta = jax.vmap(lambda key: acting.init(key, spec, config.init_scale))(keys)
    theta = clip_weights(theta, config.improvement.weight_clip)
    return State(
        theta=theta,
        improver=jax.vmap(improver_of(config).init)(theta),
        inner=inner,
        normaliser=make_normaliser(spec.observation_size) if config.normalise_observations else None,
        key=raw_key(stream(seed, "perturb")),
        iteration=jnp.zeros((), jnp.int32),
        fraction=jnp.zeros(()),
    )


def after_iteration(config: OnlineConfig, state: State, steps: Int[Array, ""] | int) -> State:
    """The state with one more iteration of so many control steps counted."""
    spent = [
        state.fraction + steps / config.env_steps if config.env_steps else jnp.zeros(()),
        (state.iteration + 1) / config.iterations if config.iterations else jnp.zeros(()),
    ]
    return state._replace(iteration=state.iteration + 1, fraction=jnp.maximum(spent[0], spent[1]))


def _over_seeds(function: Callable) -> Callable:
    def run(*args):
        # TF32 would make V another function; shapes broadcast as in NumPy, whatever the caller's setting.
        with jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("allow"):
            return jax.vmap(function)(*args)

    return run


def _held(config: OnlineConfig, function: Callable) -> Callable:
    """Over seeds; one whose budget is spent keeps its state. Where all seeds end together, that costs nothing."""
    everywhere = _over_seeds(function)

    def run(state: State, proposal: Proposal, result: Result, active: Bool[Array, "S"]) -> tuple[State, Metrics]:
        after, metrics = everywhere(state, proposal, result)
        if config.seeds == 1 or config.env_steps is None:
            return after, metrics
        mask = lambda leaf: active.reshape(-1, *(1 for _ in leaf.shape[1:]))  # noqa: E731
        return jax.tree.map(lambda new, old: jnp.where(mask(new), new, old), after, state), metrics

    return run


def seeds_of(config: OnlineConfig) -> np.ndarray:
    """The seeds of the runs side by side."""
    return np.arange(config.seed, config.seed + config.seeds)
