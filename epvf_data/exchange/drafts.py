"""Files for other programs: they get their name when they are whole and on the disk, never before."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from epvf_data.errors import DatasetError, StorageError
from epvf_data.store.durable import flush

Progress = Callable[[int, int], None]  # (rows done, all rows)


@dataclass(frozen=True)
class ExportReport:
    """What was written to `file`: `size` bytes with `rows` rows of `architectures` policy architectures."""

    file: str
    rows: int
    architectures: int
    size: int


def check_free(out: Path) -> None:
    """Raises DatasetError if there is something of that name."""
    if os.path.lexists(out):
        raise DatasetError(f"{out} exists already; choose another name, or remove it first.")


@contextlib.contextmanager
def draft_file(out: Path) -> Iterator[Path]:
    """The name of an empty file beside `out`; it becomes `out` when the block ends without an error, or else goes.

    What a killed process left there is replaced. Raises DatasetError if `out` exists or another process is writing it,
    StorageError if the disk refuses.
    """
    draft = out.parent / f".{out.name}.partial"
    try:
        check_free(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            _claim(descriptor, draft, out)
            try:
                os.truncate(descriptor, 0)
                yield draft
                os.fsync(descriptor)
                check_free(out)
                os.rename(draft, out)  # noqa: PTH104
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(draft)  # noqa: PTH108
                raise
        finally:
            os.close(descriptor)
        flush(out.absolute().parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"writing {out} failed ({reason}); free space or fix access and retry.") from error


def _claim(descriptor: int, draft: Path, out: Path) -> None:
    """Makes sure that nobody else writes this draft, nor has just given it its final name."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        busy = True
    except OSError:
        busy = False  # a file system without locks
    else:
        busy = not (draft.exists() and os.path.samestat(os.fstat(descriptor), draft.stat()))
    if busy:
        raise DatasetError(f"another process is writing {out} at this moment; wait for it or choose another name.")
