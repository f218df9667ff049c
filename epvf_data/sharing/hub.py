"""A data set in a repository of the Hugging Face hub.

The hub takes commits of many files, all or none, and each only if its parent still is the newest one: so a record is
published only if its number is free. Large files go over before, by their content, and are not sent again by a push
that goes on. Several records are one commit of the hub, which lets an account make some hundred an hour.
"""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path
from typing import IO, Any

from epvf_data.errors import CorruptDatasetError, TransferError
from epvf_data.places.address import Address
from epvf_data.places.base import FolderPlace
from epvf_data.places.hub import ParentMovedError, endpoint, library, repository, speaking
from epvf_data.places.objects import ObjectPlace
from epvf_data.sharing import signatures
from epvf_data.sharing.transfer import Group
from epvf_data.store.commit import FOLDER_METADATA, CommitRecord, record_name
from epvf_data.store.folders import COMMITS, FOLDERS, ROOT, SIGNATURES
from epvf_data.store.follow import follow, read_root_of
from epvf_data.store.meter import Meter
from epvf_data.untrusted import MAX_JSON_BYTES, read_bytes

_MANY = 500  # files of a commit of the hub
_SMALL = 1 << 20  # bytes of a file that is kept in memory until it is committed
_END = 1 << 16  # bytes
_TRIES = 30  # to commit after others
_PAUSE = 0.2  # seconds


class Hub:
    """See Target. What it is given waits until it is many files, or `settle` is called."""

    def __init__(self, address: Address, anchor: bytes) -> None:
        """Raises ConfigError where a package is missing or the address makes no sense."""
        self._library, self._repo, self._anchor = library(), repository(address), anchor
        self._api: Any = self._library.HfApi(endpoint=endpoint())
        self._place, self._shown = ObjectPlace(address), address.shown
        self._waiting: list[Any] = []
        self._records: dict[str, bytes] = {}
        self._brought: set[str] = set()
        self._lock = threading.Lock()
        self._library.utils.disable_progress_bars()  # its own, beside ours

    def anchor(self) -> bytes:
        """See Target. A repository that is not there is made, for its owner alone."""
        found = read_root_of(self._place)
        if found is None:
            with speaking("making", self._shown):
                self._api.create_repo(self._repo, repo_type="dataset", private=True, exist_ok=True)
            files = {f"{name}/{ROOT}": FOLDER_METADATA for name in FOLDERS} | {ROOT: self._anchor}
            self._commit([self._add(name, data) for name, data in files.items()], {ROOT: self._anchor})
            found = read_root_of(self._place)
        if found is None:
            raise CorruptDatasetError(f"{self._shown} does not show what was put there; look at its settings.")
        return found[0]

    def records(self, known: list[CommitRecord]) -> list[CommitRecord]:
        """See Target."""
        return follow(self._place, known).records

    def bring(self, group: Group, source: FolderPlace, meter: Meter) -> None:
        """See Target. A folder is in one commit of the hub, so that it is there where one of its files is."""
        if group.path not in self._brought and self._place.size(f"{group.path}/{ROOT}") is None:
            added = [
                self._add(f"{group.path}/{file}", _read(source, f"{group.path}/{file}", expected))
                for file, expected in group.files.items()
            ]
            self._send(added)
            with self._lock:
                self._waiting += added
                self._brought.add(group.path)
        meter.add(group.bytes)

    def publish(self, number: int, data: bytes) -> bool:
        """See Target."""
        name = f"{COMMITS}/{record_name(number)}"
        with self._lock:
            self._waiting.append(self._add(name, data))
            self._records[name] = data
        return len(self._waiting) < _MANY or self.settle()

    def settle(self) -> bool:
        """See Target."""
        with self._lock:
            waiting, records, self._waiting, self._records = self._waiting, self._records, [], {}
        if not waiting or self._commit(waiting, records):
            return True
        with self._lock:  # the folders will be wanted, under other records
            self._waiting += [one for one in waiting if one.path_in_repo not in records]
        return False

    def sign(self, files: list[bytes]) -> None:
        """See Target."""
        while files:
            there = [one.data for one in signatures.read(self._place)]
            files = [data for data in files if data not in there]
            names = [f"{SIGNATURES}/{record_name(len(there) + place)}" for place in range(len(files))]
            new = dict(zip(names, files, strict=True))
            if not new or self._commit([self._add(*item) for item in new.items()], new):
                return

    def put(self, name: str, data: bytes) -> None:
        """See Target."""
        if self._place.size(name) is None or self._place.small(name, MAX_JSON_BYTES) != data:
            self._waiting.append(self._add(name, data))

    def put_file(self, name: str, file: IO[bytes]) -> None:
        """See Target."""
        file.flush()
        self._waiting.append(self._add(name, Path(file.name)))
        self.settle()

    def ending(self, name: str) -> bytes:
        """See Target."""
        size = self._place.size(name)
        return b"" if not size else b"".join(self._place.stream(name, max(0, size - _END), size))

    def _add(self, name: str, data: bytes | Path) -> Any:
        content = data if isinstance(data, bytes) else str(data)
        return self._library.CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)

    def _send(self, added: list[Any]) -> None:
        """Sends what the hub keeps by its content: of that a commit holds the SHA-256 alone."""
        with speaking("writing", self._shown):
            self._api.preupload_lfs_files(self._repo, additions=added, repo_type="dataset")

    def _commit(self, added: list[Any], exclusive: dict[str, bytes]) -> bool:
        """A commit of the hub; False where the first of the exclusive names is taken by other bytes.

        The parent is asked for before the name is looked for: where the hub takes the commit, nobody had it.
        """
        error = None
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(min(5, _PAUSE * attempt))
            try:
                with speaking("writing", self._shown):
                    parent = self._api.repo_info(self._repo, repo_type="dataset").sha
                for name, data in list(exclusive.items())[:1]:
                    there = self._place.small(name, MAX_JSON_BYTES)
                    if there is not None:  # ours, if only the answer was lost
                        return there == data
                with speaking("writing", self._shown):
                    title = f"{len(added)} files by epvf-data push"
                    self._api.create_commit(
                        self._repo, added, commit_message=title, repo_type="dataset", parent_commit=parent
                    )
                return True
            except ParentMovedError:
                error = TransferError(f"others commit to {self._shown} all the time; push again later.")
        raise error or TransferError(f"{self._shown} takes no commit.")


def _read(source: FolderPlace, name: str, expected: tuple[int, str]) -> bytes | Path:
    """A file's bytes, or its path where it is large. Raises CorruptDatasetError where it is not what is expected."""
    if expected[0] <= _SMALL:
        found: bytes | Path = read_bytes(source.root / name, limit=_SMALL)
        size, digest = len(found), hashlib.sha256(found).hexdigest()
    else:
        found, hashed, size = source.root / name, hashlib.sha256(), 0
        for piece in source.stream(name, 0, expected[0] + 1):
            hashed.update(piece)
            size += len(piece)
        digest = hashed.hexdigest()
    if (size, digest) != expected:
        raise CorruptDatasetError(f"{source.shown}/{name} does not match its commit's SHA-256; fetch this file again.")
    return found
