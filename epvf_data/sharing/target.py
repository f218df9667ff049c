"""Where `push` puts a data set: a bucket, or a folder as a writer would."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from typing import IO, Protocol

from epvf_data.errors import CorruptDatasetError, DatasetError
from epvf_data.outputs import draft_file, write_bytes
from epvf_data.places.address import Address, folder
from epvf_data.places.base import PIECE, FolderPlace, Place, Store
from epvf_data.places.opening import open_store
from epvf_data.sharing import signatures
from epvf_data.sharing.hub import Hub
from epvf_data.sharing.transfer import Group
from epvf_data.store.commit import FOLDER_METADATA, CommitRecord, read_chain, record_name
from epvf_data.store.creation import copied
from epvf_data.store.durable import flush, lock, storage_errors
from epvf_data.store.fetch import fetch_group
from epvf_data.store.files import publish_bytes
from epvf_data.store.folders import COMMITS, FOLDERS, PARTS, ROOT, SIGNATURES, Folders, open_folders
from epvf_data.store.follow import follow, read_root_of
from epvf_data.store.meter import Meter
from epvf_data.untrusted import read_bytes

MAX_CARD = 16 << 20  # bytes of one file of a card
_LARGE = 1 << 20  # bytes of a file that is looked for before it is put
_END = 1 << 16  # bytes


class Target(Protocol):
    """A data set that takes records of another one."""

    def anchor(self) -> bytes:
        """The file of its root."""
        ...

    def records(self, known: list[CommitRecord]) -> list[CommitRecord]:
        """Its chain as it is now, of which `known` were read before."""
        ...

    def bring(self, group: Group, source: FolderPlace, meter: Meter) -> None:
        """Puts a folder there, whole; one that is there is left alone. Raises CorruptDatasetError, TransferError."""
        ...

    def publish(self, number: int, data: bytes) -> bool:
        """Publishes a record, only if its number is free."""
        ...

    def settle(self) -> bool:
        """Makes sure that all that was published is there; False where another writer was faster with a record."""
        ...

    def sign(self, files: list[bytes]) -> None:
        """Publishes signatures beside the data set; those that are there stay once."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Puts a small file for people beside the data set; an earlier one is replaced."""
        ...

    def put_file(self, name: str, file: IO[bytes]) -> None:
        """The same of an open file, from its beginning, of any size."""
        ...

    def ending(self, name: str) -> bytes:
        """The last bytes of a file for people; none where there is no such file."""
        ...


@contextlib.contextmanager
def open_target(address: Address, anchor: bytes) -> Iterator[Target]:
    """The data set at an address; where there is none, an empty one with the root `anchor`."""
    if address.scheme == "hf":
        repository = Hub(address, anchor)
        yield repository
        repository.settle()
        return
    if address.scheme != "file":
        yield Bucket(open_store(address), anchor)
        return
    path = folder(address)
    with storage_errors(path, "pushing"), contextlib.ExitStack() as stack:
        if os.path.lexists(path / ROOT):
            folders = stack.enter_context(open_folders(path))
        else:
            folders, show = stack.enter_context(copied(path, anchor))
            show()
        stack.enter_context(lock(folders.staging, exclusive=False, wait=True))
        yield Directory(folders)


class Directory:
    """A data set in a folder of this machine."""

    def __init__(self, folders: Folders) -> None:
        self._folders, self._path = folders, folders.root.path

    def anchor(self) -> bytes:
        """See Target."""
        return read_bytes(self._path / ROOT)

    def records(self, known: list[CommitRecord]) -> list[CommitRecord]:
        """See Target."""
        return list(read_chain(self._path, known))

    def bring(self, group: Group, source: FolderPlace, meter: Meter) -> None:
        """See Target."""
        target = self._folders.parts if group.kind == PARTS else self._folders.probes
        fetch_group(source, group.path, group.files, group.columns, self._folders.staging, target, meter)
        flush(target)

    def publish(self, number: int, data: bytes) -> bool:
        """See Target."""
        done = publish_bytes(self._folders.staging, data, self._folders.commits, record_name(number))
        flush(self._folders.commits)
        return done

    def settle(self) -> bool:
        """See Target."""
        return True

    def sign(self, files: list[bytes]) -> None:
        """See Target."""
        signatures.add(self._path, files)

    def put(self, name: str, data: bytes) -> None:
        """See Target."""
        with lock(self._folders.commits, exclusive=True, wait=True):  # several may push at once
            if self._folders.root.status(name) is None or read_bytes(self._path / name) != data:
                write_bytes(self._path / name, data, force=True)

    def put_file(self, name: str, file: IO[bytes]) -> None:
        """See Target."""
        file.seek(0)
        with (
            lock(self._folders.commits, exclusive=True, wait=True),
            draft_file(self._path / name, force=True) as draft,
            draft.open("wb") as target,
        ):
            shutil.copyfileobj(file, target, PIECE)

    def ending(self, name: str) -> bytes:
        """See Target."""
        status = self._folders.root.status(name)
        return _ending(FolderPlace(self._path), name, status.st_size if status else None)


