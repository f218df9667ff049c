"""File system primitives that survive a crash: write and flush, flush a tree, publish a name that nobody else has.

Each is a thin layer over `os`, so that a test can make any single system call fail.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from epvf_data.errors import StorageError
from epvf_data.outputs import flush

_FLUSHERS = 8
_PUSH = 16 << 20  # bytes after which the disk is told to begin
_WAITING = 8  # pieces that may wait for their hash: they stay in memory
_SMALL = 1 << 18  # pieces below this are joined before they are written


@contextlib.contextmanager
def storage_errors(path: Path, action: str) -> Iterator[None]:
    """Turns an OSError into a StorageError of one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"{action} in {path} failed ({reason}); earlier commits are untouched: free space or fix access and retry."
        ) from error


def write_file(path: Path, pieces: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Writes a new file. Returns its size and SHA-256; `flush` makes it durable."""
    digest = hashlib.sha256()
    size = unsynced = 0
    with contextlib.ExitStack() as stack:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
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
            push.result()  # an error is reported once: `flush` would not see it again
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


def flush_tree(folder: Path) -> None:
    """fsync of every file and then of every folder under `folder`, several at once: a journal groups such requests."""
    walked = [(Path(here), names) for here, _, names in os.walk(folder)]
    with ThreadPoolExecutor(_FLUSHERS) as pool:
        list(pool.map(flush, (here / name for here, names in walked for name in names)))
        list(pool.map(flush, (here for here, _ in reversed(walked))))


@contextlib.contextmanager
def lock(folder: Path, *, exclusive: bool, wait: bool = False) -> Iterator[bool]:
    """Holds an advisory lock on a folder, which goes with the process. Gives False where others hold it.

    A file system without locks counts as free: grace periods guard there.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
            fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
        yield True
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Creates a folder unless it is there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)  # noqa: PTH102 - every system call here goes through `os`


def publish(draft: Path, final: Path) -> bool:
    """Gives a flushed draft its final name, only if nobody has that name; the draft's name goes. False if taken."""
    try:
        os.link(draft, final)
    except OSError as error:
        # A network file system may report an error for a link that it has made.
        if not (final.exists() and final.samefile(draft)):
            if isinstance(error, FileExistsError):
                return False
            raise
    with contextlib.suppress(OSError):
        os.unlink(draft)  # noqa: PTH108 - readers cope with a draft that stays
    return True


def discard(path: Path) -> None:
    """Removes a draft as far as possible; a failure here must not hide the error that led here."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
