"""`export-archive`: a data set as zip files under a stated size, for archives such as Zenodo; `pull` brings it back."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from epvf_data.cards.croissant import live_files
from epvf_data.errors import ConfigError, CorruptDatasetError, DatasetError, StorageError
from epvf_data.outputs import draft_file
from epvf_data.places.archive import MANIFEST, MAX_MEMBERS, MAX_ZIPS, ArchivePlace, members
from epvf_data.places.base import FolderPlace
from epvf_data.sharing import signatures
from epvf_data.sharing.target import MAX_CARD
from epvf_data.store import reader
from epvf_data.store.commit import FOLDER_METADATA, record_name
from epvf_data.store.durable import storage_errors
from epvf_data.store.folders import CARD, FOLDERS, ROOT, SIGNATURES, STAGING
from epvf_data.store.meter import Meter
from epvf_data.store.schema import to_json
from epvf_data.untrusted import printable, read_bytes

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BORN = (1980, 1, 1, 0, 0, 0)  # the same data set gives the same files
_AROUND = 30 + 46 + 28 + 12  # bytes that a zip takes for a member beside its data and twice its name, at most
_ENDS = 98  # bytes at a zip's end


class File(NamedTuple):
    """A file that goes into an archive: name inside the data set, size, SHA-256, and its bytes if it is none there."""

    name: str
    size: int
    sha256: str
    data: bytes | None = None


@dataclass(frozen=True)
class ArchiveReport:
    """What lies in `out` now: the zip files, those that were there before, and all bytes; every byte was read back."""

    dataset: str
    out: str
    revision: str
    rows: int
    zips: list[str]
    zips_there_before: int
    bytes: int


def parse_size(text: str) -> int:
    """Bytes of a size such as 40GB (10⁹ each). Raises ConfigError."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?) ?([KMGT]?B|)", text.strip().upper())
    if found is None:
        raise ConfigError(f"the size is '{printable(text)}'; write a number and MB or GB, such as 40GB.")
    return int(float(found[1]) * _UNITS[found[2]])


def export_archive(
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size: int = 40 * 10**9,
    progress: Callable[[int, int], None] | None = None,
) -> ArchiveReport:
    """Writes a data set into the folder `out` as zip files of at most `size` bytes, with `archive.json`.

    Members are stored, not compressed: parameters are noise. Unzipped into one folder they are the data set; `pull`
    reads them as they are. Every zip is read back and compared, file by file, with the SHA-256 that the commits name.
    What an interrupted call wrote is compared and kept. Parts that a compaction replaced stay behind.

    Raises ConfigError where a file is larger than a zip may be, DatasetError where `out` holds other zip files of these
    names, CorruptDatasetError where the data set is damaged, StorageError if the disk refuses.
    """
    opened, root, target = reader.open(dataset), Path(dataset), Path(out)
    if opened.revision is None:
        raise DatasetError(f"{dataset} holds no commit yet; there is nothing to archive.")
    name = root.absolute().name
    plan = list(_shares(_files(opened, root), name, size))
    if len(plan) > MAX_ZIPS:
        raise ConfigError(f"that would be {len(plan):,} zip files; {MAX_ZIPS:,} are allowed: let them be larger.")
    stem = name.removesuffix(".zarr") or name
    names = [f"{stem}-{number + 1:03d}-of-{len(plan):03d}.zip" for number in range(len(plan))]
    before = sum(os.path.lexists(target / one) for one in names)
    total = sum(file.size for share in plan for file in share)
    meter = Meter(2 * total, progress)
    with storage_errors(target, "archiving"):
        target.mkdir(parents=True, exist_ok=True)
        _check_room(target, names, plan)
        listed = []
        for archive, share in zip(names, plan, strict=True):
            there = os.path.lexists(target / archive)
            if not there:
                _write(target / archive, root, name, share, meter)
            listed.append(_check(target / archive, share, meter, there))
        about = {"epvf_data_archive": 1, "name": name, "revision": f"sha256:{opened.revision}", "rows": opened.rows}
        _put_manifest(target, to_json({**about, "commits": len(opened.commits), "zips": listed}))
    meter.finish()
    return ArchiveReport(str(root), str(target), opened.revision, opened.rows, names, before, total)


