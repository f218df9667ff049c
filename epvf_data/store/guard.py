"""Refuses hostile input before anything else reads it: links, odd names, huge or deep metadata, unknown codecs."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data.errors import CorruptDatasetError, DatasetError, UnsafeDatasetError
from epvf_data.store.schema import KEY, Column
from epvf_data.store.shard import Layout, array_metadata, chunk_rows

MAX_JSON_BYTES = 16 << 20
MAX_JSON_DEPTH = 32
MAX_JSON_ITEMS = 600_000
MAX_JSON_DIGITS = 40  # of a whole number: 128 bits, as random seeds have
MAX_ITEMS = 1 << 40
MAX_CHUNK_BYTES = 1 << 30
MAX_FILES = 1_000  # in one part or probe folder
MAX_DEPTH = 4
MAX_NAME = 256  # characters of a relative path
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def printable(value: object, limit: int = 80) -> str:
    """A stranger's text for a message or a terminal: one line, at most `limit` characters, control characters escaped.

    Escape sequences could repaint a terminal, and directional marks could reorder what it shows.
    """
    text = str(value)
    cut = text[:limit]
    if not cut.isprintable():
        cut = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)[:limit]
    return cut if len(text) <= limit else f"{cut}…"


def check_relative(name: object, where: str) -> str:
    """A relative path of plain components. Raises UnsafeDatasetError for `..`, absolute paths and odd characters."""
    if not isinstance(name, str) or len(name) > MAX_NAME or not all(_is_plain(part) for part in name.split("/")):
        raise UnsafeDatasetError(f"{where} names the file '{printable(name)}'; only plain relative names are allowed.")
    return name


@lru_cache(1024)  # thousands of parts hold the same few names
def _is_plain(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def check_names(names: Iterator[str] | list[str], where: str) -> None:
    """Raises UnsafeDatasetError for odd names and for names that differ only in case."""
    seen: dict[str, str] = {}
    for name in names:
        check_relative(name, where)
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise UnsafeDatasetError(
                f"{where} holds both {other!r} and {name!r}; some file systems see one file there."
            )


def check_directory(path: Path) -> None:
    """Raises UnsafeDatasetError unless `path` is a real directory, CorruptDatasetError where there is nothing."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError as error:
        raise CorruptDatasetError(f"{path} is missing; copy the whole data set again.") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be opened ({error.strerror}).") from error
    if not stat.S_ISDIR(mode):
        raise UnsafeDatasetError(f"{path} is a link or a special file; a data set holds plain folders there.")


@contextlib.contextmanager
def open_regular(path: Path, twin: Path | None = None) -> Iterator[int]:
    """A descriptor of a plain file, for reading. Links and special files are refused.

    A record that was published a moment ago may still have its staging name; `twin` is the folder of such names.
    """
    try:
        _check_regular(path, os.lstat(path).st_mode)  # first: merely opening some devices has effects
        # NOFOLLOW and NONBLOCK: what lies there may have become a link or a FIFO meanwhile.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise CorruptDatasetError(f"{path} is missing; copy the whole data set again.") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be opened ({error.strerror}).") from error
    try:
        status = os.fstat(descriptor)
        _check_regular(path, status.st_mode)
        if status.st_nlink > 1 and not _has_twin(descriptor, twin):
            raise UnsafeDatasetError(f"{path} is a hard link to another file; copy the data set without links.")
        yield descriptor
    finally:
        os.close(descriptor)


def _check_regular(path: Path, mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise UnsafeDatasetError(f"{path} is a symbolic link; a data set holds plain files only.")
    if not stat.S_ISREG(mode):
        raise UnsafeDatasetError(f"{path} is not a plain file; a data set holds plain files and folders only.")


def _has_twin(descriptor: int, twin: Path | None) -> bool:
    """Whether the only other name of the file lies in the folder `twin`, or has gone by now."""
    status = os.fstat(descriptor)
    if twin is None or status.st_nlink > 2:
        return False
    with contextlib.suppress(FileNotFoundError), os.scandir(twin) as entries:
        if any(entry.inode() == status.st_ino for entry in entries):
            return True
    return os.fstat(descriptor).st_nlink == 1


def read_bytes(path: Path, twin: Path | None = None) -> bytes:
    """A small file's bytes."""
    with open_regular(path, twin) as descriptor:
        size = os.fstat(descriptor).st_size
        if size > MAX_JSON_BYTES:
            raise UnsafeDatasetError(f"{path} has {size} bytes of metadata; at most {MAX_JSON_BYTES} are allowed.")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_JSON_BYTES + 1)


def parse_json(data: bytes, where: object) -> dict[str, Any]:
    """A JSON object of bounded size and depth, without repeated keys, of finite numbers and UTF-8 text."""
    depth, items = _structure(data)
    if depth > MAX_JSON_DEPTH or items > MAX_JSON_ITEMS:
        raise UnsafeDatasetError(f"{where} nests {depth} levels with {items} items; that is no metadata of ours.")
    hooks = {"parse_constant": _no_constant, "parse_int": _whole, "parse_float": _finite}
    try:
        value = json.loads(data.decode(), object_pairs_hook=_no_repeats, **hooks)
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError as error:
        raise CorruptDatasetError(f"{where} is not valid JSON (it holds text that is not UTF-8).") from error
    except ValueError as error:
        raise CorruptDatasetError(f"{where} is not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise CorruptDatasetError(f"{where} is not a JSON object.")
    return value


def _structure(data: bytes) -> tuple[int, int]:
    """The depth of JSON text and its number of items, at most; in little time and memory whatever the bytes are."""
    raw = np.frombuffer(data.replace(b"\\\\", b"").replace(b'\\"', b""), np.uint8)
    inside = np.cumsum(raw == ord('"'), dtype=np.uint8) & 1  # the parity of the number of quotes so far
    bare = raw[inside == 0]
    steps = ((bare == ord("[")) | (bare == ord("{"))).astype(np.int8)
    items = int(np.count_nonzero(steps)) + int(np.count_nonzero(bare == ord(",")))
    steps -= (bare == ord("]")) | (bare == ord("}"))
    return int(np.cumsum(steps, dtype=np.int32).max(initial=0)), items


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key appears twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _whole(text: str) -> int:
    if len(text) > MAX_JSON_DIGITS:
        raise ValueError(f"a number has {len(text)} digits; at most {MAX_JSON_DIGITS} are allowed")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is beyond the range of 64 bits")
    return value


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
    try:
        return dict(_walk(folder))
    except FileNotFoundError as error:
        raise CorruptDatasetError(f"{folder} changed while it was read; copy the whole data set again.") from error
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read ({error.strerror}).") from error


def _walk(folder: Path) -> Iterator[tuple[str, int]]:
    waiting = [""]
    entries = 0
    while waiting:
        inner = waiting.pop()
        names = []
        with os.scandir(folder / inner) as listing:
            for entry in listing:
                entries += 1
                name = f"{inner}{entry.name}"
                status = entry.stat(follow_symlinks=False)
                names.append(entry.name)
                if entries > MAX_FILES or name.count("/") > MAX_DEPTH:
                    raise UnsafeDatasetError(f"{folder} holds more than {MAX_FILES} files or too deep a tree.")
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(name + "/")
                elif stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                    yield name, status.st_size
                else:
                    raise UnsafeDatasetError(
                        f"{folder}/{printable(name)} is a link or a special file; only plain files may be here."
                    )
        check_names(names, str(folder / inner))
