"""Files as `torch.save` writes them, made without PyTorch, so that odd ones can be made too."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

KINDS = {"f": "FloatStorage", "d": "DoubleStorage", "e": "HalfStorage", "q": "LongStorage"}
KINDS |= {"l": "LongStorage", "b": "CharStorage", "?": "BoolStorage", "I": "IntStorage", "i": "IntStorage"}
KINDS |= {"F": "ComplexFloatStorage"}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if abs(value) < 2**31 else b"\x8a\x08" + struct.pack("<q", value)


def numbers(values) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(key: str, kind: str, count: int, offset: int, shape, strides) -> bytes:
    """The instructions that stand for one tensor."""
    storage = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + number(count)
    end = numbers(shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"tQ" + number(offset) + end + b"tR"


def archive(pickle: bytes, storages: Mapping[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as out:
        out.writestr("archive/data.pkl", pickle)
        out.writestr("archive/byteorder", "little")
        for key, data in (storages or {}).items():
            out.writestr(f"archive/data/{key}", data)
        out.writestr("archive/version", "3\n")
    return file.getvalue()


def dictionary(items: Mapping[str, bytes]) -> bytes:
    body = b"".join(text(name) + value for name, value in items.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + body + b"u."


def state_dict(tensors: Mapping[str, np.ndarray]) -> bytes:
    """What torch.save makes of a state dict of these arrays."""
    items, storages = {}, {}
    for key, (name, array) in enumerate(tensors.items()):
        strides = [step // array.itemsize for step in np.ascontiguousarray(array).strides[: array.ndim]]
        items[name] = tensor(str(key), KINDS[array.dtype.char], array.size, 0, array.shape, strides)
        storages[str(key)] = np.ascontiguousarray(array).tobytes()
    return archive(dictionary(items), storages)
