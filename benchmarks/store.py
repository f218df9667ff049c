"""How fast data sets are written, opened, checked and merged, beside the plain tools that touch the same bytes.

Prints one JSON line. Everything lies in one folder on one disk; contenders take turns, medians are compared.

- `write`: `Writer.commit` against write() and fsync of the same arrays in one file
- `open`: a data set of many small commits, page cache warm: `open` with its rows and architectures (the index), and
  then the mean return of every row
- `validate`: `validate(deep=True)` against `sha256sum` of the same files, page cache warm
- `merge`: `epvf-data merge` of two data sets in a process of its own, against `cp` of the same files with `sync`, and
  its peak memory (Linux)

    python benchmarks/store.py --rows 16384
    python benchmarks/store.py --merge-rows 37000 --only merge     # two data sets of 1 GB
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

import epvf_data
from epvf_data.policies.spec import PolicySpec
from epvf_data.store.lineage import Lineage
from epvf_data.store.schema import EnvIdentity, Rows
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer

MERGE = """
import pathlib, sys
from epvf_data.curation.merge import merge
merge(sys.argv[1:-1], sys.argv[-1])
print(next(line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line).split()[1])
"""


def make_rows(count: int, hidden: tuple[int, ...] = (64, 64), seed: int = 0) -> Rows:
    """Random rows of a policy 34-hidden-8: 6,920 parameters by default."""
    spec = PolicySpec(34, 8, hidden)
    rng = np.random.default_rng(seed)
    flags = np.zeros((count, 1), bool)
    return Rows(
        spec=spec,
        params=rng.standard_normal((count, spec.size), dtype=np.float32),
        returns=rng.standard_normal((count, 1), dtype=np.float32),
        lengths=np.full((count, 1), 1000, np.int32),
        terminated=flags,
        truncated=~flags,
        finite=~flags,
        reset_seed=rng.integers(0, 2**32, (count, 2), dtype=np.uint32),
        lineage=Lineage.build(count, source="random"),
        simulation={"backend": "none"},
    )


def environment() -> EnvIdentity:
    return EnvIdentity("bench", "0", "0" * 64, 34, 8, 1000, 0.05, 5, {})


def timed(function: Callable[[], object]) -> float:
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def raw_write(path: Path, rows: Rows) -> None:
    """The same arrays, one file, write and fsync."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for value in rows.columns().values():
        left = value.reshape(-1).view(np.uint8).data
        while left:
            left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)
    os.close(descriptor)


def measure_write(folder: Path, rows: Rows, repeats: int) -> dict:
    times: dict[str, list[float]] = {"commit": [], "raw": []}
    for _ in range(repeats + 1):  # the first is not counted: the disk wakes up
        with Writer.open(folder / "w.zarr", environment()) as writer:
            times["commit"].append(timed(lambda writer=writer: writer.commit(rows, {})))
        times["raw"].append(timed(lambda: raw_write(folder / "raw", rows)))
        shutil.rmtree(folder / "w.zarr")
        (folder / "raw").unlink()
    commit, raw = (median(times[name][1:]) for name in ("commit", "raw"))
    size = sum(value.nbytes for value in rows.columns().values())
    ratios = [round(r / c, 2) for c, r in zip(times["commit"][1:], times["raw"][1:], strict=True)]
    return {"MB_per_second": round(size / commit / 1e6), "ratio": round(raw / commit, 2), "ratios": ratios}


def measure_open(folder: Path, commits: int) -> dict:
    rows = make_rows(4, (4,))
    with Writer.open(folder / "many.zarr", environment()) as writer:
        write = timed(lambda: [writer.commit(rows, {"step": step}) for step in range(commits)])

    def index() -> epvf_data.Dataset:
        dataset = epvf_data.open(folder / "many.zarr")
        assert dataset.rows == 4 * commits == sum(item.rows for item in dataset.architectures)
        return dataset

    index()
    seconds = median(timed(index) for _ in range(5))
    returns = median(timed(lambda: index().table().mean_returns()) for _ in range(3))
    shutil.rmtree(folder / "many.zarr")
    return {
        "commits": commits,
        "index_seconds": round(seconds, 3),
        "index_and_returns_seconds": round(returns, 3),
        "milliseconds_a_commit": round(1000 * write / commits, 1),
    }


def measure_validate(folder: Path, rows: Rows, repeats: int) -> dict:
    path = folder / "v.zarr"
    with Writer.open(path, environment()) as writer:
        for _ in range(2):
            writer.commit(rows, {})
    files = [str(item) for item in path.rglob("*") if item.is_file()]
    size = sum(Path(item).stat().st_size for item in files)
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(timed(lambda: validate(path, deep=True)))
        theirs.append(timed(lambda: subprocess.run(["sha256sum", *files], stdout=subprocess.DEVNULL, check=True)))
    shutil.rmtree(path)
    ratio = median(theirs) / median(ours)
    return {"MB": round(size / 1e6), "MB_per_second": round(size / median(ours) / 1e6), "ratio": round(ratio, 2)}


def measure_merge(folder: Path, count: int, repeats: int) -> dict:
    paths = [folder / "a.zarr", folder / "b.zarr"]
    rows = make_rows(min(count, 4096))
    for number, path in enumerate(paths):
        with Writer.open(path, environment()) as writer:
            for start in range(0, count, 4096):
                piece = rows.select(slice(0, min(4096, count - start)))
                writer.commit(replace(piece, returns=piece.returns + np.float32(start + number)), {"start": start})
    size = sum(item.stat().st_size for path in paths for item in path.rglob("*") if item.is_file())
    ours, theirs, peaks = [], [], []
    for _ in range(repeats):
        for command, times in (
            ([sys.executable, "-c", MERGE, *paths, folder / "c.zarr"], ours),
            (["sh", "-c", 'cp -r "$@" && sync -f "$3"', "sh", *paths, folder / "copy"], theirs),
        ):
            (folder / "copy").mkdir()
            begun = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            times.append(time.perf_counter() - begun)
            peaks += [int(done.stdout) // 1024] if done.stdout else []
            shutil.rmtree(folder / "copy")
        shutil.rmtree(folder / "c.zarr")
    ratio = median(theirs) / median(ours)
    return {
        "MB": round(size / 1e6),
        "MB_per_second": round(size / median(ours) / 1e6),
        "ratio": round(ratio, 2),
        "ratios": [round(t / o, 2) for o, t in zip(ours, theirs, strict=True)],
        "peak_MiB": max(peaks),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16_384, help="of the commit that is written and validated")
    parser.add_argument("--commits", type=int, default=1_000)
    parser.add_argument("--merge-rows", type=int, default=37_000, help="of each of the two data sets; 37,000 are 1 GB")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where to put the files; default: a temporary folder")
    parser.add_argument("--only", choices=["write", "open", "validate", "merge"], nargs="*", default=None)
    options = parser.parse_args()
    report: dict = {"benchmark": "store", "params": make_rows(1).spec.size}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for job in options.only or ["write", "open", "validate", "merge"]:
            rows = make_rows(options.rows) if job in ("write", "validate") else None
            if job == "open":
                report[job] = measure_open(folder, options.commits)
            elif job == "merge":
                report[job] = measure_merge(folder, options.merge_rows, min(3, options.repeats))
            elif rows is not None:
                report[job] = {"write": measure_write, "validate": measure_validate}[job](folder, rows, options.repeats)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
