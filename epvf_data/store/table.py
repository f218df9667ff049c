"""The rows of one architecture, in commit order, as lazily read NumPy columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64, Int, Int64

from epvf_data.errors import DatasetError
from epvf_data.policies.kinds import Spec
from epvf_data.store.lineage import VOCABULARIES, merge_vocabularies, remap
from epvf_data.store.part import Part
from epvf_data.store.schema import COLUMNS
from epvf_data.store.shard import allocate


class Table:
    """n rows of one architecture, read-only. Every array that is handed out is a verified copy.

    `names` are the columns that all parts have. The vocabulary columns `source`, `law`, `base` and `run` come as int32
    indices into `vocabulary(name)`, which is one for the whole table; −1 means none.
    """

    def __init__(self, parts: Sequence[Part], spec: Spec | None = None) -> None:
        self.parts = tuple(parts)
        self.spec = parts[0].spec if spec is None else spec  # the latter has the code of a policy of the user's own
        self.starts = np.cumsum([0, *(part.entry.rows for part in parts)])  # first table row of each part, and the end

    @property
    def rows(self) -> int:
        return int(self.starts[-1])

    def __len__(self) -> int:
        return self.rows

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Columns that all parts have; `probe_actions` only if all parts used the same probing states."""
        shared = set.intersection(*(set(part.names) for part in self.parts))
        if len({part.entry.probe for part in self.parts}) > 1:
            shared.discard("probe_actions")
        return tuple(name for name in COLUMNS if name in shared)

    @cached_property
    def probe_states(self) -> Float32[np.ndarray, "probes observations"] | None:
        """The probing states behind `probe_actions`; None if the table does not have that column."""
        return self.parts[0].probe_states if "probe_actions" in self.names else None

    def row_shape(self, name: str) -> tuple[int, ...]:
        """The shape of one row of a column. Raises DatasetError for an unknown column or where parts differ."""
        if name == "params" and name not in self.names:
            bare = sum(part.entry.rows for part in self.parts if name not in part.names)
            raise DatasetError(
                f"the parameters of {bare} of {self.rows} policies {self.spec} were withheld; their actions in probing "
                "states are in the column 'probe_actions', which the critic 'stored-probing' reads."
            )
        if name not in self.names:
            if name == "probe_actions":
                raise DatasetError(
                    f"no actions in probing states are stored with all policies {self.spec}; take a critic that reads "
                    "parameters (--critic mlp), or collect the rows with `probes`."
                )
            raise DatasetError(f"column {name!r} is not in all parts; this table has {', '.join(self.names)}.")
        shapes = {part.layout(name).shape[1:] for part in self.parts}
        if len(shapes) > 1:
            raise DatasetError(
                f"column {name!r} has rows of the shapes {sorted(shapes)}, so it is no single array; "
                "read it part by part with pieces(), or take mean_returns()."
            )
        return shapes.pop()

    def dtype(self, name: str) -> np.dtype:
        """The dtype of a column as this table gives it."""
        return np.dtype("int32" if name in VOCABULARIES else COLUMNS[name].dtype)

    @cached_property
    def _merged(self) -> dict[str, tuple[tuple[str, ...], list[np.ndarray]]]:
        return {name: merge_vocabularies([part.vocabularies[name] for part in self.parts]) for name in VOCABULARIES}

    def vocabulary(self, name: str) -> tuple[str, ...]:
        """The words behind the indices of a vocabulary column."""
        if name not in VOCABULARIES:
            raise DatasetError(f"column {name!r} has no vocabulary; {', '.join(VOCABULARIES)} have one.")
        return self._merged[name][0]

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """The column part by part, each [rows of the part, …]; also where parts differ in the number of episodes."""
        for number, part in enumerate(self.parts):
            layout = part.layout(name)
            values = allocate(layout.shape, COLUMNS[name].dtype, f"column {name!r}")
            part.open(name).read(0, layout.shape[0], values)
            yield self._indices(name, number, values)

    def _indices(self, name: str, part: int, values: np.ndarray) -> np.ndarray:
        if name not in VOCABULARIES:
            return values
        self.parts[part].check_indices(name, values)
        return remap(values, self._merged[name][1][part])

    def column(self, name: str) -> np.ndarray:
        """A whole column, [rows, …]."""
        return self.read(name, 0, self.rows)

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """The rows from `start` to `stop` of a column."""
        if not 0 <= start <= stop <= self.rows:
            raise DatasetError(f"rows {start} to {stop} were asked for; the table has {self.rows}.")
        target = allocate((stop - start, *self.row_shape(name)), self.dtype(name), f"column {name!r}")
        for number, part in enumerate(self.parts):
            first, end = self.starts[number : number + 2].tolist()
            low, high = max(start, first), min(stop, end)
            if low < high:
                values = (
                    np.empty((high - low, *target.shape[1:]), COLUMNS[name].dtype) if name in VOCABULARIES else None
                )
                place = target[low - start : high - start] if values is None else values
                part.open(name).read(low - first, high - first, place)
                if values is not None:
                    target[low - start : high - start] = self._indices(name, number, values)
        return target

    def take(self, name: str, rows: Int[np.ndarray, " taken"]) -> np.ndarray:
        """Any rows of a column in any order. A chunk is verified when one of its rows is taken for the first time."""
        rows = np.asarray(rows)
        if rows.ndim != 1 or (rows.size and (rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= self.rows)):
            raise DatasetError(f"rows must be a flat array of whole numbers from 0 to {self.rows - 1}.")
        rows = rows.astype(np.int64)
        target = allocate((len(rows), *self.row_shape(name)), self.dtype(name), f"column {name!r}")
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(owner).tolist():
            places = np.flatnonzero(owner == number)
            self.parts[number].shard(name).take(rows[places] - self.starts[number], target, places)
            if name in VOCABULARIES:
                target[places] = self._indices(name, number, target[places])
        return target

    def mean_returns(self) -> Float64[np.ndarray, " rows"]:
        """Mean undiscounted return of each row over its episodes, also where parts differ in their number."""
        return np.concatenate([values.mean(1, dtype=np.float64) for values in self.pieces("returns")])

    def groups(self) -> Int64[np.ndarray, " rows"]:
        """The lineage family of each row, numbered in order of first appearance.

        Rows with the same base policy are one family, with the base's own row if that names itself as its base.
        A row without a base is a family of its own.
        """
        base = self.column("base").astype(np.int64)
        alone = base < 0
        base[alone] = len(self.vocabulary("base")) + np.arange(int(alone.sum()))
        _, first, labels = np.unique(base, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        return rank[labels]

    def to_numpy(self) -> dict[str, np.ndarray]:
        """All columns of `names` as arrays."""
        return {name: self.column(name) for name in self.names}

    def __repr__(self) -> str:
        return f"Table({self.spec}, {self.rows} rows, columns {', '.join(self.names)})"
