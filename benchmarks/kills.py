"""SIGKILLs at random moments of `collect`, with a reader beside it: prints one JSON line, or fails at the first fault.

python benchmarks/kills.py --kills 200 --out benchmarks/results/kills.json

Each data set is collected by the real command, killed and resumed until it is complete; then the next one starts,
until there were enough kills. After every kill: the data set opens, every acknowledged commit is there, its rows are
the first rows of an uninterrupted run, and `validate(deep=True)` finds nothing. Each complete data set has the content
hash of the uninterrupted run, also after garbage collection. The reader opens and reads again and again and must never
see unequal lengths, fill values or fewer rows than before.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import epvf_data
from epvf_data import cli
from epvf_data.errors import DatasetError
from epvf_data.store.commit import CommitRecord
from epvf_data.store.digest import content_hash
from epvf_data.store.garbage import collect_garbage
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer

SETTINGS = (
    *("--env", "cartpole", "--envs", "4", "--episodes", "1", "--horizon", "30", "--quiet"),
    *("--set", "policy.hidden=[4]", "--set", "perturbed.bases=random", "--set", "perturbed.random_bases=2"),
)
TIMEOUT = 300.0


@dataclass
class Counts:
    """What happened. `in_commit` counts the kills that left an unfinished part or an unacknowledged commit."""

    kills: int = 0
    in_start_up: int = 0
    in_commit: int = 0
    between_commits: int = 0
    data_sets: int = 0
    acknowledged_commits: int = 0
    unacknowledged_commits: int = 0
    rows_checked: int = 0
    leftovers_collected: int = 0
    reads: int = 0
    rows_read: int = 0
    start_up: list[float] = field(default_factory=list)  # seconds from the start to the first acknowledged commit


@dataclass(frozen=True)
class Attempt:
    """One process: the commits that it acknowledged (number, SHA-256), and whether it was killed or ran through."""

    acknowledged: list[tuple[int, str]]
    killed: bool
    start_up: float | None  # seconds to the first acknowledged commit


def attempt(words: tuple[str, ...], delay: float | None, after_first: bool = True) -> Attempt:
    """Runs `collect` and kills it `delay` seconds after its start or after its first commit; None leaves it alone.

    The process is forked from this one, which has imported everything and computed nothing: most of the start-up is
    then paid once.
    """
    began = time.perf_counter()
    output, told = os.pipe()
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process's output
    child = os.fork()
    if child == 0:
        _collect(words, told, errors.fileno())
    os.close(told)
    with os.fdopen(output, encoding="ascii") as lines, errors:
        first = lines.readline() if after_first else ""
        start_up = time.perf_counter() - began if first else None
        status = _end(child, TIMEOUT if delay is None else delay)
        killed = os.WIFSIGNALED(status)
        if (killed and delay is None) or os.WEXITSTATUS(status):
            errors.seek(0)
            raise SystemExit(f"collect failed with status {status}: {errors.read().decode()}")
        found = [line.split() for line in [first, *lines] if line.startswith("acknowledged ")]
    return Attempt([(int(number), digest) for _, number, digest in found], killed, start_up)


def _collect(words: tuple[str, ...], output: int, errors: int) -> NoReturn:
    """The forked process: the command itself; each commit is told once the store has acknowledged it."""
    os.dup2(output, 1)
    os.dup2(errors, 2)
    commit = Writer.commit

    def acknowledged(self: Writer, *args: Any) -> CommitRecord:
        record = commit(self, *args)
        os.write(1, f"acknowledged {record.number} {record.sha256}\n".encode())
        return record

    Writer.commit = acknowledged  # pyright: ignore[reportAttributeAccessIssue]
    sys.argv = ["epvf-data", "collect", *words]
    code = 1
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _end(child: int, seconds: float) -> int:
    """Waits for a process and kills it when the time is over. Returns its status."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def moment(start_ups: list[float], rng: np.random.Generator) -> tuple[float, bool]:
    """When to kill: one time in four while the process starts, else within the next twenty commits or so."""
    if start_ups and rng.random() < 0.25:
        return rng.uniform(0, float(np.median(start_ups))), False
    return rng.uniform(0, 0.4), True


def left_behind(path: Path) -> set[str]:
    """What killed writers left: the names under `staging`, and the parts that no record names."""
    if not (path / "zarr.json").exists():
        return set()
    live = {part.id for record in epvf_data.open(path).commits for part in record.add}
    found = {item.name for folder in ("staging", "parts") for item in (path / folder).iterdir()}
    return found - live - {"zarr.json"}


def check(path: Path, params: np.ndarray, acknowledged: dict[int, str]) -> tuple[int, int]:
    """The checks after a kill. Returns the commits and rows that are there: the first rows of an uninterrupted run."""
    if not acknowledged and not (path / "zarr.json").exists():
        return 0, 0
    dataset = epvf_data.open(path)
    for number, digest in acknowledged.items():
        there = number < len(dataset.commits) and dataset.commits[number].sha256 == digest
        assert there, f"commit {number} was acknowledged and is not there"
    problems = validate(path, deep=True)
    assert not problems, problems
    if dataset.rows:
        found = dataset.table().column("params")
        assert found.tobytes() == params[: len(found)].tobytes(), "the rows are not those of an uninterrupted run"
    return len(dataset.commits), dataset.rows


