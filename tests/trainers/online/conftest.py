"""Small runs that learn something in a second or two."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from epvf_data.trainers.online import run
from epvf_data.trainers.online.settings import online_config

TINY = {
    "envs": 8,
    "iterations": 6,
    "log_every": 2,
    "horizon": 30,
    "checkpoint_seconds": 0.0,
    "policy.hidden": [8],
    "critic.widths": [16],
    "critic.steps": 2,
    "improvement.steps": 2,
    "replay.capacity": 32,
    "replay.batch_size": 8,
}
ANT = {**TINY, "envs": 16, "log_every": 1, "horizon": 12, "replay.capacity": None, "replay.batch_size": None}


@pytest.fixture
def cartpole():
    """CartPole settings with some changed."""
    return lambda **changes: online_config("cartpole-paper", **{**TINY, **changes})


@pytest.fixture
def ant():
    """Ant settings, ours, with some changed."""
    return lambda preset="ant-cpu", **changes: online_config(preset, **{**ANT, "critic.probes": 8, **changes})


@pytest.fixture(autouse=True, scope="module")
def kept_loops():
    """Runs of equal settings share what they compile: a loop is pure functions, whose making takes longest."""

    def keeping(make):
        kept = {}

        def keep(config, env, spec, backend):
            key = config, env.digest, spec, backend
            if key not in kept:
                kept[key] = make(config, env, spec, backend)
            return kept[key]

        return keep

    with pytest.MonkeyPatch.context() as patch:
        for name in ("make_loop", "make_step_loop"):
            patch.setattr(run, name, keeping(getattr(run, name)))
        yield


CHILD = """
import json, sys
from epvf_data.trainers.online.run import train_online
from epvf_data.trainers.online.settings import online_config
preset, changes, run, record = json.loads(sys.argv[1])
train_online(online_config(preset, **changes), run, resume=False, record=record,
             progress=lambda event: print(event["iteration"], flush=True))
"""


def _kill_at(iteration, preset, changes, run, record):
    """Trains in another process and kills it as soon as it tells of this iteration."""
    command = [sys.executable, "-c", CHILD, json.dumps([preset, changes, str(run), record and str(record)])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= iteration:
                os.kill(child.pid, signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL


@pytest.fixture(scope="session")
def kill_at():
    """`kill_at(iteration, preset, changes, run, record)`, with SIGKILL."""
    return _kill_at
