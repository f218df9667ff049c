"""How every verb writes a file: beside its place under a fresh name, flushed, then renamed. Never through a link.

What stands there already is refused unless the user says `force`; what a killed process left behind is removed by
the form of its name alone, and only where nobody holds it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from epvf_data.errors import DatasetError, StorageError, reason

# What file systems answer to what they do not know. 524 is Linux's own ENOTSUPP, which some network ones let through.
UNKNOWN = {errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM, errno.ENOLCK, 524}
_LEFT = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.partial", re.DOTALL)


def check_free(out: Path, force: bool = False) -> None:
    """Raises DatasetError if there is something of that name; with `force`, only if it is no plain file."""
    try:
        mode = os.lstat(out).st_mode
    except OSError:
        return
    if not force:
        raise DatasetError(f"{out} exists already; choose another name, remove it first, or add --force.")
    if not stat.S_ISREG(mode):
        raise DatasetError(f"{out} is a link, a folder or a special file; choose another name.")


def beside(out: Path, suffix: str) -> Path:
    """The file beside `out` that differs in its suffix. Raises DatasetError where `out` names a folder."""
    if not out.name:
        raise DatasetError(f"'{out}' is a folder; add the name of a file.")
    return out.with_suffix(suffix)


@contextlib.contextmanager
def draft_file(out: Path, force: bool = False) -> Iterator[Path]:
    """The name of an empty file beside `out`; it becomes `out` when the block ends without an error, or else goes.

    Raises DatasetError if `out` exists (with `force`: if it is no plain file) or another process is writing it,
    StorageError if the disk refuses.
    """
    out = Path(out)
    try:
        check_free(out, force)
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(out)
        draft = out.with_name(f".{out.name}.{secrets.token_hex(8)}.partial")
        # Exclusively: a stranger's folder may hold any link, but none of a name that nobody knew.
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                yield draft
                flush(draft)
                check_free(out, force)
                os.rename(draft, out)  # noqa: PTH104
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(draft)  # noqa: PTH108
                raise
        finally:
            os.close(descriptor)
        flush(out.absolute().parent)
    except OSError as error:
        raise StorageError(f"writing {out} failed ({reason(error)}); free space or fix access and retry.") from error


def write_bytes(out: Path, data: bytes, force: bool = False) -> None:
    """Writes a whole file as `draft_file` does. Raises as it does."""
    with draft_file(out, force) as draft:
        draft.write_bytes(data)


def append_text(path: Path, text: str) -> None:
    """Adds to a plain file, which then has no other name, or makes it. Raises StorageError."""
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o644), "a", encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise StorageError(f"{path} is a link or a special file; move it away.")
            if status.st_nlink == 1:
                file.write(text)
                return
        with draft_file(path, force=True) as draft:  # its other name, a backup's, keeps what it has
            draft.write_bytes(path.read_bytes() + text.encode())
    except OSError as error:
        raise StorageError(f"{path} could not be written ({error.strerror or error}).") from error


def flush(path: Path) -> None:
    """fsync of a file, or of a folder's entries."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        (sync_folder if stat.S_ISDIR(os.fstat(descriptor).st_mode) else os.fsync)(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(descriptor: int) -> None:
    """fsync of an open folder's entries, as far as its file system knows such a thing: some network ones do not."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise


def _remove_left(out: Path) -> None:
    """Removes drafts of `out` that killed processes left. Raises DatasetError where one is being written."""
    with os.scandir(out.parent) as entries:
        left = [entry.name for entry in entries if (match := _LEFT.fullmatch(entry.name)) and match["name"] == out.name]
    for name in left:
        path = out.parent / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue  # a link or gone: not ours to judge
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                continue
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(
                f"another process is writing {out} at this moment; wait for it or choose another name."
            ) from None
        except OSError:
            continue  # a file system without locks: nobody can tell whether it is in use
        else:
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108
        finally:
            os.close(descriptor)
