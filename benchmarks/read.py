"""How fast rows come back from disk, beside other formats and other readers of the same rows.

Prints one JSON line, and a table in Markdown on stderr. The rows (float32 [rows, params]) lie in the page cache. Two
jobs, each a way to see every row once in batches of 256:

- `random`: rows drawn uniformly, after opening the file anew, so ours verifies every chunk once. Who is too slow for a
  whole epoch does as many batches as fit into the time limit.
- `epoch`: rows mixed in pools of 64 blocks of 64 rows, blocks in random order, one epoch after another. Ours is
  `epvf_data.Loader`, which verifies every chunk again in each epoch; the memmap takes the very same kind of batch row
  by row; the others read block by block into a pool, from which NumPy takes the batches.

Everyone is run once a repeat, in turn, each in the fastest of the ways that it offers; the medians of rows a second are
compared. Rows per processor second, over all threads, say how much of a difference is other load on the machine.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
import tensorstore
import zarr

import epvf_data
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.lineage import Lineage
from epvf_data.store.schema import EnvIdentity, Rows
from epvf_data.store.table import Table
from epvf_data.store.writer import Writer

BLOCK, POOL, BATCH = 64, 64, 256
Batches = Iterator[np.ndarray]  # each [batch, params]
Speeds = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Contender:
    """How to open a file, take any rows of it and read some blocks. `crash_safe` and `checksum` are of its format."""

    label: str
    open: Callable[[], Any]
    take: Callable[[Any, np.ndarray], np.ndarray]
    read: Callable[[Any, list[slice]], Iterator[np.ndarray]]
    crash_safe: bool
    checksum: str


def make_rows(count: int, hidden: int) -> Rows:
    """Random rows of a policy 34-hidden-64-8 (6,920 parameters for `hidden` = 64)."""
    spec = PolicySpec(34, 8, (hidden, 64))
    rng = np.random.default_rng(0)
    flags = np.zeros((count, 1), bool)
    return Rows(
        spec=spec,
        params=rng.standard_normal((count, spec.size), dtype=np.float32),
        returns=rng.standard_normal((count, 1), dtype=np.float32),
        lengths=np.ones((count, 1), np.int32),
        terminated=flags,
        truncated=~flags,
        finite=~flags,
        reset_seed=np.zeros((count, 2), np.uint32),
        lineage=Lineage.build(count, source="random"),
        simulation={"backend": "none"},
    )


def write(folder: Path, rows: Rows) -> Path:
    """The rows in every format. Returns the folder of our array."""
    env = EnvIdentity("bench", "0", "0" * 64, rows.spec.observation_size, rows.spec.action_size, 1000, 0.05, 5, {})
    with Writer.open(folder / "set.zarr", env) as writer:
        record = writer.commit(rows, {})
    rows.params.tofile(folder / "params.raw")
    with h5py.File(folder / "contiguous.h5", "w") as file:
        file["params"] = rows.params
    with h5py.File(folder / "chunked.h5", "w") as file:
        chunks = (BLOCK, rows.spec.size)
        file.create_dataset("params", data=rows.params, chunks=chunks, fletcher32=True)
    zarr.create_array(folder / "default.zarr", data=rows.params, chunks=(BLOCK, rows.spec.size))
    if len(record.add) != 1:
        raise SystemExit("one part is needed, so that others can read it as one array; choose fewer --rows.")
    return folder / "set.zarr" / "parts" / record.add[0].id / "params"


def contenders(folder: Path, shard: Path, shape: tuple[int, int]) -> dict[str, Contender]:
    def hdf5(name: str) -> Callable[[], Any]:
        return lambda: h5py.File(folder / name, "r")["params"]

    def take_hdf5(data: Any, rows: np.ndarray) -> np.ndarray:
        order = np.argsort(rows)  # h5py wants them so
        target = np.empty((len(rows), shape[1]), np.float32)
        target[order] = data[rows[order]]
        return target

    def take_zarr(data: Any, rows: np.ndarray) -> np.ndarray:
        return np.stack([data[row] for row in rows.tolist()])  # faster than all in one call

    def take_tensorstore(data: Any, rows: np.ndarray) -> np.ndarray:
        return np.stack([future.result() for future in [data[row].read() for row in rows.tolist()]])

    def read(data: Any, blocks: list[slice]) -> Iterator[np.ndarray]:
        return (data[block] for block in blocks)

    def read_tensorstore(data: Any, blocks: list[slice]) -> Iterator[np.ndarray]:
        return (future.result() for future in [data[block].read() for block in blocks])

    def with_zarrs() -> Any:
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True}):
            return zarr.open_array(shard, mode="r")

    def with_tensorstore() -> Any:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(shard)}}
        return tensorstore.open(spec).result()

    found = {
        "ours": Contender(
            "epvf-data",
            lambda: epvf_data.open(folder / "set.zarr").table(),
            lambda table, rows: table.take("params", rows),
            lambda table, blocks: (table.read("params", block.start, block.stop) for block in blocks),
            True,
            "CRC-32C",
        ),
        "memmap": Contender(
            "numpy.memmap",
            lambda: np.memmap(folder / "params.raw", np.float32, "r", shape=shape),
            lambda data, rows: data[rows],
            read,
            False,
            "none",
        ),
        "h5py": Contender("h5py, contiguous", hdf5("contiguous.h5"), take_hdf5, read, False, "none"),
        "h5py_chunked": Contender("h5py, chunks of 64 rows", hdf5("chunked.h5"), take_hdf5, read, False, "Fletcher-32"),
        "zarr_default": Contender(
            "zarr, its default codecs",
            lambda: zarr.open_array(folder / "default.zarr", mode="r"),
            take_zarr,
            read,
            False,
            "none",
        ),
        "zarr": Contender(
            "zarr on our files", lambda: zarr.open_array(shard, mode="r"), take_zarr, read, True, "CRC-32C"
        ),
        "tensorstore": Contender(
            "TensorStore on our files",
            with_tensorstore,
            take_tensorstore,
            read_tensorstore,
            True,
            "CRC-32C",
        ),
    }
    if importlib.util.find_spec("zarrs"):
        found["zarrs"] = Contender(
            "zarr with zarrs on our files", with_zarrs, take_zarr, read, True, "CRC-32C, but not in partial reads"
        )
    else:
        print("zarrs is not installed; left out", file=sys.stderr)
    return found


def random_batches(one: Contender, count: int, seed: int) -> Batches:
    data = one.open()
    order = np.random.default_rng(seed).permutation(count)
    for start in range(0, count, BATCH):
        yield one.take(data, order[start : start + BATCH])


def mixed_batches(one: Contender, shape: tuple[int, int]) -> Callable[[int], Batches]:
    """Seed → an epoch of batches from a pool that is filled block by block."""
    data, memory = one.open(), np.empty((POOL * BLOCK, shape[1]), np.float32)

    def epoch(seed: int) -> Batches:
        for rng, starts in pools(shape[0], seed):
            blocks = [slice(start, start + BLOCK) for start in starts.tolist()]
            for place, values in enumerate(one.read(data, blocks)):
                memory[place * BLOCK : (place + 1) * BLOCK] = values
            rows = rng.permutation(len(blocks) * BLOCK)
            for start in range(0, len(rows), BATCH):
                yield memory[rows[start : start + BATCH]]

    return epoch


def gathered_batches(one: Contender, shape: tuple[int, int]) -> Callable[[int], Batches]:
    """The same, but row by row out of the file."""
    data = one.open()

    def epoch(seed: int) -> Batches:
        for rng, starts in pools(shape[0], seed):
            rows = rng.permutation((starts[:, None] + np.arange(BLOCK)).reshape(-1))
            for start in range(0, len(rows), BATCH):
                yield one.take(data, rows[start : start + BATCH])

    return epoch


def pools(count: int, seed: int) -> Iterator[tuple[np.random.Generator, np.ndarray]]:
    """The first rows of the blocks of one pool after another."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(count // BLOCK) * BLOCK
    yield from ((rng, order[first : first + POOL]) for first in range(0, len(order), POOL))


