"""Calls on an executor: order, errors, and what becomes of them when the one who began them is told to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from epvf_data.errors import BackendError, ConfigError, RunError
from epvf_data.launch.calls import run_calls

pytest.importorskip("jax")


def test_results_come_in_the_order_of_the_calls_and_are_told_as_they_come():
    told, looks = [], []
    with ThreadPoolExecutor(1) as pool:
        found = run_calls([(pow, 2, 3), (pow, 3, 2)], pool, told=lambda *pair: told.append(pair), look=looks.append)
    assert found == [8, 9]
    assert sorted(told) == [(0, 8), (1, 9)]
    assert looks[-1] == 2
    assert run_calls([], pool) == []


def test_the_first_error_is_raised_when_all_others_have_ended():
    told = []

    def fails(error: Exception) -> None:
        raise error

    calls = [(fails, RunError("first")), (pow, 2, 2), (fails, ConfigError("second"))]
    with ThreadPoolExecutor(1) as pool, pytest.raises(RunError, match="first"):
        run_calls(calls, pool, told=lambda *pair: told.append(pair))
    assert told == [(1, 4)]


def test_an_interruption_keeps_what_has_not_begun_from_beginning():
    class Waits:
        def __init__(self):
            self.handles = []

        def submit(self, fn, *args):
            self.handles.append(Future())
            return self.handles[-1]

    def look(done):
        raise KeyboardInterrupt

    executor = Waits()
    with pytest.raises(KeyboardInterrupt):
        run_calls([(pow, 2, 2)] * 3, executor, look=look)
    assert all(handle.cancelled() for handle in executor.handles)


# Two workers and four calls, each of which notes that it began and, when it is told to stop, that it has saved.
PROGRAM = """
import sys, time
from pathlib import Path

def call(name):
    Path(f"{name}.begun").write_text("")
    try:
        for _ in range(3000):
            time.sleep(0.02)
    except KeyboardInterrupt:
        time.sleep(0.3)
        Path(f"{name}.saved").write_text("")
        raise

if __name__ == "__main__":
    from epvf_data.launch.calls import run_calls
    from epvf_data.launch.executors import opened, parse
    from epvf_data.progress import on_signal
    try:
        with on_signal(), opened(parse("local:2"), Path("out")) as pool:
            run_calls([(call, number) for number in range(4)], pool)
    except KeyboardInterrupt:
        sys.exit(75)
"""


def wait_for(folder: Path, pattern: str, count: int) -> None:
    deadline = time.time() + 120
    while len(list(folder.glob(pattern))) < count:
        assert time.time() < deadline, sorted(folder.iterdir())
        time.sleep(0.05)


def wait_until_gone(group: int) -> None:
    deadline = time.time() + 30
    while time.time() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("a process is left")


@pytest.mark.parametrize(
    ("number", "everyone"),
    [
        (signal.SIGTERM, False),
        pytest.param(signal.SIGUSR1, True, marks=pytest.mark.soak),  # SLURM's, to each process of a step
        pytest.param(signal.SIGINT, True, marks=pytest.mark.soak),  # a terminal's
    ],
)
def test_a_signal_goes_down_to_the_workers_which_save_and_begin_nothing_more(tmp_path, number, everyone):
    (tmp_path / "program.py").write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, "program.py"], cwd=tmp_path, start_new_session=True)
    try:
        wait_for(tmp_path, "*.begun", 2)
        (os.killpg if everyone else os.kill)(process.pid, number)
        assert process.wait(60) == 75
        assert len(list(tmp_path.glob("*.saved"))) == len(list(tmp_path.glob("*.begun"))) == 2
        wait_until_gone(process.pid)  # no worker is left
    finally:
        process.kill()


SEEDS = ["--env", "cartpole", "--set", "policy.hidden=[4]", "--set", "critic.widths=[8]", "--horizon", "20"]
SEEDS += [
    "--set",
    "log_every=1",
    "--iterations",
    "4",
    "--envs",
    "16",
    "--seeds",
    "2",
    "--set",
    "replay.capacity=32",
    "--quiet",
    "--json",
]


def lines(run: Path) -> list[dict]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "seconds" not in key} for line in found]


@pytest.fixture
def one_thread(monkeypatch):
    """--executor local:N in this process, whose calls come one after the other."""
    monkeypatch.setattr("epvf_data.launch.executors._local", lambda wanted, out: ThreadPoolExecutor(1))


def test_seeds_are_runs_of_their_own_that_go_on(in_tmp, shell, one_thread):
    apart = json.loads(shell("train-online", *SEEDS, "--executor", "local:2", "--out", "apart").stdout)
    assert (apart["run"], apart["seeds"], apart["iterations"], apart["finished"]) == ("apart", 2, 4, True)
    shell("train-online", *SEEDS, "--seeds", "1", "--seed", "1", "--out", "alone")
    assert lines(in_tmp / "apart" / "seed-1") == lines(in_tmp / "alone")
    reports = [json.loads((in_tmp / "apart" / f"seed-{seed}" / "report.json").read_text()) for seed in (0, 1)]
    assert apart["env_steps"] == sum(one["env_steps"] for one in reports)
    assert apart["return_best"] == pytest.approx(sum(one["return_best"] for one in reports) / 2)
    taken = shell("train-online", *SEEDS, "--executor", "local:2", "--out", "apart", code=1)
    assert "apart exists already" in taken.stderr
    more = [*SEEDS, "--iterations", "6", "--seeds", "3", "--resume", "--executor", "local:2", "--out", "apart"]
    assert json.loads(shell("train-online", *more).stdout)["iterations"] == 6  # two go on, one begins
    assert [len(lines(in_tmp / "apart" / f"seed-{seed}")) for seed in (0, 1, 2)] == [6, 6, 6]
    assert "--resume" in shell("train-online", *more, "--out", "nothing", code=1).stderr
    assert "expected local:N" in shell("train-online", *SEEDS, "--executor", "mine", code=2).stderr


@pytest.mark.soak
def test_seeds_that_are_stopped_go_on_to_the_same_bits(in_tmp, shell):
    words = [*SEEDS, "--iterations", "800", "--executor", "local:2", "--out", "stopped"]
    process = subprocess.Popen([sys.executable, "-m", "epvf_data", "train-online", *words], stderr=subprocess.PIPE)
    wait_for(in_tmp, "stopped/seed-?/metrics.jsonl", 2)
    process.send_signal(signal.SIGUSR1)
    told = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 75
    assert "kept in stopped, continue with: epvf-data train-online" in told
    assert all((in_tmp / "stopped" / f"seed-{seed}" / "checkpoints").is_dir() for seed in (0, 1))
    before = [len(lines(in_tmp / "stopped" / f"seed-{seed}")) for seed in (0, 1)]
    assert 0 < min(before) < 800
    assert json.loads(shell("train-online", *words, "--resume").stdout)["finished"]
    shell("train-online", *SEEDS, "--iterations", "800", "--seeds", "1", "--out", "whole")
    assert lines(in_tmp / "stopped" / "seed-0") == lines(in_tmp / "whole")


def test_a_worker_that_dies_is_one_sentence():
    class Broken:
        def submit(self, fn, *args):
            from concurrent.futures.process import BrokenProcessPool

            future: Future = Future()
            future.set_exception(BrokenProcessPool("gone"))
            return future

    with pytest.raises(BackendError, match="a worker died; what it saved stays, and the same command goes on"):
        run_calls([(pow, 2, 2)], Broken())
