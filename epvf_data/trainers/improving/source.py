"""What is improved on: a data set, or a run of offline training and the data set that it was fitted on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from epvf_data.errors import RunError
from epvf_data.improvement.problem import Problem
from epvf_data.policies.loading import PolicyCode
from epvf_data.recording.task import with_policy
from epvf_data.store import reader
from epvf_data.store.reader import Dataset
from epvf_data.store.table import Table
from epvf_data.trainers import rundir
from epvf_data.trainers.evaluation.gradients import local_spread
from epvf_data.trainers.improving.propose import Critics
from epvf_data.trainers.improving.settings import CRITIC, ImproveConfig
from epvf_data.trainers.offline.fitted import FittedSplit
from epvf_data.trainers.offline.run import LoadedRun, load_run, train_offline


class Given(NamedTuple):
    """The rows, the parameters' spread over them, and critics where the method has some."""

    dataset: Dataset
    table: Table
    spread: Float[np.ndarray, "P"]
    critics: Critics | None
    run: Path | None  # of the critics


def open_given(
    source: Path,
    config: ImproveConfig,
    out: Path,
    *,
    trained_on: Path | None = None,
    policy: PolicyCode | None = None,
    resume: bool = False,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Given:
    """Opens the source; of a data set, critics are fitted into OUT/critic first where the method needs them.

    With `resume`, critics that are there already are taken. Raises RunError or DatasetError for what is neither,
    DatasetError where parameters are withheld.
    """
    learns = config.recipe.learns
    if os.path.lexists(source / rundir.CONFIG):
        loaded = load_run(source, trained_on, config.own_critic, policy)
        _check_run(loaded, config, source)
        return _of_run(loaded, learns, source)
    opened = with_policy(reader.open(source), policy)
    if not learns:
        table = opened.table(config.fit.architecture)
        table.row_shape("params")
        return Given(opened, table, local_spread(table), None, None)
    for item in opened.architectures:
        opened.table(item.id).row_shape("params")  # before anything is fitted
    run = out / CRITIC
    there = resume and (run / rundir.CONFIG).is_file()
    train_offline(opened, config.fitting, run, policy=policy, resume=there, progress=progress)
    return _of_run(load_run(run, opened, config.own_critic, policy), True, run)


def _check_run(loaded: LoadedRun, config: ImproveConfig, source: Path) -> None:
    for name, wanted in config.recipe.critic.items():
        if getattr(loaded.config, name) in (None, "mse") and wanted:
            raise RunError(
                f"{source} was fitted without {name}, which the method {config.method_name} needs; name the data set "
                f"in its place, or fit a run with --set {name}={wanted}."
            )


def _of_run(loaded: LoadedRun, learns: bool, run: Path) -> Given:
    """The split whose critics saw most families, and the architecture with most rows."""
    there = {name: found for name, found in loaded.fitted.items() if isinstance(found, FittedSplit)}
    fitted = there.get("iid") or next(iter(there.values()))
    place = int(np.argmax([len(rows) for rows in fitted.source.local(fitted.ground.split.train)]))
    table = fitted.source.tables[place]
    table.row_shape("params")
    return Given(loaded.dataset, table, local_spread(table), Critics(fitted, place) if learns else None, run)


def problem_of(dataset: Dataset, table: Table, starts: Float[np.ndarray, "n P"], count: int, seed: int) -> Problem:
    """The rows of an architecture as a method of the user's is given them."""
    theta = table.take("params", np.arange(table.rows))
    return Problem(
        spec=table.spec,
        theta=theta,
        returns=table.mean_returns(),
        spread=local_spread(table),
        starts=starts,
        count=count,
        seed=seed,
        env=dataset.env.name,
        horizon=dataset.env.horizon,
        probe_states=table.probe_states,
    )
