"""A recipe on an executor: each teacher a call, and when all are trained, the rows as shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from epvf_data.collectors.collect import CollectReport, gather
from epvf_data.collectors.shards import Shard
from epvf_data.launch.calls import Runs, patiently, run_calls
from epvf_data.launch.fan_out import Progress, spread
from epvf_data.recipes.collect import lots_of, train_teacher, untrained
from epvf_data.recipes.settings import RecipeConfig


def fan_out_recipe(
    config: RecipeConfig,
    out: str | Path,
    executor: Runs,
    *,
    shards: int,
    trained: Callable[[int, int], None] | None = None,
    progress: Progress | None = None,
) -> CollectReport:
    """`collect_recipe` as calls on `executor`, into the one data set `out`; begins or goes on, as `fan_out` does.

    Teachers' runs lie in OUT.runs, which all workers have to see. `trained` is called with (teachers that are trained,
    all of them), `progress` with (rows there, rows wanted, shards done).
    """
    place = str(Path(out).absolute())
    teachers = untrained(config, out)
    if teachers:
        calls = [(_teach, config, place, *teacher) for teacher in teachers]
        run_calls(calls, executor, look=lambda done: trained and trained(done, len(calls)))
    return spread((_shard, config), config.policies, out, executor, shards=shards, progress=progress)


def _teach(config: RecipeConfig, out: str, architecture: str, source: str) -> None:
    """One teacher, in a worker. A signal ends it after the step at hand, with a checkpoint."""
    with patiently() as step:
        train_teacher(config, out, architecture, source, step)


def _shard(config: RecipeConfig, out: str, shard: Shard) -> dict[str, Any]:
    """One shard, in a worker. Returns its report as plain values."""
    return asdict(gather(lots_of(config, out, resume=None), out, shard=shard))
