"""`push`: the commits of a data set that is here go into one that lies elsewhere."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from epvf_data.errors import ConfigError, CorruptDatasetError, DatasetError
from epvf_data.exchange import parquet
from epvf_data.places.address import Address, parse
from epvf_data.places.base import FolderPlace
from epvf_data.sharing.signatures import read as read_signatures
from epvf_data.sharing.signatures import travelling
from epvf_data.sharing.target import Target, open_target
from epvf_data.sharing.transfer import Group, Step, carry, steps
from epvf_data.store import reader
from epvf_data.store.claims import check_unclaimed
from epvf_data.store.commit import CommitRecord, compose, live_parts, read_anchor, record_path
from epvf_data.store.folders import CARD, ROOT, ROWS
from epvf_data.store.identity import expect
from epvf_data.store.meter import Meter
from epvf_data.store.root import parse_root
from epvf_data.untrusted import read_bytes


@dataclass(frozen=True)
class PushReport:
    """What a push did: new commits and bytes there, the revision that it ends with, and what others had put there.

    `commits_of_others` are not here; `renumbered` says that the new ones follow them under other numbers than here.
    """

    dataset: str
    target: str
    revision: str | None
    rows: int
    commits: int
    commits_new: int
    commits_of_others: int
    renumbered: bool
    bytes_new: int
    rows_file: bool  # whether rows.parquet is there and of this revision


class _TakenError(Exception):
    """Another writer was faster; carries nothing, for the chain is read again."""


def push(
    dataset: str | os.PathLike[str], url: str, *, progress: Callable[[int, int], None] | None = None
) -> PushReport:
    """Puts a data set into a bucket or folder, or the commits that are new here; each appears when all of it is there.

    Every file is hashed on the way; a record is published only if nobody has its number. Where others have added
    commits, these follow theirs, as if both had written into one folder: their parts and rows are the same, their
    numbers are not. What an interrupted call put there stays, and the same call goes on. At last comes `rows.parquet`,
    all but parameters and probing actions, for programs that know Parquet alone; not without pyarrow.

    Raises EnvironmentMismatchError where the data set there is of another environment, RowsTakenError where it holds
    the same rows of a run, DatasetError, CorruptDatasetError for damage, TransferError where the line fails.
    """
    address = parse(url)
    if address.revision is not None:
        raise ConfigError("a revision can be pulled, not pushed; leave out @sha256:….")
    opened = reader.open(dataset)
    path = Path(dataset)
    with open_target(address, read_bytes(path / ROOT)) as target:
        anchor = target.anchor()
        found = parse_root(anchor, address.shown).env
        expect(found, opened.env, f"{address.shown} holds rows of {found.name}, these are of {opened.env.name}", _CURE)
        mover = _Mover(address, path, list(opened.commits), target, hashlib.sha256(anchor).hexdigest(), progress)
        mover.run()
        target.sign(travelling(read_signatures(FolderPlace(path)), mover.theirs))
        for name in CARD:
            if os.path.lexists(path / name):
                target.put(name, read_bytes(path / name))
        told = _put_rows(opened, address, target, mover)
    after = mover.theirs
    mine = {part.id for record in opened.commits for part in record.add}
    others = [record for record in after if not {part.id for part in record.add} <= mine]
    return PushReport(
        dataset=str(path),
        target=address.shown,
        revision=after[-1].sha256 if after else None,
        rows=sum(part.rows for part in live_parts(after)),
        commits=len(after),
        commits_new=mover.published,
        commits_of_others=len(others),
        renumbered=mover.renumbered,
        bytes_new=mover.bytes,
        rows_file=told,
    )


def _put_rows(opened: reader.Dataset, address: Address, target: Target, mover: _Mover) -> bool:
    """Puts rows.parquet unless the one that is there is of this revision; again where others pushed meanwhile.

    Whoever writes last looks last, so that what stays is of the newest commit, whoever pushed that.
    """
    if not parquet.installed():
        return False
    while mover.theirs and f"sha256:{mover.theirs[-1].sha256}".encode() not in target.ending(ROWS):
        same = mover.theirs[-1].sha256 == opened.revision
        with tempfile.NamedTemporaryFile() as named:
            file = cast(BinaryIO, named)
            parquet.write_rows(opened if same else reader.open(address.text), file)
            target.put_file(ROWS, file)
        mover.theirs = target.records(mover.theirs)
    return True


_CURE = "choose another place"


class _Mover:
    """One push under way."""

    def __init__(
        self,
        address: Address,
        path: Path,
        mine: list[CommitRecord],
        target: Target,
        anchor: str,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.address, self.path, self.mine, self.target, self.anchor = address, path, mine, target, anchor
        self.theirs = target.records([])
        self.seen = len(self.theirs)  # of these are surely there
        self.source, self.progress = FolderPlace(path), progress
        self.same = read_anchor(path) == anchor
        self.sealed: set[str] = set()  # the records that were published, or were to be
        self.renumbered, self.bytes = False, 0

    @property
    def published(self) -> int:
        """How many of the records that are there this push has put there."""
        return sum(record.sha256 in self.sealed for record in self.theirs)

    def run(self) -> None:
        """Until everything is there, however often others come first."""
        while True:
            todo = missing(self.mine, self.theirs, self.same)
            meter = Meter(sum(group.bytes for step in todo for group in step.groups), self.progress)
            self.bytes = self.bytes or meter.total
            try:
                carry(todo, lambda group: self._bring(group, meter), self._publish, meter)  # noqa: B023
                if not self.target.settle():
                    raise _TakenError
            except _TakenError:
                self.theirs = self.target.records(self.theirs[: self.seen])
                self.seen = len(self.theirs)
                continue
            meter.finish()
            return

    def _bring(self, group: Group, meter: Meter) -> None:
        self.target.bring(group, self.source, meter)

    def _publish(self, span: list[Step]) -> None:
        for step in span:
            data, record = self._next(step.record)
            if not self.target.publish(record.number, data):
                raise _TakenError
            self.theirs.append(record)
            self.sealed.add(record.sha256)

    def _next(self, record: CommitRecord) -> tuple[bytes, CommitRecord]:
        """The file of a record as it goes there: as it is here where it follows the same one, else sealed anew."""
        if self.same and is_beginning(self.theirs, self.mine) and len(self.theirs) == record.number:
            return read_bytes(record_path(self.path, record.number)), record
        self.renumbered = True
        check_unclaimed(self.theirs, record.provenance, self.address.shown)
        try:
            return compose(self.theirs, _content(record, self.theirs), self.anchor)
        except CorruptDatasetError as error:
            raise DatasetError(
                f"commit {record.number} of {self.path} replaces parts that {self.address.shown} no longer has: both "
                "were compacted; pull it into a new folder and `epvf-data merge` the two."
            ) from error


def _content(record: CommitRecord, theirs: Sequence[CommitRecord]) -> dict[str, Any]:
    """A record as it follows these; a compaction's says their numbers of the commits that it joins."""
    add = [
        {"id": part.id, "rows": part.rows, "architecture": part.architecture, "probe": part.probe, "files": part.files}
        for part in record.add
    ]
    provenance = {**record.provenance, "pushed": {"record": record.sha256, "commit": record.number}}
    if "rows_of" in provenance:
        came = {part.id: [old.number, part.rows] for old in theirs for part in old.add}
        provenance["rows_of"] = [came[name] for name in record.remove if name in came]
    return {
        "add": add,
        "remove": list(record.remove),
        "probes": dict(record.probes),
        "provenance": provenance,
    }


def is_beginning(shorter: Sequence[CommitRecord], longer: Sequence[CommitRecord]) -> bool:
    """Whether one chain goes on where the other ends."""
    place = len(shorter) - 1
    return not shorter or (place < len(longer) and shorter[place].sha256 == longer[place].sha256)


def missing(mine: Sequence[CommitRecord], theirs: Sequence[CommitRecord], same: bool = True) -> list[Step]:
    """The records of one chain whose parts another one does not have; `same` tells whether both have one root."""
    there = {part.id for record in theirs for part in record.add}
    found = steps(mine, len(theirs) if same and is_beginning(theirs, mine) else 0)
    return [step for step in found if not {part.id for part in step.record.add} <= there]