class Bucket:
    """A data set in an object store. Its root comes first, and of two that are put at once one stays."""

    def __init__(self, store: Store, anchor: bytes) -> None:
        self._store, self._anchor, self._checked = store, anchor, False

    def anchor(self) -> bytes:
        """See Target."""
        found = read_root_of(self._store)
        if found is None:
            self._check()
            for name in FOLDERS:
                self._store.create(f"{name}/{ROOT}", FOLDER_METADATA)
            self._store.create(ROOT, self._anchor)
            found = read_root_of(self._store)
        if found is None:
            raise CorruptDatasetError(f"{self._store.shown} does not show what was put there; look at its settings.")
        return found[0]

    def records(self, known: list[CommitRecord]) -> list[CommitRecord]:
        """See Target."""
        return follow(self._store, known).records

    def bring(self, group: Group, source: FolderPlace, meter: Meter) -> None:
        """See Target. The folder's own metadata come last: where they are, all is."""
        if self._has(f"{group.path}/{ROOT}", group.files[ROOT][0]):
            meter.add(group.bytes)
            return
        for file in sorted(group.files, key=lambda file: (file == ROOT, file)):
            size, name = group.files[file][0], f"{group.path}/{file}"
            if size < _LARGE or not self._has(name, size):
                self._store.upload(name, size, _verified(source, name, group.files[file], meter))
            else:
                meter.add(size)

    def _has(self, name: str, size: int) -> bool:
        there = self._store.size(name)
        if there not in (None, size):
            raise DatasetError(
                f"{self._store.shown}/{name} has {there} bytes, and {size} are expected; it is not ours: remove it."
            )
        return there is not None

    def publish(self, number: int, data: bytes) -> bool:
        """See Target."""
        self._check()
        return self._store.create(f"{COMMITS}/{record_name(number)}", data)

    def settle(self) -> bool:
        """See Target."""
        return True

    def sign(self, files: list[bytes]) -> None:
        """See Target."""
        there = [one.data for one in signatures.read(self._store)] if files else []
        number = len(there)
        for data in files:
            if data not in there:
                while not self._store.create(f"{SIGNATURES}/{record_name(number)}", data):
                    number += 1
                number += 1

    def put(self, name: str, data: bytes) -> None:
        """See Target."""
        if self._store.size(name) is None or self._store.small(name, MAX_CARD) != data:
            self._store.upload(name, len(data), iter([data]))

    def put_file(self, name: str, file: IO[bytes]) -> None:
        """See Target."""
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        self._store.upload(name, size, iter(lambda: file.read(PIECE), b""))

    def ending(self, name: str) -> bytes:
        """See Target."""
        return _ending(self._store, name, self._store.size(name))

    def _check(self) -> None:
        if not self._checked:
            self._store.check_exclusive()
            self._checked = True


def _ending(place: Place, name: str, size: int | None) -> bytes:
    return b"" if not size else b"".join(place.stream(name, max(0, size - _END), size))


def _verified(source: FolderPlace, name: str, expected: tuple[int, str], meter: Meter) -> Iterator[bytes]:
    """A file's bytes; the last ones only if all are those that are expected, so that nothing else is ever whole."""
    found, size, last = hashlib.sha256(), 0, b""
    for piece in source.stream(name, 0, expected[0]):
        if meter.stopped:
            raise DatasetError("another part of this push failed.")
        found.update(piece)
        if last:
            yield last
        last, size = piece, size + len(piece)
        meter.add(len(piece))
    if (size, found.hexdigest()) != expected:
        raise CorruptDatasetError(f"{source.shown}/{name} does not match its commit's SHA-256; fetch this file again.")
    yield last
