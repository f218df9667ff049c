"""What lies below a folder that a stranger may have sent: plain files and folders, or nothing is read."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from epvf_data.errors import DatasetError, UnsafeDatasetError
from epvf_data.untrusted import UNLINKED, is_litter, printable

Check = Callable[[list[str], str], None]


def walk(folder: Path, what: str, most: int, depth: int, check: Check | None = None) -> Iterator[tuple[str, int]]:
    """Every file below a folder, as its relative path and size. The folder itself may be a link that the user made.

    `what` is the word of messages for that which the folder holds; `check` gets the names in each folder, and where
    that is. What goes meanwhile, because somebody is at work there, is left out, and so is what desktops and the like
    leave everywhere. Raises UnsafeDatasetError for links, special files, more than `most` entries and more than `depth`
    folders in each other, DatasetError where nothing can be read.
    """
    waiting, entries = [""], 0
    while waiting:
        inner, names = waiting.pop(), []
        for entry, status in _entries(folder / inner, top=not inner):
            entries += 1
            name = f"{inner}{entry}"
            if entries > most or name.count("/") > depth:
                raise UnsafeDatasetError(f"{folder} holds more than {most:,} files, or folders too deep.")
            if is_litter(entry):
                continue
            names.append(entry)
            if stat.S_ISDIR(status.st_mode):
                waiting.append(f"{name}/")
            elif stat.S_ISREG(status.st_mode):
                yield name, status.st_size
            else:
                raise UnsafeDatasetError(
                    f"{folder}/{printable(name)} is a link or a special file; a {what} holds plain files only: "
                    f"{UNLINKED}."
                )
        if check is not None:
            check(names, str(folder / inner))


def _entries(folder: Path, top: bool) -> Iterator[tuple[str, os.stat_result]]:
    """What is in one folder."""
    try:
        with os.scandir(folder) as listing:
            for entry in listing:
                with contextlib.suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False)
    except FileNotFoundError as error:
        if top:
            raise DatasetError(f"{folder} does not exist; check the name.") from error
    except OSError as error:
        raise DatasetError(f"{printable(folder, 300)} cannot be read ({error.strerror}).") from error
