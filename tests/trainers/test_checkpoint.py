"""Checkpoints come back bit for bit, the newest complete one is found, and a kill during a save loses nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest

from epvf_data.errors import RunError, StorageError
from epvf_data.trainers import checkpoint

SAVER = """
import sys
from pathlib import Path
import numpy as np
from epvf_data.trainers import checkpoint
for step in range(int(sys.argv[2]), 10_000):
    checkpoint.save(Path(sys.argv[1]), step, {"step": np.array(step), "bulk": np.full((200, 1000), step, np.float32)})
    print(step, flush=True)
"""


def tree(value: float):
    params = {"w": np.full((3, 2), value, np.float32), "b": np.full(2, value, np.float64)}
    return {"moments": optax.adamw(1e-3).init(params), "params": params, "epoch": np.array(7, np.int32)}


def test_round_trip_with_and_without_a_template(tmp_path):
    checkpoint.save(tmp_path / "c", 3, tree(1.5))
    back = checkpoint.restore(tmp_path / "c", tree(0.0))
    assert jax.tree.structure(back) == jax.tree.structure(tree(0.0))
    for left, right in zip(jax.tree.leaves(back), jax.tree.leaves(tree(1.5)), strict=True):
        assert left.dtype == np.asarray(right).dtype
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(checkpoint.restore(tmp_path / "c")["params"]["w"], tree(1.5)["params"]["w"])


def test_the_newest_are_kept(tmp_path):
    assert checkpoint.latest(tmp_path / "c") is None
    for step in (1, 2, 10):
        checkpoint.save(tmp_path / "c", step, tree(step))
    assert checkpoint.steps(tmp_path / "c") == [2, 10]
    assert checkpoint.latest(tmp_path / "c") == 10
    assert checkpoint.restore(tmp_path / "c", tree(0.0), step=2)["params"]["w"][0, 0] == 2.0
    checkpoint.save(tmp_path / "c", 10, tree(11.0))  # the same number again replaces it
    assert checkpoint.restore(tmp_path / "c", tree(0.0))["params"]["w"][0, 0] == 11.0
    checkpoint.remove(tmp_path / "c")
    assert checkpoint.latest(tmp_path / "c") is None


def test_missing_damaged_and_foreign_checkpoints_are_named(tmp_path):
    with pytest.raises(RunError, match="holds no checkpoint"):
        checkpoint.restore(tmp_path / "c")
    checkpoint.save(tmp_path / "c", 1, tree(1.0))
    with pytest.raises(RunError, match="does not fit these settings: .*; it is of another critic, or"):
        checkpoint.restore(tmp_path / "c", {"other": np.zeros(3)})
    (tmp_path / "blocked").write_text("a file")
    with pytest.raises(StorageError, match="could not be written"):
        checkpoint.save(tmp_path / "blocked", 1, tree(1.0))


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.soak)])
def test_a_kill_at_any_moment_leaves_a_complete_checkpoint(tmp_path, kills):
    random, reached = np.random.default_rng(0), 0
    for _ in range(kills):
        command = [sys.executable, "-c", SAVER, str(tmp_path / "c"), str(reached)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            acknowledged = int(child.stdout.readline())
            time.sleep(random.uniform(0.0, 0.4))
            os.kill(child.pid, signal.SIGKILL)
            acknowledged = max([acknowledged, *(int(line) for line in child.stdout if line.endswith("\n"))])
        found = checkpoint.restore(tmp_path / "c")
        assert int(found["step"]) == checkpoint.latest(tmp_path / "c") >= acknowledged
        np.testing.assert_array_equal(found["bulk"], np.full((200, 1000), found["step"], np.float32))
        reached = int(found["step"]) + 1


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, tree(1.5))
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(StorageError, match=r"checkpoint 2 needs 0\.3 MB and .* has 0\.0 MB left; make room"):
        checkpoint.save(tmp_path, 2, tree(2.5))
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    monkeypatch.undo()
    checkpoint.save(tmp_path, 2, tree(2.5))
    assert checkpoint.steps(tmp_path) == [1, 2]
