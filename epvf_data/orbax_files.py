"""Arrays in the checkpoint folders that orbax writes, read as those of a stranger.

What a folder says of its arrays is checked before tensorstore unpacks anything: names, shapes, chunks, codecs, and how
large the tables of its database (OCDBT) become, which tensorstore unpacks whole.
"""

from __future__ import annotations

import math
import mmap
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data.errors import CorruptDatasetError, UnsafeDatasetError
from epvf_data.trees import walk
from epvf_data.untrusted import open_regular, parse_json, printable, read_bytes

TREE = "_METADATA"  # what orbax keeps beside the arrays of a tree
MAX_FILES, MAX_DEPTH = 40_000, 40  # without a database, an array is a folder
MAX_ARRAYS = 10_000
MAX_DESCRIPTION = 64 << 10  # bytes of an array's metadata
MAX_CHUNKS = 100_000  # of all arrays of a checkpoint
MAX_TABLES = 32 << 20  # bytes of a database's tables, unpacked; ten thousand arrays need a tenth
MAX_RATIO, ROOM = 64, 128 << 20  # bytes of arrays for each on the disk (moments begin as zeros), and beyond that
_ARRAYS = ("np.ndarray", "jax.Array", "scalar")
_CODECS = ("bytes", "crc32c", "gzip", "transpose", "zlib", "zstd")  # tensorstore stops them at the size of a chunk
_DTYPE = re.compile(r"[<>|]?[A-Za-z][A-Za-z0-9_]{0,15}", re.ASCII)
_TABLE = re.compile(rb"\x0c\xdb(?:\x3a\x2a|\x20\xde|\x12\x34)", re.DOTALL)  # manifest, node of keys, of versions
_HEADER, _CRC = 14, 4  # bytes around the body of a table
_BLOCK = 128 << 10  # bytes that a block of zstd unpacks to at most
_LEAST = 64  # bytes that a table or a block counts for, so that there are not too many of them


@dataclass(frozen=True)
class Stored:
    """An array of a checkpoint as its metadata has it."""

    shape: tuple[int, ...]
    dtype: str  # NumPy's name, or "bfloat16"
    numbers: int  # in the array, or in one of its chunks where that is more: chunks are unpacked whole
    bytes: int  # of so many
    chunks: int
    spec: Mapping[str, Any]  # how tensorstore opens it


def describe(folder: Path, limit: int) -> dict[tuple[str, ...], Stored]:
    """The arrays of a checkpoint by their places in its tree, from its metadata alone.

    Raises UnsafeDatasetError for links, files of over `limit` bytes, names that are paths and sizes that cannot be, and
    CorruptDatasetError for what is no metadata of orbax.
    """
    import tensorstore

    folder = folder.absolute()
    files = dict(walk(folder, "checkpoint", MAX_FILES, MAX_DEPTH))
    size = sum(files.values())
    if size > limit:
        raise UnsafeDatasetError(f"{folder} has {size:,} bytes; a checkpoint has at most {limit:,} here.")
    tree = parse_json(read_bytes(folder / TREE, what="checkpoint"), folder / TREE)
    names = _names(tree.get("tree_metadata"), folder)
    kind, base = ("zarr3", "zarr.json") if tree.get("use_zarr3") is True else ("zarr", ".zarray"), f"{folder}/"
    store: dict[str, Any] = {"driver": "file", "path": base}
    in_database = tree.get("use_ocdbt")
    if in_database is True or (in_database is None and "manifest.ocdbt" in files):
        _check_tables(folder, files)
        store, base = {"driver": "ocdbt", "base": store}, ""
    opened, found = _wait(folder, tensorstore.KvStore.open, store), {}
    for place, name in names.items():
        said = _wait(folder, opened.read, f"{name}/{kind[1]}")
        if said.state != "value" or len(said.value) > MAX_DESCRIPTION:
            raise damaged(folder, f"{printable('/'.join(place))} is missing")
        spec = {"driver": kind[0], "kvstore": {**store, "path": f"{base}{name}/"}}
        found[place] = _stored(parse_json(said.value, f"{folder}: the array {printable(name)}"), spec, folder)
    claimed, chunks = sum(one.bytes for one in found.values()), sum(one.chunks for one in found.values())
    if claimed > ROOM + MAX_RATIO * size or chunks > MAX_CHUNKS:
        raise UnsafeDatasetError(
            f"{folder} unpacks to over {MAX_RATIO} times its size or has over {MAX_CHUNKS:,} chunks; expected numbers "
            "that were trained."
        )
    return found