def loader_batches(one: Contender, verify: bool) -> Callable[[int], Batches]:
    table: Table = one.open()
    loader = epvf_data.Loader(
        table, columns=("params",), batch_size=BATCH, block_rows=BLOCK, pool_blocks=POOL, verify=verify
    )

    def epoch(seed: int) -> Batches:
        loader.restore({**loader.state(), "epoch": seed, "batch": 0})
        return (batch["params"] for batch in loader)

    return epoch


def speed(batches: Batches, limit: float) -> tuple[float, float]:
    """Rows a second and rows a processor second."""
    start, processor = time.perf_counter(), time.process_time()
    rows = 0
    for batch in batches:
        rows += len(batch)
        if time.perf_counter() - start > limit:
            break
    return rows / (time.perf_counter() - start), rows / (time.process_time() - processor)


def measure(found: dict[str, Contender], shape: tuple[int, int], repeats: int, limit: float) -> dict[str, Speeds]:
    """Job → contender → medians of rows a second and of rows a processor second."""
    epochs = {
        name: (gathered_batches if name == "memmap" else mixed_batches)(one, shape)
        for name, one in found.items()
        if name != "ours"
    }
    epochs["ours"] = loader_batches(found["ours"], True)
    epochs["ours_unverified"] = loader_batches(found["ours"], False)
    speeds: dict[str, dict[str, list[tuple[float, float]]]] = {"random": {}, "epoch": {}}
    for repeat in range(repeats + 1):  # the first turn, which is left out, fills the page cache
        for name, one in found.items():
            speeds["random"].setdefault(name, []).append(speed(random_batches(one, shape[0], repeat), limit))
        for name, epoch in epochs.items():
            speeds["epoch"].setdefault(name, []).append(speed(epoch(repeat), limit))
    return {job: {name: _medians(runs[1:]) for name, runs in of.items()} for job, of in speeds.items()}


