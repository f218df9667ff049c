"""Roll policies out, many episodes each, and say how good each is and how sure that is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from epvf_data import envs
from epvf_data.envs import Env
from epvf_data.errors import ArchitectureMismatchError
from epvf_data.policies.loading import PolicyCode, bind
from epvf_data.recording.task import task_of
from epvf_data.scoring.estimate import Estimate, difference, estimate
from epvf_data.scoring.inputs import Candidate, candidates
from epvf_data.scoring.settings import ScoreConfig
from epvf_data.scoring.world import Progress, World


@dataclass(frozen=True)
class Score:
    """What one policy was found to be worth. `over_first` is its gain over the first policy that was named."""

    policy: str
    env: str
    horizon: int
    found: Estimate
    length: float  # control steps of an episode, on average
    row: int | None = None
    stored: float | None = None  # what the data set says of the row
    over_first: Estimate | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the estimate's stand among the others."""
        values = asdict(self)
        found = values.pop("found")
        return {**values, **found}


@dataclass(frozen=True)
class ScoreReport:
    """The scores in the order in which the policies were named, and in one sentence where their episodes began."""

    scores: list[Score]
    starts: str
    start_noise: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {"starts": self.starts, "start_noise": self.start_noise}
        return {"scores": [one.to_dict() for one in self.scores], **values}


def score(
    policies: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    config: ScoreConfig | None = None,
    *,
    row: str = "best",
    architecture: str | None = None,
    policy: PolicyCode | None = None,
    progress: Progress | None = None,
) -> ScoreReport:
    """Mean return of each policy over real episodes from start states that are the same for all of them.

    `policies` are policy files, or data sets of which `row` (`best`, `median`, `worst` or a number) names the policy;
    `policy` is the code of those of an architecture of your own.
    Where the environment's start is fixed it is disturbed by `config.start_noise`, for a return that is exact hangs on
    rounding; what it was is in the report. Raises as `inputs.candidates` does, EnvironmentMismatchError for a task
    that is not here, ArchitectureMismatchError for policies of different tasks.
    """
    config = ScoreConfig() if config is None else config
    named = [policies] if isinstance(policies, str | os.PathLike) else list(policies)
    found, scores, first = candidates(named, row, architecture, config.env), [], None
    found = [replace(one, spec=bind(one.spec, policy)) for one in found]
    worlds = [
        World(_task(one, config), config.episodes, config.backend, config.seed, config.start_noise) for one in found
    ]
    digests = {world.env.digest for world in worlds}
    if len(digests) > 1:
        names = ", ".join(f"{world.env.name} of horizon {world.env.horizon}" for world in worlds)
        raise ArchitectureMismatchError(
            f"the policies are of different tasks ({names}), whose returns cannot be compared; score them one by one."
        )
    for one, world in zip(found, worlds, strict=True):
        varies = world.varies(one.spec)
        outcomes = world.outcomes(one.spec, one.theta[None], config.episodes if varies else 1, progress=progress)
        returns = outcomes.returns[0]
        first = returns if first is None else first
        scores.append(
            Score(
                policy=one.name,
                env=world.env.name,
                horizon=world.env.horizon,
                found=estimate(returns, varies),
                length=float(outcomes.lengths.mean()),
                row=one.row,
                stored=one.stored,
                over_first=difference(returns, first) if scores and varies and len(returns) == len(first) else None,
            )
        )
    return ScoreReport(scores, describe(worlds[0]), worlds[0].noise)


def _task(one: Candidate, config: ScoreConfig) -> Env:
    if one.dataset is not None:
        env = task_of(one.dataset, config.env)
        return env.with_horizon(config.horizon or env.horizon)
    env = envs.make(str(one.env))
    return env.with_horizon(config.horizon or one.horizon or env.horizon)


def describe(world: World) -> str:
    """Where the episodes begin, in a sentence."""
    name = world.env.name
    if world.env.random_start:
        also = f", moved by a further {world.noise:g}" if world.noise else ""
        return f"Starts are {name}'s own random ones{also}, the same for every policy."
    if not world.noise:
        return (
            f"{name}'s start is fixed, so that one episode is all there is; on tasks with contacts its return hangs on "
            "rounding."
        )
    return (
        f"{name}'s start is fixed, and a return from exactly there hangs on rounding; so every position and velocity "
        f"of the start was moved by {world.noise:g} · N(0, 1), the same starts for every policy."
    )
