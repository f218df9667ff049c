"""What a folder's file system can promise a data set, tried out there: exclusive names, locks, flushed folders."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from epvf_data.errors import DatasetError, StorageError, reason
from epvf_data.store.durable import Folder, inner, make_folder, open_folder, write_file
from epvf_data.store.publishing import WAYS, Refused

_SHARED = ("9p", "afs", "beegfs", "ceph", "cifs", "dvs", "fuse", "glusterfs", "gpfs", "lustre", "nfs", "smb")
_MAX_SKEW = 60.0  # seconds
_FLUSHES = 5


@dataclass(frozen=True)
class PlaceReport:
    """What was tried in a folder. `publish` names how a record gets its name there, None if it cannot be exclusive."""

    path: str
    filesystem: str
    shared: bool  # by several machines, as far as the kind of file system tells
    free_bytes: int
    free_files: int | None
    publish: str | None
    links: bool  # `finalize` need not copy
    locks: bool
    flushes_folders: bool
    flush_seconds: float  # of one small file
    problems: tuple[str, ...]  # no data set can be collected there
    notes: tuple[str, ...]  # what is slower or less safe there, and what to do


def examine(path: Path) -> PlaceReport:
    """Tries it out in a new folder in `path`, which goes again.

    Raises DatasetError where `path` is no folder, StorageError where nothing can be written there.
    """
    if not path.is_dir():
        raise DatasetError(f"{path} is no folder; name the one that data sets shall lie in.")
    try:
        with _trial(path) as folder, inner(folder, "a", make=True) as first, inner(folder, "b", make=True) as second:
            ways = [name for name in WAYS if _exclusive(name, first, second)]
            skew = _skew(folder)
            locks, flushed = _locks(folder), _flushes_folders(folder)
            seconds = _flush_seconds(folder)
    except OSError as error:
        raise StorageError(f"nothing can be written in {path} ({reason(error)}); choose another folder.") from error
    kind, status = _filesystem(path), os.statvfs(path)
    shared = any(kind == name or kind.startswith((f"{name}.", "nfs")) for name in _SHARED)
    problems = []
    if not ways:
        problems.append(
            "there are no hard links and no renames that replace nothing: no commit can be safe from another one."
        )
    return PlaceReport(
        path=str(path),
        filesystem=kind,
        shared=shared,
        free_bytes=shutil.disk_usage(path).free,
        free_files=status.f_favail if status.f_files else None,
        publish=ways[0] if ways else None,
        links="a hard link" in ways,
        locks=locks,
        flushes_folders=flushed,
        flush_seconds=round(seconds, 4),
        problems=tuple(problems),
        notes=tuple(_notes(kind, shared, ways, locks, flushed, skew)),
    )


def _notes(kind: str, shared: bool, ways: list[str], locks: bool, flushed: bool, skew: float) -> Iterator[str]:
    if "a hard link" not in ways:
        yield "files cannot be linked between folders: `finalize` copies the rows of shards instead."
    if not locks:
        yield "there are no locks: run `gc` when nobody writes; its grace period alone guards what is being written."
    elif shared:
        yield f"locks on {kind} may hold on one machine only: `gc` relies on its grace period where others write."
    if not flushed:
        yield "folders cannot be flushed: commits survive a killed process; ask whether the server loses power."
    if skew > _MAX_SKEW:
        yield f"its clock is {skew:,.0f} s from this machine's: give `gc` a longer --grace."


@contextlib.contextmanager
def _trial(path: Path) -> Iterator[Folder]:
    name = f".epvf-data-doctor.{secrets.token_hex(8)}"
    with open_folder(path) as above:
        make_folder(above, name)
        try:
            with inner(above, name) as folder:
                yield folder
        finally:
            shutil.rmtree(name, ignore_errors=True, dir_fd=above.descriptor)


def _exclusive(way: str, first: Folder, second: Folder) -> bool:
    """Whether a free name is taken that way, and a taken one is left alone."""
    names = [secrets.token_hex(8) for _ in range(2)]
    for name in names:
        write_file(first, name, [name.encode()], durable=True)
    try:
        if not WAYS[way](names[0], first, second, f"{names[0]}.json"):
            return False
        return not WAYS[way](names[1], first, second, f"{names[0]}.json")
    except Refused:
        return False


def _locks(folder: Folder) -> bool:
    """Whether a lock keeps another descriptor out."""
    first, second = (os.open(".", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder.descriptor) for _ in range(2))
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(second, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(first)
        os.close(second)
    return False


def _flushes_folders(folder: Folder) -> bool:
    try:
        os.fsync(folder.descriptor)
    except OSError as error:
        if error.errno == errno.EIO:
            raise
        return False
    return True


def _flush_seconds(folder: Folder) -> float:
    """The median time that a small file takes to be on the disk."""
    took = []
    for number in range(_FLUSHES):
        began = time.perf_counter()
        write_file(folder, f"flush{number}", [b"x" * 4096], durable=True)
        took.append(time.perf_counter() - began)
    return sorted(took)[_FLUSHES // 2]


def _skew(folder: Folder) -> float:
    """Seconds between the file system's clock and this machine's."""
    write_file(folder, "clock", [b""], durable=True)
    status = folder.status("clock")
    return abs(status.st_mtime - time.time()) if status is not None else 0.0


def _filesystem(path: Path) -> str:
    """The kind of the file system that a folder lies on, as the kernel calls it."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    best = ("", "unknown")
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return best[1]
    place = str(path.resolve())
    for line in lines:
        before, _, after = line.partition(" - ")
        words = before.split()
        mount = words[4].encode().decode("unicode_escape") if len(words) > 4 else ""
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if words[2] == wanted and inside and len(mount) > len(best[0]) and after:
            best = (mount, after.split()[0])
    return best[1]
