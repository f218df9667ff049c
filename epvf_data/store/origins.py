"""Provenance of rows that went from one data set into another: whose they were, and what was done with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from epvf_data.provenance import provenance
from epvf_data.store.commit import CommitRecord
from epvf_data.store.reader import Dataset
from epvf_data.store.schema import to_json

MAX_BYTES = 2 << 20  # of one origin's provenance; longer ones are shortened
MAX_LEVELS = 22  # of nesting in it: some six generations of data sets made of data sets; metadata has a limit


def leaves(dataset: Dataset, record: CommitRecord) -> list[tuple[CommitRecord, int]]:
    """The commits whose rows a commit holds, with the number of rows, in order: compaction is looked through."""
    try:
        found = [(dataset.commits[number], int(rows)) for number, rows in record.provenance["rows_of"]]
    except (KeyError, IndexError, TypeError, ValueError):
        return [(record, record.rows)]
    if any(old.number >= record.number for old, _ in found) or sum(rows for _, rows in found) != record.rows:
        return [(record, record.rows)]  # provenance is free-form: not one of ours
    # A compacted commit holds one run of rows: another compaction takes all of it, and of other commits maybe some.
    return [item for old, rows in found for item in (leaves(dataset, old) if old.rows == rows else [(old, rows)])]


def origin(record: CommitRecord, rows: int) -> dict[str, Any]:
    """What a derived commit says about one commit that gave it rows."""
    kept: Mapping[str, Any] = record.provenance
    if _levels(kept) > MAX_LEVELS or len(to_json(kept)) > MAX_BYTES:
        kept = {**{key: kept[key] for key in ("verb", "command", "versions") if key in kept}, "shortened": True}
    return {"record": record.sha256, "commit": record.number, "rows": rows, "provenance": dict(kept)}


def derived(verb: str, arguments: Mapping[str, Any], records: Sequence[tuple[CommitRecord, int]]) -> dict[str, Any]:
    """Provenance of rows that `verb` took from these commits, each with the number of rows that came from it."""
    origins = [origin(record, rows) for record, rows in records]
    return provenance(verb=verb, arguments=dict(arguments), origins=origins)


def _levels(value: Any) -> int:
    """How deep a JSON value is nested."""
    if isinstance(value, Mapping):
        return 1 + max(map(_levels, value.values()), default=0)
    return 1 + max(map(_levels, value), default=0) if isinstance(value, (list, tuple)) else 0
