"""Many data sets as one: the union of their architectures, and every row once."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from epvf_data.curation.rewrite import Rewriter, sources
from epvf_data.curation.rowkeys import row_numbers
from epvf_data.errors import DatasetError, EnvironmentMismatchError, EpvfWarning
from epvf_data.store import reader
from epvf_data.store.identity import changed, expect, functions_of, join
from epvf_data.store.origins import derived
from epvf_data.store.part import Part
from epvf_data.store.reader import Dataset
from epvf_data.store.writer import Writer

CURE = "merge them with --other-environments if their returns can be compared"


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

    Sources of another environment than the first, or of one whose functions computed something else, are refused. With
    `other_environments` they are taken, and the new data set is of an environment that stands for all of them (see
    `store.identity`); each commit's provenance says which one its rows came from. `progress(rows, all rows)`.

    Raises EnvironmentMismatchError, DatasetError where `out` exists or nothing is to be merged, CorruptDatasetError
    where a source is damaged, StorageError if the disk refuses.
    """
    opened = [reader.open(path) for path in paths]
    if not opened or not any(dataset.rows for dataset in opened):
        raise DatasetError("there are no rows to merge; name data sets that hold some.")
    if not other_environments:
        check_same(opened, CURE)
    env = join(dataset.env for dataset in opened)
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


def check_same(opened: Sequence[Dataset], cure: str) -> None:
    """Raises EnvironmentMismatchError unless all data sets are of one environment, which computes the same in all."""
    first, known = opened[0], functions_of(opened[0])
    for dataset in opened[1:]:
        sentence = f"{dataset.path} holds rows of {dataset.env.name}, {first.path} of {first.env.name}"
        expect(dataset.env, first.env, sentence, cure)
        found = functions_of(dataset)
        verdicts = [changed(known, functions) for functions in found]
        if names := next(filter(None, verdicts), None):
            raise EnvironmentMismatchError(
                f"{dataset.path} holds rows that another {', '.join(names)} of {dataset.env.name} gave than those in "
                f"{first.path}, and its version is {first.env.version} in both: {cure}."
            )
        if None in verdicts or (known and not found):
            warnings.warn(
                f"nothing tells whether {first.env.name} computes the same in {dataset.path} and {first.path}, which "
                f"other versions of JAX or of this program made; its own version is {first.env.version} in both.",
                EpvfWarning,
                stacklevel=3,
            )
        known += found


class _Tally:
    """Counts each row by halves: it is looked at, and then copied."""

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
