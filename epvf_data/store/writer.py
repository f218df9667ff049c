"""Writes data sets: each commit adds immutable parts and is durable before it is acknowledged."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data.errors import ArchitectureMismatchError, DatasetError, RowsTakenError, StorageError
from epvf_data.store.commit import CommitRecord, publish_record, read_anchor, read_chain
from epvf_data.store.creation import create, draft
from epvf_data.store.durable import discard, flush, flush_folders, lock, move, storage_errors
from epvf_data.store.files import copy_group, link_group, write_group
from epvf_data.store.folders import ROOT, Files, Folders, open_folders
from epvf_data.store.identity import expect
from epvf_data.store.part import Part
from epvf_data.store.root import read_root
from epvf_data.store.schema import (
    BLOCK_ROWS,
    COLUMNS,
    MAX_PART_BYTES,
    MAX_PART_ROWS,
    PROBE_STATES,
    EnvIdentity,
    Rows,
    probe_id,
    to_json,
)


class Writer:
    """Adds commits to one data set. Several writers may work on the same data set at once, also in other processes."""

    def __init__(self, path: Path, env: EnvIdentity, compression: int | None, anchor: str) -> None:
        self.path = path.absolute()  # the working directory may change
        self.env, self._compression, self._anchor = env, compression, anchor
        self.bytes_copied = 0  # of parts that should have been linked and could not be
        with storage_errors(path, "opening for writing"), open_folders(path) as folders:
            flush(folders.root)  # who published the root may have been killed before it was on the disk
        self._records: list[CommitRecord] = list(read_chain(path, anchor=anchor))

    @classmethod
    def open(cls, path: str | os.PathLike[str], env: EnvIdentity, compression: int | None = None) -> Writer:
        """Opens a data set for writing, and creates it first if there is none.

        `compression` is a zstd level from −7 to 22, worth it for sparse parameters only. Raises
        EnvironmentMismatchError if the data set belongs to another environment, DatasetError if the path is something
        else, StorageError if the disk refuses.
        """
        root = Path(path)
        _check_compression(compression)
        with storage_errors(root, "creating the data set"):
            if not (root / ROOT).exists():
                create(root, env)
        found = read_root(root).env
        expect(found, env, f"{root} holds rows of {found.name}, these are of {env.name}", "choose another path")
        return cls(root, found, compression, read_anchor(root))

    @classmethod
    @contextlib.contextmanager
    def create(cls, path: str | os.PathLike[str], env: EnvIdentity, compression: int | None = None) -> Iterator[Writer]:
        """A new data set that becomes visible, whole, when the block ends without an error, and else disappears.

        A killed process leaves a folder that `open` refuses and the next `create` replaces. Raises DatasetError if
        the path is a data set already or something else, StorageError if the disk refuses.
        """
        root = Path(path)
        _check_compression(compression)
        with storage_errors(root, "creating the data set"), draft(root, env) as anchor:
            yield cls(root, env, compression, anchor)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close: every commit is complete when it returns."""

    def commit(
        self, rows: Rows | Part | Sequence[Rows | Part], provenance: Mapping[str, Any], *, link: bool = False
    ) -> CommitRecord:
        """Adds rows in one atomic commit and returns when it is durable; either all of them are there or none.

        Parts of other data sets of this environment are copied byte by byte, or with `link` their files get a second
        name here, where the file system can do that. `provenance` is any JSON object; where it
        has a `run` and `rows` (or `iterations`) [first, end], no other commit may hold some of the same. Raises
        RowsTakenError where one does, however close it came, and StorageError if the disk refuses: then nothing was
        added. Raises ArchitectureMismatchError or DatasetError if the rows do not fit this environment.
        """
        return self.replace((), [rows] if isinstance(rows, Rows | Part) else rows, provenance, link=link)

    def replace(
        self, remove: Sequence[str], rows: Sequence[Rows | Part], provenance: Mapping[str, Any], *, link: bool = False
    ) -> CommitRecord:
        """Like `commit`; in the same step the parts of the ids `remove` go, and the new ones take their place.

        Raises CorruptDatasetError where one of them is not there (any more).
        """
        (made,) = self._publish([(remove, rows, provenance)], link)
        if isinstance(made, RowsTakenError):
            raise made
        return made

    def commit_all(
        self, commits: Sequence[tuple[Sequence[Rows | Part], Mapping[str, Any]]], *, link: bool = False
    ) -> list[CommitRecord | None]:
        """Several commits, each of some rows and their provenance, that wait for the disk together.

        Each becomes visible on its own, in this order; after an interruption the first of them may be there. None
        stands for one whose rows another commit holds: it is left out. Raises as `commit` does.
        """
        made = self._publish([((), rows, provenance) for rows, provenance in commits], link)
        return [None if isinstance(one, RowsTakenError) else one for one in made]

    def _publish(
        self,
        commits: Sequence[tuple[Sequence[str], Sequence[Rows | Part], Mapping[str, Any]]],
        link: bool,
    ) -> list[CommitRecord | RowsTakenError]:
        """Writes the parts of all commits, flushes them, and publishes one record after the other."""
        split = [_pieces(rows) for _, rows, _ in commits]
        for groups, (_, _, provenance) in zip(split, commits, strict=True):
            if not groups:
                raise DatasetError("a commit needs at least one row; got none.")
            for group in groups:
                _check_fits(group, self.env)
            to_json(provenance)
        placed: dict[str, bool] = {}  # parts, and whether their folders are still to be flushed
        made: list[CommitRecord | RowsTakenError] = []
        with storage_errors(self.path, "the commit"), open_folders(self.path) as folders:
            with lock(folders.staging, exclusive=False, wait=True):
                try:
                    adds = [[self._place(folders, group, placed, link) for group in groups] for groups in split]
                    states = [_probe_states(groups) for groups in split]
                    every = dict(one for some in states for one in some)
                    probes = {name: self._place_probe(folders, name, values) for name, values in every.items()}
                    flush_folders(folders.staging, [name for name, unflushed in placed.items() if unflushed])
                    for name in placed:
                        move(name, folders.staging, folders.parts, name)
                    flush(folders.parts)
                    for add, seen, (remove, _, provenance) in zip(adds, states, commits, strict=True):
                        used = {name: probes[name] for name, _ in seen}
                        content = {"add": add, "remove": [*remove], "probes": used, "provenance": dict(provenance)}
                        try:
                            self._records = publish_record(folders, self._records, content, self._anchor)
                            made.append(self._records[-1])
                        except RowsTakenError as error:
                            made.append(error)
                    if any(isinstance(one, RowsTakenError) for one in made):
                        self._withdraw(folders, placed)
                except BaseException:
                    self._withdraw(folders, placed)
                    raise
            self._confirm(folders)
        return made

    def _confirm(self, folders: Folders) -> None:
        """Makes the newest record's name durable."""
        try:
            flush(folders.commits)
        except OSError as error:
            raise StorageError(
                f"commit {self._records[-1].number} of {self.path} is visible, but the disk did not confirm it "
                f"({error.strerror}); look at the data set before committing the same rows again."
            ) from error

    def _withdraw(self, folders: Folders, placed: Iterable[str]) -> None:
        """Removes the parts of failed commits, but for those with a record (an interrupt can fall in between)."""
        with contextlib.suppress(DatasetError, OSError):
            committed = {part.id for record in read_chain(self.path, anchor=self._anchor) for part in record.add}
            for part in set(placed) - committed:
                discard(folders.staging, part)
                discard(folders.parts, part)

    def _place(self, folders: Folders, rows: Rows | Part, placed: dict[str, bool], link: bool) -> dict[str, Any]:
        """Writes one part under `staging` and flushes its files. Returns its entry for the record."""
        name = uuid.uuid4().hex
        placed[name] = False
        if isinstance(rows, Part):
            entry = rows.entry
            placed[name] = link and link_group(rows.group.path, entry.files, folders.staging, name)
            if not placed[name]:
                copy_group(rows.group.find, entry.files, folders.staging, name)
                self.bytes_copied += sum(size for size, _ in entry.files.values()) if link else 0
            found: dict[str, Any] = {"rows": entry.rows, "architecture": entry.architecture, "probe": entry.probe}
            found["files"] = dict(entry.files)
        else:
            found = {"rows": len(rows), "architecture": rows.spec.id, "probe": None}
            if rows.probe_states is not None:
                found["probe"] = probe_id(rows.probe_states)
            found["files"] = self._write(folders, name, rows, found["probe"])
        return {"id": name, **found}

    def _write(self, folders: Folders, name: str, rows: Rows, probe: str | None) -> Files:
        attributes = {
            "architecture": rows.spec.id,
            "policy": rows.spec.to_dict(),
            "environment": self.env.digest,
            "simulation": dict(rows.simulation),
            "probe": probe,
            "vocabularies": {key: list(words) for key, words in rows.lineage.vocabularies.items()},
            "discount": rows.discount,
            "rows": len(rows),
        }
        columns = {key: (value, COLUMNS[key]) for key, value in rows.columns().items()}
        return write_group(folders.staging, name, attributes, columns, self._compression)

    def _place_probe(self, folders: Folders, name: str, states: np.ndarray) -> Files:
        """Stores probing states under their content's id, once. Returns the files, which depend on the content only."""
        for record in reversed(self._records):
            if name in record.probes and folders.probes.status(name):
                return dict(record.probes[name])
        staged = uuid.uuid4().hex
        try:
            files = write_group(folders.staging, staged, {"probe": name}, {"states": (states, PROBE_STATES)}, None)
            move(staged, folders.staging, folders.probes, name)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            discard(folders.staging, staged)
        flush(folders.probes)
        return files


