"""One architecture's rows as a plain `.npz` for NumPy alone."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from epvf_data.errors import DatasetError
from epvf_data.exchange.report import ExportReport, Progress
from epvf_data.outputs import check_free, draft_file
from epvf_data.store import reader
from epvf_data.store.lineage import VOCABULARIES
from epvf_data.store.schema import to_json
from epvf_data.store.table import Table

_BLOCK = 8 << 20  # bytes
_BORN = (1980, 1, 1, 0, 0, 0)  # the same rows give the same file


def export_npz(
    dataset_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    rows: Int[np.ndarray, " chosen"] | slice | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Writes rows of one architecture into one new uncompressed `.npz`, which `numpy.load` reads without pickle.

    The arrays are the table's columns (`params`, `returns`, …; only those that all parts have), `probe_states` where
    `probe_actions` is there, `discount` (float64, no axes) where `discounted_returns` is there, and JSON text as uint8:
    `spec` (the policy), `env` and `vocabularies` (the words behind `source`, `law`, `base`, `run`; −1 is none):

        data = numpy.load("rows.npz")
        words = json.loads(data["vocabularies"].tobytes())["source"]
        sources = [words[index] for index in data["source"]]

    `architecture` is an id or the beginning of one, needed where the data set has several. `rows` are row numbers of
    that architecture's table or a slice of it; all rows if None. If `out` is a folder, the file gets the name
    `<first 12 digits of the architecture>.npz` there. Provenance does not go along: `export_hdf5` keeps it. Memory
    stays bounded. `progress(done rows, all rows)` is called on the way.

    Raises DatasetError where no single architecture is named, parts differ in their number of episodes or discount, a
    row number is out of range, or `out` exists and `force` does not replace it; CorruptDatasetError where the data set
    is damaged; StorageError if the disk refuses.
    """
    dataset = reader.open(dataset_path)
    table = dataset.table(architecture)
    chosen = _chosen(table, rows)
    target = Path(out)
    if target.is_dir():
        target = target / f"{table.spec.id[:12]}.npz"
    check_free(target, force)
    about = {
        "spec": table.spec.to_dict(),
        "env": dataset.env.to_dict(),
        "vocabularies": {name: list(table.vocabulary(name)) for name in VOCABULARIES},
    }
    arrays = _small(table, about)
    shapes = {name: (len(chosen), *table.row_shape(name)) for name in table.names}  # refuses before anything is written
    largest = max(shapes, key=lambda name: np.prod(shapes[name]))
    with draft_file(target, force) as draft:
        with zipfile.ZipFile(draft, "w", allowZip64=True) as archive:
            for name, value in arrays.items():
                _member(archive, name, value.shape, value.dtype, iter([value]))
            for name, shape in shapes.items():
                tick = progress if name == largest else None
                _member(archive, name, shape, table.dtype(name), _blocks(table, name, chosen, tick))
        size = draft.stat().st_size
    return ExportReport(str(target), len(chosen), 1, size)


def _chosen(table: Table, rows: np.ndarray | slice | None) -> range | np.ndarray:
    """Row numbers, as a range where they follow one another."""
    found = range(len(table))[rows or slice(None)] if rows is None or isinstance(rows, slice) else np.asarray(rows)
    if isinstance(found, range) and found.step != 1:
        found = np.arange(found.start, found.stop, found.step)
    if isinstance(found, np.ndarray):
        table.take("sign", found)  # refuses what are no row numbers
    if not len(found):
        raise DatasetError(f"no row is chosen; this table has the rows 0 to {len(table) - 1}.")
    return found


def _small(table: Table, about: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {name: np.frombuffer(to_json(value), np.uint8) for name, value in about.items()}
    if table.probe_states is not None:
        arrays["probe_states"] = table.probe_states
    if "discounted_returns" in table.names:
        discounts = {part.group.attributes["discount"] for part in table.parts}
        if len(discounts) > 1:
            raise DatasetError(
                f"the rows have the discounts {sorted(discounts)}, too many for one array; filter the data set first."
            )
        arrays["discount"] = np.array(discounts.pop(), np.float64)
    return arrays


def _blocks(table: Table, name: str, chosen: range | np.ndarray, progress: Progress | None) -> Iterator[np.ndarray]:
    row = int(np.prod(table.row_shape(name), dtype=np.int64)) * table.dtype(name).itemsize
    step = max(1, _BLOCK // row)
    for start in range(0, len(chosen), step):
        some = chosen[start : start + step]
        if isinstance(some, range):
            yield table.read(name, some.start, some.stop)
        else:
            yield table.take(name, some)
        if progress is not None:
            progress(start + len(some), len(chosen))


def _member(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype, blocks: Iterator[np.ndarray]
) -> None:
    """Writes one `.npy` into the archive, block by block."""
    little = dtype.newbyteorder("<")
    header = io.BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(little), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, about)
    entry = zipfile.ZipInfo(f"{name}.npy", _BORN)
    with archive.open(entry, "w", force_zip64=True) as file:
        file.write(header.getvalue())
        for block in blocks:
            file.write(np.ascontiguousarray(block, little).reshape(-1).view(np.uint8).data)
