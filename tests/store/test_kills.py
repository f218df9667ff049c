"""SIGKILLs of real processes: the number-th system call of a commit from outside, and random moments of `collect`."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import epvf_data
from epvf_data.store.digest import content_hash
from epvf_data.store.garbage import collect_garbage
from epvf_data.store.validate import leftovers, validate
from epvf_data.store.writer import Writer

KILLS = Path(__file__).parents[2] / "benchmarks" / "kills.py"
COMMIT = """
import sys
sys.path.insert(0, sys.argv[1])
import scenarios
with scenarios.Writer.open(sys.argv[2], scenarios.ENV) as writer:
    print(writer.commit(scenarios.rows(1, 2, probes=2), {}).number, flush=True)
"""


@pytest.mark.soak
@pytest.mark.parametrize("least", [50])
def test_random_kills_of_collect(tmp_path, least):
    """The script of benchmarks/results/kills.json. In `make test` one kill in test_collect.py stands for them."""
    pytest.importorskip("jax")
    in_commit = 0
    for kills in (least, 2 * least, 6 * least):  # moments are random: a few kills may all miss the commits
        command = [sys.executable, str(KILLS), "--kills", str(kills), "--policies", "80"]
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1500)
        assert process.returncode == 0, process.stderr
        counts = json.loads(process.stdout)
        assert counts["kills"] >= kills
        assert counts["in_commit"] + counts["between_commits"] + counts["in_start_up"] == counts["kills"]
        assert counts["data_sets"] > 0
        assert counts["rows_read"] > 0
        assert counts["acknowledged_commits"] + counts["unacknowledged_commits"] == 20 * counts["data_sets"]
        in_commit += counts["in_commit"]
        if in_commit:
            break
    assert in_commit > 0


def test_the_full_number_of_kills_is_on_record():
    counts = json.loads((KILLS.parent / "results" / "kills.json").read_text())
    assert counts["kills"] >= 200
    assert counts["in_commit"] >= 50


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(("call", "at"), [("fsync", 1), ("mkdir", 20), ("fsync", 3), ("rename", 1), ("link", 1)])
def test_a_kill_from_outside(quick_path, make_rows, env, call, at):
    """strace kills the process as it enters the call: no code of ours, and no patch, has a say in it."""
    path = quick_path / "data.zarr"
    with Writer.open(path, env) as writer:
        writer.commit(make_rows(1, 1), {})
    before = content_hash(epvf_data.open(path))
    command = ["strace", "-f", "-o", "/dev/null", "-e", f"trace=/^{call}(at2?)?$"]
    command += ["-e", f"inject=/^{call}(at2?)?$:signal=KILL:when={at}"]
    command += [sys.executable, "-B", "-c", COMMIT, str(Path(__file__).parent), str(path)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "ptrace" in process.stderr:
        pytest.skip("strace may not trace here")
    assert process.returncode == -9
    assert process.stdout == ""
    assert validate(path, deep=True) == []
    assert content_hash(epvf_data.open(path)) == before
    with Writer.open(path, env) as writer:
        writer.commit(make_rows(1, 2, probes=2), {})
    collect_garbage(path, grace=0)
    assert leftovers(path) == []
    assert [record.number for record in epvf_data.open(path).commits] == [0, 1]


def test_a_kill_while_the_data_set_was_made(quick_path, env, scenarios):
    """Whatever its creation left, the next `collect` does not trip over it."""
    pytest.importorskip("jax")
    from epvf_data.collectors.collect import collect
    from epvf_data.collectors.setting import collect_config

    small = {"policy.hidden": [2], "perturbed.bases": ["random"], "envs": 2, "episodes": 1, "horizon": 3}
    for at in (1, 4, 20, 30):
        path = quick_path / f"{at}.zarr"
        with contextlib.suppress(scenarios.Stopped), scenarios.Calls().fail(at, "stop"):
            Writer.open(path, env)
        assert not (path / "zarr.json").exists()
        assert collect(collect_config("cartpole", **small), path).rows_total == 2
        assert validate(path, deep=True) == []
