"""The rows that a critic learns from: labels in memory, what it reads of the policies in memory or streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from epvf_data.critics.base import Scale
from epvf_data.errors import DatasetError
from epvf_data.policies.kinds import Spec
from epvf_data.store.loader import load_all
from epvf_data.store.table import Table
from epvf_data.trainers.metrics import label_variances

MIN_ROWS = 10
_BLOCK_BYTES = 64 << 20

Rows = Int[np.ndarray, "k"]


@dataclass(frozen=True, eq=False)
class Source:
    """Rows of one or several architectures, numbered one architecture after the other.

    `column` is what the critic reads: "params" or "probe_actions". `vectors` is None when it is streamed.
    """

    tables: tuple[Table, ...]
    column: str
    labels: Float[np.ndarray, "n"]  # mean return over episodes
    variances: Float[np.ndarray, "n"]  # of the labels, NaN where a policy has one episode
    families: Int[np.ndarray, "n"]
    rows_not_finite: int
    vectors: tuple[Float[np.ndarray, "a D"], ...] | None

    @property
    def specs(self) -> tuple[Spec, ...]:
        return tuple(table.spec for table in self.tables)

    @cached_property
    def starts(self) -> Int[np.ndarray, "A1"]:
        """Number of each architecture's first row, and the number of all rows."""
        return np.cumsum([0, *(table.rows for table in self.tables)])

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Length of each architecture's vectors."""
        return tuple(int(np.prod(table.row_shape(self.column))) for table in self.tables)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The word of the column `source` in each row: how the policy was made."""
        return tuple(
            table.vocabulary("source")[index] for table in self.tables for index in table.column("source").tolist()
        )

    def places(self, rows: Rows) -> Rows:
        """The number of each row's architecture."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def local(self, rows: Rows) -> tuple[Rows, ...]:
        """For each architecture its rows among these, numbered from 0, in the given order."""
        places = self.places(rows)
        return tuple(rows[places == place] - self.starts[place] for place in range(len(self.tables)))

    def read(self, place: int, rows: Rows) -> Float[np.ndarray, "k D"]:
        """Vectors of rows of one architecture, which are numbered from 0."""
        if self.vectors is not None:
            return self.vectors[place][rows]
        return self.tables[place].take(self.column, rows).reshape(len(rows), -1)

    def blocks(self, place: int, rows: Rows) -> Iterator[Rows]:
        """The rows in pieces of bounded memory."""
        step = max(1, _BLOCK_BYTES // (4 * self.sizes[place]))
        for start in range(0, len(rows), step):
            yield rows[start : start + step]


def open_source(tables: Sequence[Table], device_bytes: int, column: str = "params") -> Source:
    """Reads labels and lineage, and what the critic reads where it fits into `device_bytes`.

    Raises DatasetError for too few rows, equal returns, a column that is not there, and values that are not finite.
    """
    rows = sum(table.rows for table in tables)
    if rows < MIN_ROWS:
        raise DatasetError(
            f"got {rows} rows of policies {', '.join(str(table.spec) for table in tables)}; "
            f"training needs at least {MIN_ROWS}: collect more."
        )
    labels = np.concatenate([table.mean_returns() for table in tables])
    if not np.isfinite(labels).all():
        row = int(np.flatnonzero(~np.isfinite(labels))[0])
        raise DatasetError(f"row {row} has a return that is not finite; leave such rows out before training.")
    if not np.ptp(labels) > 0:
        raise DatasetError(
            f"all {rows} returns are {labels[0]:g}; a critic needs policies whose returns differ: "
            "collect from other sources."
        )
    size = sum(4 * table.rows * int(np.prod(table.row_shape(column))) for table in tables)
    resident = size <= device_bytes
    if not resident:
        for table in tables:
            table.row_shape("returns")  # streaming needs as many episodes in every part; DatasetError otherwise
    source = Source(
        tables=tuple(tables),
        column=column,
        labels=labels,
        variances=np.concatenate(
            [label_variances(piece.astype(np.float64)) for table in tables for piece in table.pieces("returns")]
        ),
        families=_families(tables),
        rows_not_finite=sum(int((~piece).any(1).sum()) for table in tables for piece in table.pieces("finite")),
        vectors=tuple(load_all(table, columns=(column,))[column].reshape(table.rows, -1) for table in tables)
        if resident
        else None,
    )
    for place, table in enumerate(tables):
        for block in source.blocks(place, np.arange(table.rows)):
            good = np.isfinite(source.read(place, block)).all(1)
            if not good.all():
                row = int(source.starts[place] + block[np.flatnonzero(~good)[0]])
                raise DatasetError(f"row {row} has {_NAMES[column]} that are not finite; leave such rows out.")
    return source


_NAMES = {"params": "parameters", "probe_actions": "probing actions"}


def _families(tables: Sequence[Table]) -> Int[np.ndarray, "n"]:
    """Families of all tables, numbered apart: no policy descends from one of another architecture."""
    found, after = [], 0
    for table in tables:
        groups = table.groups()
        found.append(groups + after)
        after += int(groups.max()) + 1
    return np.concatenate(found)


def measure_scales(source: Source, rows: Rows) -> tuple[Scale, ...]:
    """Mean and deviation of the given rows only, for each architecture; returns are scaled alike for all.

    Stored probing actions mean the same for every architecture and get one scale.
    """
    labels = source.labels[rows]
    spread = labels.std()
    returns = (np.array(labels.mean(), np.float32), np.array(spread if spread > 0 else 1.0, np.float32))
    local = list(enumerate(source.local(rows)))
    groups = [local] if source.column == "probe_actions" else [[item] for item in local]
    scales = []
    for group in groups:
        mean, std = _moments(source, group)
        scales += [Scale(mean, std, *returns)] * len(group)
    return tuple(scales)


def _moments(source: Source, group: list[tuple[int, Rows]]) -> tuple[np.ndarray, np.ndarray]:
    """Streamed in float64 (merging after Chan et al. 1979); the spread is 1 where nothing varies."""
    size = source.sizes[group[0][0]]
    count, mean, squares = 0, np.zeros(size), np.zeros(size)
    for place, rows in group:
        for block in source.blocks(place, rows):
            vectors = source.read(place, block).astype(np.float64)
            centre = vectors.mean(0)
            delta, total = centre - mean, count + len(block)
            squares += np.square(vectors - centre).sum(0) + delta**2 * (count * len(block) / total)
            mean += delta * (len(block) / total)
            count = total
    spread = np.sqrt(squares / max(count, 1))
    varies = spread > 1e-7 * np.maximum(np.abs(mean), 1e-30)  # below float32's resolution it is rounding
    return mean.astype(np.float32), np.where(varies, spread, 1.0).astype(np.float32)
