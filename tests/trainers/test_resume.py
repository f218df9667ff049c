"""A run killed by SIGKILL in the middle of either split goes on to the very result of an uninterrupted one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from epvf_data.errors import RunError
from epvf_data.trainers import checkpoint
from epvf_data.trainers.offline.run import evaluate_run, train_offline
from epvf_data.trainers.offline.settings import OfflineConfig
from epvf_data.trainers.rundir import rewind_metrics

CHILD = """
import sys
from epvf_data.trainers.offline.run import train_offline
from epvf_data.trainers.offline.settings import OfflineConfig
config = OfflineConfig(critic="mlp", folds=2, epochs=6, patience=6, widths=(32,), batch_size=32, seeds=2,
                       resamples=20, checkpoint_seconds=0, device_bytes=int(sys.argv[4]))
train_offline(sys.argv[1], config, sys.argv[2], resume=sys.argv[3] == "resume",
              progress=lambda now: print(now["split"], now["epoch"], flush=True))
"""


def config(device_bytes):
    return OfflineConfig(
        critic="mlp",
        folds=2,
        epochs=6,
        patience=6,
        widths=(32,),
        batch_size=32,
        seeds=2,
        resamples=20,
        checkpoint_seconds=0,
        device_bytes=device_bytes,
    )


def kill_when(line, dataset, run, how, device_bytes):
    """Runs the training in another process and kills it as soon as it has printed `line`."""
    command = [sys.executable, "-c", CHILD, str(dataset), str(run), how, str(device_bytes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for printed in child.stdout:
            if printed.strip() == line:
                os.kill(child.pid, signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL


def without_clock(value):
    if isinstance(value, dict):
        return {
            key: without_clock(item) for key, item in value.items() if key not in ("seconds", "seconds_fitting", "run")
        }
    return value


@pytest.mark.parametrize(
    "device_bytes",
    [pytest.param(1 << 30, id="resident"), pytest.param(0, id="streamed", marks=pytest.mark.soak)],
)
def test_killed_twice_and_resumed_equals_uninterrupted(dataset, tmp_path, device_bytes):
    run, whole = tmp_path / "killed", tmp_path / "whole"
    kill_when("iid 4", dataset, run, "new", device_bytes)
    partial = evaluate_run(run)
    assert partial.splits["iid"]["finished"] is False
    assert partial.splits["lineage"] == {"available": False, "reason": "It is not trained yet; resume the run."}
    kill_when("lineage-2 3", dataset, run, "resume", device_bytes)
    partial = evaluate_run(run).splits["lineage"]
    assert (partial["available"], partial["finished"]) == (True, False)
    seen = []
    resumed = train_offline(dataset, config(device_bytes), run, resume=True, progress=seen.append)
    assert seen[0]["split"] == "lineage-2"
    assert 2 <= seen[0]["epoch"] <= 6
    reference = train_offline(dataset, config(device_bytes), whole)
    assert without_clock(resumed.to_dict()) == without_clock(reference.to_dict())
    assert (run / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    for split in ("iid", "lineage", "lineage-2"):
        for what in ("ground", "final"):
            ours, theirs = (checkpoint.restore(path / "checkpoints" / split / what) for path in (run, whole))
            del ours["seconds"], theirs["seconds"]
            jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_metrics_are_rewound_to_the_checkpoint_and_torn_lines_dropped(tmp_path):
    lines = [{"split": "iid", "epoch": epoch} for epoch in (1, 2, 3)] + [{"split": "lineage", "epoch": 1}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"split": "lineage", "ep')
    rewind_metrics(tmp_path, lambda line: line["split"] != "iid" or line["epoch"] <= 2)
    kept = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert kept == [lines[0], lines[1], lines[3]]


def test_a_run_without_any_checkpoint_cannot_be_evaluated(dataset, tmp_path):
    run = tmp_path / "run"
    small = OfflineConfig(split="iid", critic="ridge", resamples=20)
    train_offline(dataset, small, run)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RunError, match="no checkpoint yet"):
        evaluate_run(run)
    report = train_offline(dataset, small, run, resume=True)
    assert report.splits["iid"]["finished"]
