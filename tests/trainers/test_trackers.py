"""Metrics for others: what each tracker is handed.

Stand-ins for Weights & Biases and Trackio keep the calls that we make; the packages are tried where they are installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from epvf_data.errors import ConfigError, MissingPackageError, RunError
from epvf_data.trainers import rundir, trackers
from epvf_data.trainers.trackers import Tracked, open_trackers, parse

STAND_IN = """
import json, os
from pathlib import Path

def keep(**record):
    with open("calls.jsonl", "a") as file:
        file.write(json.dumps(record) + "\\n")

class Settings(dict):
    pass

class Run:
    def __init__(self, name):
        self.name = name
    def log(self, values, step):
        keep(log=self.name, values=values, step=step)
    def finish(self):
        keep(finish=self.name)

def init(**given):
    print("hello from the library")
    folders = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
    keep(init=given, folders=folders)
    if "dir" in given:
        logs = Path(given["dir"], "wandb", "logs")
        logs.mkdir(parents=True, exist_ok=True)
        (logs / given["id"]).symlink_to("/dev/null")
    return Run(given["name"])
"""


@pytest.fixture
def stand_ins(in_tmp, monkeypatch):
    """Packages wandb and trackio that keep what they are called with. Gives a function that reads it."""
    for name in ("wandb", "trackio"):
        (in_tmp / "packages" / name).mkdir(parents=True)
        (in_tmp / "packages" / name / "__init__.py").write_text(STAND_IN)
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    monkeypatch.syspath_prepend(in_tmp / "packages")
    for name in (*trackers.Wandb.FOLDERS, "TRACKIO_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return lambda: [json.loads(line) for line in (in_tmp / "calls.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_each_series_is_a_run_of_its_own(in_tmp, stand_ins, capsys, name):
    run = Tracked(in_tmp / "run", "identity", {"envs": 4}, 0)
    for _ in range(2):
        (tracker,) = open_trackers([name], run)
        for step in (1, 2):
            for seed in (0, 1):
                tracker.write(f"seed-{seed}", step, {"return": 1.5 * step})
        tracker.close()
    calls = stand_ins()
    begun = [call["init"] for call in calls if "init" in call]
    assert [one["name"] for one in begun] == ["run-seed-0", "run-seed-1"] * 2
    assert {(one["project"], one["group"], one["resume"]) for one in begun} == {("epvf-data", "run", "allow")}
    assert begun[0]["config"] == {"envs": 4}
    logged = [(call["log"], call["step"], call["values"]["return"]) for call in calls if "log" in call]
    assert logged[:3] == [("run-seed-0", 1, 1.5), ("run-seed-1", 1, 1.5), ("run-seed-0", 2, 3.0)]
    assert [call["finish"] for call in calls if "finish" in call] == ["run-seed-0", "run-seed-1"] * 2
    told = capsys.readouterr()
    assert "hello from the library" in told.err
    assert told.out == ""
    if name == "trackio":
        assert os.environ["TRACKIO_DIR"] == str(in_tmp / "run" / "trackio")
    if name == "wandb":
        assert begun[0]["id"] == begun[2]["id"] != begun[1]["id"]
        assert begun[0]["dir"] == str(in_tmp / "run")
        folders = calls[0]["folders"]
        assert all(folders[one].startswith(str(in_tmp / "run" / "wandb")) for one in trackers.Wandb.FOLDERS)
        (in_tmp / "run" / "config.json").write_text("{}")
        rundir.check(in_tmp / "run")  # the library's links are gone


def test_a_service_that_refuses_is_one_sentence(in_tmp, stand_ins):
    (in_tmp / "packages" / "wandb" / "__init__.py").write_text(
        STAND_IN + "\ndef init(**_):\n    raise ValueError('no key')"
    )
    run = Tracked(in_tmp / "run", "identity", {}, 0)
    with pytest.raises(RunError, match=r"cannot begin a run \(ValueError: no key\); `wandb login`, or"):
        open_trackers(["wandb"], run, ["seed-0"])
    assert not (in_tmp / "calls.jsonl").exists()


def test_names_are_checked_and_a_missing_package_is_named_before_anything_begins(in_tmp, shell, monkeypatch):
    assert parse("wandb, tensorboard,wandb") == ("wandb", "tensorboard")
    assert parse("none") == ()
    with pytest.raises(ConfigError, match="did you mean wandb"):
        parse("wand")
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("epvf_data.errors.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'epvf-data\[wandb\]'"):
        open_trackers(["wandb"], Tracked(in_tmp / "run", "", {}, 0))
    for words in (("train-online", "--env", "cartpole"), ("train-offline", "nothing.zarr")):
        told = shell(*words, "--track", "trackio", code=1).stderr
        assert told == "error: trackio is not installed; install the extra: pip install 'epvf-data[trackio]'.\n"
    assert not list(in_tmp.iterdir())


def test_what_trackio_says_as_python_ends_goes_to_stderr(in_tmp, stand_ins):
    told = "import atexit\natexit.register(lambda: print('goodbye'))\n"
    (in_tmp / "packages" / "trackio" / "__init__.py").write_text(told + STAND_IN)
    script = (
        "import sys; sys.path.insert(0, 'packages')\n"
        "from pathlib import Path\n"
        "from epvf_data.trainers.trackers import Tracked, open_trackers\n"
        "(tracker,) = open_trackers(['trackio'], Tracked(Path('run'), '', {}, 0), ['seed-0'])\n"
        "tracker.close()\n"
        "print('last')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "last\n"
    assert "goodbye" in done.stderr


def test_epochs_of_offline_training_are_means_over_critics(in_tmp, stand_ins):
    seen = []
    event = {"split": "iid", "epoch": 3, "epochs": 9, "train_loss": [1.0, 3.0], "validation_loss": [2.0, 2.0]}
    with trackers.epochs(["wandb"], Tracked(in_tmp / "run", "identity", {}, 0), seen.append) as progress:
        assert progress is not None
        progress(event)
    assert seen == [event]
    (logged,) = [call for call in stand_ins() if "log" in call]
    assert logged == {"log": "run-iid", "values": {"train_loss": 2.0, "validation_loss": 2.0}, "step": 3}
    with trackers.epochs([], Tracked(in_tmp / "run", "identity", {}, 0), None) as progress:
        assert progress is None


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_the_packages_themselves_take_it(in_tmp, monkeypatch, capsys, name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(in_tmp / "trackio"))
    monkeypatch.setenv("HOME", str(in_tmp / "home"))
    for folder in trackers.Wandb.FOLDERS:
        monkeypatch.setenv(folder, "")
        monkeypatch.delenv(folder)
    (in_tmp / "run").mkdir()
    (tracker,) = open_trackers([name], Tracked(in_tmp / "run", "identity", {"envs": 4}, 0))
    for step in (1, 2):
        for seed in (0, 1):
            tracker.write(f"seed-{seed}", step, {"return": 1.5 * step + seed})
    tracker.close()
    assert capsys.readouterr().out == ""
    assert not (in_tmp / "home").exists()
    if name == "wandb":
        assert len(list((in_tmp / "run" / "wandb").glob("offline-run-*/run-*.wandb"))) == 2
        (in_tmp / "run" / "config.json").write_text("{}")
        rundir.check(in_tmp / "run")
        return
    import sqlite3

    with sqlite3.connect(in_tmp / "trackio" / "epvf-data.db") as database:
        found = database.execute("select run_name, step, metrics from metrics order by run_name, step").fetchall()
    database.close()
    assert [(run, step, json.loads(metrics)["return"]) for run, step, metrics in found] == [
        *(("run-seed-0", 1, 1.5), ("run-seed-0", 2, 3.0), ("run-seed-1", 1, 2.5), ("run-seed-1", 2, 4.0))
    ]
