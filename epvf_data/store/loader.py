"""Batches for training: a block-shuffled, resumable loader that shards over hosts."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from epvf_data.errors import DatasetError
from epvf_data.store.lineage import VOCABULARIES
from epvf_data.store.memory import Memory
from epvf_data.store.part import Part
from epvf_data.store.table import Table

Batch = dict[str, np.ndarray]
_RESIDENT_BYTES = 64 << 20
_STREAM = 0x62_6C_6F_63  # names the shuffle's random stream apart from others of the same seed


def load_all(
    table: Table, rows: Int[np.ndarray, " chosen"] | None = None, columns: Sequence[str] = ("params", "returns")
) -> Batch:
    """The whole set, or the given rows of it in their order, as one array a column: for sets that fit on the device."""
    return {name: table.column(name) if rows is None else table.take(name, rows) for name in columns}


@dataclass(frozen=True)
class _Block:
    """Some rows of a run of chunks of one part: `rows` in the table's numbering, `inner` in the part's."""

    part: Part
    rows: Int64[np.ndarray, " rows"]
    inner: Int64[np.ndarray, " rows"]

    def copy(self, name: str, target: np.ndarray, places: Int64[np.ndarray, " rows"], verify: bool) -> None:
        """`target[places] = column[inner]`, chunk by chunk."""
        shard = self.part.shard(name)
        size = shard.layout.chunk_rows
        first, last = int(self.inner[0]) // size, int(self.inner[-1]) // size
        bounds = np.searchsorted(self.inner, np.arange(first, last + 2) * size).tolist()
        for chunk, low, high in zip(range(first, last + 1), bounds[:-1], bounds[1:], strict=True):
            if low < high:
                rows = None if high - low == size else self.inner[low:high] - chunk * size
                shard.copy(chunk, rows, target, places[low:high], verify=verify)


class _Task:
    """Work for a thread, or for the one who needs it if no thread has begun: a busy machine delays threads."""

    def __init__(self, threads: ThreadPoolExecutor, work: Callable[[], None]) -> None:
        self._work = work
        self._future = threads.submit(work)

    def finish(self) -> None:
        """Returns when the work is done; raises what it raised."""
        if self._future.cancel():
            self._work()
        else:
            self._future.result()


@dataclass(frozen=True)
class _Pool:
    """The shuffled rows of some blocks: their numbers, and the columns that are being copied into memory."""

    rows: Int64[np.ndarray, " rows"]
    memory: Batch
    tasks: list[_Task]
    skip: int

    def wait(self) -> None:
        """Returns when all rows are there. Raises CorruptDatasetError if one is not as it was written."""
        for task in reversed(self.tasks):  # threads take them from the front
            task.finish()


def _blocks(table: Table, chosen: Int64[np.ndarray, " chosen"], block_rows: int) -> list[_Block]:
    """The chosen rows (sorted) in blocks of whole chunks."""
    blocks = []
    for part, first, end in zip(table.parts, table.starts[:-1].tolist(), table.starts[1:].tolist(), strict=True):
        rows = chosen[np.searchsorted(chosen, first) : np.searchsorted(chosen, end)]
        chunk = _chunk_rows(part)
        step = max(1, block_rows // chunk) * chunk
        cuts = np.flatnonzero(np.diff((rows - first) // step)) + 1
        blocks += [_Block(part, piece, piece - first) for piece in np.split(rows, cuts) if len(piece)]
    return blocks


def _join(pieces: list[Batch]) -> Batch:
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _chunk_rows(part: Part) -> int:
    return part.layout("returns").chunk_rows  # the same for all columns of a part


class Loader:
    """Batches of a table's rows in an order that is new each epoch, from a bounded amount of memory.

    Blocks of `block_rows` consecutive rows (whole stored chunks) come in random order; the rows of `pool_blocks` blocks
    at a time are shuffled together. While one pool is handed out, threads copy and (with `verify`) checksum the next:
    up to three pools are in memory.
    Each row comes once an epoch. `shard=(i, n)` gives host i of n its own blocks of the same order; hosts may differ by
    some rows. The order depends on the seed, the epoch and the settings, never on timing. Without `shuffle` the rows
    come in the table's order, each epoch alike.

    `rows` restricts the loader to these rows (a split). Columns smaller than `resident_bytes` in all stay in memory.
    Iterating goes on where the last iteration stopped; at an epoch's end the next one begins. Raises DatasetError for
    settings that make no sense, CorruptDatasetError where a checksum is wrong.
    """

    def __init__(
        self,
        table: Table,
        rows: Int[np.ndarray, " chosen"] | None = None,
        *,
        columns: Sequence[str] = ("params", "returns"),
        batch_size: int,
        block_rows: int = 64,
        pool_blocks: int = 64,
        shuffle: bool = True,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        drop_last: bool = False,
        verify: bool = True,
        resident_bytes: int = _RESIDENT_BYTES,
        threads: int | None = None,
    ) -> None:
        if min(batch_size, block_rows, pool_blocks) < 1 or seed < 0 or not 0 <= shard[0] < shard[1]:
            raise DatasetError(
                f"batch_size {batch_size}, block_rows {block_rows} and pool_blocks {pool_blocks} must be at least 1, "
                f"seed {seed} at least 0, and shard {shard} must be (i, n) with 0 ≤ i < n."
            )
        chosen = np.arange(table.rows) if rows is None else np.unique(np.asarray(rows, np.int64))
        repeated = rows is not None and len(chosen) != len(rows)
        if not len(chosen) or chosen[0] < 0 or chosen[-1] >= table.rows or repeated:
            raise DatasetError(f"rows must be different row numbers from 0 to {table.rows - 1}, at least one.")
        self.table, self.columns = table, tuple(columns)
        self._batch_size, self._pool_blocks, self._verify, self._drop_last = batch_size, pool_blocks, verify, drop_last
        self._seed, self._shard, self._shuffle = seed, shard, shuffle
        self._threads = threads or max(1, min(4, (os.cpu_count() or 1) - 1))
        self._blocks = _blocks(table, chosen, block_rows)
        self._epoch, self._batch = 0, 0
        self._resident: Batch = {}
        self._memory: dict[str, Memory] = {}
        capacity = sum(sorted((len(block.rows) for block in self._blocks), reverse=True)[:pool_blocks])
        for name in self.columns:
            shape = table.row_shape(name)
            size = math.prod(shape) * table.dtype(name).itemsize * table.rows
            if name in VOCABULARIES or size <= resident_bytes:
                self._resident[name] = table.column(name)
            else:
                self._memory[name] = Memory(capacity, shape, table.dtype(name))
        self._identity = {
            "seed": seed,
            "shard": list(shard),
            "batch_size": batch_size,
            "block_rows": block_rows,
            "pool_blocks": pool_blocks,
            "shuffle": shuffle,
            "drop_last": drop_last,
            "rows": len(chosen),
            "row_sum": int(chosen.sum()),
        }

    def state(self) -> dict[str, Any]:
        """Where the loader stands, as JSON values: after the batches that were handed out so far."""
        return {"epoch": self._epoch, "batch": self._batch, "settings": self._identity}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`, bit for bit. Raises DatasetError if it comes from a loader with other settings."""
        try:
            epoch, batch = int(state["epoch"]), int(state["batch"])
            settings = {"shuffle": True, **state["settings"]}  # states of 0.1.0 do not name it
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"this is no loader state ({error!r}).") from error
        different = [key for key, value in self._identity.items() if settings.get(key) != value]
        if min(epoch, batch) < 0:
            raise DatasetError(f"this is no loader state (epoch {epoch}, batch {batch}); both count from 0.")
        if different:
            raise DatasetError(f"the state is of a loader with another {', '.join(different)}; make the loader alike.")
        self._epoch, self._batch = epoch, batch

    def batches(self, shard: tuple[int, int] | None = None) -> int:
        """How many batches the current epoch has in this shard, or in another one (i, n) of the same order."""
        rows = sum(len(self._blocks[index].rows) for index in self._order(shard or self._shard).tolist())
        return rows // self._batch_size if self._drop_last else -(-rows // self._batch_size)

    def __len__(self) -> int:
        """How many batches the current epoch has."""
        return self.batches()

    def _order(self, shard: tuple[int, int]) -> Int64[np.ndarray, " blocks"]:
        """The blocks of a shard in this epoch's order."""
        key = [_STREAM, self._seed, self._epoch]
        blocks = len(self._blocks)
        order = np.random.default_rng(key).permutation(blocks) if self._shuffle else np.arange(blocks)
        return order[shard[0] :: shard[1]]

    def __iter__(self) -> Iterator[Batch]:
        """The rest of this epoch's batches: column → [batch, …]. The arrays are the caller's to keep and to change."""
        pieces: list[Batch] = []
        count = 0
        for pool in self._pools(self._batch * self._batch_size):
            pool.wait()
            start = pool.skip
            while start < len(pool.rows):
                stop = min(len(pool.rows), start + self._batch_size - count)
                pieces.append(self._slice(pool, start, stop))
                count, start = count + stop - start, stop
                if count == self._batch_size:
                    self._batch += 1
                    batch, pieces, count = _join(pieces), [], 0
                    yield batch
                    del batch  # its memory can be used again as soon as the caller has let go of it
        if count and not self._drop_last:
            self._batch += 1
            yield _join(pieces)
        self._epoch, self._batch = self._epoch + 1, 0

    def _slice(self, pool: _Pool, start: int, stop: int) -> Batch:
        return {
            name: pool.memory[name][start:stop] if name in pool.memory else self._resident[name][pool.rows[start:stop]]
            for name in self.columns
        }

    def _pools(self, skip: int) -> Iterator[_Pool]:
        """One shuffled pool after another while the next one is read; the epoch's first `skip` rows are left out."""
        key = [_STREAM, self._seed, self._epoch]
        order = self._order(self._shard)
        with ThreadPoolExecutor(self._threads) as threads:
            ready: _Pool | None = None
            for number, first in enumerate(range(0, len(order), self._pool_blocks)):
                blocks = [self._blocks[index] for index in order[first : first + self._pool_blocks].tolist()]
                size = sum(len(block.rows) for block in blocks)
                if skip < size:
                    rng = np.random.default_rng([*key, 1 + number])
                    places = rng.permutation(size) if self._shuffle else np.arange(size)
                    following = self._read(blocks, places, skip, threads)
                    if ready:
                        yield ready
                    ready = following
                skip = max(0, skip - size)
            if ready:
                yield ready

    def _read(self, blocks: list[_Block], places: np.ndarray, skip: int, threads: ThreadPoolExecutor) -> _Pool:
        """Starts copying the blocks' rows to their places."""
        rows = np.concatenate([block.rows for block in blocks])
        cuts = np.cumsum([len(block.rows) for block in blocks])[:-1]
        memory = {name: pool.lease(len(rows)) for name, pool in self._memory.items()}
        shuffled = np.empty_like(rows)
        shuffled[places] = rows
        tasks = [
            _Task(threads, partial(block.copy, name, target, mine, self._verify))
            for block, mine in zip(blocks, np.split(places, cuts), strict=True)
            for name, target in memory.items()
        ]
        return _Pool(shuffled, memory, tasks, skip)
