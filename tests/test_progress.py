"""What a progress bar says, and what it does not say yet. Time is counted by the tests."""

from __future__ import annotations

import io
import re
import time

import pytest

from epvf_data import progress
from epvf_data.progress import COMPILING, Bar

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
RUN = {"iterations": None, "env_steps_total": None, "return_perturbed": 5.0, "return_unperturbed": 6.0}


@pytest.fixture
def clock(monkeypatch):
    """`clock.now` in seconds, which nothing but the test moves."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(progress.time, "perf_counter", lambda: Clock.now)  # not time.monotonic
    monkeypatch.setattr(progress, "LOG_EVERY", 0.0)
    return Clock


def take_over(monkeypatch, terminal=True):
    """Standard error in memory, as a terminal of 120 characters. pytest sets its own before each test's body."""
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(progress.sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "120")
    return screen


def last(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def test_no_rate_and_no_time_left_before_there_is_something_to_measure(clock, capsys):
    with Bar("collect", "episodes") as bar:
        clock.now = 60.0  # of compiling
        bar.update(24, 4096, 24 * 500, "env steps")
        assert last(capsys) == "collect: 24/4,096 episodes"
        clock.now = 61.0
        bar.update(1024, 4096, 512_000, "env steps")
        assert last(capsys) == "collect: 1,024/4,096 episodes"
        clock.now = 64.0
        bar.update(2072, 4096, 1_036_000, "env steps")
        assert last(capsys) == "collect: 2,072/4,096 episodes · 256,000 env steps/s · 4 s left"


def test_budgets_are_told_in_their_own_unit(clock, capsys):
    with Bar("teacher", "env steps") as bar:  # iterations, as recipes set them
        for iteration in (5, 10):
            clock.now += 10
            bar.run({**RUN, "iterations": 20, "iteration": iteration, "env_steps": 1000 * iteration})
        told = "teacher: 10/20 iterations · return 5.0 (unperturbed 6.0) · 500 env steps/s · 20 s left"
        assert last(capsys) == told
    with Bar("teacher", "env steps") as bar:  # PPO and CMA-ES know environment steps only, and go a little beyond
        for steps in (0, 1000, 1100):
            clock.now += 1000
            bar.run({"env_steps": steps, "env_steps_total": 1000})
        assert last(capsys) == "teacher: 1,000/1,000 env steps · 1 env steps/s"


def test_a_run_that_goes_on_is_measured_from_there(clock, capsys):
    with Bar("fig", "env steps") as bar:
        for iteration in (50, 60, 70):
            bar.run({**RUN, "iterations": 100, "iteration": iteration, "env_steps": 1000 * iteration})
            clock.now += 20
    assert last(capsys).endswith("70/100 iterations · return 5.0 (unperturbed 6.0) · 500 env steps/s · 60 s left")


def test_each_split_is_measured_by_itself(clock, capsys):
    event = {"epochs": 10, "validation_loss": [0.5]}
    with Bar("train", "epochs") as bar:
        for split, seconds in (("iid", 4), ("lineage", 400)):
            for epoch in (1, 2):
                bar.epoch({**event, "split": split, "epoch": epoch})
                clock.now += seconds
            bar.epoch({**event, "split": split, "epoch": 3})
    assert last(capsys) == "train: 3/10 epochs (lineage) · validation loss 0.500 · 47 min left"


def test_a_terminal_shows_a_table_of_what_is_learned_now_and_then(clock, monkeypatch):
    screen = take_over(monkeypatch)
    monkeypatch.setattr(progress, "LOG_EVERY", 10.0)
    with Bar("train", "env steps") as bar:
        for iteration in range(1, 31):
            clock.now += 1
            bar.run(
                {**RUN, "iterations": 30, "iteration": iteration, "env_steps": 1000 * iteration, "return_best": 7.0}
            )
    shown = [line.split() for line in re.split(r"[\r\n]", CODES.sub("", screen.getvalue()))]
    heads = ["iteration", "env", "steps", "return", "of", "θ", "perturbed", "best", "θ"]
    assert shown.count(heads) == 1
    rows = [line for line in shown if line[2:] == ["6.00", "5.00", "7.00"]]
    assert [row[0] for row in rows] == ["1", "11", "21"]
    screen = take_over(monkeypatch)
    with Bar("train", "epochs") as bar:
        for split in ("iid", "lineage"):
            clock.now += 10
            bar.epoch({"split": split, "epoch": 2, "epochs": 10, "train_loss": [0.5, 1.5], "validation_loss": [0.25]})
    shown = [line.split() for line in re.split(r"[\r\n]", CODES.sub("", screen.getvalue()))]
    assert ["split", "epoch", "training", "loss", "validation", "loss"] in shown
    assert ["lineage", "2", "1.0000", "0.2500"] in shown
    screen = take_over(monkeypatch, terminal=False)
    with Bar("train", "env steps") as bar:
        bar.run({**RUN, "iterations": 30, "iteration": 30, "env_steps": 10})
    assert screen.getvalue().count("\n") == 1


def test_waiting_is_told(clock, monkeypatch):
    screen = take_over(monkeypatch)
    with Bar("train", "epochs", waiting=COMPILING):
        pass
    assert "compiling" in screen.getvalue()
    screen = take_over(monkeypatch, terminal=False)
    monkeypatch.setattr(progress, "SETTLED", 0.05)
    with Bar("train", "epochs", waiting=COMPILING), Bar("merge", "rows"), Bar("fit", "epochs", True, False, COMPILING):
        until = time.monotonic() + 5
        while not screen.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
    assert screen.getvalue() == f"train: {COMPILING}\n"
    with Bar("train", "epochs", waiting=COMPILING) as bar:  # what fails or answers at once says nothing of waiting
        bar.update(1, 10)
        time.sleep(0.1)
    with Bar("train", "epochs", waiting=COMPILING):
        pass
    time.sleep(0.1)
    assert screen.getvalue().count(COMPILING) == 1


def test_a_pause_leaves_the_terminal_to_others(clock, monkeypatch):
    screen = take_over(monkeypatch)
    with Bar("train", "epochs") as bar:
        bar.update(1, 2)
        bar.pause()
        size = len(screen.getvalue())
        print("a line of its own", file=screen)
        assert len(screen.getvalue()) == size + len("a line of its own\n")
        bar.update(2, 2)
        assert bar.bar is not None
        assert bar.bar.live.is_started
    assert "2/2 epochs" in screen.getvalue()
