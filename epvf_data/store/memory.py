"""Files as memory, and large buffers that are handed out again when nobody looks at them any more."""

from __future__ import annotations

import contextlib
import errno
import math
import mmap
import weakref

import numpy as np

from epvf_data.errors import DatasetError, reason


def map_file(descriptor: int, size: int, name: str) -> mmap.mmap | bytes:
    """The bytes of an open file: mapped, or read where its file system maps none. `name` is used in messages.

    Raises DatasetError where there is no room for it, or for another open file.
    """
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except (OSError, MemoryError) as error:
        number = getattr(error, "errno", None)
        if number in (errno.ENODEV, errno.EINVAL, errno.ENOSYS):
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(size)
        cure = "; raise the limit with `ulimit -n`" if number == errno.EMFILE else ""
        raise DatasetError(f"{name} cannot be mapped into memory ({reason(error)}){cure}.") from error


class Memory:
    """Buffers of one column that are used again when the last array over them is gone: fresh pages cost more to touch.

    Each has room for `capacity` rows.
    """

    def __init__(self, capacity: int, row_shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._row_shape, self._dtype = row_shape, dtype
        self._size = capacity * math.prod(row_shape) * dtype.itemsize
        self._free: list[mmap.mmap] = []

    def lease(self, rows: int) -> np.ndarray:
        """An array [rows, …] with arbitrary content. Every view of it keeps the buffer from being used again."""
        buffer = self._free.pop() if self._free else _anonymous(self._size)
        raw = np.frombuffer(buffer, np.uint8)
        weakref.finalize(raw, self._free.append, buffer).atexit = False
        return raw.view(self._dtype).reshape(-1, *self._row_shape)[:rows]


def _anonymous(size: int) -> mmap.mmap:
    """Page-aligned memory, in huge pages where the system has them: scattered rows are copied faster there."""
    buffer = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            buffer.madvise(mmap.MADV_HUGEPAGE)
    return buffer
