"""Signatures that lie beside a data set: each covers one commit, and with it, by the chain, all before it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from epvf_data import untrusted
from epvf_data.errors import CorruptDatasetError, DatasetError
from epvf_data.places.base import FolderPlace, Place
from epvf_data.sharing.keys import KINDS, Signers, sign_line
from epvf_data.store import reader
from epvf_data.store.commit import CommitRecord, live_parts, record_name
from epvf_data.store.durable import Folder, flush, inner, storage_errors
from epvf_data.store.files import publish_bytes
from epvf_data.store.folders import SIGNATURES, open_folders
from epvf_data.store.schema import to_json
from epvf_data.store.validate import validate

MAX_SIGNATURES = 1_000
_MAX_BYTES = 1 << 16  # of one
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Signature:
    """A signature over the line `record` (SHA-256 of a commit record's file). `data` is its own file."""

    number: int
    record: str
    kind: str
    text: str
    data: bytes


class Signed(NamedTuple):
    """A signature that holds: whose it is, and which commit it covers, with all before."""

    signer: str
    commit: CommitRecord


@dataclass(frozen=True)
class VerifyReport:
    """What is signed of a data set. `covered` are its rows [first, end) that signed commits brought, in order."""

    dataset: str
    ok: bool
    revision: str | None
    commits: int
    commits_signed: int
    rows: int
    rows_signed: int
    covered: list[tuple[int, int]]
    signatures: list[dict[str, Any]]
    problems: list[str]


def sign(dataset: str | os.PathLike[str], key: str | os.PathLike[str]) -> tuple[Signature, CommitRecord]:
    """Signs the newest commit of a data set, which covers all before it, with a key of SSH, minisign or model-signing.

    Raises DatasetError where there is no commit, ConfigError where the key's tool refuses, StorageError.
    """
    opened = reader.open(dataset)
    if not opened.commits:
        raise DatasetError(f"{dataset} holds no commit yet; there is nothing to sign.")
    head = opened.commits[-1]
    kind, text = sign_line(_line(head.sha256), Path(key))
    data = to_json({"commit": head.number, "record": head.sha256, "kind": kind, "signature": text})
    return add(Path(dataset), [data])[-1], head


def add(root: Path, files: Sequence[bytes]) -> list[Signature]:
    """Publishes signatures beside a data set under the next free numbers; those that are there stay once."""
    there = read(FolderPlace(root))
    known = {one.data for one in there}
    with storage_errors(root, "signing"), open_folders(root) as folders:
        for data in files:
            if data in known:
                continue
            with inner(folders.root, SIGNATURES, make=True) as folder:
                _publish(folders.staging, folder, data, len(there))
            flush(folders.root)
            there = read(FolderPlace(root))
    return there


def _publish(staging: Folder, folder: Folder, data: bytes, number: int) -> None:
    while not publish_bytes(staging, data, folder, record_name(number)):
        number += 1
    flush(folder)


def read(place: Place) -> list[Signature]:
    """All signatures beside a data set, in order. Raises CorruptDatasetError where one is none."""
    found: list[Signature] = []
    while len(found) < MAX_SIGNATURES:
        name = f"{SIGNATURES}/{record_name(len(found))}"
        data = place.small(name, _MAX_BYTES)
        if data is None:
            break
        where = f"{place.shown}/{name}"
        value = untrusted.parse_json(data, where)
        record, kind, text = (value.get(key) for key in ("record", "kind", "signature"))
        if not isinstance(record, str) or not _HEX.fullmatch(record) or not isinstance(text, str):
            raise CorruptDatasetError(f"{where} is no signature; remove it, or fetch it again.")
        if kind not in KINDS:
            raise CorruptDatasetError(f"{where} is a signature of the kind '{untrusted.printable(kind)}'; upgrade.")
        found.append(Signature(len(found), record, kind, text, data))
    return found


def held(found: Sequence[Signature], records: Sequence[CommitRecord], signers: Signers) -> list[Signed]:
    """The signatures that hold: by one of these signers, over a commit of this chain."""
    by_hash = {record.sha256: record for record in records}
    signed = []
    for one in found:
        if one.record in by_hash and (name := signers.who(one.kind, one.text, _line(one.record))):
            signed.append(Signed(name, by_hash[one.record]))
    return signed


def verify(
    dataset: str | os.PathLike[str],
    signers: str | os.PathLike[str],
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Reads every byte of a data set, and says which of its rows are signed by whom. `ok`: all are, nothing is wrong.

    A signature covers a commit's record, that record the SHA-256 of every file and of the record before. Raises
    ConfigError for a list of signers that cannot be used, DatasetError where there is no data set.
    """
    root, allowed = Path(dataset), Signers(Path(signers))
    opened = reader.open(root)
    found = read(FolderPlace(root))
    told = [_tell(one, opened.commits, allowed) for one in found]
    last = max((one["commit"] for one in told if one["signer"]), default=-1)
    covered = _ranges(opened.commits, last)
    problems = validate(root, deep=True, progress=progress)
    return VerifyReport(
        dataset=str(root),
        ok=not problems and 0 <= last == len(opened.commits) - 1,
        revision=opened.commits[-1].sha256 if opened.commits else None,
        commits=len(opened.commits),
        commits_signed=last + 1,
        rows=opened.rows,
        rows_signed=sum(end - first for first, end in covered),
        covered=covered,
        signatures=told,
        problems=problems,
    )


def _tell(one: Signature, records: Sequence[CommitRecord], signers: Signers) -> dict[str, Any]:
    """What is to be said of one signature."""
    record = next((record for record in records if record.sha256 == one.record), None)
    name = signers.who(one.kind, one.text, _line(one.record)) if record else None
    if record is None:
        verdict = f"is of the commit sha256:{one.record[:12]}…, which is not in this data set"
    elif name is None:
        verdict = f"of commit {record.number} is by nobody in {signers.file}, or its text was changed"
    else:
        verdict = f"of commit {record.number}, made {record.created}, is by {name}"
    return {
        "number": one.number,
        "signer": name,
        "commit": record.number if record else None,
        "created": record.created if record else None,
        "told": verdict,
    }


def _ranges(records: Sequence[CommitRecord], last: int) -> list[tuple[int, int]]:
    """The rows that commits up to number `last` brought, among all rows of today."""
    signed = {part.id for record in records[: last + 1] for part in record.add}
    ranges: list[tuple[int, int]] = []
    row = 0
    for part in live_parts(records):
        if part.id in signed and ranges and ranges[-1][1] == row:
            ranges[-1] = (ranges[-1][0], row + part.rows)
        elif part.id in signed:
            ranges.append((row, row + part.rows))
        row += part.rows
    return ranges


def check_signed(place: Place, records: Sequence[CommitRecord], revision: str | None, signers: Signers) -> Signed:
    """The newest signature that covers a revision of a chain, the newest one if None.

    Raises DatasetError where none does; it says what is signed.
    """
    good = held(read(place), records, signers)
    wanted = next((record for record in records if record.sha256 == revision), records[-1] if records else None)
    if not good or wanted is None:
        raise DatasetError(f"nothing of {place.shown} is signed by anybody in {signers.file}; nothing was fetched.")
    best = max(good, key=lambda signed: signed.commit.number)
    if best.commit.number < wanted.number:
        raise DatasetError(
            f"commit {wanted.number} of {place.shown} is signed by nobody in {signers.file}; {best.signer} signed up "
            f"to commit {best.commit.number}, made {best.commit.created}: @sha256:{best.commit.sha256} after the URL "
            "fetches that."
        )
    return best


def travelling(found: Sequence[Signature], records: Sequence[CommitRecord]) -> list[bytes]:
    """The files of the signatures that are of commits of a chain."""
    hashes = {record.sha256 for record in records}
    return [one.data for one in found if one.record in hashes]


def _line(record: str) -> str:
    """What is signed."""
    return f"{record}\n"
