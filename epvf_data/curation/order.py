"""Puts the parts of collections in the order of their rows' numbers, by links, while others read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from epvf_data.errors import DatasetError
from epvf_data.provenance import provenance
from epvf_data.store import reader
from epvf_data.store.claims import claim
from epvf_data.store.origins import Seen, leaves_of
from epvf_data.store.part import Part
from epvf_data.store.reader import Dataset
from epvf_data.store.schema import to_json
from epvf_data.store.writer import Writer

GROUP_BYTES = 4 << 20  # of file names and hashes in one record, which has a limit
GROUP_PARTS = 1000


def put_in_order(
    path: Path, runs: Sequence[str], progress: Callable[[int, int], None] | None = None
) -> tuple[int, int]:
    """Orders the parts by run, as `runs` has them, and by the numbers of their rows.

    Every commit sorts some more of them at the front, and each leaves the data set whole: it removes parts and adds
    links to their files in their new place. The folders under their old names stay until garbage is collected. Returns
    how many parts were moved and how many bytes could not be linked and were copied.

    Raises DatasetError where compaction has joined rows out of order.
    """
    dataset = reader.open(path)
    wanted = {part.entry.id: key for part, key in zip(dataset.parts, _keys(dataset, runs), strict=True)}
    now = list(dataset.parts)
    goal = sorted(now, key=lambda part: wanted[part.entry.id])
    total = sum(part is not other for part, other in zip(now, goal, strict=True))
    moved = 0
    if not total:
        return 0, 0
    with Writer.open(path, dataset.env) as writer:
        begin = 0
        while (begin := _sorted(now, goal, begin)) < len(goal):
            group = _group(goal, begin)
            if not any(part is now[begin] for part in group):
                group.append(now[begin])  # the first one that goes says where the others come
            came_from = [[dataset.record_of(part).number, part.entry.rows] for part in group]
            record = writer.replace(
                [part.entry.id for part in group],
                group,
                provenance(verb="finalize", arguments={}, rows_of=came_from),
                link=True,
            )
            moved += len(group)
            dataset = dataset.refresh()
            fresh = {part.entry.id: part for part in dataset.parts}
            names = {part.entry.id: entry.id for part, entry in zip(group, record.add, strict=True)}
            goal = [fresh[names.get(part.entry.id, part.entry.id)] for part in goal]
            now = list(dataset.parts)
            if progress is not None:
                progress(min(begin + len(group), total), total)
        return moved, writer.bytes_copied


def _sorted(now: Sequence[Part], goal: Sequence[Part], begin: int) -> int:
    """The first place from `begin` on where another part stands than shall."""
    while begin < len(goal) and now[begin].entry.id == goal[begin].entry.id:
        begin += 1
    return begin


def _group(goal: Sequence[Part], begin: int) -> list[Part]:
    """Some parts from there on, as many as a record has room for."""
    group, size = [], 0
    for part in goal[begin : begin + GROUP_PARTS]:
        size += len(to_json(dict(part.entry.files)))
        if group and size > GROUP_BYTES:
            break
        group.append(part)
    return group


def _keys(dataset: Dataset, runs: Sequence[str]) -> list[tuple[int, int]]:
    """The place of each part: that of its run, and the number of its first row.

    Raises DatasetError where a part holds rows that do not follow one another.
    """
    keys: list[tuple[int, int]] = []
    taken: Counter[str] = Counter()  # rows of each commit that came before
    seen: Seen = {}
    for part in dataset.parts:
        spans: list[tuple[str, int, int]] = []
        for record, rows in leaves_of(dataset, part.entry, seen):
            found = claim(record.provenance)
            if found is None:
                raise DatasetError(f"commit {record.number} of {dataset.path} holds rows without numbers.")
            first = found.first + taken[record.sha256]
            taken[record.sha256] += rows
            if spans and (spans[-1][0], spans[-1][2]) != (found.run, first):
                raise DatasetError(
                    f"{dataset.path} was compacted before it was in order, so that its rows cannot be put in order any "
                    "more; none is missing, and none is there twice."
                )
            spans.append((found.run, first, first + rows))
        keys.append((runs.index(spans[0][0]), spans[0][1]))
    return keys