def read(arrays: Iterable[Stored], folder: Path) -> list[np.ndarray]:
    """The arrays themselves. Raises CorruptDatasetError."""
    import tensorstore

    context = tensorstore.Context()
    opened = [_wait(folder, tensorstore.open, dict(one.spec), open=True, read=True, context=context) for one in arrays]
    reading = [one.read() for one in opened]
    return [np.asarray(_wait(folder, lambda future=future: future)) for future in reading]


def _wait(folder: Path, begin: Any, *arguments: Any, **options: Any) -> Any:
    """What an operation of tensorstore gives in the end."""
    try:
        return begin(*arguments, **options).result()
    except Exception as error:  # tensorstore raises all kinds
        raise damaged(folder, error) from error


def damaged(folder: Path, reason: object) -> CorruptDatasetError:
    """The error that says so."""
    text = (str(reason).splitlines() or [""])[0] or type(reason).__name__
    return CorruptDatasetError(
        f"{folder} is a damaged checkpoint of orbax, or of another version ({printable(text, 200)})."
    )


def _names(tree: Any, folder: Path) -> dict[tuple[str, ...], str]:
    """The arrays of a tree: places → names in the checkpoint. What holds no array (None, text) is left out."""
    if not isinstance(tree, dict) or len(tree) > MAX_ARRAYS:
        raise damaged(folder, f"its {TREE} describes no tree of at most {MAX_ARRAYS:,} arrays")
    found: dict[tuple[str, ...], str] = {}
    repeated = False
    for entry in tree.values():
        try:
            place = tuple(key["key"] for key in entry["key_metadata"])
            kind, skipped = entry["value_metadata"]["value_type"], entry["value_metadata"]["skip_deserialize"]
        except (KeyError, TypeError) as error:
            raise damaged(folder, f"its {TREE} is none of orbax") from error
        if not 0 < len(place) <= MAX_DEPTH or not all(isinstance(key, str) for key in place):
            raise damaged(folder, f"its {TREE} has an array without a name")
        name = ".".join(place)
        # Each array of a checkpoint without a database is a folder of this name.
        if len(name) > 1000 or not name.isprintable() or any(part in ("", ".", "..") for part in name.split("/")):
            raise UnsafeDatasetError(
                f"{folder / TREE} names an array by a path, or by no name at all; nothing was read."
            )
        if kind in _ARRAYS and skipped is False:
            repeated, found[place] = repeated or place in found, name
    inner = {place[:end] for place in found for end in range(1, len(place))}
    if repeated or len({*found.values()}) < len(found) or any(place in inner for place in found):
        raise damaged(folder, f"its {TREE} gives two arrays one name")
    return found


