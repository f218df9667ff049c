"""A stored part's rows as `Rows`, to be committed elsewhere."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from jaxtyping import Int

from epvf_data.store.lineage import LINEAGE_COLUMNS, Lineage
from epvf_data.store.part import Part
from epvf_data.store.schema import Rows


def part_rows(
    part: Part, rows: Int[np.ndarray, " chosen"] | slice | None = None, without: Collection[str] = ()
) -> Rows:
    """All rows of a part, a slice of them, or those of the given numbers in that order; every checksum is verified.

    `without` names optional columns that are left out.

    Raises CorruptDatasetError where the part is damaged, DatasetError where no row is chosen.
    """
    columns = {name: part_column(part, name, rows) for name in part.names if name not in without}
    lineage = Lineage(**{name: columns.pop(name) for name in LINEAGE_COLUMNS}, vocabularies=part.vocabularies)
    whole = rows is None or len(lineage) == part.entry.rows
    return Rows(
        spec=part.spec,
        lineage=lineage if whole else lineage.select(slice(None)),  # drops the words that no row uses
        simulation=part.group.attributes["simulation"],
        probe_states=part.probe_states,
        discount=part.group.attributes["discount"],
        **{"params": None, **columns},
    )


def part_column(part: Part, name: str, rows: Int[np.ndarray, " chosen"] | slice | None = None) -> np.ndarray:
    """One column of a part in its own dtype, [rows, …]; vocabulary columns hold indices into `part.vocabularies`."""
    layout = part.layout(name)
    if isinstance(rows, np.ndarray):
        target = np.empty((len(rows), *layout.shape[1:]), layout.dtype)
        part.open(name).take(rows, target)
        return target
    start, stop, step = (rows or slice(None)).indices(layout.shape[0])
    if step != 1:
        return part_column(part, name, np.arange(start, stop, step))
    target = np.empty((max(0, stop - start), *layout.shape[1:]), layout.dtype)
    part.open(name).read(start, max(start, stop), target)
    return target


def row_bytes(part: Part) -> int:
    """Bytes of one row of a part over all its columns."""
    return sum(part.layout(name).row_bytes for name in part.names)
