"""A folder of zip files with a manifest, as `export-archive` makes it, to read.

Nothing is unpacked and no name is taken from it: what is asked for is looked up. Whoever unzips all has the same.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from epvf_data import untrusted
from epvf_data.errors import CorruptDatasetError, UnsafeDatasetError
from epvf_data.places.base import PIECE

MANIFEST = "archive.json"
MAX_ZIPS = 1_000
MAX_MEMBERS = 60_000  # of one zip
_MAX_DIRECTORY = 32 << 20  # bytes of one zip's table of contents
_END, _END64, _LOCATOR = 22, 56, 20  # bytes of the records at a zip's end
_HEADER = 30  # bytes before a member's name


class Member(NamedTuple):
    """Where a file lies: the zip, the place of its header there, its size in bytes."""

    archive: Path
    header: int
    size: int


class ArchivePlace:
    """Such a folder. Members that are compressed or encrypted are refused: ours are neither."""

    def __init__(self, root: Path, found: dict[str, Member] | None = None) -> None:
        """With all members that the manifest's zips have, unless those to be `found` are given.

        Raises CorruptDatasetError where a zip is missing or damaged, UnsafeDatasetError for what no export writes.
        """
        self.shown, self._members = str(root), found or {}
        for name, size in zips(root) if found is None else ():
            self._members |= members(root / name, size)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def small(self, name: str, limit: int) -> bytes | None:
        """See Place."""
        member = self._members.get(name)
        if member is None:
            return None
        if member.size > limit:
            raise UnsafeDatasetError(f"{self.shown}/{name} has {member.size} bytes; {limit} are allowed.")
        return b"".join(self.stream(name, 0, member.size))

    def stream(self, name: str, start: int, end: int) -> Iterator[bytes]:
        """See Place."""
        if name not in self._members:
            raise CorruptDatasetError(f"{self.shown} lacks {name}; fetch its zip files again.")
        member = self._members[name]
        with untrusted.open_regular(member.archive) as descriptor:
            header = os.pread(descriptor, _HEADER, member.header)
            if header[:4] != b"PK\3\4" or len(header) < _HEADER:
                raise CorruptDatasetError(f"{member.archive} is damaged at byte {member.header:,}; fetch it again.")
            data = member.header + _HEADER + sum(struct.unpack("<HH", header[26:30]))
            end = min(end, member.size)
            while start < end and (piece := os.pread(descriptor, min(PIECE, end - start), data + start)):
                start += len(piece)
                yield piece


def zips(root: Path) -> list[tuple[str, int]]:
    """The names and sizes of the zip files, as the manifest says. Raises CorruptDatasetError where that is odd."""
    where = root / MANIFEST
    found = untrusted.parse_json(untrusted.read_bytes(where), where).get("zips")
    if not isinstance(found, list) or len(found) > MAX_ZIPS:
        raise CorruptDatasetError(f"{where} lists no zip files, or too many; fetch it again.")
    told = []
    for one in found:
        name, size = (one.get(key) for key in ("name", "size")) if isinstance(one, dict) else (None, None)
        if not isinstance(size, int) or "/" in untrusted.check_relative(name, str(where)):
            raise CorruptDatasetError(f"{where} lists a zip without a name and a size; fetch it again.")
        told.append((str(name), size))
    return told


def members(archive: Path, size: int) -> dict[str, Member]:
    """The files in a zip of so many bytes, by their names inside the data set; its table is bounded before."""
    if not os.path.lexists(archive):
        raise CorruptDatasetError(f"{archive} is missing, which {MANIFEST} names; fetch it, too.")
    with untrusted.open_regular(archive) as descriptor, os.fdopen(os.dup(descriptor), "rb") as file:
        there = os.fstat(descriptor).st_size
        if there != size:
            raise CorruptDatasetError(f"{archive} has {there:,} bytes; {size:,} are expected: fetch it again.")
        _check_directory(archive, descriptor, there)
        try:
            with zipfile.ZipFile(file) as opened:
                listed = opened.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
            raise CorruptDatasetError(
                f"{archive} is damaged ({untrusted.printable(error)}); fetch it again."
            ) from error
    found = {}
    for one in listed:
        if one.compress_type != zipfile.ZIP_STORED or one.flag_bits & 1 or one.compress_size != one.file_size:
            raise UnsafeDatasetError(f"{archive} holds compressed or encrypted files; export-archive writes neither.")
        found[one.filename.partition("/")[2]] = Member(archive, one.header_offset, one.file_size)
    return found


def _check_directory(archive: Path, descriptor: int, size: int) -> None:
    """Raises UnsafeDatasetError where the table of contents is larger than any of ours."""
    tail = os.pread(descriptor, _END + _LOCATOR + _END64, max(0, size - _END - _LOCATOR - _END64))
    end, locator, end64 = tail[-_END:], tail[-_END - _LOCATOR : -_END], tail[: -_END - _LOCATOR]
    large = True
    with contextlib.suppress(struct.error):
        count, length = struct.unpack("<HI", end[10:16])
        large = end[:4] != b"PK\5\6" or count > MAX_MEMBERS or length > _MAX_DIRECTORY
        if locator[:4] == b"PK\6\7":
            count, length = struct.unpack("<QQ", end64[32:48])
            large = large or end64[:4] != b"PK\6\6" or count > MAX_MEMBERS or length > _MAX_DIRECTORY
    if large:
        raise UnsafeDatasetError(f"{archive} does not end as the zip files of export-archive do; fetch it again.")
