"""Whole runs: what they leave behind, and that a killed one goes on to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

import epvf_data
from epvf_data.config import to_dict
from epvf_data.errors import RunError
from epvf_data.store.digest import content_hash
from epvf_data.trainers import checkpoint
from epvf_data.trainers.online import train_online

CHILD = """
import json, sys
from epvf_data.trainers.online import online_config, train_online
preset, changes, run, record = json.loads(sys.argv[1])
train_online(online_config(preset, **changes), run, resume=False, record=record,
             progress=lambda event: print(event["iteration"], flush=True))
"""


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_clock(found):
    return [{key: value for key, value in line.items() if "seconds" not in key} for line in found]


def kill_at(iteration, preset, changes, run, record):
    """Trains in another process and kills it as soon as it tells of this iteration."""
    command = [sys.executable, "-c", CHILD, json.dumps([preset, changes, str(run), record and str(record)])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= iteration:
                os.kill(child.pid, signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("task", "changes"),
    [("cartpole", {"seeds": 2}), ("ant", {"seeds": 2}), ("ant", {"critic.name": "mlp", "replay.capacity": 64})],
)
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, request, task, changes):
    config = request.getfixturevalue(task)(**changes)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    report = train_online(config, whole, record=tmp_path / "whole.zarr")
    preset = {"cartpole": "cartpole-paper", "ant": "ant-cpu"}[task]
    kill_at(4, preset, to_dict(config), killed, tmp_path / "killed.zarr")
    assert not (killed / "report.json").exists()
    with pytest.raises(RunError, match="resume"):
        train_online(config, killed)
    again = train_online(config, killed, resume=True, record=tmp_path / "killed.zarr")
    assert (again.return_perturbed, again.return_best) == (report.return_perturbed, report.return_best)
    assert without_clock(lines(killed)) == without_clock(lines(whole))
    first, second = (checkpoint.restore(run / "checkpoints") for run in (whole, killed))
    first.pop("seconds"), second.pop("seconds")
    assert jax.tree.all(jax.tree.map(np.array_equal, first, second))
    mine, others = epvf_data.open(tmp_path / "whole.zarr"), epvf_data.open(tmp_path / "killed.zarr")
    assert mine.rows == others.rows == config.iterations * config.envs * config.seeds
    assert content_hash(mine) == content_hash(others) or (task == "cartpole" and _same_rows(mine, others))


def _same_rows(mine, others):
    return all(
        np.array_equal(mine.table().take(name, np.arange(mine.rows)), others.table().take(name, np.arange(mine.rows)))
        for name in ("params", "returns", "iteration")
    )
