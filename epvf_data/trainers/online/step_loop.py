"""The loop of the algorithms that learn from single steps. A few iterations are one compiled function; at the end of a
chunk θ is judged through the door that everybody takes, exactly and under tiny disturbances, and so are perturbations.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from epvf_data.envs import Env
from epvf_data.errors import ConfigError
from epvf_data.physics.play import stepper_of
from epvf_data.policies.kinds import Spec
from epvf_data.trainers.online.iteration import seeds_of
from epvf_data.trainers.online.loop import Chunk, Loop, Rollouts, iteration_of, length_of, timed
from epvf_data.trainers.online.settings import OnlineConfig
from epvf_data.trainers.online.state import Metrics, State
from epvf_data.trainers.online.step_iteration import Method, make_method, steps_of
from epvf_data.trainers.online.step_judge import make_judge

PIECE = 8  # iterations of a call: nothing stops inside one, and a chunk of another body takes a minute
_MOST, _LEAST = ("return_max", "reward_max"), ("reward_min",)


def make_step_loop(config: OnlineConfig, env: Env, spec: Spec, backend: str) -> Loop:
    """The loop of a run on this backend. Raises BackendError where the backend cannot run the environment."""
    check_env(config, env)
    on_cpu = backend == "native" or jax.default_backend() == "cpu"
    method = make_method(config, env, spec, stepper_of(env, backend), on_cpu)
    # Not donated: Ctrl-C in a chunk saves the state before it.
    piece = jax.jit(_over_seeds(partial(_piece, method)))
    begin = jax.jit(_over_seeds(lambda seed, _: method.init(seed)))
    judge = make_judge(config, env, spec, backend, method, _over_seeds)

    def advance(state: State, active: Bool[np.ndarray, "S"], keep: bool) -> Chunk:
        seconds: dict[str, float] = {}
        length = length_of(config, state)
        last, every = iteration_of(state) + length, config.time.record_every
        found: list[Metrics] = []
        for done in range(0, length, PIECE):
            state, some = timed(seconds, "training", piece, state, np.int32(min(PIECE, length - done)))
            found.append(some)
        metrics = _means(found, length, np.asarray(state.inner.performance))
        check_rewards(config, metrics)
        due = keep and last // every > (last - length) // every
        judged = timed(seconds, "evaluation", judge, state, due)
        steps = np.full(config.seeds, length * steps_of(config), np.int64) * active
        rollouts = [Rollouts(last, np.arange(config.seeds), *judged.recorded)] if judged.recorded else []
        metrics |= judged.metrics
        shown = judged.returns, judged.params, judged.metrics["return_disturbed"][:, None]
        return Chunk(state, metrics, steps, *shown, seconds, rollouts, active, judged.top)

    return Loop(lambda: begin(seeds_of(config), np.int32(0)), advance)


def check_env(config: OnlineConfig, env: Env) -> None:
    """Raises ConfigError for a task that the algorithm cannot learn."""
    name, segment = config.algorithm, config.time.segment
    if not np.any(jax.jacobian(env.control)(jnp.full(env.action_size, 0.1))):  # the same whatever the action's size
        raise ConfigError(
            f"environment {env.name} takes discrete actions; {name} needs actions that change smoothly, so use "
            "algorithm epvf, or another environment."
        )
    if env.horizon < segment:
        raise ConfigError(
            f"environment {env.name} ends after {env.horizon} control steps; a segment of {segment} is longer, set "
            "time.segment."
        )


def check_rewards(config: OnlineConfig, metrics: dict[str, np.ndarray]) -> None:
    """Raises ConfigError where rewards leave the range that bounds the targets, as with a preset of another body."""
    allowed = config.time.reward_range
    least, most = metrics["reward_min"].min(), metrics["reward_max"].max()
    if allowed is not None and (least < allowed[0] - 1e-3 or most > allowed[1] + 1e-3):
        raise ConfigError(
            f"rewards of environment {config.env} went from {least:.3g} to {most:.3g}, and time.reward_range is "
            f"{list(allowed)}; widen it, or leave it out: the preset may be of another body."
        )


def _over_seeds(function: Any) -> Any:
    """Over seeds, one after the other: what is not due costs nothing. The last argument is for all of them."""

    def run(state: Any, rest: Any) -> Any:
        # TF32 would make Q another function; shapes broadcast as in NumPy, whatever the caller's setting.
        with jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("allow"):
            leaves = jax.tree.leaves(state)
            if len(leaves[0]) > 1:
                return jax.lax.map(lambda one: function(one, rest), state)
            one = function(jax.tree.map(lambda leaf: leaf[0], state), rest)
            return jax.tree.map(lambda leaf: leaf[None], one)

    return run


def _piece(method: Method, state: State, length: Int[Array, ""]) -> tuple[State, Metrics]:
    """So many iterations of one seed, and the sums of what they found."""
    shapes = jax.eval_shape(method.iteration, state)[1]
    start = {name: jnp.full((), _neutral(name)) for name in shapes}

    def body(_: Array, carry: tuple[State, Metrics]) -> tuple[State, Metrics]:
        state, found = method.iteration(carry[0])
        return state, {name: _joined(name, carry[1][name], found[name]) for name in found}

    return jax.lax.fori_loop(0, length, body, (state, start))


def _means(pieces: list[Metrics], length: int, performance: Float[np.ndarray, "S"]) -> dict[str, np.ndarray]:
    """What a chunk found: means over its iterations, and of some the largest or the least."""
    metrics: dict[str, np.ndarray] = {}
    for name in pieces[0]:
        each = np.stack([np.asarray(piece[name]) for piece in pieces])
        metrics[name] = (
            each.max(axis=0) if name in _MOST else each.min(axis=0) if name in _LEAST else each.sum(axis=0) / length
        )
    metrics["return_max"] = np.where(np.isfinite(metrics["return_max"]), metrics["return_max"], np.nan)
    return metrics | {"return_perturbed": performance}


def _neutral(name: str) -> float:
    return -jnp.inf if name in _MOST else jnp.inf if name in _LEAST else 0.0


def _joined(name: str, old: Array, new: Array) -> Array:
    return jnp.maximum(old, new) if name in _MOST else jnp.minimum(old, new) if name in _LEAST else old + new
