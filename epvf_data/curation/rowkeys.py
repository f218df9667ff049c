"""When two stored rows are the same row, and which rows are there twice."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64

from epvf_data.store.extract import part_column, row_bytes
from epvf_data.store.lineage import VOCABULARIES
from epvf_data.store.part import Part
from epvf_data.store.schema import COLUMNS

_LEFT_OUT = ("params", "probe_actions", "discounted_returns")  # compared later, or follow from the rest
_KEY = np.dtype("V16")
SLAB_BYTES = 32 << 20  # rows are read in slabs of about this size


def slab_rows(part: Part) -> int:
    """Rows of a part that are read at once."""
    return max(1, SLAB_BYTES // row_bytes(part))


def row_keys(part: Part) -> np.ndarray:
    """16 bytes a row, [rows]: equal for rows with equal lineage, seeds and outcomes; policies are left out."""
    rows = part.entry.rows
    blocks = [np.broadcast_to(np.frombuffer(part.entry.architecture.encode(), np.uint8), (rows, 64))]
    for name in (name for name in COLUMNS if name not in _LEFT_OUT):
        values = part_column(part, name)
        if name in VOCABULARIES:
            words = [hashlib.blake2b(word.encode(), digest_size=8).digest() for word in part.vocabularies[name]]
            table = np.frombuffer(b"".join([*words, bytes(8)]), np.uint64)  # the last for index −1
            values = table[values.astype(np.int64)]
        blocks.append(np.ascontiguousarray(values).reshape(rows, -1).view(np.uint8))
    matrix = np.concatenate(blocks, 1)
    keys = b"".join(hashlib.blake2b(row, digest_size=16).digest() for row in matrix)
    return np.frombuffer(keys, _KEY)


def row_numbers(
    parts: Sequence[Part], progress: Callable[[int], None] | None = None
) -> list[Int64[np.ndarray, " rows"]]:
    """For each part a number a row: that of the first row, over all parts in order, which is the same row.

    Two rows are the same if architecture, parameters, lineage, seeds and outcomes are; where parameters are withheld,
    if their actions are. A row with parameters is never the same as one without. About 60 bytes a row of memory
    are needed. `progress(rows)` is called part by part.
    """
    keys = []
    for part in parts:
        keys.append(row_keys(part))
        if progress is not None:
            progress(part.entry.rows)
    starts = np.cumsum([0, *map(len, keys)])
    every = np.concatenate(keys) if keys else np.zeros(0, _KEY)
    numbers = np.arange(len(every))
    suspects = _in_groups(every)
    if len(suspects):  # the same in all but the policy: now compare that too
        exact = np.concatenate([every[suspects].view(np.uint8).reshape(-1, 16), _policies(parts, starts, suspects)], 1)
        whole = np.ascontiguousarray(exact).view("V32").reshape(-1)
        _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
        numbers[suspects] = suspects[first][inverse.reshape(-1)]
    return [numbers[start:stop] for start, stop in itertools.pairwise(starts.tolist())]


def _in_groups(keys: np.ndarray) -> np.ndarray:
    """Sorted numbers of the keys that appear more than once."""
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[inverse.reshape(-1)] > 1)


def _policies(parts: Sequence[Part], starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A 16-byte digest of the parameters, or else the actions, of each of these rows, [rows, 16]."""
    digests: list[bytes] = []
    for part, (first, end) in zip(parts, itertools.pairwise(starts.tolist()), strict=True):
        mine = rows[np.searchsorted(rows, first) : np.searchsorted(rows, end)] - first
        step = slab_rows(part)
        name = "params" if "params" in part.names else "probe_actions"
        for start in range(0, len(mine), step):
            values = part_column(part, name, mine[start : start + step])
            digests += [hashlib.blake2b(row, digest_size=16, person=name.encode()).digest() for row in values]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
