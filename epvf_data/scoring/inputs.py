"""What is scored: policy files and rows of data sets, checked and read before anything heavy is imported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from epvf_data import envs
from epvf_data.config import MAX_HORIZON
from epvf_data.errors import ConfigError, DatasetError
from epvf_data.policies.files import load_policy, read_notes
from epvf_data.policies.kinds import Spec
from epvf_data.recording.task import environment_of
from epvf_data.scoring.settings import MAX_ROWS
from epvf_data.store import reader
from epvf_data.store.pick import pick_row
from epvf_data.store.reader import Dataset
from epvf_data.store.table import Table


@dataclass(frozen=True)
class Candidate:
    """One policy to be scored: of a file, or a row of a data set."""

    name: str
    spec: Spec
    theta: Float[np.ndarray, "P"]
    env: str | None = None  # of a file
    horizon: int | None = None
    dataset: Dataset | None = None
    row: int | None = None
    stored: float | None = None  # mean return in the data set


def candidates(
    policies: Sequence[str | os.PathLike[str]],
    row: str = "best",
    architecture: str | None = None,
    env: str | None = None,
) -> list[Candidate]:
    """The policies of the files, and of each data set among them the row that `row` names.

    Raises ConfigError, FileError or DatasetError for what is no policy, and where nothing says of which environment.
    """
    if not policies:
        raise ConfigError("no policy was named; name policy files or data sets.")
    found = []
    for policy in policies:
        if os.path.isdir(policy):  # noqa: PTH112 (any length)
            found.append(_row(policy, row, architecture))
        else:
            found.append(_file(Path(policy), env))
    return found


def _row(path: str | os.PathLike[str], row: str, architecture: str | None) -> Candidate:
    dataset = reader.open(path)
    table, number = pick_row(dataset, row, architecture)
    theta, stored = table.take("params", np.array([number]))[0], float(table.mean_returns()[number])
    return Candidate(f"{path} row {number}", table.spec, theta, dataset=dataset, row=number, stored=stored)


def _file(path: Path, env: str | None) -> Candidate:
    spec, theta = load_policy(path)
    name = environment_of(path, spec) if env is None else env
    envs.check_name(name)
    noted = read_notes(path).get("horizon", "")
    horizon = int(noted) if noted.isdecimal() and len(noted) < 10 and 1 <= int(noted) <= MAX_HORIZON else None
    return Candidate(str(path), spec, theta, name, horizon)


@dataclass(frozen=True)
class Best:
    """The best rows of a data set by their stored mean returns, the best first: table, row and mean of each."""

    tables: list[Table]
    rows: list[int]
    stored: Float[np.ndarray, "n"]


def best_rows(dataset: Dataset, count: int, architecture: str | None = None) -> Best:
    """The `count` best rows, among all architectures or those of one. Raises DatasetError where there are none."""
    if not 1 <= count <= MAX_ROWS:
        raise ConfigError(f"the best {count:,} rows were asked for; ask for 1 to {MAX_ROWS:,}.")
    several = architecture is None and len(dataset.architectures) > 1
    names = [item.id for item in dataset.architectures] if several else [architecture]
    tables = [dataset.table(name) for name in names]
    means = [table.mean_returns() for table in tables]
    every, place = np.concatenate(means), np.repeat(np.arange(len(tables)), [len(one) for one in means])
    number = np.concatenate([np.arange(len(one)) for one in means])
    good = np.flatnonzero(np.isfinite(every))
    if not good.size:
        raise DatasetError(f"no row of {dataset.path} has a finite return.")
    chosen = good[np.argsort(-every[good], kind="stable")][:count]
    for one in {int(place[item]) for item in chosen}:
        tables[one].row_shape("params")  # DatasetError where they are withheld
    return Best([tables[place[one]] for one in chosen], [int(number[one]) for one in chosen], every[chosen])


def check_folder(out: Path, force: bool) -> None:
    """Raises DatasetError unless files can go to this folder: it is not there, is empty, or `force` allows it."""
    if os.path.lexists(out) and (not out.is_dir() or (any(out.iterdir()) and not force)):
        raise DatasetError(f"{out} exists already; choose another --out, remove it first, or add --force.")