def _medians(runs: list[tuple[float, float]]) -> tuple[float, float]:
    return median(wall for wall, _ in runs), median(processor for _, processor in runs)


def to_table(found: dict[str, Contender], speeds: dict[str, Speeds]) -> str:
    lines = [
        "| rows/s (× memmap) | 256 random rows | epoch in mixed blocks | crash-safe | checksums |",
        "|---|---:|---:|---|---|",
    ]
    for name, one in sorted(found.items(), key=lambda item: -speeds["epoch"][item[0]][0]):
        of = {job: values[name][0] for job, values in speeds.items()}
        cells = [f"{of[job]:,.0f} ({of[job] / speeds[job]['memmap'][0]:.3f})" for job in ("random", "epoch")]
        lines.append(f"| {one.label} | {' | '.join(cells)} | {'yes' if one.crash_safe else 'no'} | {one.checksum} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16_384, help="a multiple of 64; at most 19,392 of 6,920 parameters")
    parser.add_argument("--hidden", type=int, default=64, help="first hidden width; 64 gives 6,920 parameters")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=float, default=0.7, help="seconds after which a run may stop")
    parser.add_argument("--folder", type=Path, default=None, help="where to put the files; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        rows = make_rows(options.rows, options.hidden)
        shape = (options.rows, rows.spec.size)
        found = contenders(folder, write(folder, rows), shape)
        del rows
        speeds = measure(found, shape, options.repeats, options.limit)
    print(to_table(found, speeds), file=sys.stderr)
    result = {
        "benchmark": "read",
        "rows": shape[0],
        "params": shape[1],
        "cores": os.cpu_count(),
        "rows_per_second": {job: {name: round(wall) for name, (wall, _) in of.items()} for job, of in speeds.items()},
        "over_memmap": {
            job: {name: round(wall / of["memmap"][0], 4) for name, (wall, _) in of.items()}
            for job, of in speeds.items()
        },
        "rows_per_processor_second": {
            job: {name: round(cpu) for name, (_, cpu) in of.items()} for job, of in speeds.items()
        },
        "versions": {name: importlib.metadata.version(name) for name in ("numpy", "zarr", "h5py", "tensorstore")},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
