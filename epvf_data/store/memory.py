"""Large buffers that are handed out again when nobody looks at them any more."""

from __future__ import annotations

import contextlib
import math
import mmap
import weakref

import numpy as np


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
