"""The data set of a task: made by its recipe in the folder of the benchmark's data, or one that is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from epvf_data.benchmark.tasks import Rows, Task, rows_of
from epvf_data.collectors.collect import collect
from epvf_data.collectors.setting import collect_config
from epvf_data.errors import DatasetError
from epvf_data.policies.spec import PolicySpec
from epvf_data.recipes import tables
from epvf_data.recipes.collect import collect_recipe
from epvf_data.store import reader
from epvf_data.store.creation import unmade
from epvf_data.store.digest import content_hash
from epvf_data.store.reader import Dataset

Progress = Callable[[int, int, int], None]


def rows_for(task: Task, work: Path, given: Path | None, progress: Progress | None = None) -> Dataset:
    """The task's data set: `given`, or WORK/NAME.zarr, which is made, or gone on with, where it is not whole.

    Raises DatasetError for a given data set of another environment or of too few rows.
    """
    assert task.data is not None
    wanted = rows_of(task.data)
    path = work / f"{task.data}.zarr" if given is None else given
    if given is None:
        make(wanted, path, progress)
    found = reader.open(path)
    rows = sum(item.rows for item in found.architectures)
    if found.env.name != wanted.env or rows != wanted.policies:
        raise DatasetError(
            f"{path} has {rows:,} rows of {found.env.name}; {task.name} is of {wanted.policies:,} rows of "
            f"{wanted.env}, which `{wanted.command}` makes."
        )
    return found


def make(wanted: Rows, path: Path, progress: Progress | None = None) -> None:
    """Makes the rows, as far as they are not there. Raises as `collect` does."""
    resume = not unmade(path)
    if resume and sum(item.rows for item in reader.open(path).architectures) >= wanted.policies:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if wanted.recipe is not None:
        typed = {"policies": wanted.policies}
        recipe = tables.build(tables.read(wanted.recipe, wanted.env, typed), typed)
        collect_recipe(recipe, path, resume=resume, progress=progress)
        return
    if not wanted.hidden:
        settings: dict[str, Any] = {"policies": wanted.policies, **wanted.settings}
        collect(collect_config(wanted.env, **settings), path, resume=resume, progress=progress)
        return
    share = wanted.policies // len(wanted.hidden)
    for number, hidden in enumerate(wanted.hidden):
        part = {"envs": share, "seed": number, "policy.hidden": list(hidden)}
        there = () if unmade(path) else reader.open(path).architectures
        held = sum(item.rows for item in there if isinstance(item.spec, PolicySpec) and item.spec.hidden == hidden)
        if held < share:
            config = collect_config(wanted.env, **part, **wanted.settings)
            collect(config, path, resume=held > 0, mixed=True, progress=progress)


def identity(task: Task, dataset: Dataset) -> dict[str, Any]:
    """What a result says of the rows: `reference` tells whether they are those of our own leaderboard."""
    assert task.data is not None
    wanted, content = rows_of(task.data), content_hash(dataset)
    return {
        "name": task.data,
        "made_by": wanted.command,
        "rows": sum(item.rows for item in dataset.architectures),
        "content": content,
        "reference": content == wanted.content,
    }
