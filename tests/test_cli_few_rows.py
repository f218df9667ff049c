"""Data sets of no, one, two, equal and nearly equal rows through every verb: a result, or one sentence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from store.conftest import build_rows

pytest.importorskip("jax")

from epvf_data.envs import make
from epvf_data.policies.spec import PolicySpec
from epvf_data.recording.rows import env_identity
from epvf_data.store.writer import Writer

ENV = make("cartpole").with_horizon(10)
SPEC = PolicySpec(4, 1, (3,))


def rows(count: int, returns: object = None, spec: PolicySpec = SPEC):
    made = build_rows(count, spec=spec)
    if returns is None:
        return made
    return dataclasses.replace(made, returns=np.broadcast_to(np.float32(returns), (2, count)).T.copy())


NEAR = [2.0, *[1.0] * 11]
SETS = {
    "none": [],
    "one": [rows(1)],
    "two": [rows(2)],
    "one of each": [rows(1), rows(1, spec=PolicySpec(4, 1, (5,)))],
    "equal": [rows(12, 1.0)],
    "nearly equal": [rows(12, NEAR)],
    "as near as numbers can be": [rows(12, [np.nextafter(np.float32(1), np.float32(2)), *[1.0] * 11])],
    "equal and huge": [rows(12, 3e38)],
    "not a number": [dataclasses.replace(rows(12, np.nan), finite=np.zeros((12, 2), bool))],
}
VERBS = (
    "info a.zarr --plot i.png",
    "info a.zarr --commits --json",
    "plot a.zarr",
    "validate a.zarr --deep --resimulate 3 --quiet",
    "merge a.zarr --out m.zarr",
    "filter a.zarr --where return>0 --out f.zarr",
    "sample a.zarr --rows 2 --out s.zarr",
    "split a.zarr",
    "compact a.zarr",
    "gc a.zarr",
    "diff a.zarr a.zarr",
    "export-hdf5 a.zarr --out e.h5",
    "export-npz a.zarr --out e.npz",
    "export-policy a.zarr --out p.safetensors",
    "card a.zarr",
)
TRAIN = "train-offline a.zarr --critic mlp --quiet --set epochs=1 --set widths=[4] --set resamples=5"
SPLITS = ("all", "iid", "lineage", "high", "source", "architecture")


@pytest.fixture
def answers(in_tmp, shell):
    """Runs a verb on a.zarr; where it does not do its work, it says why in one sentence."""

    def run(line: str) -> str:
        done = shell(*line.split(), code=None)
        assert "Warning" not in done.stderr, done.stderr
        if done.returncode:
            told = done.stderr.strip() or next(part for part in done.stdout.splitlines() if "problem" in part)
            assert "\n" not in told, (line, told)
            assert told.endswith("."), (line, told)
        return done.stderr + done.stdout

    return run


def make_set(name: str) -> None:
    with Writer.open("a.zarr", env_identity(ENV)) as writer:
        for group in SETS[name]:
            writer.commit(group, {})


ALWAYS = ("none", "one", "nearly equal")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.soak] * (name not in ALWAYS)) for name in SETS])
def test_every_verb_has_an_answer(answers, name):
    make_set(name)
    for line in VERBS:
        answers(line)
    answers(TRAIN)


@pytest.mark.parametrize("name", ["nearly equal", pytest.param("as near as numbers can be", marks=pytest.mark.soak)])
def test_every_split_has_an_answer(answers, name):
    make_set(name)
    for split in SPLITS:
        told = answers(f"{TRAIN} --split {split} --critic ridge --out {split}")
        assert ("leaves no rows to train on" in told) == (split in ("high", "all"))
    for run in ("all", "iid", "lineage", "source"):
        assert Path(run, "report.json").exists()
    answers("evaluate all --no-rollouts --quiet")
    answers("compare all iid --plot c.png")
