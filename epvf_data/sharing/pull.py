"""`pull`: a data set that lies elsewhere becomes a folder here, or the folder here gets its new commits."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from epvf_data import untrusted
from epvf_data.errors import CorruptDatasetError, DatasetError, StorageError
from epvf_data.places.address import Address, parse
from epvf_data.places.base import Place
from epvf_data.places.opening import open_place
from epvf_data.sharing.keys import Signers
from epvf_data.sharing.signatures import add, check_signed, read, travelling
from epvf_data.sharing.target import MAX_CARD
from epvf_data.sharing.transfer import Group, Step, carry, steps
from epvf_data.store.commit import CommitRecord, live_parts, read_chain, record_name
from epvf_data.store.creation import copied
from epvf_data.store.durable import flush, lock, storage_errors
from epvf_data.store.fetch import fetch_group
from epvf_data.store.files import publish_bytes
from epvf_data.store.folders import CARD, PARTS, PROBES, ROOT, Folders
from epvf_data.store.follow import Chain, follow, read_record
from epvf_data.store.meter import Meter

_ROOM = 1 << 20  # bytes beyond the files that must be free


@dataclass(frozen=True)
class PullReport:
    """What a pull brought: new commits, rows and bytes, and the revision that the data set now ends with."""

    dataset: str
    source: str
    revision: str | None
    rows: int
    commits: int
    commits_new: int
    bytes_new: int
    signed: tuple[str, int, str] | None = None  # by whom, up to which commit, and when that was made


def pull(
    url: str,
    dataset: str | os.PathLike[str] | None = None,
    *,
    signers: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PullReport:
    """Brings a data set here, or the commits that are new there; each appears when all that it needs is on the disk.

    `url` is a folder or URL, maybe with `@sha256:<revision>`: then nothing after that commit comes. Every file is
    compared with the SHA-256 in its commit's record as it is written. What an interrupted call brought stays, and the
    same call goes on. With a list of `signers` nothing comes but what one of them signed. Without `dataset` it goes
    into the working directory under the URL's last name.

    Raises DatasetError where no data set is there or here is another one, CorruptDatasetError where a file or the chain
    is not what it should be, TransferError where the line fails, StorageError if the disk refuses.
    """
    address = parse(url)
    root = Path(dataset if dataset is not None else address.name)
    allowed = Signers(Path(signers)) if signers is not None else None
    place = open_place(address)
    chain = _chain(place, address if allowed is None else replace(address, revision=None), root)
    signed = check_signed(place, chain.records, address.revision, allowed) if allowed else None
    if allowed is not None and address.revision is not None:
        chain = chain.until(place, address.revision)
    with storage_errors(root, "pulling"), copied(root, chain.anchor) as (folders, show):
        with lock(folders.staging, exclusive=False, wait=True):
            here = list(read_chain(root, anchor=hashlib.sha256(chain.anchor).hexdigest()))
            _check_same(place, address, chain.records, here, root)
            todo = steps(chain.records, len(here))
            meter = Meter(sum(group.bytes for step in todo for group in step.groups), progress)
            _check_room(folders, todo)
            if here or not todo or todo[0].whole:
                show()
            _bring(place, todo, folders, show, meter)
            flush(folders.commits)
            meter.finish()
            copy_card(place, folders)
        add(root, travelling(read(place), max(here, chain.records, key=len)))
    now = max(here, chain.records, key=len)
    return PullReport(
        dataset=str(root),
        source=address.shown,
        revision=now[-1].sha256 if now else None,
        rows=sum(part.rows for part in live_parts(now)),
        commits=len(now),
        commits_new=len(now) - len(here),
        bytes_new=meter.total,
        signed=None if signed is None else (signed.signer, signed.commit.number, signed.commit.created),
    )


def _chain(place: Place, address: Address, root: Path) -> Chain:
    """What lies there, of which the records that are here already need not be fetched again."""
    if not os.path.lexists(root / ROOT):
        return follow(place, until=address.revision)
    if place.small(ROOT, untrusted.MAX_JSON_BYTES) not in (None, untrusted.read_bytes(root / ROOT)):
        raise DatasetError(f"{root} is another data set than {place.shown}; pull it elsewhere, and merge the two.")
    here = list(read_chain(root))
    if address.revision is not None and any(record.sha256 == address.revision for record in here):
        cut = [record.sha256 for record in here].index(address.revision) + 1
        return follow(place, here[:cut], until=address.revision)
    if here and not _is(here[-1], read_record(place, len(here) - 1)):
        return follow(place)  # an older state or another history, which the comparison will name
    return follow(place, here, until=address.revision)


def _check_same(
    place: Place, address: Address, there: list[CommitRecord], here: list[CommitRecord], root: Path
) -> None:
    """Raises CorruptDatasetError unless one chain goes on where the other one ends."""
    for mine, theirs in zip(here, there, strict=False):
        if mine.sha256 != theirs.sha256:
            raise CorruptDatasetError(
                f"commit {mine.number} of {place.shown} is not the one in {root}: its history was rewritten, or both "
                f"sides added commits; pull into a new folder and `epvf-data merge` the two."
            )
    if len(there) < len(here) and address.revision is None:
        last = there[-1].created if there else "no time"
        raise CorruptDatasetError(
            f"{place.shown} ends with commit {len(there) - 1} of {last}, and {root} has {len(here) - len(there)} more: "
            f"it is an older state, or yours are not pushed yet."
        )


def _check_room(folders: Folders, todo: list[Step]) -> None:
    """Raises StorageError where the disk has no room for all files."""
    need = sum(group.bytes for step in todo for group in step.groups if not _is_there(folders, group)) + _ROOM
    free = shutil.disk_usage(folders.root.path).free
    if need > free:
        raise StorageError(
            f"{folders.root.path} needs {need / 1e9:,.2f} GB, and {free / 1e9:,.2f} GB are free there; make room or "
            "choose another place."
        )


def _is_there(folders: Folders, group: Group) -> bool:
    return (folders.parts if group.kind == PARTS else folders.probes).status(group.name) is not None


def _bring(place: Place, todo: list[Step], folders: Folders, show: Callable[[], None], meter: Meter) -> None:
    targets = {PARTS: folders.parts, PROBES: folders.probes}

    def bring(group: Group) -> None:
        fetch_group(place, group.path, group.files, group.columns, folders.staging, targets[group.kind], meter)

    def publish(span: list[Step]) -> None:
        flush(folders.parts)
        flush(folders.probes)
        for step in span:
            publish_copy(place, step.record, folders)
        flush(folders.commits)
        show()

    carry(todo, bring, publish, meter)


def publish_copy(place: Place, record: CommitRecord, folders: Folders) -> None:
    """Publishes a record as it is elsewhere. Raises DatasetError where another one has its number by now."""
    data = read_record(place, record.number)
    if data is None or not _is(record, data):
        raise CorruptDatasetError(f"commit {record.number} of {place.shown} has changed while it was read; start over.")
    name = record_name(record.number)
    done = publish_bytes(folders.staging, data, folders.commits, name)
    if not done and untrusted.read_bytes(folders.commits.path / name) != data:
        raise DatasetError(f"{folders.root.path} got another commit {record.number} meanwhile; pull into a new folder.")


def copy_card(place: Place, folders: Folders) -> None:
    """Brings the card, for people, where there is none here."""
    for name in CARD:
        if folders.root.status(name) is None and (data := place.small(name, MAX_CARD)) is not None:
            publish_bytes(folders.staging, data, folders.root, name)


def _is(record: CommitRecord, data: bytes | None) -> bool:
    return data is not None and hashlib.sha256(data).hexdigest() == record.sha256
