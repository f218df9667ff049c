"""Data sets that are read where they lie: records first, then each file when it is needed, into the user's cache.

A file is verified as it comes and kept under its SHA-256, so that nothing in the cache can be stale, or another's. What
stands for the data set on this machine is a folder of its records in the cache; only the process that opened the URL
fetches anything for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from epvf_data.errors import DatasetError
from epvf_data.places.address import Address, parse
from epvf_data.places.base import Place
from epvf_data.places.cache import Cache
from epvf_data.places.opening import open_place
from epvf_data.store.commit import FOLDER_METADATA, CommitRecord, live_parts, read_chain, record_path
from epvf_data.store.durable import lock, open_folder, storage_errors
from epvf_data.store.fetch import fetch_file
from epvf_data.store.folders import CARD, COMMITS, FOLDERS, PARTS, ROOT, Files
from epvf_data.store.follow import follow, read_record
from epvf_data.store.meter import Meter
from epvf_data.store.part import Find
from epvf_data.store.publishing import publish

_SMALL = 1 << 20  # bytes of a file that is fetched together with the same one of the next parts
_AHEAD_SMALL, _AHEAD_LARGE = 64, 2  # how many
_THREADS = 16
_MAX_CARD = 16 << 20
_opened: dict[Path, Afar] = {}


class Afar:
    """The files of one data set elsewhere (see `part.Far`)."""

    def __init__(self, place: Place, cache: Cache, records: Sequence[CommitRecord]) -> None:
        self._place, self._cache, self._meter = place, cache, Meter(0)
        self._order = [(f"{PARTS}/{part.id}", part.files) for part in live_parts(records)]
        self._index = {folder: number for number, (folder, _) in enumerate(self._order)}
        self._pool, self._lock = ThreadPoolExecutor(_THREADS), threading.Lock()
        self._coming: dict[str, Future[None]] = {}

    def find(self, folder: str, files: Files) -> Find:
        """See `part.Far`."""

        def one(name: str) -> Path:
            digest = files[name][1]
            if not self._cache.has(digest):
                mine = self._start(folder, name, files)
                at = self._index.get(folder)
                if at is not None:
                    ahead = _AHEAD_SMALL if files[name][0] <= _SMALL else _AHEAD_LARGE
                    for other, theirs in self._order[at + 1 : at + 1 + ahead]:
                        if name in theirs and not self._cache.has(theirs[name][1]):
                            self._start(other, name, theirs)
                mine.result()
            return self._cache.path(digest)

        return one

    def _start(self, folder: str, name: str, files: Files) -> Future[None]:
        digest = files[name][1]
        with self._lock:
            found = self._coming.get(digest)
            if found is None or (found.done() and not self._cache.has(digest)):
                found = self._coming[digest] = self._pool.submit(self._fetch, f"{folder}/{name}", files[name])
            return found

    def _fetch(self, source: str, expected: tuple[int, str]) -> None:
        size, digest = expected
        target = self._cache.path(digest)
        with storage_errors(self._cache.root, "keeping a file"):
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_folder(target.parent) as folder:
                draft = f"{digest}.{os.getpid()}.{id(self):x}.part"  # several in this process may fetch the same file
                fetch_file(self._place, source, expected, folder, draft, self._meter)
                if not publish(draft, folder, folder, digest):
                    os.unlink(draft, dir_fd=folder.descriptor)
        self._cache.added(size)


def open_url(url: str) -> Path:
    """Reads a data set's records where it lies. Gives the folder that stands for it on this machine.

    Only records that are new are fetched. Raises as `follow` does.
    """
    address, cache = parse(url), Cache()
    place = open_place(address)
    key = hashlib.sha256(f"{address.shown}@{address.revision}".encode()).hexdigest()[:32]
    mirror = (cache.root / "sets" / key / address.name).absolute()
    records = _sync(place, address, mirror)
    _opened[mirror] = Afar(place, cache, records)
    return mirror


def far_of(path: Path) -> Afar | None:
    """Where the files of a data set are fetched from, if its folder stands for one that this process opened by URL."""
    return _opened.get(path.absolute())


def _sync(place: Place, address: Address, mirror: Path) -> list[CommitRecord]:
    """Brings the records up to date, one process after the other; what does not fit any more makes way."""
    with storage_errors(mirror, "keeping records"), contextlib.ExitStack() as stack:
        mirror.mkdir(parents=True, exist_ok=True)
        stack.enter_context(lock(stack.enter_context(open_folder(mirror.parent)), exclusive=True, wait=True))
        for folder in FOLDERS:
            (mirror / folder).mkdir(parents=True, exist_ok=True)
            _keep(mirror, mirror / folder / ROOT, FOLDER_METADATA)
        new: dict[int, bytes] = {}
        known = _known(mirror)
        if known and not _is_same(place, known):
            known = []
        if address.revision is not None:
            known = known[: next((item.number for item in known if item.sha256 == address.revision), len(known)) + 1]
        chain = follow(place, known, address.revision, keep=new.__setitem__)
        for old in sorted((mirror / COMMITS).glob("0*.json"))[len(known) :]:
            old.unlink()
        _keep(mirror, mirror / ROOT, chain.anchor)
        for number in sorted(new):
            _keep(mirror, record_path(mirror, number), new[number])
        for name in CARD[:2]:
            data = place.small(name, _MAX_CARD)
            if data is not None:
                _keep(mirror, mirror / name, data)
    return chain.records


def _keep(mirror: Path, path: Path, data: bytes) -> None:
    """Writes a file at once: others read this folder meanwhile. What the disk loses is fetched again."""
    if not path.is_file() or path.read_bytes() != data:
        draft = mirror.parent / f"{secrets.token_hex(8)}.draft"
        draft.write_bytes(data)
        draft.replace(path)


def _known(mirror: Path) -> list[CommitRecord]:
    try:
        return list(read_chain(mirror))
    except DatasetError:  # the first time, or it was interrupted
        return []


def _is_same(place: Place, known: Sequence[CommitRecord]) -> bool:
    data = read_record(place, known[-1].number)
    return data is not None and hashlib.sha256(data).hexdigest() == known[-1].sha256
