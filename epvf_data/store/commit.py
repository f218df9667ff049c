"""Commit records: the chain of JSON files that says which parts a data set consists of, and how one is added to it."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from epvf_data import untrusted
from epvf_data.errors import CorruptDatasetError, DatasetError, UnsafeDatasetError
from epvf_data.store.claims import check_unclaimed
from epvf_data.store.durable import discard, write_file
from epvf_data.store.folders import COMMITS, ROOT, Files, Folders
from epvf_data.store.publishing import publish
from epvf_data.store.schema import FORMAT_VERSION, to_json

FOLDER_METADATA = to_json({"zarr_format": 3, "node_type": "group", "attributes": {}})
MAX_RECORDS = 100_000
_DEEPEST = 200  # numbers in the place of a part, before places are numbered anew
_SEAL = b',"sha256":"'
_SEAL_BYTES = len(_SEAL) + 64 + len(b'"}')
_HEX = re.compile(r"[0-9a-f]{64}")
_UUID = re.compile(r"[0-9a-f]{32}")
_RECORD = re.compile(r"[0-9]{8}\.json")


@dataclass(frozen=True)
class PartEntry:
    """One part as a commit names it. `files` maps relative path → (size in bytes, SHA-256)."""

    id: str
    rows: int
    architecture: str
    probe: str | None
    files: Files


@dataclass(frozen=True)
class CommitRecord:
    """One commit: the parts that it adds and removes, and where they came from. `sha256` is that of its file."""

    number: int
    parent: str | None
    root: str
    add: tuple[PartEntry, ...]
    remove: tuple[str, ...]
    probes: Mapping[str, Files]
    provenance: Mapping[str, Any]
    created: str
    sha256: str

    @property
    def rows(self) -> int:
        """Rows that this commit adds."""
        return sum(part.rows for part in self.add)


def seal(content: Mapping[str, Any]) -> bytes:
    """A record's file: canonical JSON whose last member is the SHA-256 of all bytes before the comma in front of it."""
    body = to_json(content)[:-1]
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode() + b'"}'


def unseal(data: bytes, where: object) -> CommitRecord:
    """Inverse of `seal`. Raises CorruptDatasetError where the seal is broken or a field is not what it should be."""
    body, tail = data[:-_SEAL_BYTES], data[-_SEAL_BYTES:]
    if tail != _SEAL + hashlib.sha256(body).hexdigest().encode() + b'"}':
        raise CorruptDatasetError(f"{where} does not match its own checksum; fetch this file again.")
    value = untrusted.parse_json(data, where)
    try:
        version = _whole(value["format_version"])
        if version < 1:
            raise ValueError("no format version")
        if version > FORMAT_VERSION:
            raise DatasetError(
                f"{where} has format version {version}; this release reads up to {FORMAT_VERSION}: upgrade epvf-data."
            )
        record = CommitRecord(
            number=_whole(value["number"]),
            parent=None if value["parent"] is None else _matches(_HEX, value["parent"]),
            root=_matches(_HEX, value["root"]),
            add=tuple(_part(part, where) for part in _list(value["add"])),
            remove=tuple(_matches(_UUID, part) for part in _list(value["remove"])),
            probes={_matches(_HEX, probe): _files(files, where) for probe, files in value["probes"].items()},
            provenance=_object(value["provenance"]),
            created=_time(value["created"]),
            sha256=hashlib.sha256(data).hexdigest(),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {untrusted.printable(error, 120)}"
        raise CorruptDatasetError(f"{where} is not a commit record ({reason}).") from error
    if any(part.probe is not None and part.probe not in record.probes for part in record.add):
        raise CorruptDatasetError(f"{where} adds a part whose probing states it does not name.")
    return record


def _whole(value: Any, most: int = 1 << 53) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"'{untrusted.printable(value)}' is no whole number up to {most}")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"'{untrusted.printable(value)}' is no list")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"'{untrusted.printable(value)}' is no object")
    return value


def _time(value: Any) -> str:
    if not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is None:
        raise ValueError(f"'{untrusted.printable(value)}' is no time with its zone")
    return value


def _matches(pattern: re.Pattern[str], value: Any) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"'{untrusted.printable(value)}' is no identifier")
    return value


def _files(value: Any, where: object) -> Files:
    untrusted.check_names(list(_object(value)), str(where))
    return {name: (_whole(size), _matches(_HEX, digest)) for name, (size, digest) in value.items()}


def _part(value: Any, where: object) -> PartEntry:
    return PartEntry(
        id=_matches(_UUID, value["id"]),
        rows=_whole(value["rows"], 1 << 31),
        architecture=_matches(_HEX, value["architecture"]),
        probe=None if value["probe"] is None else _matches(_HEX, value["probe"]),
        files=_files(value["files"], where),
    )


def record_path(root: Path, number: int) -> Path:
    return root / COMMITS / record_name(number)


def record_name(number: int) -> str:
    return f"{number:08d}.json"


def read_anchor(root: Path) -> str:
    """SHA-256 of the root's metadata, which every record names."""
    return hashlib.sha256(untrusted.read_bytes(root / ROOT)).hexdigest()


