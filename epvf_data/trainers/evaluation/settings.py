"""The settings of an evaluation, checked when they are made, and what it leaves in a run's directory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from epvf_data.config import MAX_EPISODES, MAX_FLOAT, MAX_SEED, check_range
from epvf_data.errors import ConfigError
from epvf_data.scoring.settings import MAX_NOISE
from epvf_data.trainers.rundir import fits

RESULT, PICTURE = "evaluation.json", "evaluation-{}.png"
ROLLED_OUT = (
    "labels",
    "gradient",
    "improvement",
)  # what takes rollouts, and is kept where a later call measures it not
_STEP = {"steps": int, "mean": float, "best": float}
MEASURED = {  # of a split, as it is read again: the file may be a stranger's
    "labels": ({"spearman": float, "interval": [float, float], "policies": int, "episodes": int}, None),
    "gradient": (
        {"cosine": float, "interval": [float, float], "per_policy": [float], "pairs": int, "chance": float}
        | {"ceiling": (float, None)},
        None,
    ),
    "improvement": (
        {"starts": int, "step_length": float, "start_mean": float, "best_in_data": float, "random": [_STEP]}
        | {"climb": [{**_STEP, "predicted": float}], "stopped": {**_STEP, "predicted": float, "gain": float}},
        None,
    ),
    "elsewhere": {str: {}},
    "metrics": {str: {"value": float, "per_seed": [float]}},
}


def measured(evaluation: dict[str, Any]) -> dict[str, Any] | None:
    """What was measured of each split, of a file as it was read; None where it has not the shape of `MEASURED`."""
    found: Any = evaluation.get("by_split", {})  # which files of early versions lack
    if not fits(found, {str: {}}):
        return None
    found = {name: {"labels": None, "metrics": {}, **one} for name, one in found.items()}  # which earlier versions lack
    return found if fits(found, {str: MEASURED}) else None


@dataclass(frozen=True)
class EvaluationConfig:
    """How much is rolled out to judge a critic. Raises ConfigError for values that make no sense.

    Directions and distances are in units of each parameter's spread over the training rows.
    """

    split: str | None = None  # whose critics are judged; None: lineage where the run has it, else its first
    labels: int = 64  # held-out policies whose stored returns are compared with new ones; 0: none
    label_episodes: int = 8  # of each of them
    policies: int = 8  # of the training rows, half of them the best, at which gradients are compared
    pairs: int = 128  # antithetic pairs of rollouts for the ES gradient at each
    sigma: float = 0.1  # of its noise
    starts: int = 128  # the best training rows, from which gradient ascent on V starts; 0: none
    steps: tuple[int, ...] = (1, 2, 5, 10, 20, 50)  # after so many steps of it policies are rolled out
    step: float = 0.01  # length of a step, times √P
    episodes: int | None = None  # a policy; None: 1 where nothing is random, else 8
    seed: int = 0
    start_noise: float | None = None  # of starts that are otherwise fixed; None: 0.001, see `scoring.world`
    backend: str = "auto"
    env: str | None = None  # file.py:function, where the data set is of an environment of your own

    def __post_init__(self) -> None:
        check_range(self, "", 0, 100_000, "labels", "policies", "starts")
        check_range(self, "", 1, 10**6, "pairs")
        check_range(self, "", 1, 100_000, "steps")
        check_range(self, "", 1, MAX_EPISODES, "episodes", "label_episodes")
        check_range(self, "", 0, MAX_SEED, "seed")
        check_range(self, "", 0, MAX_FLOAT, "sigma", "step", above=True)
        check_range(self, "", 0, MAX_NOISE, "start_noise")
        if self.pairs < 2:
            raise ConfigError(
                f"pairs is {self.pairs}; half of them are compared with the other half, so take 2 or more."
            )
        if not self.steps or list(self.steps) != sorted(set(self.steps)):
            raise ConfigError(f"steps is {list(self.steps)}; give whole numbers of at least 1, ascending.")
