"""Arrays from a file of `flax.serialization.to_bytes`: MessagePack, of which only what such files hold is read.

Every value is counted before it is made, since a byte can claim a list of billions.
Layout: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

from typing import Any

import numpy as np

from epvf_data.errors import ConfigError, UnsafeDatasetError
from epvf_data.importing.limits import MAX_DEPTH, MAX_VALUES, Tensors, flatten
from epvf_data.untrusted import printable, shown

_KINDS = {"float16": "<f2", "float32": "<f4", "float64": "<f8", "bfloat16": "<u2", "bool": "?"}
_KINDS |= {f"{sign}int{8 * size}": f"<{sign or 'i'}{size}" for sign in ("", "u") for size in (1, 2, 4, 8)}
_OTHER = np.zeros((), "V1")  # of numbers that no policy has
_ARRAY, _SCALAR = 1, 3  # flax's kinds of extensions; the others are no parameters
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {0xCA: ">f4", 0xCB: ">f8", 0xCC: ">u1", 0xCD: ">u2", 0xCE: ">u4", 0xCF: ">u8"}
_NUMBERS |= {0xD0: ">i1", 0xD1: ">i2", 0xD2: ">i4", 0xD3: ">i8"}
_SIZES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}  # bytes of a length
_SIZES |= {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
_FIXED = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}  # extensions of so many bytes


def read(data: bytes, where: str) -> Tensors:
    """The floating-point arrays of a file, by name. Raises ConfigError, and UnsafeDatasetError for too many values."""
    reader = _Reader(memoryview(data), where)
    try:
        tree = reader.value()
        if reader.place != len(data):
            raise ValueError(f"{len(data) - reader.place} bytes are left over")
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{where} is not a file of flax.serialization.to_bytes ({printable(error)}).") from error
    return flatten(tree, where)


class _Reader:
    """Takes values off the bytes, one after another. Raises ValueError where they do not make sense."""

    def __init__(self, data: memoryview, where: str, left: int = MAX_VALUES, depth: int = 0):
        self.data, self.where, self.place, self.left, self.depth = data, where, 0, left, depth

    def take(self, count: int) -> memoryview:
        found = self.data[self.place : self.place + count]
        if len(found) < count:
            raise ValueError("the end is missing")
        self.place += count
        return found

    def value(self) -> Any:
        """The next value; extensions other than arrays are None."""
        self.left -= 1
        if self.left < 0 or self.depth > MAX_DEPTH:
            raise UnsafeDatasetError(f"{self.where} nests too deep or holds over {MAX_VALUES:,} values.")
        code = self.take(1)[0]
        if code < 0x80 or code >= 0xE0:
            return code if code < 0x80 else code - 0x100
        if code < 0xC0:
            return self.several(code, code & (0x1F if code >= 0xA0 else 0x0F))
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code in _NUMBERS:
            kind = np.dtype(_NUMBERS[code])
            return np.frombuffer(self.take(kind.itemsize), kind)[0].item()
        if code in _FIXED:
            return self.extension(_FIXED[code])
        return self.several(code, int.from_bytes(self.take(_SIZES[code]), "big"))

    def several(self, code: int, count: int) -> Any:
        """Bytes, an extension, text, a list or a map of this length."""
        if 0xC4 <= code <= 0xC6:
            return self.take(count)
        if 0xC7 <= code <= 0xC9:
            return self.extension(count)
        if 0xA0 <= code <= 0xBF or 0xD9 <= code <= 0xDB:
            return bytes(self.take(count)).decode()
        self.depth += 1
        listed = 0x90 <= code <= 0x9F or code in (0xDC, 0xDD)
        found = [self.value() for _ in range(count)] if listed else self.table(count)
        self.depth -= 1
        return found

    def table(self, count: int) -> dict[str | int, Any]:
        found: dict[str | int, Any] = {}
        for _ in range(count):
            key = self.value()
            if not isinstance(key, str | int) or key in found:
                raise ValueError(f"a key is {shown(key)}, or appears twice")
            found[key] = self.value()
        return found

    def extension(self, count: int) -> np.ndarray | None:
        """An array, which is a list in itself: shape, kind, numbers."""
        kind, data = self.take(1)[0], self.take(count)
        if kind not in (_ARRAY, _SCALAR):
            return None
        inner = _Reader(data, self.where, self.left, self.depth + 1)
        shape, name, numbers = inner.value()
        self.left = inner.left
        name = bytes(name).decode() if isinstance(name, memoryview) else name
        if name not in _KINDS:
            return _OTHER
        array = np.frombuffer(numbers, _KINDS[name])
        if len(shape) > 8 or not all(type(size) is int and 0 <= size < 1 << 40 for size in shape):
            raise ValueError(f"an array has the shape {shown(shape)}")
        array = (array.astype("<u4") << 16).view("<f4") if name == "bfloat16" else array
        return array.reshape(shape)
