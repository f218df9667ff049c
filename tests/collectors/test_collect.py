"""`collect` on real physics and a real store, interrupted by real signals."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import epvf_data
from epvf_data import envs
from epvf_data.collectors.bundled import bundled_files
from epvf_data.collectors.collect import collect
from epvf_data.collectors.lot import lot_of
from epvf_data.collectors.resimulate import resimulate
from epvf_data.collectors.setting import collect_config
from epvf_data.envs import template
from epvf_data.errors import (
    ArchitectureMismatchError,
    ConfigError,
    DatasetError,
    EnvironmentMismatchError,
    StorageError,
)
from epvf_data.physics.trajectory import trajectory
from epvf_data.policies import mlp
from epvf_data.policies.files import load_policy, save_policy
from epvf_data.policies.spec import PolicySpec
from epvf_data.recording.probes import SHIPPED, draw, probing_states
from epvf_data.rollout import rollout
from epvf_data.store.digest import content_hash
from epvf_data.store.validate import leftovers
from epvf_data.streams import stream

SMALL = {"envs": 32, "horizon": 20, "policy.hidden": [8], "perturbed.bases": ["random"], "perturbed.random_bases": 3}


def config(env="ant", **settings):
    return collect_config(env, **{**SMALL, **settings})


def test_rows_hold_what_was_rolled_out(in_tmp):
    report = collect(config(discount=0.9), "ant.zarr")
    dataset = epvf_data.open("ant.zarr")
    table = dataset.table()
    assert (report.rows, report.rows_total, report.commits, len(dataset)) == (32, 32, 1, 32)
    assert dataset.env.digest == envs.make("ant").with_horizon(20).digest
    params, returns = table.column("params"), table.column("returns")
    again = rollout(envs.make("ant").with_horizon(20), table.spec, params, discount=0.9)
    np.testing.assert_array_equal(again.returns, returns)
    np.testing.assert_array_equal(again.discounted, table.column("discounted_returns"))
    np.testing.assert_array_equal(again.lengths, table.column("lengths"))
    assert report.env_steps == table.column("lengths").sum()
    assert report.return_max == returns.max()
    states = table.probe_states
    for row in (0, 31):
        tensors = mlp.unflatten(table.spec, jnp.asarray(params[row]))
        expected = jax.vmap(lambda state, t=tensors: mlp.apply(table.spec, t, state))(states)
        np.testing.assert_allclose(table.column("probe_actions")[row], expected, atol=1e-6)
    record = dataset.commits[0].provenance
    assert record["versions"]["mujoco"]
    assert record["config"]["discount"] == 0.9
    assert record["started"] <= record["ended"]


def test_lineage_groups_are_the_families(in_tmp):
    collect(config(), "ant.zarr")
    table = epvf_data.open("ant.zarr").table()
    groups, base = table.groups(), table.column("base")
    for family in range(3):
        assert len(np.unique(groups[base == family])) == 1
    assert len(np.unique(groups)) == 3 + (base < 0).sum()


def test_batches_are_bounded_and_resume_gives_the_uninterrupted_rows(in_tmp):
    whole = collect(config(policies=80), "whole.zarr")
    assert whole.commits == 3
    collect(config(policies=32), "parts.zarr")
    extended = collect(config(policies=80), "parts.zarr", resume=True)
    assert (extended.rows, extended.rows_total) == (48, 80)
    again = collect(config(policies=80), "parts.zarr", resume=True)
    assert (again.rows, again.commits, again.return_mean) == (0, 0, None)
    assert content_hash(epvf_data.open("parts.zarr")) == content_hash(epvf_data.open("whole.zarr"))


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, *(pytest.param(one, marks=pytest.mark.soak) for one in (signal.SIGINT, signal.SIGTERM))]
)
def test_a_killed_collection_keeps_its_commits_and_resumes_to_the_same_rows(in_tmp, shell, how):
    command = [sys.executable, "-m", "epvf_data", "collect", "--env", "ant", "--json", "--policies", "800", "--quiet"]
    settings = ["policy.hidden=[8]", "perturbed.bases=random", "perturbed.random_bases=3"]
    words = [word for setting in settings for word in ("--set", setting)]
    words += ["--envs", "32", "--horizon", "60", "--out", "killed.zarr"]
    process = subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True)
    commits = in_tmp / "killed.zarr" / "commits"
    deadline = time.time() + 60
    while len(list(commits.glob("0*.json"))) < 3 and time.time() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, how)
    message = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    kept = epvf_data.open("killed.zarr").rows
    assert 96 <= kept < 800
    if how == signal.SIGINT:
        assert f"{kept} rows are committed in killed.zarr; continue with: epvf-data collect" in message
        assert "Traceback" not in message
    done = shell(*command[3:], *words, "--resume")
    assert json.loads(done.stdout)["rows_total"] == 800
    settings = {"policy.hidden": [8], "perturbed.bases": ["random"], "perturbed.random_bases": 3}
    collect(collect_config("ant", envs=64, policies=800, horizon=60, **settings), "whole.zarr")
    assert content_hash(epvf_data.open("killed.zarr")) == content_hash(epvf_data.open("whole.zarr"))


def test_stored_rows_roll_out_to_the_same_returns_in_a_new_process(in_tmp):
    collect(config(policies=64), "ant.zarr")
    command = [sys.executable, "-m", "epvf_data", "validate", "ant.zarr", "--deep", "--resimulate", "64", "--json"]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (result["ok"], result["rows"], result["problems"], result["notes"]) == (True, 64, [], [])
    assert (result["resimulated"], result["max_return_error"]) == (64, 0.0)
    assert result["rank_correlation"] > 0.999


def test_resimulation_finds_returns_that_are_not_the_policies(in_tmp, monkeypatch):
    from epvf_data.collectors import collect as module

    def lie(*args, **kwargs):
        outcomes = rollout(*args, **kwargs)
        outcomes.returns[5] += 1.0
        return outcomes

    monkeypatch.setattr(module, "rollout", lie)
    collect(config(), "ant.zarr")
    result = resimulate(epvf_data.open("ant.zarr"), 32)
    assert result.max_error == pytest.approx(1.0, abs=1e-3)
    assert len(result.problems) == 1
    assert "row 5 of architecture" in result.problems[0]


def test_on_another_backend_only_the_distribution_counts(in_tmp, monkeypatch):
    from epvf_data.collectors import collect as module

    (in_tmp / "swing.py").write_text(Path(template.__file__).read_text().replace("my-pendulum", "swing"))
    where = "swing.py:make"  # MJX compiles it in a few seconds
    made = config(where, policies=64, horizon=60, backend="native")
    collect(made, "swing.zarr")
    result = resimulate(epvf_data.open("swing.zarr"), 64, backend="mjx", env=where)
    assert not result.exact
    assert result.max_error > 0
    assert result.problems == []
    assert result.rank_correlation > 0.5
    assert "round otherwise" in result.describe()

    def lie(*args, **kwargs):
        outcomes = rollout(*args, **kwargs)
        return outcomes._replace(returns=outcomes.returns + 10)

    monkeypatch.setattr(module, "rollout", lie)
    collect(made, "lies.zarr")
    result = resimulate(epvf_data.open("lies.zarr"), 64, backend="mjx", env=where)
    assert len(result.problems) == 1
    assert "distributed otherwise" in result.problems[0]


def test_a_collection_goes_on_after_compaction_and_not_after_a_merge(in_tmp):
    from epvf_data.curation.merge import merge
    from epvf_data.store.compact import compact
    from epvf_data.store.garbage import collect_garbage

    collect(config(policies=64), "ant.zarr")
    merge(["ant.zarr"], "merged.zarr")
    assert compact("ant.zarr").parts_after == 1
    collect_garbage("ant.zarr", grace=0)
    assert collect(config(policies=96), "ant.zarr", resume=True).rows == 32
    collect(config(policies=96), "whole.zarr")
    assert content_hash(epvf_data.open("ant.zarr")) == content_hash(epvf_data.open("whole.zarr"))
    for resume in (False, True):
        with pytest.raises(DatasetError, match="made of other data sets"):
            collect(config(policies=96), "merged.zarr", resume=resume)
    assert resimulate(epvf_data.open("merged.zarr"), 16).exact


def test_commits_grow_with_the_collection(in_tmp):
    sizes = [collect_config("ant", policies=policies).envs for policies in (10, 10**6, 10**8, 10**9)]
    assert sizes == [4096, 4096, 8192, 65_536]
    assert collect_config("ant", policies=10**9, envs=512).envs == 512
    with pytest.raises(ConfigError, match="would be 312,500 commits, and a data set has at most 100,000"):
        collect(config(policies=10**7), "ant.zarr")
    assert list(in_tmp.iterdir()) == []


def test_two_that_resume_at_once_make_each_row_once(in_tmp):
    """The second one runs from its beginning to its end while the first one rolls out a batch."""
    small = {"env": "cartpole", "envs": 8, "horizon": 5, "episodes": 1}
    collect(config(**small, policies=8), "c.zarr")
    others = []

    def meanwhile(*_):
        if not others:  # in batches of another size, so that they overlap in parts
            others.append(collect(config(**{**small, "envs": 12}, policies=20), "c.zarr", resume=True))

    mine = collect(config(**small, policies=32), "c.zarr", resume=True, progress=meanwhile)
    assert (mine.rows, others[0].rows, mine.rows_total) == (12, 12, 32)
    collect(config(**small, policies=32), "whole.zarr")
    assert content_hash(epvf_data.open("c.zarr")) == content_hash(epvf_data.open("whole.zarr"))
    assert leftovers("c.zarr") == []


def test_two_that_begin_at_once_make_each_row_once(in_tmp):
    small = config("cartpole", envs=8, policies=16, horizon=5, episodes=1)
    others = []

    def meanwhile(*_):
        if not others:
            others.append(collect(small, "c.zarr", resume=True))

    mine = collect(small, "c.zarr", progress=meanwhile)
    assert (mine.rows, mine.return_mean, others[0].rows, mine.rows_total) == (0, None, 16, 16)


def test_cartpole_takes_several_episodes_from_different_starts(in_tmp):
    collect(config("cartpole", horizon=50), "cartpole.zarr")
    table = epvf_data.open("cartpole.zarr").table()
    returns = table.column("returns")
    assert returns.shape == (32, 8)
    assert (returns.std(axis=1) > 0).any()
    assert resimulate(epvf_data.open("cartpole.zarr"), 32).max_error == 0.0


def test_what_does_not_belong_together_is_refused_and_nothing_is_lost(in_tmp):
    collect(config(), "ant.zarr")
    before = content_hash(epvf_data.open("ant.zarr"))
    with pytest.raises(DatasetError, match="already holds 32 rows of exactly this collection"):
        collect(config(), "ant.zarr")
    with pytest.raises(EnvironmentMismatchError, match="rows of ant, this collection is of cartpole"):
        collect(config("cartpole"), "ant.zarr")
    with pytest.raises(EnvironmentMismatchError, match="digest"):
        collect(config(horizon=21), "ant.zarr")
    with pytest.raises(ArchitectureMismatchError, match="34-8-8 .* makes 34-9-8"):
        collect(config(**{"policy.hidden": [9]}), "ant.zarr")
    with pytest.raises(DatasetError, match="no row in ant.zarr comes from these settings"):
        collect(config(seed=1), "ant.zarr", resume=True)
    with pytest.raises(DatasetError, match="no data set missing.zarr to resume"):
        collect(config(), "missing.zarr", resume=True)
    (in_tmp / "file").write_text("")
    with pytest.raises(DatasetError):
        collect(config(), "file")
    assert content_hash(epvf_data.open("ant.zarr")) == before
    collect(config(seed=1), "ant.zarr")
    collect(config(**{"policy.hidden": [9]}), "ant.zarr", mixed=True)
    assert [item.rows for item in epvf_data.open("ant.zarr").architectures] == [64, 32]


def test_a_disk_without_room_is_noticed_before_anything_is_rolled_out(in_tmp, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1000))
    with pytest.raises(StorageError, match="free some space or ask for fewer --policies"):
        collect(config(), "ant.zarr")
    assert not (in_tmp / "ant.zarr").exists()


def test_policy_files_are_bases(in_tmp):
    spec = PolicySpec(34, 8, (8,))
    save_policy("base", spec, np.asarray(mlp.init(jax.random.key(5), spec)))
    collect(config(**{"perturbed.bases": ["base"], "random.share": 0.0}), "ant.zarr")
    table = epvf_data.open("ant.zarr").table()
    assert len(table.vocabulary("base")) == 1
    np.testing.assert_array_equal(table.column("params")[0], mlp.init(jax.random.key(5), spec))


def test_run_identity_ignores_how_many_and_knows_what():
    same = lot_of(config(policies=64, envs=16)).run
    assert same == lot_of(config()).run
    assert same != lot_of(config(seed=1)).run
    assert same != lot_of(config(**{"perturbed.scales": [0.5]})).run


@pytest.mark.parametrize("name", sorted(envs.ENVS))
def test_shipped_probing_states_fit_their_environment_and_differ(name):
    env = envs.make(name)
    states = probing_states(env, SHIPPED)
    assert states.shape == (SHIPPED, env.observation_size)
    assert len(np.unique(states, axis=0)) > 0.9 * SHIPPED
    assert (states.std(axis=0) > 0).sum() >= 0.9 * env.observation_size


STATES = np.random.default_rng(0).normal(size=(5, 4))


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f2", ">f8", "<i8", "u1", "fortran", "float128"])
def test_probing_states_of_every_kind_of_numbers(tmp_path, kind):
    dtype = {"fortran": "f4", "float128": np.longdouble}.get(kind, kind)
    given = (10 * abs(STATES)).astype(dtype)
    np.save(tmp_path / "mine.npy", np.asfortranarray(given) if kind == "fortran" else given)
    found = probing_states(envs.make("cartpole"), 5, str(tmp_path / "mine.npy"))
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_array_equal(found, given.astype(np.float32))


@pytest.mark.parametrize(
    "content",
    [STATES.astype(complex), STATES.astype("V4"), STATES > 0, STATES.astype("S4"), STATES.astype(object), STATES[None],
     np.zeros(5, [("a", "f4"), ("ü", "f4")]), np.float32(3), np.zeros((0, 4)), np.full((5, 4), 1e300),
     np.full((5, 4), np.nan), "npz", b"", b"1,2,3,4\n", b"\x93NUMPY", b"\x93NUMPY\x09\x00", b"PK\x03\x04",
     b"\x80\x02}q\x00."],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_files_that_hold_no_probing_states(tmp_path, content):
    path = tmp_path / "mine.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        np.savez(tmp_path / "mine", STATES)
        (tmp_path / "mine.npz").rename(path)
    else:
        with warnings.catch_warnings(action="ignore"):  # NumPy's, of names that are not ASCII
            np.save(path, content, allow_pickle=True)
    with pytest.raises(ConfigError, match="probing states") as caught:
        probing_states(envs.make("cartpole"), 5, str(path))
    assert "\n" not in str(caught.value)


def test_half_of_the_probing_states_are_what_trained_policies_see():
    env = envs.make("cartpole")
    trained = load_policy(bundled_files(env)[-1])
    states = draw(env, 32, trained=[trained])
    keys = [np.asarray(jax.random.key_data(jax.random.fold_in(stream(0, "probe"), number))) for number in (1, 3)]
    seen = np.concatenate([trajectory(env, *trained, key).observations for key in keys])
    assert sum((seen == state).all(axis=1).any() for state in states) == 16


def test_probing_states_can_be_drawn_or_given(in_tmp):
    env = envs.make("cartpole")
    drawn = draw(env, 5)
    np.save("mine.npy", drawn)
    np.testing.assert_array_equal(probing_states(env, 5, "mine.npy"), drawn)
    with pytest.raises(ConfigError, match="there are 5"):
        probing_states(env, 6, "mine.npy")
    with pytest.raises(ConfigError, match="needs finite numbers of shape"):
        probing_states(envs.make("ant"), 5, "mine.npy")
    (in_tmp / "bad.npy").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        probing_states(env, 5, "bad.npy")
