"""File system primitives that survive a crash: write and flush, flush a tree, lock, move. `publishing` has one more.

They work in open folders: whatever takes a folder's place while a writer is at work, nothing is written or removed
there. Each is a thin layer over `os`, so that a test can make any single system call fail.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from epvf_data.errors import StorageError, UnsafeDatasetError, reason
from epvf_data.outputs import UNKNOWN, sync_folder

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FLUSHERS = 8
_PUSH = 16 << 20  # bytes after which the disk is told to begin
_WAITING = 8  # pieces that may wait for their hash: they stay in memory
_SMALL = 1 << 18  # pieces below this are joined before they are written


_CURES = {
    errno.EMFILE: "raise the limit on open files (`ulimit -n`)",
    errno.EROFS: "choose a place that is not read-only",
    errno.EIO: "look at the disk, or its server,",
}


@contextlib.contextmanager
def storage_errors(path: Path, action: str) -> Iterator[None]:
    """Turns an OSError into a StorageError of one sentence."""
    try:
        yield
    except OSError as error:
        cure = _CURES.get(error.errno or 0, "free space or fix access")
        raise StorageError(
            f"{action} in {path} failed ({reason(error)}); earlier commits are untouched: {cure} and retry."
        ) from error


@dataclass(frozen=True)
class Folder:
    """An open folder; `path` is what it was called, for messages."""

    descriptor: int
    path: Path

    def names(self) -> list[str]:
        """What lies in it, in order."""
        return sorted(os.listdir(self.descriptor))  # noqa: PTH208 (a descriptor)

    def status(self, name: str) -> os.stat_result | None:
        """Of what lies there under this name, links not followed; None where there is nothing."""
        try:
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None


@contextlib.contextmanager
def open_folder(path: Path) -> Iterator[Folder]:
    """A folder that the user named; it may be reached by links."""
    descriptor = os.open(path, _OPEN)
    try:
        yield Folder(descriptor, path)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def inner(folder: Folder, *names: str, make: bool = False) -> Iterator[Folder]:
    """The folder under these names, one inside the other; with `make` those that are missing are made.

    Raises UnsafeDatasetError where a link or a file has one of the names.
    """
    with contextlib.ExitStack() as stack:
        for name in names:
            if make:
                make_folder(folder, name)
            try:
                descriptor = os.open(name, _OPEN | os.O_NOFOLLOW, dir_fd=folder.descriptor)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                raise UnsafeDatasetError(
                    f"{folder.path / name} is a link or a special file; a data set holds plain folders there."
                ) from error
            stack.callback(os.close, descriptor)
            folder = Folder(descriptor, folder.path / name)
        yield folder


def write_file(
    folder: Folder, name: str, pieces: Iterable[bytes | memoryview], *, durable: bool = False
) -> tuple[int, str]:
    """Writes a new file. Returns its size and SHA-256. If not `durable` at once, `flush_tree` makes it so."""
    digest = hashlib.sha256()
    size = unsynced = 0
    with contextlib.ExitStack() as stack:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o644, dir_fd=folder.descriptor)
        stack.callback(os.close, descriptor)
        hasher: ThreadPoolExecutor | None = None
        pusher: ThreadPoolExecutor | None = None
        hashes: deque[Future[None]] = deque()
        pushes: list[Future[None]] = []
        for piece in _joined(pieces):
            if hasher is None and len(piece) >= _SMALL:  # hashing takes as long as writing: side by side
                hasher = stack.enter_context(ThreadPoolExecutor(1))
            if hasher is None:
                digest.update(piece)
            else:
                hashes.append(hasher.submit(digest.update, piece))
                if len(hashes) > _WAITING:
                    hashes.popleft().result()
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            size, unsynced = size + len(piece), unsynced + len(piece)
            if unsynced >= _PUSH and all(push.done() for push in pushes):  # the disk works while we write and hash
                pusher = pusher or stack.enter_context(ThreadPoolExecutor(1))
                pushes.append(pusher.submit(os.fdatasync, descriptor))
                unsynced = 0
        for push in pushes:
            push.result()  # an error is reported once: fsync would not see it again
        if durable:
            os.fsync(descriptor)
    return size, digest.hexdigest()  # leaving the stack waited for the hasher


def _joined(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The same bytes in fewer pieces: small ones are joined, large ones pass without a copy."""
    waiting = bytearray()
    for piece in pieces:
        if len(piece) < _SMALL:
            waiting += piece
        if waiting and (len(piece) >= _SMALL or len(waiting) >= _SMALL):
            yield bytes(waiting)
            waiting.clear()
        if len(piece) >= _SMALL:
            yield piece
    if waiting:
        yield bytes(waiting)


def flush(folder: Folder) -> None:
    """fsync of a folder's entries, as far as the file system knows such a thing: some network ones do not."""
    sync_folder(folder.descriptor)


def _sync_file(descriptor: int) -> None:
    os.fsync(descriptor)


def flush_tree(folder: Folder) -> None:
    """fsync of every file and folder in a new tree."""
    _flush(folder, ["."], files=True)


def flush_folders(parent: Folder, trees: Sequence[str]) -> None:
    """fsync of the folders in trees whose files are on the disk."""
    _flush(parent, trees, files=False)


def _flush(parent: Folder, trees: Sequence[str], files: bool) -> None:
    """Some at once: a journal groups such requests."""
    with ThreadPoolExecutor(_FLUSHERS) as pool, contextlib.ExitStack() as stack:
        waiting: list[Future[None]] = []
        walks = (step for tree in trees for step in os.fwalk(tree, topdown=False, dir_fd=parent.descriptor))
        for _, _, names, here in walks:
            for name in (*(names if files else ()), "."):
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(name, flags, dir_fd=here)
                stack.callback(os.close, descriptor)
                waiting.append(pool.submit(sync_folder if name == "." else _sync_file, descriptor))
            if len(waiting) >= 2 * _FLUSHERS:  # there is a limit to open files
                _finish(waiting, stack)
        _finish(waiting, stack)


def _finish(waiting: list[Future[None]], stack: contextlib.ExitStack) -> None:
    for future in waiting:
        future.result()
    waiting.clear()
    stack.close()


@contextlib.contextmanager
def lock(folder: Folder, *, exclusive: bool, wait: bool = False) -> Iterator[bool]:
    """Holds an advisory lock on a folder, which goes with the process. Gives False where others hold it.

    A file system without locks counts as free: grace periods guard there. Raises StorageError where locking fails.
    """
    descriptor = os.open(".", _OPEN, dir_fd=folder.descriptor)
    try:
        try:
            kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
            fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            if error.errno not in UNKNOWN:
                raise StorageError(
                    f"{folder.path} cannot be locked ({reason(error)}); look at the disk, or its server, and retry."
                ) from error
        yield True
    finally:
        os.close(descriptor)


def make_folder(folder: Folder, name: str) -> None:
    """Creates a folder in another one unless it is there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=folder.descriptor)


def move(name: str, folder: Folder, target: Folder, final: str) -> None:
    """Gives what lies in `folder` under `name` the name `final` in `target`; a file of that name is replaced."""
    os.rename(name, final, src_dir_fd=folder.descriptor, dst_dir_fd=target.descriptor)


def discard(folder: Folder, name: str) -> None:
    """Removes a draft as far as possible; a failure here must not hide the error that led here."""
    with contextlib.suppress(OSError, RecursionError):
        status = folder.status(name)
        if status is not None and stat.S_ISDIR(status.st_mode):
            shutil.rmtree(name, ignore_errors=True, dir_fd=folder.descriptor)
        elif status is not None:
            os.unlink(name, dir_fd=folder.descriptor)
