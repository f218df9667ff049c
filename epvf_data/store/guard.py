"""Refuses hostile metadata before anything else reads it: unknown layouts, codecs and sizes, folders full of files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epvf_data.errors import CorruptDatasetError, UnsafeDatasetError
from epvf_data.store.schema import KEY, Column
from epvf_data.store.shard import Layout, array_metadata, chunk_rows
from epvf_data.trees import walk
from epvf_data.untrusted import check_directory, check_names, printable

MAX_ITEMS = 1 << 40
MAX_CHUNK_BYTES = 1 << 30
MAX_FILES = 1_000  # in one part or probe folder
MAX_DEPTH = 4


def group_attributes(meta: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Our attributes of a group's `zarr.json`."""
    attributes = meta.get("attributes")
    ours = attributes.get(KEY) if isinstance(attributes, dict) else None
    if not isinstance(ours, dict):
        raise CorruptDatasetError(f"{where} has no attributes {KEY!r}.")
    expect(meta, {"zarr_format": 3, "node_type": "group", "attributes": {KEY: ours}}, where)
    return ours


def array_layout(meta: Mapping[str, Any], column: Column, where: object) -> Layout:
    """The layout that an array's `zarr.json` declares, which must be exactly one that this format writes."""
    try:
        shape = _sizes(meta["shape"])
        sharding = meta["codecs"][0]["configuration"]
        chunk = _sizes(sharding["chunk_shape"])
        middle = [codec for codec in sharding["codecs"] if codec["name"] == "zstd"]
        level = middle[0]["configuration"]["level"] if middle else None
    except (KeyError, IndexError, TypeError) as error:
        raise CorruptDatasetError(f"{where} does not describe a sharded array ({type(error).__name__}).") from error
    if len(shape) != len(column.dims) or len(chunk) != len(shape):
        raise UnsafeDatasetError(f"{where} has rank {len(shape)}; {len(column.dims)} is expected.")
    if not all(type(size) is int and 0 < size <= MAX_ITEMS for size in (*shape, *chunk)):
        raise UnsafeDatasetError(f"{where} has a size that is not a whole number from 1 to {MAX_ITEMS}.")
    if level is not None and not (type(level) is int and -7 <= level <= 22):
        raise UnsafeDatasetError(
            f"{where} has the zstd level '{printable(level)}'; whole numbers from −7 to 22 are allowed."
        )
    if chunk[0] != chunk_rows(shape[0]):
        raise CorruptDatasetError(f"{where} has chunks of {chunk[0]} rows; {chunk_rows(shape[0])} are expected.")
    layout = Layout(shape, column.dtype, chunk[0], level)
    if math.prod(shape) > MAX_ITEMS or layout.chunk_bytes > MAX_CHUNK_BYTES:
        raise UnsafeDatasetError(
            f"{where} declares {math.prod(shape)} numbers in chunks of {layout.chunk_bytes} bytes."
        )
    expect(meta, array_metadata(layout, column.dims), where)
    return layout


def _sizes(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise TypeError("sizes are no list")
    return tuple(value)


def expect(got: Any, expected: Any, where: object) -> None:
    """Raises CorruptDatasetError that names the first place where two JSON values differ."""
    difference = _difference(got, expected, "")
    if difference:
        raise CorruptDatasetError(f"{where}: {difference}.")


def _difference(got: Any, expected: Any, path: str) -> str | None:
    if isinstance(got, Mapping) and isinstance(expected, Mapping):
        for key in sorted({*got, *expected}):
            if key not in got or key not in expected:
                return f"{path}/{printable(key)} is {'missing' if key in expected else 'unknown'}"
            inner = _difference(got[key], expected[key], f"{path}/{key}")
            if inner:
                return inner
        return None
    if isinstance(got, (list, tuple)) and isinstance(expected, (list, tuple)) and len(got) == len(expected):
        pairs = enumerate(zip(got, expected, strict=True))
        return next((inner for i, (a, b) in pairs if (inner := _difference(a, b, f"{path}/{i}"))), None)
    same = type(got) is type(expected) and got == expected
    return None if same else f"{path} is '{printable(got)}', expected '{printable(expected)}'"


def scan(folder: Path) -> dict[str, int]:
    """Every file under a part or probe folder: relative path → size. Refuses what is not a plain file or folder."""
    check_directory(folder)
    return dict(walk(folder, "data set", MAX_FILES, MAX_DEPTH, _check_names))


def _check_names(names: list[str], where: str) -> None:
    """Raises UnsafeDatasetError for names that are none of ours, such as those of a synchroniser's second copies."""
    try:
        check_names(names, where)
    except UnsafeDatasetError as error:
        raise UnsafeDatasetError(f"{error} Remove it, or copy the data set again.") from error
