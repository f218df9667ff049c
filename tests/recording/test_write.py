"""Rows that were made elsewhere: one call, a data set that is in order, a sentence for what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epvf_data
from epvf_data.errors import ArchitectureMismatchError, ConfigError, DatasetError, EnvironmentMismatchError

SPEC = epvf_data.PolicySpec(3, 2, hidden=(4,))
TASK = epvf_data.task("reacher", 3, 2, horizon=50, timestep=0.02, simulator="mine 3.1")
RANDOM = np.random.default_rng(0)
PARAMS = RANDOM.normal(size=(6, SPEC.size))


@given(rows=st.integers(1, 40), episodes=st.integers(1, 3), seed=st.integers(0, 1000))
@settings(max_examples=6)
def test_what_is_written_is_read_and_in_order(tmp_path_factory, rows, episodes, seed):
    random, path = np.random.default_rng(seed), tmp_path_factory.mktemp("rows") / "mine.zarr"
    params, returns = random.normal(size=(rows, SPEC.size)), random.normal(size=(rows, episodes))
    lengths, base = random.integers(0, 51, (rows, episodes)), [f"base{row % 3}" for row in range(rows)]
    actions = random.uniform(-1, 1, (rows, 5, 2))
    probes = {"probe_states": random.normal(size=(5, 3)), "probe_actions": actions}
    found = epvf_data.write(path, TASK, SPEC, params, returns, lengths=lengths, base=base, source="cma", **probes)
    assert epvf_data.validate(path, deep=True) == []
    table = found.table()
    np.testing.assert_array_equal(table.column("params"), params.astype(np.float32))
    np.testing.assert_array_equal(table.column("returns"), returns.astype(np.float32))
    np.testing.assert_array_equal(table.column("terminated"), lengths < 50)
    np.testing.assert_array_equal(table.column("probe_actions"), actions.astype(np.float32))
    assert found.lineage().words("base") == base


def test_a_second_call_adds_a_commit_and_another_task_is_refused(tmp_path):
    path = tmp_path / "mine.zarr"
    epvf_data.write(path, TASK, SPEC, PARAMS, np.arange(6.0), note="first night")
    found = epvf_data.write(path, TASK, SPEC, PARAMS + 1, np.arange(6.0), source=["a"] * 3 + ["b"] * 3)
    assert (found.rows, len(found.commits)) == (12, 2)
    assert found.commits[0].provenance["note"] == "first night"
    assert found.summary()["sources"] == {"elsewhere": 6, "a": 3, "b": 3}
    other = epvf_data.task("reacher", 3, 2, horizon=50, timestep=0.02, simulator="mine 3.2")
    with pytest.raises(EnvironmentMismatchError, match="reacher"):
        epvf_data.write(path, other, SPEC, PARAMS, np.arange(6.0))


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"params": PARAMS[:, 1:]}, ArchitectureMismatchError, "policy 3-4-2 needs"),
        ({"returns": np.array([np.nan] * 6)}, DatasetError, "returns holds numbers that are not finite"),
        ({"returns": np.zeros((6, 1, 1))}, DatasetError, r"expected \[rows\] or \[rows, episodes\]"),
        ({"returns": np.zeros(5)}, DatasetError, "params is"),
        ({"lengths": np.full(6, 51)}, DatasetError, "the horizon is 50"),
        ({"lengths": np.full(6, 9), "terminated": np.zeros(6, bool)}, DatasetError, "must be terminated"),
        ({"base": ["one"]}, DatasetError, "lineage"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_writes_nothing(tmp_path, changes, error, told):
    values = {"params": PARAMS, "returns": np.zeros(6), **changes}
    with pytest.raises(error, match=told):
        epvf_data.write(tmp_path / "mine.zarr", TASK, SPEC, values.pop("params"), values.pop("returns"), **values)
    assert not list(tmp_path.iterdir())


def test_a_task_says_what_is_wrong_with_it():
    with pytest.raises(ConfigError, match="horizon is 0; expected a whole number of at least 1"):
        epvf_data.task("reacher", 3, 2, horizon=0)


def test_rows_of_an_environment_of_this_package_can_be_rolled_out_again(tmp_path):
    env = epvf_data.make_env("cartpole")
    spec = epvf_data.PolicySpec(4, 1, hidden=(4,))
    params = RANDOM.normal(size=(4, spec.size)).astype(np.float32)
    outcomes = epvf_data.rollout(env.with_horizon(20), spec, params)
    found = epvf_data.write(
        tmp_path / "poles.zarr",
        env.with_horizon(20),
        spec,
        params,
        outcomes.returns,
        lengths=outcomes.lengths,
        terminated=outcomes.terminated,
        probe_states=RANDOM.normal(size=(3, 4)),
    )
    assert found.env.digest == env.with_horizon(20).digest
    assert found.table().column("probe_actions").shape == (4, 3, 1)
    assert epvf_data.validate(found.path, deep=True) == []


def test_functions_are_called_like_functions_also_after_their_modules_were_imported():
    import epvf_data.render.film
    import epvf_data.rollout as module

    assert callable(epvf_data.rollout)
    assert callable(epvf_data.render)
    assert module.rollout is not None
    with pytest.raises(ConfigError, match="there is no environment"):
        epvf_data.rollout("antt", SPEC, PARAMS)
    with pytest.raises(EpvfFile, match="no policy file"):
        epvf_data.render("missing.safetensors")


EpvfFile = epvf_data.errors.FileError