def _probe_states(groups: Sequence[Rows | Part]) -> list[tuple[str, np.ndarray]]:
    states = [group.probe_states for group in groups if group.probe_states is not None]
    return list({probe_id(item): item for item in states}.items())


def _check_compression(level: int | None) -> None:
    if level is not None and not -7 <= level <= 22:
        raise DatasetError(f"the compression level is {level}; zstd has −7 to 22, or None for no compression.")


def _pieces(rows: Sequence[Rows | Part]) -> list[Rows | Part]:
    return [piece for one in rows for piece in ([one] if isinstance(one, Part) else _split(one))]


def _split(rows: Rows) -> list[Rows]:
    """Pieces of whole chunks that are small enough for one part each."""
    step = min(MAX_PART_ROWS, max(1, MAX_PART_BYTES // (4 * rows.spec.size * BLOCK_ROWS)) * BLOCK_ROWS)
    if len(rows) <= step:
        return [rows]
    return [rows.select(slice(start, start + step)) for start in range(0, len(rows), step)]


def _check_fits(rows: Rows | Part, env: EnvIdentity) -> None:
    sizes = (rows.spec.observation_size, rows.spec.action_size)
    if sizes != (env.observation_size, env.action_size):
        raise ArchitectureMismatchError(
            f"the policies map {sizes[0]} observations to {sizes[1]} actions; "
            f"{env.name} has {env.observation_size} and {env.action_size}."
        )
    if isinstance(rows, Part):
        expect(rows.env, env, f"{rows.root} holds rows of {rows.env.name}, and {env.name} is expected", "leave it out")
    elif rows.lengths.min() < 0 or rows.lengths.max() > env.horizon:
        raise DatasetError(
            f"episode lengths go from {rows.lengths.min()} to {rows.lengths.max()}; "
            f"{env.name} allows 0 to {env.horizon}."
        )
