"""The bytes of one array: a Zarr v3 shard with a CRC-32C behind every block of rows and behind the index.

The layout is exactly what `zarr` writes for `sharding_indexed` with chunks in row order, and `zarr` reads it. We write
and read the bytes ourselves because the general way is many times slower, which benchmarks/read.py measures.
"""

from __future__ import annotations

import importlib
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from epvf_data.errors import CorruptDatasetError, DatasetError
from epvf_data.store.checksum import crc32c
from epvf_data.store.memory import map_file
from epvf_data.store.schema import BLOCK_ROWS

_LONG_ROW = 4096  # bytes
_CRC = 4
_ENTRY = 16  # offset and length, two little-endian 64-bit integers
_ZSTD_RATIO = 1 << 15  # a block of 4 bytes unfolds to 128 KiB, and none to more
_FILL = {"float32": "NaN", "bool": False}
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}


@dataclass(frozen=True)
class Layout:
    """Shape and chunking of one array. `dtype` is Zarr's name, which is also NumPy's; `zstd` is a level or None."""

    shape: tuple[int, ...]
    dtype: str
    chunk_rows: int
    zstd: int | None = None

    @property
    def chunks(self) -> int:
        return -(-self.shape[0] // self.chunk_rows)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        return (self.chunk_rows, *self.shape[1:])

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    @property
    def chunk_bytes(self) -> int:
        return self.chunk_rows * self.row_bytes

    @property
    def file(self) -> str:
        """The shard's path inside the array's folder."""
        return "/".join(["c", *["0"] * len(self.shape)])

    @property
    def size(self) -> int:
        """Bytes of the shard's file when it is not compressed."""
        return self.chunks * (self.chunk_bytes + _CRC + _ENTRY) + _CRC

    def fits(self, size: int) -> bool:
        """Whether a file of `size` bytes can hold the array: nothing of its size is allocated before this is known."""
        if self.zstd is None:
            return size == self.size
        return size > self.chunks * (_CRC + _ENTRY) + _CRC and size * _ZSTD_RATIO >= self.chunks * self.chunk_bytes


def allocate(shape: tuple[int, ...], dtype: str | np.dtype, what: object) -> np.ndarray:
    """An array with arbitrary content. Raises DatasetError where memory does not suffice."""
    try:
        return np.empty(shape, dtype)
    except MemoryError as error:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        raise DatasetError(f"{what} needs {size:,} bytes of memory, which are not free; read fewer rows.") from error


def chunk_rows(rows: int) -> int:
    """Rows of an inner chunk: 64, or fewer in a tiny part so that padding stays small (always a multiple of 16)."""
    return min(BLOCK_ROWS, -(-rows // 16) * 16)


def array_metadata(layout: Layout, dims: tuple[str, ...]) -> dict[str, Any]:
    """The array's `zarr.json`."""
    plain = _BYTES if np.dtype(layout.dtype).itemsize > 1 else {"name": "bytes"}
    zstd = [{"name": "zstd", "configuration": {"level": layout.zstd, "checksum": False}}]
    inner = [plain, *(zstd if layout.zstd is not None else []), {"name": "crc32c"}]
    sharding = {
        "chunk_shape": list(layout.chunk_shape),
        "codecs": inner,
        "index_codecs": [_BYTES, {"name": "crc32c"}],
        "index_location": "end",
    }
    shard = [layout.chunks * layout.chunk_rows, *layout.shape[1:]]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(layout.shape),
        "data_type": layout.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": _FILL.get(layout.dtype, 0),
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
        "dimension_names": list(dims),
    }


def encode(array: np.ndarray, layout: Layout) -> Iterator[memoryview]:
    """The shard's bytes, piece by piece. The last chunk is padded with the fill value."""
    little = np.ascontiguousarray(array, np.dtype(layout.dtype).newbyteorder("<"))
    index = []
    offset = 0
    for start in range(0, layout.shape[0], layout.chunk_rows):
        chunk = little[start : start + layout.chunk_rows]
        if len(chunk) < layout.chunk_rows:
            fill = np.nan if layout.dtype == "float32" else 0
            padded = np.full(layout.chunk_shape, fill, little.dtype)
            padded[: len(chunk)] = chunk
            chunk = padded
        raw = chunk.reshape(-1).view(np.uint8)
        if layout.zstd is not None:
            raw = np.frombuffer(_zstd().compress(raw, layout.zstd), np.uint8)
        yield raw.data
        yield memoryview(struct.pack("<I", crc32c(raw)))
        index += [offset, raw.nbytes + _CRC]
        offset += raw.nbytes + _CRC
    table = np.array(index, "<u8").view(np.uint8)
    yield table.data
    yield memoryview(struct.pack("<I", crc32c(table)))


def _zstd() -> Any:
    # Imported on first use: it takes 0.2 s, and few data sets are compressed.
    return importlib.import_module("numcodecs.zstd")


def zstd_content_size(frame: np.ndarray) -> int | None:
    """The content size that a zstd frame declares (RFC 8878, 3.1.1.1), None if it declares none or is no frame."""
    data = frame[:18].tobytes()
    if len(data) < 6 or data[:4] != b"\x28\xb5\x2f\xfd":
        return None
    flags = data[4]
    single = bool(flags & 0x20)
    width = {0: int(single), 1: 2, 2: 4, 3: 8}[flags >> 6]
    start = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    if not width or len(data) < start + width:
        return None
    return int.from_bytes(data[start : start + width], "little") + (256 if width == 2 else 0)


class Shard:
    """Read access to one shard file, mapped into memory. Chunks are verified before their rows are handed out.

    `name` is used in messages. Raises CorruptDatasetError where the file contradicts the layout or its checksums.
    Published files are never changed, so a mapping stays valid; truncating one from outside kills its readers.
    """

    def __init__(self, descriptor: int, layout: Layout, name: str) -> None:
        self.layout, self.name = layout, name
        size = os.fstat(descriptor).st_size
        if not layout.fits(size):
            raise CorruptDatasetError(f"{name} has {size} bytes, which cannot hold the shape {list(layout.shape)}.")
        self._bytes = np.frombuffer(map_file(descriptor, size, name), np.uint8)
        self._index = self._read_index()
        self._verified = np.zeros(layout.chunks, bool)

    def _read_index(self) -> np.ndarray:
        layout, data = self.layout, self._bytes
        table = data[-(layout.chunks * _ENTRY + _CRC) : -_CRC]
        self._compare(table, data[-_CRC:], "index")
        index = np.frombuffer(table.tobytes(), "<u8").reshape(layout.chunks, 2).astype(np.int64)
        lengths = index[:, 1] if layout.zstd is not None else np.full(layout.chunks, layout.chunk_bytes + _CRC)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        # With no length beyond the file, a sum that overflows has passed through offsets beyond the file.
        inside = bool(((lengths > _CRC) & (lengths <= data.size) & (offsets[1:] <= data.size)).all())
        whole = inside and offsets[-1] == data.size - table.size - _CRC
        if not whole or (index != np.stack([offsets[:-1], lengths], 1)).any():
            raise CorruptDatasetError(f"{self.name} has an index that does not cover its chunks one after another.")
        return index

    def _compare(self, data: np.ndarray, stored: np.ndarray, what: str) -> None:
        if crc32c(data) != int.from_bytes(stored.tobytes(), "little"):
            raise CorruptDatasetError(f"{self.name}: the checksum of its {what} is wrong; fetch this file again.")

    @cached_property
    def _view(self) -> np.ndarray:
        """Uncompressed shards: [chunks, chunk_rows, …] over the mapped bytes; the checksums lie in the gaps."""
        layout = self.layout
        dtype = np.dtype(layout.dtype).newbyteorder("<")
        flat = np.frombuffer(self._bytes.data, dtype, layout.chunk_bytes // dtype.itemsize)
        inner = flat.reshape(layout.chunk_shape).strides
        shape = (layout.chunks, *layout.chunk_shape)
        strides = (layout.chunk_bytes + _CRC, *inner)
        return np.lib.stride_tricks.as_strided(flat, shape, strides, writeable=False)

    def verify(self, chunk: int) -> None:
        """Compares one chunk with its checksum."""
        start, length = self._index[chunk].tolist()
        end = start + length - _CRC
        self._compare(self._bytes[start:end], self._bytes[end : end + _CRC], f"rows from {self._first(chunk)}")
        self._verified[chunk] = True

    def _first(self, chunk: int) -> int:
        return chunk * self.layout.chunk_rows

    def _decode(self, chunk: int) -> np.ndarray:
        layout = self.layout
        start, length = self._index[chunk].tolist()
        frame = self._bytes[start : start + length - _CRC]
        if zstd_content_size(frame) != layout.chunk_bytes:  # before decoding: a bomb must not get to unfold
            raise CorruptDatasetError(
                f"{self.name}: rows from {self._first(chunk)} do not unpack to the declared size."
            )
        target = allocate((layout.chunk_bytes,), "uint8", f"{self.name}: one chunk")
        try:
            _zstd().decompress(frame, target)
        except (RuntimeError, ValueError) as error:
            raise CorruptDatasetError(
                f"{self.name}: rows from {self._first(chunk)} do not unpack ({error})."
            ) from error
        return target.view(np.dtype(layout.dtype).newbyteorder("<")).reshape(layout.chunk_shape)

    def chunk(self, chunk: int, *, verify: bool = True) -> np.ndarray:
        """The rows of one chunk, [rows, …]: a read-only view of the file, or a copy if it is compressed."""
        if verify:
            self.verify(chunk)
        rows = min(self.layout.chunk_rows, self.layout.shape[0] - self._first(chunk))
        whole = self._view[chunk] if self.layout.zstd is None else self._decode(chunk)
        return whole[:rows]

    def stored(self, first: int, last: int) -> np.ndarray:
        """The file's bytes of the chunks from `first` to before `last` with their checksums."""
        start, end = self._index[first, 0], self._index[last - 1].sum()
        return self._bytes[start:end]

    @property
    def tail(self) -> np.ndarray:
        """The file's bytes behind the chunks: the index and its checksum."""
        return self._bytes[self._index[-1].sum() :]

    def span(self, first: int, last: int) -> np.ndarray:
        """The verified rows of the chunks from `first` to before `last`, [rows, …]: a view, or a copy of several."""
        if last == first + 1:
            return self.chunk(first)
        if self.layout.zstd is not None:
            return np.concatenate([self.chunk(chunk) for chunk in range(first, last)])
        for chunk in range(first, last):
            self.verify(chunk)
        rows = self._view[first:last].reshape(-1, *self.layout.shape[1:])
        return rows[: self.layout.shape[0] - self._first(first)]

    def copy(
        self, chunk: int, rows: np.ndarray | None, target: np.ndarray, places: np.ndarray, *, verify: bool
    ) -> None:
        """`target[places] = chunk[rows]` (all rows for None); raises CorruptDatasetError if the chunk is damaged."""
        if self.layout.zstd is not None:
            whole = self.chunk(chunk, verify=verify)
        else:
            whole = self.chunk(chunk, verify=False)  # copied first and verified then, from the processor's cache
        target[places] = whole if rows is None else whole[rows]
        if verify and self.layout.zstd is None:
            self.verify(chunk)

    def read(self, start: int, stop: int, target: np.ndarray) -> None:
        """Copies the rows from `start` to `stop` into `target`; verifies every chunk they touch."""
        size = self.layout.chunk_rows
        for chunk in range(start // size, -(-stop // size)):
            first = chunk * size
            low, high = max(start, first), min(stop, first + size)
            target[low - start : high - start] = self.chunk(chunk)[low - first : high - first]

    def take(self, rows: np.ndarray, target: np.ndarray, places: np.ndarray | None = None) -> None:
        """`target[places] = rows` (all places in order for None); each chunk is verified when it is touched first."""
        chunks, inner = np.divmod(rows, self.layout.chunk_rows)
        places = np.arange(len(rows)) if places is None else places
        for chunk in np.unique(chunks[~self._verified[chunks]]).tolist():
            self.verify(chunk)
        if self.layout.zstd is not None:
            for chunk in np.unique(chunks).tolist():
                mask = chunks == chunk
                target[places[mask]] = self.chunk(chunk, verify=False)[inner[mask]]
        elif self.layout.row_bytes < _LONG_ROW:
            target[places] = self._view[chunks, inner]
        else:  # NumPy would gather into an array of its own first, whose fresh pages cost more than the copy
            view = self._view
            for place, chunk, row in zip(places.tolist(), chunks.tolist(), inner.tolist(), strict=True):
                target[place] = view[chunk, row]
