"""How a data set comes into being: empty and at once, or whole when everything that belongs into it is there."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from epvf_data.errors import DatasetError, StorageError
from epvf_data.store.commit import COMMITS, FOLDER_METADATA, FOLDERS, ROOT
from epvf_data.store.durable import flush, lock, make_folder
from epvf_data.store.files import group_metadata, publish_bytes
from epvf_data.store.schema import FORMAT_VERSION, EnvIdentity


def create(root: Path, env: EnvIdentity) -> None:
    """Lays out an empty data set; the root's metadata comes last and exclusively, so creators agree on one."""
    _check_place(root)
    if any((root / COMMITS).glob("[0-9]*.json")):
        raise _unfinished(root)
    _make(root)
    with lock(root, exclusive=False) as free:
        if not free:
            raise _busy(root)
        if not (root / ROOT).exists():
            _lay_out(root)
            _publish_root(root, _root_metadata(env))


@contextlib.contextmanager
def draft(root: Path, env: EnvIdentity) -> Iterator[str]:
    """A data set that nobody sees until the block ends without an error. Gives the SHA-256 of its root's metadata.

    What a killed process left there is replaced. Raises DatasetError where `root` is a data set or something else.
    """
    _check_place(root)
    if (root / ROOT).exists():
        raise DatasetError(f"{root} already is a data set; choose another path, or remove it first.")
    missing = _make(root)
    with lock(root, exclusive=True) as free:
        if not free:
            raise _busy(root)
        try:
            _clear(root)
            _lay_out(root)
            metadata = _root_metadata(env)
            yield hashlib.sha256(metadata).hexdigest()
            if not _publish_root(root, metadata):
                raise StorageError(f"another process made the data set {root} meanwhile; choose another path.")
        except BaseException:
            if not (root / ROOT).exists():
                _clear(root)
                for folder in missing:
                    with contextlib.suppress(OSError):
                        folder.rmdir()
            raise


def unmade(root: Path) -> bool:
    """Whether there is nothing yet but the folders that a killed process has made for a data set, or not even these."""
    if not root.exists():
        return True
    known = root.is_dir() and all(item.name in FOLDERS for item in root.iterdir())
    return known and not any((root / COMMITS).glob("[0-9]*.json"))


def _make(root: Path) -> list[Path]:
    """Creates a folder and those above it, and flushes their names. Returns the new ones, innermost first."""
    path = root.absolute()
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in (path, *missing):  # the first one also if a process that was killed has made it
        flush(folder.parent)
    return missing


def _check_place(root: Path) -> None:
    if root.is_symlink() or (
        root.exists() and (not root.is_dir() or any(item.name not in (*FOLDERS, ROOT) for item in root.iterdir()))
    ):
        raise DatasetError(f"{root} exists and is not a data set; choose another path.")


def _unfinished(root: Path) -> DatasetError:
    return DatasetError(f"{root} is unfinished: it is being made, or that was interrupted; remove it or make it again.")


def _busy(root: Path) -> DatasetError:
    return DatasetError(f"another process is making {root} at this moment; wait for it or choose another path.")


def _clear(root: Path) -> None:
    for folder in FOLDERS:
        shutil.rmtree(root / folder, ignore_errors=True)


def _lay_out(root: Path) -> None:
    for folder in FOLDERS:
        make_folder(root / folder)
    for folder in FOLDERS:
        publish_bytes(root, FOLDER_METADATA, root / folder / ROOT)
        flush(root / folder)


def _root_metadata(env: EnvIdentity) -> bytes:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return group_metadata({"format_version": FORMAT_VERSION, "env": env.to_dict(), "created": created})


def _publish_root(root: Path, metadata: bytes) -> bool:
    flush(root)  # a loss of power must not leave the root's metadata without the folders
    published = publish_bytes(root, metadata, root / ROOT)
    flush(root)
    return published
