"""What lies where in a data set, under which names, and how a writer holds its folders open.

Whatever removes something looks at the names first: nothing goes but what has a name of ours.
"""

from __future__ import annotations

import contextlib
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from epvf_data.store.durable import Folder, inner, make_folder, open_folder

ROOT = "zarr.json"
COMMITS, PARTS, PROBES, STAGING = "commits", "parts", "probes", "staging"
SIGNATURES = "signatures"  # may lie in the root: files numbered as records are; no reader of rows reads them
FOLDERS = (COMMITS, PARTS, PROBES, STAGING)
CARD = ("README.md", "croissant.json", "returns.png")  # plain files that may lie in the root; no reader reads them
ROWS = "rows.parquet"  # the same: what `push` puts beside a data set for programs that know Parquet alone
UNFINISHED = ".epvf-data-unfinished"  # an empty file in `staging`: there first, and until the root's metadata are

Files = Mapping[str, tuple[int, str]]

_FOLDER_NAMES = {
    PARTS: re.compile(r"[0-9a-f]{32}"),
    PROBES: re.compile(r"[0-9a-f]{64}"),
    STAGING: re.compile(r"[0-9a-f]{32}"),
}
_FILE_NAMES = {
    COMMITS: re.compile(r"[0-9]{8}\.json"),
    SIGNATURES: re.compile(r"[0-9]{8}\.json"),
    STAGING: re.compile(rf"[0-9a-f]{{32}}\.json|{re.escape(UNFINISHED)}|\.({'|'.join(CARD)})\.[0-9a-f]{{32}}"),
}


class Folders(NamedTuple):
    """The open folders of a data set."""

    root: Folder
    commits: Folder
    parts: Folder
    probes: Folder
    staging: Folder


@contextlib.contextmanager
def folders_of(root: Folder) -> Iterator[Folders]:
    """The folders inside an open root. Raises UnsafeDatasetError where one is a link or a file, OSError without one."""
    with contextlib.ExitStack() as stack:
        yield Folders(root, *(stack.enter_context(inner(root, name)) for name in FOLDERS))


@contextlib.contextmanager
def open_folders(path: Path) -> Iterator[Folders]:
    """The folders of a finished data set; `staging` is made where a tool that drops such folders made the copy."""
    with open_folder(path) as root:
        make_folder(root, STAGING)
        with folders_of(root) as folders:
            yield folders


def has_our_form(folder: str, name: str, mode: int) -> bool:
    """Whether a writer gives such names in the folder of a data set, to what has the mode of `lstat`."""
    names = _FOLDER_NAMES if stat.S_ISDIR(mode) else _FILE_NAMES if stat.S_ISREG(mode) else {}
    pattern = names.get(folder)
    return (name == ROOT and stat.S_ISREG(mode)) or (pattern is not None and pattern.fullmatch(name) is not None)
