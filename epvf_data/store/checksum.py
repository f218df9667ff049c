"""CRC-32C of arrays, outside Python's global lock where the C library's own function can be reached."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

import google_crc32c
import numpy as np


def _python_extend(crc: int, data: np.ndarray) -> int:
    raw = data if google_crc32c.implementation == "c" else data.tobytes()
    return google_crc32c.extend(crc, raw)  # pyright: ignore[reportArgumentType]


def _native_extend() -> Callable[[int, np.ndarray], int] | None:
    """`crc32c_extend` of the library under google_crc32c. The package's wrapper holds the lock, ctypes releases it."""
    module = sys.modules.get("google_crc32c._crc32c")
    path = getattr(module, "__file__", None)
    if google_crc32c.implementation != "c" or path is None:
        return None
    try:
        function = ctypes.CDLL(path).crc32c_extend
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_uint32
    function.argtypes = (ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t)

    def extend(crc: int, data: np.ndarray) -> int:
        return function(crc, data.ctypes.data, data.nbytes)

    check = np.frombuffer(b"123456789", np.uint8)  # the published check value of CRC-32C
    return extend if extend(0, check) == 0xE3069283 else None


_native = _native_extend()
_NATIVE_FROM = 65_536  # below, a ctypes call costs more than it frees


def crc32c(data: np.ndarray) -> int:
    """CRC-32C of a C-contiguous array's bytes."""
    if not data.flags.c_contiguous:
        data = np.ascontiguousarray(data)
    if _native is not None and data.nbytes >= _NATIVE_FROM:
        return _native(0, data)
    return _python_extend(0, data) if data.nbytes else 0
