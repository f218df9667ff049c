"""All but parameters and probing actions of a data set as one Parquet file, for viewers, DuckDB and pandas.

Needs pyarrow (extra `parquet`). It is for looking: no reader of this package reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import IO, Any

import numpy as np

from epvf_data.errors import extra
from epvf_data.store.extract import part_column
from epvf_data.store.lineage import VOCABULARIES
from epvf_data.store.part import Part
from epvf_data.store.reader import Dataset
from epvf_data.store.schema import COLUMNS, MAX_PART_ROWS

LEFT_OUT = ("params", "probe_actions")
_NULL = {"base", "run", "iteration"}  # −1 means none


def installed() -> bool:
    """Whether pyarrow is there."""
    return find_spec("pyarrow") is not None


def write_rows(dataset: Dataset, file: IO[bytes]) -> None:
    """Writes a line for each row: `row` [0, rows), `commit`, `architecture`, `mean_return` (float64), the columns.

    Columns with axes beyond the row are lists; words stand in the place of vocabulary indices, and null for none. The
    same rows of the same revision give the same bytes with the same pyarrow; the revision stands in the file's
    metadata, near its end. Memory: the small columns of 65,536 rows or one part.

    Raises MissingPackageError without pyarrow, CorruptDatasetError where the data set is damaged, OSError if the disk
    refuses.
    """
    with extra():
        import pyarrow  # pyright: ignore[reportMissingImports]
        from pyarrow import parquet  # pyright: ignore[reportMissingImports]
    schema = pyarrow.schema(_schema(pyarrow))
    about = {"epvf_data.revision": f"sha256:{dataset.revision}", "epvf_data.environment": dataset.env.name}
    with parquet.ParquetWriter(file, schema, compression="zstd", store_schema=False) as writer:
        waiting, count = [], 0
        for table in _tables(dataset, pyarrow, schema):
            waiting.append(table)
            count += len(table)
            if count >= MAX_PART_ROWS:
                writer.write_table(pyarrow.concat_tables(waiting), count)
                waiting, count = [], 0
        if count:
            writer.write_table(pyarrow.concat_tables(waiting), count)
        writer.add_key_value_metadata(about)


def _schema(pyarrow: Any) -> list[tuple[str, Any]]:
    text = pyarrow.string()
    found = [("row", pyarrow.int64()), ("commit", pyarrow.int32()), ("architecture", text)]
    found.append(("mean_return", pyarrow.float64()))
    for name, column in COLUMNS.items():
        if name not in LEFT_OUT:
            kind = text if name in VOCABULARIES else pyarrow.from_numpy_dtype(np.dtype(column.dtype))
            found.append((name, kind if len(column.dims) == 1 else pyarrow.list_(kind)))
    return found


def _tables(dataset: Dataset, pyarrow: Any, schema: Any) -> Iterator[Any]:
    commits = {part.id: record.number for record in dataset.commits for part in record.add}
    row = 0
    for part in dataset.parts:
        count = part.entry.rows
        arrays = {
            "row": np.arange(row, row + count),
            "commit": np.full(count, commits[part.entry.id], np.int32),
            "architecture": pyarrow.array([part.entry.architecture] * count),
        }
        for name in schema.names:
            if name in COLUMNS:
                arrays[name] = _array(pyarrow, part, name, schema.field(name).type)
        returns = part_column(part, "returns")
        arrays["mean_return"] = returns.mean(1, dtype=np.float64)
        yield pyarrow.table([arrays[name] for name in schema.names], schema=schema)
        row += count


def _array(pyarrow: Any, part: Part, name: str, kind: Any) -> Any:
    """A column of a part; null in every row where it does not have it."""
    if name not in part.names:
        return pyarrow.nulls(part.entry.rows, kind)
    values = part_column(part, name)
    none = values < 0 if name in _NULL else None
    if name in VOCABULARIES:
        words = pyarrow.array(list(part.vocabularies[name]), pyarrow.string())
        indices = pyarrow.array(values.astype(np.int32), mask=none)
        return pyarrow.DictionaryArray.from_arrays(indices, words).cast(pyarrow.string())
    if values.ndim == 1:
        return pyarrow.array(values, mask=none)
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pyarrow.ListArray.from_arrays(offsets, pyarrow.array(values.reshape(-1)))