def one_data_set(
    path: Path, words: tuple[str, ...], params: np.ndarray, counts: Counts, limit: int, rng: np.random.Generator
) -> None:
    """Collects one data set through kills until it is complete; after `limit` kills in all it is left in peace."""
    acknowledged: dict[int, str] = {}
    commits = rows = 0
    killed = True
    while killed:
        before = left_behind(path)
        resume = ("--resume",) if (path / "zarr.json").exists() else ()
        when = moment(counts.start_up, rng) if counts.kills < limit else (None, True)
        result = attempt((*words, "--out", str(path), *resume), *when)
        acknowledged |= dict(result.acknowledged)
        killed = result.killed
        previous, (commits, now) = commits, check(path, params, acknowledged)
        assert now >= rows, f"{rows} rows were there and {now} are left"
        rows = now
        counts.rows_checked += rows
        counts.acknowledged_commits += len(result.acknowledged)
        unacknowledged = commits - previous - len(result.acknowledged)
        counts.unacknowledged_commits += unacknowledged
        counts.start_up += [result.start_up] if result.start_up else []
        counts.kills += killed
        if killed and (unacknowledged or left_behind(path) - before):
            counts.in_commit += 1
        elif killed:
            counts.between_commits += bool(result.acknowledged)
            counts.in_start_up += not result.acknowledged


def look(path: Path, previous: np.ndarray) -> np.ndarray:
    """One look of the reader: opens, reads every column, compares with what it saw before. Returns `params`."""
    columns = epvf_data.open(path).table().to_numpy()
    assert len({len(values) for values in columns.values()}) == 1, "columns of unequal lengths"
    floats = [name for name, values in columns.items() if values.dtype.kind == "f"]
    assert all(np.isfinite(columns[name]).all() for name in floats), "a fill value was read"
    assert (columns["lengths"] > 0).all(), "a fill value was read"
    assert (columns["terminated"] | columns["truncated"]).all(), "a fill value was read"
    params = columns["params"]
    assert params[: len(previous)].tobytes() == previous.tobytes(), "rows that were there before are gone"
    return params


def read_on(path: Path) -> None:
    """The reader process: looks again and again until its stdin ends, then prints how often it did."""
    params = np.zeros((0, 0), np.float32)
    reads = rows = 0
    while not select.select([0], [], [], 0)[0]:
        try:
            params = look(path, params)
        except DatasetError:
            if len(params):  # before the first commit there is nothing to read
                raise
            time.sleep(0.01)
            continue
        reads, rows = reads + 1, rows + len(params)
        time.sleep(0.1)  # leaves the processor to the writer, which is to be killed in a commit
    print(json.dumps([reads, rows]))


def run(kills: int, folder: Path, policies: int = 240, seed: int = 0) -> dict[str, object]:
    """Kills `collect` that many times in `folder`. Returns the counts; raises AssertionError at the first fault."""
    rng = np.random.default_rng(seed)
    words = (*SETTINGS, "--policies", str(policies))
    counts = Counts()
    whole = folder / "whole.zarr"
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    for path in (whole, folder / "again.zarr"):  # the second finds the first one's compiled functions
        result = attempt((*words, "--out", str(path)), None)
    counts.start_up.append(result.start_up or 0.0)
    expected, params = content_hash(epvf_data.open(whole)), epvf_data.open(whole).table().column("params")
    while counts.kills < kills:
        path = folder / f"{counts.data_sets}.zarr"
        command = [sys.executable, __file__, "--reader", str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
            one_data_set(path, words, params, counts, kills, rng)
            out, error = reader.communicate()
        assert reader.returncode == 0, f"the reader saw a fault: {error.decode()}"
        reads, rows = json.loads(out)
        counts.reads, counts.rows_read = counts.reads + reads, counts.rows_read + rows
        assert content_hash(epvf_data.open(path)) == expected, "killed and resumed differs from uninterrupted"
        counts.leftovers_collected += len(left_behind(path))
        collect_garbage(path, grace=0)
        assert not left_behind(path), "garbage collection left something"
        assert validate(path, deep=True) == []
        assert content_hash(epvf_data.open(path)) == expected, "garbage collection took a row"
        shutil.rmtree(path)
        counts.data_sets += 1
        print(f"{counts.kills} kills, {counts.in_commit} in a commit", file=sys.stderr)
    start_up = round(float(np.median(counts.start_up)), 2)
    return {"benchmark": "kills", "policies": policies, **asdict(counts), "start_up": start_up}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--policies", type=int, default=240, help="of each data set; four a commit")
    parser.add_argument("--out", type=Path, help="also write the JSON line to this file")
    parser.add_argument("--reader", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.reader:
        read_on(args.reader)
        return
    import epvf_data.collectors.collect
    import epvf_data.physics.mjx  # noqa: F401 - warms what is forked

    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # JAX's threads start with its first computation
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        line = json.dumps(run(args.kills, Path(folder), args.policies))
    print(line)
    if args.out:
        args.out.write_text(line + "\n")


if __name__ == "__main__":
    main()
