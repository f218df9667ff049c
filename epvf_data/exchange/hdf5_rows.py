"""What an HDF5 file says, checked like a stranger's data set: its commits and parts, and then its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from epvf_data import untrusted
from epvf_data.errors import CorruptDatasetError, DatasetError, EpvfError
from epvf_data.exchange.hdf5_guard import Hdf5
from epvf_data.store import guard, licences
from epvf_data.store.commit import CommitRecord, unseal
from epvf_data.store.extract import row_bytes
from epvf_data.store.folders import COMMITS, PARTS, PROBES, ROOT
from epvf_data.store.lineage import LINEAGE_COLUMNS, Lineage
from epvf_data.store.part import Group, Part
from epvf_data.store.reader import Dataset
from epvf_data.store.root import Root, parse_root
from epvf_data.store.schema import (
    BLOCK_ROWS,
    COLUMNS,
    MAX_PART_BYTES,
    MAX_PART_ROWS,
    OPTIONAL,
    Rows,
    probe_id,
)
from epvf_data.store.shard import Layout, chunk_rows

LICENCES = "licences.json"  # at the top, where the data set has any


def read_dataset(hdf5: Hdf5) -> Dataset:
    """The file's records and parts as a data set whose parts know their attributes and shapes, but have no folders.

    Raises DatasetError where it is no exported data set or of a newer format, CorruptDatasetError where its members,
    attributes or shapes contradict the commit records.
    """
    root, digest = _root(hdf5)
    dataset = Dataset(hdf5.path, root, tuple(_records(hdf5, digest)))
    _check_members(hdf5, dataset)
    if LICENCES in hdf5.shapes:
        dataset.licences = licences.names(
            untrusted.parse_json(hdf5.json(LICENCES), hdf5.path / LICENCES).get("licences")
        )
    for part in dataset.parts:
        part.group = _group(hdf5, part)
        try:
            _ = part.spec, part.vocabularies  # the store's own checks of policy, shapes and words
        except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
            raise CorruptDatasetError(f"{part.group.path} has attributes that make no sense ({error}).") from error
    return dataset


def _root(hdf5: Hdf5) -> tuple[Root, str]:
    """The root's metadata and its SHA-256."""
    if ROOT not in hdf5.shapes:
        raise DatasetError(f"{hdf5.path} is no exported data set: it has no {ROOT}.")
    data = hdf5.json(ROOT)
    return parse_root(data, hdf5.path), hashlib.sha256(data).hexdigest()


def _records(hdf5: Hdf5, root: str) -> Iterator[CommitRecord]:
    """The commit records, each checked against its seal, its number, its parent and the root's metadata."""
    parent = None
    names = sorted(name for name in hdf5.shapes if name.startswith(f"{COMMITS}/"))
    for number, name in enumerate(names):
        where = hdf5.path / name
        record = unseal(hdf5.json(name), where)
        if name != f"{COMMITS}/{number:08d}.json" or (record.number, record.parent) != (number, parent):
            raise CorruptDatasetError(f"{where} does not follow the record before it; export the data set again.")
        if record.root != root:
            raise CorruptDatasetError(f"{hdf5.path / ROOT} is not the one that {where} was written for.")
        parent = record.sha256
        yield record


def _check_members(hdf5: Hdf5, dataset: Dataset) -> None:
    """Refuses what is missing or beyond what the commit records name."""
    expected = {ROOT, *(f"{COMMITS}/{record.number:08d}.json" for record in dataset.commits)}
    for part in dataset.parts:
        names = {name.removesuffix(f"/{ROOT}") for name in part.entry.files if name.endswith(f"/{ROOT}")}
        expected |= {f"{PARTS}/{part.entry.id}/{name}" for name in (*names, *(set(COLUMNS) - set(OPTIONAL)), ROOT)}
        if part.entry.probe is not None:
            expected.add(f"{PROBES}/{part.entry.probe}")
    for name in sorted(expected ^ {*hdf5.shapes} - {LICENCES}):
        told = "is missing" if name in expected else "is in no commit record"
        raise CorruptDatasetError(f"{hdf5.path / name} {told}; export the data set again.")


def _group(hdf5: Hdf5, part: Part) -> Group:
    """A part's attributes, checked against its commit record, and the layouts that its arrays would have in a store."""
    folder, entry = f"{PARTS}/{part.entry.id}", part.entry
    data, where = hdf5.json(f"{folder}/{ROOT}"), hdf5.path / folder / ROOT
    if entry.files.get(ROOT) != (len(data), hashlib.sha256(data).hexdigest()):
        raise CorruptDatasetError(f"{where} does not match its commit's SHA-256; export the data set again.")
    attributes = guard.group_attributes(untrusted.parse_json(data, where), where)
    part.check_attributes(attributes, where)
    shapes = {name: hdf5.shapes.get(f"{folder}/{name}") for name in COLUMNS}
    layouts = {
        name: Layout(shape, COLUMNS[name].dtype, chunk_rows(shape[0])) for name, shape in shapes.items() if shape
    }
    return Group(hdf5.path / folder, attributes, layouts, (hdf5.path / folder).__truediv__)


def read_rows(hdf5: Hdf5, part: Part, most: int) -> Iterator[Rows]:
    """A part's rows in equal pieces of at most about `most` bytes, each checked as when rows are committed."""
    states = _probe_states(hdf5, part)
    entry, attributes = part.entry, part.group.attributes
    pieces = max(-(-row_bytes(part) * entry.rows // most), -(-entry.rows // MAX_PART_ROWS))
    step = -(-entry.rows // (pieces * BLOCK_ROWS)) * BLOCK_ROWS
    for start in range(0, entry.rows, step):
        stop = min(start + step, entry.rows)
        columns: dict[str, Any] = {name: hdf5.read(f"{PARTS}/{entry.id}/{name}", start, stop) for name in part.names}
        lineage = {name: columns.pop(name) for name in LINEAGE_COLUMNS}
        lengths, horizon = columns["lengths"], part.env.horizon
        if lengths.min() < 0 or lengths.max() > horizon:
            raise CorruptDatasetError(
                f"{part.group.path}: lengths go from {lengths.min()} to {lengths.max()}; 0 to {horizon} are allowed."
            )
        try:
            yield Rows(
                spec=part.spec,
                lineage=Lineage(**lineage, vocabularies=part.vocabularies),
                simulation=attributes["simulation"],
                probe_states=states,
                discount=attributes["discount"],
                **{"params": None, **columns},
            )
        except EpvfError as error:
            raise CorruptDatasetError(f"{part.group.path}: {error}") from error


def _probe_states(hdf5: Hdf5, part: Part) -> np.ndarray | None:
    if part.entry.probe is None:
        return None
    name = f"{PROBES}/{part.entry.probe}"
    if 4 * np.prod(hdf5.shapes[name], dtype=object) > MAX_PART_BYTES:
        raise CorruptDatasetError(f"{hdf5.path / name} has the shape {hdf5.shapes[name]}; that is too large.")
    states = hdf5.read(name)
    if probe_id(states) != part.entry.probe:
        raise CorruptDatasetError(f"{hdf5.path / name} holds other states than its name says; export it again.")
    return states
