"""What lies below a folder that a stranger may have sent: plain files and folders, or nothing is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from epvf_data.errors import DatasetError, UnsafeDatasetError
from epvf_data.untrusted import printable


def walk(folder: Path, what: str, most: int, depth: int) -> Iterator[tuple[str, int]]:
    """Every file below a folder, as its relative path and size. The folder itself may be a link that the user made.

    `what` is the word of messages for that which the folder holds. Raises UnsafeDatasetError for links, hard links,
    special files, more than `most` entries and more than `depth` folders in each other.
    """
    waiting, entries = [""], 0
    try:
        while waiting:
            inner = waiting.pop()
            with os.scandir(folder / inner) as listing:
                for entry in listing:
                    entries += 1
                    name, status = f"{inner}{entry.name}", entry.stat(follow_symlinks=False)
                    if entries > most or name.count("/") > depth:
                        raise UnsafeDatasetError(f"{folder} holds more than {most:,} files, or folders too deep.")
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(f"{name}/")
                    elif stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                        yield name, status.st_size
                    else:
                        raise UnsafeDatasetError(
                            f"{folder}/{printable(name)} is a link or a special file; a {what} holds plain files only."
                        )
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read ({error.strerror}).") from error
