"""A collection as shards on an executor. Only settings and counts travel: rows go from each worker to the data set."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from epvf_data.collectors.setting import CollectConfig, existing
from epvf_data.collectors.shards import Shard, checked
from epvf_data.errors import BackendError, DatasetError
from epvf_data.store import reader

if TYPE_CHECKING:
    from epvf_data.collectors.collect import CollectReport

LOOK_EVERY = 0.2  # seconds between looks at the shards, which grow to
LOOK_AT_MOST = 5.0

Progress = Callable[[int, int, int], None]  # (rows there, rows in all, shards finished)


class Handle(Protocol):
    """What an executor gives for a call: a `Future`, or what is like it."""

    def done(self) -> bool: ...
    def result(self) -> Any: ...
    def cancel(self) -> Any: ...


class Runs(Protocol):
    """`concurrent.futures.Executor`, or what has its `submit`."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Handle: ...


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
    checked(0, shards, f"{shards} shards")
    began, place = time.perf_counter(), str(Path(out).absolute())
    existing(Path(out), None)
    waiting = [executor.submit(work, config, place, Shard(index, shards), mixed) for index in range(shards)]
    try:
        _await(waiting, Path(out), config.policies or config.envs, progress)
    except BaseException:
        for handle in waiting:
            with contextlib.suppress(Exception):
                handle.cancel()
        raise
    reports, errors = [], []
    for handle in waiting:
        try:
            reports.append(handle.result())
        except BrokenExecutor as error:
            errors.append(BackendError("a worker died; what was committed stays, and the same command goes on."))
            errors[-1].__cause__ = error
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return _joined(reports, str(out), time.perf_counter() - began)


def work(config: CollectConfig, out: str, shard: Shard, mixed: bool) -> dict[str, Any]:
    """One shard, in a worker. Returns its report as plain values."""
    from epvf_data.collectors.collect import collect
    from epvf_data.runtime import prepare

    prepare()
    return asdict(collect(config, out, shard=shard, mixed=mixed))


def _await(waiting: Sequence[Handle], out: Path, wanted: int, progress: Progress | None) -> None:
    pause = LOOK_EVERY
    dataset: reader.Dataset | None = None
    while not all(handle.done() for handle in waiting):
        time.sleep(pause)
        pause = min(1.2 * pause, LOOK_AT_MOST)
        if progress is not None:
            with contextlib.suppress(DatasetError):  # not there yet
                dataset = reader.open(out) if dataset is None else dataset.refresh()
                progress(dataset.rows, max(wanted, dataset.rows), sum(handle.done() for handle in waiting))


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
