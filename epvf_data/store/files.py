"""Writes the folders of a data set: Zarr groups with their arrays, new or copied from another data set."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from epvf_data import untrusted
from epvf_data.errors import CorruptDatasetError
from epvf_data.outputs import UNKNOWN
from epvf_data.store import guard
from epvf_data.store.durable import Folder, discard, flush_tree, inner, open_folder, write_file
from epvf_data.store.folders import ROOT, Files
from epvf_data.store.publishing import publish
from epvf_data.store.schema import KEY, Column, to_json
from epvf_data.store.shard import Layout, array_metadata, chunk_rows, encode

_PIECE = 4 << 20


def group_metadata(attributes: Mapping[str, Any]) -> bytes:
    """The `zarr.json` of a group with our attributes."""
    return to_json({"zarr_format": 3, "node_type": "group", "attributes": {KEY: attributes}})


def write_group(
    parent: Folder,
    group: str,
    attributes: Mapping[str, Any],
    columns: Mapping[str, tuple[np.ndarray, Column]],
    zstd: int | None,
) -> dict[str, tuple[int, str]]:
    """Writes the new Zarr group `group` with its arrays and flushes it. Returns relative path → (size, SHA-256)."""
    files: dict[str, tuple[int, str]] = {}

    def write(name: str, pieces: Iterable[bytes | memoryview]) -> None:
        *above, last = name.split("/")
        with inner(folder, *above, make=True) as there:
            files[name] = write_file(there, last, pieces)

    os.mkdir(group, dir_fd=parent.descriptor)
    with inner(parent, group) as folder:
        write(ROOT, [group_metadata(attributes)])
        for name, (value, column) in columns.items():
            layout = Layout(value.shape, column.dtype, chunk_rows(len(value)), zstd)
            metadata = array_metadata(layout, column.dims)
            guard.array_layout(metadata, column, f"array {name}")  # never write what a reader would refuse
            write(f"{name}/{ROOT}", [to_json(metadata)])
            write(f"{name}/{layout.file}", encode(value, layout))
        flush_tree(folder)
    return files


def copy_group(source: Callable[[str], Path], files: Files, parent: Folder, group: str) -> None:
    """Copies the files of a group, compares each with its SHA-256 on the way, and flushes the copy.

    Raises CorruptDatasetError where the source is not what its commit says.
    """
    os.mkdir(group, dir_fd=parent.descriptor)
    with inner(parent, group) as folder:
        for name, expected in files.items():
            *above, last = name.split("/")
            with inner(folder, *above, make=True) as there:
                written = write_file(there, last, _pieces(source(name)))
            if written != expected:
                raise CorruptDatasetError(f"{source(name)} does not match its commit's SHA-256; fetch this file again.")
        flush_tree(folder)


def link_group(source: Path, files: Files, parent: Folder, group: str) -> bool:
    """Gives the files of a published group, which never change, second names in a new folder, which is not flushed.

    False, and nothing is left, where the file system refuses: the two lie on different ones, or it has no such links.
    """
    os.mkdir(group, dir_fd=parent.descriptor)
    try:
        with open_folder(source) as old, inner(parent, group) as new:
            for name in sorted({above for file in files for above in map(str, PurePosixPath(file).parents)} - {"."}):
                os.mkdir(name, dir_fd=new.descriptor)
            for name in files:
                *above, last = name.split("/")
                with inner(old, *above) as here:
                    os.link(last, name, src_dir_fd=here.descriptor, dst_dir_fd=new.descriptor, follow_symlinks=False)
                if not stat.S_ISREG(os.stat(name, dir_fd=new.descriptor, follow_symlinks=False).st_mode):
                    raise OSError(errno.EPERM, os.strerror(errno.EPERM))  # a link of the other kind: BeeGFS
    except OSError as error:
        if error.errno not in {*UNKNOWN, errno.EXDEV, errno.EMLINK}:
            raise
        discard(parent, group)
        return False
    return True


def _pieces(path: Path) -> Iterator[bytes]:
    with untrusted.open_regular(path) as descriptor:
        while piece := os.read(descriptor, _PIECE):
            yield piece


def publish_bytes(staging: Folder, data: bytes, folder: Folder, name: str) -> bool:
    """Writes a small file under `staging`, flushes it and gives it its name; False if that is taken."""
    draft = f"{uuid.uuid4().hex}.json"
    try:
        write_file(staging, draft, [data], durable=True)
        return publish(draft, staging, folder, name)
    finally:
        discard(staging, draft)
