"""A collection as shards on an executor. Only settings and counts travel: rows go from each worker to the data set."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epvf_data.collectors.setting import CollectConfig, existing
from epvf_data.collectors.shards import Shard, checked
from epvf_data.errors import DatasetError
from epvf_data.launch.calls import Runs, run_calls
from epvf_data.store import reader

if TYPE_CHECKING:
    from epvf_data.collectors.collect import CollectReport

Progress = Callable[[int, int, int], None]  # (rows there, rows in all, shards finished)


def fan_out(
    config: CollectConfig,
    out: str | Path,
    executor: Runs,
    *,
    shards: int,
    mixed: bool = False,
    progress: Progress | None = None,
) -> CollectReport:
    """`collect` as so many shards into the one data set `out`, each a call on `executor`; begins or goes on.

    The executor is any of `concurrent.futures`' kind: a process pool (of processes that are spawned, since JAX does not
    survive a fork), submitit's, dask's, mpi4py's, or one of `epvf_data.launch.executors`. Workers have to see `out`
    under the same path. A shard that is run twice, or beside its own ghost, makes no row twice. Rows lie in the order
    in which they came; `finalize` puts them in that of one process. `progress(rows there, rows wanted, shards done)`.

    Raises what a shard raised, once all others have ended; BackendError where a worker died. What was committed stays,
    and the same call goes on.
    """
    return spread(
        (work, config, mixed), config.policies or config.envs, out, executor, shards=shards, progress=progress
    )


def spread(
    how: tuple[Any, ...],
    rows: int,
    out: str | Path,
    executor: Runs,
    *,
    shards: int,
    progress: Progress | None = None,
) -> CollectReport:
    """`fan_out` of any collection of so many rows: `how` is (function, arguments …), called with (…, out, shard)."""
    checked(0, shards, f"{shards} shards")
    began, place = time.perf_counter(), str(Path(out).absolute())
    existing(Path(out), None)
    dataset: reader.Dataset | None = None

    def look(done: int) -> None:
        nonlocal dataset
        if progress is not None:
            with contextlib.suppress(DatasetError):  # not there yet
                dataset = reader.open(out) if dataset is None else dataset.refresh()
                progress(dataset.rows, max(rows, dataset.rows), done)

    calls = [(*how, place, Shard(index, shards)) for index in range(shards)]
    return _joined(run_calls(calls, executor, look=look), str(out), time.perf_counter() - began)


def work(config: CollectConfig, mixed: bool, out: str, shard: Shard) -> dict[str, Any]:
    """One shard, in a worker. Returns its report as plain values."""
    from epvf_data.collectors.collect import collect

    return asdict(collect(config, out, shard=shard, mixed=mixed))


def _joined(reports: Sequence[dict[str, Any]], out: str, seconds: float) -> CollectReport:
    """One report of all shards."""
    from epvf_data.collectors.collect import CollectReport

    made = [CollectReport(**one) for one in reports]
    rows, steps = sum(one.rows for one in made), sum(one.env_steps for one in made)
    means = [one.rows * one.return_mean for one in made if one.return_mean is not None]
    return replace(
        made[0],
        dataset=out,
        rows=rows,
        rows_total=reader.open(out).rows,
        commits=sum(one.commits for one in made),
        env_steps=steps,
        physics_steps=sum(one.physics_steps for one in made),
        seconds=round(seconds, 3),
        env_steps_per_second=round(steps / seconds, 1),
        return_mean=sum(means) / rows if rows else None,
        return_max=max((one.return_max for one in made if one.return_max is not None), default=None),
        rows_not_finite=sum(one.rows_not_finite for one in made),
        start_up_seconds=max(one.start_up_seconds for one in made),
    )
