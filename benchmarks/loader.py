"""How fast rows come back from disk, and how fast they get there, beside other ways to the same bytes.

Prints one JSON line. Reading: one epoch over rows × params float32 that lie in the page cache, in blocks of 64 rows in
one shuffled order. Every contender is run once per repeat, in turn, and the medians of rows a second are compared;
processor seconds, summed over all threads, say how much of a difference is only other load on the machine.

- `loader`: epvf_data.Loader, batches of 256 rows drawn at random from pools of 64 blocks, all checksums verified
- `loader_unverified`: the same without checksums
- `memmap_batches`: the very same batches, row by row from a numpy.memmap by fancy indexing, no checksums
- `memmap_blocks`: only copies each 64-row block of a numpy.memmap into one small buffer, no batches, no checksums
- `h5py_blocks`, `tensorstore_blocks`, `zarr_blocks`: reads each 64-row block; the last two read our own files and
  verify checksums, HDF5 reads a contiguous data set without any

Writing: `Writer.commit` against write() and fsync of the same bytes, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import epvf_data
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.lineage import Lineage
from epvf_data.store.loader import Loader
from epvf_data.store.schema import EnvIdentity, Rows
from epvf_data.store.table import Table
from epvf_data.store.writer import Writer

BLOCK, POOL, BATCH = 64, 64, 256


def make_rows(count: int, hidden: int) -> Rows:
    """Random rows of a policy 34-hidden-64-8 (6,920 parameters and 64 for `hidden` = 64)."""
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


def environment(rows: Rows) -> EnvIdentity:
    spec = rows.spec
    return EnvIdentity("bench", "0", "0" * 64, spec.observation_size, spec.action_size, 1000, 0.05, 5, {})


def raw_write(path: Path, rows: Rows) -> None:
    """The same arrays, one file, write and fsync."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for value in rows.columns().values():
        left = value.reshape(-1).view(np.uint8).data
        while left:
            left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)
    os.close(descriptor)


def contenders(table: Table, params: np.memmap, hdf5: Path | None) -> dict[str, Callable[[], int]]:
    """Name → one epoch; each returns the number of rows that it read."""
    count, size = params.shape
    loader = Loader(table, batch_size=BATCH, pool_blocks=POOL, seed=1)
    unverified = Loader(table, batch_size=BATCH, pool_blocks=POOL, seed=1, verify=False)
    order = np.random.default_rng(1).permutation(count // BLOCK).tolist()
    buffer = np.empty((BLOCK, size), np.float32)

    def batches(source: Loader) -> Callable[[], int]:
        return lambda: sum(len(batch["params"]) for batch in source)

    def memmap_batches() -> int:
        rng = np.random.default_rng(1)
        total = 0
        for first in range(0, len(order), POOL):
            starts = np.array(order[first : first + POOL])[:, None] * BLOCK
            rows = rng.permutation((starts + np.arange(BLOCK)).reshape(-1))
            for start in range(0, len(rows), BATCH):
                total += len(params[rows[start : start + BATCH]])
        return total

    def memmap_blocks() -> int:
        for block in order:
            np.copyto(buffer, params[block * BLOCK : (block + 1) * BLOCK])
        return len(order) * BLOCK

    def blocks(read: Callable[[slice], Any]) -> Callable[[], int]:
        return lambda: sum(len(read(slice(block * BLOCK, (block + 1) * BLOCK))) for block in order)

    found: dict[str, Callable[[], int]] = {
        "loader": batches(loader),
        "loader_unverified": batches(unverified),
        "table_blocks": blocks(lambda part: table.read("params", part.start, part.stop)),
        "memmap_batches": memmap_batches,
        "memmap_blocks": memmap_blocks,
    }
    if hdf5 is not None:
        import h5py

        data: Any = h5py.File(hdf5, "r")["params"]
        found["h5py_blocks"] = blocks(lambda part: data[part])
    part = table.parts[0].group.path
    try:
        import tensorstore

        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(part / "params")}}
        opened = tensorstore.open(spec).result()
        found["tensorstore_blocks"] = blocks(lambda part: opened[part].read().result())
    except ImportError:
        print("tensorstore is not installed; left out", file=sys.stderr)
    import zarr

    array: Any = zarr.open_group(part, mode="r")["params"]
    found["zarr_blocks"] = blocks(lambda part: array[part])
    return found


def write_hdf5(path: Path, params: np.ndarray) -> Path | None:
    try:
        import h5py
    except ImportError:
        print("h5py is not installed; left out", file=sys.stderr)
        return None
    with h5py.File(path, "w") as file:
        file["params"] = params
    return path


def measure_writes(folder: Path, rows: Rows, repeats: int) -> dict[str, float]:
    """Median seconds of one commit and of raw write + fsync, and their ratio; commits go to one data set."""
    times: dict[str, list[float]] = {"commit": [], "raw": []}
    with Writer.open(folder / "writes.zarr", environment(rows)) as writer:
        for repeat in range(repeats):
            start = time.perf_counter()
            writer.commit(rows, {})
            times["commit"].append(time.perf_counter() - start)
            start = time.perf_counter()
            raw_write(folder / f"raw{repeat}", rows)
            times["raw"].append(time.perf_counter() - start)
            (folder / f"raw{repeat}").unlink()
    commit, raw = statistics.median(times["commit"]), statistics.median(times["raw"])
    return {"commit_seconds": round(commit, 3), "raw_seconds": round(raw, 3), "write_ratio": round(raw / commit, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16_384, help="a multiple of 64")
    parser.add_argument("--hidden", type=int, default=64, help="first hidden width; 64 gives 6,920 parameters")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write-rows", type=int, default=4_096)
    parser.add_argument("--folder", type=Path, default=None, help="where to put the files; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        rows = make_rows(options.rows, options.hidden)
        with Writer.open(folder / "set.zarr", environment(rows)) as writer:
            writer.commit(rows, {})
        rows.params.tofile(folder / "params.raw")
        hdf5 = write_hdf5(folder / "params.h5", rows.params)
        params = np.memmap(folder / "params.raw", np.float32, "r", shape=rows.params.shape)
        writes = measure_writes(folder, rows.select(slice(0, options.write_rows)), options.repeats)
        table = epvf_data.open(folder / "set.zarr").table()
        runs = contenders(table, params, hdf5)
        speeds: dict[str, list[float]] = {key: [] for key in runs}
        work: dict[str, list[float]] = {key: [] for key in runs}
        for _ in range(options.repeats):
            for key, run in runs.items():
                start, processor = time.perf_counter(), time.process_time()
                count = run()
                speeds[key].append(count / (time.perf_counter() - start))
                work[key].append(time.process_time() - processor)
        median = {key: statistics.median(values) for key, values in speeds.items()}
        result = {
            "benchmark": "loader",
            "rows": options.rows,
            "params": rows.spec.size,
            "rows_per_second": {key: round(value) for key, value in median.items()},
            "loader_over": {
                key: round(median["loader"] / value, 3) for key, value in median.items() if key != "loader"
            },
            "processor_seconds": {key: round(statistics.median(values), 3) for key, values in work.items()},
            **writes,
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
