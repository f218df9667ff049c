"""The chain of commit records of a data set that lies elsewhere: read by number, without a listing, and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from epvf_data.errors import CorruptDatasetError, DatasetError, UnsafeDatasetError
from epvf_data.places.base import Place
from epvf_data.store.commit import MAX_RECORDS, CommitRecord, check_follows, record_name, unseal
from epvf_data.store.folders import COMMITS, ROOT
from epvf_data.store.root import Root, parse_root
from epvf_data.untrusted import MAX_JSON_BYTES

_WINDOW = 32  # records that are asked for at once
_USUAL = 1 << 18  # bytes of a record; larger ones are fetched one by one, so that memory stays bounded


class Chain(NamedTuple):
    """A data set's root, as a file and as what it says, and its records."""

    anchor: bytes
    root: Root
    records: list[CommitRecord]

    def until(self, place: Place, revision: str) -> Chain:
        """The chain up to a revision. Raises DatasetError where it does not have it."""
        cut = next((record.number for record in self.records if record.sha256 == revision), len(self.records))
        return _ended(place, self[:2], self.records[: cut + 1], revision)


def read_root_of(place: Place) -> tuple[bytes, Root] | None:
    """The root of the data set at a place, as a file and as what it says; None where there is none."""
    data = place.small(ROOT, MAX_JSON_BYTES)
    return None if data is None else (data, parse_root(data, place.shown))


def follow(
    place: Place,
    known: Sequence[CommitRecord] = (),
    until: str | None = None,
    keep: Callable[[int, bytes], None] = lambda number, data: None,
) -> Chain:
    """The root and all records of a data set elsewhere, those after `known` fetched; up to the revision `until`.

    `keep` gets each new record's number and file.

    Raises DatasetError where there is no data set or not this revision, CorruptDatasetError where the chain is broken
    or does not go on where `known` ends.
    """
    found = read_root_of(place)
    if found is None:
        raise DatasetError(f"{place.shown} is not a data set (it has no {ROOT}, or does not show it to you).")
    anchor = hashlib.sha256(found[0]).hexdigest()
    records = list(known)
    with ThreadPoolExecutor(_WINDOW) as pool:
        window = 2
        while len(records) < MAX_RECORDS and (until is None or not records or records[-1].sha256 != until):
            numbers = range(len(records), min(len(records) + window, MAX_RECORDS))
            waiting = [pool.submit(_usual, place, number) for number in numbers]
            answers = [future.result() for future in waiting]
            there = [answer is not None for answer in answers]
            for number, data in zip(numbers, answers, strict=True):
                if data == b"" or (data is None and any(there[number - numbers.start :])):
                    data = read_record(place, number)  # a large one; or one that was published as we looked
                if data is None:
                    if any(there[number - numbers.start :]):
                        raise CorruptDatasetError(
                            f"{_where(place, number)} is missing although later records are there; tell its keeper."
                        )
                    return _ended(place, found, records, until)
                records.append(_check(place, records, data, anchor))
                keep(number, data)
                if records[-1].sha256 == until:
                    break
            window = min(2 * window, _WINDOW)
    return _ended(place, found, records, until)


def read_record(place: Place, number: int) -> bytes | None:
    """The file of a record; None where there is none."""
    return place.small(f"{COMMITS}/{record_name(number)}", MAX_JSON_BYTES)


def _usual(place: Place, number: int) -> bytes | None:
    """The same, but nothing of a file above the usual size: that is told by no bytes."""
    try:
        return place.small(f"{COMMITS}/{record_name(number)}", _USUAL)
    except UnsafeDatasetError:
        return b""


def _check(place: Place, records: Sequence[CommitRecord], data: bytes, anchor: str) -> CommitRecord:
    where = _where(place, len(records))
    record = unseal(data, where)
    if records and record.parent != records[-1].sha256 and record.number == len(records) and record.root == anchor:
        # The record before this one has come to us otherwise, or is not there any more as it was.
        raise CorruptDatasetError(
            f"{where} does not follow commit {len(records) - 1} as it was ({records[-1].sha256[:12]}, of "
            f"{records[-1].created}): the history there was rewritten."
        )
    check_follows(record, len(records), records[-1].sha256 if records else None, anchor, where)
    return record


def _ended(place: Place, found: tuple[bytes, Root], records: list[CommitRecord], until: str | None) -> Chain:
    if until is not None and (not records or records[-1].sha256 != until):
        raise DatasetError(
            f"{place.shown} holds no revision sha256:{until[:12]}…: it has {_head(records)}; its newest records are "
            "missing (an older state), or its history was rewritten."
        )
    return Chain(*found, records)


def _head(records: Sequence[CommitRecord]) -> str:
    if not records:
        return "no commit"
    return f"{len(records)} commits, the last of {records[-1].created} (sha256:{records[-1].sha256[:12]}…)"


def _where(place: Place, number: int) -> str:
    return f"{place.shown}/{COMMITS}/{record_name(number)}"
