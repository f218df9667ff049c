"""The settings of an improvement, and how its budget of episodes is spent."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import NamedTuple

from epvf_data import code
from epvf_data.config import BACKENDS, MAX_EPISODES, MAX_FLOAT, MAX_SEED, check_one_of, check_range
from epvf_data.critics.families import Family
from epvf_data.errors import ConfigError
from epvf_data.improvement.methods import METHODS, Method, method_of, name_of, own_method
from epvf_data.scoring.settings import MAX_NOISE, MAX_ROWS
from epvf_data.trainers.offline.settings import OfflineConfig

RESULT, PICTURE, CRITIC, ROWS = "improvement.json", "improvement.png", "critic", "rows.json"
# Half of the critics climb, half of them judge. Of unseen bases, actions tell what parameters do not.
FIT = {"critic": "stored-probing", "split": "iid", "seeds": 6}


def _fit() -> OfflineConfig:
    return OfflineConfig(**FIT)


@dataclass(frozen=True)
class ImproveConfig:
    """What is proposed, and how much is rolled out to see what it is worth. Raises ConfigError for what cannot be.

    Distances are in units of each parameter's spread over the rows.
    """

    # A name of improvement.methods.METHODS, FILE.py:FUNCTION, or a function that is given a `Problem`.
    method: str | Method = "lower"
    starts: int = 64  # best rows, rolled out again, from whose better half is climbed
    steps: tuple[int, ...] = (1, 2, 5, 10, 20, 50)  # the climb may stop after so many
    step: float = 0.01  # length of a step, times √P
    radius: float = 0.5  # farthest from the start, times √P
    budget: int = 2000  # episodes in all
    screen: int = 8  # episodes of a policy that is chosen among others
    keep: int = 8  # policy files that are written
    seed: int = 0
    backend: str = "auto"
    env: str | None = None  # file.py:function, where the data set is of an environment of your own
    start_noise: float | None = None  # of starts that are otherwise fixed; None: 0.001
    fit: OfflineConfig = field(default_factory=_fit)  # the critics, where a data set is given

    def __post_init__(self) -> None:
        if isinstance(self.method, str):
            check_method(self.method)
        elif not isinstance(self.method, Method):
            object.__setattr__(self, "method", own_method(self.method))
        check_one_of("backend", self.backend, BACKENDS)
        check_range(self, "", 1, MAX_ROWS, "starts", "keep")
        check_range(self, "", 1, 100_000, "steps")
        check_range(self, "", 1, 10**9, "budget")
        check_range(self, "", 1, MAX_EPISODES, "screen")
        check_range(self, "", 0, MAX_SEED, "seed")
        check_range(self, "", 0, MAX_NOISE, "start_noise")
        check_range(self, "", 0, MAX_FLOAT, "step", "radius", above=True)
        if not self.steps or list(self.steps) != sorted(set(self.steps)):
            raise ConfigError(f"steps is {list(self.steps)}; give whole numbers of at least 1, ascending.")
        plan(self)

    @property
    def recipe(self) -> Method:
        """What the method's name stands for."""
        return method_of(self.method)

    @property
    def method_name(self) -> str:
        """As reports have it."""
        return name_of(self.method)

    @property
    def own_critic(self) -> str | Family | None:
        """The critic of the settings where it is the user's own."""
        critic = self.fit.critic
        return critic if isinstance(critic, Family) or code.names_code(critic) else None

    @property
    def fitting(self) -> OfflineConfig:
        """The critics' settings, with what the method asks for where they say nothing else."""
        default = OfflineConfig()
        asked = {
            key: value for key, value in self.recipe.critic.items() if getattr(self.fit, key) == getattr(default, key)
        }
        return dataclasses.replace(self.fit, **asked)


def check_method(name: str) -> None:
    """Raises ConfigError for a method that is not there, FileError for a file."""
    if code.names_code(name):
        code.check_there(name, "proposals")
    else:
        check_one_of("method", name, METHODS)


class Plan(NamedTuple):
    """Policies and episodes of each part of a budget."""

    rows: int  # of the data, rolled out again
    candidates: int  # proposals, and as many random steps
    screen: int  # episodes of each of these
    final: int  # fresh episodes of the best proposal, the best row and the best random step

    @property
    def episodes(self) -> int:
        """What all of it takes."""
        return (self.rows + 2 * self.candidates) * self.screen + 3 * self.final


def plan(config: ImproveConfig, varies: bool = True) -> Plan:
    """How the budget is spent: a twentieth on each of three final scores, a quarter of the rest on rows of the data.

    Where episodes do not vary each policy gets one. Raises ConfigError for a budget that is too small.
    """
    screen = config.screen if varies else 1
    final = max(screen, config.budget // 20) if varies else 1
    left = config.budget - 3 * final
    rows = min(config.starts, left // 4 // screen)
    candidates = min(config.starts, (left - max(rows, 1) * screen) // (2 * screen))
    if rows < 1 or candidates < 1:
        raise ConfigError(
            f"a budget of {config.budget:,} episodes is too small for scores of {screen} episodes; give at least "
            f"{7 * screen}, lower screen, or leave rollouts out with --no-rollouts."
        )
    return Plan(rows, candidates, screen, final)
