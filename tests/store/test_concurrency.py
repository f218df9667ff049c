"""Many processes at one data set: writers, one that compacts, one that collects garbage, and a reader."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import epvf_data
from epvf_data.errors import CorruptDatasetError, EnvironmentMismatchError
from epvf_data.store.garbage import collect_garbage
from epvf_data.store.schema import EnvIdentity
from epvf_data.store.validate import leftovers, validate
from epvf_data.store.writer import Writer

PREPARE = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import scenarios
from epvf_data.errors import StorageError
path, number = Path(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()  # all begin at once
"""
WRITER = """
with scenarios.Writer.open(path, scenarios.ENV) as writer:
    for step in range(100 * number, 100 * number + 4):
        while step == 100 * number + 3 and not path.with_name("looked").exists():
            time.sleep(0.01)  # the last commit comes after the reader's first looks, however slow these are
        writer.commit(scenarios.rows(3, step, probes=2), {"step": step})
        print(step, flush=True)
"""
UPKEEP = {
    "compact": "done = scenarios.compact(path).rows_rewritten",
    "collect": "done = scenarios.collect_garbage(path, grace=0).parts",
}
LOOP = """
stop, busy, total = path.with_name("stop"), 0, 0
while not stop.exists():
    try:
        {act}
        total += done
    except StorageError as error:
        assert "a writer is at work" in str(error), error
        busy += 1
    time.sleep(0.01)
print(total, busy)
"""


def start(code, path, number=0):
    command = [sys.executable, "-W", "error", "-c", PREPARE + code, str(Path(__file__).parent), str(path), str(number)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def look(path, make_rows, before):
    """One look of the reader: the rows are those of whole commits, in their order, and those seen before come first."""
    dataset = epvf_data.open(path)
    steps = [record.provenance["step"] for record in dataset.commits if "step" in record.provenance]
    assert steps[: len(before)] == before
    if not steps:
        return steps
    try:
        columns = dataset.table().to_numpy()
    except CorruptDatasetError as error:  # collected since it was opened, without any grace: said, and never filled in
        if "missing" not in str(error):
            raise
        return steps
    assert {len(values) for values in columns.values()} == {3 * len(steps)}
    assert columns["params"].tobytes() == b"".join(make_rows(3, step, probes=2).params.tobytes() for step in steps)
    return steps


def test_eight_writers_and_upkeep_lose_nothing(quick_path, make_rows, env):
    path = quick_path / "data.zarr"
    Writer.open(path, env)
    writers = [start(WRITER, path, number) for number in range(8)]
    upkeep = [start(LOOP.format(act=act), path) for act in UPKEEP.values()]
    for process in (*writers, *upkeep):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
    for process in (*writers, *upkeep):
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    seen, looks = [], 0
    while any(writer.poll() is None for writer in writers):
        seen, looks = look(path, make_rows, seen), looks + 1
        if looks > 3:
            (quick_path / "looked").touch()
    (quick_path / "stop").touch()
    results = [process.communicate(timeout=120) for process in (*writers, *upkeep)]
    assert [process.returncode for process in (*writers, *upkeep)] == [0] * 10, "".join(err for _, err in results)
    acknowledged = [int(line) for out, _ in results[:8] for line in out.splitlines()]
    assert sorted(look(path, make_rows, seen)) == sorted(acknowledged)
    assert len(acknowledged) == 32
    assert int(results[8][0].split()[0]) > 0, "nothing was compacted meanwhile"
    assert validate(path, deep=True) == []
    collect_garbage(path, grace=0)
    assert leftovers(path) == []
    assert sorted(look(path, make_rows, seen)) == sorted(acknowledged)


def test_two_creators_agree_or_one_is_told(tmp_path, env, monkeypatch):
    """A second process publishes its root between our look and our own publication."""
    other = EnvIdentity(**{**env.to_dict(), "name": "other", "digest": "e" * 64})
    path = tmp_path / "a"
    real = os.link
    for creator, fits in ((env, True), (other, False)):
        shutil.rmtree(path, ignore_errors=True)

        def link(draft, final, *, dst_dir_fd, creator=creator, **words):
            if Path(f"/proc/self/fd/{dst_dir_fd}").readlink() / final == path / "zarr.json":
                monkeypatch.setattr("os.link", real)
                Writer.open(path, creator)
            real(draft, final, dst_dir_fd=dst_dir_fd, **words)

        monkeypatch.setattr("os.link", link)
        if fits:
            assert Writer.open(path, env).env == env
        else:
            with pytest.raises(EnvironmentMismatchError, match="other"):
                Writer.open(path, env)
        assert epvf_data.open(path).env == creator