def _files(opened: reader.Dataset, root: Path) -> Iterator[File]:
    """All that makes the data set, in the order in which it is published, then what is for people."""
    yield from (File(file.path, file.size, file.sha256) for file in live_files(opened))
    extra = {f"{name}/{ROOT}": FOLDER_METADATA for name in FOLDERS if name != STAGING}
    for one in signatures.read(FolderPlace(root)):
        extra[f"{SIGNATURES}/{record_name(one.number)}"] = one.data
    extra |= {name: read_bytes(root / name, limit=MAX_CARD) for name in CARD if os.path.lexists(root / name)}
    for name, data in extra.items():
        yield File(name, len(data), hashlib.sha256(data).hexdigest(), data)


def _shares(files: Iterator[File], name: str, most: int) -> Iterator[list[File]]:
    """The files of each zip, in order, so that none has more than `most` bytes."""
    share: list[File] = []
    room = most - _ENDS
    for file in files:
        need = file.size + _AROUND + 2 * len(f"{name}/{file.name}".encode())
        if need > most - _ENDS:
            raise ConfigError(f"{file.name} has {file.size:,} bytes; let the zip files have {need + _ENDS:,} or more.")
        if need > room or len(share) == MAX_MEMBERS:
            yield share
            share, room = [], most - _ENDS
        share.append(file)
        room -= need
    yield share


def _check_room(target: Path, names: list[str], plan: list[list[File]]) -> None:
    missing = [share for name, share in zip(names, plan, strict=True) if not os.path.lexists(target / name)]
    need = sum(file.size + _AROUND for share in missing for file in share)
    if need > (free := shutil.disk_usage(target).free):
        raise StorageError(f"{target} needs {need / 1e9:,.2f} GB, and {free / 1e9:,.2f} GB are free there; make room.")


def _write(archive: Path, root: Path, name: str, share: list[File], meter: Meter) -> None:
    source = FolderPlace(root)
    with draft_file(archive) as draft, zipfile.ZipFile(draft, "w", allowZip64=True) as opened:
        for file in share:
            entry = zipfile.ZipInfo(f"{name}/{file.name}", _BORN)
            entry.external_attr, entry.file_size = 0o100644 << 16, file.size
            found = hashlib.sha256()
            with opened.open(entry, "w") as member:
                for piece in source.stream(file.name, 0, file.size) if file.data is None else [file.data]:
                    found.update(piece)
                    member.write(piece)
                    meter.add(len(piece))
                    meter.tell()
            if found.hexdigest() != file.sha256:
                raise CorruptDatasetError(f"{root / file.name} does not match its commit's SHA-256; fetch it again.")


def _check(archive: Path, share: list[File], meter: Meter, there: bool) -> dict[str, Any]:
    """Reads a zip back: what the manifest says of it. Raises DatasetError where it is not what it should be."""
    size = archive.lstat().st_size
    place = ArchivePlace(archive.parent, members(archive, size))
    if there:
        meter.add(sum(file.size for file in share))
    for file in share:
        found = hashlib.sha256()
        for piece in place.stream(file.name, 0, file.size + 1) if file.name in place else ():
            found.update(piece)
            meter.add(len(piece))
            meter.tell()
        if found.hexdigest() != file.sha256:
            cure = "it is of another state: remove it, or choose another folder" if there else "look at the disk"
            raise DatasetError(f"{archive} does not hold {file.name} as it should; {cure}.")
    with archive.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"name": archive.name, "size": size, "sha256": digest, "files": len(share)}


def _put_manifest(target: Path, data: bytes) -> None:
    """The last file. Raises DatasetError where one of another state is there."""
    path = target / MANIFEST
    if os.path.lexists(path) and read_bytes(path) != data:
        raise DatasetError(
            f"{path} is of another state of the data set; remove what is there, or choose another folder."
        )
    if not os.path.lexists(path):
        with draft_file(path) as draft:
            draft.write_bytes(data)
