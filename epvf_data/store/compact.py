"""Joins many small parts into few large ones; the rows and their order stay."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from epvf_data.errors import CorruptDatasetError, DatasetError
from epvf_data.store import reader
from epvf_data.store.extract import part_rows, row_bytes
from epvf_data.store.part import Part
from epvf_data.store.schema import MAX_PART_ROWS, Rows, to_json
from epvf_data.store.writer import Writer

TARGET_BYTES = 128 << 20


@dataclass(frozen=True)
class CompactReport:
    """How many parts there were and are, and how many rows and bytes were written again."""

    dataset: str
    rows: int
    parts_before: int
    parts_after: int
    rows_rewritten: int
    bytes_rewritten: int


def compact(
    path: str | os.PathLike[str],
    *,
    target_bytes: int = TARGET_BYTES,
    provenance: Mapping[str, Any] = MappingProxyType({}),
    progress: Callable[[int, int], None] | None = None,
) -> CompactReport:
    """Joins neighbouring parts of one architecture until each has about `target_bytes`, run by run.

    Each run is one commit that removes the old parts and adds the new one in their place, so an interruption loses
    nothing and a second call goes on. Others may read and write meanwhile. The old parts stay on disk until garbage is
    collected. About three times `target_bytes` of memory are needed. `progress(rows, all rows)` is called run by run.

    Raises DatasetError if another process compacts the same parts at the same time, CorruptDatasetError where a part is
    damaged, StorageError if the disk refuses.
    """
    dataset = reader.open(path)
    runs = list(_runs(dataset.parts, target_bytes))
    total = sum(part.entry.rows for run in runs for part in run)
    done = written = 0
    with Writer.open(path, dataset.env) as writer:
        for run in runs:
            rows = Rows.concatenate([part_rows(part) for part in run])
            # The commits whose rows these are, in order, as [number, rows]: their provenance goes on to hold.
            came_from = [[dataset.record_of(part).number, part.entry.rows] for part in run]
            try:
                record = writer.replace([part.entry.id for part in run], [rows], {**provenance, "rows_of": came_from})
            except CorruptDatasetError as error:
                now = {part.entry.id for part in reader.open(path).parts}
                if all(part.entry.id in now for part in run):
                    raise
                raise DatasetError(
                    f"another process compacts {path} at the same time; nothing is lost, let one finish."
                ) from error
            done += len(rows)
            written += sum(size for part in record.add for size, _ in part.files.values())
            if progress is not None:
                progress(done, total)
    after = reader.open(path)
    return CompactReport(str(Path(path)), after.rows, len(dataset.parts), len(after.parts), done, written)


def _runs(parts: Sequence[Part], target_bytes: int) -> Iterator[list[Part]]:
    """Neighbours of one architecture and one kind that fit together into one part, at least two each."""
    for architecture in dict.fromkeys(part.entry.architecture for part in parts):
        run: list[Part] = []
        rows = size = 0
        for part in (part for part in parts if part.entry.architecture == architecture):
            more, count = row_bytes(part) * part.entry.rows, part.entry.rows
            fits = rows + count <= MAX_PART_ROWS and size + more <= target_bytes
            if run and not (fits and kind(part) == kind(run[-1])):
                if len(run) > 1:
                    yield run
                run, rows, size = [], 0, 0
            run, rows, size = [*run, part], rows + count, size + more
        if len(run) > 1:
            yield run


def kind(part: Part) -> tuple[Any, ...]:
    """What two parts must share to be one: architecture, columns, episodes, probing states, discount and simulation."""
    attributes = part.group.attributes
    shapes = tuple((name, part.layout(name).shape[1:]) for name in part.names)
    return part.entry.architecture, part.entry.probe, attributes["discount"], to_json(attributes["simulation"]), shapes
