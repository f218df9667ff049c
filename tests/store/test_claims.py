"""Numbered rows of a run are there once, however many processes make them at once and whoever is killed."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import epvf_data
from epvf_data.curation.merge import merge
from epvf_data.errors import DatasetError, RowsTakenError
from epvf_data.store import claims as claiming
from epvf_data.store.compact import compact
from epvf_data.store.extract import part_rows
from epvf_data.store.garbage import collect_garbage
from epvf_data.store.validate import leftovers, validate
from epvf_data.store.writer import Writer

MAKER = """
import random, sys
sys.path.insert(0, sys.argv[1])
import scenarios
from epvf_data.errors import RowsTakenError
path, seed, total = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rng = random.Random(seed)
print("ready", flush=True)
sys.stdin.readline()  # all begin at once
with scenarios.Writer.open(path, scenarios.ENV) as writer:
    for first in range(0, total, 4):
        size = rng.choice([4, 4, 4, 2])  # another size of batches overlaps in a part of the rows
        for begin in range(first, first + 4, size):
            try:
                writer.commit(scenarios.rows(size, begin), {"run": "r", "rows": [begin, begin + size]})
                print(begin, begin + size, flush=True)
            except RowsTakenError:
                pass
"""


def claims(path):
    """The row ranges of the run that commits say to hold, in order."""
    made = [record.provenance for record in epvf_data.open(path).commits]
    return sorted(tuple(one["rows"]) for one in made if "run" in one)


def race(path, processes, total, kills, rng):
    """Lets processes make the same rows at once and kills some of them; the ranges that were acknowledged."""
    command = [sys.executable, "-c", MAKER, str(Path(__file__).parent), str(path)]
    pipe = subprocess.PIPE
    words = [[str(rng.randrange(1 << 30)), str(total)] for _ in range(processes)]
    running = [subprocess.Popen([*command, *one], text=True, stdin=pipe, stdout=pipe, stderr=pipe) for one in words]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in running[:kills]:
        time.sleep(rng.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
    told = [process.communicate(timeout=120) for process in running]
    for process, (_, err) in zip(running, told, strict=True):
        assert process.returncode in (0, -signal.SIGKILL), err
    return [tuple(map(int, line.split())) for out, _ in told for line in out.splitlines()]


@pytest.mark.parametrize(
    ("processes", "total", "kills", "rounds"), [(2, 24, 1, 1), pytest.param(8, 96, 5, 8, marks=pytest.mark.soak)]
)
def test_a_row_is_made_once(quick_path, env, processes, total, kills, rounds):
    rng = random.Random(processes)
    for number in range(rounds):
        path = quick_path / f"{number}.zarr"
        Writer.open(path, env)
        told = race(path, processes, total, kills, rng)
        held = claims(path)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(held)), held
        assert set(told) <= set(held), "an acknowledged commit is lost"
        told += race(path, 2, total, 0, rng)  # whoever comes later makes what is missing, in their own batches
        held = claims(path)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(held)), held
        assert set(told) <= set(held)
        assert validate(path, deep=True) == []
        collect_garbage(path, grace=0)
        assert leftovers(path) == []
        assert len(epvf_data.open(path)) == sum(end - first for first, end in held)


def test_the_loser_leaves_nothing_behind(quick_path, make_rows, env):
    path = quick_path / "a.zarr"
    with Writer.open(path, env) as first, Writer.open(path, env) as second:
        first.commit(make_rows(4), {"run": "r", "rows": [4, 8]})
        for taken in ([4, 8], [0, 5], [7, 9], [0, 100], [5, 6]):
            with pytest.raises(RowsTakenError, match="commit 0 of .*a.zarr holds rows .* nothing was added"):
                second.commit(make_rows(taken[1] - taken[0]), {"run": "r", "rows": taken})
        second.commit(make_rows(4, 1), {"run": "r", "rows": [0, 4]})
        second.commit(make_rows(4, 2), {"run": "another", "rows": [4, 8]})
        second.commit(make_rows(4, 3), {"run": "r", "iterations": [4, 8]})
        with pytest.raises(RowsTakenError, match="holds iterations 6 to 9"):
            first.commit(make_rows(4, 4), {"run": "r", "iterations": [6, 10]})
    assert leftovers(path) == []
    assert len(epvf_data.open(path)) == 16
    compact(path)
    collect_garbage(path, grace=0)
    with Writer.open(path, env) as writer, pytest.raises(RowsTakenError):  # the records remember
        writer.commit(make_rows(4), {"run": "r", "rows": [4, 8]})


@pytest.mark.parametrize("link", [False, True])
def test_of_several_commits_at_once_those_that_are_free_are_made(quick_path, make_rows, env, link):
    """Each with its rows and in its place; the others leave nothing, and what is amiss in one is amiss in all."""
    with Writer.open(quick_path / "from.zarr", env) as source:
        for seed in range(4):
            source.commit(make_rows(3, seed, probes=2), {})
    parts, path = epvf_data.open(quick_path / "from.zarr").parts, quick_path / "a.zarr"
    rows = [([part], {"run": "r", "rows": [3 * number, 3 * number + 3]}) for number, part in enumerate(parts)]
    with Writer.open(path, env) as writer:
        writer.commit(make_rows(2, 9, probes=2), {"run": "r", "rows": [4, 6]})
        made = writer.commit_all([rows[0], rows[1], rows[2], rows[0]], link=link)
        assert [record and record.number for record in made] == [1, None, 2, None]
        with pytest.raises(DatasetError, match="at least one row"):
            writer.commit_all([rows[3], ([], {})], link=link)
    assert claims(path) == [(0, 3), (4, 6), (6, 9)]
    assert (leftovers(path), validate(path, deep=True)) == ([], [])
    wanted = [part_rows(part).params for part in (parts[0], parts[2])]
    got = [part_rows(part).params for part in epvf_data.open(path).parts[1:]]
    assert all((mine == theirs).all() for mine, theirs in zip(got, wanted, strict=True))


def test_rows_that_are_there_twice_are_told_and_merge_keeps_one(quick_path, make_rows, env, monkeypatch):
    """Data sets of earlier releases, which let two processes commit the same rows."""
    path = quick_path / "old.zarr"
    monkeypatch.setattr(claiming, "claim", lambda provenance: None)
    with Writer.open(path, env) as writer:
        for begin in (0, 4, 0):
            writer.commit(make_rows(4, begin), {"run": "r", "rows": [begin, begin + 4]})
    monkeypatch.undo()
    problems = validate(path)
    assert len(problems) == 1
    assert "commits 0 and 2 both hold rows from 0 on of one run" in problems[0]
    assert merge([path], quick_path / "new.zarr").rows == 8
    assert validate(quick_path / "new.zarr") == []
