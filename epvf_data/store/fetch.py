"""Brings files of a data set here from elsewhere: resumed where they stopped, hashed as they come, then flushed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from epvf_data.errors import CorruptDatasetError, DatasetError, UnsafeDatasetError
from epvf_data.places.base import PIECE, Place, pieces
from epvf_data.store import guard
from epvf_data.store.durable import Folder, discard, flush_tree, inner, lock, move
from epvf_data.store.folders import ROOT, Files
from epvf_data.store.meter import Meter
from epvf_data.store.part import read_group
from epvf_data.store.schema import Column

_TRIES = 2  # fetches of a whole file, before it is taken for another one than its commit names


def fetch_group(
    place: Place,
    source: str,
    files: Files,
    columns: Mapping[str, Column],
    staging: Folder,
    target: Folder,
    meter: Meter,
) -> None:
    """Brings the folder `source` of a place into `target`, whole or not at all; one that is there is looked at alone.

    Its metadata come first, and nothing that they do not allow. What an earlier call left in `staging` is gone on with;
    of two calls at once one waits. Raises CorruptDatasetError where a file is not what `files` say.
    """
    name = source.rpartition("/")[2]
    if target.status(name) is not None:
        _check_there(target.path / name, files)
        meter.add(sum(size for size, _ in files.values()))
        return
    staged = name[:32]
    with inner(staging, staged, make=True) as folder, lock(folder, exclusive=True, wait=True):
        if target.status(name) is not None:  # the other call has moved it
            meter.add(sum(size for size, _ in files.values()))
            return
        metadata = [file for file in files if file.endswith(ROOT)]
        _fetch_files(place, source, files, metadata, folder, meter)
        read_group(Path(place.shown) / source, files, columns, None, folder.path.__truediv__)
        _fetch_files(place, source, files, sorted({*files} - {*metadata}), folder, meter)
        if guard.scan(folder.path) != {file: size for file, (size, _) in files.items()}:
            discard(staging, staged)
            raise DatasetError(f"{folder.path} was changed while it was filled; run the same command again.")
        flush_tree(folder)
        move(staged, staging, target, name)


def _fetch_files(place: Place, source: str, files: Files, names: Sequence[str], folder: Folder, meter: Meter) -> None:
    for file in names:
        *above, last = file.split("/")
        with inner(folder, *above, make=True) as there:
            fetch_file(place, f"{source}/{file}", files[file], there, last, meter)


def _check_there(path: Path, files: Files) -> None:
    """A folder that is there was whole and verified when it got its name: sizes tell whether it still is."""
    if guard.scan(path) != {file: size for file, (size, _) in files.items()}:
        raise CorruptDatasetError(
            f"{path} holds other files than its commit names; if no commit here names it, `epvf-data gc --grace 0` "
            "removes it."
        )


def fetch_file(place: Place, source: str, expected: tuple[int, str], folder: Folder, name: str, meter: Meter) -> None:
    """Brings one file; what is there of it is gone on with. It is on the disk when its folder is flushed.

    Raises CorruptDatasetError where it is not what is expected, TransferError where the line fails, OSError.
    """
    size, digest = expected
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o644, dir_fd=folder.descriptor)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnsafeDatasetError(f"{folder.path / name} is no plain file; remove it.")
        for _ in range(_TRIES):
            if _filled(place, source, size, descriptor, meter) == digest:
                return
            meter.add(-size)
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
    raise CorruptDatasetError(
        f"{place.shown}/{source} is not the file that its commit names (its SHA-256 differs); nothing of it was kept: "
        "tell its keeper."
    )


def _filled(place: Place, source: str, size: int, descriptor: int, meter: Meter) -> str:
    """Writes what a file lacks. Returns its SHA-256."""
    found, have = hashlib.sha256(), 0
    if os.fstat(descriptor).st_size > size:
        os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    while piece := os.read(descriptor, PIECE):
        found.update(piece)
        have += len(piece)
        meter.add(len(piece))
    for piece in pieces(place, source, have, size, lambda: meter.stopped):
        found.update(piece)
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        meter.add(len(piece))
    return found.hexdigest()
