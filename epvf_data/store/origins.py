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
    """The commits whose rows a commit holds, with the number of rows, in order: compaction is looked through.

    Every part is removed once at most, so that this takes no longer than reading the records, whatever they say.
    """
    found: list[tuple[CommitRecord, int]] = []
    waiting = [(record, record.rows)]
    while waiting:
        old, rows = waiting.pop()
        # A compacted commit holds one run of rows: another compaction takes all of it, and of other commits maybe some.
        joined = _joined(dataset, old) if rows == old.rows else []
        waiting += reversed(joined)
        if not joined:
            found.append((old, rows))
    return found


def _joined(dataset: Dataset, record: CommitRecord) -> list[tuple[CommitRecord, int]]:
    """The commits whose parts a compaction has joined, each with its rows there; empty for a commit of another kind."""
    parts = [dataset.removed(name) for name in record.remove]
    found = [(dataset.record_of(part), part.rows) for part in parts]
    same = record.provenance.get("rows_of") == [[old.number, rows] for old, rows in found]
    return found if same and len(record.add) == 1 and sum(part.rows for part in parts) == record.rows else []


def origin(record: CommitRecord, rows: int) -> dict[str, Any]:
    """What a derived commit says about one commit that gave it rows."""
    kept: Mapping[str, Any] = record.provenance
    if _levels(kept) > MAX_LEVELS or len(to_json(kept)) > MAX_BYTES:
        kept = {**{key: kept[key] for key in ("who", "verb", "command", "versions") if key in kept}, "shortened": True}
    return {"record": record.sha256, "commit": record.number, "rows": rows, "provenance": dict(kept)}


def derived(
    verb: str, arguments: Mapping[str, Any], records: Sequence[tuple[CommitRecord, int]], licences: Sequence[str]
) -> dict[str, Any]:
    """Provenance of rows that `verb` took from these commits, each with the number of rows that came from it.

    `licences` are those of the data set that they lay in.
    """
    origins = [origin(record, rows) for record, rows in records]
    found = {"licences": list(licences)} if licences else {}
    return provenance(verb=verb, arguments=dict(arguments), origins=origins, **found)


def _levels(value: Any) -> int:
    """How deep a JSON value is nested."""
    if isinstance(value, Mapping):
        return 1 + max(map(_levels, value.values()), default=0)
    return 1 + max(map(_levels, value), default=0) if isinstance(value, (list, tuple)) else 0
