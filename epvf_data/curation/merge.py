"""Many data sets as one: the union of their architectures, and every row once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epvf_data.curation.rewrite import Rewriter, sources
from epvf_data.curation.rowkeys import row_numbers
from epvf_data.errors import DatasetError, EnvironmentMismatchError
from epvf_data.store import reader
from epvf_data.store.origins import derived
from epvf_data.store.part import Part
from epvf_data.store.reader import Dataset
from epvf_data.store.writer import Writer


@dataclass(frozen=True)
class MergeReport:
    """What the new data set holds; `rows_repeated` were left out because they were there already."""

    dataset: str
    sources: list[str]
    rows: int
    rows_repeated: int
    architectures: int
    commits: int
    licences: tuple[str, ...]  # of all sources whose card states one


def merge(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    other_environments: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Makes the new data set `out` of the rows of all sources, in order.

    A row that is there twice (architecture, parameters, lineage, seeds and outcomes equal) is kept once. Parts without
    such rows are copied byte by byte, checked against their SHA-256. Each commit becomes one commit, with its
    provenance under `origins`. `out` appears when it is complete. Memory: some 300 MB and 60 bytes a row.
    `progress(rows, all rows)` counts half of a row when it was looked at and half when it was copied.

    Sources of another environment than the first are refused, or with `other_environments` taken as if they were rows
    of the first one's; each commit's provenance says which environment its rows came from.

    Raises EnvironmentMismatchError, DatasetError where `out` exists or nothing is to be merged, CorruptDatasetError
    where a source is damaged, StorageError if the disk refuses.
    """
    opened = [reader.open(path) for path in paths]
    if not opened or not any(dataset.rows for dataset in opened):
        raise DatasetError("there are no rows to merge; name data sets that hold some.")
    env = opened[0].env
    for dataset in opened[1:]:
        if dataset.env.digest != env.digest and not other_environments:
            raise EnvironmentMismatchError(
                f"{dataset.path} holds rows of {dataset.env.name} (digest {dataset.env.digest[:12]}), "
                f"{opened[0].path} of {env.name} (digest {env.digest[:12]}); merge them with --other-environments if "
                "their returns can be compared."
            )
    tally = _Tally(progress, sum(dataset.rows for dataset in opened))
    with Writer.create(out, env) as writer:
        numbers = iter(row_numbers([part for dataset in opened for part in dataset.parts], tally.advance))
        seen = left_out = 0
        for dataset in opened:
            for parts in _by_commit(dataset):
                twice = []
                for part in parts:
                    twice.append(next(numbers) < np.arange(seen, seen + part.entry.rows))  # an earlier row is the same
                    seen += part.entry.rows
                left_out += sum(int(mask.sum()) for mask in twice)
                _copy(dataset, parts, twice, writer)
                tally.advance(sum(map(len, twice)))
    made = reader.open(out)
    names = [str(Path(path)) for path in paths]
    return MergeReport(
        str(Path(out)), names, made.rows, left_out, len(made.architectures), len(made.commits), made.licences
    )


class _Tally:
    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def advance(self, rows: int) -> None:
        self._done += rows
        if self._progress is not None:
            self._progress(self._done // 2, self._total)


def _by_commit(dataset: Dataset) -> list[list[Part]]:
    """Neighbouring parts of one commit."""
    groups: list[list[Part]] = []
    for part in dataset.parts:
        if groups and dataset.record_of(groups[-1][-1]) is dataset.record_of(part):
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def _copy(dataset: Dataset, parts: Sequence[Part], twice: Sequence[np.ndarray], writer: Writer) -> None:
    arguments = {"environment": dataset.env.to_dict()} if dataset.env.digest != writer.env.digest else {}
    if arguments or any(mask.any() for mask in twice):
        rewriter = Rewriter(writer, "merge", arguments)
        for part, mask in zip(parts, twice, strict=True):
            rewriter.add(dataset, part, np.flatnonzero(~mask))
        rewriter.flush()
    else:
        origins = sources(dataset, ((part, np.arange(part.entry.rows)) for part in parts))
        writer.commit(parts, derived("merge", {}, origins, dataset.licences))
