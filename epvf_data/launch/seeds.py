"""Online training with a process for each seed, each in a run directory of its own, `seed-K`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from epvf_data.launch.calls import Runs, patiently, run_calls
from epvf_data.trainers import rundir
from epvf_data.trainers.online.inputs import seed_folders
from epvf_data.trainers.online.settings import OnlineConfig

if TYPE_CHECKING:
    from epvf_data.trainers.online.run import OnlineReport


def train_seeds(
    config: OnlineConfig,
    run_dir: str | Path,
    executor: Runs,
    *,
    resume: bool = False,
    record: str | Path | None = None,
    warm_start: str | Path | None = None,
    max_seconds: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> OnlineReport:
    """`train_online` of each of `config.seeds` seeds as a call on `executor`, in `run_dir`/seed-K.

    Each is the run that `train_online` makes of that seed alone. `resume` goes on with those that have begun, and
    begins the others. `progress` hears how many have ended.

    Raises what a seed raised, once the others have ended, and BackendError where a worker died; RunError for settings
    that differ from those of the runs there.
    """
    began, folder = time.perf_counter(), Path(run_dir)
    places = seed_folders(config, folder.absolute())
    paths = [None if path is None else str(Path(path).absolute()) for path in (record, warm_start)]
    if not resume:
        rundir.check_free(folder)
    options = (*paths, max_seconds)
    calls = [
        (train_seed, replace(config, seed=config.seed + number, seeds=1), str(path), *options)
        for number, path in enumerate(places)
    ]
    return _joined(run_calls(calls, executor, look=progress), str(run_dir), time.perf_counter() - began)


def train_seed(
    config: OnlineConfig,
    directory: str,
    record: str | None = None,
    warm_start: str | None = None,
    max_seconds: float | None = None,
) -> OnlineReport:
    """One run, in a worker; it goes on where an earlier call, or one in a job that was queued again, has begun it.

    A signal ends it after the step at hand, with a checkpoint.
    """
    from epvf_data.trainers.online.run import train_online

    goes_on = (Path(directory) / "config.json").is_file()
    how = {"record": record, "warm_start": warm_start, "max_seconds": max_seconds}
    with patiently() as step:
        return train_online(config, directory, resume=goes_on, progress=step, **how)


def _joined(reports: Sequence[OnlineReport], run: str, seconds: float) -> OnlineReport:
    """One report of all seeds: means of their returns, sums of their steps."""

    def mean(name: str) -> float | None:
        values = [getattr(one, name) for one in reports]
        return None if None in values else sum(values) / len(values)

    returns = ("return_perturbed", "return_unperturbed", "return_disturbed", "return_best", "return_best_perturbed")
    return replace(
        reports[0],
        run=run,
        iterations=max(one.iterations for one in reports),
        env_steps=sum(one.env_steps for one in reports),
        seconds=round(seconds, 3),
        seeds=len(reports),
        finished=all(one.finished for one in reports),
        **{name: mean(name) for name in returns},
    )
