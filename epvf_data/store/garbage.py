"""Removes what no reader needs: leftovers of interrupted writes, and parts that compaction has replaced."""

from __future__ import annotations

import os
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from epvf_data.errors import StorageError
from epvf_data.store.commit import PARTS, PROBES, ROOT, STAGING, live_parts, read_chain, record_path
from epvf_data.store.durable import discard, flush, lock, make_folder, storage_errors
from epvf_data.store.root import read_root

GRACE = 86_400.0  # seconds


@dataclass(frozen=True)
class GarbageReport:
    """What was removed, or would be (`dry_run`), and what has to wait for its grace period to end."""

    dataset: str
    dry_run: bool
    parts: int
    staging: int
    probes: int
    bytes: int
    waiting: int


def collect_garbage(
    path: str | os.PathLike[str],
    *,
    grace: float = GRACE,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> GarbageReport:
    """Removes everything in no use that has been so for `grace` seconds, and nothing else.

    In no use are: entries of `staging`, parts and probing states in no commit record, and parts that a later commit
    replaced. The grace period is for readers that opened the data set before a compaction, and for writers on other
    machines whose locks this file system does not show. An interruption leaves less garbage, nothing else. Raises
    StorageError while a writer is at work or if the disk refuses, DatasetError where the data set is not in order.
    """
    root = Path(path)
    read_root(root)
    with storage_errors(root, "collecting garbage"):
        make_folder(root / STAGING)
        with lock(root / STAGING, exclusive=True) as free:
            if not free:
                raise StorageError(f"a writer is at work in {root}; collect garbage when it has finished.")
            return _collect(root, grace, dry_run, progress)


def _collect(root: Path, grace: float, dry_run: bool, progress: Callable[[int, int], None] | None) -> GarbageReport:
    now = time.time()
    found = list(_unused(root))
    ripe = [(kind, item) for kind, item, since in found if now - since >= grace]
    size = 0
    for number, (kind, item) in enumerate(ripe):
        size += _bytes(item)
        if not dry_run:
            _remove(root, kind, item)
        if progress is not None:
            progress(number + 1, len(ripe))
    if ripe and not dry_run:
        for folder in (PARTS, PROBES, STAGING):
            flush(root / folder)
    counts = {kind: sum(which == kind for which, _ in ripe) for kind in (PARTS, STAGING, PROBES)}
    return GarbageReport(
        str(root), dry_run, counts[PARTS], counts[STAGING], counts[PROBES], size, len(found) - len(ripe)
    )


def _unused(root: Path) -> Iterator[tuple[str, Path, float]]:
    """Folder, path and the time since when nobody needs it."""
    records = list(read_chain(root))
    live = {part.id for part in live_parts(records)}
    removed_by = {name: record.number for record in records for name in record.remove}
    named = {probe for record in records for probe in record.probes}
    for folder, needed in ((STAGING, set()), (PARTS, live), (PROBES, named)):
        for item in sorted((root / folder).iterdir()):
            if item.name in {*needed, ROOT}:
                continue
            if folder == PARTS and item.name in removed_by:
                yield folder, item, record_path(root, removed_by[item.name]).lstat().st_mtime
            else:
                yield folder, item, _newest(item)


def _newest(item: Path) -> float:
    """The latest change of anything in a tree; links are not followed."""
    return max(inner.lstat().st_mtime for inner in (item, *_below(item)))


def _bytes(item: Path) -> int:
    return sum(status.st_size for inner in (item, *_below(item)) if stat.S_ISREG((status := inner.lstat()).st_mode))


def _below(item: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(item):
        yield from (Path(here, name) for name in (*folders, *files))


def _remove(root: Path, kind: str, item: Path) -> None:
    """Takes a folder out of its place in one step before its files go: a reader sees all of it or nothing."""
    if kind != STAGING:
        aside = root / STAGING / uuid.uuid4().hex
        os.rename(item, aside)  # noqa: PTH104
        item = aside
    discard(item)
