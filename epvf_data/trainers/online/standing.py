"""Where a run stands: what a checkpoint holds, and the counters beside the algorithm's state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from epvf_data.errors import ArchitectureMismatchError, RunError
from epvf_data.policies.files import load_policy
from epvf_data.policies.kinds import Spec
from epvf_data.trainers.checkpoint import Leaf
from epvf_data.trainers.online.loop import Chunk, iteration_of
from epvf_data.trainers.online.replay import Buffer, lengthened
from epvf_data.trainers.online.settings import OnlineConfig
from epvf_data.trainers.online.state import State


@dataclass
class Standing:
    """What a checkpoint holds: all that the rest of the run depends on."""

    state: State
    env_steps: Int64[np.ndarray, "S"]
    seconds: np.ndarray  # [], spent so far
    best_score: Float[np.ndarray, "S"]  # of `best`: its return, or the mean of its tiny disturbances
    best: Float32[np.ndarray, "S P"]
    last: Float32[np.ndarray, "S P"]
    returns: Float[np.ndarray, "3 S"]  # last perturbed and unperturbed return, and the score

    def tree(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def template(self) -> dict[str, Any]:
        """The shapes that a checkpoint must have: as here, but for a buffer, which fewer iterations made smaller."""
        if (buffer := _buffer(self.state)) is None:
            return self.tree()
        most = buffer.base.shape[1]
        shapes = {
            name: Leaf((leaf.shape[0], None, *leaf.shape[2:]), leaf.dtype, most)
            for name, leaf in buffer._asdict().items()
            if name != "filled"
        }
        return {**self.tree(), "state": _with_buffer(self.state, buffer._replace(**shapes))}

    @property
    def alive(self) -> bool:
        """Whether the state can be saved; the iteration under way has taken over its memory."""
        return not any(leaf.is_deleted() for leaf in jax.tree.leaves(self.state))

    @property
    def iteration(self) -> int:
        return iteration_of(self.state)


def begin(state: State, config: OnlineConfig, spec: Spec) -> Standing:
    """Before the first iteration; from the policy file `start` where there is one."""
    seeds = config.seeds
    if config.start is not None:
        found, theta = load_policy(config.start)
        if found.id != spec.id:
            raise ArchitectureMismatchError(
                f"the policy in {config.start} is {found}, this run trains {spec}; make policy.hidden, "
                "or --policy, match."
            )
        state = state._replace(theta=jax.numpy.broadcast_to(theta, state.theta.shape))
    zeros = np.zeros((seeds, spec.size), np.float32)
    return Standing(
        state=state,
        env_steps=np.zeros(seeds, np.int64),
        seconds=np.zeros(()),
        best_score=np.full(seeds, -np.inf, np.float32),
        best=zeros,
        last=zeros,
        returns=np.zeros((3, seeds), np.float32),
    )


def _buffer(state: State) -> Buffer | None:
    found = getattr(state.inner, "buffer", None)
    return found if isinstance(found, Buffer) else None


def _with_buffer(state: State, buffer: Buffer) -> State:
    return state._replace(inner=state.inner._replace(buffer=buffer))


def restored(tree: dict[str, Any], fresh: Standing) -> Standing:
    """What a checkpoint of the form of `fresh` holds, with as much room. The state goes back to the device; the
    counters stay on the host, where they have 64 bits.

    Raises RunError for counters that no training reaches.
    """
    state, seconds = tree["state"], tree["seconds"]
    if (buffer := _buffer(state)) is not None and (room := _buffer(fresh.state)) is not None:
        state = _with_buffer(state, lengthened(buffer, room.base.shape[1]))
    counted = min(state.iteration.min(), tree["env_steps"].min()) >= 0 and 0 <= seconds < np.inf
    if not counted or not ((state.fraction >= 0) & (state.fraction < np.inf)).all():
        raise RunError("the checkpoint has counters that no training reaches; start a new run.")
    return Standing(**{**tree, "state": jax.tree.map(jax.numpy.asarray, state)})


def active(config: OnlineConfig, standing: Standing) -> Bool[np.ndarray, "S"]:
    """Seeds with budget left; the run is finished when there is none."""
    if config.iterations is not None and standing.iteration >= config.iterations:
        return np.zeros(config.seeds, bool)
    if config.env_steps is None:
        return np.ones(config.seeds, bool)
    return standing.env_steps < config.env_steps


def account(standing: Standing, chunk: Chunk) -> None:
    """Counters, and the best and last policy of each seed."""
    seeds = np.arange(len(chunk.steps))
    score = np.where(np.isfinite(chunk.score), chunk.score, -np.inf)
    top = score.argmax(axis=1)
    standing.state = chunk.state
    standing.env_steps = standing.env_steps + chunk.steps
    standing.last = chunk.candidates[seeds, top]
    better = score[seeds, top] > standing.best_score
    standing.best_score = np.where(better, score[seeds, top], standing.best_score)
    standing.best = np.where(better[:, None], standing.last, standing.best)
    returns = np.stack([chunk.metrics["return_perturbed"], chunk.unperturbed.mean(axis=1), chunk.score.mean(axis=1)])
    standing.returns = np.where(chunk.active[None], returns, standing.returns)
