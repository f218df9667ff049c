"""Writes data sets: each commit adds immutable parts and is durable before it is acknowledged."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data.errors import ArchitectureMismatchError, DatasetError, EnvironmentMismatchError, StorageError
from epvf_data.store import guard
from epvf_data.store.commit import (
    COMMITS,
    FOLDER_METADATA,
    FOLDERS,
    PARTS,
    PROBES,
    ROOT,
    STAGING,
    CommitRecord,
    publish_record,
    read_chain,
)
from epvf_data.store.durable import discard, flush, flush_tree, make_folder, publish, storage_errors, write_file
from epvf_data.store.root import read_root
from epvf_data.store.schema import (
    BLOCK_ROWS,
    COLUMNS,
    FORMAT_VERSION,
    KEY,
    MAX_PART_BYTES,
    MAX_PART_ROWS,
    PROBE_STATES,
    Column,
    EnvIdentity,
    Rows,
    probe_id,
    to_json,
)
from epvf_data.store.shard import Layout, array_metadata, chunk_rows, encode

Files = dict[str, tuple[int, str]]


class Writer:
    """Adds commits to one data set. Several writers may work on the same data set at once, also in other processes."""

    def __init__(self, path: Path, env: EnvIdentity, compression: int | None) -> None:
        self.path, self.env, self._compression = path, env, compression
        with storage_errors(path, "opening for writing"):
            make_folder(path / STAGING)  # a copy made by a tool that drops such folders has none
        self._records: list[CommitRecord] = list(read_chain(path))

    @classmethod
    def open(cls, path: str | os.PathLike[str], env: EnvIdentity, compression: int | None = None) -> Writer:
        """Opens a data set for writing, and creates it first if there is none.

        `compression` is a zstd level from −7 to 22, worth it for sparse parameters only. Raises
        EnvironmentMismatchError if the data set belongs to another environment, DatasetError if the path is something
        else, StorageError if the disk refuses.
        """
        root = Path(path)
        if compression is not None and not -7 <= compression <= 22:
            raise DatasetError(
                f"the compression level is {compression}; zstd has −7 to 22, or None for no compression."
            )
        with storage_errors(root, "creating the data set"):
            if not (root / ROOT).exists():
                _create(root, env)
        found = read_root(root).env
        if found.digest != env.digest:
            raise EnvironmentMismatchError(
                f"{root} holds rows of {found.name} (digest {found.digest[:12]}); these are of {env.name} "
                f"(digest {env.digest[:12]}): choose another path."
            )
        return cls(root, found, compression)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close: every commit is complete when it returns."""

    def commit(self, rows: Rows | Sequence[Rows], provenance: Mapping[str, Any]) -> CommitRecord:
        """Adds rows in one atomic commit and returns when it is durable; either all of them are there or none.

        `provenance` is any JSON object. Raises StorageError if the disk refuses: then nothing was added and the call
        can be repeated. Raises ArchitectureMismatchError or DatasetError if the rows do not fit this environment.
        """
        groups = [piece for item in ([rows] if isinstance(rows, Rows) else rows) for piece in _split(item)]
        if not groups:
            raise DatasetError("a commit needs at least one row; got none.")
        for group in groups:
            _check_fits(group, self.env)
        to_json(provenance)
        placed: list[str] = []
        try:
            with storage_errors(self.path, "the commit"):
                add = [self._place(group, placed) for group in groups]
                states = [group.probe_states for group in groups if group.probe_states is not None]
                probes = {probe_id(item): self._place_probe(item) for item in states}
                flush(self.path / PARTS)
                content = {"add": add, "remove": [], "probes": probes, "provenance": dict(provenance)}
                self._records = publish_record(self.path, self._records, content)
        except BaseException:
            self._withdraw(placed)
            raise
        try:
            flush(self.path / COMMITS)
        except OSError as error:
            raise StorageError(
                f"commit {self._records[-1].number} of {self.path} is visible, but the disk did not confirm it "
                f"({error.strerror}); look at the data set before committing the same rows again."
            ) from error
        return self._records[-1]

    def _withdraw(self, placed: Sequence[str]) -> None:
        """Removes the parts of a failed commit, unless its record was published (an interrupt can fall in between)."""
        with contextlib.suppress(DatasetError, OSError):
            committed = {part.id for record in read_chain(self.path) for part in record.add}
            for part in set(placed) - committed:
                discard(self.path / PARTS / part)

    def _place(self, rows: Rows, placed: list[str]) -> dict[str, Any]:
        """Writes one part under `staging`, flushes it, moves it to `parts`. Returns its entry for the record."""
        name = uuid.uuid4().hex
        draft = self.path / STAGING / name
        probe = None if rows.probe_states is None else probe_id(rows.probe_states)
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
        placed.append(name)
        try:
            files = _write_group(draft, attributes, columns, self._compression)
            os.rename(draft, self.path / PARTS / name)  # noqa: PTH104
        except BaseException:
            discard(draft)
            raise
        return {"id": name, "rows": len(rows), "architecture": rows.spec.id, "probe": probe, "files": files}

    def _place_probe(self, states: np.ndarray) -> Files:
        """Stores probing states under their content's id, once. Returns the files, which depend on the content only."""
        name = probe_id(states)
        for record in reversed(self._records):
            if name in record.probes:
                return dict(record.probes[name])
        draft = self.path / STAGING / uuid.uuid4().hex
        try:
            files = _write_group(draft, {"probe": name}, {"states": (states, PROBE_STATES)}, None)
            os.rename(draft, self.path / PROBES / name)  # noqa: PTH104
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            discard(draft)
        flush(self.path / PROBES)
        return files


