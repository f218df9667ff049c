"""Shards of one collection as one data set: complete, every row once, in the order of one uninterrupted run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from epvf_data.curation.alike import check_alike, labels
from epvf_data.curation.merge import check_same
from epvf_data.curation.order import put_in_order
from epvf_data.errors import CorruptDatasetError, DatasetError
from epvf_data.store import reader
from epvf_data.store.claims import Claim, claim, gaps
from epvf_data.store.commit import CommitRecord
from epvf_data.store.creation import unmade
from epvf_data.store.extract import part_rows
from epvf_data.store.part import Layouts, Part
from epvf_data.store.reader import Dataset
from epvf_data.store.schema import Rows
from epvf_data.store.writer import Writer

CURE = "leave it out"
_TOGETHER = 32  # commits that wait for the disk together, and that an interruption may cost
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Missing:
    """Rows `first` to before `end` of a run that no shard holds. A recipe has a run for each `architecture`."""

    run: str
    architecture: str | None
    first: int
    end: int


@dataclass(frozen=True)
class FinalizeReport:
    """What `finalize` found and did. `rows_doubled` of the shards' rows were in two, and are there once."""

    dataset: str
    rows: int
    rows_wanted: int
    missing: list[Missing]
    rows_adopted: int
    rows_doubled: int
    parts_moved: int  # into their order
    bytes_copied: int  # of parts that could not be linked
    shards: list[str]


class _Piece(NamedTuple):
    """The rows of one commit of a collection."""

    dataset: Dataset
    record: CommitRecord
    claim: Claim


def finalize(
    out: str | os.PathLike[str],
    shards: Sequence[str | os.PathLike[str]] = (),
    *,
    mixed: bool = False,
    progress: Progress | None = None,
) -> FinalizeReport:
    """Adds what `out` lacks from the shards' data sets, says what no one holds, and puts the rows in order.

    `out` may be the data set that all shards were collected into, or be made of those that each collected into its
    own. Parts are taken over by hard links, which take no room, and copied where the file system refuses those; their
    commits keep their provenance, so that `collect` goes on in `out`. Rows that are in several shards are taken once.
    Once no row is missing, the rows stand in the order of their numbers, as after one run in one process. A call that
    was interrupted, or found rows missing, goes on when it is made again. `progress(parts, all parts)`.

    Raises DatasetError where there is nothing to join, where shards are of different settings, versions of packages or
    devices (with `mixed` they are taken), or not as `collect` left them; EnvironmentMismatchError for another
    environment; CorruptDatasetError where a shard is damaged; StorageError if the disk refuses.
    """
    root = Path(out)
    opened = [reader.open(path) for path in shards]
    if any(dataset.path.resolve() == root.resolve() for dataset in opened):
        raise DatasetError(f"{root} is named twice, as the data set to make and as a shard of it; {CURE}.")
    held = [] if unmade(root) else [reader.open(root)]
    if not any(dataset.rows for dataset in (*held, *opened)):
        raise DatasetError(f"there are no rows to finalize in {root}; collect some, or name the shards that hold them.")
    known: Layouts = {}  # the shards' parts share their metadata
    for dataset in opened:
        for part in dataset.parts:
            part.known = known
    check_same([*held, *opened], CURE)
    old = [piece for dataset in held for piece in _pieces(dataset, joined=True)]
    new = [piece for dataset in opened for piece in _pieces(dataset, joined=False)]
    if not mixed:
        check_alike([(str(piece.dataset.path), piece.record.provenance) for piece in (*old, *new)])
    runs = list(dict.fromkeys(piece.claim.run for piece in (*old, *new)))
    new.sort(key=lambda piece: (runs.index(piece.claim.run), piece.claim.first))
    there = {run: _joined([piece.claim for piece in old if piece.claim.run == run]) for run in runs}
    shared = {run: _joined([piece.claim for piece in new if piece.claim.run == run]) for run in runs}
    copied = adopted = 0
    if new:
        with Writer.open(root, (held or opened)[0].env) as writer:
            adopted = _adopt(new, there, writer, progress)
            copied = writer.bytes_copied
    missing = list(_missing([piece.record.provenance for piece in (*old, *new)], there))
    moved, again = put_in_order(root, runs, progress) if not missing else (0, 0)
    rows = reader.open(root).rows
    return FinalizeReport(
        dataset=str(root),
        rows=rows,
        rows_wanted=rows + sum(gap.end - gap.first for gap in missing),
        missing=missing,
        rows_adopted=adopted,
        rows_doubled=sum(piece.record.rows for piece in new) - sum(map(_count, shared.values())),
        parts_moved=moved,
        bytes_copied=copied + again,
        shards=[str(path) for path in shards],
    )


