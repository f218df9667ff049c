"""A hash of what a data set says, whatever the files that say it."""

from __future__ import annotations

import hashlib

import numpy as np

from epvf_data.store.lineage import VOCABULARIES, compact_vocabulary
from epvf_data.store.reader import Dataset
from epvf_data.store.schema import COLUMNS, to_json
from epvf_data.store.table import Table


def content_hash(dataset: Dataset) -> str:
    """SHA-256 over all rows' data in order, in hexadecimal.

    It does not depend on part names, times, provenance, compression, or on how the rows were split over commits, so a
    collection that was killed and resumed has the hash of one that ran through.
    """
    tables = [dataset.table(item.id) for item in dataset.architectures]
    value = {"env": dataset.env.digest, "architectures": {table.spec.id: _table(table) for table in tables}}
    return hashlib.sha256(to_json(value)).hexdigest()


def _table(table: Table) -> dict[str, object]:
    content: dict[str, object] = {name: _column(table, name) for name in COLUMNS if name not in VOCABULARIES}
    for name in VOCABULARIES:
        indices, words = compact_vocabulary(table.column(name), table.vocabulary(name))
        content[name] = [hashlib.sha256(indices.astype("<i4").tobytes()).hexdigest(), list(words)]
    for name, values in (
        ("probe", [part.entry.probe for part in table.parts]),
        ("discount", [part.group.attributes["discount"] for part in table.parts]),
    ):
        runs: list[list[object]] = []  # equal neighbours are joined: [value, rows]
        for part, value in zip(table.parts, values, strict=True):
            if runs and runs[-1][0] == value:
                runs[-1][1] = int(str(runs[-1][1])) + part.entry.rows
            else:
                runs.append([value, part.entry.rows])
        content[name] = runs
    return content


def _column(table: Table, name: str) -> str:
    """SHA-256 over each row's length and bytes; a row without this column has length −1."""
    data, lengths = hashlib.sha256(), hashlib.sha256()
    for part in table.parts:
        layout = part.layout(name) if name in part.names else None
        size = -1 if layout is None else layout.row_bytes
        lengths.update(np.full(part.entry.rows, size, "<i8").tobytes())
        if layout is not None:
            shard = part.open(name)
            for chunk in range(layout.chunks):
                data.update(np.ascontiguousarray(shard.chunk(chunk)).reshape(-1).view(np.uint8).data)
    return hashlib.sha256(data.digest() + lengths.digest()).hexdigest()
