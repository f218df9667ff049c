"""The task of a data set, rolled out again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float

from epvf_data.envs import Env
from epvf_data.errors import EnvironmentMismatchError
from epvf_data.policies.spec import PolicySpec
from epvf_data.recording.task import task_of
from epvf_data.rollout import rollout
from epvf_data.store.reader import Dataset


@dataclass(frozen=True)
class World:
    """Mean returns of policies, all from the same start states."""

    env: Env
    episodes: int | None  # None: 1 where nothing is random, else 8
    backend: str
    seed: int
    progress: Callable[[int, int], None] | None = None  # gets episodes and control steps, as they are done

    def episodes_of(self, spec: PolicySpec) -> int:
        """Episodes that each policy is given."""
        return self.episodes or (8 if self.env.random_start or spec.sampled else 1)

    def returns(self, spec: PolicySpec, theta: Float[np.ndarray, "n P"]) -> Float[np.ndarray, "n"]:
        """Mean undiscounted return of each policy over the episodes."""
        key = np.asarray(jax.random.key_data(jax.random.key(self.seed)))
        seeds = np.tile(key, (len(theta), 1))
        how = {"episodes": self.episodes_of(spec), "backend": self.backend, "progress": self.progress}
        found = rollout(self.env, spec, theta, reset_seed=seeds, **how)
        return np.asarray(found.returns, np.float64).mean(1)


def open_world(dataset: Dataset, env: str | None, episodes: int | None, backend: str, seed: int) -> World:
    """The data set's environment. Raises EnvironmentMismatchError where it is not here."""
    try:
        task = task_of(dataset, env)
    except EnvironmentMismatchError as error:
        raise EnvironmentMismatchError(f"{error} Without rollouts (--no-rollouts) the rest can be judged.") from error
    return World(task, episodes, backend, seed)