def _pieces(dataset: Dataset, joined: bool) -> Iterator[_Piece]:
    """The commits that made the data set's rows; with `joined`, compaction may have joined their parts since.

    Raises DatasetError where rows have no numbers, or, unless `joined`, are not as `collect` left them.
    """
    for record in dataset.commits:
        if record.remove:
            if joined:
                continue
            raise DatasetError(f"{dataset.path} was compacted; finalize first and add --compact.")
        found = claim(record.provenance)
        if found is None or found.unit != "rows":
            raise DatasetError(
                f"commit {record.number} of {dataset.path} holds rows without numbers, which `collect` did not make; "
                "`epvf-data merge` joins data sets of any kind."
            )
        if not 0 <= found.first < found.end == found.first + record.rows:
            raise CorruptDatasetError(
                f"commit {record.number} of {dataset.path} says to hold rows {found.first} to {found.end - 1}, and has "
                f"{record.rows}."
            )
        yield _Piece(dataset, record, found)


def _joined(claims: Sequence[Claim]) -> list[tuple[int, int]]:
    """The numbers of these rows as few [first, end), in order."""
    found: list[tuple[int, int]] = []
    for one in sorted(claims):
        if found and one.first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], one.end))
        else:
            found.append((one.first, one.end))
    return found


def _count(ranges: Sequence[tuple[int, int]]) -> int:
    return sum(end - first for first, end in ranges)


def _adopt(
    pieces: Sequence[_Piece],
    there: dict[str, list[tuple[int, int]]],
    writer: Writer,
    progress: Progress | None,
) -> int:
    """Commits those of the rows that are not `there`, which they are afterwards. Returns how many."""
    waiting: list[tuple[Sequence[Rows | Part], dict[str, Any]]] = []
    made = 0
    for done, piece in enumerate(pieces):
        first, end = piece.claim.first, piece.claim.end
        known, entries = there[piece.claim.run], {entry.id for entry in piece.record.add}
        parts = [part for part in piece.dataset.parts if part.entry.id in entries]
        for free in list(gaps(range(first, end), known)):
            rows: Sequence[Rows | Part] = parts
            if len(free) < end - first:  # another shard made the others, in batches of another size
                whole = Rows.concatenate([part_rows(part) for part in parts])
                rows = [whole.select(slice(free.start - first, free.stop - first))]
            waiting.append((rows, {**piece.record.provenance, "rows": [free.start, free.stop]}))
        known[:] = _joined([*(Claim("", "", *one) for one in known), Claim("", "", first, end)])
        if len(waiting) >= _TOGETHER or done + 1 == len(pieces) or (waiting and waiting[-1][0] is not parts):
            # None where a process is still collecting into the data set: it was faster.
            made += sum(record.rows for record in writer.commit_all(waiting, link=True) if record is not None)
            waiting.clear()
            if progress is not None:
                progress(done + 1, len(pieces))
    return made


def _missing(made: Sequence[Mapping[str, Any]], there: Mapping[str, Sequence[tuple[int, int]]]) -> Iterator[Missing]:
    """The rows that are wanted and not there, of each run; those of a recipe's architecture without any among them."""
    found: dict[str, str | None] = {}
    wanted: dict[str, int] = {}
    for one in made:
        run, number = one["run"], one.get("rows_wanted")
        found.setdefault(run, labels(one)[0])
        if type(number) is not int:  # of an earlier release
            config = one.get("config")
            number = (config.get("policies") or config.get("envs")) if isinstance(config, dict) else None
        ends = [end for _, end in there[run]]
        wanted[run] = max(wanted.get(run, 0), number if type(number) is int else 0, *ends)
    for run, rows in wanted.items():
        yield from (Missing(run, found[run], gap.start, gap.stop) for gap in gaps(range(rows), there[run]))
    for name in dict.fromkeys(name for one in made for name in labels(one)[1]):
        if name not in found.values():
            yield Missing("", name, 0, 0)
