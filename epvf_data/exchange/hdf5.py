"""HDF5 files with the schema of the store: one file to hand over, and back into a data set.

The file mirrors the store's folders. `zarr.json`, `commits/<n>.json` and `parts/<id>/zarr.json` are uint8 data sets
with the bytes of those files, `probes/<SHA-256>` are the probing states, and `parts/<id>/<column>` are arrays of the
column's dtype and shape, in chunks of about 2 MiB with HDF5's Fletcher-32 checksum, without compression:

    file = h5py.File("rows.h5")
    part = next(iter(file["parts"].values()))
    params = part["params"][:]
    about = json.loads(part["zarr.json"][:].tobytes())["attributes"]["epvf_data"]  # policy, vocabularies, …

There are no attributes, no text types and no links, so the importer refuses all of them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from epvf_data import untrusted
from epvf_data.errors import DatasetError
from epvf_data.exchange.hdf5_child import MAX_OBJECTS
from epvf_data.exchange.hdf5_guard import Hdf5, open_hdf5
from epvf_data.exchange.hdf5_rows import LICENCES, read_dataset, read_rows
from epvf_data.exchange.report import ExportReport, Progress
from epvf_data.outputs import check_free, draft_file
from epvf_data.store import reader
from epvf_data.store.commit import CommitRecord, record_path
from epvf_data.store.folders import COMMITS, PARTS, PROBES, ROOT
from epvf_data.store.origins import derived, leaves
from epvf_data.store.part import Part
from epvf_data.store.reader import Dataset
from epvf_data.store.schema import Rows, to_json
from epvf_data.store.writer import Writer

_CHUNK = 2 << 20  # bytes
_MEMORY = 256 << 20  # bytes of rows in memory before they are committed
_ORIGIN_BYTES = 4 << 20


@dataclass(frozen=True)
class ImportReport:
    """What was read into the data set `dataset`."""

    dataset: str
    rows: int
    commits: int
    architectures: int


def export_hdf5(
    dataset_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Writes a data set's rows, probing states and commit records into one new HDF5 file (HDF5 1.10 or newer reads it).

    The file appears under its name when it is complete and on the disk; what was read was verified chunk by chunk.
    `progress(done rows, all rows)` is called on the way. Raises DatasetError where there is no data set, and where
    `out` exists and `force` does not replace it, CorruptDatasetError where the data set is damaged, StorageError if the
    disk refuses.
    """
    import h5py  # imported late: other verbs do without

    target = Path(out)
    check_free(target, force)
    dataset = reader.open(dataset_path)
    objects = 5 + len(dataset.commits) + sum(len(part.names) + 2 for part in dataset.parts)
    if objects > MAX_OBJECTS:
        raise DatasetError(
            f"{dataset.path} would become {objects} HDF5 objects, more than {MAX_OBJECTS}: compact it first."
        )
    with draft_file(target, force) as draft:
        with draft.open("r+b", buffering=0) as raw:
            sink = _Sink(raw)
            # Since 1.10 HDF5 puts a checksum on its own structures, too.
            with h5py.File(sink, "w", libver=("v110", "v110")) as file:
                _put_dataset(file, dataset, sink, progress)
            sink.check()
        size = draft.stat().st_size
    return ExportReport(str(target), dataset.rows, len(dataset.architectures), size)


class _Sink:
    """A file whose writes seem to work even where they fail: HDF5 can neither close nor forget a file otherwise."""

    def __init__(self, raw: FileIO) -> None:
        self._raw = raw
        self._error: OSError | None = None
        self.seek, self.tell, self.read, self.readinto = raw.seek, raw.tell, raw.read, raw.readinto

    def write(self, data: memoryview) -> int:
        rest = memoryview(data)
        while rest and self._error is None:
            try:
                rest = rest[self._raw.write(rest) or 0 :]
            except OSError as error:
                self._error = error
        return len(data)

    def truncate(self, size: int) -> int:
        try:
            return self._raw.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size

    def flush(self) -> None:
        """Nothing waits here; `draft_file` brings the file to the disk."""

    def check(self) -> None:
        """Raises the first error, if there was one."""
        if self._error is not None:
            raise self._error


def _put_dataset(file: Any, dataset: Dataset, sink: _Sink, progress: Progress | None) -> None:
    for name in (COMMITS, PARTS, PROBES):
        file.create_group(name)
    _put_bytes(file, ROOT, dataset.path / ROOT)
    if dataset.licences:
        _put(file, LICENCES, np.frombuffer(to_json({"licences": [*dataset.licences]}), np.uint8))
    for record in dataset.commits:
        where = record_path(dataset.path, record.number)
        _put_bytes(file, f"{COMMITS}/{where.name}", where)
    done = 0
    for part in dataset.parts:
        _put_part(file, part)
        sink.check()
        done += part.entry.rows
        if progress is not None:
            progress(done, dataset.rows)