def _split(rows: Rows) -> list[Rows]:
    """Pieces of whole chunks that are small enough for one part each."""
    step = min(MAX_PART_ROWS, max(1, MAX_PART_BYTES // (4 * rows.spec.size * BLOCK_ROWS)) * BLOCK_ROWS)
    if len(rows) <= step:
        return [rows]
    return [rows.select(slice(start, start + step)) for start in range(0, len(rows), step)]


def _check_fits(rows: Rows, env: EnvIdentity) -> None:
    sizes = (rows.spec.observation_size, rows.spec.action_size)
    if sizes != (env.observation_size, env.action_size):
        raise ArchitectureMismatchError(
            f"the policies map {sizes[0]} observations to {sizes[1]} actions; "
            f"{env.name} has {env.observation_size} and {env.action_size}."
        )
    if rows.lengths.min() < 0 or rows.lengths.max() > env.horizon:
        raise DatasetError(
            f"episode lengths go from {rows.lengths.min()} to {rows.lengths.max()}; "
            f"{env.name} allows 0 to {env.horizon}."
        )


def _create(root: Path, env: EnvIdentity) -> None:
    """Lays out an empty data set; the root's metadata comes last and exclusively, so creators agree on one."""
    if root.exists() and (not root.is_dir() or any(item.name not in (*FOLDERS, ROOT) for item in root.iterdir())):
        raise DatasetError(f"{root} exists and is not a data set; choose another path.")
    root.mkdir(parents=True, exist_ok=True)
    for folder in FOLDERS:
        make_folder(root / folder)
    attributes = {
        "format_version": FORMAT_VERSION,
        "env": env.to_dict(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for folder in FOLDERS:
        _publish_bytes(root, FOLDER_METADATA, root / folder / ROOT)
        flush(root / folder)
    _publish_bytes(root, _group(attributes), root / ROOT)
    flush(root)
    flush(root.absolute().parent)


def _publish_bytes(root: Path, data: bytes, final: Path) -> None:
    draft = root / STAGING / f"{uuid.uuid4().hex}.json"
    try:
        write_file(draft, [data])
        flush(draft)
        publish(draft, final)
    finally:
        discard(draft)


def _group(attributes: Mapping[str, Any]) -> bytes:
    return to_json({"zarr_format": 3, "node_type": "group", "attributes": {KEY: attributes}})


def _write_group(
    folder: Path, attributes: Mapping[str, Any], columns: Mapping[str, tuple[np.ndarray, Column]], zstd: int | None
) -> Files:
    """Writes a Zarr group with its arrays and flushes it. Returns relative path → (size, SHA-256)."""
    files: Files = {}
    os.mkdir(folder)  # noqa: PTH102
    files[ROOT] = write_file(folder / ROOT, [_group(attributes)])
    for name, (value, column) in columns.items():
        layout = Layout(value.shape, column.dtype, chunk_rows(len(value)), zstd)
        metadata = array_metadata(layout, column.dims)
        guard.array_layout(metadata, column, f"array {name}")  # never write what a reader would refuse
        inner = folder / name
        os.mkdir(inner)  # noqa: PTH102
        for piece in layout.file.split("/")[:-1]:
            inner = inner / piece
            os.mkdir(inner)  # noqa: PTH102
        files[f"{name}/{ROOT}"] = write_file(folder / name / ROOT, [to_json(metadata)])
        files[f"{name}/{layout.file}"] = write_file(folder / name / layout.file, encode(value, layout))
    flush_tree(folder)
    return files
