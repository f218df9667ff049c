"""Run one method on one task over several seeds; the result file holds every seed as soon as it is done."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from epvf_data import code, runtime
from epvf_data.benchmark import result
from epvf_data.benchmark.data import identity, rows_for
from epvf_data.benchmark.improve import MEMBERS, Improve
from epvf_data.benchmark.online import Online
from epvf_data.benchmark.predict import Predict
from epvf_data.benchmark.tasks import TASKS, Task, small, split_method
from epvf_data.config import check_one_of
from epvf_data.errors import ConfigError, EpvfError
from epvf_data.launch.calls import Runs, run_calls
from epvf_data.provenance import provenance
from epvf_data.store import reader
from epvf_data.store.reader import Dataset

SEEDS = 5
Told = Callable[[dict[str, Any]], None]


def run_task(
    name: str,
    method: str,
    out: str | Path,
    *,
    work: str | Path = "bench",
    data: str | Path | None = None,
    seeds: int = SEEDS,
    quick: bool = False,
    resume: bool = False,
    executor: Runs | None = None,
    making: Callable[[int, int, int], None] | None = None,
    fitting: Told | None = None,
    told: Told | None = None,
) -> dict[str, Any]:
    """What `method` (a name, or FILE.py:FUNCTION) does on the task of that name, also written to `out`.

    `work` gets the task's data set and the critics; `data` is a data set that is there already. With `quick` the task
    is one of seconds on CartPole. `resume` keeps the seeds that `out` holds. `making` hears of rows that are made,
    `fitting` of epochs, `told` of every seed. With an `executor`, each seed is a call on it, of which the first one
    fits the critics that all share, and then `fitting` hears of nothing.

    Raises ConfigError for unknown names and for a method of the user's that fails: seeds that were done before are in
    `out` then. FileError for files that are not there, DatasetError for rows that are not the task's.
    """
    check_one_of("task", name, TASKS)
    task = small(TASKS[name]) if quick else TASKS[name]
    split_method(task, method)
    runtime.check()
    path, folder = Path(out), Path(work) / ("small" if quick else "")
    found = _begin(path, name, method, quick, resume)
    dataset = None if task.data is None else rows_for(task, folder, None if data is None else Path(data), making)
    content = {} if dataset is None else identity(task, dataset)
    if resume and found["seeds"] and found["data"] != content:
        raise ConfigError(f"{path} was begun on other rows; leave --resume out.")
    found["data"] = content
    done = {one["seed"] for one in found["seeds"]}
    left = [number for number in range(seeds) if number not in done]
    keep = partial(_keep, path, found, told)
    try:
        if executor is None:
            job = _job(task, method, dataset, folder, seeds, quick, fitting)
            for number in left:
                keep(_measured(job, number))
        else:
            where = None if dataset is None else str(dataset.path.absolute())
            calls = [(_seed, name, method, where, str(folder.absolute()), seeds, quick, one) for one in left]
            apart = 0 if code.names_code(method) else 1
            for some in (calls[:apart], calls[apart:]):
                run_calls(some, executor, told=lambda _, seed: keep(seed))
    except EpvfError as error:
        first = min(set(left) - {one["seed"] for one in found["seeds"]})
        found["failed"] = {"seed": first, "error": str(error)}
        result.write(path, found)
        raise
    return found


def _keep(path: Path, found: dict[str, Any], told: Told | None, seed: dict[str, Any]) -> None:
    """Writes the result with one more seed in it."""
    found["seeds"] = sorted([*found["seeds"], seed], key=lambda one: one["seed"])
    found["measures"] = result.summary(found["seeds"])
    for key in ("seconds", "cpu_seconds"):
        found[key] = sum(one[key] for one in found["seeds"])
    found.pop("failed", None)
    result.write(path, found)
    if told is not None:
        told(seed)


def _job(
    task: Task, method: str, dataset: Dataset | None, folder: Path, seeds: int, quick: bool, fitting: Told | None = None
) -> Any:
    """What measures the method on the task, seed by seed."""
    if task.group == "online":
        return Online(task, method, folder, seeds, quick, fitting)
    assert dataset is not None
    return (Predict if task.group == "predict" else Improve)(task, method, dataset, folder, seeds, quick, fitting)


def _measured(job: Any, number: int) -> dict[str, Any]:
    """What one seed did, and what it took."""
    began, busy = time.perf_counter(), time.process_time()
    measures = {key: one if math.isfinite(one) else None for key, one in job.seed(number).items()}
    spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - busy}
    return {"seed": number, "measures": measures, **spent}


def _seed(
    name: str, method: str, dataset: str | None, folder: str, seeds: int, quick: bool, number: int
) -> dict[str, Any]:
    """One seed, in a worker."""
    task = small(TASKS[name]) if quick else TASKS[name]
    opened = None if dataset is None else reader.open(dataset)
    return _measured(_job(task, method, opened, Path(folder), seeds, quick), number)


def _begin(path: Path, name: str, method: str, quick: bool, resume: bool) -> dict[str, Any]:
    """An empty result, or with `resume` the one that is there. Raises ConfigError where a file is in the way."""
    if os.path.lexists(path):
        if not resume:
            raise ConfigError(f"{path} exists already; choose another --out, or go on with --resume.")
        found = result.read(path)
        if (found["task"], found["method"], found["small"]) != (name, method, quick):
            raise ConfigError(f"{path} is a result of another task or method; choose another --out.")
        return found
    task, made = TASKS[name], provenance()
    found = {
        "format": result.FORMAT,
        "task": name,
        "group": task.group,
        "headline": task.headline,
        "method": method,
        "small": quick,
        "data": {},
        "seeds": [],
        "measures": {},
        "hardware": made["platform"],
        "versions": made["versions"],
        "git": made["git"],
        "who": made.get("who", {}),
    }
    if task.group == "improve":
        found["members"] = MEMBERS
    if code.names_code(method):
        file = Path(method.rpartition(":")[0])
        found["code"] = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
    return found
