"""What every place can do: give files, and some take them. All that comes from one is a stranger's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Protocol

from epvf_data import untrusted
from epvf_data.errors import CorruptDatasetError, RefusedError, TransferError

PIECE = 1 << 18  # bytes: what a line that breaks loses at most
TRIES = 5  # in a row that bring not a byte
PAUSE = 0.2  # seconds before the second try; it doubles


class Place(Protocol):
    """A place that can be read. Names are relative paths, checked before; `shown` is what it is called in messages."""

    shown: str

    def small(self, name: str, limit: int) -> bytes | None:
        """A whole file; None where there is none. Raises UnsafeDatasetError above `limit` bytes, TransferError."""
        ...

    def stream(self, name: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` to before `end`, or fewer where the line breaks; never more.

        Raises CorruptDatasetError where there is no such file, TransferError where the server or the line fails.
        """
        ...


class Store(Place, Protocol):
    """A place that can be written as well."""

    def create(self, name: str, data: bytes) -> bool:
        """Publishes a small file, only if nobody has that name: False if it is taken. Raises TransferError."""
        ...

    def upload(self, name: str, size: int, pieces: Iterator[bytes]) -> None:
        """Puts a file, whole or not at all. What `pieces` raises ends it. Raises TransferError."""
        ...

    def size(self, name: str) -> int | None:
        """The size of a file in bytes; None where there is none. Raises TransferError."""
        ...

    def check_exclusive(self) -> None:
        """Raises TransferError where two could publish under one name."""
        ...


class FolderPlace:
    """A folder of this machine, to read."""

    def __init__(self, root: Path) -> None:
        self.root, self.shown = root, str(root)

    def small(self, name: str, limit: int) -> bytes | None:
        """See Place."""
        self._check_above(name)
        if not os.path.lexists(self.root / name):
            return None
        return untrusted.read_bytes(self.root / name, limit=limit)

    def stream(self, name: str, start: int, end: int) -> Iterator[bytes]:
        """See Place."""
        self._check_above(name)
        with untrusted.open_regular(self.root / name) as descriptor:
            os.lseek(descriptor, start, os.SEEK_SET)
            while start < end and (piece := os.read(descriptor, min(PIECE, end - start))):
                start += len(piece)
                yield piece

    def _check_above(self, name: str) -> None:
        """Raises UnsafeDatasetError where a folder on the way is a link, which may lead anywhere."""
        for above in PurePath(name).parents[:-1]:
            if os.path.lexists(self.root / above):
                untrusted.check_directory(self.root / above)


def pieces(place: Place, name: str, start: int, size: int, stopped: Callable[[], bool]) -> Iterator[bytes]:
    """A file's bytes from `start` to its `size`, over as many requests as the line needs.

    Raises TransferError where it brings nothing several times in a row, CorruptDatasetError where the file is shorter.
    """
    tries, error = 0, None
    while start < size:
        if tries:
            time.sleep(PAUSE * 2 ** (tries - 1))
        before = start
        try:
            for piece in place.stream(name, start, size):
                if stopped():
                    raise TransferError("another part of this transfer failed.")
                start += len(piece)
                yield piece
        except RefusedError:
            raise
        except TransferError as failed:
            error = failed
        else:
            error = None
        tries = 1 if start > before else tries + 1
        if start < size and (tries > TRIES or stopped()):
            if isinstance(error, TransferError):
                raise error
            raise CorruptDatasetError(f"{place.shown}/{name} ends at byte {start:,}; it should have {size:,}.")
