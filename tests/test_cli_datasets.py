"""The verbs for data sets from the shell: what they print, what they make, how they refuse and stop."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from store import conftest as store

import epvf_data
from epvf_data.store.digest import content_hash
from epvf_data.store.validate import validate
from epvf_data.store.writer import Writer


@pytest.fixture
def run(shell):
    """The command line in this process; an expected failure is one line beside the progress."""

    def told(*words, rc=0):
        process = shell(*words, code=rc)
        if rc:
            assert len(process.stderr.strip().splitlines()) <= 1 + process.stderr.count("rows/s"), process.stderr
        return process

    return told


@pytest.fixture
def tell(run):
    return lambda *words, rc=0: json.loads(run(*words, "--json", rc=rc).stdout.splitlines()[-1])


@pytest.fixture
def two(in_tmp):
    """a.zarr of four commits and b.zarr that repeats one of them."""
    for name, seeds in (("a.zarr", range(4)), ("b.zarr", range(3, 6))):
        with Writer.open(name, store.ENV) as writer:
            for seed in seeds:
                writer.commit(store.build_rows(50, seed, probes=2), {"seed": seed, "command": ["epvf-data", "collect"]})
    return in_tmp


def test_the_verbs_work_together(two, tell):
    merged = tell("merge", "a.zarr", "b.zarr", "--out", "c.zarr")
    assert (merged["rows"], merged["rows_repeated"], merged["commits"]) == (300, 50, 6)
    kept = tell("filter", "c.zarr", "--where", "return > 0 and source == 'random'")["datasets"]["c-filtered.zarr"]
    means = epvf_data.open("c.zarr").table().mean_returns()
    assert kept == sum(mean > 0 and number % 2 == 0 for number, mean in enumerate(means))
    assert tell("sample", "c.zarr", "--rows", "20")["datasets"] == {"c-sample.zarr": 20}
    halves = tell("split", "c.zarr", "--by", "rows", "--test-fraction", "0.25")["datasets"]
    assert halves == {"c-train.zarr": 225, "c-test.zarr": 75}
    differ = tell("diff", "a.zarr", "c.zarr", rc=1)
    assert (differ["equal"], differ["rows_in_both"], differ["rows_only"]) == (False, 200, [0, 100])
    before = content_hash(epvf_data.open("c.zarr"))
    assert tell("compact", "c.zarr")["parts_after"] == 1
    assert tell("gc", "c.zarr")["waiting"] == 6
    assert tell("gc", "c.zarr", "--grace", "0", "--dry-run")["parts"] == 6
    assert tell("gc", "c.zarr", "--grace", "0")["parts"] == 6
    assert content_hash(epvf_data.open("c.zarr")) == before
    assert tell("card", "c.zarr", "--author", "Ada Lovelace")["rows"] == 300
    for name in ("c", "c-filtered", "c-sample", "c-train", "c-test"):
        assert validate(f"{name}.zarr", deep=True) == []
    events = tell("info", "c.zarr", "--commits")
    assert sum(not event["origin"] for event in events) == 7
    assert {event["seed"] for event in events if event["origin"]} == {"0", "1", "2", "3", "4", "5"}


def test_other_programs_get_the_same_rows(two, tell):
    pytest.importorskip("h5py")
    assert tell("export-hdf5", "a.zarr")["file"] == "a.h5"
    assert tell("import-hdf5", "a.h5", "--out", "d.zarr")["rows"] == 200
    assert tell("diff", "a.zarr", "d.zarr")["equal"]
    assert tell("export-npz", "a.zarr")["rows"] == 200

    with np.load("a.npz", allow_pickle=False) as data:
        assert data["params"].tobytes() == epvf_data.open("a.zarr").table().column("params").tobytes()


def test_bars_are_as_long_as_they_are_many_and_episodes_are_not_means(quick_path, run):
    rows = store.build_rows(1000, episodes=2)
    means = np.repeat([0.0, 6.0, 12.0], [900, 99, 1]).astype(np.float32)
    rows.returns[:] = np.stack([means - 2, means + 2], axis=1)
    with Writer.open(quick_path / "skewed.zarr", store.ENV) as writer:
        writer.commit(rows, {})
    shown = run("info", str(quick_path / "skewed.zarr")).stdout
    assert "returns 0.00 to 12.00, 0.61 on average" in shown
    assert "(means over a policy's episodes; single episodes -2.00 to 14.00)" in shown
    assert "bars on a linear scale, the longest is 900" in shown
    bars = {int(line.split()[-1]): line.split()[3] for line in shown.splitlines() if "█" in line or "▏" in line}
    assert bars == {900: "█" * 44, 99: "████▉", 1: "▏"}


def test_people_get_sentences(two, run):
    assert "200 rows of 1 architecture in 4 commits." in run("merge", "a.zarr", "--out", "e.zarr").stdout
    assert "hold the same 200 rows in the same order" in run("diff", "a.zarr", "e.zarr").stdout
    shown = run("diff", "a.zarr", "b.zarr", rc=1).stdout
    assert "50 rows are in both" in shown
    assert "rows only here" in shown
    listed = run("info", "e.zarr", "--commits").stdout
    assert "from commit 3" in listed
    assert "epvf-data collect" in listed
    assert "4 parts became 1" in run("compact", "a.zarr").stdout
    listed = run("info", "a.zarr", "--commits").stdout
    assert "commit 4 · " in listed
    assert "holds    50 of commit 0, 50 of commit 1, 50 of commit 2, 50 of commit 3, listed above" in listed
    assert [line.split()[1] for line in listed.splitlines() if line.startswith("  seed")] == ["0", "1", "2", "3"]
    assert "4 more are not 24 hours old" in run("gc", "a.zarr").stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("merge", "a.zarr", "--out", "b.zarr"), 1, "already is a data set"),
        (("merge", "a.zarr", "gone.zarr", "--out", "x.zarr"), 1, "gone.zarr does not exist"),
        (("filter", "a.zarr", "--where", "retrun > 3"), 2, "did you mean return"),
        (("filter", "a.zarr", "--where", "return > 1e9"), 1, "no row of a.zarr fulfils"),
        (("sample", "a.zarr", "--rows", "201"), 1, "a.zarr has 200"),
        (("split", "a.zarr", "--test-fraction", "1.5"), 1, "between 0 and 1"),
        (("compact", "a.zarr", "--part-mb", "5000"), 2, "1 to 512"),
        (("card", "a.zarr", "--license", "Foo-1"), 2, "SPDX"),
        (("import-hdf5", "a.zarr", "--out", "x.zarr"), 1, "a.zarr"),
        (("export-npz", "a.zarr", "--architecture", "f00"), 1, "names 0 of them"),
    ],
)
def test_mistakes_give_one_sentence_and_leave_nothing(two, words, code, message, run):
    before = sorted(path.name for path in two.iterdir())
    assert message in run(*words, rc=code).stderr
    assert sorted(path.name for path in two.iterdir()) == before


def test_a_stranger_cannot_steer_the_terminal(two, run):
    from dataclasses import replace

    env = replace(store.ENV, name="ant\x1b[2J\x07\u202e", digest="9" * 64)
    with Writer.open("evil.zarr", env) as writer:
        writer.commit(store.build_rows(3), {"command": ["\x1b]0;owned\x07"], "seed": 1})
    for words in (("info", "evil.zarr"), ("info", "evil.zarr", "--commits"), ("validate", "evil.zarr", "--deep")):
        shown = run(*words)
        assert not set("\x1b\x07\u202e") & set(shown.stdout + shown.stderr)
    assert "\x1b" not in run("merge", "a.zarr", "evil.zarr", "--out", "x.zarr", rc=1).stderr


def test_a_file_name_that_is_no_text_is_a_name_like_any_other(two):
    name = b"caf\xe9.zarr"
    command = [sys.executable, "-m", "epvf_data", "merge", "a.zarr", "--out", name]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert rb"caf\\udce9.zarr" in b"".join(path.read_bytes() for path in two.glob("caf*/commits/0*.json"))


def test_ctrl_c_in_a_merge_leaves_nothing(in_tmp):
    with Writer.open("a.zarr", store.ENV) as writer:
        for seed in range(150):
            writer.commit(store.build_rows(2, seed), {})
    command = [sys.executable, "-m", "epvf_data", "merge", "a.zarr", "--out", "c.zarr"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(in_tmp.glob("c.zarr/commits/0000001*.json")) and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 75
    assert err.splitlines()[-1] == "error: interrupted; nothing is left of the new data set."
    assert not (in_tmp / "c.zarr").exists()
