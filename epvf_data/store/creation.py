"""How a data set comes into being: empty and at once, or whole when everything that belongs into it is there.

The first thing that is written is a mark in `staging`; it goes when the root's metadata is there. What an interrupted
process has left is known by the mark and by the names of everything inside: nothing else is ever removed or added to.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from epvf_data.errors import DatasetError, StorageError
from epvf_data.outputs import flush as flush_path
from epvf_data.store.commit import FOLDER_METADATA
from epvf_data.store.durable import Folder, discard, flush, inner, lock, make_folder, open_folder
from epvf_data.store.files import group_metadata, publish_bytes
from epvf_data.store.folders import (
    COMMITS,
    FOLDERS,
    ROOT,
    STAGING,
    UNFINISHED,
    Folders,
    folders_of,
    has_our_form,
)
from epvf_data.store.schema import FORMAT_VERSION, EnvIdentity
from epvf_data.untrusted import is_litter, printable, read_bytes


def create(root: Path, env: EnvIdentity) -> None:
    """Lays out an empty data set; the root's metadata comes last and exclusively, so creators agree on one.

    Raises DatasetError where something is that no process of ours began, or what one will replace.
    """
    with _place(root) as (folder, _):
        try:
            found = _survey(folder)
        except DatasetError:
            if folder.status(ROOT):
                return  # another process has finished it while we looked
            raise
        if found.records and not found.finished:
            raise DatasetError(
                f"{root} is unfinished: it is being made, or that was interrupted; remove it or make it again."
            )
        with lock(folder, exclusive=False) as free:
            if not free:
                raise _busy(root)
            if not folder.status(ROOT):
                with _laid_out(folder) as folders:
                    _publish_root(folders, _root_metadata(env))


@contextlib.contextmanager
def draft(root: Path, env: EnvIdentity) -> Iterator[str]:
    """A data set that nobody sees until the block ends without an error. Gives the SHA-256 of its root's metadata.

    What a killed process left there is replaced. Raises DatasetError where `root` is a data set or something else.
    """
    with _place(root) as (folder, missing):
        _check_vacant(folder)
        with lock(folder, exclusive=True) as free:
            if not free:
                raise _busy(root)
            _check_vacant(folder)
            try:
                _clear(folder)
                metadata = _root_metadata(env)
                with _laid_out(folder) as folders:
                    yield hashlib.sha256(metadata).hexdigest()
                    if not _publish_root(folders, metadata):
                        raise StorageError(f"another process made the data set {root} meanwhile; choose another path.")
            except BaseException:
                if not folder.status(ROOT):
                    _clear(folder)
                    for above in missing:
                        with contextlib.suppress(OSError):
                            above.rmdir()
                raise


@contextlib.contextmanager
def copied(root: Path, metadata: bytes) -> Iterator[tuple[Folders, Callable[[], None]]]:
    """The folders of a data set that becomes a copy of another one, and what to call when it may be seen.

    `metadata` is the file of its root. What an interrupted process copied before stays and is gone on with. Raises
    DatasetError where another data set or something else is there.
    """
    with _place(root) as (folder, _):
        if not _survey(folder).finished:
            with lock(folder, exclusive=False) as free:
                if not free:
                    raise _busy(root)
                with _laid_out(folder) as folders:
                    yield folders, lambda: _see(folders, metadata)
            return
        _check_root(root, metadata)
        make_folder(folder, STAGING)
        with folders_of(folder) as folders:
            discard(folders.staging, UNFINISHED)  # of a call that was killed when it had shown the data set
            yield folders, lambda: None


def _see(folders: Folders, metadata: bytes) -> None:
    if not folders.root.status(ROOT) and not _publish_root(folders, metadata):
        _check_root(folders.root.path, metadata)


def _check_root(root: Path, metadata: bytes) -> None:
    if read_bytes(root / ROOT) != metadata:
        raise DatasetError(f"{root} is another data set, not an earlier copy of this one; choose another path.")


def unmade(root: Path) -> bool:
    """Whether there is nothing yet but what a killed process has begun to make for a data set, or not even that."""
    if not os.path.lexists(root):
        return True
    try:
        with open_folder(root) as folder:
            found = _survey(folder)
    except (OSError, DatasetError):
        return False
    return not found.finished and not found.records


@contextlib.contextmanager
def _place(root: Path) -> Iterator[tuple[Folder, list[Path]]]:
    """The open folder `root`, which is made with those above it; the new ones come beside it, innermost first."""
    path = root.absolute()
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise DatasetError(f"{root} exists and is not a data set; choose another path.")
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in (path, *missing):  # the first one also if a process that was killed has made it
        flush_path(folder.parent)
    with open_folder(path.parent) as above, inner(above, path.name) as folder:
        yield Folder(folder.descriptor, root), missing


class _Found(NamedTuple):
    """What lies in a folder where a data set shall be."""

    finished: bool  # it is one: it has the root's metadata
    records: bool  # commit records


def _survey(folder: Folder) -> _Found:
    """Looks at all that lies there. Raises DatasetError unless it is a data set, or nothing, or was begun by us."""
    names, ours, records = [name for name in folder.names() if not is_litter(name)], False, False
    if ROOT in names:
        return _Found(True, True)
    for name in names:
        ours = ours or _marked(folder)
        if name not in FOLDERS or not (ours or name == STAGING):
            raise _foreign(folder, name)
        with contextlib.suppress(FileNotFoundError), inner(folder, name) as one:
            for item in one.names():
                ours, status = ours or _marked(folder), one.status(item)
                if status is None or is_litter(item):
                    continue
                if not (ours and has_our_form(name, item, status.st_mode)):
                    raise _foreign(folder, f"{name}/{item}")
                records |= name == COMMITS and item != ROOT
    return _Found(False, records)


def _marked(folder: Folder) -> bool:
    """Whether a process of ours began a data set here."""
    with contextlib.suppress(FileNotFoundError, DatasetError), inner(folder, STAGING) as staging:
        return staging.status(UNFINISHED) is not None
    return False


def _check_vacant(folder: Folder) -> None:
    if _survey(folder).finished:
        raise DatasetError(f"{folder.path} already is a data set; choose another path, or remove it first.")


def _foreign(folder: Folder, name: str) -> DatasetError:
    return DatasetError(
        f"{folder.path} exists and is not a data set: it holds '{printable(name)}', which is not of our making; "
        "choose another path."
    )


def _busy(root: Path) -> DatasetError:
    return DatasetError(f"another process is making {root} at this moment; wait for it or choose another path.")


def _clear(folder: Folder) -> None:
    """Removes what was begun here: what has names of ours alone, and the mark when all that it stands for has gone."""
    if not _marked(folder):
        return
    with contextlib.suppress(OSError, DatasetError), inner(folder, STAGING) as staging:
        for name in FOLDERS:
            with contextlib.suppress(OSError, DatasetError), inner(folder, name) as one:
                for item in one.names():
                    status = one.status(item)
                    if item != UNFINISHED and status is not None and has_our_form(name, item, status.st_mode):
                        discard(one, item)
                if name != STAGING:
                    os.rmdir(name, dir_fd=folder.descriptor)
        flush(folder)
        if folder.names() == [STAGING] and staging.names() == [UNFINISHED]:
            discard(staging, UNFINISHED)
            os.rmdir(STAGING, dir_fd=folder.descriptor)


@contextlib.contextmanager
def _laid_out(folder: Folder) -> Iterator[Folders]:
    """The folders of a new data set. The mark comes before everything, and goes if the root's metadata is there."""
    make_folder(folder, STAGING)
    with inner(folder, STAGING) as staging:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(UNFINISHED, flags, 0o644, dir_fd=staging.descriptor))
        flush(staging)
        flush(folder)
        for name in FOLDERS:
            make_folder(folder, name)
        with folders_of(folder) as folders:
            for one in folders[1:]:
                publish_bytes(staging, FOLDER_METADATA, one, ROOT)
                flush(one)
            yield folders
        discard(staging, UNFINISHED)


def _root_metadata(env: EnvIdentity) -> bytes:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return group_metadata({"format_version": FORMAT_VERSION, "env": env.to_dict(), "created": created})


def _publish_root(folders: Folders, metadata: bytes) -> bool:
    flush(folders.root)  # a loss of power must not leave the root's metadata without the folders
    published = publish_bytes(folders.staging, metadata, folders.root, ROOT)
    flush(folders.root)
    return published
