"""The best rows of a data set: rolled out again, with standard errors, and each in a policy file of its own."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data import outputs
from epvf_data.policies.files import save_policy
from epvf_data.policies.loading import PolicyCode
from epvf_data.recording.task import task_of, with_policy
from epvf_data.scoring.estimate import Estimate, estimate, told
from epvf_data.scoring.inputs import Best, best_rows, check_folder
from epvf_data.scoring.score import describe
from epvf_data.scoring.settings import ScoreConfig
from epvf_data.scoring.world import Progress, World
from epvf_data.store import reader
from epvf_data.store.identity import mixed
from epvf_data.store.reader import Dataset

RESULT = "top.json"


@dataclass(frozen=True)
class Ranked:
    """One row: what the data set says, and what new episodes say (None without them)."""

    rank: int
    row: int
    architecture: str
    stored: float
    again: Estimate | None
    policy: str  # the file


@dataclass(frozen=True)
class TopReport:
    """The rows, the best first by their new episodes, or without those by what is stored."""

    folder: str
    rows: list[Ranked]
    episodes: int  # new ones of each row
    starts: str | None
    start_noise: float | None
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def top(
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    count: int = 20,
    config: ScoreConfig | None = None,
    *,
    reroll: bool = True,
    architecture: str | None = None,
    policy: PolicyCode | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> TopReport:
    """Rolls the `count` best rows out again, `config.episodes` times each, and writes them to the folder `out`.

    Stored returns choose the rows and are not believed: the best of thousands owe part of theirs to luck. `out` gets
    RANK-row-NUMBER.safetensors of each row and top.json. Without `reroll` nothing is rolled out. Raises DatasetError
    for withheld parameters and an `out` that holds something, EnvironmentMismatchError for a task that is not here.
    """
    config, folder = ScoreConfig() if config is None else config, Path(out)
    check_folder(folder, force)
    opened = with_policy(reader.open(dataset), policy if reroll else None)
    best = best_rows(opened, count, architecture)
    world = _world(opened, config) if reroll else None
    again = [None] * len(best.rows) if world is None else _again(best, world, config.episodes, progress)
    order = sorted(range(len(again)), key=lambda one: -(best.stored[one] if again[one] is None else again[one].mean))  # pyright: ignore[reportOptionalMemberAccess]
    several = len({table.spec.id for table in best.tables}) > 1
    rows = []
    for rank, one in enumerate(order, 1):
        table, number = best.tables[one], best.rows[one]
        mark = f"-{table.spec.id[:8]}" if several else ""
        path = folder / f"{rank:0{len(str(len(order)))}}-row-{number}{mark}.safetensors"
        rows.append(Ranked(rank, number, table.spec.id, float(best.stored[one]), again[one], str(path)))
    report = TopReport(
        folder=str(folder),
        rows=rows,
        episodes=config.episodes if world is not None else 0,
        starts=None if world is None else describe(world),
        start_noise=None if world is None else world.noise,
        verdict=_verdict(rows),
    )
    _write(opened, best, order, report, force)
    return report


def _world(opened: Dataset, config: ScoreConfig) -> World:
    env = task_of(opened, config.env)
    env = env.with_horizon(config.horizon or env.horizon)
    return World(env, config.episodes, config.backend, config.seed, config.start_noise)


def _again(best: Best, world: World, episodes: int, progress: Progress | None) -> list[Estimate]:
    """The estimate of every row, all rows of an architecture in one rollout."""
    found: dict[int, Estimate] = {}
    for spec in dict.fromkeys(table.spec for table in best.tables):
        mine = [place for place, table in enumerate(best.tables) if table.spec == spec]
        theta = np.stack([best.tables[one].take("params", np.array([best.rows[one]]))[0] for one in mine])
        varies = world.varies(spec)
        returns = world.outcomes(spec, theta, episodes if varies else 1, progress=progress).returns
        found |= {one: estimate(own, varies) for one, own in zip(mine, returns, strict=True)}
    return [found[place] for place in range(len(best.rows))]


def _verdict(rows: list[Ranked]) -> str:
    """One or two sentences that do not flatter."""
    first = rows[0]
    if first.again is None:
        return f"Row {first.row} has the highest stored return, {first.stored:.2f}; nothing was rolled out again."
    lucky = float(np.mean([one.stored - one.again.mean for one in rows if one.again is not None]))
    text = f"Row {first.row} is best: {told(first.again)} (standard error), stored was {first.stored:.2f}."
    if len(rows) > 1:
        high = "high" if lucky > 0 else "low"
        text += f" The stored returns of these {len(rows)} rows are {abs(lucky):.2f} too {high} on average"
        text += ": the best of many single numbers owe part of it to luck." if lucky > 0 else "."
    return text


def _write(opened: Dataset, best: Best, order: list[int], report: TopReport, force: bool) -> None:
    known = {"horizon": str(opened.env.horizon)} if len(mixed(opened.env)) == 1 else {}
    for one, ranked in zip(order, report.rows, strict=True):
        outputs.check_free(Path(ranked.policy), force)
        table = best.tables[one]
        theta = table.take("params", np.array([best.rows[one]]))[0]
        said = f"{ranked.stored:.2f} stored" if ranked.again is None else f"{told(ranked.again)} in {report.episodes}"
        notes = {"env": opened.env.name, "row": str(ranked.row), "return": said, **known}
        Path(report.folder).mkdir(parents=True, exist_ok=True)
        save_policy(ranked.policy, table.spec, theta, **notes)
    text = json.dumps(report.to_dict(), indent=2) + "\n"
    outputs.write_bytes(Path(report.folder) / RESULT, text.encode(), force)