def _put_bytes(file: Any, name: str, path: Path) -> None:
    _put(file, name, np.frombuffer(untrusted.read_bytes(path), np.uint8))


def _put(file: Any, name: str, value: np.ndarray) -> None:
    file.create_dataset(name, data=value, chunks=_chunk(value.shape, value.itemsize, 1), fletcher32=True)


def _put_part(file: Any, part: Part) -> None:
    _put_bytes(file, f"{PARTS}/{part.entry.id}/{ROOT}", part.group.find(ROOT))
    states = None if f"{PROBES}/{part.entry.probe}" in file else part.probe_states
    if states is not None:
        _put(file, f"{PROBES}/{part.entry.probe}", states)
    for name in part.names:
        layout, shard = part.layout(name), part.open(name)
        dtype = np.dtype(layout.dtype).newbyteorder("<")
        chunk = _chunk(layout.shape, dtype.itemsize, layout.chunk_rows)
        target = file.create_dataset(
            f"{PARTS}/{part.entry.id}/{name}", layout.shape, dtype, chunks=chunk, fletcher32=True
        )
        step = max(chunk[0], layout.chunk_rows)  # whole chunks of both, so that each is verified and written once
        for start in range(0, layout.shape[0], step):
            stop = min(start + step, layout.shape[0])
            rows = np.empty((stop - start, *layout.shape[1:]), dtype)
            shard.read(start, stop, rows)
            target[start:stop] = rows


def _chunk(shape: tuple[int, ...], width: int, unit: int) -> tuple[int, ...]:
    """Chunk of about 2 MiB: a multiple of `unit` rows or, where those are large, a fraction by a power of two."""
    fit = max(1, _CHUNK // (int(np.prod(shape[1:], dtype=np.int64)) * width))
    rows = fit // unit * unit if fit >= unit else min(16, 1 << (fit.bit_length() - 1))
    return (min(rows, shape[0]), *shape[1:])


def import_hdf5(
    file: str | os.PathLike[str], out: str | os.PathLike[str], *, progress: Progress | None = None
) -> ImportReport:
    """Makes a new data set from a file that `export_hdf5` wrote: the same rows, probing states and commits.

    The file is parsed in another process and every value is checked as if a stranger had sent it. Each commit keeps
    its provenance as an origin of the new commit (one beyond 256 MiB becomes several, to bound memory). The data set
    appears when it is complete. `progress(done rows, all rows)` is called commit by commit. Raises DatasetError where
    the file is none of ours or `out` exists, CorruptDatasetError and UnsafeDatasetError as `epvf_data.open` does,
    StorageError if the disk refuses.
    """
    source, target = Path(file), Path(out)
    with open_hdf5(source) as hdf5:
        dataset = read_dataset(hdf5)
        done = commits = 0
        with Writer.create(target, dataset.env) as writer:
            for record, rows in _batches(hdf5, dataset):
                count = sum(map(len, rows))
                writer.commit(rows, _provenance(source, dataset, record, count))
                rows.clear()  # before the next ones are read
                done, commits = done + count, commits + 1
                if progress is not None:
                    progress(done, dataset.rows)
    return ImportReport(str(target), done, commits, len({part.entry.architecture for part in dataset.parts}))


def _batches(hdf5: Hdf5, dataset: Dataset) -> Iterator[tuple[CommitRecord, list[Rows]]]:
    """The rows commit by commit, in order, in lists that fit into memory."""
    for _, run in itertools.groupby(dataset.parts, key=lambda part: dataset.record_of(part).number):
        rows: list[Rows] = []
        record, size = None, 0
        for part in run:
            for piece in read_rows(hdf5, part, _MEMORY):
                more = sum(column.nbytes for column in piece.columns().values())
                if rows and record is not None and size + more > _MEMORY:
                    yield record, rows
                    rows, size = [], 0
                record, size = dataset.record_of(part), size + more
                rows.append(piece)
        assert record is not None
        yield record, rows


def _provenance(source: Path, dataset: Dataset, record: CommitRecord, rows: int) -> dict[str, Any]:
    found = leaves(dataset, record) if rows == record.rows else [(record, rows)]
    value = derived("import-hdf5", {"file": str(source)}, found, dataset.licences)
    if len(found) > 1 and len(to_json(value)) > _ORIGIN_BYTES:
        return derived("import-hdf5", {"file": str(source)}, [(record, rows)], dataset.licences)
    return value
