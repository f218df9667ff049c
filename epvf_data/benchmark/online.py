"""Improving online: the return that a method has reached after a budget of control steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from epvf_data import code, envs
from epvf_data.benchmark.tasks import Task
from epvf_data.envs import Env
from epvf_data.errors import ConfigError
from epvf_data.policies.files import load_policy
from epvf_data.policies.spec import PolicySpec
from epvf_data.scoring.world import World
from epvf_data.trainers import rundir
from epvf_data.trainers.online.run import train_online
from epvf_data.trainers.online.settings import OnlineConfig, online_config

_FRESH = 21  # stream of start states
Fitting = Callable[[dict[str, Any]], None]


@dataclass
class Budget:
    """What a method of the user's is given: the task, and the only door to its returns, which counts control steps."""

    env: Env
    steps: int  # that may be taken
    seed: int
    taken: int = field(default=0, init=False)

    def returns(
        self, spec: PolicySpec, theta: Float[np.ndarray, "n P"], episodes: int = 1
    ) -> Float[np.ndarray, "n episodes"]:
        """Undiscounted returns of real episodes from new start states. Raises ConfigError where the budget is spent."""
        if self.taken >= self.steps:
            raise ConfigError(f"the budget of {self.steps:,} control steps is spent; end before with a policy.")
        found = World(self.env, seed=self.seed).outcomes(spec, theta, episodes, stream=1000 + self.taken)
        self.taken += int(found.lengths.sum())
        return found.returns


class Online:
    """One method on one task: `seed(number)` gives that seed's measures."""

    def __init__(self, task: Task, method: str, work: Path, seeds: int, small: bool, fitting: Fitting | None):
        self.task, self.method, self.work, self.seeds, self.fitting = task, method, work, seeds, fitting
        self.env = envs.make(task.env)
        self.small = small

    @cached_property
    def run(self) -> Path:
        """The run of all seeds side by side, to its end."""
        config = self._config()
        directory = self.work / "online" / f"{self.task.name}-{self.method}-{self.seeds}"
        if not (directory / "report.json").is_file():
            resume = (directory / rundir.CONFIG).is_file()
            train_online(config, directory, resume=resume, progress=self.fitting)
        return directory

    def _config(self) -> OnlineConfig:
        changes: dict[str, Any] = {"env": self.task.env, "env_steps": self.task.steps, "seeds": self.seeds}
        if self.small:
            changes |= {"envs": 16, "horizon": 40}
        return online_config(self.method, **changes)

    def seed(self, number: int) -> dict[str, float]:
        """The measures of one seed: the mean of fresh episodes of the policy that the method ends with."""
        steps = float(self.task.steps)
        if code.names_code(self.method):
            budget = Budget(self.env, self.task.steps, number)
            spec, theta = self._own(budget)
            steps = float(budget.taken)
        else:
            spec, theta = load_policy(self.run / "policies" / f"last-{number}.safetensors")
        found = World(self.env).outcomes(spec, theta[None], self.task.episodes, _FRESH).returns[0].astype(np.float64)
        return {"return": float(found.mean()), "least": float(found.min()), "steps": steps}

    def _own(self, budget: Budget) -> tuple[PolicySpec, Float[np.ndarray, "P"]]:
        found = code.call(self.method, "policy", budget)
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], PolicySpec)):
            raise ConfigError(f"{self.method} gives {type(found).__name__}; expected (specification, parameters [P]).")
        theta = np.asarray(found[1], np.float32)
        if theta.shape != (found[0].size,) or not np.isfinite(theta).all():
            raise ConfigError(
                f"{self.method} gives parameters of the shape {list(theta.shape)}; expected "
                f"{found[0].size} finite ones."
            )
        return found[0], theta
