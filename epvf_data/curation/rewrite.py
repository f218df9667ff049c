"""Gathers rows of many parts and commits them as few large ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int64

from epvf_data.curation.rowkeys import slab_rows
from epvf_data.store.commit import CommitRecord
from epvf_data.store.compact import kind
from epvf_data.store.extract import part_rows, row_bytes
from epvf_data.store.origins import Seen, derived, leaves_of, origin
from epvf_data.store.part import Part
from epvf_data.store.reader import Dataset
from epvf_data.store.schema import Rows, to_json
from epvf_data.store.writer import Writer

COMMIT_BYTES = 128 << 20  # rows in memory before they are committed
ORIGIN_BYTES = 4 << 20  # of provenance in one record, which has a limit


class Rewriter:
    """Copies chosen rows into a new data set, in order within each architecture, in commits of bounded size."""

    def __init__(self, writer: Writer, verb: str, arguments: Mapping[str, Any], without: tuple[str, ...] = ()) -> None:
        self._writer, self._verb, self._arguments, self._without = writer, verb, arguments, without
        self._groups: dict[tuple[int, tuple], list[Rows]] = {}
        self._last: dict[str, tuple[int, tuple]] = {}  # the kind that each architecture is at
        self._origins: dict[str, tuple[CommitRecord, int]] = {}
        self._licences: dict[str, None] = {}
        self._bytes = self._origin_bytes = 0

    def add(self, dataset: Dataset, part: Part, chosen: Int64[np.ndarray, " chosen"]) -> None:
        """Takes these rows of a part (sorted)."""
        step = slab_rows(part)
        for start in range(0, len(chosen), step):
            rows = chosen[start : start + step]
            self._note(dataset, part, rows)
            self._take(part, part_rows(part, rows, self._without))
            if self._bytes >= COMMIT_BYTES or self._origin_bytes >= ORIGIN_BYTES:
                self.flush()

    def _take(self, part: Part, rows: Rows) -> None:
        """Joins the rows to the architecture's last ones, or begins anew where those are of another kind."""
        architecture, found = part.entry.architecture, kind(part)
        last = self._last.get(architecture)
        if last is None or last[1] != found:
            last = self._last[architecture] = (len(self._groups), found)
        self._groups.setdefault(last, []).append(rows)
        self._bytes += row_bytes(part) * len(rows)

    def _note(self, dataset: Dataset, part: Part, rows: np.ndarray) -> None:
        self._licences |= dict.fromkeys(dataset.licences)
        for leaf, count in sources(dataset, [(part, rows)]):
            if leaf.sha256 not in self._origins:
                self._origin_bytes += len(to_json(origin(leaf, count)))
            self._origins[leaf.sha256] = (leaf, count + self._origins.get(leaf.sha256, (leaf, 0))[1])

    def flush(self) -> None:
        """Commits what was taken so far."""
        if self._groups:
            groups = [Rows.concatenate(self._groups.pop(key)) for key in list(self._groups)]
            origins = list(self._origins.values())
            self._writer.commit(groups, derived(self._verb, self._arguments, origins, [*self._licences]))
        self._groups, self._last, self._origins, self._licences = {}, {}, {}, {}
        self._bytes = self._origin_bytes = 0


def sources(dataset: Dataset, chosen: Iterable[tuple[Part, np.ndarray]]) -> list[tuple[CommitRecord, int]]:
    """The commits that made the chosen rows of these parts, before any compaction, each with how many of the rows."""
    found: dict[str, tuple[CommitRecord, int]] = {}
    seen: Seen = {}
    for part, rows in chosen:
        made_by = leaves_of(dataset, part.entry, seen)
        ends = np.cumsum([count for _, count in made_by])
        counts = np.bincount(np.searchsorted(ends, rows, side="right"), minlength=len(made_by)).tolist()
        for (leaf, _), count in zip(made_by, counts, strict=True):
            if count:
                found[leaf.sha256] = (leaf, count + found.get(leaf.sha256, (leaf, 0))[1])
    return list(found.values())
