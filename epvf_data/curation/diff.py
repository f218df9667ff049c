"""What two data sets have in common and what not."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epvf_data.curation.rowkeys import row_numbers
from epvf_data.store import reader
from epvf_data.store.digest import content_hash
from epvf_data.store.reader import Dataset
from epvf_data.store.root import read_root


@dataclass(frozen=True)
class DiffReport:
    """`equal` means the same rows in the same order (the content hashes agree)."""

    datasets: tuple[str, str]
    equal: bool
    environment: list[str]  # the fields of the environment's identity that differ
    architectures: dict[str, tuple[int, int]]  # id → rows in the first and in the second
    sources: dict[str, tuple[int, int]]
    commits: tuple[int, int]
    commits_shared: int  # the same first records
    rows: tuple[int, int]
    rows_in_both: int
    rows_only: tuple[int, int]


def diff(
    first: str | os.PathLike[str], second: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
) -> DiffReport:
    """Compares two data sets row by row.

    A row is the same if architecture, parameters, lineage, seeds and outcomes are. A row that is in one data set
    several times counts once there. `progress(rows, all rows)` is called part by part.
    Raises DatasetError where there is no data set, CorruptDatasetError where one is damaged.
    """
    a, b = reader.open(first), reader.open(second)
    shared = sum(1 for x, y in zip(a.commits, b.commits, strict=False) if x.sha256 == y.sha256)
    same = read_root(a.path) == read_root(b.path) and shared == len(a.commits) == len(b.commits)
    rows, done, total = (a.rows, b.rows), 0, a.rows + b.rows

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    numbers = np.concatenate([np.zeros(0, np.int64), *row_numbers([*a.parts, *b.parts], advance)])
    mine, theirs = np.unique(numbers[: a.rows]), np.unique(numbers[a.rows :])
    both = len(np.intersect1d(mine, theirs, assume_unique=True))
    environment = sorted(k for k, value in a.env.to_dict().items() if value != b.env.to_dict()[k])
    return DiffReport(
        datasets=(str(Path(first)), str(Path(second))),
        equal=same or (rows[0] == rows[1] and both == len(mine) == len(theirs) and content_hash(a) == content_hash(b)),
        environment=environment,
        architectures=_pairs(_rows(a), _rows(b)),
        sources=_pairs(a.summary()["sources"], b.summary()["sources"]),
        commits=(len(a.commits), len(b.commits)),
        commits_shared=shared,
        rows=rows,
        rows_in_both=both,
        rows_only=(len(mine) - both, len(theirs) - both),
    )


def _rows(dataset: Dataset) -> dict[str, int]:
    return {item.id: item.rows for item in dataset.architectures}


def _pairs(a: dict[str, int], b: dict[str, int]) -> dict[str, tuple[int, int]]:
    return {name: (a.get(name, 0), b.get(name, 0)) for name in {**a, **b}}