def read_chain(root: Path, known: Sequence[CommitRecord] = (), anchor: str | None = None) -> Iterator[CommitRecord]:
    """All records in order, each checked against its seal, its number, its parent and the root's metadata.

    `known` are records that were read before; a chain that does not continue them raises CorruptDatasetError.
    `anchor` is the SHA-256 of the root's metadata if that is not published yet.
    """
    untrusted.check_directory(root / COMMITS)
    yield from known
    parent = known[-1].sha256 if known else None
    anchor = anchor or read_anchor(root)
    number = len(known)
    while _has_record(root, number):
        where = record_path(root, number)
        record = unseal(untrusted.read_bytes(where), where)
        check_follows(record, number, parent, anchor, where)
        parent = record.sha256
        number += 1
        yield record


def check_follows(record: CommitRecord, number: int, parent: str | None, anchor: str, where: object) -> None:
    """Raises CorruptDatasetError unless a record is that of this number, after this parent, of this root."""
    if record.number != number or record.parent != parent:
        raise CorruptDatasetError(f"{where} does not follow the record before it; fetch the commits again.")
    if record.root != anchor:
        raise CorruptDatasetError(f"{where} was written for another {ROOT} than lies there; fetch both again.")


def _has_record(root: Path, number: int) -> bool:
    """Whether record `number` is there. Raises CorruptDatasetError if it is not but a later one is."""
    where = record_path(root, number)
    if os.path.lexists(where):
        return True
    # A record may be published while we look, and a listing may show it before those that precede it: look again.
    if any(found >= number for found in _record_names(root)):
        if os.path.lexists(where):
            return True
        raise CorruptDatasetError(f"{where} is missing although later records are there; fetch the commits again.")
    return False


def _record_names(root: Path) -> Iterator[int]:
    with os.scandir(root / COMMITS) as entries:
        for count, entry in enumerate(entries):
            if count > MAX_RECORDS:
                raise UnsafeDatasetError(f"{root / COMMITS} holds more than {MAX_RECORDS} records.")
            if entry.name == ROOT or untrusted.is_litter(entry.name):
                continue
            if not _RECORD.fullmatch(entry.name):
                raise UnsafeDatasetError(
                    f"{root / COMMITS} holds '{untrusted.printable(entry.name)}'; only commit records may be there: "
                    "remove it."
                )
            yield int(entry.name[:8])


def live_parts(records: Sequence[CommitRecord]) -> list[PartEntry]:
    """The parts that make up the data set, in row order.

    A record that removes parts puts those that it adds where the first removed part stood: compaction keeps the order.
    Raises CorruptDatasetError where a record removes what is not there or adds what was there before.
    """
    places: dict[str, tuple[int, ...]] = {}  # of the live parts; tuples, so that several fit where one stood
    parts: dict[str, PartEntry] = {}
    for record in records:
        gone = {name: places[name] for name in record.remove if name in places}
        added = {part.id: part for part in record.add if part.id not in parts}
        wrong = len(record.remove) - len(gone) + len(record.add) - len(added)
        if wrong:
            raise CorruptDatasetError(
                f"commit {record.number} removes or adds parts that it cannot ({wrong} unknown or repeated)."
            )
        for name in gone:
            del places[name]
        if gone and len(added) == 1:
            places |= dict.fromkeys(added, min(gone.values()))
        else:
            before = min(gone.values()) if gone else ()
            places |= {name: (*before, len(parts) + number) for number, name in enumerate(added)}
            if len(before) > _DEEPEST:
                places = {name: (number,) for number, name in enumerate(sorted(places, key=places.__getitem__))}
        parts |= added
    return [parts[name] for name in sorted(places, key=places.__getitem__)]


def compose(known: Sequence[CommitRecord], content: Mapping[str, Any], anchor: str) -> tuple[bytes, CommitRecord]:
    """The file of the record that follows `known`, and what it says. Raises DatasetError where none may follow so."""
    data = seal(
        {
            **content,
            "number": len(known),
            "parent": known[-1].sha256 if known else None,
            "root": anchor,
            "format_version": FORMAT_VERSION,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    record = unseal(data, record_name(len(known)))  # never write what a reader would refuse
    if len(data) > untrusted.MAX_JSON_BYTES:
        raise DatasetError(
            f"the commit's record would have {len(data)} bytes; {untrusted.MAX_JSON_BYTES} are allowed: "
            "commit fewer parts or less provenance at once."
        )
    if record.remove:
        live_parts([*known, record])
    return data, record


def publish_record(
    folders: Folders, known: Sequence[CommitRecord], content: Mapping[str, Any], anchor: str | None = None
) -> list[CommitRecord]:
    """Appends a record to the chain, after whatever others have appended meanwhile. Returns the whole chain.

    `content` holds `add`, `remove`, `probes` and `provenance` as JSON values. If this raises OSError or DatasetError,
    nothing was published: another process may have removed the parts that `content` removes, or committed rows of the
    same numbers and run. The caller flushes the folder of records.
    """
    known, root = list(known), folders.root.path
    anchor = anchor or read_anchor(root)
    while True:
        known = list(read_chain(root, known, anchor))
        check_unclaimed(known, content["provenance"], str(root))
        data, record = compose(known, content, anchor)
        draft = f"{uuid.uuid4().hex}.json"
        try:
            write_file(folders.staging, draft, [data], durable=True)
            if publish(draft, folders.staging, folders.commits, record_name(len(known))):
                return [*known, record]
        except OSError:
            discard(folders.staging, draft)
            raise
        discard(folders.staging, draft)
