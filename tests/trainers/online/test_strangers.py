"""What a stranger's checkpoint or data set says of a run of online training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from trainers import conftest as toys

import epvf_data
from epvf_data.errors import DatasetError, RunError
from epvf_data.trainers.online.record import _check
from epvf_data.trainers.online.standing import restored


class State(NamedTuple):
    iteration: np.ndarray
    fraction: np.ndarray
    inner: None = None


def tree(**changes):
    good = {"iteration": 3, "fraction": 0.5, "env_steps": 7, "seconds": 1.0}
    found = {name: np.array([value]) for name, value in (good | changes).items()}
    state = State(found.pop("iteration"), found.pop("fraction"))
    zeros = dict.fromkeys(("best_score", "best", "last", "returns"), np.zeros(1))
    return {**zeros, "state": state, "env_steps": found["env_steps"], "seconds": found["seconds"][0]}


def test_counters_that_no_training_reaches():
    form = SimpleNamespace(state=State(np.zeros(1), np.zeros(1)))
    assert restored(tree(), form).env_steps == 7
    for name, values in {
        "iteration": (-1,),
        "fraction": (np.nan, np.inf, -0.5),
        "env_steps": (-(2**40),),
        "seconds": (np.nan, np.inf, -1.0),
    }.items():
        for value in values:
            with pytest.raises(RunError, match="counters that no training reaches"):
                restored(tree(**{name: value}), form)


@pytest.mark.parametrize("iterations", [None, "x", [1], [0, "x"], [0, 1e300]])
def test_commits_that_do_not_say_which_iterations_they_hold(tmp_path, monkeypatch, iterations):
    path = toys.write(tmp_path / "rows.zarr", *toys.linear_rows(rows=20))
    env = SimpleNamespace(name="toy", digest=toys.ENV.digest)
    monkeypatch.setattr("epvf_data.trainers.online.record.check_target", lambda *_: None)  # it is no environment
    assert _check(path, env, toys.SPEC, "run") == 0
    (commit,) = epvf_data.open(path).commits
    commit.provenance.update(run="run", iterations=iterations)
    opened = SimpleNamespace(env=toys.ENV, architectures=epvf_data.open(path).architectures, commits=[commit])
    monkeypatch.setattr("epvf_data.trainers.online.record.reader.open", lambda where: opened)
    with pytest.raises(DatasetError, match="do not say of which iterations"):
        _check(path, env, toys.SPEC, "run")
    assert _check(path, env, toys.SPEC, "another") == 0
