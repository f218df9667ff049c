"""Removes what no reader needs: leftovers of interrupted writes, and parts that compaction has replaced."""

from __future__ import annotations

import os
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from epvf_data.errors import StorageError
from epvf_data.store.commit import live_parts, read_chain, record_path
from epvf_data.store.durable import Folder, discard, flush, lock, move, storage_errors
from epvf_data.store.folders import PARTS, PROBES, ROOT, STAGING, Folders, has_our_form, open_folders
from epvf_data.store.guard import MAX_DEPTH, MAX_FILES
from epvf_data.store.root import read_root
from epvf_data.untrusted import is_litter, printable

GRACE = 86_400.0  # seconds
MOST = 20  # names that are told of what is left alone


@dataclass(frozen=True)
class GarbageReport:
    """What was removed, or would be (`dry_run`), and what has to wait for its grace period to end.

    `foreign` is how many other things lie there that no writer of ours makes, and `names` what some are called.
    """

    dataset: str
    dry_run: bool
    parts: int
    staging: int
    probes: int
    bytes: int
    waiting: int
    foreign: int
    names: tuple[str, ...]


class _Item(NamedTuple):
    """Something in no use: where it lies, since when nobody needs it, its bytes, whether a writer makes such things."""

    kind: str
    name: str
    since: float
    bytes: int
    ours: bool


def collect_garbage(
    path: str | os.PathLike[str],
    *,
    grace: float = GRACE,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> GarbageReport:
    """Removes everything in no use that has been so for `grace` seconds, and nothing else.

    In no use are: drafts in `staging`, parts and probing states in no commit record, and parts that a later commit
    replaced; only what has a name and a shape that a writer makes, in the folders as they were opened, whatever takes
    their place meanwhile. The grace period is for readers that opened the data set before a compaction, and for writers
    on other machines whose locks this file system does not show. An interruption leaves less garbage, nothing else.
    Raises StorageError while a writer is at work or if the disk refuses, DatasetError where the data set is not in
    order.
    """
    root = Path(path)
    read_root(root)
    with storage_errors(root, "collecting garbage"), open_folders(root) as folders:  # noqa: SIM117
        with lock(folders.staging, exclusive=True) as free:
            if not free:
                raise StorageError(f"a writer is at work in {root}; collect garbage when it has finished.")
            return _collect(folders, grace, dry_run, progress)


def _collect(
    folders: Folders, grace: float, dry_run: bool, progress: Callable[[int, int], None] | None
) -> GarbageReport:
    now = time.time()
    found = list(_unused(folders))
    foreign = [f"{item.kind}/{printable(item.name)}" for item in found if not item.ours]
    ripe = [item for item in found if item.ours and now - item.since >= grace]
    for number, item in enumerate(ripe):
        if not dry_run:
            _remove(folders, item)
        if progress is not None:
            progress(number + 1, len(ripe))
    if ripe and not dry_run:
        for folder in (folders.parts, folders.probes, folders.staging):
            flush(folder)
    counts = {kind: sum(item.kind == kind for item in ripe) for kind in (PARTS, STAGING, PROBES)}
    return GarbageReport(
        dataset=str(folders.root.path),
        dry_run=dry_run,
        parts=counts[PARTS],
        staging=counts[STAGING],
        probes=counts[PROBES],
        bytes=sum(item.bytes for item in ripe),
        waiting=len(found) - len(ripe) - len(foreign),
        foreign=len(foreign),
        names=tuple(foreign[:MOST]),
    )


def _unused(folders: Folders) -> Iterator[_Item]:
    root = folders.root.path
    records = list(read_chain(root))
    live = {part.id for part in live_parts(records)}
    removed_by = {name: record.number for record in records for name in record.remove}
    named = {probe for record in records for probe in record.probes}
    for kind, folder, needed in (
        (STAGING, folders.staging, set()),
        (PARTS, folders.parts, live),
        (PROBES, folders.probes, named),
    ):
        for name in folder.names():
            status = folder.status(name)
            if name in {*needed, ROOT} or status is None or is_litter(name):
                continue
            since, size, ours = _measure(folder, name, status)
            if kind == PARTS and name in removed_by:
                since = record_path(root, removed_by[name]).lstat().st_mtime
            yield _Item(kind, name, since, size, ours and has_our_form(kind, name, status.st_mode))


def _measure(folder: Folder, name: str, status: os.stat_result) -> tuple[float, int, bool]:
    """The latest change of anything in a tree, the bytes of its files, and whether a writer makes trees so large.

    Links are not followed.
    """
    if not stat.S_ISDIR(status.st_mode):
        return status.st_mtime, status.st_size, True
    since, size, count = status.st_mtime, 0, 0
    for here, inner, files, descriptor in os.fwalk(name, dir_fd=folder.descriptor):
        for item in (*inner, *files):
            status = os.stat(item, dir_fd=descriptor, follow_symlinks=False)
            since, count = max(since, status.st_mtime), count + 1
            size += status.st_size if stat.S_ISREG(status.st_mode) else 0
        if count > MAX_FILES or here.count("/") > MAX_DEPTH:
            return since, size, False
    return since, size, True


def _remove(folders: Folders, item: _Item) -> None:
    """Takes a folder out of its place in one step before its files go: a reader sees all of it or nothing."""
    name = item.name
    if item.kind != STAGING:
        name = uuid.uuid4().hex
        move(item.name, folders.parts if item.kind == PARTS else folders.probes, folders.staging, name)
    discard(folders.staging, name)
