"""Reads an HDF5 file in a process of its own, which a crafted file may crash or hang without harm. See hdf5_guard.py.

Run as `python -m epvf_data.exchange.hdf5_child DESCRIPTOR SECONDS`. Answers are messages: one byte (`d` data, `e` an
error as JSON), a length (uint32, little-endian), that many bytes. The first says what is in the file, as JSON: path →
shape. After that each line on standard input, `[path, start, stop]` as JSON, is answered with those rows' bytes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from epvf_data.errors import CorruptDatasetError, DatasetError, UnsafeDatasetError
from epvf_data.store.schema import COLUMNS, PROBE_STATES, Column

JSON = Column("uint8", ("byte",))
MAX_OBJECTS = 100_000
MAX_BLOCK = 64 << 20  # bytes of a chunk, or of one row
_BLOCK = 4 << 20
_MEMORY = 1 << 30
_MAGIC = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK = b"\x03"  # its version: older files have structures without checksums
_NAME = re.compile(rb"[0-9a-z_.]{1,64}")
_FLETCHER32 = 3  # H5Z_FILTER_FLETCHER32
_CHECKSUM = 4  # bytes that it adds to a chunk


def column_of(path: str) -> Column | None:
    """What belongs at a path of the file: a data set's dtype and dimensions, or None for a group.

    Raises UnsafeDatasetError where nothing belongs.
    """
    match path.split("/"):
        case ["commits" | "parts" | "probes"] | ["parts", _]:
            return None
        case ["zarr.json" | "licences.json"] | ["commits", _] | ["parts", _, "zarr.json"]:
            return JSON
        case ["probes", _]:
            return PROBE_STATES
        case ["parts", _, name] if name in COLUMNS:
            return COLUMNS[name]
    raise UnsafeDatasetError(f"it holds {path[:120]!r}, which does not belong there")


def walk(h5py: Any, root: Any, size: int) -> dict[str, list[int]]:
    """Every data set's shape after a check of every object, without reading any of their data.

    `root` is the root group; all data sets together may not claim more than `size` bytes: the file holds them as they
    are, so nothing unfolds on reading.
    """
    shapes: dict[str, list[int]] = {}
    seen = {h5py.h5o.get_info(root).addr}
    waiting = [("", root)]
    while waiting:
        path, group = waiting.pop()
        _check_bare(h5py, group, path or "/")
        for name in _links(h5py, group, path, MAX_OBJECTS - len(seen)):
            inner = f"{path}/{name.decode()}".lstrip("/")
            column = column_of(inner)
            info = h5py.h5o.get_info(group, name)
            if info.addr in seen or info.rc != 1:
                raise UnsafeDatasetError(f"{inner} is a hard link to another object of the file")
            seen.add(info.addr)
            if info.type != (h5py.h5o.TYPE_GROUP if column is None else h5py.h5o.TYPE_DATASET):
                raise UnsafeDatasetError(f"{inner} is another kind of object than belongs there")
            if column is None:
                waiting.append((inner, h5py.h5g.open(group, name)))
                continue
            item = h5py.h5d.open(group, name)
            _check_bare(h5py, item, inner)
            shapes[inner], claimed = _check_dataset(h5py, item, column, inner, size)
            size -= claimed
    return shapes


def _links(h5py: Any, group: Any, path: str, room: int) -> list[bytes]:
    """Names of the members, which must be hard links."""
    names: list[bytes] = []

    def collect(name: bytes) -> bool | None:
        names.append(name)
        return True if len(names) > room else None  # anything but None stops

    group.links.iterate(collect)
    if len(names) > room:
        raise UnsafeDatasetError(f"it holds more than {MAX_OBJECTS} objects")
    for name in names:
        if not _NAME.fullmatch(name):
            raise UnsafeDatasetError(f"{path or '/'} holds {name[:80]!r}, which does not belong there")
        if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
            raise UnsafeDatasetError(
                f"{path or '/'} has the soft or external link {name.decode()}; only plain members are read"
            )
    return names


def _check_bare(h5py: Any, item: Any, path: str) -> None:
    if h5py.h5a.get_num_attrs(item):
        raise UnsafeDatasetError(f"{path} has attributes; an exported data set has none")


def _check_dataset(h5py: Any, item: Any, column: Column, path: str, room: int) -> tuple[list[int], int]:
    """Shape and bytes of a data set. The property list comes first: to look at the shape of a virtual data set opens
    the files that it names."""
    made = item.get_create_plist()
    if made.get_layout() != h5py.h5d.CHUNKED or made.get_external_count():
        raise UnsafeDatasetError(f"{path} is no data set in chunks but a virtual, external or other one")
    filters = [made.get_filter(number)[0] for number in range(made.get_nfilters())]
    if filters != [_FLETCHER32]:
        raise UnsafeDatasetError(f"{path} has the HDF5 filters {filters}; the Fletcher-32 checksum alone is expected")
    kind, space = item.get_type(), item.get_space()
    expected = h5py.h5t.py_create(_dtype(column.dtype), logical=True)
    if kind.committed() or not kind.equal(expected):
        raise UnsafeDatasetError(f"{path} has another type than little-endian {column.dtype}, or a named one")
    if space.get_simple_extent_type() != h5py.h5s.SIMPLE or space.get_simple_extent_ndims() != len(column.dims):
        raise UnsafeDatasetError(f"{path} has another rank than {len(column.dims)} ({' × '.join(column.dims)})")
    shape, chunk = list(space.get_simple_extent_dims()), made.get_chunk()
    width = _dtype(column.dtype).itemsize
    total, block = _bytes(shape, width), max(_bytes(chunk, width), _bytes(shape[1:], width))
    if min(shape) < 1 or total > room or block > MAX_BLOCK:
        raise UnsafeDatasetError(
            f"{path} claims the shape {shape} in chunks of {list(chunk)}: nothing, or more than the file can hold"
        )
    counts = [-(-size // piece) for size, piece in zip(shape, chunk, strict=True)]
    stored = _bytes(counts, _bytes(chunk, width) + _CHECKSUM)
    if item.get_storage_size() != stored:
        raise CorruptDatasetError(f"{path} lacks data: {item.get_storage_size()} of {stored} bytes are stored")
    return shape, total


def _bytes(shape: Any, width: int) -> int:
    for count in shape:
        width *= count
    return width


def _dtype(name: str) -> Any:
    return importlib.import_module("numpy").dtype(name).newbyteorder("<")


def blocks(h5py: Any, root: Any, path: str, start: int, stop: int) -> Iterator[memoryview]:
    """The rows from `start` to `stop` of a data set that `walk` has seen, in pieces of whole chunks."""
    item = h5py.Dataset(h5py.h5d.open(root, path.encode()))
    whole = item.chunks[0]
    step = max(1, _BLOCK // (whole * _bytes(item.shape[1:], item.dtype.itemsize))) * whole
    while start < stop:
        end = min(stop, (start // step + 1) * step)
        yield item[start:end].reshape(-1).view("u1").data
        start = end


def _limit(seconds: int) -> None:
    """The system ends this process if a file makes it eat memory or time, or write."""
    bounds = {
        resource.RLIMIT_AS: _MEMORY,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, bound in bounds.items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (bound, bound))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)


def _send(answers: BinaryIO, kind: bytes, data: bytes | memoryview) -> None:
    answers.write(kind + struct.pack("<I", len(data)))
    answers.write(data)
    answers.flush()


def _serve(descriptor: int, answers: BinaryIO) -> None:
    if os.pread(descriptor, len(_MAGIC), 0) != _MAGIC:
        raise DatasetError("it is not an HDF5 file (or one with a user block); export-hdf5 writes one")
    if os.pread(descriptor, 1, len(_MAGIC)) != _SUPERBLOCK:
        raise DatasetError("it is an HDF5 file without checksums of its structure; export-hdf5 writes one with them")
    h5py = importlib.import_module("h5py")
    with h5py.File(f"/dev/fd/{descriptor}", "r", locking=False) as file:
        root = h5py.h5g.open(file.id, b"/")
        shapes = walk(h5py, root, os.fstat(descriptor).st_size)
        _send(answers, b"d", json.dumps(shapes).encode())
        for line in sys.stdin.buffer:
            path, start, stop = json.loads(line)
            for block in blocks(h5py, root, path, start, stop):
                _send(answers, b"d", block)


def main() -> None:
    """Serves one file until standard input ends."""
    descriptor, seconds = int(sys.argv[1]), int(sys.argv[2])
    _limit(seconds)
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # whatever a library prints must not end up among the answers
        try:
            _serve(descriptor, answers)
        except DatasetError as error:
            _send(answers, b"e", json.dumps([type(error).__name__, str(error)]).encode())
        except MemoryError:
            told = ["UnsafeDatasetError", f"reading it takes more than {_MEMORY >> 20} MiB of memory"]
            _send(answers, b"e", json.dumps(told).encode())
        except BrokenPipeError:
            os._exit(1)  # nobody listens any more
        except Exception as error:
            told = ["CorruptDatasetError", f"HDF5 finds it damaged ({_reason(error)})"]
            _send(answers, b"e", json.dumps(told).encode())


def _reason(error: Exception) -> str:
    """The inner half of h5py's "what failed (why)"."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "filter returned failure" in text:
        return "a checksum is wrong"
    return text[text.find("(") + 1 :].removesuffix(")")[:120]


if __name__ == "__main__":
    main()
