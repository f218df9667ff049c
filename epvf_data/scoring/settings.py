"""The settings of scoring, checked when they are made; nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass

from epvf_data.config import BACKENDS, MAX_EPISODES, MAX_HORIZON, MAX_SEED, check_one_of, check_range

# Deviation of the disturbance of every position (m, rad) and velocity of a start that is otherwise fixed.
START_NOISE = 1e-3
MAX_NOISE, MAX_ROWS = 10.0, 10_000


@dataclass(frozen=True)
class ScoreConfig:
    """How policies are rolled out. Raises ConfigError for values that make no sense."""

    episodes: int = 100  # of each policy
    seed: int = 0  # of the starts, which are the same for all policies
    backend: str = "auto"
    env: str | None = None  # a name or file.py:function; None: the policy file's or data set's own
    horizon: int | None = None  # control steps; None: as the data set or the policy file says, else the environment's
    start_noise: float | None = None  # None: START_NOISE where the start is fixed, else 0

    def __post_init__(self) -> None:
        check_range(self, "", 1, MAX_EPISODES, "episodes")
        check_range(self, "", 0, MAX_SEED, "seed")
        check_range(self, "", 1, MAX_HORIZON, "horizon")
        check_range(self, "", 0, MAX_NOISE, "start_noise")
        check_one_of("backend", self.backend, BACKENDS)
