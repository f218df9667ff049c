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
    """One column of a part in its own dtype, [rows, …]; vocabulary columns hold indices into `part.vocabularies`.

    Raises CorruptDatasetError where the part is damaged.
    """
    layout, shard = part.layout(name), part.open(name)
    chosen = rows if isinstance(rows, np.ndarray) else range(*(rows or slice(None)).indices(layout.shape[0]))
    target = np.empty((len(chosen), *layout.shape[1:]), layout.dtype)
    if isinstance(chosen, range) and chosen.step == 1:
        shard.read(chosen.start, chosen.start + len(chosen), target)
    else:
        shard.take(np.asarray(chosen), target)
    part.check_indices(name, target)
    return target


def row_bytes(part: Part) -> int:
    """Bytes of one row of a part over all its columns."""
    return sum(part.layout(name).row_bytes for name in part.names)
