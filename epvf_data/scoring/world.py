"""A task in which policies are rolled out again, many episodes each, all of them from the same start states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray, UInt32

from epvf_data.envs import Env, Physics
from epvf_data.errors import EnvironmentMismatchError
from epvf_data.physics.episode import Outcomes
from epvf_data.policies.kinds import Spec
from epvf_data.recording.task import task_of
from epvf_data.rollout import rollout
from epvf_data.scoring.settings import START_NOISE
from epvf_data.store.reader import Dataset

_NOISE = 2**32 - 2  # folded into an episode's key for its start's disturbance; `physics.episode` folds in the next one
Progress = Callable[[int, int], None]  # (episodes, control steps) newly finished


@dataclass(frozen=True)
class World:
    """Returns of policies, all from the same start states: differences between policies owe nothing to the start.

    Where nothing is random, starts are disturbed by `start_noise`, or every episode would be the same one: see
    `disturbed`. With a noise of 0 there one episode tells all that can be told.
    """

    env: Env
    episodes: int | None = None  # of a policy; None: 1 where nothing but the start's disturbance is random, else 8
    backend: str = "auto"
    seed: int = 0
    start_noise: float | None = None  # None: START_NOISE where the start is fixed, else 0
    progress: Progress | None = None  # gets what `returns` rolls out, as it is done

    @property
    def noise(self) -> float:
        """The deviation of the starts' disturbance."""
        fixed = 0.0 if self.env.random_start else START_NOISE
        return fixed if self.start_noise is None else self.start_noise

    @cached_property
    def task(self) -> Env:
        """The environment with its starts disturbed, if they are."""
        return disturbed(self.env, self.noise) if self.noise else self.env

    def varies(self, spec: Spec) -> bool:
        """Whether two episodes of a policy differ."""
        return self.env.random_start or spec.sampled or self.noise > 0

    def outcomes(
        self, spec: Spec, theta: Float[np.ndarray, "n P"], episodes: int, stream: int = 0, progress=None
    ) -> Outcomes:
        """How `episodes` episodes of each policy ended; equal `stream` numbers mean equal start states."""
        seeds = np.tile(self.start_seed(stream), (len(theta), 1))
        return rollout(
            self.task, spec, theta, reset_seed=seeds, episodes=episodes, backend=self.backend, progress=progress
        )

    def start_seed(self, stream: int = 0) -> UInt32[np.ndarray, "2"]:
        """Raw key data of the starts."""
        key = jax.random.key(self.seed)
        return np.asarray(jax.random.key_data(jax.random.fold_in(key, stream) if stream else key))

    def episodes_of(self, spec: Spec) -> int:
        """Episodes that `returns` gives each policy."""
        return self.episodes or (8 if self.env.random_start or spec.sampled else 1)

    def returns(self, spec: Spec, theta: Float[np.ndarray, "n P"]) -> Float[np.ndarray, "n"]:
        """Mean undiscounted return of each policy over the world's episodes."""
        found = self.outcomes(spec, theta, self.episodes_of(spec), progress=self.progress)
        return np.asarray(found.returns, np.float64).mean(1)


@lru_cache(maxsize=16)
def disturbed(env: Env, noise: float) -> Env:
    """The same task from starts whose positions and velocities are each moved by noise · N(0, 1).

    In a task whose start is fixed, the return of one episode is a fixed number that hangs on rounding: a contact that
    comes a step later sends the rest elsewhere. The mean over starts a hair's breadth apart does not, and neither does
    it depend on how wide the hair is, over orders of magnitude (docs/improving.md has the numbers).

    The physics normalises quaternions itself. Equal arguments give the same object, so that compiled functions are
    reused. It is for scoring alone: rows of a data set are of the task itself.
    """

    def reset(key: PRNGKeyArray) -> Physics:
        start = env.reset(key)
        first, second = jax.random.split(jax.random.fold_in(key, _NOISE))
        return start._replace(
            qpos=start.qpos + noise * jax.random.normal(first, start.qpos.shape, start.qpos.dtype),
            qvel=start.qvel + noise * jax.random.normal(second, start.qvel.shape, start.qvel.dtype),
        )

    return replace(env, reset=reset)


def open_world(
    dataset: Dataset, env: str | None, episodes: int | None, backend: str, seed: int, start_noise: float | None = None
) -> World:
    """The data set's environment. Raises EnvironmentMismatchError where it is not here."""
    try:
        task = task_of(dataset, env)
    except EnvironmentMismatchError as error:
        raise EnvironmentMismatchError(f"{error} Without rollouts (--no-rollouts) the rest can be judged.") from error
    return World(task, episodes, backend, seed, start_noise)
