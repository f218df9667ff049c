"""Learning curves in the terminal: what is drawn, and when watching ends."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from epvf_data.errors import RunError
from epvf_data.trainers import rundir
from epvf_data.trainers.curves import watch
from epvf_data.trainers.curves.chart import Line, chart
from epvf_data.trainers.curves.watch import follow, look


def age(run, seconds=1000):
    """As if nothing had been written to the run for so long."""
    for path in run.iterdir():
        os.utime(path, (time.time() - seconds,) * 2)


def test_a_chart_rises_from_corner_to_corner():
    drawn = chart([Line("*", np.array([0.0, 10.0]), np.array([1.0, 3.0]))], 21, 5, "steps")
    assert [line.partition("|")[0].strip() for line in drawn[:5]] == ["3.00", "", "", "", "1.00"]
    assert drawn[0].endswith("***")
    assert drawn[4].partition("|")[2].startswith("***")
    assert drawn[6].split() == ["0", "10", "steps"]
    flat = chart([Line("o", np.array([2.0]), np.array([7.0]))], 21, 5, "steps")
    assert sum("o" in line.partition("|")[2] for line in flat) == 1
    assert chart([Line("o", np.zeros(0), np.zeros(0))], 21, 5, "steps") == []


def test_the_end_of_a_run_ends_watching(tmp_path, write_run, monkeypatch):
    run = write_run(tmp_path / "run", seeds=3, finished=False)
    age(run)
    with rundir.lock(run):
        assert rundir.is_held(run)
        assert look([run]).going
        assert look([run]).lines[-1].endswith("iteration 20 of 20, return of θ 101.00, best 101.00; training")
        views = follow([run], 0.01, 60, 8)
        assert next(views).going
        assert next(views).going
        (run / "report.json").write_text('{"finished": true}')
        last = list(views)
        assert [view.going for view in last] == [False]
        assert last[0].lines[-1].endswith("finished")
    (run / "report.json").unlink()
    age(run)
    assert not rundir.is_held(run)
    assert look([run]).lines[-1].endswith("stopped; --resume goes on")
    (run / "metrics.jsonl").touch()
    assert look([run]).going  # where there are no locks, files that were written just now tell
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError("no locks")))
    assert not rundir.is_held(run)
    assert watch.QUIET >= 10


def test_a_run_that_has_logged_nothing_is_waited_for(tmp_path, write_run):
    run = write_run(tmp_path / "run", finished=False)
    (run / "metrics.jsonl").unlink()
    assert look([run]).lines == [f"  {run}: nothing logged yet; a run compiles first"]
    with pytest.raises(RunError, match="nothing does not exist"):
        look([tmp_path / "nothing"])


def test_watch_once_and_as_json_and_as_a_picture(in_tmp, shell, write_run):
    write_run(in_tmp / "a", seeds=3)
    write_run(in_tmp / "b", 50, envs=8)
    told = shell("watch", "a", "b", "--once", "--out", "c.png").stdout.splitlines()
    assert told[0] == "undiscounted return of the unperturbed policy θ, median over seeds"
    assert told[-3].startswith("* a (es on cartpole, 3 seeds): iteration 20 of 20")
    assert told[-2].startswith("o b (es on cartpole, 1 seed)")
    assert (in_tmp / "c.png").is_file()
    assert all(line.isascii() or "θ" in line for line in told)
    found = json.loads(shell("watch", "a", "--json").stdout)
    assert (found["going"], found["groups"][0]["name"]) == (False, "a")
    assert "is a data set" not in shell("watch", "nothing", code=1).stderr


def test_ctrl_c_on_a_terminal_ends_watching_and_leaves_the_chart(in_tmp, write_run):
    write_run(in_tmp / "a", finished=False)
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "epvf_data", "watch", "a", "--every", "0.2"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "30"}
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, stdin=terminal, env=environment) as process:
        os.close(terminal)
        shown = b""
        while b"training" not in shown:
            assert select.select([main], [], [], 60)[0], shown
            shown += os.read(main, 65536)
        process.send_signal(signal.SIGINT)
        with_rest = bytearray(shown)
        while True:
            try:
                more = os.read(main, 65536)
            except OSError:
                break
            if not more:
                break
            with_rest += more
    os.close(main)
    assert process.returncode == 0, bytes(with_rest)
    assert b"Traceback" not in with_rest
    assert "undiscounted return" in with_rest.decode()