def _stored(said: Mapping[str, Any], spec: Mapping[str, Any], folder: Path) -> Stored:
    """What zarr's metadata of an array say. Raises CorruptDatasetError and UnsafeDatasetError."""
    try:
        if spec["driver"] == "zarr":
            shape, outer, dtype = said["shape"], said["chunks"], said["dtype"]
            packing = [*(said.get("filters") or []), *([said["compressor"]] if said["compressor"] else [])]
            codecs, inner = [codec["id"] for codec in packing], outer
        else:
            shape, outer, dtype = said["shape"], said["chunk_grid"]["configuration"]["chunk_shape"], said["data_type"]
            codecs, inner = _codecs(said["codecs"], outer)
        sizes = [*shape, *outer, *inner]
        whole = all(type(size) is int and 0 <= size < 1 << 40 for size in sizes) and 0 not in (*outer, *inner)
        if not whole or not len(shape) == len(outer) == len(inner) <= 32 or not _DTYPE.fullmatch(dtype):
            raise ValueError
        kind = np.dtype("V2" if dtype == "bfloat16" else dtype)
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(folder, "an array is not described as zarr does it") from error
    if not all(codec in _CODECS for codec in codecs):
        raise UnsafeDatasetError(
            f"{folder} has an array packed by {printable(codecs)}; expected some of {', '.join(_CODECS)}."
        )
    chunks = math.prod(-(-max(a, b) // c) for a, b, c in zip(shape, outer, inner, strict=True))
    numbers = max(math.prod(shape), math.prod(outer))
    name = "bfloat16" if dtype == "bfloat16" else kind.name
    return Stored(tuple(shape), name, numbers, numbers * kind.itemsize, chunks, spec)


def _codecs(codecs: Any, chunk: Any) -> tuple[list[Any], Any]:
    """The codecs of version 3 by name, those inside of shards too, and the shape of the innermost chunks."""
    names = []
    for codec in codecs:
        if codec["name"] != "sharding_indexed":
            names.append(codec["name"])
            continue
        inside = codec["configuration"]
        found, chunk = _codecs(inside["codecs"], inside["chunk_shape"])
        names += [*found, *(one["name"] for one in inside.get("index_codecs", []))]
    return names, chunk


def _check_tables(folder: Path, files: Mapping[str, int]) -> None:
    """Raises UnsafeDatasetError where the tables of the database would unpack to more than `MAX_TABLES`.

    They may lie anywhere in the files, so every place where one could begin counts.
    """
    left = MAX_TABLES
    for name, size in files.items():
        if size < _HEADER + _CRC:
            continue
        with open_regular(folder / name, what="checkpoint") as descriptor:
            if os.lseek(descriptor, 0, os.SEEK_HOLE) < size:  # terabytes of nothing would take hours
                raise UnsafeDatasetError(f"{folder / name} has holes; the files of a checkpoint are written whole.")
            data = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        with data:
            for match in _TABLE.finditer(data):
                start = match.start()
                length, version = int.from_bytes(data[start + 4 : start + 12], "little"), data[start + 12 : start + 14]
                if version in (b"\0\0", b"\0\1") and _HEADER + _CRC <= length <= len(data) - start:
                    body = start + _HEADER, start + length - _CRC
                    left -= _LEAST + (body[1] - body[0] if version == b"\0\0" else _unpacked(data, *body, left))
                if left < 0:
                    raise UnsafeDatasetError(f"{folder} has tables that unpack to over {MAX_TABLES >> 20} MiB.")


def _unpacked(data: mmap.mmap, at: int, end: int, enough: int) -> int:
    """Bytes that zstd frames unpack to, at most, by the sizes of their blocks; anything above `enough` will do."""
    total = 0
    while at + 5 <= end and total <= enough:
        magic = int.from_bytes(data[at : at + 4], "little")
        if magic & ~15 == 0x184D2A50:  # a frame to skip
            at, total = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little"), total + _LEAST
            continue
        flags = data[at + 4]
        single = flags >> 5 & 1
        at += 5 + (not single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
        last = magic != 0xFD2FB528
        while not last and at + 3 <= end and total <= enough:
            block = int.from_bytes(data[at : at + 3], "little")
            last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
            total += max(_LEAST, _BLOCK if kind == 2 else size)
            at += 3 + (1 if kind == 1 else size)
        at += 4 * (flags >> 2 & 1)  # a checksum
        if magic != 0xFD2FB528:
            break
    return total
