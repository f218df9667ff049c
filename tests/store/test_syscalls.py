"""A kill, a full disk or an I/O error at every system call of everything that writes: before or after, nothing between.

The faults come in processes without jax, which may fork; see scenarios.py. Removals may fail without an error.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("scenarios.py")
# Scenario → every how many-th call gets a fault in `make test`, and how many calls there are at least.
# `make soak` goes through all of them.
STEPS = {"create": (7, 30), "commit": (17, 180), "create-whole": (61, 180), "compact": (43, 150), "garbage": (19, 60)}
STEPS["merge"] = (127, 350)
FAULTS = ("kill", "full", "EIO")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["some", "every"])
@pytest.mark.parametrize("scenario", STEPS)
def test_a_fault_at_any_system_call(quick_path, scenario, every, fault):
    step, least = STEPS[scenario]
    step = 1 if every else step
    workers, shares = [], 2 if every else 1
    for half in range(shares):  # two processes share many calls; each fault takes other ones
        first = (FAULTS.index(fault) + half * step) % (shares * step)
        words = (scenario, fault, str(quick_path / str(half)), str(first), str(shares * step))
        command = [sys.executable, "-W", "error", str(PROGRAM), *words]
        workers.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    results = [worker.communicate(timeout=1500) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * shares, "".join(error for _, error in results)
    assert sum(int(out) for out, _ in results) > least / step
