"""What offline training and evaluation are given, checked before anything heavy is imported: runs, rows, policies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epvf_data import code
from epvf_data.config import build
from epvf_data.critics.families import family_of
from epvf_data.errors import ConfigError, DatasetError, RunError
from epvf_data.store import reader
from epvf_data.store.reader import Dataset
from epvf_data.store.table import Table
from epvf_data.trainers import rundir
from epvf_data.trainers.offline.settings import OfflineConfig

_LONGEST = 4096  # characters of a path


def open_inputs(dataset: str | Path | Dataset, config: OfflineConfig, directory: Path, resume: bool) -> Dataset:
    """The data set to learn from. Raises DatasetError where it, or the policies that are named, are not there, and
    RunError for a directory that is taken, or where there is no run to resume."""
    if not resume:
        rundir.check_free(directory)
    opened = reader.open(dataset) if isinstance(dataset, (str, Path)) else dataset
    if not code.names_code(config.critic):  # or nothing is known of it yet
        tables_of(opened, config)
    if resume:
        stored_run(directory)
    return opened


def tables_of(opened: Dataset, config: OfflineConfig) -> list[Table]:
    """The rows that the settings name: those of one architecture, or of all where the critic can read them together."""
    family = family_of(config.critic)
    several = config.architecture is None and family.mixed and len(opened.architectures) > 1
    return [opened.table(item.id) for item in opened.architectures] if several else [opened.table(config.architecture)]


def stored_run(directory: Path) -> dict[str, Any]:
    """What config.json holds. Raises RunError where it is of another kind of run, or none."""
    rundir.check_kind(directory, "offline")
    found = rundir.read_run(directory)
    try:
        build(_Rows, found["dataset"] if isinstance(found["dataset"], dict) else {})
    except (ConfigError, TypeError) as error:
        raise RunError(f"{directory} does not say which rows it was trained on; start a new run.") from error
    config = found["config"]  # of 0.1.0 one family in ten was held out, once
    config = {"folds": 1, **config} if isinstance(config, dict) else config
    return {**found, "config": rundir.stored_settings(directory, OfflineConfig, config)}


@dataclass(frozen=True)
class _Rows:
    """Which rows a run was trained on."""

    path: str
    content: str


def own_rows(directory: Path, path: str) -> Dataset:
    """The data set that a run names. Whoever sent the run chose the name: of that place nothing is told or used, and
    only its content's hash is made, until that is known to be the hash of the run's rows."""
    if not path.isprintable() or len(path) > _LONGEST or not Path(path).is_absolute():
        raise RunError(f"{directory} names no data set by its path; say where it lies with --trained-on.")
    try:
        return reader.open(path)
    except DatasetError as error:
        raise RunError(
            f"the data set of {directory} cannot be opened; say where it lies with --trained-on, if it has moved: "
            f"{error}"
        ) from error
